//! Marks say what was said: nobody is told that more was delivered or read than devices have said,
//! who is blocked is told nothing of what was said meanwhile, in one life of the server no mark goes
//! back, and counts are those of a plain look at the logs.

use std::collections::{BTreeMap, BTreeSet};

use tern_client::marks::{GroupReceipts, Receipt, Unread};
use tern_protocol::frames::message_kind;
use tern_protocol::limits::UNREAD_COUNT_MAX;
use tern_protocol::{ChannelId, Code, Uin};

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::{Place, Truth};

/// How far: delivered, and read.
type Far = (u64, u64);

/// Everything that was said about marks.
#[derive(Debug, Default)]
pub struct Marks {
    /// By user and channel: the most that his devices have told the server.
    said: BTreeMap<(Uin, ChannelId), Far>,
    /// Of that, what the other side of a direct channel may know: what was said while it was not
    /// blocked, and once it is so no more, all.
    open: BTreeMap<(Uin, ChannelId), Far>,
    /// By user and channel: the most that his applications have read.
    read: BTreeMap<(Uin, ChannelId), u64>,
    /// By viewer, whose mark it is, channel and incarnation: the most that this process of the
    /// server has told.
    told: BTreeMap<(Uin, Uin, ChannelId, u32), Far>,
    /// What had been told when a connection asked; it is told no less.
    floors: BTreeMap<u64, BTreeMap<(Uin, ChannelId, u32), Far>>,
    /// By install and channel: the receipts of the other side.
    receipts: BTreeMap<(u32, ChannelId), Far>,
    /// By install and channel: the mark that is stored, and of which incarnation.
    stored: BTreeMap<(u32, ChannelId), (u32, u64)>,
    /// The server came back once, perhaps to a group that was smaller then; a count that was made
    /// before may come after.
    has_restarted: bool,
}

/// A mark as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Where.
    pub channel: ChannelId,
    /// Whose.
    pub uin: Uin,
    /// Up to which ids.
    pub far: Far,
    /// In which life.
    pub incarnation: u32,
}

fn raise(known: &mut Far, far: Far) {
    *known = (known.0.max(far.0), known.1.max(far.1));
}

impl Marks {
    /// A device tells the server how far it has come, or that it can't come further than there.
    pub fn delivered(&mut self, truth: &Truth, uin: Uin, channel: ChannelId, id: u64) {
        self.got(truth, (uin, channel), (id, 0));
    }

    /// A device tells the server how far its user has read.
    pub fn read_said(&mut self, truth: &Truth, uin: Uin, channel: ChannelId, id: u64) {
        self.got(truth, (uin, channel), (id, id));
    }

    fn got(&mut self, truth: &Truth, of: (Uin, ChannelId), far: Far) {
        raise(self.said.entry(of).or_default(), far);
        if !is_hushed(truth, of) {
            raise(self.open.entry(of).or_default(), far);
        }
    }

    /// Blocks may have begun or ended: what was said during one that has ended is told.
    pub fn unhush(&mut self, truth: &Truth) {
        for (of, far) in self.said.iter().filter(|(of, _)| !is_hushed(truth, **of)) {
            raise(self.open.entry(*of).or_default(), *far);
        }
    }

    /// An application says that its user has read so far.
    pub fn read_here(&mut self, uin: Uin, channel: ChannelId, id: u64) {
        let read = self.read.entry((uin, channel)).or_default();
        *read = id.max(*read);
    }

    /// How far a user's devices have said to have got.
    pub fn said(&self, uin: Uin, channel: ChannelId) -> Far {
        self.said.get(&(uin, channel)).copied().unwrap_or_default()
    }

    /// A process of the server starts: marks may be as old as what it kept.
    pub fn server_starts(&mut self) {
        self.told.clear();
        self.floors.clear();
        self.has_restarted = true;
    }

    /// A process of an install starts.
    pub fn process_starts(&mut self, install: u32) {
        self.receipts.retain(|(of, _), _| *of != install);
        self.stored.retain(|(of, _), _| *of != install);
    }

    /// A connection asks for the marks of its user.
    pub fn asked(&mut self, link: u64, viewer: Uin) {
        let of_viewer = self.told.iter().filter(|((of, ..), _)| *of == viewer);
        let floor = of_viewer.map(|((_, uin, channel, life), far)| ((*uin, *channel, *life), *far));
        self.floors.insert(link, floor.collect());
    }

