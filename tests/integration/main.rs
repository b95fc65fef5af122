//! The whole gateway on real sockets, between real clients and the look-alike. One binary; a file per subject.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod answers;
mod bad_requests;
mod bytes;
mod crowds;
mod doors;
mod estimates;
mod headers;
mod limits;
mod metering;
mod raw;
mod recordings;
mod reports;
mod secrecy;
mod stand_in;
mod support;
mod unpriced;
