//! All long-lived parts: started in order, stopped in the reverse order.

mod adjustments;
mod apart;
mod audit;
mod batch_queue;
mod data_dir;
mod export;
mod gauges;
mod handover;
mod last_used;
mod ledger;
mod ledger_files;
mod listeners;
mod notices;
mod parts;
mod places;
mod promotion;
mod refusals;
mod request_ids;
mod retention;
mod stop;
mod webhooks;
mod what_if;
mod writers;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::FromRef};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    adjustments::Adjustments,
    data_dir::DataDir,
    handover::Handover,
    listeners::Listeners,
    parts::{body_limits, connect_upstream, drain_options, open_journal, proxy_options, server, webhook_receiver},
    places::Places,
    refusals::RefusalWriter,
    request_ids::RequestIds,
};
pub use self::{
    audit::verify_audit_log,
    batch_queue::{BatchQueue, EnqueueError, NewBatch},
    export::open_export,
    gauges::Trouble,
    handover::{HandoverError, Succession},
    ledger::{Ledger, LedgerError, Pass, Repricing, open_ledger, reprice},
    stop::Held,
    what_if::{Against, Names, Question, Replayed, WhatIfError, what_if},
};
pub use crate::store::{
    audit::Verified,
    export::{Export, Settled},
};
use crate::{
    accounts::{Accounts, AdminKeys, PlainAdminKey},
    clock::Clock,
    config::{Secret, Settings},
    domain::catalog::Catalog,
    journal::{Journal, JournalError, Recovered},
    metrics::Metrics,
    proxy::{Proxy, drain::Drainer, limiter::Limiter, recorder::Recorder, refusals::Refusals},
    secrets::{self, SecretsError},
    server::Server,
    store::{Progress, Projector, Store, StoreError, buckets::StoredBucket},
    upstream::webhook::{Receiver, WebhookError},
};

/// What handlers share.
pub struct App {
    pub clock: Clock,
    pub catalog: Arc<Catalog>,
    pub store: Arc<Store>,
    pub accounts: Arc<Accounts>,
    pub admin_keys: Arc<AdminKeys>,
    pub proxy: Arc<Proxy>,
    pub metrics: Arc<Metrics>,
    pub request_ids: RequestIds,
    pub body_limits: BodyLimits,
    pub batch_queue: Arc<BatchQueue>,
    journal: Arc<Journal>,
    projection: Progress,
    refusals: Arc<RefusalWriter>,
    stopping: AtomicBool,
}

/// What handlers are given: the app, or any of its parts that they ask for.
#[derive(Clone)]
pub struct AppState(pub Arc<App>);

macro_rules! part_of_the_app {
    ($($part:ty: $field:ident),*) => {$(
        impl FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.0.$field.clone()
            }
        }
    )*};
}
part_of_the_app!(Arc<Accounts>: accounts, Arc<AdminKeys>: admin_keys, Arc<Catalog>: catalog, Arc<Store>: store, Clock: clock);

#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub max_bytes: u64,
    pub idle: Duration,
}

/// The app and everything that runs for it.
pub struct Running {
    pub app: Arc<App>,
    /// Where callers and administrators are listened to; the same when one address serves both.
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// Made at this start, to be shown once.
    pub new_admin_key: Option<PlainAdminKey>,
    pub recovered: Recovered,
    server: Server,
    /// Keeps the administrators' thread, where they have an address of their own.
    _administration: Option<DropGuard>,
    tasks: TaskTracker,
    projection: JoinHandle<()>,
    writers: TaskTracker,
    /// Ends all of them and the projection.
    stop_writing: CancellationToken,
    shutdown_grace: Duration,
    /// Another gateway has the sockets and waits for the data.
    handed_over: CancellationToken,
    _data_dir: DataDir,
}

