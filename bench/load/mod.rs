//! What is laid on the server: when messages are due ([`pacing`]), what each device says and hears
//! ([`device`]) over its connection ([`mod@line`]), what a bad network does to it ([`path`]), what it does
//! not do itself ([`stall`]), and the
//! one thread that carries many of them ([`swarm`]).

mod crowd;
mod device;
mod line;
mod muster;
mod pacing;
mod path;
mod socket;
mod speaker;
mod stall;
mod swarm;
mod tls;

pub use crowd::{Crowd, check};
pub use device::{CONTENT_BYTES_MIN, Event, Identity, Message};
pub use line::{Datagrams, return_within};
pub use muster::Muster;
pub use pacing::{Arrivals, Schedule};
pub use path::Weather;
pub use socket::{punctual, wait_for};
pub use speaker::Speaker;
pub use stall::Stall;
pub use swarm::{Approach, Swarm, Wait};
pub use tls::Tickets;
