//! `tern-bench`: measures a Tern server from outside, and says what it saw.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match tern_bench::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tern-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
