//! HTTP in.

pub mod reports;
