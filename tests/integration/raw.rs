//! Requests written byte by byte, for what no proper client would send.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::Reply;

/// A request in the making: first line, headers, body.
pub struct Raw {
    text: Vec<u8>,
}

impl Raw {
    /// The connection is closed after the answer.
    pub fn new(method: &str, target: &str) -> Self {
        Self { text: format!("{method} {target} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n").into_bytes() }
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value.as_ref());
        self.text.extend_from_slice(b"\r\n");
        self
    }

    pub fn body(self, body: impl AsRef<[u8]>) -> Vec<u8> {
        let length = body.as_ref().len().to_string();
        self.header("content-length", length).rest(body)
    }

    /// A body in chunks of `size`, its end told by an empty one.
    pub fn chunked(self, body: &[u8], size: usize) -> Vec<u8> {
        let mut text = self.header("transfer-encoding", "chunked").rest([]);
        for chunk in body.chunks(size) {
            text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        text
    }

    pub fn rest(mut self, rest: impl AsRef<[u8]>) -> Vec<u8> {
        self.text.extend_from_slice(b"\r\n");
        self.text.extend_from_slice(rest.as_ref());
        self.text
    }
}

/// Writes all of `request` to the server at `url`, then reads its answer to the end.
pub async fn exchange(url: &str, request: &[u8]) -> Reply {
    let shown = || String::from_utf8_lossy(&request[..request.len().min(500)]).into_owned();
    parse(&until_closed(url, &[request]).await).unwrap_or_else(|| panic!("no answer to {:?}", shown()))
}

/// Writes `pieces` one after the other, and returns everything that comes until the server closes the connection: no
/// answer, one or many.
pub async fn until_closed(url: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            // Long enough that the server has read what came before.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A server that has read enough may close before everything is written; its answer counts.
        let _ = stream.write_all(piece).await;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let shown = || String::from_utf8_lossy(&pieces[0][..pieces[0].len().min(500)]).into_owned();
    read.unwrap_or_else(|_| panic!("the connection stays open after {:?}", shown())).ok();
    answer
}

/// Writes `request` and reads until `wanted` has come; the connection is open until then.
pub async fn wait_for(url: &str, request: &[u8], wanted: &[u8]) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while memchr::memmem::find(&answer, wanted).is_none() {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut answer)).await;
        let read = read.unwrap_or_else(|_| panic!("only {:?}", String::from_utf8_lossy(&answer)));
        assert!(read.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
    }
}

/// The first answer of a connection, and what follows it as its body.
pub fn parse(answer: &[u8]) -> Option<Reply> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]).into_owned(), &answer[end + 4..]);
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let headers = lines.map(header).collect::<HeaderMap>();
    let status = StatusCode::from_bytes(status.as_bytes()).unwrap();
    Some(Reply { status, headers, body: Bytes::copy_from_slice(body) })
}
