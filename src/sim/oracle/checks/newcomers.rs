//! A new device gets just as much of what was said before as it wants, and everything that comes
//! later: what is left out is told, once and before the word that all channels were shown; that
//! word names all of them; and what was said last comes first.
//!
//! Worth naming: the newest id of a channel that a device did not name is what CHANNEL told of it,
//! so that what may be left out is known to the id, whatever is said meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::frames::{ChannelState, Cursor};
use tern_protocol::{ChannelId, Code, Uin};

use super::{Verdict, demand};
use crate::oracle::truth::{Place, Truth};

/// What new devices want, and what they were told.
#[derive(Debug, Default)]
pub struct Newcomers {
    by_link: BTreeMap<u64, Greeted>,
    /// By user: channels that were told to any of his devices in this life of the server.
    told: BTreeMap<Uin, BTreeSet<ChannelId>>,
    /// By install: how many messages of each channel it wants, if not all.
    wanted: BTreeMap<u32, u64>,
    /// Installs that have stored that all channels were shown to them.
    settled: BTreeSet<u32>,
}

/// A connection, from the first of its cursors on.
#[derive(Debug, Default)]
struct Greeted {
    /// How many messages of each channel that it does not name its device wants; all, if `None`.
    wanted: Option<u64>,
    /// The server has all of its cursors, and delivery begins.
    has_begun: bool,
    /// The server has them from the connection before.
    is_known: bool,
    /// The channels with a cursor, and those of which nothing is consumed.
    named: BTreeSet<ChannelId>,
    begun: BTreeSet<ChannelId>,
    /// Of the latter, those that were stepped over.
    skipped: BTreeSet<ChannelId>,
    /// Channels that must be shown to it.
    owed: BTreeSet<ChannelId>,
    /// Each channel that it did not name and that was told before all were shown.
    shown: BTreeMap<ChannelId, Shown>,
    all_shown: bool,
    has_pushes: bool,
    /// Its cursors were asked for once more, and delivery may have gone back.
    went_back: bool,
}

/// A channel as it was first told.
#[derive(Debug, Default)]
struct Shown {
    newest: u64,
    /// Everything up to this id was stepped over before the first push.
    stepped: u64,
    is_skipped: bool,
    /// It is known what of it can't be read.
    is_looked_at: bool,
}

impl Shown {
    /// The last id that its device does not want.
    fn unwanted(&self, wanted: u64) -> u64 {
        self.newest.saturating_sub(wanted)
    }
}

impl Newcomers {
    /// A life of the server ends, and channels with it.
    pub fn life_ended(&mut self) {
        self.told.clear();
    }

    /// A connection goes on with the cursors that the server knows.
    pub fn known(&mut self, link: u64) {
        let greeted = self.by_link.entry(link).or_default();
        (greeted.has_begun, greeted.is_known) = (true, true);
    }

    /// The device of a connection says how much it wants of what it does not name.
    pub fn wish_arrives(&mut self, link: u64, uin: Uin, newest: u32) {
        let owed = self.told.get(&uin).cloned().unwrap_or_default();
        let greeted = self.by_link.entry(link).or_default();
        if !greeted.has_begun {
            greeted.wanted = Some(newest.into());
            greeted.owed = owed;
        }
    }

    /// Cursors arrive; whether these are the `last` ones.
    pub fn cursors_arrive(&mut self, link: u64, list: &[Cursor], last: bool) {
        let greeted = self.by_link.entry(link).or_default();
        if greeted.has_begun {
            return;
        }
        greeted.has_begun = last;
        for cursor in list {
            match cursor.id.get() {
                0 => greeted.begun.insert(cursor.channel),
                _ => greeted.named.insert(cursor.channel),
            };
        }
    }

    /// The device is asked for its cursors once more.
    pub fn asked_again(&mut self, link: u64) {
        self.by_link.entry(link).or_default().went_back = true;
    }

