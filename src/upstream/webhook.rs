//! The receiver of webhooks: one attempt to deliver an event.

use std::time::Duration;

use http::{StatusCode, header::CONTENT_TYPE};
use reqwest::{Client, Url, redirect::Policy};

use crate::domain::{
    time::UnixNanos,
    webhooks::{Event, SigningKey},
};

const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Receiver {
    client: Client,
    url: Url,
    key: SigningKey,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("budget_webhook_url is no address that can be called")]
    Address,
    #[error("cannot set up the client for the webhook's receiver: {0}")]
    Client(reqwest::Error),
    #[error("the webhook's receiver answered {0}")]
    Refused(StatusCode),
    #[error("the webhook's receiver was not reached, or did not answer in time: {0}")]
    NotReached(String),
}

impl Receiver {
    pub fn new(url: &str, key: SigningKey) -> Result<Self, WebhookError> {
        let url = Url::parse(url).map_err(|_| WebhookError::Address)?;
        // Fails only when a provider is there already, and then that one serves.
        rustls::crypto::ring::default_provider().install_default().ok();
        let user_agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
        let mut builder = Client::builder().timeout(TIMEOUT).redirect(Policy::none()).user_agent(user_agent);
        if url.scheme() == "http" {
            // A machine without certificates can still tell its neighbours.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(WebhookError::Client)?;
        Ok(Self { client, url, key })
    }

    /// Delivered is what is answered with 2xx. Nothing of the answer but its status is read.
    pub async fn post(&self, event: &Event, now: UnixNanos) -> Result<(), WebhookError> {
        let timestamp_s = now.seconds();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", self.key.sign(event, timestamp_s))
            .body(event.body.clone());
        // Its address may hold what only the receiver should know.
        let lost = |error: reqwest::Error| WebhookError::NotReached(cause(&error.without_url()));
        let status = request.send().await.map_err(lost)?.status();
        if status.is_success() { Ok(()) } else { Err(WebhookError::Refused(status)) }
    }
}

/// The innermost error says what happened.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
