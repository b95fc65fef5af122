//! The organization's usage and cost reports on the wire (protocol facts f.1 and f.2): query strings in, pages out.

mod answer;
mod cursor;
mod page;
mod parameters;
pub(super) mod query;
mod usage;

pub use answer::{UnreadableReport, read_costs, read_usage};
pub use page::{exact_number, line_item_words, print};
pub use parameters::read;
