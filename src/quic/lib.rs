//! How a server of Tern speaks QUIC, without a socket: what the server runs on real packets and
//! the simulator on virtual ones.
//!
//! - [`settings`]: QUIC's transport, server and endpoint settings, each set explicitly.
//! - [`arrivals`]: which sent packets have arrived, for what QUIC does not repeat.
//! - [`steering`]: the rule "first byte of the destination connection id, modulo workers", as
//!   code and as the generator of ids that obey it.
//! - [`frames`]: the control stream cut into frames.
//!
//! Nothing here holds a connection, reads a clock or opens a file; keys are arguments.
#![forbid(unsafe_code)]

pub mod steering;

pub mod arrivals;
pub mod settings;

pub mod frames;
