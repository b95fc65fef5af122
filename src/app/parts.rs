//! What the parts of the app want of the settings.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{BodyLimits, StartError, data_dir::DataDir};
use crate::{
    config::{self, Settings},
    domain::{time::UnixNanos, webhooks::SigningKey},
    journal::{self, Journal, Recovered},
    metrics::Metrics,
    openai::endpoint::Endpoint,
    proxy::{self, StreamTimes, drain::DrainOptions},
    server::Server,
    store::StoreError,
    upstream::{
        self, Upstream,
        webhook::{Receiver, WebhookError},
    },
};

pub(super) fn connect_upstream(settings: &Settings) -> Result<Upstream, StartError> {
    let key = settings.upstream_key.as_ref().ok_or(StartError::NoUpstreamKey)?;
    let bearer = format!("Bearer {}", key.reveal());
    let authorization = http::HeaderValue::try_from(bearer).map_err(|_| StartError::BadUpstreamKey)?;
    let options = upstream::Options {
        url: settings.upstream_url.uri().clone(),
        paths: Endpoint::ALL.map(Endpoint::upstream_path).to_vec(),
        authorization,
        connect_timeout: Duration::from_secs(settings.upstream_connect_timeout_s),
        first_byte_timeout: Duration::from_secs(settings.upstream_first_byte_timeout_s),
        idle_connections: settings.upstream_idle_connections,
        most_failures: u32::try_from(settings.upstream_failures_in_a_row).unwrap_or(u32::MAX),
    };
    Upstream::new(options).map_err(StartError::Tls)
}

/// `None` when nobody is to be told. The settings have both or neither.
pub(super) fn webhook_receiver(settings: &Settings) -> Result<Option<Receiver>, WebhookError> {
    let key = settings.budget_webhook_secret.as_ref().and_then(|secret| SigningKey::parse(secret.reveal()));
    let receiver = settings.budget_webhook_url.as_ref().zip(key);
    receiver.map(|(url, key)| Receiver::new(url.as_str(), key)).transpose()
}

pub(super) async fn open_journal(
    settings: &Settings,
    data_dir: &DataDir,
    now: UnixNanos,
) -> Result<(Arc<Journal>, Recovered), StartError> {
    let options = journal_options(settings, data_dir);
    let opened = tokio::task::spawn_blocking(move || Journal::open(options, now)).await;
    Ok(opened.map_err(StoreError::from)??)
}

fn journal_options(settings: &Settings, data_dir: &DataDir) -> journal::Options {
    const MIB: u64 = 1 << 20;
    journal::Options {
        dir: data_dir.journal(),
        segment_bytes: settings.journal_segment_mib.saturating_mul(MIB),
        max_bytes: settings.journal_max_mib.saturating_mul(MIB),
        durability: match settings.durability {
            config::Durability::Process => journal::Durability::Process,
            config::Durability::Power => journal::Durability::Power,
        },
    }
}

pub(super) fn drain_options(settings: &Settings) -> DrainOptions {
    DrainOptions {
        policy: settings.on_client_disconnect,
        max_time: Duration::from_secs(settings.drain_max_s),
        max_bytes: settings.drain_max_bytes as u64,
        max_requests: settings.drain_max_requests,
    }
}

pub(super) fn proxy_options(settings: &Settings) -> proxy::Options {
    proxy::Options {
        reserve: settings.reserve,
        allow_unpriced: settings.allow_unpriced,
        stream_times: StreamTimes {
            idle: Duration::from_secs(settings.stream_idle_timeout_s),
            max: Duration::from_secs(settings.stream_max_s),
        },
        max_answer_bytes: settings.max_answer_bytes as u64,
    }
}

pub(super) const fn body_limits(settings: &Settings) -> BodyLimits {
    BodyLimits { max_bytes: settings.max_body_bytes as u64, idle: Duration::from_secs(settings.body_idle_timeout_s) }
}

/// With so many `places` for connections.
pub(super) fn server(settings: &Settings, places: usize, metrics: Arc<Metrics>) -> Server {
    Server {
        header_timeout: Duration::from_secs(settings.header_timeout_s),
        unread_timeout: Duration::from_secs(settings.unread_timeout_s),
        places: Arc::new(Semaphore::new(places)),
        metrics,
        connections: TaskTracker::new(),
        open: CancellationToken::new(),
        stop: CancellationToken::new(),
        queue_stays: CancellationToken::new(),
        last_call: CancellationToken::new(),
        cut: CancellationToken::new(),
    }
}
