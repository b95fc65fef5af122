//! The organization's usage and cost reports on the wire (protocol facts f.1 and f.2): query strings in, pages out.

mod cursor;
mod page;
mod parameters;
pub(super) mod query;
mod usage;

pub use page::print;
pub(super) use page::{Amount, exact_number, words};
pub(super) use parameters::ends_before_it_starts;
pub use parameters::read;