    /// A mark leaves the server; `newest` is the channel's newest message.
    pub fn told(&mut self, link: u64, viewer: Uin, told: Told, newest: u64) -> Verdict {
        let Told { channel, uin, far, incarnation } = told;
        let said = self.said(uin, channel);
        let open = self.open.get(&(uin, channel)).copied().unwrap_or_default();
        demand(uin == viewer || (far.0 <= open.0 && far.1 <= open.1), || {
            format!("{viewer} is told {told:?}; all but {open:?} was said while he was blocked")
        })?;
        demand(far.0 <= said.0 && far.1 <= said.1 && far.0 <= newest, || {
            format!("{viewer} is told {told:?}, and {said:?} was said of #{newest}")
        })?;
        demand(far.1 <= far.0, || format!("{viewer} is told {told:?}: read, and not delivered"))?;
        let floor = self.floors.get(&link).and_then(|f| f.get(&(uin, channel, incarnation)));
        let floor = floor.copied().unwrap_or_default();
        let known = self.told.entry((viewer, uin, channel, incarnation)).or_default();
        raise(known, far);
        demand(floor.0 <= far.0 && floor.1 <= far.1, || {
            format!("{viewer} is told {told:?}, and was told {floor:?} before")
        })
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.floors.remove(&link);
    }

    /// An application is told that the server has its user's mark up to here.
    pub fn confirmed(&self, uin: Uin, channel: ChannelId, id: u64) -> Verdict {
        let (_, read) = self.said(uin, channel);
        demand(id <= read, || format!("{uin} hears that #{id} of {channel} is read, of #{read}"))
    }

    /// A machine has the mark of its user stored.
    pub fn stored(
        &mut self,
        (install, uin): (u32, Uin),
        channel: ChannelId,
        (incarnation, id): (u32, u64),
    ) -> Verdict {
        let before = self.stored.insert((install, channel), (incarnation, id));
        let goes_back = before.is_some_and(|(life, before)| life == incarnation && id < before);
        demand(!goes_back, || {
            format!("install {install} stores mark {channel}#{id} after {before:?}")
        })?;
        let here = self.read.get(&(uin, channel)).copied().unwrap_or(0);
        demand(id <= here, || {
            format!("install {install} stores mark {channel}#{id}, read up to #{here}")
        })
    }

    /// An application is told how far the other side has got. Where the history has `restarted`
    /// that may go back, and a word of before come late.
    pub fn receipt(&mut self, install: u32, told: &Receipt, restarted: bool) -> Verdict {
        let far = (told.delivered.0, told.read.0);
        let said = self.said(told.uin, told.channel);
        let known = self.receipts.entry((install, told.channel)).or_default();
        let before = std::mem::replace(known, far);
        demand(far.0 <= said.0 && far.1 <= said.1, || {
            format!("install {install} is told {told:?}, and {said:?} was said")
        })?;
        demand(restarted || (before.0 <= far.0 && before.1 <= far.1), || {
            format!("install {install} is told {told:?} after {before:?}")
        })
    }

    /// What an install knows of the other side.
    pub fn known_receipt(&self, install: u32, channel: ChannelId) -> Far {
        self.receipts.get(&(install, channel)).copied().unwrap_or_default()
    }

    /// An application is told how many members of a group have a message.
    pub fn counted(
        &self,
        truth: &Truth,
        asks: Uin,
        at: (ChannelId, u64),
        told: &GroupReceipts,
    ) -> Verdict {
        let (channel, id) = at;
        let of_channel = self.said.iter().filter(|((uin, of), _)| *of == channel && *uin != asks);
        let (mut delivered, mut read) = (0, 0);
        for (_, far) in of_channel {
            delivered += u32::from(far.0 >= id);
            read += u32::from(far.1 >= id);
        }
        let ever = truth.group(channel).map_or(0, |group| group.users().count()) as u32; // few
        let is_so = told.read <= told.delivered.min(read)
            && told.delivered <= told.members.min(delivered)
            && (told.members <= ever || self.has_restarted);
        demand(is_so, || {
            format!(
                "{asks} is told {told:?} of {channel}#{id}; {delivered} said delivered, {read} \
                 read, of {ever}"
            )
        })
    }
}

