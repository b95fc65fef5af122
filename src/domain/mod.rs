//! The rules of the product as plain values and functions: no I/O, no clock, no float, checked arithmetic.
//! Time and randomness come in as arguments.

pub mod admin_keys;
pub mod audit;
pub mod batch_queue;
pub mod bucket;
#[cfg(test)]
mod bucket_tests;
pub mod catalog;
pub mod dry_run;
pub mod explanation;
pub mod export;
pub mod figures;
pub mod held;
pub mod ids;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod money;
mod packed;
pub mod pricing;
pub mod projects;
pub mod reconcile;
pub mod refusals;
pub mod report;
pub mod reprice;
pub mod rollup;
pub mod spend;
pub mod standing;
pub mod tariff;
pub mod time;
pub mod usage;
pub mod webhooks;
pub mod what_if;
