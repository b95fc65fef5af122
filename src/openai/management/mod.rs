//! Projects, service accounts and API keys as the organization API writes them (protocol facts f.3). Beyond `OpenAI`'s
//! fields: `tier` on projects, `limits` and expiry on keys.

pub mod answers;
pub mod audit;
pub mod requests;