/// The two faces of the app; `api` builds them, so that `app` need not know its routes.
pub struct Routers {
    pub calls: fn(&Arc<App>) -> Router,
    pub administration: fn(&Arc<App>) -> Router,
    pub everything: fn(&Arc<App>) -> Router,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no upstream key: set OPENAI_API_KEY or TOLLGATE_UPSTREAM_KEY (or upstream_key in the configuration file)")]
    NoUpstreamKey,
    #[error("the upstream key has characters that cannot be sent in a header")]
    BadUpstreamKey,
    #[error("cannot set up TLS to the upstream: {0}")]
    Tls(rustls::Error),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
    #[error("the ledger: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(
        "the project {project} is in the tier {tier:?}, which is not in the tiers file: a project without a tier would have no \
         limits; put the tier back"
    )]
    NoSuchTier { project: String, tier: String },
    #[error("cannot listen on {address}: {error}{hint}")]
    Listen { address: String, error: std::io::Error, hint: &'static str },
}

impl App {
    /// False while new requests are refused: the gateway is stopping, or they could not be recorded.
    pub fn takes_requests(&self) -> bool {
        !self.is_stopping() && self.journal.state().failing.is_none()
    }

    /// Requests are still answered, and told that they are the last on their connection.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

impl Running {
    /// Starts everything in order: data, addresses, journal, ledger, secrets, accounts, limits, upstream, listeners.
    /// Addresses come before secrets: an admin key that is made here is shown only after a start that succeeded.
    pub async fn start(
        settings: &Settings,
        catalog: Catalog,
        clock: Clock,
        routers: &Routers,
    ) -> Result<Self, StartError> {
        Self::succeed(settings, catalog, clock, routers, Succession::default()).await
    }

    /// The same with sockets of before.
    pub async fn succeed(
        settings: &Settings,
        catalog: Catalog,
        clock: Clock,
        routers: &Routers,
        succession: Succession,
    ) -> Result<Self, StartError> {
        let (upstream, receiver) = (connect_upstream(settings)?, webhook_receiver(settings)?);
        let succession = succession.begin(&settings.data_dir).await?;
        let data_dir = DataDir::open_within(&settings.data_dir, succession.wait).await?;
        data_dir.check_ledger()?;
        let listeners = Listeners::bind(settings, succession).await?;
        let now = clock.now();
        let store = Arc::new(Store::open(&data_dir.ledger()).await?);
        let (journal, recovered) = open_journal(settings, &data_dir, now).await?;
        let mut projector = Projector::new(Arc::clone(&journal), Store::clone(&store));
        projector.catch_up().await?;
        let pepper = settings.pepper.as_ref().map(Secret::reveal);
        let pepper = secrets::pepper(pepper, data_dir.path(), &store).await?;
        let admin_key = settings.admin_key.as_ref().map(Secret::reveal);
        let (admin_keys, new_admin_key) = AdminKeys::load(admin_key, pepper.clone(), Arc::clone(&store), now).await?;
        let accounts = Accounts::load(Arc::clone(&store), pepper).await?;
        check_tiers(&accounts, &catalog)?;
        let limiter = restored_limiter(projector.buckets(now).await?);
        let (catalog, metrics, tasks) = (Arc::new(catalog), Arc::new(Metrics::new()), TaskTracker::new());
        let (limits, promoting) = (accounts.organization_limits(), settings.promote_projects.then_some(&catalog));
        let adjustments = Adjustments::restored(&store, limits, promoting, clock.clone(), now).await?;
        let waiting = Arc::new(Refusals::new(Arc::clone(&metrics)));
        let batch_queue = Arc::new(BatchQueue::restored(Arc::clone(&store)).await?);
        let refusals = RefusalWriter::load(Arc::clone(&store), Arc::clone(&waiting), clock.clone()).await?;
        let proxy = Arc::new(Proxy {
            limiter,
            recorder: Arc::new(Recorder {
                journal: Arc::clone(&journal),
                catalog: Arc::clone(&catalog),
                metrics: Arc::clone(&metrics),
                spending: Arc::clone(adjustments.spending()),
                notices: Arc::default(),
                promotions: adjustments.promotions().cloned(),
                clock: clock.clone(),
            }),
            catalog: Arc::clone(&catalog),
            upstream,
            drainer: Arc::new(Drainer::new(drain_options(settings), tasks.clone(), Arc::clone(&metrics))),
            refusals: waiting,
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            options: proxy_options(settings),
        });
        let app = Arc::new(App {
            clock,
            catalog,
            store,
            accounts,
            admin_keys,
            proxy,
            metrics,
            request_ids: RequestIds::new(&mut secrets::random),
            batch_queue,
            body_limits: body_limits(settings),
            journal,
            projection: projector.progress(),
            refusals: Arc::new(refusals),
            stopping: AtomicBool::new(false),
        });
        let started = Started { new_admin_key, recovered, tasks, projector, adjustments, receiver, data_dir };
        Self::listen(app, settings, routers, listeners, started)
    }

