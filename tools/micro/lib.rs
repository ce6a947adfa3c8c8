//! The small pieces of a message's way, each as one operation that can be timed
//! (`cargo bench -p tern-micro`) and whose instructions can be counted (`tools/micro/count`).
//!
//! Each operation is a struct that holds what it needs and does the same work each time; nothing
//! here measures. What is private to another package is included by its path, so that the very
//! file is measured.
#![forbid(unsafe_code)]

// Files of `core` that are included here name these as their own package's.
use tern_core::shard::state;
use tern_core::{log, mail, recalled};

/// No deliberate defect exists here, as in every build of the server.
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

mod append;
mod codec;
mod counter;
mod dedup;
mod mailbox;
mod message;
mod timing;

#[path = "../../src/server/worker/timers.rs"]
#[allow(dead_code, reason = "a part of it is measured")]
mod timers;

#[path = "../../src/core/shard/channel.rs"]
#[allow(dead_code, reason = "a part of it is measured")]
mod channel;

#[path = "../../src/core/tests/common/mod.rs"]
mod world;

pub use append::Append;
pub use codec::Codec;
pub use counter::Counter;
pub use dedup::Dedup;
pub use mailbox::Mailbox;
pub use message::Message;
pub use timing::Timing;

/// Something that is done again and again.
pub trait Operation {
    /// Does it once.
    fn once(&mut self);
}

/// Makes an operation that is ready to be done.
pub type Make = fn() -> Box<dyn Operation>;

/// Every operation by its name.
pub const ALL: [(&str, Make); 9] = [
    ("encode", || Box::new(codec::Encode(Codec::new()))),
    ("decode", || Box::new(Codec::new())),
    ("dedup", || Box::new(Dedup::new())),
    ("counter", || Box::new(Counter::new())),
    ("append", || Box::new(Append::new())),
    ("mailbox", || Box::new(Mailbox::new())),
    ("timers", || Box::new(Timing::new())),
    ("message", || Box::new(Message::new())),
    ("traced", || Box::new(Message::traced())),
];
