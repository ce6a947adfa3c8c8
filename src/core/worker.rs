//! One thread's share of the server: its sessions and its shards behind one mouth.

use std::collections::VecDeque;

use tern_protocol::frames::Network;
use tern_protocol::{Code, Uin};

use crate::config::Config;
use crate::context::Context;
use crate::counters::Counters;
use crate::dedup::DedupTable;
use crate::io::{Answer, Effect, Input, LinkId, Waiter};
use crate::log::{Log, Reader};
use crate::mail::{Address, Device, Mail};
use crate::moments::{Moment, Moments};
use crate::placement::{Placement, ShardId, WorkerId};
use crate::post::Post;
use crate::session::Front;
use crate::shard::{Shard, TOLD_PER_TURN};
use crate::sight::{DeviceSight, SessionSight};
use crate::time::{Mono, Now};

/// Everything one worker decides.
///
/// Its driver, in each turn of its loop:
///
/// 1. calls [`handle`](Self::handle) for each thing that came in (frames, mail, proofs, answers,
///    a deadline that passed), and after each of them drains
///    [`poll_effect`](Self::poll_effect) to `None`;
/// 2. calls [`commit`](Self::commit) once, so that everything the turn appended goes to the disk
///    as one batch, and drains the effects of that too;
/// 3. drains [`poll_mail`](Self::poll_mail) for each other worker while that one's mailbox has
///    room; what has none stays here, and asks again next turn;
/// 4. sleeps no longer than [`poll_timeout`](Self::poll_timeout) says, then says
///    [`Input::Tick`].
pub struct Worker<L, T, R> {
    placement: Placement,
    config: Config,
    front: Front<R>,
    shards: Vec<Shard<L, T>>,
    /// Index into `shards` by shard number; `None` for shards of other workers.
    by_id: Vec<Option<usize>>,
    /// Index of the shard whose groups are told first in the next turn.
    tells_first: usize,
    post: Post,
    effects: VecDeque<Effect>,
    counters: Counters,
    moments: Moments,
}

impl<L: Log, T: DedupTable, R: Reader> Worker<L, T, R> {
    /// A worker that owns `shards`, each recovered, and reads all shards by `reader`.
    ///
    /// # Panics
    /// If `shards` are not exactly those that `placement` gives this worker.
    pub fn new(
        id: WorkerId,
        placement: Placement,
        config: Config,
        reader: R,
        shards: Vec<Shard<L, T>>,
    ) -> Self {
        let mut by_id = vec![None; usize::from(placement.shards())];
        for (index, shard) in shards.iter().enumerate() {
            by_id[usize::from(shard.id().0)] = Some(index);
        }
        let owned = placement.shards_of(id).filter(|shard| by_id[usize::from(shard.0)].is_some());
        assert_eq!(owned.count(), shards.len(), "a shard of another worker, or one twice");
        assert_eq!(placement.shards_of(id).count(), shards.len(), "a shard is missing");
        Self {
            placement,
            front: Front::new(id, reader),
            post: Post::new(id, placement, config.requests_max),
            config,
            shards,
            by_id,
            tells_first: 0,
            effects: VecDeque::new(),
            counters: Counters::default(),
            moments: Moments::default(),
        }
    }

    /// Something came in.
    pub fn handle(&mut self, now: Now, input: Input) {
        let (mut context, front, shards) = self.split(now);
        match input {
            Input::LinkOpened(link, begun) => {
                front.handle_opened(&mut context, link, begun);
            }
            Input::Frame(link, bytes) => front.handle_frame(&mut context, link, bytes),
            Input::Moved(link) => front.handle_moved(link),
            Input::LinkClosed(link) => front.handle_closed(&mut context, link),
            Input::Mail(to, mail) => deliver(&mut context, front, shards, to, mail),
            Input::Durable(shard) => shards.get(shard).handle_durable(&mut context),
            Input::Directory(Answer::UserExists { shard, channel, uin, exists }) => {
                shards.get(shard).handle_user_exists(&mut context, channel, uin, exists);
            }
            Input::Directory(answer) => front.handle_answer(&mut context, answer),
            Input::Warmed(Waiter::Link(link)) => front.handle_warmed(&mut context, link),
            Input::Warmed(Waiter::Count(link)) => front.handle_count_warmed(link),
            Input::Warmed(Waiter::History(link)) => {
                front.handle_history_warmed(&mut context, link);
            }
            Input::Warmed(Waiter::Shard(shard)) => shards.get(shard).handle_warmed(&mut context),
            Input::Kick { uin, device, code } => {
                front.handle_kick(&mut context, uin, device, code);
                for shard in shards.all.iter_mut() {
                    shard.handle_kick(&mut context, uin, device, code);
                    if let Some(device) = device.filter(|_| code == Code::DeviceRevoked) {
                        shard.forget_device(uin, device);
                    }
                }
            }
            Input::Drain => {
                front.handle_drain(&mut context);
                for shard in shards.all.iter_mut() {
                    shard.handle_drain(&context);
                }
            }
            Input::Tick => {
                front.handle_tick(&mut context);
                for shard in shards.all.iter_mut() {
                    shard.handle_tick(&mut context);
                }
            }
        }
        self.settle(now);
    }

