//! What an attacker can send, over real sockets to the real binary, each time beside an honest
//! pair of devices that must not notice. Sizes grow with `TERN_SOAK`.

#[path = "../support/mod.rs"]
mod support;

mod datagrams;
mod handshakes;

mod frames;
mod rights;
