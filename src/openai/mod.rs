//! OpenAI's wire format as plain parsing and printing: no I/O, no clock, no float. "Prompt" and "completion" are words of
//! this room alone; everywhere else it is input and output.

pub mod error;
pub mod headers;
pub mod report;