    /// A device is told of a channel.
    pub fn told(&mut self, link: u64, uin: Uin, state: &ChannelState) {
        self.told.entry(uin).or_default().insert(state.channel);
        let greeted = self.by_link.entry(link).or_default();
        if !greeted.is_known && !greeted.all_shown && !greeted.named.contains(&state.channel) {
            let shown = Shown { newest: state.newest.get(), ..Shown::default() };
            greeted.shown.entry(state.channel).or_insert(shown);
        }
    }

    /// A device is told that ids never come.
    pub fn stepped(
        &mut self,
        link: u64,
        channel: ChannelId,
        (from, to): (u64, u64),
        code: Code,
    ) -> Verdict {
        let greeted = self.by_link.entry(link).or_default();
        let wanted = greeted.wanted.filter(|_| !greeted.all_shown);
        let shown = greeted.shown.get_mut(&channel);
        if let Some(shown) = shown {
            shown.is_looked_at |= matches!(code, Code::Lost | Code::Recalled);
            if code != Code::Skipped {
                shown.stepped = shown.stepped.max(to);
                return Ok(());
            }
            let is_second = std::mem::replace(&mut shown.is_skipped, true);
            let follows = from == shown.stepped + 1 && from <= to;
            let wants = wanted.map(|wanted| shown.unwanted(wanted));
            shown.stepped = shown.stepped.max(to);
            return demand(!is_second && follows && wants == Some(to), || {
                format!(
                    "connection {link} steps over {channel}#{from} to #{to}, wants {wanted:?} of \
                     {shown:?}"
                )
            });
        }
        if code != Code::Skipped {
            return Ok(());
        }
        // A client that knows the life of a history is not told of it again, nor of its newest id.
        let may_skip =
            wanted.is_some() && greeted.begun.contains(&channel) && greeted.skipped.insert(channel);
        demand(may_skip, || {
            format!("connection {link} steps over {channel}#{from} to #{to}, which it was to get")
        })
    }

    /// A message leaves for a device. `is_steady`: the server's clock does not leap.
    pub fn pushed(
        &mut self,
        (truth, is_gone): (&Truth, impl Fn(Place) -> bool),
        (link, uin): (u64, Uin),
        (channel, id): (ChannelId, u64),
        is_steady: bool,
    ) -> Verdict {
        self.told.entry(uin).or_default().insert(channel);
        let Some(greeted) = self.by_link.get_mut(&link) else { return Ok(()) };
        let is_first = !std::mem::replace(&mut greeted.has_pushes, true);
        let Some(shown) = greeted.shown.get(&channel).filter(|_| !greeted.went_back) else {
            return Ok(());
        };
        let unwanted = greeted.wanted.map_or(0, |wanted| shown.unwanted(wanted));
        demand(unwanted < id, || {
            format!("connection {link} gets {channel}#{id}, and wants nothing to #{unwanted}")
        })?;
        match is_first && is_steady {
            true => greeted.is_newest((truth, is_gone), link, channel),
            false => Ok(()),
        }
    }

    /// All channels of its user were shown to a device; `is_due` says what he may read.
    pub fn all_shown(
        &mut self,
        link: u64,
        channels: u32,
        is_due: impl Fn(ChannelId) -> bool,
    ) -> Verdict {
        let greeted = self.by_link.entry(link).or_default();
        let is_second = std::mem::replace(&mut greeted.all_shown, true);
        let wanted = greeted.wanted.filter(|_| !is_second);
        let Some(wanted) = wanted else {
            return Err(format!("connection {link} hears once too often what was shown"));
        };
        let told: BTreeSet<&ChannelId> =
            greeted.shown.keys().chain(&greeted.named).chain(&greeted.begun).collect();
        let missing =
            greeted.owed.iter().find(|channel| !told.contains(channel) && is_due(**channel));
        let left = greeted.shown.iter().find(|(_, it)| it.stepped < it.unwanted(wanted));
        demand(missing.is_none() && left.is_none() && told.len() == channels as usize, || {
            format!(
                "connection {link} was shown {channels} channels, but not {missing:?}, and all \
                 of {left:?}: {greeted:?}"
            )
        })
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.by_link.remove(&link);
    }

