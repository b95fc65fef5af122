//! What must hold for any bytes at all, one function for each reader of what others send: each panics when it does not.
//!
//! The fuzz targets feed them what libFuzzer makes up; `tests/fuzz_corpus.rs` feeds them the corpus, so that what was once
//! found stays mended.

mod admin;
mod audio;
mod config;
mod journal;
mod json;
mod key;
mod request;
mod stream;
mod usage;

pub use self::{
    admin::admin, audio::audio, config::config, journal::journal, key::key, request::request, stream::stream,
    usage::usage,
};

/// The first byte chooses among several readers; the rest is for the chosen one.
fn choice(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(choice, rest)| (*choice, rest))
}

/// An error that is told to a caller is JSON with a status that says whose fault it is.
fn is_told(error: &tollgate::openai::error::ApiError) {
    assert!((400..600).contains(&error.status), "status {}", error.status);
    let body: serde_json::Value = serde_json::from_slice(&error.body()).expect("an error is JSON");
    assert!(body["error"]["message"].is_string(), "{body}");
}
