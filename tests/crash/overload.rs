//! More requests than can be served, arriving at times that were fixed beforehand: a client that waits for its answer before
//! it asks again would hide the queue. `TOLLGATE_FLOOD_OVERLOAD_S` for the long form, which also judges times
//! (`scripts/flood`).

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    client::get,
    idle_streams::{connect, gauge},
    measure::{number, until},
    process::{Gateway, Key, LookAlike, Setup, runs},
    survival::text,
};

const TIMES_OVER: u64 = 4;
/// Then a client gives up: later answers are worth nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Enough to stand for a crowd; each holds two descriptors here and there.
const MOST_CLIENTS: usize = 1_500;

#[derive(Debug, Default)]
struct Seen {
    answered: Vec<Duration>,
    refused: Vec<Duration>,
    given_up: u64,
    broken: u64,
    /// Nobody was free to ask.
    not_asked: u64,
    other: Vec<u16>,
}

/// Clients that keep their connections.
struct Crowd {
    address: SocketAddr,
    request: Vec<u8>,
    idle: Mutex<Vec<TcpStream>>,
    seen: Mutex<Seen>,
}

impl Crowd {
    fn new(gateway: &Gateway, key: &Key) -> Arc<Self> {
        let body = text().to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            key.plain,
            body.len()
        );
        let (idle, seen) = (Mutex::default(), Mutex::default());
        Arc::new(Self { address: gateway.calls, request: (head + &body).into_bytes(), idle, seen })
    }

    async fn ask(&self, number: usize) {
        let began = Instant::now();
        let kept = self.idle.lock().unwrap().pop();
        let asked = async {
            let mut connection = match kept {
                Some(kept) => kept,
                None => connect(self.address, number, None).await,
            };
            connection.write_all(&self.request).await?;
            let status = read_answer(&mut connection).await?;
            io::Result::Ok((connection, status))
        };
        let asked = timeout(PATIENCE, asked).await;
        let mut seen = self.seen.lock().unwrap();
        match asked {
            Err(_elapsed) => seen.given_up += 1,
            Ok(Err(_)) => seen.broken += 1,
            Ok(Ok((connection, status))) => {
                self.idle.lock().unwrap().push(connection);
                match status {
                    200 => seen.answered.push(began.elapsed()),
                    429 | 503 => seen.refused.push(began.elapsed()),
                    other => seen.other.push(other),
                }
            }
        }
    }

    /// One after the other from each of some clients: the most that is served.
    async fn closed_loop(self: &Arc<Self>, clients: usize, time: Duration) -> u64 {
        let (mut asking, ends_at) = (JoinSet::new(), Instant::now() + time);
        for number in 0..clients {
            let crowd = Arc::clone(self);
            asking.spawn(async move {
                while Instant::now() < ends_at {
                    crowd.ask(number).await;
                }
            });
        }
        asking.join_all().await;
        let answered = self.take().answered.len() as u64;
        answered * 1_000 / u64::try_from(time.as_millis()).unwrap()
    }

    async fn open_loop(self: &Arc<Self>, per_second: u64, time: Duration) {
        let (mut asking, began) = (JoinSet::new(), tokio::time::Instant::now());
        let arrivals = per_second * time.as_secs();
        for arrival in 0..arrivals {
            sleep_until(began + Duration::from_nanos(arrival * 1_000_000_000 / per_second)).await;
            while asking.try_join_next().is_some() {}
            if asking.len() >= MOST_CLIENTS {
                self.seen.lock().unwrap().not_asked += 1;
                continue;
            }
            let crowd = Arc::clone(self);
            asking.spawn(async move { crowd.ask(usize::try_from(arrival).unwrap()).await });
        }
        asking.join_all().await;
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn read_answer(connection: &mut TcpStream) -> io::Result<u16> {
    let mut bytes = Vec::with_capacity(2_048);
    loop {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        if bytes.len() >= end + 4 + length {
            return Ok(head.split(' ').nth(1).unwrap().parse().unwrap());
        }
    }
}

/// Of `/health` on the administrators' address, until it is dropped.
async fn ask_administrators(admin: SocketAddr, waits: Arc<Mutex<Vec<Duration>>>) {
    loop {
        let began = Instant::now();
        assert_eq!(get(admin, "/health", "").await.unwrap().status, 200);
        waits.lock().unwrap().push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
}

/// The slowest but for one in a hundred.
fn p99(waits: &mut [Duration]) -> Duration {
    waits.sort_unstable();
    waits.get((waits.len() * 99 / 100).min(waits.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_times_more_than_can_be_served_does_not_bring_it_down() {
    let long_s = number("TOLLGATE_FLOOD_OVERLOAD_S", 0) as u64;
    let time = Duration::from_secs(long_s.max(2));
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    // No limits: this is about what the machine can do.
    let tiers = dir.path().join("tiers.toml");
    std::fs::write(&tiers, "[[tiers]]\nid = \"open\"\nname = \"Open\"\ndefault = true\ndefault_limits = {}\n").unwrap();
    let mut setup = Setup::new(dir.path(), &upstream).with("TIERS_FILE", tiers.to_str().unwrap());
    if runs("taskset", &["-c", "0", "true"]) {
        setup = setup.started_by(&["taskset", "-c", "0"]);
    }
    let mut gateway = setup.start();
    let project = gateway.admin_post("projects", &json!({"name": "crowd", "tier": "open"})).await;
    let key = gateway.key_of(project["id"].as_str().unwrap(), &json!({})).await;
    let crowd = Crowd::new(&gateway, &key);
    crowd.closed_loop(32, Duration::from_secs(1)).await;
    let peak = crowd.closed_loop(64, time).await;

    let waits = Arc::new(Mutex::new(Vec::new()));
    let administrators = tokio::spawn(ask_administrators(gateway.admin, Arc::clone(&waits)));
    crowd.open_loop(peak * TIMES_OVER, time).await;
    assert!(!administrators.is_finished(), "administrators were not answered");
    administrators.abort();
    let (mut seen, mut waits) = (crowd.take(), std::mem::take(&mut *waits.lock().unwrap()));
    let goodput = seen.answered.len() as u64 / time.as_secs();
    let [answered, refused, admin] = [&mut seen.answered, &mut seen.refused, &mut waits].map(|waits| p99(waits));
    println!(
        "peak {peak}/s; at {TIMES_OVER} times that: {goodput}/s answered (p99 {answered:?}), {} refused (p99 {refused:?}), {} given \
         up, {} broken, {} not asked; administrators' p99 {admin:?} of {}",
        seen.refused.len(),
        seen.given_up,
        seen.broken,
        seen.not_asked,
        waits.len()
    );
    assert_eq!(seen.other, Vec::<u16>::new());
    assert!(goodput > 0, "it collapses");
    assert!(!waits.is_empty());
    if long_s > 0 {
        assert!(goodput * 10 >= peak * 9, "{goodput}/s of {peak}/s");
        assert!(admin <= Duration::from_millis(50) && refused <= Duration::from_millis(10), "{admin:?}, {refused:?}");
    }

    until("all are settled", Duration::from_mins(1), async || gauge(&gateway, "open_admissions").await == 0).await;
    let began = Instant::now();
    assert_eq!(gateway.chat(&key, &text()).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "back to normal: {:?}", began.elapsed());
    gateway.stop();
    setup.assert_quiet_log();
}
