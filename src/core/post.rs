//! Mail on its way out: what stays on this worker, and what waits for another one's mailbox.
//!
//! Nobody waits for anybody: mail that another worker has no room for stays here by the rule of
//! its kind ([`Mail::when_full`]).

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;
use tern_protocol::ChannelId;

use crate::counters::Counters;
use crate::mail::{Address, Mail, SessionRef, WhenFull};
use crate::placement::{Placement, WorkerId};
use crate::progress::Topic;

/// Pieces of mail waiting for another worker above which hints are merged: a turn's worth.
const COALESCE_ABOVE: usize = 256;

/// The post of one worker.
pub(crate) struct Post {
    here: WorkerId,
    placement: Placement,
    requests_max: usize,
    local: VecDeque<(Address, Mail)>,
    outboxes: Vec<Outbox>,
}

/// What waits for one other worker.
#[derive(Default)]
struct Outbox {
    queue: VecDeque<(Address, Mail)>,
    /// Requests posted and not answered yet; each has a place for its answer.
    open_requests: usize,
    /// Hints that came while the queue was long, the newest of each, in order of arrival.
    hints: FxHashMap<About, (Address, Mail)>,
    hints_order: VecDeque<About>,
}

/// What a hint is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum About {
    Delivery(SessionRef, ChannelId),
    Mark(Topic),
}

impl About {
    fn of(mail: &mut Mail) -> Option<Self> {
        match mail {
            Mail::Deliver { to, channel, .. } => Some(Self::Delivery(*to, *channel)),
            Mail::Marks(mail) => mail.as_hint().map(|(topic, _)| Self::Mark(topic)),
            _ => None,
        }
    }
}

impl Post {
    pub(crate) fn new(here: WorkerId, placement: Placement, requests_max: usize) -> Self {
        let outboxes = (0..placement.workers()).map(|_| Outbox::default()).collect();
        Self { here, placement, requests_max, local: VecDeque::new(), outboxes }
    }

    /// Posts mail that is never refused.
    pub(crate) fn send(&mut self, counters: &mut Counters, to: Address, mut mail: Mail) {
        debug_assert!(mail.when_full() != WhenFull::Refuse, "a request goes by `request`");
        let worker = self.worker_of(to);
        if worker == self.here {
            self.local.push_back((to, mail));
            return;
        }
        let outbox = self.outbox(worker);
        match About::of(&mut mail).filter(|_| outbox.queue.len() >= COALESCE_ABOVE) {
            Some(about) => outbox.coalesce(counters, about, (to, mail)),
            None => outbox.queue.push_back((to, mail)),
        }
    }

    /// Posts a request, unless its worker still owes too many answers.
    ///
    /// # Errors
    /// Refused; nothing was posted.
    pub(crate) fn request(
        &mut self,
        counters: &mut Counters,
        to: Address,
        mail: Mail,
    ) -> Result<(), Mail> {
        let (worker, requests_max) = (self.worker_of(to), self.requests_max);
        let outbox = self.outbox(worker);
        if outbox.open_requests >= requests_max {
            counters.mail_refused += 1;
            return Err(mail);
        }
        outbox.open_requests += 1;
        if worker == self.here {
            self.local.push_back((to, mail));
        } else {
            self.outbox(worker).queue.push_back((to, mail));
        }
        Ok(())
    }

    /// A request to `to` was answered.
    pub(crate) fn answered(&mut self, to: Address) {
        let worker = self.worker_of(to);
        let outbox = self.outbox(worker);
        outbox.open_requests =
            outbox.open_requests.checked_sub(1).expect("an answer has a request before it");
    }

    /// The next mail that stays here.
    pub(crate) fn poll_local(&mut self) -> Option<(Address, Mail)> {
        self.local.pop_front()
    }

    /// The next mail for another worker.
    pub(crate) fn poll(&mut self, worker: WorkerId) -> Option<(Address, Mail)> {
        let outbox = self.outbox(worker);
        outbox.queue.pop_front().or_else(|| outbox.poll_hint())
    }

    fn outbox(&mut self, worker: WorkerId) -> &mut Outbox {
        &mut self.outboxes[usize::from(worker.0)]
    }

    fn worker_of(&self, to: Address) -> WorkerId {
        match to {
            Address::Front(worker) => worker,
            Address::Shard(shard) => self.placement.worker_of(shard),
        }
    }
}

impl Outbox {
    fn coalesce(&mut self, counters: &mut Counters, about: About, hint: (Address, Mail)) {
        match self.hints.entry(about) {
            Entry::Occupied(mut older) => {
                merge(&mut older.get_mut().1, hint.1);
                counters.mail_coalesced += 1;
            }
            Entry::Vacant(place) => {
                place.insert(hint);
                self.hints_order.push_back(about);
            }
        }
    }

    fn poll_hint(&mut self) -> Option<(Address, Mail)> {
        let about = self.hints_order.pop_front()?;
        Some(self.hints.remove(&about).expect("each in the order has its hint"))
    }
}

/// Two hints about the same become one. Of what may be read the newer says all; how far somebody
/// has got is told in parts.
fn merge(older: &mut Mail, mut newer: Mail) {
    if let (Mail::Marks(older), Mail::Marks(newer)) = (&mut *older, &mut newer)
        && let (Some((_, known)), Some((_, told))) = (older.as_hint(), newer.as_hint())
    {
        known.merge(*told);
        return;
    }
    *older = newer;
}