/// An application is told how much is unread. `is_gone` says what is damaged or expired. While
/// messages are taken back the answer may lie between two counts; `is_exact` where nothing moves.
/// `first` is the first that the user may read.
pub fn unread(
    truth: &Truth,
    uin: Uin,
    told: &Unread,
    (first, is_exact): (u64, bool),
    is_gone: impl Fn(Place) -> bool,
) -> Verdict {
    if let Some(code) = told.refused {
        let is_for_now = code == Code::NotGranted && !is_exact;
        return demand(is_for_now, || format!("{uin} may not know what is unread: {told:?}"));
    }
    let is_behind = |fact: &Fact| told.after.0 < fact.id && fact.id <= told.newest.0;
    let counts = |fact: &Fact| fact.kind == message_kind::CONTENT && fact.sender.uin != uin;
    let all =
        || truth.channel(told.channel).iter().filter(|(fact, _)| is_behind(fact) && counts(fact));
    let can_be_read = |(fact, place): &&(Fact, Place)| fact.id >= first && !is_gone(*place);
    let recall = |fact: &Fact| truth.recall_of(fact.channel, fact.id);
    let is_there = |one: &&(Fact, Place)| can_be_read(one) && recall(&one.0).is_none();
    // Who left a group need not hear of what is taken back behind what he may read.
    let may_be_there = |one: &&(Fact, Place)| {
        can_be_read(one) && recall(&one.0).is_none_or(|by| by > told.newest.0)
    };
    // Who came into a group once more may still be answered by what he could read before.
    let is_of_before = told.channel.is_group() && told.newest.0 < truth.newest(told.channel);
    let least = match is_of_before && !is_exact {
        true => 0,
        false => all().filter(is_there).count() as u64,
    };
    let most = match is_exact {
        true => all().filter(may_be_there).count() as u64,
        false => all().count() as u64,
    };
    let top = u64::from(UNREAD_COUNT_MAX);
    let count = u64::from(told.count);
    let is_so = least.min(top) <= count && count <= most.min(top);
    let more_is_so = !is_exact || told.more == (least > top);
    demand(is_so && more_is_so && told.newest.0 <= truth.newest(told.channel), || {
        format!("{uin} is told {told:?}; {least} to {most} are unread")
    })
}

/// All that a count of what is unread depends on in a world at rest: time still goes by for what is
/// kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// How many messages were said.
    pub messages: usize,
    /// How many records are past their retention.
    pub expired: usize,
}

/// Installs that asked what is unread when nothing moved any more, and those that were told so.
#[derive(Debug, Default)]
pub struct LastQuestions {
    /// By install: how the world was when it asked, if that was at rest, oldest question first.
    asked: BTreeMap<u32, Vec<Option<Moment>>>,
    told: BTreeSet<u32>,
}

impl LastQuestions {
    /// It asks, of a world at rest if that is so.
    pub fn ask(&mut self, install: u32, at_rest: Option<Moment>) {
        self.asked.entry(install).or_default().push(at_rest);
    }

    /// Whether it waits for an answer.
    pub fn is_asking(&self, install: u32) -> bool {
        self.asked.get(&install).is_some_and(|asked| !asked.is_empty())
    }

    /// Whether it was told how much is unread, in a world at rest.
    pub fn was_told(&self, install: u32) -> bool {
        self.told.contains(&install)
    }

    /// It gets an answer: whether nothing has moved since it asked.
    pub fn answered(&mut self, install: u32, now: Moment, is_refused: bool) -> bool {
        let asked = self.asked.get_mut(&install).filter(|asked| !asked.is_empty());
        let at_rest = asked.and_then(|asked| asked.remove(0));
        let is_exact = at_rest == Some(now) && !is_refused;
        if is_exact {
            self.told.insert(install);
        }
        is_exact
    }

    /// A process of it starts.
    pub fn process_starts(&mut self, install: u32) {
        self.asked.remove(&install);
        self.told.remove(&install);
    }
}

