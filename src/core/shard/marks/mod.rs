//! Marks: how far each user at home here has got in his channels, and how far those have got to
//! whom he writes.
//!
//! Comes in: what devices have consumed and read, what home shards of others tell. Goes out:
//! marks to the sessions that want them, and to the home shards of those who wrote, by way of the
//! channel's shard, which tells nobody who is blocked; never more
//! than one for the same user and channel in [`TELL_EVERY_MS`], the newest. Worth naming: a mark
//! is never above what its user may read, so never above what is durable; it goes back only with
//! the history it speaks of, or in a crash, to what was kept (`keeping`). What others are told is
//! a hint: one that is lost is made good by the next, or by what a session asks for as it begins.

mod asking;
mod counting;
mod keeping;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};
use tern_protocol::{ChannelId, Uin};

use super::Shard;
use super::home::{Home, User};
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;
use crate::mail::{Address, Grant, Mail, SessionRef};
use crate::placement::{Placement, ShardId};
use crate::progress::{MarkOf, MarksMail, Moved, Progress};
use crate::time::Mono;
use counting::Counts;
use keeping::Keeping;

/// Marks are told at most this often, in ms: what a person does not notice, and a busy channel
/// with many acks costs one hint instead of many.
const TELL_EVERY_MS: u64 = 100;

/// Marks of one shard that are told in one turn: some hundred µs.
const TOLD_PER_TURN: usize = 256;

/// All marks of a shard.
#[derive(Default)]
pub(super) struct Marks {
    /// Of users at home here; of one channel they stand together.
    own: BTreeMap<(ChannelId, Uin), Mark>,
    /// Of the other user in a direct channel, by who is told of it.
    peers: FxHashMap<(ChannelId, Uin), Mark>,
    /// Of `own`, what the other user's home shard asked for before it could be told.
    asked_early: FxHashSet<(ChannelId, Uin)>,
    /// Names this life of `changes`; 0 before it begins.
    life: u64,
    /// Counts what moved for somebody's sessions.
    changes: u64,
    /// Sessions that want to be told; some of them may be over.
    listeners: FxHashMap<Uin, Vec<SessionRef>>,
    to_tell: VecDeque<Tell>,
    is_to_tell: FxHashSet<Tell>,
    /// Nothing is told before.
    tell_at: Mono,
    keeping: Keeping,
    counts: Counts,
}

/// One mark, and the change by which it moved last.
#[derive(Clone, Copy, Default)]
struct Mark {
    progress: Progress,
    changed: u64,
}

/// Something to tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Tell {
    /// This user's mark, to his own sessions.
    Own(ChannelId, Uin),
    /// This user's mark, to the home shard of the other.
    Peer(ChannelId, Uin),
    /// The other's mark, to this user's sessions.
    Heard(ChannelId, Uin),
}

