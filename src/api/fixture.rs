//! A gateway's admin side over a database of its own, for tests.

use std::{num::NonZeroU32, sync::Arc};

use axum::{Router, body::Body, extract::FromRef, response::Response};
use http::{Method, Request, header::AUTHORIZATION};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{
    accounts::{Accounts, AdminKeys},
    clock::Clock,
    domain::{
        catalog::{Catalog, Model, Snapshot, Tier},
        keys::Pepper,
        limits::Limits,
        projects::TierId,
        time::UnixNanos,
    },
    store::Store,
};

pub(crate) const ADMIN_KEY: &str = "an admin key for tests, long enough";
pub(crate) const NOW_SECONDS: u64 = 1_700_000_000;

#[derive(Clone)]
pub(crate) struct AdminSide {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) admin_keys: Arc<AdminKeys>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<Store>,
    _directory: Arc<tempfile::TempDir>,
}

macro_rules! part {
    ($($field:ident: $part:ty),*) => {$(
        impl FromRef<AdminSide> for $part {
            fn from_ref(side: &AdminSide) -> Self {
                side.$field.clone()
            }
        }
    )*};
}
part!(accounts: Arc<Accounts>, admin_keys: Arc<AdminKeys>, catalog: Arc<Catalog>, store: Arc<Store>, clock: Clock);

impl AdminSide {
    pub(crate) async fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        let (pepper, now) = (Pepper::from_bytes([7; 32]), UnixNanos::from_seconds(NOW_SECONDS));
        let (admin_keys, _) = AdminKeys::load(Some(ADMIN_KEY), pepper.clone(), Arc::clone(&store), now).await.unwrap();
        Self {
            accounts: Accounts::load(Arc::clone(&store), pepper).await.unwrap(),
            admin_keys,
            catalog: Arc::new(Catalog::new(vec![], vec![tier("tier1"), tier("tier2")]).unwrap()),
            clock: Clock::manual(now),
            store,
            _directory: directory,
        }
    }

    /// With model pages in the catalog, each with one snapshot `<id>-1`, which answers. The first has limits of its own for `tier1`.
    pub(crate) fn with_models(mut self, ids: &[&str]) -> Self {
        let model = |id: &str| Model {
            id: id.into(),
            limit_group: id.into(),
            snapshots: vec![Snapshot { id: format!("{id}-1").into(), ..Snapshot::default() }],
            default_snapshot: Some(format!("{id}-1").into()),
            ..Model::default()
        };
        let mut models: Vec<_> = ids.iter().map(|id| model(id)).collect();
        let own = Limits {
            requests_per_minute: NonZeroU32::new(10),
            requests_per_day: NonZeroU32::new(100),
            tokens_per_minute: NonZeroU32::new(1_000),
            batch_queue_tokens: Some(10_000),
            ..Limits::default()
        };
        models[0].limits.insert(TierId::from("tier1"), own);
        self.catalog = Arc::new(Catalog::new(models, vec![tier("tier1"), tier("tier2")]).unwrap());
        self
    }

    /// The newest row of the audit log.
    pub(crate) async fn last_audit(&self) -> Value {
        let (status, log) = self.as_admin(ADMIN_KEY, Method::GET, "audit_logs?limit=1", Body::empty()).await;
        assert_eq!(status, 200, "{log}");
        log["data"][0].clone()
    }

    /// The accounts as another start finds them.
    pub(crate) async fn reloaded(&self) -> Arc<Accounts> {
        Accounts::load(Arc::clone(&self.store), Pepper::from_bytes([7; 32])).await.unwrap()
    }

    pub(crate) fn router(&self) -> Router {
        super::management_routes()
            .into_router()
            .method_not_allowed_fallback(super::error::method_not_allowed)
            .with_state(self.clone())
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router().oneshot(request).await.unwrap()
    }

    /// As the admin; `path` is below `/v1/organization/projects`.
    pub(crate) async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> (u16, Value) {
        self.as_admin(ADMIN_KEY, method, &format!("projects{path}"), body).await
    }

    /// With any admin key; `path` is below `/v1/organization/`.
    pub(crate) async fn as_admin(&self, key: &str, method: Method, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/organization/{path}"))
            .header(AUTHORIZATION, format!("Bearer {key}"))
            .body(body.into())
            .unwrap();
        read(self.send(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, Body::empty()).await
    }
}

pub(crate) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn tier(id: &str) -> Tier {
    Tier {
        id: TierId::from(id),
        name: id.to_owned(),
        order: 1,
        is_default: false,
        qualification: None,
        monthly_usage_limit_dollars: None,
        models: None,
        default_limits: Limits { requests_per_minute: NonZeroU32::new(500), ..Limits::default() },
    }
}