    fn listen(
        app: Arc<App>,
        settings: &Settings,
        routers: &Routers,
        listeners: Listeners,
        started: Started,
    ) -> Result<Self, StartError> {
        let handover = Handover::listen(started.data_dir.path(), listeners.copies(), grace(settings));
        let Listeners { calls, administration, listen, admin_listen, kept_elsewhere } = listeners;
        let places = Places::count_out(settings);
        let server = server(settings, places.calls, Arc::clone(&app.metrics));
        let administration = match administration {
            None => {
                server.connections.spawn(server.clone().run(calls, (routers.everything)(&app)));
                None
            }
            Some(listener) => {
                server.connections.spawn(server.clone().run(calls, (routers.calls)(&app)));
                let places = Arc::new(Semaphore::new(places.administration));
                let server = Server { places, ..server.clone() };
                let apart = apart::serve(server, listener, (routers.administration)(&app));
                Some(apart.map_err(|error| StartError::Listen {
                    address: admin_listen.to_string(),
                    error,
                    hint: "",
                })?)
            }
        };
        let (stop_writing, handed_over) = (CancellationToken::new(), CancellationToken::new());
        if kept_elsewhere {
            server.queue_stays.cancel();
        }
        match handover {
            Ok(handover) => {
                tokio::spawn(handover.run(handed_over.clone(), server.stop.clone()));
            }
            Err(error) => tracing::warn!(%error, "no other gateway can take over from this one"),
        }
        // A new admin key is to be shown and saved first, or it could be lost after it was used.
        if started.new_admin_key.is_none() {
            server.open.cancel();
        }
        let writers = writers::start(&app, settings, started.adjustments, started.receiver, &stop_writing);
        Ok(Self {
            app,
            listen,
            admin_listen,
            new_admin_key: started.new_admin_key,
            recovered: started.recovered,
            server,
            _administration: administration,
            tasks: started.tasks,
            projection: tokio::spawn(started.projector.run(stop_writing.clone())),
            writers,
            stop_writing,
            shutdown_grace: grace(settings),
            handed_over,
            _data_dir: started.data_dir,
        })
    }

    /// Cancelled when another gateway takes over: then this one is to stop.
    pub const fn handed_over(&self) -> &CancellationToken {
        &self.handed_over
    }

    /// Saves the admin key that was made at this start, once it has been shown; only then is anybody answered.
    pub async fn keep_new_admin_key(&self) -> Result<(), StoreError> {
        let kept = self.app.admin_keys.keep_new().await;
        self.server.open.cancel();
        kept
    }
}

/// What starting has made that only [`Running`] keeps.
struct Started {
    new_admin_key: Option<PlainAdminKey>,
    recovered: Recovered,
    tasks: TaskTracker,
    projector: Projector,
    adjustments: Adjustments,
    receiver: Option<Receiver>,
    data_dir: DataDir,
}

/// Archived projects call nobody, and can be put into no other tier.
fn check_tiers(accounts: &Accounts, catalog: &Catalog) -> Result<(), StartError> {
    let projects = accounts.projects();
    let mut open = projects.iter().filter(|project| project.archived_at.is_none());
    match open.find(|project| catalog.tier(&project.tier).is_none()) {
        Some(lost) => Err(StartError::NoSuchTier { project: lost.id.to_string(), tier: lost.tier.as_str().to_owned() }),
        None => Ok(()),
    }
}

const fn grace(settings: &Settings) -> Duration {
    Duration::from_secs(settings.shutdown_grace_s)
}

fn restored_limiter(buckets: Vec<StoredBucket>) -> Limiter {
    let limiter = Limiter::default();
    for bucket in buckets {
        let key_id = bucket.key_id.as_ref();
        limiter.restore(&bucket.project_id, key_id, &bucket.limit_group, bucket.dimension, bucket.level);
    }
    limiter
}
