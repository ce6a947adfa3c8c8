//! The driver over real sockets, with real QUIC clients and a machine that does what a client's
//! message says.

mod abuse;
mod double;
mod harness;
mod network;
mod restart;
mod session;
