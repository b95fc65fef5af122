//! A page of requests, newest first: each in short.

use serde::Serialize;

use super::details::Head;
use crate::{
    domain::{explanation::Explained, ids::RequestId, money::MoneyError},
    openai::report::Amount,
};

/// `GET /v1/organization/requests`.
#[derive(Debug, Serialize)]
pub struct RequestPage<'a> {
    object: &'static str,
    data: Vec<ShortObject<'a>>,
    first_id: Option<RequestId>,
    last_id: Option<RequestId>,
    has_more: bool,
}

#[derive(Debug, Serialize)]
struct ShortObject<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    /// False when something was used that has no price, which `cost` does not hold.
    priced: Option<bool>,
    /// `null` without any price.
    cost: Option<Amount>,
    /// Why a request was refused.
    reason: Option<&'static str>,
}

impl<'a> RequestPage<'a> {
    pub fn new(requests: &'a [Explained], has_more: bool) -> Result<Self, MoneyError> {
        let data: Result<_, MoneyError> = requests.iter().map(ShortObject::new).collect();
        Ok(Self {
            object: "list",
            data: data?,
            first_id: requests.first().map(Explained::request_id),
            last_id: requests.last().map(Explained::request_id),
            has_more,
        })
    }
}

impl<'a> ShortObject<'a> {
    fn new(explained: &'a Explained) -> Result<Self, MoneyError> {
        Ok(match explained {
            Explained::Finished(it) => Self {
                head: Head::of_finished(it),
                input_tokens: Some(it.usage.input_total()),
                output_tokens: Some(it.usage.output_total()),
                priced: Some(it.priced()),
                cost: it.cost()?.map(Amount::of),
                reason: None,
            },
            Explained::Refused(it) => Self {
                head: Head::of_refused(it),
                input_tokens: None,
                output_tokens: None,
                priced: None,
                cost: None,
                reason: Some(it.reason.name()),
            },
        })
    }
}
