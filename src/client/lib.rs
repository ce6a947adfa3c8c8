//! The client of Tern: for programs and phones that send and receive messages.
//!
//! What comes in: a [`profile`] (who, with which secret, to which server) and a
//! [`store`] (what must survive a crash). What goes out: messages in the order of their channels,
//! each once, and one final answer to each send. Lost connections, restarts of either side and
//! changes of network are the client's business, not the application's.
//!
//! ```no_run
#![doc = include_str!("examples/hello.rs")]
//! ```
//!
//! Rooms, in reading order:
//!
//! - [`group`] has the words for groups, [`marks`] those for how far users have got, [`history`]
//!   those for looking back, [`mailbox`] those for the messages that the device keeps.
//! - [`machine`] decides: a sans-IO state machine with the outbox, the mailbox, the session. It
//!   reads no clock, opens no socket and no file.
//! - [`store`] keeps what it asks to be kept.
//! - [`servers`] leads to the server, also when names lead nowhere any more.
//! - the driver ([`Client`], [`Events`]) brings both to QUIC and real time.
//!
//! What a crash leaves: a message whose send was accepted by [`Client::post`] and stored is sent
//! at the next start, under the same key, so it stands once in its channel. A message that was
//! given to the application and not confirmed comes again; the window is the application's own,
//! between its effect (a printed line, say) and the confirmation being stored.
#![forbid(unsafe_code)]

pub mod group;
pub mod hex;
pub mod history;
pub mod mailbox;
pub mod marks;
pub mod profile;
pub mod servers;

pub mod machine;

pub mod store;

mod driver;

pub use driver::{
    BlockError, Client, Closed, ConnectError, Events, Group, GroupError, NotTaken, Options,
    Problem, SecondCopies, Trust, certificate_pin, quic_settings, server_code,
};
