//! An upstream that does exactly what it is told, byte by byte, and remembers what it saw.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tollgate::{clock::Clock, config::Settings};

use crate::support::Gateway;

#[derive(Clone)]
pub enum Step {
    Send(Bytes),
    /// Goes on when the test says so.
    Gate(Gate),
    /// Sends this again and again until the gateway leaves.
    Flood(Bytes),
    /// Says nothing until the gateway leaves.
    Hang,
    Close,
    Reset,
}

/// Closed until the test opens it; each opening lets one request pass.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(1);
    }

    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

type Script = dyn Fn(usize, &str) -> Vec<Step> + Send + Sync;

struct Shared {
    script: Box<Script>,
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
    hang_ups: AtomicUsize,
    written: AtomicU64,
}

pub struct Scripted {
    pub url: String,
    shared: Arc<Shared>,
}

impl Scripted {
    /// Plays what `script` says for each request; requests are counted from 0. A connection whose steps end without closing
    /// takes the next request.
    pub async fn start(script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::reading(move |number, _| script(number)).await
    }

    /// The same for a script that looks at the request.
    pub async fn reading(script: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            script: Box::new(script),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
            hang_ups: AtomicUsize::new(0),
            written: AtomicU64::new(0),
        });
        let upstream = Self { url, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        upstream
    }

    /// The same steps for every request.
    pub async fn playing(steps: Vec<Step>) -> Self {
        Self::start(move |_| steps.clone()).await
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Requests that came, heads and bodies.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How often the gateway left while there was more to say.
    pub fn hang_ups(&self) -> usize {
        self.shared.hang_ups.load(Ordering::SeqCst)
    }

    /// Bytes of floods that the gateway's side has taken.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// A gateway in front of this upstream.
    pub async fn gateway(&self, change: impl FnOnce(&mut Settings)) -> Gateway {
        Gateway::start_before(&self.url, CancellationToken::new(), Clock::system(), change).await
    }
}

async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    while let Some(request) = read_request(&mut stream).await {
        let steps = {
            let mut requests = shared.requests.lock().unwrap();
            let steps = (shared.script)(requests.len(), &request);
            requests.push(request);
            steps
        };
        for step in steps {
            if shared.play(step, &mut stream).await.is_break() {
                return;
            }
        }
    }
}

impl Shared {
    async fn play(&self, step: Step, stream: &mut TcpStream) -> ControlFlow<()> {
        match step {
            Step::Send(bytes) => match stream.write_all(&bytes).await {
                Ok(()) => return ControlFlow::Continue(()),
                Err(_) => self.left(),
            },
            Step::Gate(gate) => tokio::select! {
                () = gate.pass() => return ControlFlow::Continue(()),
                () = until_left(stream) => self.left(),
            },
            Step::Hang => {
                until_left(stream).await;
                self.left();
            }
            Step::Flood(bytes) => {
                while stream.write_all(&bytes).await.is_ok() {
                    self.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                }
                self.left();
            }
            Step::Close => {}
            Step::Reset => stream.set_zero_linger().unwrap(),
        }
        ControlFlow::Break(())
    }

    fn left(&self) {
        self.hang_ups.fetch_add(1, Ordering::SeqCst);
    }
}

/// Ends when the other side has closed or reset the connection.
async fn until_left(stream: &mut TcpStream) {
    let mut unexpected = [0; 64];
    while stream.read(&mut unexpected).await.is_ok_and(|length| length > 0) {}
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(length) if length > 0 => request.extend_from_slice(&more[..length]),
            _ => return None,
        }
    }
}

pub const DONE: &str = "data: [DONE]\n\n";

/// The head of a stream; what follows comes in [`chunk`]s.
pub fn stream_head() -> Step {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Send(Bytes::from_static(head.as_bytes()))
}

/// One piece of a stream, which reaches the gateway as one frame however the network cuts it.
pub fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let size = format!("{:x}\r\n", bytes.len());
    Step::Send([size.as_bytes(), bytes, b"\r\n"].concat().into())
}

/// The proper end of a stream.
pub fn last_chunk() -> Step {
    Step::Send(Bytes::from_static(b"0\r\n\r\n"))
}

/// A whole stream of `events`, one frame each.
pub fn streamed(events: &[String]) -> Vec<Step> {
    std::iter::once(stream_head()).chain(events.iter().map(chunk)).chain([last_chunk()]).collect()
}

/// A whole answer.
pub fn answer(status: &str, content_type: &str, body: &str) -> Step {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
    Step::Send((head + body).into())
}

/// A good JSON answer of 5 input and 7 output tokens.
pub fn good_json() -> Step {
    let message = json!({"role": "assistant", "content": "Hello there."});
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12});
    let body = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage});
    answer("200 OK", "application/json", &body.to_string())
}

pub fn word(text: &str) -> String {
    format!(r#"data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}],"usage":null}}"#)
        + "\n\n"
}

pub fn finish() -> String {
    r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#.to_owned() + "\n\n"
}

pub fn usage(input: u64, output: u64) -> String {
    let total = input + output;
    let usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": total});
    format!(r#"data: {{"choices":[],"usage":{usage}}}"#) + "\n\n"
}

/// A text stream of `words` tokens that ends well and reports 5 input tokens.
pub fn text_events(words: u64) -> Vec<String> {
    let said = (0..words).map(|number| word(&format!("word{number} ")));
    said.chain([finish(), usage(5, words), DONE.to_owned()]).collect()
}

/// A spoken stream as recorded: transcript, chunks without choices, audio, usage before the last chunk, no reason to finish.
/// 2 tokens of text and 16 of audio.
pub fn spoken_events() -> Vec<String> {
    let data = |json: String| format!("data: {json}\n\n");
    let delta = |delta: &str| data(format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}],"usage":null}}"#));
    let silence = || data(r#"{"id":"c","object":"chat.completion.chunk","usage":null,"obfuscation":"Ab"}"#.to_owned());
    let audio = |letter: &str| delta(&format!(r#"{{"audio":{{"data":"{}"}}}}"#, letter.repeat(25_600)));
    let usage = json!({
        "prompt_tokens": 5, "completion_tokens": 18, "total_tokens": 23,
        "prompt_tokens_details": {"text_tokens": 5, "audio_tokens": 0, "cached_tokens": 0},
        "completion_tokens_details": {"text_tokens": 2, "audio_tokens": 16},
    });
    vec![
        delta(r#"{"role":"assistant","refusal":null}"#),
        delta(r#"{"content":null,"audio":{"id":"audio_1","transcript":"Hello"}}"#),
        delta(r#"{"audio":{"transcript":" there"}}"#),
        silence(),
        silence(),
        audio("A"),
        silence(),
        audio("B"),
        data(format!(r#"{{"choices":[],"usage":{usage}}}"#)),
        delta(r#"{"audio":{"expires_at":1780697157}}"#),
        DONE.to_owned(),
    ]
}

/// Asks until the answer is yes, for five seconds.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 seconds: {what}");
}
