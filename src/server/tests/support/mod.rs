//! What the tests over real sockets share: the real server in a child process, a client that does
//! as it is told, right or wrong, and honest devices beside it.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]
#![allow(clippy::print_stdout, reason = "a test tells its figures")]

pub mod server;

pub mod commands;

pub mod words;

pub mod dial;

pub mod peer;

pub mod honest;

pub mod issuer;

pub mod stage;

pub mod random;

/// `count`, times the factor in `TERN_SOAK` if that is set.
pub fn scaled(count: u32) -> u32 {
    u32::try_from(tern_random::soaked(u64::from(count))).unwrap_or(u32::MAX)
}
