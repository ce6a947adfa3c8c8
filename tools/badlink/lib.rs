//! A bad link over real sockets: clients speak to a [`Relay`], the relay to a server, and what
//! becomes of each packet is decided by `tern-netmodel`. Any protocol over UDP goes through.
//!
//! `badlink` is the command; `tern demo` starts relays of its own.
#![forbid(unsafe_code)]

mod capture;

mod relay;

mod lane;

mod upstream;

pub use capture::Captures;
pub use relay::{Figures, Plan, Relay, Sharing};