    /// What an install wants, if not all.
    pub fn wants(&mut self, install: u32, newest: Option<u32>) {
        self.wanted.extend(newest.map(|newest| (install, newest.into())));
    }

    /// Whether an install has stored that it was shown all channels.
    pub fn settles(&mut self, install: u32, is_settled: bool) {
        match is_settled {
            true => self.settled.insert(install),
            false => self.settled.remove(&install),
        };
    }

    /// An application is told that nothing up to `to` comes, because its device is new; `newest`
    /// is the newest id that there can have been, if that is known.
    pub fn skipped(&self, install: u32, at: (ChannelId, u64), newest: Option<u64>) -> Verdict {
        let (channel, to) = at;
        let wanted = self.wanted.get(&install).filter(|_| !self.settled.contains(&install));
        let is_all = |wanted: &u64| newest.is_none_or(|newest| to + wanted <= newest);
        demand(wanted.is_some_and(is_all), || {
            format!(
                "install {install} steps over all to {channel}#{to} of {newest:?}, and wants \
                 {wanted:?}"
            )
        })
    }
}

impl Greeted {
    /// The first push is of the channel in which was spoken last, to the second.
    fn is_newest(
        &self,
        (truth, is_gone): (&Truth, impl Fn(Place) -> bool),
        link: u64,
        channel: ChannelId,
    ) -> Verdict {
        let since = |channel: ChannelId, from: u64| {
            let said = truth.channel(channel).iter().skip(from.saturating_sub(1) as usize); // few
            said.map(|(fact, place)| (fact.time / 1_000, is_gone(*place)))
        };
        let own = since(channel, self.shown[&channel].newest).map(|(time, _)| time).max();
        let waits = |shown: &Shown| shown.stepped < shown.newest && !shown.is_looked_at;
        let others = self.shown.iter().filter(|(other, shown)| **other != channel && waits(shown));
        for (other, shown) in others {
            let (mut oldest, mut is_hurt) = (None, false);
            for (time, is_gone) in since(*other, shown.newest) {
                oldest = Some(oldest.unwrap_or(time).min(time));
                is_hurt |= is_gone;
            }
            // What is lost tells no time.
            demand(is_hurt || own.is_none() || oldest <= own, || {
                format!("connection {link} gets {channel} of {own:?} before {other} of {oldest:?}")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};
    use crate::oracle::fact::Fact;
    use tern_protocol::Incarnation;

    const LINK: u64 = 7;
    const UIN: Uin = Uin(2);

    fn state(channel: ChannelId, newest: u64) -> ChannelState {
        ChannelState {
            channel,
            incarnation: Incarnation(1).into(),
            reserved: 0.into(),
            oldest: 1.into(),
            newest: newest.into(),
            restarted_at: 1.into(),
        }
    }

    /// A device that wants so many and was told of a channel with five messages.
    fn new(wanted: Option<u32>) -> (Newcomers, ChannelId) {
        let (mut newcomers, channel) = (Newcomers::default(), fact(1, 1).channel);
        newcomers.told(1, UIN, &state(channel, 5));
        if let Some(wanted) = wanted {
            newcomers.wish_arrives(LINK, UIN, wanted);
        }
        newcomers.cursors_arrive(LINK, &[], true);
        newcomers.told(LINK, UIN, &state(channel, 5));
        (newcomers, channel)
    }

    fn push(newcomers: &mut Newcomers, at: (ChannelId, u64)) -> Verdict {
        let truth = Truth::default();
        newcomers.pushed((&truth, |_| false), (LINK, UIN), at, true)
    }

    #[test]
    fn a_device_that_gets_more_or_less_than_it_wants_is_noticed() {
        let skip = |newcomers: &mut Newcomers, channel, range| {
            newcomers.stepped(LINK, channel, range, Code::Skipped)
        };
        for (range, is_so) in [((1, 3), true), ((1, 2), false), ((1, 4), false), ((2, 3), false)] {
            let (mut newcomers, channel) = new(Some(2));
            assert_eq!(skip(&mut newcomers, channel, range).is_ok(), is_so, "{range:?}");
        }
        let (mut newcomers, channel) = new(Some(2));
        assert!(
            push(&mut newcomers, (channel, 3)).is_err()
                && push(&mut newcomers, (channel, 4)).is_ok()
        );
        assert!(new(Some(2)).0.all_shown(LINK, 1, |_| true).is_err(), "nothing was left out");
        assert_eq!(skip(&mut newcomers, channel, (1, 3)), Ok(()));
        assert!(newcomers.all_shown(LINK, 2, |_| true).is_err(), "there is one");
        let (mut newcomers, channel) = new(Some(2));
        assert_eq!(skip(&mut newcomers, channel, (1, 3)), Ok(()));
        assert_eq!(newcomers.all_shown(LINK, 1, |_| true), Ok(()));
        assert!(newcomers.all_shown(LINK, 1, |_| true).is_err(), "it was said");
        let other = fact(1, 1).sender.uin;
        newcomers.told(LINK, UIN, &state(ChannelId::direct(other, Uin(9)), 4));
        let later = ChannelId::direct(other, Uin(9));
        assert!(skip(&mut newcomers, later, (1, 2)).is_err(), "it began later");
        let (mut newcomers, channel) = new(None);
        assert!(skip(&mut newcomers, channel, (1, 3)).is_err(), "it wants all");
        assert!(newcomers.all_shown(LINK, 1, |_| true).is_err(), "it did not ask");
    }

    #[test]
    fn a_channel_that_is_not_shown_is_noticed() {
        let (mut newcomers, channel) = (Newcomers::default(), fact(1, 1).channel);
        newcomers.told(1, UIN, &state(channel, 5));
        newcomers.wish_arrives(LINK, UIN, 9);
        assert!(newcomers.all_shown(LINK, 0, |_| true).is_err());
        let mut newcomers = Newcomers::default();
        newcomers.told(1, UIN, &state(channel, 5));
        newcomers.wish_arrives(LINK, UIN, 9);
        assert_eq!(newcomers.all_shown(LINK, 0, |_| false), Ok(()), "it is his no more");
    }

    #[test]
    fn an_older_channel_that_comes_first_is_noticed() {
        let (mut newcomers, channel) = new(None);
        let other = ChannelId::direct(Uin(2), Uin(3));
        newcomers.told(LINK, UIN, &state(other, 1));
        let said = |channel, time| Fact { channel, time, ..fact(1, 1) };
        let five = (1..=5).map(|id| Fact { time: 9_000, ..fact(id, id as u32) });
        let facts: Vec<Fact> = five.chain([said(other, 7_000)]).collect();
        let truth = truth(&facts);
        let first = |newcomers: &mut Newcomers, at, is_gone: bool| {
            newcomers.pushed((&truth, |_| is_gone), (LINK, UIN), at, true)
        };
        let mut again = new(None).0;
        again.told(LINK, UIN, &state(other, 1));
        assert_eq!(first(&mut again, (channel, 1), false), Ok(()));
        assert_eq!(first(&mut again, (other, 1), false), Ok(()), "its turn");
        assert!(first(&mut newcomers, (other, 1), false).is_err());
    }

    #[test]
    fn an_application_that_misses_what_it_wants_is_noticed() {
        let (mut newcomers, channel) = (Newcomers::default(), fact(1, 1).channel);
        newcomers.wants(1, Some(3));
        newcomers.wants(2, None);
        assert_eq!(newcomers.skipped(1, (channel, 4), Some(7)), Ok(()));
        assert!(newcomers.skipped(1, (channel, 5), Some(7)).is_err());
        assert!(newcomers.skipped(2, (channel, 4), Some(7)).is_err());
        newcomers.settles(1, true);
        assert!(newcomers.skipped(1, (channel, 4), Some(7)).is_err());
    }
}
