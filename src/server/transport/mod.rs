//! The way from the wire to a worker, before any state of ours: which worker a datagram belongs
//! to, the sockets that let the kernel decide it, and every setting of QUIC and TLS.
//!
//! - [`steering`]: the rule "first byte of the destination connection id, modulo workers", as
//!   code and as the generator of ids that obey it.
//! - [`sockets`]: one UDP socket per worker on one port, in a `SO_REUSEPORT` group; the kernel
//!   applies the same rule by the program in `reuseport`, the one file here with `unsafe`.
//! - [`settings`]: QUIC's transport, server and endpoint settings, each set explicitly.
//! - [`tls`]: TLS 1.3 with the one ALPN protocol, no early data.
//!
//! The rule and the settings stand in `tern-quic`, where the simulator finds them too. Nothing here
//! holds a connection; that is [`crate::worker`].

pub use tern_quic::steering;

mod reuseport;
pub mod sockets;

pub use tern_quic::settings;
pub mod tls;
