//! OpenAI's wire format as plain parsing and printing: no I/O, no clock, no float. "Prompt" and "completion" are words of
//! this room alone; everywhere else it is input and output.

pub mod admission;
pub mod audio;
pub mod batch;
pub mod endpoint;
pub mod error;
pub mod estimate;
pub mod explain;
pub mod headers;
mod json;
pub mod management;
pub mod models;
pub mod report;
pub mod request;
pub mod sse;
pub mod upstream_error;
pub mod usage;
pub mod webhook;

#[cfg(test)]
mod recordings;
