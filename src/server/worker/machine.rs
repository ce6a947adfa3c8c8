//! What the driver drives and whom it asks: the machine, the directory, the warmer.

use tern_core::counters::Counters;
use tern_core::dedup::DedupTable;
use tern_core::io::{ColdRecord, Effect, Input, LinkId, Query, Waiter};
use tern_core::log::{Log, Reader};
use tern_core::mail::{Address, Device, Mail};
use tern_core::moments::Moment;
use tern_core::placement::WorkerId;
use tern_core::sight::{DeviceSight, SessionSight};
use tern_core::time::{Mono, Now};
use tern_protocol::Uin;
use tern_protocol::frames::Network;

/// The mouth of [`tern_core::Worker`], whatever its log and table are; its contract is said
/// there.
pub trait Machine {
    /// Something came in.
    fn handle(&mut self, now: Now, input: Input);
    /// The next thing to do, until `None`.
    fn poll_effect(&mut self) -> Option<Effect>;
    /// The next mail for another worker, until `None`.
    fn poll_mail(&mut self, to: WorkerId) -> Option<(Address, Mail)>;
    /// Ends a turn; may leave effects.
    fn commit(&mut self, now: Now);
    /// When to say [`Input::Tick`] at the latest, and what for.
    fn poll_timeout(&self) -> Option<(Mono, &'static str)>;
    /// Counts since the start.
    fn counters(&self) -> &Counters;
    /// Connections, and those of them with a session that is logged in.
    fn sessions(&self) -> (usize, usize);
    /// How many of those sessions are on which network.
    fn networks(&self) -> [usize; Network::COUNT];
    /// From now on its moments are drained.
    fn want_moments(&mut self);
    /// What happened to messages since the last time, in order; nothing unless wanted.
    fn drain_moments(&mut self) -> impl Iterator<Item = Moment>;
    /// Whose session a connection is, once it is logged in.
    fn device_of(&self, link: LinkId) -> Option<Device>;
    /// The devices of a user whose home shard is this worker's.
    fn see_user(&self, now: Now, uin: Uin) -> Vec<DeviceSight>;
    /// A session of this worker that is logged in.
    fn see_session(&self, now: Now, link: LinkId) -> Option<SessionSight>;
}

impl<L: Log, T: DedupTable, R: Reader> Machine for tern_core::Worker<L, T, R> {
    fn handle(&mut self, now: Now, input: Input) {
        self.handle(now, input);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.poll_effect()
    }

    fn poll_mail(&mut self, to: WorkerId) -> Option<(Address, Mail)> {
        self.poll_mail(to)
    }

    fn commit(&mut self, now: Now) {
        self.commit(now);
    }

    fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        self.poll_timeout()
    }

    fn counters(&self) -> &Counters {
        self.counters()
    }

    fn sessions(&self) -> (usize, usize) {
        self.sessions()
    }

    fn networks(&self) -> [usize; Network::COUNT] {
        self.networks()
    }

    fn want_moments(&mut self) {
        self.want_moments();
    }

    fn drain_moments(&mut self) -> impl Iterator<Item = Moment> {
        self.drain_moments()
    }

    fn device_of(&self, link: LinkId) -> Option<Device> {
        self.device_of(link)
    }

    fn see_user(&self, now: Now, uin: Uin) -> Vec<DeviceSight> {
        self.see_user(now, uin)
    }

    fn see_session(&self, now: Now, link: LinkId) -> Option<SessionSight> {
        self.see_session(now, link)
    }
}

/// Who knows the users. Asked from a worker's thread: it must not block.
pub trait Directory: Send + Sync {
    /// Takes a question; the answer comes by [`super::Doors::answer`], once. No worker has more
    /// than [`super::QUERIES_MAX`] open, so a queue of that size per worker always has room.
    fn ask(&self, worker: WorkerId, query: Query);
}

/// Who reads cold records into memory. Asked from a worker's thread: it must not block.
pub trait Warmer: Send + Sync {
    /// Takes a request; its end comes by [`super::Doors::warmed`], once, also when the record
    /// can't be read. No worker has more than [`super::WARMS_MAX`] open.
    fn warm(&self, worker: WorkerId, record: ColdRecord, waiter: Waiter);
}
