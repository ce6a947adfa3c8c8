//! `tern-peers`: the same load on Tern and on the systems that people would pick instead, each in a
//! stated configuration, on the same machine, in turns.
//!
//! In comes a command line ([`cli`]); each system ([`peer`]) is started, spoken to by the same kind
//! of devices ([`client`]) in the same [`scenario`], and what came of it is told ([`report`]). The
//! load, the kernel's books and the histograms are those of `tern-bench`.
//!
//! Invariants worth naming: the schedule of messages is the same for every system and never waits
//! for one; every message has an entry in the same ledger; a system that is not there is skipped
//! and said, never replaced by a figure from elsewhere.
#![forbid(unsafe_code)]

mod cli;

mod scenario;

mod peer;

mod client;

mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tern-peers: {error}");
            ExitCode::FAILURE
        }
    }
}
