//! Recalls and edits: each that stands was allowed to, each that is refused deserves it, and what
//! was recalled is shown to nobody who comes late.
//!
//! Worth naming: a device may be pushed a recalled message only as long as the server has not
//! shown it, or another device of its user before it, anything from the recall on: what says so
//! much of a channel says what was recalled of it too.

use std::collections::{BTreeMap, BTreeSet};

use tern_core::mail::Device;
use tern_groupmodel::Group;
use tern_protocol::frames::message_kind;
use tern_protocol::{ChannelId, Code, Uin};

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::sends::Asked;
use crate::oracle::truth::{Place, Truth};

/// Codes by which a recall or an edit is refused for what it is about.
const BY_ORIGINAL: [Code; 5] =
    [Code::NoSuchMessage, Code::TooLate, Code::AlreadyRecalled, Code::NotContent, Code::NotYours];

/// For how long messages can be recalled and edited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hours {
    /// Recalled, in ms.
    pub recall_ms_max: u64,
    /// Edited, in ms.
    pub edit_ms_max: u64,
}

/// What is known of a message when a refusal rests on it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The server's clock, in ms since 1970; 0 if it leaps.
    pub wall_ms: u64,
    /// It is damaged, or was lost with an earlier life, or is behind where one ended, or is past its
    /// retention and behind a damaged one.
    pub may_be_gone: bool,
    /// It is past its retention.
    pub is_expired: bool,
}

/// Whether a recall or an edit is refused by this code for what it is about.
pub fn is_by_original(code: Code) -> bool {
    BY_ORIGINAL.contains(&code)
}

/// Whether this kind of message is about another one.
pub fn is_reference(kind: u8) -> bool {
    matches!(kind, message_kind::RECALL | message_kind::EDIT)
}

impl Hours {
    fn of(self, kind: u8) -> u64 {
        if kind == message_kind::RECALL { self.recall_ms_max } else { self.edit_ms_max }
    }

    /// A message is appended: if it is about another one, it may be.
    pub fn appended(self, truth: &Truth, fact: &Fact) -> Verdict {
        if !is_reference(fact.kind) {
            return Ok(());
        }
        let Some((original, _)) = truth.get(fact.channel, fact.refers_to) else {
            return Err(format!("{fact}, and there is no such message"));
        };
        let wrong = |why: &str| Err(format!("{fact}, which is {original}, {why}"));
        let (uin, group) = (fact.sender.uin, truth.group(fact.channel));
        if original.kind != message_kind::CONTENT {
            return wrong("and says nothing");
        }
        if let Some(by) = truth.recall_of(fact.channel, original.id) {
            return wrong(&format!("and was recalled by #{by}"));
        }
        if !may(fact.kind, uin, original, group) {
            return wrong("and may not");
        }
        if group.is_some_and(|group| !sees(group, uin, original.id)) {
            return wrong("and can't read it");
        }
        if fact.time.saturating_sub(original.time) > self.of(fact.kind) {
            return wrong("too late");
        }
        Ok(())
    }

    /// A refusal by such a code leaves: it is so, or was at some moment since it was asked for, by
    /// what `is_durable`.
    pub fn deserved(
        self,
        truth: &Truth,
        (device, asked): (Device, &Asked),
        (code, known): (Code, Known),
        is_durable: impl Fn(Place) -> bool,
    ) -> Verdict {
        let (channel, id) = (asked.channel, asked.refers_to);
        let found = truth.get(channel, id);
        let uin = device.uin;
        let is_so = match (code, found) {
            (_, None) => known.may_be_gone && code == Code::NoSuchMessage,
            (Code::NoSuchMessage, Some(_)) => {
                known.may_be_gone
                    || ever_since(truth, asked, &is_durable, |group| !sees(group, uin, id))
            }
            (Code::TooLate, Some((original, _))) => {
                let age = known.wall_ms.saturating_sub(original.time);
                let is_old = known.wall_ms == 0 || age > self.of(asked.kind);
                // What is lost looks like what is before it, and that may have expired.
                is_old || known.is_expired || known.may_be_gone
            }
            (Code::AlreadyRecalled, Some(_)) => truth
                .recall_of(channel, id)
                .and_then(|by| truth.get(channel, by))
                .is_some_and(|(_, place)| is_durable(*place)),
            (Code::NotContent, Some((original, place))) => {
                original.kind != message_kind::CONTENT && is_durable(*place)
            }
            (Code::NotYours, Some((original, _))) if !channel.is_group() => {
                !may(asked.kind, uin, original, None)
            }
            (Code::NotYours, Some((original, _))) => {
                ever_since(truth, asked, &is_durable, |g| !may(asked.kind, uin, original, Some(g)))
            }
            _ => false,
        };
        demand(is_so, || {
            let stands = found.map(|(fact, _)| fact.to_string());
            format!(
                "{} of {device:?} about {channel}#{id} is refused by {code}; there stands \
                 {stands:?}, and {known:?}",
                asked.label
            )
        })
    }
}

