//! The organization's usage and cost reports on the wire (protocol facts f.1 and f.2): query strings in, pages out.

mod answer;
mod cursor;
mod page;
mod parameters;
pub(super) mod query;
mod usage;

pub use answer::{UnreadableReport, read_costs, read_usage};
pub(super) use page::Amount;
pub use page::{exact_number, line_item_words, print};
pub(super) use parameters::ends_before_it_starts;
pub use parameters::read;
