//! Tollgate: an OpenAI-compatible gateway whose limits and bills can be trusted. This page is its architecture.
//!
//! ```text
//! main -> cli -> api, simulator -> app -> { server, proxy, accounts } -> { journal, store, upstream, metrics } -> openai -> domain
//!                                                                                                    config -> domain
//! ```
//!
//! A module uses only what stands to its right; `tests/architecture.rs` fails otherwise, and for files over 400 lines and
//! functions over 70.
//!
//! # Rooms
//!
//! - [`domain`] the rules as plain values: money, usage, prices, limits, keys, the ledger's facts, reports, what explains a
//!   request, what other limits would have refused. No I/O, no clock, no float. [`openai`] their wire format: reading requests
//!   and answers, printing errors and headers. As pure.
//! - [`journal`] the append-only file that makes a request durable. [`store`] SQL and nothing but SQL, and the projector
//!   that feeds the ledger from the journal. [`upstream`] HTTP out. [`metrics`] what is counted.
//! - [`proxy`] the hot path: [`proxy::Proxy::forward`], limits, meter, the answer's body.
//! - [`accounts`] projects, keys and admin keys in memory, written through. [`secrets`] the pepper, and randomness.
//! - [`mod@export`] entries of the ledger as CSV, JSON lines and Parquet.
//! - [`config`] settings and model pages. [`clock`] the only reader of the time. [`app`] all long-lived parts, started and
//!   stopped in order. [`server`] the accept loop. [`api`] HTTP in: every route on one page, and
//!   described in `api/openapi.json`. [`cli`] the commands.
//! - [`simulator`] the built-in look-alike of OpenAI behind `tollgate demo` and the tests.
//!
//! # Two journeys
//!
//! A chat completion: the route in `api` -> `api/auth` makes a [`domain::keys::Caller`] -> `openai/request` reads model,
//! stream, bounds, service tier and audio without building a tree -> [`proxy::Call`] -> [`proxy::Proxy::forward`] finds prices,
//! reserves on all limits and holds what the request is expected to cost, or neither, journals the admission, and sends -> the answer's frames
//! pass on while the meter looks on -> settled, once, before the client can have the last byte. A settlement that earns its
//! project a higher tier leaves word in [`proxy::promotions`] (as a refusal by the tier's monthly limit does), and `app` makes the
//! change; one by which a limit on money passes a mark leaves word in [`proxy::notices`], and `app` writes it into the audit
//! log and to the webhook.
//!
//! The same call with `x-tollgate-dry-run: true` goes as far as [`proxy::Proxy::dry_run`], which asks the limits, takes nothing
//! and tells what would have been taken.
//!
//! A usage query: `api/reports` -> `api/auth` demands an admin -> `domain/report` checks parameters and lays out buckets
//! -> `store/reports` reads rollups -> `openai/report` writes the page and its cursor.
//!
//! A request explained: `api/requests` -> `store/requests` reads the entry with its tariff, limits and adjustments, or the
//! refusal -> [`domain::explanation`] multiplies -> `openai/explain` prints. A refusal gets there from [`proxy::refusals`], a
//! bounded list that `app` writes down once a second, and before anybody looks.
//!
//! Money in the books: what a request was billed by is a [`domain::tariff::Tariff`] (endpoint, model, service tier, and the
//! price of each line item that it used), which the ledger writes once and refers to. An entry holds quantities, never
//! amounts; so do the rollups, packed per key and tariff ([`domain::rollup`]). An amount is a product made when it is asked
//! for, and the sum of buckets is the sum of entries because multiplication says so. What turns out to be wrong is corrected
//! by an adjustment: one more row, and one more cell, at a tariff of differences ([`domain::reprice`]).
//!
//! # Invariants
//!
//! 1. Nothing is sent upstream without a price (or the operator's word that none is needed), a reservation on every limit,
//!    and an admission in the journal, or past a spend limit that is reached.
//! 2. Every admitted request is settled exactly once: by its answer's end, by the loss of its client or upstream, or at the
//!    next start. [`proxy::recorder::Meter::settle`] is the only place.
//! 3. The ledger is only added to, but for entries older than the operator keeps them: those go, their sums stay. It and the
//!    buckets of the limits are projections of the journal: its records, applied in order, in transactions that also say how
//!    far they got, so nothing is counted twice. Only adjustments come from elsewhere, and are on the disk when their
//!    transaction is.
//! 4. No float touches money or tokens, and audio is never priced as text.
//! 5. A plain key exists only in the answer that created it and in the header that presents it.
//! 6. Bytes pass as they came, except our credential, the request for usage in streams, and the usage chunk a client did
//!    not ask for.
//! 7. What administrators manage changes only together with its row in the audit log ([`store`]'s `Change`).
//! 8. Time and randomness come in as arguments; only [`clock`] and [`secrets`] ask the system.
//!
//! # Where the design departs from what might be expected
//!
//! - A limit is one number, the theoretical arrival time of GCRA. governor decides on admission with a limiter made on the
//!   spot around that number ([`domain::bucket`]), so that a changed limit holds at once and `now` is an argument; where there
//!   is room it is not asked, since a sum and a comparison say the same, as a test proves. What a unit weighs is kept beside
//!   it, so that a changed limit takes over what was used; and what of an open hold may still be given back
//!   ([`domain::bucket::Bucket`]): a late refund must not come out of what others hold.
//! - Limits hold for the keys of a project together; a key has buckets of its own only where limits are set for it, narrower
//!   than the project's or not, so that its use is known when the project gets more. Taking from all of them, and holding the
//!   money, happens under a lock per project and model, and one per key: nobody is refused because of a reservation or of
//!   money that is about to be taken back.
//! - The upstream call runs in the handler's own future, which is dropped when a client leaves; what is left of it then moves
//!   to a task that reads the answer on ([`proxy`]'s `Attended`). No request pays for a task that is rarely needed.
//! - Administrators are served on a thread of their own, where they have an address of their own: in the callers' queue they
//!   would wait as long as a crowd does. Connections are counted out by the open files that the system allows, so that the
//!   journal and the upstream are never left without one.
//! - Rollups are packed cells and not rows of columns: a report over a month of a thousand keys reads some dozens of rows.
//!   Each batch of the projector adds a part to the buckets that it touches; parts are folded together sixteen at a time.
//! - Events of a stream that are there at the same time go to the client in one write ([`proxy::MeteredBody`]).
//! - A JSON answer is read whole before its first byte goes on: its usage stands at its end, and an answer that breaks off
//!   becomes an error instead of half an answer. Streams are never held back for more than one event.

// What comes from outside must not end anything: outside of the tests nothing takes for granted that there is a value.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::get_unwrap,
        clippy::panic,
        clippy::unreachable,
        clippy::unimplemented,
        clippy::exit
    )
)]

pub mod accounts;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod export;
pub mod journal;
pub mod metrics;
pub mod openai;
pub mod proxy;
pub mod secrets;
pub mod server;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod upstream;
