//! What an attacker can send, over real sockets to the real binary, each time beside an honest
//! pair of devices that must not notice. Sizes grow with `TERN_SOAK`.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

#[path = "../support/mod.rs"]
mod support;

mod connection_ids;
mod datagrams;
mod handshakes;

mod frames;
mod free;
mod oversize;
mod proofs;
mod rights;

mod slow;
mod streams;
