//! Valid requests with random damage, thousands of them from a fixed seed: whatever comes of one, the gateway stands, knows
//! what it sent, and owes nobody an entry in its ledger.

use std::{
    collections::BTreeSet,
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    raw::{Raw, parse},
    scripted::eventually,
    support::{ADMIN_KEY, Gateway, Reply},
};

const MUTATIONS: usize = 2_000;
const SEED: u64 = 0x5EED_7011_6A7E;
/// What is often special to a reader.
const TOKENS: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\0",
    b"\r\n\r\n",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"\\u0000",
    b"-1",
    b"999999999999999999999",
    b"1e309",
    b"%00",
    b": ",
    b"null",
    b"\xFF",
];

/// Xorshift: the same damage on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(12)).min(bytes.len());
        match self.below(5) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let token = TOKENS[self.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
    }
}

/// The address and the bytes of requests that are good.
fn good(gateway: &Gateway, key: &str) -> Vec<(String, Vec<u8>)> {
    let authorized = |method: &str, path: &str, key: &str| {
        Raw::new(method, path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
    };
    let chat = || authorized("POST", "/v1/chat/completions", key);
    let text = r#"{"model":"gpt-4o-mini","n":1,"max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let stream = r#"{"stream":true,"stream_options":{"include_usage":false},"model":"gpt-4o-mini","messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}"#;
    let spoken = r#"{"model":"gpt-4o-mini-audio-preview","modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"},"messages":[{"role":"user","content":"a"}]}"#;
    let calls = [
        chat().body(text),
        chat().body(stream),
        chat().body(spoken),
        chat().chunked(text.as_bytes(), 20),
        chat().header("x-tollgate-dry-run", "true").body(text),
        authorized("GET", "/v1/models/gpt-4o-mini", key).rest([]),
    ];
    let administration = [
        authorized("POST", "/v1/organization/projects", ADMIN_KEY).body(r#"{"name":"fuzz","tier":"tier1"}"#),
        authorized("GET", "/v1/organization/usage/completions?start_time=1789000000&bucket_width=1h", ADMIN_KEY)
            .rest([]),
        authorized("GET", "/v1/organization/requests?limit=3", ADMIN_KEY).rest([]),
    ];
    let at = |url: &str, requests: Vec<Vec<u8>>| requests.into_iter().map(|bytes| (url.to_owned(), bytes)).collect();
    let [calls, administration]: [Vec<_>; 2] =
        [at(&gateway.calls_url, calls.to_vec()), at(&gateway.admin_url, administration.to_vec())];
    [calls.clone(), calls, administration].concat()
}

/// Sends a request and reads until the connection closes, or leaves when nothing comes for a while: much damage makes a
/// request that never ends.
async fn send(url: &str, request: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_secs(1), stream.read_buf(&mut answer)).await {}
    parse(&answer)
}

#[tokio::test]
async fn no_damage_to_a_request_brings_the_gateway_down_or_its_books_out_of_order() {
    let gateway = Gateway::start().await;
    let team = gateway.project("tier5").await;
    let good = good(&gateway, team.key.as_deref().unwrap());
    let idle = gateway.metric("connections").await;
    // Everything of this gateway runs on this thread.
    let (panics, here) = (Arc::new(AtomicUsize::new(0)), thread::current().id());
    let (counted, before) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == here {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    let (mut random, mut tasks) = (Random(SEED), JoinSet::new());
    let (mut answered, mut completed, mut statuses) = (0, BTreeSet::new(), BTreeSet::new());
    for number in 0..MUTATIONS {
        let (url, mut request) = good[random.below(good.len())].clone();
        for _ in 0..=random.below(3) / 2 {
            random.damage(&mut request);
        }
        tasks.spawn(async move { (send(&url, &request).await, request) });
        while tasks.len() >= 64 || (number + 1 == MUTATIONS && !tasks.is_empty()) {
            let (reply, request) = tasks.join_next().await.unwrap().unwrap();
            let Some(reply) = reply else { continue };
            let (status, what) = (reply.status.as_u16(), request.escape_ascii());
            assert!(status < 500, "{status} {} to {what}", reply.text());
            answered += 1;
            statuses.insert(status);
            if status == 200
                && ["chat.completion\"", "chat.completion.chunk\""].iter().any(|object| reply.text().contains(object))
            {
                completed.insert(reply.header("x-request-id").to_owned());
            }
        }
    }
    let kept: BTreeSet<_> = gateway.ledger().await.into_iter().map(|row| row.request_id).collect();
    assert!(completed.is_subset(&kept), "not in the ledger: {:?}", completed.difference(&kept));
    assert_eq!(gateway.metric("upstream_calls_total").await, u64::try_from(kept.len()).unwrap());
    assert_eq!(panics.load(Ordering::Relaxed), 0, "something panicked");
    eventually("all connections are closed", async || gateway.metric("connections").await <= idle).await;
    assert_eq!(team.say("Hi").await.status, 200, "the gateway goes on");
    // The damage is neither too little nor too much to tell anything.
    assert!(answered > MUTATIONS / 2 && completed.len() > MUTATIONS / 20, "{answered} {}", completed.len());
    assert!(statuses.is_superset(&BTreeSet::from([200, 400, 401, 404, 405])), "{statuses:?}");
}