    /// The next thing to do, until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next mail for another worker, until `None`.
    pub fn poll_mail(&mut self, to: WorkerId) -> Option<(Address, Mail)> {
        self.post.poll(to)
    }

    /// Ends a turn: hands what was appended to the commit.
    pub fn commit(&mut self, now: Now) {
        let (mut context, front, shards) = self.split(now);
        front.count_some(&mut context);
        for shard in shards.all.iter_mut() {
            shard.end_turn(&mut context);
        }
        self.tell_groups(now);
        self.settle(now);
    }

    /// Tells members of groups, a turn's worth; another shard's come first each time.
    fn tell_groups(&mut self, now: Now) {
        let first = self.tells_first;
        let (mut context, _, Shards { all, .. }) = self.split(now);
        let (before, from) = all.split_at_mut(first);
        let mut room = TOLD_PER_TURN;
        for shard in from.iter_mut().chain(before) {
            room = shard.serve_audiences(&mut context, room);
        }
        self.tells_first = (first + 1) % self.shards.len().max(1);
    }

    /// When to say [`Input::Tick`] at the latest, and what for.
    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let shards = self.shards.iter().filter_map(Shard::poll_timeout);
        shards.chain(self.front.poll_timeout()).min_by_key(|(at, _)| *at)
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections, and those of them with a session that is logged in.
    pub fn sessions(&self) -> (usize, usize) {
        self.front.count()
    }

    /// How many of those sessions are on which network, by the network's number on the wire.
    pub fn networks(&self) -> [usize; Network::COUNT] {
        self.front.networks()
    }

    /// The devices of a user whose home shard is this worker's; none of any other user.
    pub fn see_user(&self, now: Now, uin: Uin) -> Vec<DeviceSight> {
        let home = usize::from(self.placement.home_of(uin).0);
        let shard = self.by_id[home].map(|index| &self.shards[index]);
        shard.map_or_else(Vec::new, |shard| shard.see(now.mono, self.config.resume_ms, uin))
    }

    /// A session of this worker that is logged in.
    pub fn see_session(&self, now: Now, link: LinkId) -> Option<SessionSight> {
        self.front.see(now.mono, link)
    }

    /// Whose session a connection is, once it is logged in.
    pub fn device_of(&self, link: LinkId) -> Option<Device> {
        self.front.device_of(link)
    }

    /// From now on the driver drains [`drain_moments`](Self::drain_moments) whenever it has
    /// drained the effects; else nothing is noted.
    pub fn want_moments(&mut self) {
        self.moments.want();
    }

    /// What happened to messages since the last time, in order.
    pub fn drain_moments(&mut self) -> impl Iterator<Item = Moment> {
        self.moments.drain()
    }

    /// The shards that this worker owns.
    pub fn shards(&self) -> &[Shard<L, T>] {
        &self.shards
    }

    /// Delivers the mail that stays on this worker until there is none.
    fn settle(&mut self, now: Now) {
        while let Some((to, mail)) = self.post.poll_local() {
            let (mut context, front, shards) = self.split(now);
            deliver(&mut context, front, shards, to, mail);
        }
    }

    fn split(&mut self, now: Now) -> (Context<'_>, &mut Front<R>, Shards<'_, L, T>) {
        let context = Context {
            now,
            placement: &self.placement,
            config: &self.config,
            counters: &mut self.counters,
            post: &mut self.post,
            effects: &mut self.effects,
            moments: &mut self.moments,
        };
        (context, &mut self.front, Shards { all: &mut self.shards, by_id: &self.by_id })
    }
}

/// The shards of a worker, by number.
struct Shards<'a, L, T> {
    all: &'a mut [Shard<L, T>],
    by_id: &'a [Option<usize>],
}

impl<'a, L, T> Shards<'a, L, T> {
    fn get(self, id: ShardId) -> &'a mut Shard<L, T> {
        let index = self.by_id[usize::from(id.0)].expect("mail comes to the shard's own worker");
        &mut self.all[index]
    }
}

fn deliver<L: Log, T: DedupTable, R: Reader>(
    context: &mut Context<'_>,
    front: &mut Front<R>,
    shards: Shards<'_, L, T>,
    to: Address,
    mail: Mail,
) {
    match to {
        Address::Front(_) => front.handle_mail(context, mail),
        Address::Shard(shard) => shards.get(shard).handle_mail(context, mail),
    }
}
