//! The real program against crashes: `kill -9` under load, a locked ledger, a full disk, a second gateway on the same
//! data, orders to stop, older databases; and its limits against a crowd. Only what the tests started is ended, also when
//! a test fails.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod audio_and_places;
mod client;
mod deploy;
mod exact_limits;
mod judge;
mod kill;
mod ledger;
mod load;
mod pauses;
mod power;
mod process;
mod start_and_stop;
mod storage;
mod survival;
mod swift;
mod upgrade;
