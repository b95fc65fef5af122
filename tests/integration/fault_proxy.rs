//! A place on the way between two others where the network fails as it is told to, byte by byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// What becomes of the one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is closed in order, in the middle.
    Cut,
    Reset,
    /// Nothing more arrives, and nobody is told.
    Blackhole,
}

/// How one connection is carried: nothing is said, nothing is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carriage {
    /// Before each piece of an answer.
    pub latency: Duration,
    /// Largest piece of an answer, for a slow line with the latency above.
    pub piece_bytes: Option<usize>,
    /// Once more than so many bytes of requests would have passed.
    pub up: Option<(usize, Fault)>,
    /// The same for answers.
    pub down: Option<(usize, Fault)>,
}

struct Shared {
    upstream: SocketAddr,
    choose: Box<dyn Fn(&str) -> Carriage + Send + Sync>,
    refusing: AtomicBool,
    connections: AtomicUsize,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

pub struct FaultProxy {
    pub url: String,
    shared: Arc<Shared>,
}

impl FaultProxy {
    /// Before the service at `upstream_url`. The first request of a connection chooses how it is carried.
    pub async fn before(upstream_url: &str, choose: impl Fn(&str) -> Carriage + Send + Sync + 'static) -> Self {
        let upstream = upstream_url.trim_start_matches("http://").trim_end_matches("/v1").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream,
            choose: Box::new(choose),
            refusing: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
        });
        let proxy = Self { url, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                if shared.refusing.load(Ordering::SeqCst) {
                    client.set_zero_linger().unwrap();
                } else {
                    tokio::spawn(Arc::clone(&shared).carry(client));
                }
            }
        });
        proxy
    }

    /// From now on connections are reset as soon as they are there.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes that arrived beyond it: of requests and of answers.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.up_bytes.load(Ordering::SeqCst), self.shared.down_bytes.load(Ordering::SeqCst))
    }
}

impl Shared {
    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if !client.read_buf(&mut head).await.is_ok_and(|length| length > 0) {
                return;
            }
        }
        let carriage = (self.choose)(&String::from_utf8_lossy(&head));
        let Ok(mut upstream) = TcpStream::connect(self.upstream).await else { return };
        client.set_nodelay(true).unwrap();
        upstream.set_nodelay(true).unwrap();
        let fault = {
            let (from_client, to_client) = client.split();
            let (from_upstream, to_upstream) = upstream.split();
            let slow = (carriage.latency, carriage.piece_bytes.unwrap_or(usize::MAX));
            let up =
                Pipe { ahead: head, fault: carriage.up, slow: (Duration::ZERO, usize::MAX), passed: &self.up_bytes };
            let down = Pipe { ahead: Vec::new(), fault: carriage.down, slow, passed: &self.down_bytes };
            tokio::select! {
                Some(fault) = up.run(from_client, to_upstream) => fault,
                // An upstream that ends ends the connection, as it would without us.
                fault = down.run(from_upstream, to_client) => fault.unwrap_or(Fault::Cut),
            }
        };
        match fault {
            Fault::Reset => {
                // What has passed is there before the reset is.
                tokio::time::sleep(Duration::from_millis(50)).await;
                client.set_zero_linger().unwrap();
            }
            Fault::Cut => {
                let _ = client.shutdown().await;
                drop(upstream);
                swallow(&mut client).await;
            }
            Fault::Blackhole => {
                // The upstream goes on talking to itself until the other side gives up.
                tokio::select! {
                    () = swallow(&mut client) => {}
                    () = async { swallow(&mut upstream).await; std::future::pending().await } => {}
                }
            }
        }
    }
}

/// One direction of a connection.
struct Pipe<'a> {
    /// Read already.
    ahead: Vec<u8>,
    fault: Option<(usize, Fault)>,
    slow: (Duration, usize),
    passed: &'a AtomicU64,
}

impl Pipe<'_> {
    /// `None`: it has ended by itself.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Option<Fault> {
        let mut left = self.fault.map_or(usize::MAX, |(bytes, _)| bytes);
        loop {
            if self.ahead.is_empty() && !from.read_buf(&mut self.ahead).await.is_ok_and(|length| length > 0) {
                let _ = to.shutdown().await;
                return None;
            }
            let (latency, piece) = self.slow;
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            let length = self.ahead.len().min(piece).min(left);
            if to.write_all(&self.ahead[..length]).await.is_err() {
                return None;
            }
            self.passed.fetch_add(length as u64, Ordering::SeqCst);
            self.ahead.drain(..length);
            left -= length;
            if left == 0 && !self.ahead.is_empty() {
                return self.fault.map(|(_, fault)| fault);
            }
        }
    }
}

/// Until the other side closes.
async fn swallow(stream: &mut TcpStream) {
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await.is_ok_and(|length| length > 0) {}
}
