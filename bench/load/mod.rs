//! What is laid on the server: when messages are due ([`pacing`]), what each device says and
//! hears ([`device`]), what a bad network does to it ([`path`]), and the one thread and socket that carry many of them ([`swarm`]).

mod device;
mod pacing;
mod path;
mod socket;
mod swarm;
mod tls;

pub use device::{CONTENT_BYTES_MIN, Event, Identity, Message};
pub use pacing::{Arrivals, Schedule};
pub use path::Weather;
pub use swarm::{Swarm, Wait};
