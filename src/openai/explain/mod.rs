//! Single requests explained, in an API of our own in the manner of `OpenAI`'s lists and objects:
//! `GET /v1/organization/requests` and `GET /v1/organization/requests/{request_id}`.

mod details;
mod list;
mod query;
mod refusal;

#[cfg(test)]
mod tests;

pub(super) use self::details::{EstimateObject, unit};
pub use self::{details::RequestObject, list::RequestPage, query::RequestsQuery};
