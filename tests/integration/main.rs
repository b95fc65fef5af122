//! The whole gateway on real sockets, between real clients and the look-alike. One binary; a file per subject.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod access;
mod answers;
mod audio_limits;
mod bad_requests;
mod broken_streams;
mod bytes;
mod clock_jumps;
mod concurrency;
mod crowds;
mod disconnects;
mod doors;
mod drains;
mod dry_runs;
mod estimates;
mod explain;
mod export;
mod headers;
mod limits;
mod management;
mod many_streams;
mod metering;
mod openapi;
mod raw;
mod reconcile;
mod recordings;
mod reports;
mod reprice;
mod schema;
mod scripted;
mod secrecy;
mod shutdown;
mod slow_clients;
mod specification;
mod stand_in;
mod streams;
mod support;
mod terms;
mod tiers;
mod unpriced;
mod upstream_errors;
mod upstream_faults;
mod waits;
mod walk;
mod what_if;
