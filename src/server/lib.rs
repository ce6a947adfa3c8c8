//! What is done: the workers with their sockets and QUIC, the control plane, and the commands of
//! the one binary, `tern`.
//!
//! `tern-core` decides and `tern-storage` keeps; this crate carries their effects out. A server
//! is put together in [`serve`]: the folder's lock first, then the port, then recovery, then one
//! thread per core, each with its own socket and its own share of everything.
//!
//! - A worker's state is reached by message only: the control plane asks, it never touches.
//! - A worker never waits for the directory, the disk or another worker.
//! - Only [`cli`] speaks to people on standard output; everything else logs to standard error.

pub mod alloc;

pub mod options;

pub mod folder;

pub mod directory;

pub mod backup;

pub mod control;

pub mod cli;

pub mod transport;

pub mod worker;

pub mod serve;

pub mod trace;
