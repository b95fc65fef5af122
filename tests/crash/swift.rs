//! A client that keeps its connection and notes the times, for many requests in little time.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use tollgate::clock::Clock;

pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    url: String,
    authorization: String,
    clock: Clock,
}

/// What became of a request: when it was sent, and when all of its answer was there, in Unix nanoseconds.
pub struct Call {
    pub sent: u64,
    pub answered: u64,
    pub status: u16,
    pub request_id: String,
    /// As a refusal told it, else 0.
    pub wait_ms: u64,
}

impl Client {
    pub fn new(gateway: SocketAddr, key: &str, clock: Clock) -> Self {
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        Self {
            pool,
            url: format!("http://{gateway}/v1/chat/completions"),
            authorization: format!("Bearer {key}"),
            clock,
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.now().0
    }

    /// Never returns early.
    pub async fn sleep_until(&self, time: u64) {
        while let Some(left) = time.checked_sub(self.now()).filter(|left| *left > 0) {
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
    }

    pub async fn chat(&self, body: &str) -> Call {
        let request = Request::post(&self.url)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(Full::from(body.to_owned()))
            .unwrap();
        let sent = self.now();
        let (head, body) = self.pool.request(request).await.unwrap().into_parts();
        body.collect().await.unwrap();
        let answered = self.now();
        let text = |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        Call {
            sent,
            answered,
            status: head.status.as_u16(),
            request_id: text(&head.headers, "x-request-id").unwrap(),
            wait_ms: text(&head.headers, "retry-after-ms").map_or(0, |wait| wait.parse().unwrap()),
        }
    }
}
