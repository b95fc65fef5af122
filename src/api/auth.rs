//! Who is calling. Plain functions over the headers, and the same as extractors: a handler that takes a [`Caller`] or an
//! [`Admin`] cannot be reached without one.

use std::{borrow::Cow, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, GetAll},
    request::Parts,
};

use crate::{
    accounts::{Accounts, AdminKeys},
    clock::Clock,
    domain::{
        audit::{Actor, By},
        ids::AdminKeyId,
        keys::Caller,
        time::UnixNanos,
    },
    openai::error::ApiError,
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Proof that an admin key was presented, and which. Only [`admin`] makes one.
#[derive(Clone, Debug)]
pub struct Admin {
    key_id: AdminKeyId,
}

impl Admin {
    /// What this admin changes at `now` is written to the audit log under their key.
    pub fn acts(&self, now: UnixNanos) -> By {
        By { actor: Actor::AdminKey(self.key_id.clone()), at: now }
    }
}

/// The project behind the request's API key.
pub fn caller(accounts: &Accounts, headers: &HeaderMap, now: UnixNanos) -> Result<Caller, ApiError> {
    match credential(headers)? {
        Some(credential) => accounts.authenticate(&credential, now),
        None => Err(ApiError::no_key()),
    }
}

/// 401 without an admin key, but 403 to a valid API key: its owner is known, and not allowed.
pub fn admin(
    admin_keys: &AdminKeys,
    accounts: &Accounts,
    headers: &HeaderMap,
    now: UnixNanos,
) -> Result<Admin, ApiError> {
    let Some(credential) = credential(headers)? else { return Err(ApiError::admin_key_required()) };
    if let Some(key_id) = admin_keys.authenticate(&credential, now) {
        return Ok(Admin { key_id });
    }
    match accounts.authenticate(&credential, now) {
        Ok(_) => Err(ApiError::insufficient_permissions()),
        Err(_) => Err(ApiError::admin_key_required()),
    }
}

/// The key in `Authorization: Bearer <key>`. An `x-api-key` header is no credential, but one that differs tells that
/// something between the client and us added its own.
fn credential(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, ApiError> {
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return Err(ApiError::conflicting_credentials());
    }
    let bearer = authorization.and_then(bearer);
    if authorization.is_some() && differs(&headers.get_all(X_API_KEY), bearer) {
        return Err(ApiError::conflicting_credentials());
    }
    // Bytes that are no text become characters that no key has.
    Ok(bearer.map(String::from_utf8_lossy))
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked(b"bearer".len())?;
    let key = rest.trim_ascii();
    let separated = rest.first().is_some_and(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(b"bearer") && separated && !key.is_empty()).then_some(key)
}

fn differs(others: &GetAll<'_, HeaderValue>, bearer: Option<&[u8]>) -> bool {
    others.iter().any(|other| Some(other.as_bytes().trim_ascii()) != bearer)
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        caller(&Arc::from_ref(state), &parts.headers, Clock::from_ref(state).now())
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
    Arc<AdminKeys>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (admin_keys, accounts) = (Arc::<AdminKeys>::from_ref(state), Arc::<Accounts>::from_ref(state));
        admin(&admin_keys, &accounts, &parts.headers, Clock::from_ref(state).now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::fixture::{ADMIN_KEY, AdminSide},
        domain::{keys::KeyTerms, projects::TierId},
    };

    struct Fixture {
        side: AdminSide,
        key: String,
    }

    impl Fixture {
        async fn new() -> Self {
            let side = AdminSide::new().await;
            let now = side.clock.now();
            let project = side.accounts.create_project("a", TierId::from("tier1"), &By::gateway(now)).await.unwrap();
            let created =
                side.accounts.create_service_account(&project.id, "a", KeyTerms::default(), &By::gateway(now)).await;
            Self { key: created.unwrap().2.reveal().to_owned(), side }
        }

        fn caller(&self, headers: &[(&'static str, &str)]) -> Result<Caller, ApiError> {
            caller(&self.side.accounts, &map(headers), self.side.clock.now())
        }

        fn admin(&self, headers: &[(&'static str, &str)]) -> Result<Admin, ApiError> {
            admin(&self.side.admin_keys, &self.side.accounts, &map(headers), self.side.clock.now())
        }
    }

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[tokio::test]
    async fn the_scheme_is_read_in_any_case() {
        let fixture = Fixture::new().await;
        for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer   ", "Bearer \t"] {
            let header = format!("{scheme}{} ", fixture.key);
            assert!(fixture.caller(&[("authorization", &header)]).is_ok(), "{header}");
        }
    }

    #[tokio::test]
    async fn without_a_bearer_key_the_caller_is_told_how_to_send_one() {
        let fixture = Fixture::new().await;
        let (key, basic) = (&fixture.key, "Basic c2s6");
        let glued = format!("Bearer{key}");
        for authorization in ["", "Bearer", "Bearer ", basic, key, &glued, "Bearr x"] {
            assert_eq!(fixture.caller(&[("authorization", authorization)]).unwrap_err(), ApiError::no_key());
        }
        for elsewhere in ["x-api-key", "x_api_key", "api-key", "proxy-authorization", "cookie"] {
            assert_eq!(fixture.caller(&[(elsewhere, key)]).unwrap_err(), ApiError::no_key());
        }
    }

    #[tokio::test]
    async fn a_wrong_key_is_refused_and_shown_with_stars() {
        let fixture = Fixture::new().await;
        let other = fixture.key.replace("sk-tg_", "sk-xx_");
        let admin = format!("Bearer {ADMIN_KEY}");
        let (two, other) = (format!("Bearer {0} {0}", fixture.key), format!("Bearer {other}"));
        for wrong in [&*two, &*other, &*admin, "Bearer ' OR 1=1--", "Bearer \u{fffd}é", "Bearer ,"] {
            let error = fixture.caller(&[("authorization", wrong)]).unwrap_err();
            assert_eq!((error.status, error.code.as_deref()), (401, Some("invalid_api_key")), "{wrong}");
            assert!(!error.message.contains(&fixture.key[10..]) && !error.message.contains(ADMIN_KEY));
        }
        let bytes = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap())]);
        assert_eq!(caller(&fixture.side.accounts, &bytes, UnixNanos(0)).unwrap_err().status, 401);
    }

    #[tokio::test]
    async fn two_credentials_are_refused_even_when_one_is_good() {
        let fixture = Fixture::new().await;
        let good = format!("Bearer {}", fixture.key);
        let two: [&[(&str, &str)]; 5] = [
            &[("authorization", &good), ("authorization", "Bearer other")],
            &[("authorization", &good), ("authorization", &good)],
            &[("authorization", &good), ("x-api-key", "other")],
            &[("authorization", &good), ("x-api-key", &fixture.key), ("x-api-key", "other")],
            &[("authorization", "Basic c2s6"), ("x-api-key", &fixture.key)],
        ];
        for headers in two {
            let conflict = ApiError::conflicting_credentials();
            assert_eq!((conflict.status, conflict.code.as_deref()), (400, Some("conflicting_credentials")));
            assert_eq!(fixture.caller(headers).unwrap_err(), conflict, "{headers:?}");
            assert_eq!(fixture.admin(headers).unwrap_err(), conflict);
        }
        assert!(fixture.caller(&[("authorization", &good), ("x-api-key", &fixture.key)]).is_ok());
    }

    #[tokio::test]
    async fn the_admin_side_opens_for_the_admin_key_alone() {
        let fixture = Fixture::new().await;
        assert!(fixture.admin(&[("authorization", &format!("Bearer {ADMIN_KEY}"))]).is_ok());
        assert_eq!(fixture.admin(&[]).unwrap_err(), ApiError::admin_key_required());
        let wrong = format!("Bearer {ADMIN_KEY}!");
        assert_eq!(fixture.admin(&[("authorization", &wrong)]).unwrap_err(), ApiError::admin_key_required());
        let project_key = format!("Bearer {}", fixture.key);
        let error = fixture.admin(&[("authorization", &project_key)]).unwrap_err();
        assert_eq!((error.status, error.code), (403, None));
        assert!(error.message.starts_with("You have insufficient permissions for this operation. Missing scopes:"));
    }
}
