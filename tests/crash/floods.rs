//! Clients that mean no good, in numbers: each is bounded in time and memory, and the others are served meanwhile.
//! `TOLLGATE_FLOOD_SOCKETS` for more of them (`scripts/flood`).

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{get, open, rest},
    idle_streams::{connect, gauge, streaming},
    measure::{first_free_file, number, processor_ms, resident_kib, until},
    process::{Gateway, Key, LookAlike, Setup, runs},
    survival::text,
};

const PATIENCE: Duration = Duration::from_secs(30);
const HEADER_TIMEOUT_S: u64 = 3;

/// Sends `beginning`, then a byte every half second where it drips, and tells when the server has closed.
async fn until_closed(mut socket: TcpStream, beginning: &'static [u8], drips: bool) -> Duration {
    let began = Instant::now();
    let _ = socket.write_all(beginning).await;
    let mut buffer = [0; 512];
    loop {
        assert!(began.elapsed() < PATIENCE, "it is held open");
        match timeout(Duration::from_millis(500), socket.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return began.elapsed(),
            Ok(Ok(_)) => {}
            Err(_silent) if drips => {
                let _ = socket.write_all(b"x").await;
            }
            Err(_silent) => {}
        }
    }
}

/// The slowest of some ordinary requests, one after the other.
async fn slowest(gateway: &Gateway, key: &Key, requests: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let began = Instant::now();
        assert_eq!(gateway.chat(key, &text()).await.status, 200);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[tokio::test]
async fn sockets_that_say_nothing_or_drip_are_closed_in_time_and_nobody_waits_for_them() {
    let sockets = number("TOLLGATE_FLOOD_SOCKETS", 100);
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let gateway = Setup::new(dir.path(), &upstream).with("HEADER_TIMEOUT_S", &HEADER_TIMEOUT_S.to_string()).start();
    let key = gateway.new_key(&json!({})).await;
    let alone = slowest(&gateway, &key, 20).await;
    let before_kib = resident_kib(gateway.process_id());
    let mut flood = JoinSet::new();
    for number in 0..sockets {
        let (silent, dripping) =
            (connect(gateway.calls, number, None).await, connect(gateway.calls, number, None).await);
        flood.spawn(until_closed(silent, b"", false));
        flood.spawn(until_closed(dripping, b"GET /health HTTP/1.1\r\nhost: x\r\nx-", true));
    }
    let crowded = slowest(&gateway, &key, 20).await;
    let kib = resident_kib(gateway.process_id()).saturating_sub(before_kib);
    let closed = flood.join_all().await;
    let last = closed.iter().max().unwrap();
    println!(
        "{} sockets: the last closed after {last:?}, {kib} KiB; a request {alone:?} before and {crowded:?} beside them",
        closed.len()
    );
    let most = Duration::from_secs(HEADER_TIMEOUT_S + if cfg!(debug_assertions) { 5 } else { 1 });
    assert!(closed.len() == 2 * sockets && *last < most, "{last:?}");
    assert!(crowded < alone * 10 + Duration::from_secs(1), "{crowded:?} beside them, {alone:?} alone");
    assert!(kib < 4 * 1_024 + closed.len() as u64 * 24, "{kib} KiB");
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
}

#[tokio::test]
async fn a_body_that_stops_frees_its_connection_and_holds_nothing() {
    let sockets = number("TOLLGATE_FLOOD_SOCKETS", 100);
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let gateway = Setup::new(dir.path(), &upstream).with("BODY_IDLE_TIMEOUT_S", "1").start();
    let key = gateway.new_key(&json!({})).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n{{",
        key.plain
    );
    let mut stopped = JoinSet::new();
    for number in 0..sockets {
        let (address, head) = (gateway.calls, head.clone());
        stopped.spawn(async move {
            let mut socket = connect(address, number, None).await;
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
            answer
        });
    }
    assert!(stopped.join_all().await.iter().all(|answer| answer == b"HTTP/1.1 408"));
    // The one that asks is the last.
    until("their places are free", PATIENCE, async || gauge(&gateway, "connections").await == 1).await;
    assert_eq!((gauge(&gateway, "open_admissions").await, gauge(&gateway, "upstream_calls_total").await), (0, 0));
}

async fn watch(process: u32, most_kib: Arc<AtomicU64>) {
    loop {
        most_kib.fetch_max(resident_kib(process), Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn bodies_without_an_end_are_refused_at_the_limit_and_not_kept() {
    const CLIENTS: u64 = 20;
    const MOST_BYTES: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let gateway = Setup::new(dir.path(), &upstream).with("MAX_BODY_BYTES", &MOST_BYTES.to_string()).start();
    let key = gateway.new_key(&json!({})).await;
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    let before_kib = resident_kib(gateway.process_id());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (address, key) = (gateway.calls, key.plain.clone());
        clients.spawn(async move {
            let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n");
            let mut announced = connect(address, 0, None).await;
            let ten_gigabytes = format!("{head}content-length: 10000000000\r\n\r\n");
            announced.write_all(ten_gigabytes.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            // Nothing of the body was sent, or asked for.
            timeout(PATIENCE, announced.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(&answer, b"HTTP/1.1 413");

            let (mut reading, mut writing) =
                connect(address, usize::try_from(number).unwrap(), None).await.into_split();
            let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x1_0000], b"\r\n"].concat();
            writing.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
            let sending = async {
                let mut sent = 0;
                while timeout(PATIENCE, writing.write_all(&chunk)).await.unwrap().is_ok() {
                    sent += chunk.len() as u64;
                }
                sent
            };
            let refused = async {
                timeout(PATIENCE, reading.read_exact(&mut answer)).await.unwrap().unwrap();
                assert_eq!(&answer, b"HTTP/1.1 413");
            };
            tokio::join!(sending, refused).0
        });
    }
    let process = gateway.process_id();
    let (most_kib, is_over) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let watching = tokio::spawn(is_over.clone().run_until_cancelled_owned(watch(process, Arc::clone(&most_kib))));
    let sent = clients.join_all().await;
    is_over.cancel();
    watching.await.unwrap();
    let grown_kib = most_kib.load(Ordering::Relaxed).saturating_sub(before_kib);
    println!("{} MiB sent without an end, {grown_kib} KiB at the most", sent.iter().sum::<u64>() >> 20);
    assert!(sent.iter().all(|sent| *sent < 64 * MOST_BYTES), "{sent:?}");
    // A buffer may be twice as large as what is in it while it grows.
    assert!(grown_kib < CLIENTS * (2 * MOST_BYTES + (256 << 10)) / 1_024 + 8_192, "{grown_kib} KiB");
}

#[tokio::test]
async fn readers_that_never_read_cost_a_bounded_memory() {
    let readers = number("TOLLGATE_FLOOD_READERS", 20);
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream).with("ON_CLIENT_DISCONNECT", "cancel");
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    let process = gateway.process_id();
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    let before_kib = resident_kib(process);
    // Twenty megabytes and more each: all the buffers of the sockets do not take that.
    let request = streaming(&key, "chunks=100000");
    let mut sockets = Vec::new();
    for number in 0..readers {
        let mut socket = connect(gateway.calls, number, Some(16 << 10)).await;
        socket.write_all(&request).await.unwrap();
        sockets.push(socket);
    }
    until("all have begun", PATIENCE, async || gauge(&gateway, "upstream_calls_total").await > readers as u64).await;
    let (mut most_kib, began) = (0, Instant::now());
    while began.elapsed() < Duration::from_secs(if readers > 20 { 20 } else { 3 }) {
        most_kib = most_kib.max(resident_kib(process));
        sleep(Duration::from_millis(50)).await;
    }
    let each_kib = most_kib.saturating_sub(before_kib) / readers as u64;
    println!("{readers} readers that never read: {each_kib} KiB each");
    let allowed_kib = if cfg!(debug_assertions) { 200 } else { 100 };
    assert!(each_kib <= allowed_kib, "{each_kib} KiB each");
    drop(sockets);
    until("all are settled", PATIENCE, async || gauge(&gateway, "open_admissions").await == 0).await;
    gateway.stop();
    let rows = crate::ledger::Ledger::open(&setup.ledger()).await.rows().await;
    let left = rows.iter().filter(|row| row.outcome == "client_left").count();
    assert_eq!((rows.len(), left), (readers + 1, readers));
}

fn limit_files(process: u32, soft: usize) {
    let (process, soft) = (process.to_string(), format!("--nofile={soft}:"));
    assert!(Command::new("prlimit").args(["--pid", &process, &soft]).status().unwrap().success());
}

#[tokio::test]
async fn without_file_descriptors_streams_live_on_nothing_spins_and_it_recovers() {
    if !runs("prlimit", &["--version"]) {
        println!("skipped: no prlimit here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &["--chunks", "60", "--chunk-gap-ms", "100"]);
    let setup = Setup::new(dir.path(), &upstream);
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    let process = gateway.process_id();
    let (streaming, begun) = open(gateway.calls, &streaming(&key, "gap-ms=100"), 400).await.unwrap();

    limit_files(process, first_free_file(process));
    let mut waiting = Vec::new();
    for number in 0..20 {
        waiting.push(connect(gateway.calls, number, None).await);
    }
    waiting[0].write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let began_ms = processor_ms(process);
    sleep(Duration::from_secs(2)).await;
    let busy_ms = processor_ms(process) - began_ms;
    println!("{busy_ms} ms of processor time in 2 s without descriptors");
    assert!(busy_ms < 80, "{busy_ms} ms in 2 s");
    let mut answer = [0; 12];
    let early = timeout(Duration::from_millis(100), waiting[0].read_exact(&mut answer)).await;
    assert!(early.is_err(), "there was a descriptor left: {answer:?}");

    limit_files(process, 1_024);
    timeout(PATIENCE, waiting[0].read_exact(&mut answer)).await.expect("it does not recover").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let streamed = rest(streaming, begun).await;
    assert!(streamed.is_finished(), "{}", streamed.text());
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    drop(waiting);
    gateway.stop();
    let log = std::fs::read_to_string(setup.log()).unwrap();
    // That the ledger could not read meanwhile may be said.
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(log.matches("cannot accept connections at the moment").count(), 1, "{log}");
}

#[tokio::test]
async fn with_few_file_descriptors_callers_wait_and_administrators_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let setup = Setup::new(dir.path(), &upstream)
        .started_by(&["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"])
        .with("HEADER_TIMEOUT_S", "3");
    let mut gateway = setup.start();
    let key = gateway.new_key(&json!({})).await;
    let began = Instant::now();
    let mut flood = Vec::new();
    for number in 0..250 {
        flood.push(connect(gateway.calls, number, None).await);
    }
    for _ in 0..10 {
        assert_eq!(get(gateway.admin, "/health", "").await.unwrap().status, 200, "within the flood");
        sleep(Duration::from_millis(50)).await;
    }
    // Behind all of them.
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    assert!(began.elapsed() < PATIENCE);
    drop(flood);
    gateway.stop();
    let log = std::fs::read_to_string(setup.log()).unwrap();
    assert!(!log.contains("cannot accept connections"), "{log}");
}
