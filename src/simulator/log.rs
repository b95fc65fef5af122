//! The log of received requests: one JSON line each, written before the answer starts.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use super::usage::Logged;

#[derive(Debug)]
pub(super) struct Log(File);

#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) time_ms: u64,
    /// The gateway's id for the request, from `x-client-request-id`.
    pub(super) request_id: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) model: Option<&'a str>,
    pub(super) stream: bool,
    pub(super) status: Option<u16>,
    pub(super) fault: Option<&'static str>,
    /// What the answer is going to report; null when it will report nothing.
    pub(super) usage: Option<Logged>,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("the log {}: {error}", path.display()));
        OpenOptions::new().append(true).create(true).open(path).map(Self).map_err(named)
    }

    pub(super) fn append(&self, line: &Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // One write of a whole line in append mode: lines of concurrent answers never mix, and a crash tears none.
        (&self.0).write_all(&text)
    }
}
