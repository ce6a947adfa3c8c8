//! The front: the sessions of the devices that are connected to a worker.
//!
//! Comes in: whole frames of a connection, mail from shards, answers of the directory. Goes out:
//! frames, mail to the channel's shard or the user's home shard, closes. A session knows its
//! device only after its user's home shard said so; a frame out of turn closes it.

mod beat;
mod blocking;
mod counting;
mod cursors;
mod delivery;
mod front;
mod greeting;
mod grouping;
mod history;
mod marking;
mod page;
mod rates;
mod reading;
mod sending;
mod slot;
mod window;

pub(crate) use front::Front;
pub use slot::LOGINS_PER_SECOND;
pub(crate) use slot::login_ms;

use tern_protocol::Epoch;
use tern_protocol::digest::UNSAID;
use tern_protocol::frames::Network;

use crate::limiter::Limiter;
use crate::mail::{Device, Mail, Proof, SessionRef};
use crate::time::Mono;
use blocking::Blocking;
use cursors::Cursors;
use delivery::Delivery;
use history::Looking;
use marking::Marking;
use rates::Sending;

/// One connection's session.
pub(crate) struct Session {
    state: State,
    network: Network,
    /// Whether the client takes pushes out of order, by what it said in HELLO.
    takes_datagrams: bool,
    /// Milliseconds until the next heartbeat, as the client was last told; before the login, as
    /// it wants it.
    beat_ms: u32,
    /// Whether its packets come from another address than at the heartbeat before.
    moved: bool,
    /// When its connection began, by the first packet.
    begun: Mono,
    /// When the connection was there.
    opened: Mono,
    /// When its newest frame came.
    heard: Mono,
    /// When its deadline is looked at; other entries of the heap are of no account.
    armed: Mono,
}

/// How far a session has come; each state owns only what it may use.
enum State {
    /// Connected; HELLO must come.
    Greeting,
    /// HELLO was answered; LOGIN or RESUME must come. With the digest of the cursors that the
    /// client would say, here as in the next two.
    Welcomed(u64),
    /// The directory compares the secret, or looks at the token: then the device is who the
    /// client takes itself for.
    Authenticating(Device, u64),
    /// The home shard was asked for the session.
    Attaching(Device, u64),
    /// Logged in.
    Live(Live),
}

impl State {
    /// Of the cursors that the client would say, before they are said.
    fn digest(&self) -> u64 {
        match self {
            Self::Welcomed(digest)
            | Self::Authenticating(_, digest)
            | Self::Attaching(_, digest) => *digest,
            Self::Greeting | Self::Live(_) => UNSAID,
        }
    }
}

/// What a session that is logged in has.
struct Live {
    device: Device,
    epoch: Epoch,
    sending: Sending,
    /// FETCH and PING.
    asks: Limiter,
    cursors: Cursors,
    /// Whether a page of a group's members is under way.
    asks_group: bool,
    /// Whether it was shown all channels of its user.
    all_shown: bool,
    blocking: Blocking,
    marking: Marking,
    looking: Looking,
    delivery: Delivery,
}

/// A session's own state costs at most this many bytes; its channels come on top.
const SESSION_BYTES_MAX: usize = 256;

const _: () = assert!(size_of::<Session>() <= SESSION_BYTES_MAX);

impl Session {
    fn new(begun: Mono, now: Mono, armed: Mono) -> Self {
        let (state, network) = (State::Greeting, Network::Unknown);
        Self {
            state,
            network,
            takes_datagrams: false,
            beat_ms: 0,
            moved: false,
            begun,
            opened: now,
            heard: now,
            armed,
        }
    }

    /// The wish for the device's session, by this right.
    fn attach(&mut self, from: SessionRef, device: Device, proof: Proof) -> Mail {
        let (network, begun, digest) = (self.network, self.begun, self.state.digest());
        self.state = State::Attaching(device, digest);
        Mail::Attach { from, device, proof, network, begun, digest }
    }

    /// The device that the session speaks for, or wants to.
    fn device(&self) -> Option<Device> {
        match &self.state {
            State::Greeting | State::Welcomed(_) => None,
            State::Authenticating(device, _) | State::Attaching(device, _) => Some(*device),
            State::Live(live) => Some(live.device),
        }
    }
}
