//! A bad link over real sockets: clients speak to a [`Relay`], the relay to a server, and what
//! becomes of each packet is decided by `tern-netmodel`. Any protocol over UDP goes through, and
//! any over TCP: its connections run as packets of the kernel's own TCP over the modelled path.
//!
//! `badlink` is the command; `tern demo` starts relays of its own.

mod capture;

mod relay;

mod lane;

mod wire;

mod udp;
mod upstream;

mod tcp;

pub use capture::Captures;
pub use relay::{Figures, Plan, Protocol, Relay, Sharing};
