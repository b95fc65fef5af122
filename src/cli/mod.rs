//! The commands besides `serve`.

pub mod admin_api;
pub mod keys;
