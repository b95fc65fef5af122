//! Projects, service accounts and API keys as the organization API writes them (protocol facts f.3). Beyond `OpenAI`'s
//! fields: `tier` on projects; limits, allowed models, expiry and
//! rotation of keys; which admin key is configured.

pub mod admin;
pub mod answers;
pub mod audit;
mod fields;
pub mod requests;
pub mod terms;
