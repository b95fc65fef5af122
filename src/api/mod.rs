//! HTTP in.

pub mod auth;
pub mod body;
pub mod error;
pub mod projects;

#[cfg(test)]
pub(crate) mod fixture;
