//! What Tern decides, without doing any of it: sans-IO state machines.
//!
//! A [`Worker`] is everything one thread owns: the sessions of its connections (the *front*) and
//! some shards. It takes one [`Input`](io::Input) at a time, is told the time, and leaves
//! [`Effect`](io::Effect)s and mail for other workers behind; a driver (a real thread, or the
//! simulator) carries them out.
//! It reads no clock, opens no file or socket and starts no thread.
//!
//! The way of one message, room by room:
//!
//! 1. [`session`]: the frame of a device that is logged in; may it send, is it too long or too
//!    fast? It becomes mail to the shard that owns the channel.
//! 2. [`shard`] `chat`: deduplicate, count, append to the shard's [`log`]: the one copy.
//! 3. [`shard`] `commit`: the log's proof that it is durable comes back; only from it can the
//!    ack be built. The ack goes to the sender's session.
//! 4. [`shard`] `notify`: the home shard of each member is told how far the channel can be read.
//! 5. [`shard`] `home`: which devices of the member are online, and on which worker?
//! 6. [`session`] `delivery`: within that grant and the device's cursor and window, the records
//!    go out straight from the mapped log; the device's ack moves its cursor.
#![forbid(unsafe_code)]

#[macro_use]
pub mod mutants;

pub mod config;
pub mod counters;
pub mod time;

pub mod dedup;
pub mod log;
pub mod memory;

pub mod recalled;

pub mod mail;
pub mod placement;
mod post;
pub mod progress;

pub mod limiter;

pub mod io;

pub mod shard;

pub mod session;

pub mod sight;

pub mod moments;

mod context;
mod worker;

pub use shard::{DurableAck, Recovery, Shard};
pub use worker::Worker;