impl Marks {
    fn tell(&mut self, tell: Tell) {
        if self.is_to_tell.insert(tell) {
            self.to_tell.push_back(tell);
        }
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// A user has got so far, within what he may read.
    fn advance(
        &mut self,
        context: &mut Context<'_>,
        (channel, uin): (ChannelId, Uin),
        progress: Progress,
        grant: &Grant,
    ) {
        let mark = self.own.entry((channel, uin)).or_default();
        mark.progress = mark.progress.within(grant);
        if mutant!(MarkGoesBack) {
            mark.progress = Progress { incarnation: grant.incarnation, ..Progress::default() };
        }
        let progress = match mutant!(ReadOnDelivery) {
            true => Progress { read: progress.delivered, shown: progress.delivered, ..progress },
            false => progress,
        };
        let Moved { delivered, read, shown } = mark.progress.merge(progress.within(grant));
        if read {
            context.counters.marks_read += 1;
            let changed = self.next_change();
            self.own.get_mut(&(channel, uin)).expect("it was just changed").changed = changed;
            self.tell(Tell::Own(channel, uin));
        }
        if read || shown {
            self.keeping.note(context, channel, uin);
        }
        if (delivered || shown) && channel.peer_of(uin).is_some_and(|peer| peer != uin) {
            self.tell(Tell::Peer(channel, uin));
        }
    }

    /// What this user may read of a group is known, or another range: sessions that asked before
    /// were told nothing of his mark.
    pub(super) fn readable(&mut self, channel: ChannelId, uin: Uin) {
        let changed = self.changes + 1;
        let Some(mark) = self.own.get_mut(&(channel, uin)) else { return };
        (mark.changed, self.changes) = (changed, changed);
        if self.listeners.contains_key(&uin) {
            self.tell(Tell::Own(channel, uin));
        }
    }

    /// The other user of a direct channel has got so far; `uin` is told.
    fn hear(&mut self, channel: ChannelId, uin: Uin, progress: Progress) {
        let changed = self.changes + 1;
        let mark = self.peers.entry((channel, uin)).or_default();
        if mark.progress.merge(progress) != Moved::default() {
            mark.changed = changed;
            self.changes = changed;
            self.tell(Tell::Heard(channel, uin));
        }
    }

    /// The mark of a user as he himself may know it.
    fn own_mark(&self, channel: ChannelId, uin: Uin, grant: &Grant) -> Option<(MarkOf, u64)> {
        let mark = self.own.get(&(channel, uin))?;
        let progress = mark.progress.within(grant);
        Some((MarkOf { channel, uin, progress }, mark.changed))
    }

    /// The mark of the other in a direct channel. It was within what its own home shard knew to
    /// be readable, which can be more than is known here.
    fn peer_mark(&self, channel: ChannelId, uin: Uin, grant: &Grant) -> Option<(MarkOf, u64)> {
        let mark = self.peers.get(&(channel, uin))?;
        let progress = match mark.progress.incarnation == grant.incarnation {
            true => mark.progress,
            false => mark.progress.within(grant),
        };
        Some((MarkOf { channel, uin: channel.peer_of(uin)?, progress }, mark.changed))
    }

    /// Tells the sessions of a user that want it, and forgets those that are over.
    fn tell_sessions(&mut self, context: &mut Context<'_>, user: &User, uin: Uin, mark: MarkOf) {
        if mutant!(MarkUntold) && mark.uin == uin {
            return;
        }
        let Some(listeners) = self.listeners.get_mut(&uin) else { return };
        listeners.retain(|listener| user.is_session(*listener));
        for to in listeners.iter().copied() {
            let mail = Mail::Marks(MarksMail::Mark { to, mark });
            context.post.send(context.counters, Address::Front(to.worker), mail);
        }
        if listeners.is_empty() {
            self.listeners.remove(&uin);
        }
    }

    /// Tells what moved, a turn's worth, unless that was just done.
    fn tell_some(&mut self, context: &mut Context<'_>, home: &Home) {
        if self.to_tell.is_empty() || context.now.mono < self.tell_at {
            return;
        }
        for _ in 0..TOLD_PER_TURN {
            let Some(tell) = self.to_tell.pop_front() else { break };
            self.is_to_tell.remove(&tell);
            self.tell_now(context, home, tell);
        }
        if self.to_tell.is_empty() {
            self.tell_at = context.now.mono.after_ms(TELL_EVERY_MS);
        }
    }

    fn tell_now(&mut self, context: &mut Context<'_>, home: &Home, tell: Tell) {
        let (Tell::Own(channel, uin) | Tell::Peer(channel, uin) | Tell::Heard(channel, uin)) = tell;
        let Some((user, grant)) = home.users.get(&uin).zip(home.grant(channel, uin)) else {
            return; // nothing may be read any more
        };
        let mark = match tell {
            Tell::Heard(..) => self.peer_mark(channel, uin, &grant),
            Tell::Own(..) | Tell::Peer(..) => self.own_mark(channel, uin, &grant),
        };
        let Some((mark, _)) = mark else { return };
        match tell {
            Tell::Own(..) | Tell::Heard(..) => self.tell_sessions(context, user, uin, mark),
            Tell::Peer(..) => tell_peer(context, mark),
        }
    }
}

fn tell_peer(context: &mut Context<'_>, mark: MarkOf) {
    let MarkOf { channel, uin: whose, progress } = mark;
    context.counters.receipts_told += 1;
    let progress = progress.for_others();
    let mail = Mail::Marks(MarksMail::TellPeer { whose, channel, progress });
    let shard = Address::Shard(context.placement.shard_of_channel(channel));
    context.post.send(context.counters, shard, mail);
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Mail about marks.
    pub(super) fn handle_marks_mail(&mut self, context: &mut Context<'_>, mail: MarksMail) {
        match mail {
            MarksMail::Seen { uin, channel, progress } => {
                self.handle_seen(context, uin, channel, progress);
            }
            MarksMail::SeenAll { uin, list } => {
                for (channel, progress) in list {
                    self.handle_seen(context, uin, channel, progress);
                }
            }
            MarksMail::TellPeer { whose, channel, progress } => {
                self.handle_tell_peer(context, MarkOf { channel, uin: whose, progress });
            }
            MarksMail::PeerSeen { whose, channel, progress } => {
                self.handle_peer_seen(context.placement, MarkOf { channel, uin: whose, progress });
            }
            MarksMail::Ask(question) => self.handle_ask_marks(context, question),
            MarksMail::AskPeers { from, uin, channels } => {
                self.handle_ask_peers(context, from, uin, &channels);
            }
            MarksMail::TellPeers { to, marks } => self.handle_tell_peers(context, to, marks),
            MarksMail::Peers { marks } => {
                marks.into_iter().for_each(|mark| self.handle_peer_seen(context.placement, mark));
            }
            MarksMail::AskReceipts { from, device, channel, id } => {
                self.handle_ask_receipts(context, from, device, (channel, id));
            }
            MarksMail::Count(question) => self.marks.counts.count_soon(question),
            MarksMail::Counted { number, home, delivered, read } => {
                self.handle_counted(context, (number, home), (delivered, read));
            }
            MarksMail::Mark { .. } | MarksMail::Page { .. } | MarksMail::Receipts { .. } => {
                unreachable!("mail for a front came to a shard: {mail:?}")
            }
        }
    }

    /// A device of a user here has got so far.
    fn handle_seen(
        &mut self,
        context: &mut Context<'_>,
        uin: Uin,
        channel: ChannelId,
        progress: Progress,
    ) {
        if let Some(grant) = self.home.grant(channel, uin) {
            self.marks.advance(context, (channel, uin), progress, &grant);
        }
    }

    /// A user has got so far in a direct channel of this shard: the other one is told, unless he is
    /// blocked.
    fn handle_tell_peer(&mut self, context: &mut Context<'_>, mark: MarkOf) {
        let MarkOf { channel, uin: whose, progress } = mark;
        if let Some(peer) = channel.peer_of(whose).filter(|peer| self.may_hear(*peer, whose)) {
            let mail = Mail::Marks(MarksMail::PeerSeen { whose, channel, progress });
            let home = Address::Shard(context.placement.home_of(peer));
            context.post.send(context.counters, home, mail);
        }
    }

    /// The same of several, for a home shard that asked.
    fn handle_tell_peers(&mut self, context: &mut Context<'_>, to: ShardId, marks: Vec<MarkOf>) {
        let mut marks = marks;
        marks.retain(|mark| {
            mark.channel.peer_of(mark.uin).is_some_and(|peer| self.may_hear(peer, mark.uin))
        });
        if !marks.is_empty() {
            let mail = Mail::Marks(MarksMail::Peers { marks });
            context.post.send(context.counters, Address::Shard(to), mail);
        }
    }

    /// Whether a user may know how far another has got in their direct channel.
    fn may_hear(&self, user: Uin, of: Uin) -> bool {
        !self.blocks.holds(of, user) || mutant!(BlockedHears)
    }

    /// Another user, at home anywhere, has got so far in a direct channel with one who is at home
    /// here.
    fn handle_peer_seen(&mut self, placement: &Placement, mark: MarkOf) {
        let MarkOf { channel, uin: whose, progress } = mark;
        let Some(uin) = channel.peer_of(whose) else { return };
        let is_here = placement.home_of(uin) == self.id;
        if is_here && self.home.users.get(&uin).is_some_and(|user| user.is_in(channel)) {
            self.marks.hear(channel, uin, progress);
        }
    }

    /// Tells, keeps and counts a turn's worth.
    pub(super) fn serve_marks(&mut self, context: &mut Context<'_>) {
        if self.marks.life == 0 {
            self.marks.life = context.now.wall.0.max(1);
        }
        self.marks.tell_some(context, &self.home);
        self.keep_marks(context);
        self.marks.count_some(context, self.id, &self.home);
    }

    /// When there is something to do, and what.
    pub(super) fn marks_deadline(&self) -> Option<(Mono, &'static str)> {
        let tell = (!self.marks.to_tell.is_empty()).then_some(self.marks.tell_at);
        [
            tell.map(|at| (at, "marks are told")),
            self.marks.keeping.deadline().map(|at| (at, "marks are written down")),
            self.marks.counts.deadline(),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::LinkId;
    use crate::placement::WorkerId;
    use tern_protocol::{Incarnation, MessageId};

    const ANN: Uin = Uin(1);

    fn group(id: u64) -> ChannelId {
        ChannelId::group(id)
    }

    /// Marks of Ann in two groups, of which one session of hers asked at change 7.
    fn marks() -> Marks {
        let mut marks = Marks { changes: 7, ..Marks::default() };
        for (id, changed) in [(17, 3), (18, 7)] {
            let progress = Progress::read(MessageId(id), Incarnation(1), false);
            marks.own.insert((group(id), ANN), Mark { progress, changed });
        }
        let session = SessionRef { worker: WorkerId(0), link: LinkId(1) };
        marks.listeners.insert(ANN, vec![session]);
        marks
    }

    fn told(marks: &Marks) -> Vec<(ChannelId, Uin)> {
        let own = |tell: &Tell| match tell {
            Tell::Own(channel, uin) => (*channel, *uin),
            Tell::Peer(..) | Tell::Heard(..) => panic!("that is nobody else's business"),
        };
        marks.to_tell.iter().map(own).collect()
    }

    #[test]
    fn a_mark_that_becomes_readable_moves_for_its_user_and_keeps_its_ids() {
        let mut marks = marks();
        let before = marks.own[&(group(17), ANN)].progress;
        marks.readable(group(17), ANN);
        let mark = marks.own[&(group(17), ANN)];
        assert_eq!((mark.changed, marks.changes), (8, 8), "who knows up to 7 is told of it");
        assert_eq!(mark.progress, before);
        assert_eq!(marks.own[&(group(18), ANN)].changed, 7, "of the other nothing is new");
        assert_eq!(told(&marks), [(group(17), ANN)]);
    }

    #[test]
    fn it_is_told_once_however_often_its_range_changes() {
        let mut marks = marks();
        (0..3).for_each(|_| marks.readable(group(17), ANN));
        assert_eq!(told(&marks), [(group(17), ANN)]);
        assert_eq!(marks.own[&(group(17), ANN)].changed, 10, "each may have been another range");
    }

    #[test]
    fn who_has_no_mark_there_gets_none() {
        let mut marks = marks();
        marks.readable(group(19), ANN);
        marks.readable(group(17), Uin(2));
        assert_eq!((marks.own.len(), marks.changes), (2, 7));
        assert!(marks.to_tell.is_empty() && marks.is_to_tell.is_empty());
    }

    #[test]
    fn without_a_session_that_wants_it_nothing_waits_to_be_told() {
        let mut marks = marks();
        marks.listeners.clear();
        marks.readable(group(17), ANN);
        assert!(marks.to_tell.is_empty(), "it would be told to nobody");
        assert_eq!(marks.own[&(group(17), ANN)].changed, 8, "who asks later hears of it");
    }
}
