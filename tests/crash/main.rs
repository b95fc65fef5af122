//! The real program against crashes: `kill -9` under load, a locked ledger, a full disk, a second gateway on the same
//! data, orders to stop, older databases; and its limits against a crowd; floods, by what they cost in memory and
//! processor time. Only what the tests started is ended, also when
//! a test fails.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod audio_and_places;
mod client;
mod deploy;
mod disk_errors;
mod exact_limits;
mod floods;
mod idle_streams;
mod judge;
mod kill;
mod ledger;
mod load;
mod lost_files;
mod measure;
mod overload;
mod pauses;
mod power;
mod process;
mod secrets;
mod soak;
mod start_and_stop;
mod storage;
mod survival;
mod swift;
mod upgrade;
