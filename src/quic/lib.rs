//! How a server of Tern speaks QUIC, without a socket: what the server runs on real packets and
//! the simulator on virtual ones.
//!
//! - [`settings`]: QUIC's transport, server and endpoint settings, each set explicitly.
//! - [`arrivals`]: which sent packets have arrived, for what QUIC does not repeat.
//! - [`free`]: pushes that travel by datagram, each for itself, and the repair of lost ones.
//! - [`steering`]: the rule "first byte of the destination connection id, modulo workers", as
//!   code and as the generator of ids that obey it.
//! - [`frames`]: the control stream cut into frames.
//! - [`session`]: TLS of a connection, let go when the handshake is over.
//! - [`keys`]: the keys of packets, folded while nobody talks.
//!
//! Nothing here holds a connection, reads a clock or opens a file; keys are arguments.
#![forbid(unsafe_code)]

pub mod steering;

pub mod arrivals;
mod flight;
pub mod free;
pub mod keys;
pub mod session;
pub mod settings;

pub mod frames;