/// Whether a user blocks the other of a direct channel.
fn is_hushed(truth: &Truth, (uin, channel): (Uin, ChannelId)) -> bool {
    channel.peer_of(uin).is_some_and(|peer| truth.is_blocking(uin, peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};
    use tern_core::log::{Links, Record, RecordKind};
    use tern_core::placement::ShardId;
    use tern_core::shard::records::BlockBody;
    use tern_protocol::MessageId;
    use tern_protocol::frames::block;
    use zerocopy::IntoBytes;

    #[test]
    fn a_mark_that_nobody_said_and_one_that_goes_back_are_noticed() {
        let (mut marks, channel) = (Marks::default(), fact(1, 1).channel);
        let truth = Truth::default();
        let told = |far| Told { channel, uin: Uin(2), far, incarnation: 1 };
        assert!(marks.told(7, Uin(1), told((1, 0)), 5).is_err());
        marks.read_said(&truth, Uin(2), channel, 3);
        assert_eq!(marks.told(7, Uin(1), told((3, 3)), 5), Ok(()));
        marks.asked(8, Uin(1));
        assert!(marks.told(8, Uin(1), told((3, 2)), 5).is_err());
        assert!(marks.told(8, Uin(1), told((3, 3)), 2).is_err(), "of messages that are not there");
        marks.server_starts();
        assert_eq!(marks.told(9, Uin(1), told((3, 2)), 5), Ok(()));
        marks.read_here(Uin(1), channel, 3);
        assert_eq!(marks.stored((1, Uin(1)), channel, (1, 3)), Ok(()));
        assert!(marks.stored((1, Uin(1)), channel, (1, 2)).is_err());
        assert_eq!(marks.stored((1, Uin(1)), channel, (2, 2)), Ok(()));
        assert!(marks.stored((1, Uin(1)), channel, (2, 4)).is_err());
    }

    #[test]
    fn who_is_blocked_and_hears_of_it_is_noticed() {
        let (mut marks, channel) = (Marks::default(), fact(1, 1).channel);
        let (blocker, blocked) = (Uin(2), Uin(1));
        let mut truth = Truth::default();
        marks.read_said(&truth, blocker, channel, 3);
        change(&mut truth, block::BEGIN);
        marks.read_said(&truth, blocker, channel, 5);
        let of = |far| Told { channel, uin: blocker, far, incarnation: 1 };
        assert_eq!(marks.told(7, blocked, of((3, 3)), 9), Ok(()), "of before");
        assert!(marks.told(7, blocked, of((5, 3)), 9).is_err());
        assert_eq!(marks.told(8, blocker, of((5, 5)), 9), Ok(()), "his own");
        marks.unhush(&truth);
        assert!(marks.told(7, blocked, of((5, 5)), 9).is_err());
        change(&mut truth, block::END);
        marks.unhush(&truth);
        assert_eq!(marks.told(7, blocked, of((5, 5)), 9), Ok(()));
    }

    /// The second user blocks the first one, or does so no more.
    fn change(truth: &mut Truth, action: u8) {
        let body = BlockBody {
            blocker: 2.into(),
            blocked: 1.into(),
            server_time: 1.into(),
            action: u32::from(action).into(),
            reserved: 0.into(),
        };
        let (kind, links) = (RecordKind::Block, Links::default());
        truth.read((ShardId(0), 0), Record { kind, links, body: body.as_bytes() });
    }

    #[test]
    fn a_wrong_count_is_noticed() {
        let recall = Fact { kind: message_kind::RECALL, refers_to: 2, ..fact(4, 4) };
        let (before, after) = ([fact(1, 1), fact(2, 2), fact(3, 3)], recall);
        let (truth, recalled) = (truth(&before), truth(&[&before[..], &[after]].concat()));
        let of = |truth: &Truth, (uin, newest): (u64, u64), count| {
            let unread = Unread {
                channel: fact(1, 1).channel,
                after: MessageId(1),
                newest: MessageId(newest),
                count,
                more: false,
                refused: None,
            };
            super::unread(truth, Uin(uin), &unread, (1, true), |_| false)
        };
        let told = |uin, count| of(&truth, (uin, 3), count);
        assert_eq!((told(2, 2), told(1, 0)), (Ok(()), Ok(())));
        assert!(told(2, 3).is_err() && told(2, 1).is_err() && told(1, 1).is_err());
        assert_eq!((of(&recalled, (2, 4), 1), of(&recalled, (2, 3), 2)), (Ok(()), Ok(())));
        assert!(of(&recalled, (2, 4), 2).is_err() && of(&recalled, (2, 4), 0).is_err());
    }

    #[test]
    fn a_count_is_exact_if_nothing_was_said_and_nothing_expired_meanwhile() {
        let (mut questions, still) = (LastQuestions::default(), Moment { messages: 3, expired: 1 });
        let mut is_exact = |now| {
            questions.ask(1, Some(still));
            let is_exact = questions.answered(1, now, false);
            assert_eq!(questions.was_told(1), is_exact);
            is_exact
        };
        assert!(!is_exact(Moment { messages: 4, ..still }));
        assert!(!is_exact(Moment { expired: 2, ..still }));
        assert!(is_exact(still));
        questions.ask(2, None);
        assert!(!questions.answered(2, still, false) && !questions.was_told(2));
    }
}
