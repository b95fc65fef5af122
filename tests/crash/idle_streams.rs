//! Memory per stream that waits for its upstream. `TOLLGATE_FLOOD_STREAMS` for more of them (`scripts/flood`).

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    client::{get, request},
    measure::{number, processor_ms, resident_kib, until},
    process::{Gateway, Key, LookAlike, Setup},
};

const PATIENCE: Duration = Duration::from_mins(1);
/// Opened at one time: the kernel's queues are short.
const AT_ONCE: usize = 50;

pub fn stream() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": true})
}

/// A stream of the look-alike with `fault`, as bytes.
pub fn streaming(key: &Key, fault: &str) -> Vec<u8> {
    request("POST", "/v1/chat/completions", &key.plain, &[("x-simulate", fault)], &stream().to_string())
}

/// From one of several addresses: one has too few ports for a flood.
pub async fn connect(address: SocketAddr, number: usize, receive_bytes: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.bind(format!("127.0.0.{}:0", 2 + number % 8).parse().unwrap()).unwrap();
    timeout(PATIENCE, socket.connect(address)).await.unwrap().unwrap()
}

/// `count` streams whose first bytes have come.
async fn open_streams(gateway: &Gateway, request: &[u8], count: usize) -> Vec<TcpStream> {
    let (mut streams, mut opening) = (Vec::with_capacity(count), JoinSet::new());
    for number in 0..count {
        if opening.len() >= AT_ONCE {
            streams.push(opening.join_next().await.unwrap().unwrap());
        }
        let (address, request) = (gateway.calls, request.to_vec());
        opening.spawn(async move {
            let mut stream = connect(address, number, None).await;
            stream.write_all(&request).await.unwrap();
            let mut head = [0; 12];
            timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            stream
        });
    }
    streams.extend(opening.join_all().await);
    streams
}

pub async fn gauge(gateway: &Gateway, name: &str) -> u64 {
    let page = get(gateway.admin, "/metrics", "").await.unwrap().text();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("tollgate_{name} ")));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stream_that_waits_costs_little_memory_and_no_processor_time() {
    let streams = number("TOLLGATE_FLOOD_STREAMS", 500);
    // Futures are larger in a build for tests. Half of it are the pages that hyper's four buffers begin with.
    let most_kib = if cfg!(debug_assertions) { 37 } else { 32 };
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup =
        Setup::new(dir.path(), &upstream).with("ON_CLIENT_DISCONNECT", "cancel").with("STREAM_IDLE_TIMEOUT_S", "900");
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    let process = gateway.process_id();
    let request = streaming(&key, "chunks=2;gap-ms=600000");
    // The first ones bring about what is made once.
    drop(open_streams(&gateway, &request, 20).await);
    until("the first are gone", PATIENCE, async || gauge(&gateway, "open_admissions").await == 0).await;

    let before_kib = resident_kib(process);
    let open = open_streams(&gateway, &request, streams).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(gauge(&gateway, "open_admissions").await, streams as u64);
    let (kib, began_ms) = (resident_kib(process), processor_ms(process));
    sleep(Duration::from_secs(2)).await;
    let busy_ms = processor_ms(process) - began_ms;
    let each_kib = kib.saturating_sub(before_kib) / streams as u64;
    println!(
        "{streams} idle streams: {} MiB in all, {each_kib} KiB each, {busy_ms} ms of processor time in 2 s",
        kib >> 10
    );
    assert!(each_kib <= most_kib, "{each_kib} KiB each");
    assert!(busy_ms <= 200 + streams as u64 / 20, "{busy_ms} ms in 2 s for nothing");
    if streams >= 9_000 && !cfg!(debug_assertions) {
        assert!(kib <= 288 << 10, "{kib} KiB");
    }

    drop(open);
    until("all are settled", PATIENCE, async || gauge(&gateway, "open_admissions").await == 0).await;
    gateway.stop();
    setup.assert_quiet_log();
}
