//! A key names one message for ever: it is appended once, gets one answer, and what was called
//! dead is never appended. A device that was never copied also sends each message once.

use std::collections::{BTreeMap, BTreeSet};

use tern_core::mail::Device;
use tern_protocol::{ChannelId, Class, Code, SendKey};

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// What was said of each key.
#[derive(Debug, Default)]
pub struct Keys {
    dead: BTreeMap<(Device, SendKey), Code>,
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
        demand(dead.is_none(), || format!("{fact} is appended after it was refused by {dead:?}"))?;
        let twin = fact.label().and_then(|label| truth.by_label(label));
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

    /// A refusal leaves the server.
    pub fn refused(&mut self, truth: &Truth, sender: Device, key: SendKey, code: Code) -> Verdict {
        if code == Code::KeyUnknown {
            self.unknown.insert((sender, key));
        }
        let says_nothing_of_the_key = matches!(code, Code::KeyUnknown | Code::KeyConflict);
        if code.class() != Class::Final || says_nothing_of_the_key {
            return Ok(());
        }
        let stands = truth.by_key(sender, key);
        demand(stands.is_none(), || {
            format!("{sender:?} key {key} is refused by {code}, and stands at {stands:?}")
        })?;
        self.dead.insert((sender, key), code);
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
        let twin = Fact { content: fact(1, 1).content, ..fact(2, 2) };
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
        assert!(keys.refused(&truth, SENDER, fact(1, 1).key, Code::KeyClosed).is_err());
        assert_eq!(keys.refused(&truth, SENDER, fact(2, 2).key, Code::Busy), Ok(()));
        assert_eq!(keys.appended(&truth, &fact(2, 2), false), Ok(()));
        assert_eq!(keys.refused(&truth, SENDER, fact(2, 2).key, Code::KeyClosed), Ok(()));
        assert!(keys.appended(&truth, &fact(2, 2), false).is_err());
        assert!(keys.acked(&fact(2, 2)).is_err());
    }
}
