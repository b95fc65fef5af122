//! Tollgate.
pub mod accounts;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod journal;
pub mod openai;
pub mod secrets;
pub mod simulator;
pub mod store;
