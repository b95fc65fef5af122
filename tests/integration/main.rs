//! The whole gateway on real sockets, between real clients and the look-alike. One binary; a file per subject.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod answers;
mod broken_streams;
mod disconnects;
mod drains;
mod many_streams;
mod scripted;
mod shutdown;
mod slow_clients;
mod streams;
mod support;
mod upstream_faults;
