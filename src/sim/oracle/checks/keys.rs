//! A key names one message for ever: it is appended once, gets one answer, and what was called
//! dead is never appended. A device that was never copied also sends each message once.

use std::collections::{BTreeMap, BTreeSet};

use tern_core::mail::Device;
use tern_protocol::{ChannelId, Class, Code, SendKey};

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// How long the server must know what it refused by how a group was, in ms: as long as a copy can
/// be on its way on a connection that was given up.
const REFUSED_MS: u64 = 119_000;

/// What was said of each key.
#[derive(Debug, Default)]
pub struct Keys {
    dead: BTreeMap<(Device, SendKey), Code>,
    /// Refusals by how a group was, which applications were told.
    told: BTreeMap<(Device, SendKey), Code>,
    /// Those that the server must still know, and when they left it first.
    by_rules: BTreeMap<(Device, SendKey), u64>,
    /// The final refusals of each key: a copy that comes later may get another one.
    refused: BTreeMap<(Device, SendKey), Vec<Code>>,
    acked: BTreeMap<(Device, SendKey), (ChannelId, u64, u64)>,
    unknown: BTreeSet<(Device, SendKey)>,
}

impl Keys {
    /// A message is appended; `copied` if its device's store ever was.
    pub fn appended(&self, truth: &Truth, fact: &Fact, copied: bool) -> Verdict {
        let before = truth.by_key(fact.sender, fact.key);
        demand(before.is_none(), || {
            format!("{fact} is appended, and its key stands at {before:?}")
        })?;
        let dead = self.dead.get(&(fact.sender, fact.key));
        let told = self.told.get(&(fact.sender, fact.key)).filter(|_| !copied);
        let is_known = self.by_rules.contains_key(&(fact.sender, fact.key));
        let dead = dead.or(told.filter(|_| is_known));
        demand(dead.is_none(), || format!("{fact} is appended after it was refused by {dead:?}"))?;
        let twin = fact.label.and_then(|label| truth.by_label(label));
        demand(copied || twin.is_none(), || format!("{fact} stands at {twin:?} under another key"))
    }

    /// The server is an older copy of itself: it knows nothing of what it said of other keys.
    pub fn forget_lost(&mut self, truth: &Truth) {
        self.dead.clear();
        self.acked.retain(|(sender, key), _| truth.by_key(*sender, *key).is_some());
    }

    /// An ack of this message leaves the server.
    pub fn acked(&mut self, fact: &Fact) -> Verdict {
        let (key, answer) = ((fact.sender, fact.key), (fact.channel, fact.id, fact.time));
        let dead = self.dead.get(&key);
        demand(dead.is_none(), || format!("{fact} is acked after it was refused by {dead:?}"))?;
        let before = *self.acked.entry(key).or_insert(answer);
        demand(before == answer, || format!("{fact} was acked as {before:?} before"))
    }

    /// Whether the server once could not tell what had become of this key. Only a copy of the
    /// device says it again, and then it may be new, behind younger ones.
    pub fn was_unknown(&self, sender: Device, key: SendKey) -> bool {
        self.unknown.contains(&(sender, key))
    }

    /// Whether the server refused this key by this code for good.
    pub fn was_refused_by(&self, sender: Device, key: SendKey, code: Code) -> bool {
        self.refused.get(&(sender, key)).is_some_and(|codes| codes.contains(&code))
    }

    /// Whether the server refused this key for good.
    pub fn was_refused(&self, sender: Device, key: SendKey) -> bool {
        self.refused.contains_key(&(sender, key))
    }

    /// A process of the server starts. A copy of what was refused can't be on its way to it, unless
    /// somebody repeats it.
    pub fn server_starts(&mut self) {
        self.by_rules.clear();
    }

    /// So much time has gone by.
    pub fn forget_old(&mut self, now: u64) {
        self.by_rules.retain(|_, since| now - *since < REFUSED_MS);
    }

    /// Whether a copy of this key may come without being refused again, after all.
    pub fn may_come_late(&self, sender: Device, key: SendKey) -> bool {
        let of = (sender, key);
        !self.told.contains_key(&of) || self.by_rules.contains_key(&of)
    }

    /// A client's machine says this once more, or for the first time.
    pub fn sent(&self, sender: Device, key: SendKey) -> Verdict {
        let told = self.told.get(&(sender, key));
        demand(told.is_none(), || format!("{sender:?} sends key {key} after it was told {told:?}"))
    }

    /// An application is told that a group, as it was, refused this: from then on nothing comes of
    /// it any more, whatever became of the group. Before, the client may have asked again, and the
    /// answer may have been another.
    pub fn refusal_told(&mut self, sender: Device, key: SendKey, code: Code) {
        self.told.insert((sender, key), code);
    }

    /// A refusal leaves the server; `by_rules` if by how a group is at this moment, which it is.
    pub fn refused(
        &mut self,
        truth: &Truth,
        (sender, key): (Device, SendKey),
        code: Code,
        by_rules: Option<u64>,
    ) -> Verdict {
        if code == Code::KeyUnknown {
            self.unknown.insert((sender, key));
        }
        if code.class() == Class::Final {
            let codes = self.refused.entry((sender, key)).or_default();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        let says_nothing_of_the_key = matches!(code, Code::KeyUnknown | Code::KeyConflict);
        if code.class() != Class::Final || says_nothing_of_the_key {
            return Ok(());
        }
        let stands = truth.by_key(sender, key);
        demand(stands.is_none(), || {
            format!("{sender:?} key {key} is refused by {code}, and stands at {stands:?}")
        })?;
        match by_rules {
            Some(now) => _ = self.by_rules.entry((sender, key)).or_insert(now),
            None => _ = self.dead.insert((sender, key), code),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{SENDER, fact, truth};

    #[test]
    fn a_second_message_of_a_key_is_noticed() {
        let truth = truth(&[fact(1, 1)]);
        assert!(Keys::default().appended(&truth, &fact(2, 1), false).is_err());
        assert_eq!(Keys::default().appended(&truth, &fact(2, 2), false), Ok(()));
        let twin = Fact { label: fact(1, 1).label, ..fact(2, 2) };
        assert!(Keys::default().appended(&truth, &twin, false).is_err());
        assert_eq!(Keys::default().appended(&truth, &twin, true), Ok(()));
    }

    #[test]
    fn another_answer_is_noticed() {
        let mut keys = Keys::default();
        assert_eq!(keys.acked(&fact(1, 1)), Ok(()));
        assert_eq!(keys.acked(&fact(1, 1)), Ok(()));
        assert!(keys.acked(&fact(2, 1)).is_err());
        assert!(keys.acked(&Fact { time: 9, ..fact(1, 1) }).is_err());
    }

    #[test]
    fn a_dead_key_that_lives_is_noticed() {
        let (mut keys, truth) = (Keys::default(), truth(&[fact(1, 1)]));
        assert!(keys.refused(&truth, (SENDER, fact(1, 1).key), Code::KeyClosed, None).is_err());
        assert_eq!(keys.refused(&truth, (SENDER, fact(2, 2).key), Code::Busy, None), Ok(()));
        assert_eq!(keys.appended(&truth, &fact(2, 2), false), Ok(()));
        assert_eq!(keys.refused(&truth, (SENDER, fact(2, 2).key), Code::KeyClosed, None), Ok(()));
        assert!(keys.appended(&truth, &fact(2, 2), false).is_err());
        assert!(keys.acked(&fact(2, 2)).is_err());
    }
}
