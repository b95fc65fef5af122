//! The simulator, seen over a real connection.

mod anatomy;
mod audio;
mod errors;
mod faults;
mod log;
mod usage;

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Options, handler::CHAT, serve};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running simulator; it stops when dropped.
struct Running {
    address: String,
    _stop: DropGuard,
}

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// Before the announced end.
    Torn,
    Reset,
    /// Nothing more came within the time given.
    Silence,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
    end: End,
}

struct Asked {
    address: String,
    method: &'static str,
    path: String,
    headers: Vec<String>,
    body: Vec<u8>,
    patience: Duration,
}

async fn running(options: Options) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, options, stop.clone()));
    Running { address, _stop: stop.drop_guard() }
}

impl Running {
    async fn default() -> Self {
        running(Options::default()).await
    }

    fn get(&self, path: &str) -> Asked {
        let headers = vec!["authorization: Bearer sk-any".to_owned()];
        Asked {
            address: self.address.clone(),
            method: "GET",
            path: path.to_owned(),
            headers,
            body: Vec::new(),
            patience: PATIENCE,
        }
    }

    fn post(&self, body: &(impl ToString + ?Sized)) -> Asked {
        Asked { method: "POST", body: body.to_string().into_bytes(), ..self.get(CHAT) }
    }

    async fn chat(&self, body: Value) -> Reply {
        self.post(&body).send().await
    }
}

impl Asked {
    fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    fn without_key(mut self) -> Self {
        self.headers = vec!["accept: */*".to_owned()];
        self
    }

    fn patience(mut self, millis: u64) -> Self {
        self.patience = Duration::from_millis(millis);
        self
    }

    async fn send(self) -> Reply {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let headers = self.headers.join("\r\n");
        let (method, path, length) = (self.method, &self.path, self.body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: simulator\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&self.body).await.unwrap();
        let (mut received, mut buffer, mut end) = (Vec::new(), vec![0; 64 * 1024], End::Whole);
        loop {
            match timeout(self.patience, stream.read(&mut buffer)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(count)) => received.extend_from_slice(&buffer[..count]),
                Ok(Err(_)) => end = End::Reset,
                Err(_) => end = End::Silence,
            }
            if end != End::Whole {
                break;
            }
        }
        Reply::read(&received, end)
    }
}

impl Reply {
    fn read(received: &[u8], end: End) -> Self {
        let Some(split) = memchr::memmem::find(received, b"\r\n\r\n") else {
            return Self { status: 0, head: String::new(), body: Vec::new(), end };
        };
        let head = String::from_utf8(received[..split + 2].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Self { status, head, body: Vec::new(), end };
        let rest = &received[split + 4..];
        let whole = if reply.header("transfer-encoding").is_some() {
            reply.take_chunks(rest)
        } else {
            reply.body = rest.to_vec();
            reply.header("content-length").is_none_or(|length| length == rest.len().to_string())
        };
        if end == End::Whole && !whole {
            reply.end = End::Torn;
        }
        reply
    }

    /// Whether the last chunk was there.
    fn take_chunks(&mut self, mut rest: &[u8]) -> bool {
        while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
            let piece = &rest[at + 2..];
            if size == 0 {
                return true;
            }
            self.body.extend_from_slice(&piece[..size.min(piece.len())]);
            rest = piece.get(size + 2..).unwrap_or_default();
        }
        false
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The data of all events.
    fn events(&self) -> Vec<&str> {
        self.text().split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap_or(event)).collect()
    }

    fn chunks(&self) -> Vec<Value> {
        self.events()
            .into_iter()
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

/// The recorded traffic, where it has been checked out next to this repository.
fn recording(name: &str, file: &str) -> Option<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures").join(name);
    std::fs::read_to_string(folder.join(file)).ok()
}

/// JSON with its keys in order and its values gone: `{"id":s,"created":n}`.
fn shape(json: &str) -> String {
    let (mut out, bytes, mut at) = (String::new(), json.as_bytes(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                let key = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                out.push_str(if key { &json[at..end] } else { "s" });
                at = end;
                continue;
            }
            b'-' | b'0'..=b'9' if !out.ends_with('n') => out.push('n'),
            b'-' | b'.' | b'0'..=b'9' | b' ' | b'\n' => {}
            other => out.push(char::from(other)),
        }
        at += 1;
    }
    out
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}
