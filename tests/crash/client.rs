//! HTTP as bytes on a socket: cheap enough for load, and able to hang up at any byte.

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that came until the server closed the connection.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body: bytes[end + 4..].to_vec() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(": ")).find_map(|(header, value)| {
            let same = header.eq_ignore_ascii_case(name);
            same.then_some(value)
        })
    }

    /// The body as it came: the chunks of a stream have their lengths between them.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.text()))
    }

    /// All that a client waits for is there, and it is a good answer: many read no further than `[DONE]`.
    pub fn is_finished(&self) -> bool {
        let whole = match self.header("content-length") {
            Some(length) => length.parse() == Ok(self.body.len()),
            None => self.text().contains("data: [DONE]\n\n"),
        };
        self.status == 200 && whole
    }
}

/// Sends a request and waits for all of its answer.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request).await?;
    let mut bytes = Vec::new();
    // A server that is killed resets the connection: what came until then is not lost on the caller.
    let read = timeout(PATIENCE, connection.read_to_end(&mut bytes)).await?;
    Answer::read(&bytes).ok_or_else(|| read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
}

/// Sends a request and hands over the connection once `wanted` bytes of the answer are there: drop it to hang up.
pub async fn open(address: SocketAddr, request: &[u8], wanted: usize) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request).await?;
    let mut bytes = Vec::new();
    while bytes.len() < wanted {
        if timeout(PATIENCE, connection.read_buf(&mut bytes)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((connection, bytes))
}

/// What comes after `bytes`, to the end.
pub async fn rest(mut connection: TcpStream, mut bytes: Vec<u8>) -> Answer {
    timeout(PATIENCE, connection.read_to_end(&mut bytes)).await.unwrap().unwrap();
    Answer::read(&bytes).unwrap()
}

pub fn request(method: &str, path: &str, key: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let more = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub async fn get(address: SocketAddr, path: &str, key: &str) -> io::Result<Answer> {
    exchange(address, &request("GET", path, key, &[], "")).await
}

pub async fn post(address: SocketAddr, path: &str, key: &str, body: &str) -> io::Result<Answer> {
    exchange(address, &request("POST", path, key, &[], body)).await
}