/// Whether this user may recall or edit that message, by who wrote it.
fn may(kind: u8, uin: Uin, original: &Fact, group: Option<&Group>) -> bool {
    let author = original.sender.uin;
    let stands_above = |group: &Group| group.stands_above(uin.0, author.0);
    uin == author || (kind == message_kind::RECALL && group.is_some_and(stands_above))
}

fn sees(group: &Group, uin: Uin, id: u64) -> bool {
    group.range(uin.0).is_some_and(|(from, to)| from <= id && id <= to)
}

/// Whether this held of the group at some moment since it was asked for, by a durable change.
fn ever_since(
    truth: &Truth,
    asked: &Asked,
    is_durable: impl Fn(Place) -> bool,
    holds: impl Fn(&Group) -> bool,
) -> bool {
    let facts = truth.channel(asked.channel);
    let mut group = Group::default();
    for (fact, _) in facts {
        if group.take(fact.said()).is_err() {
            return false; // another check has told
        }
        let change = group.version.checked_sub(1).map(|index| facts[index as usize].1);
        if group.newest >= asked.since && holds(&group) && change.is_none_or(&is_durable) {
            return true;
        }
    }
    false
}

/// An install is told that this message was recalled, or is an edit of one that was.
pub fn is_gap(truth: &Truth, install: u32, fact: &Fact) -> Verdict {
    let is_so = truth.recall_of(fact.channel, fact.original()).is_some();
    demand(is_so, || format!("install {install} is told that {fact} was recalled; it was not"))
}

/// Who was shown how much, and what was recalled before.
#[derive(Debug, Default)]
pub struct Recalls {
    /// By connection and channel: the newest id that it was shown.
    by_link: BTreeMap<(u64, ChannelId), u64>,
    /// By user and channel: the newest id that a device was shown by this process.
    by_user: BTreeMap<(Uin, ChannelId), u64>,
    /// What was recalled before this process of the server began.
    settled: BTreeSet<(ChannelId, u64)>,
}

impl Recalls {
    /// A process of the server starts on what is in the logs.
    pub fn server_starts(&mut self, truth: &Truth) {
        *self = Self::default();
        self.settled.extend(truth.recalled());
    }

    /// A login of this user is answered on a connection: it is granted no less than those before.
    pub fn logged_in(&mut self, link: u64, uin: Uin) {
        let of_user = self.by_user.iter().filter(|((of, _), _)| *of == uin);
        let shown: Vec<_> = of_user.map(|((_, channel), id)| ((link, *channel), *id)).collect();
        for (of, id) in shown {
            let known = self.by_link.entry(of).or_default();
            *known = id.max(*known);
        }
    }

    /// A device is told of a channel up to this id.
    pub fn told(&mut self, link: u64, uin: Uin, channel: ChannelId, id: u64) {
        let by_link = self.by_link.entry((link, channel)).or_default();
        *by_link = id.max(*by_link);
        let by_user = self.by_user.entry((uin, channel)).or_default();
        *by_user = id.max(*by_user);
    }

