//! The proof: the machines that ship, on a virtual network, disk and clock, through thousands of
//! bad days, before an oracle that knows who must have what, once, in order.
//!
//! What comes in: a [`plan`] and a seed. What goes out: an [`Outcome`] with the first thing that
//! was wrong, if any, the hash of all that happened, and what was injected. One seed gives one
//! run, byte for byte.
//!
//! Rooms: [`world`] is the loop and everything on the agenda; [`server`] and [`device`] hold what
//! runs, [`disk`] and [`parcel`]s on `tern-netmodel` what it runs on, [`quic`] the second depth, and [`engine`] the third; [`fault`] lists what goes wrong, [`mutant`] the
//! deliberate defects; [`small`] is a world of which every order of events is tried; the [`oracle`] judges by its checks; [`report`] speaks to people and [`shrink`] makes a failure small.
//!
//! Not here: real sockets, real disks and threads, which the server's own tests kill and starve.
#![forbid(unsafe_code)]

pub use tern_netmodel::random;

pub mod plan;

pub mod fault;
pub mod mutant;

pub mod agenda;
pub mod trace;

pub mod disk;
pub mod engine;
pub mod parcel;
pub mod quic;

pub mod device;
pub mod server;

pub mod oracle;

pub mod world;

pub mod small;

pub mod report;
pub mod runner;
pub mod shrink;

pub use world::{Outcome, World};
