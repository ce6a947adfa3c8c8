//! The driver over real sockets, with real QUIC clients.
