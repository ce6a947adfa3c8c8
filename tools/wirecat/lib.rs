//! Decodes packet captures down to Tern's frames.
//!
//! In come the packets of a capture (pcap, pcapng, a live interface) and the secrets of a TLS key
//! log; out come [`Event`]s: connections that open, move and end, and every frame that either side
//! said, by stream or datagram, once each. Nothing is sent, and nothing is guessed: what can't be
//! decrypted is counted in the [`Stats`](stats::Stats) of its connection.
//!
//! - [`capture`]: packets out of files and interfaces, datagrams out of packets.
//! - [`keylog`]: the secrets.
//! - [`quic`]: QUIC version 1, from datagrams to stream bytes, on ring's primitives.
//! - [`decoder`]: connections and the frames in them; the door of this crate.
//! - [`event`], [`stats`]: what comes out.
//! - [`show`]: the same as text, JSON, tables and pictures.
//! - [`lua`]: the same for Wireshark.
//!
//! What comes in is hostile until proven otherwise: captures may be cut, mutated or made up. Every
//! bound is checked, and what grows has a limit.
#![forbid(unsafe_code)]

pub mod capture;

pub mod keylog;

pub mod quic;

pub mod decoder;

pub mod event;

pub mod stats;

pub mod show;

pub mod lua;

pub use decoder::Decoder;
pub use event::{Event, What};
