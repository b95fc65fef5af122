//! Tollgate.
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod journal;
pub mod openai;
pub mod simulator;
pub mod store;
