//! What bad networks do to packets, decided without touching any: the one model behind the
//! simulator, `badlink` and `tern demo`.
//!
//! What comes in: packets with their size and the moment at which they were sent. What goes out:
//! packets with the moment at which they come out, none if they are lost, and counts of what was
//! done. Time is an argument, a [`Duration`](std::time::Duration) since whatever moment the
//! caller chose; chance comes from a seed, in one stream per concern, so that another delay
//! leaves the losses as they were.
//!
//! - [`conditions`]: how bad one direction is, as data; [`profile`] names whole links, with a
//!   [`timeline`] of what happens on them.
//! - [`link`]: one direction, which decides about each packet; [`loss`] and [`mod@line`] are parts of
//!   it. A [`path::Path`] is a link that also holds the packets until they are due.
//! - [`nat`]: which outer address stands for an inner one, until it is forgotten.
//! - [`carrier`]: what a transport makes of such a link, where the transport itself is not run.
//!
//! Not here: damaged bits, which UDP's checksum turns into losses; and queues shared between the
//! two directions, as on old radio links.
#![forbid(unsafe_code)]

pub mod conditions;
pub mod profile;
pub mod timeline;

pub mod line;
pub mod link;
pub mod loss;
pub mod path;

pub mod nat;

pub mod carrier;

pub use conditions::Conditions;
pub use link::{Counts, Link};
pub use nat::Nat;
pub use path::Path;
pub use profile::Profile;
pub use tern_random::{self as random, Stream};
pub use timeline::Timeline;
