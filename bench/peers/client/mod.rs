//! The other ends of all systems, behind one door: devices connect, send to each other, and tell
//! what they hear. Tern's are those of `tern-bench` ([`tern`]); those of systems over TCP share one
//! thread and one loop ([`tcp`]), and differ in their [`dialect`] only. So no system is measured
//! through a better client than another.
//!
//! All keep the same window of unanswered messages, come back after a lost connection by the same
//! rule, and send again then what was not answered.

pub mod dialect;
pub mod mqtt;
pub mod nats;
pub mod redis;
pub mod tcp;
pub mod tern;
pub mod xmpp;

use std::time::Instant;

use tern_bench::error::BenchError;

/// What a device has to tell. A *tag* is what the scenario gave a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is ready to send and to hear.
    Online,
    /// Its connection is gone; it comes back by itself.
    Lost,
    /// The server took the message with this tag.
    Acked(u64),
    /// It has the message with this tag from another device.
    Received(u64),
    /// Something went wrong: the run is over.
    Failed(String),
}

/// A message between two devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The number of the device that it is for.
    pub to: usize,
    /// Comes back with its events.
    pub tag: u64,
    /// Length of its content.
    pub bytes: usize,
}

/// Many devices on the thread that calls.
pub trait Load {
    /// Connects one more device.
    ///
    /// # Errors
    /// When it can't even be tried.
    fn connect(&mut self) -> Result<(), BenchError>;

    /// Has a device send, at once or as soon as it can.
    fn send(&mut self, from: usize, message: Message);

    /// Takes what has come and is due, and sends what is to be said.
    ///
    /// # Errors
    /// When the system refuses.
    fn turn(&mut self) -> Result<(), BenchError>;

    /// The next thing that a device has to tell, and when it came.
    fn poll_event(&mut self) -> Option<(usize, Instant, Event)>;

    /// Sleeps until something comes or is due, at most until `until`.
    ///
    /// # Errors
    /// When the system refuses.
    fn wait(&mut self, until: Instant) -> Result<(), BenchError>;
}
