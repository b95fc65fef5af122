//! The whole gateway on real sockets, between real clients and the look-alike. One binary; a file per subject.

mod answers;
mod support;