    /// A push leaves for a device.
    pub fn pushed(&mut self, truth: &Truth, fact: &Fact, (uin, link): (Uin, u64)) -> Verdict {
        let original = fact.original();
        let shown = self.by_link.get(&(link, fact.channel)).copied().unwrap_or(0);
        self.told(link, uin, fact.channel, fact.id);
        let Some(by) = truth.recall_of(fact.channel, original) else { return Ok(()) };
        let is_settled = self.settled.contains(&(fact.channel, original));
        demand(shown < by && !is_settled, || {
            format!(
                "{fact} is pushed to {uin} on connection {link}; #{by} recalled #{original}, and \
                 #{shown} was shown there"
            )
        })
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.by_link.retain(|(of, _), _| *of != link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{SENDER, fact, truth};
    use crate::oracle::fact::Label;
    use bytes::Bytes;
    use tern_protocol::DeviceId;

    const HOURS: Hours = Hours { recall_ms_max: 1_000, edit_ms_max: 500 };

    fn about(id: u64, refers_to: u64, kind: u8) -> Fact {
        Fact { kind, refers_to, ..fact(id, id as u32) }
    }

    #[test]
    fn who_may_not_and_what_was_recalled_is_noticed() {
        let recall = about(2, 1, message_kind::RECALL);
        let (before, after) = (truth(&[fact(1, 1)]), truth(&[fact(1, 1), recall.clone()]));
        assert_eq!(HOURS.appended(&before, &recall), Ok(()));
        let stranger = Device { uin: Uin(2), device: DeviceId(1) };
        assert!(HOURS.appended(&before, &Fact { sender: stranger, ..recall.clone() }).is_err());
        assert!(HOURS.appended(&before, &Fact { time: 1_001, ..recall.clone() }).is_err());
        assert!(HOURS.appended(&before, &about(2, 2, message_kind::EDIT)).is_err());
        assert!(HOURS.appended(&after, &about(3, 1, message_kind::EDIT)).is_err());
        assert!(HOURS.appended(&after, &about(3, 2, message_kind::EDIT)).is_err());
    }

    #[test]
    fn a_refusal_without_reason_is_noticed() {
        let truth = truth(&[fact(1, 1), about(2, 1, message_kind::RECALL), fact(3, 3)]);
        let asked = |refers_to| Asked {
            label: Label { install: 1, serial: 1 },
            channel: fact(1, 1).channel,
            kind: message_kind::EDIT,
            refers_to,
            content: Bytes::new(),
            since: 0,
            blocks_since: 0,
            time: 1,
        };
        let known = Known { wall_ms: 400, may_be_gone: false, is_expired: false };
        let of = |id, code| HOURS.deserved(&truth, (SENDER, &asked(id)), (code, known), |_| true);
        assert_eq!(of(1, Code::AlreadyRecalled), Ok(()));
        assert_eq!(of(2, Code::NotContent), Ok(()));
        for code in BY_ORIGINAL {
            assert!(of(3, code).is_err(), "{code}");
        }
    }

    #[test]
    fn a_recalled_message_that_is_shown_late_is_noticed() {
        let truth = truth(&[fact(1, 1), about(2, 1, message_kind::RECALL)]);
        let mut recalls = Recalls::default();
        assert_eq!(recalls.pushed(&truth, &fact(1, 1), (Uin(2), 7)), Ok(()), "granted before");
        assert_eq!(recalls.pushed(&truth, &about(2, 1, 3), (Uin(2), 7)), Ok(()));
        assert!(recalls.pushed(&truth, &fact(1, 1), (Uin(2), 7)).is_err());
        recalls.logged_in(8, Uin(2));
        assert!(recalls.pushed(&truth, &fact(1, 1), (Uin(2), 8)).is_err());
        assert_eq!(recalls.pushed(&truth, &fact(1, 1), (Uin(3), 9)), Ok(()));
        recalls.server_starts(&truth);
        assert!(recalls.pushed(&truth, &fact(1, 1), (Uin(3), 9)).is_err());
    }
}
