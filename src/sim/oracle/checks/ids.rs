//! Ids of a channel are 1, 2, 3, …, and an id that anybody saw names one message for ever: so all
//! devices see a channel in the same order.

use std::collections::BTreeMap;

use tern_protocol::ChannelId;

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// What was ever shown of each id.
#[derive(Debug, Default)]
pub struct Ids {
    shown: BTreeMap<(ChannelId, u64), Fact>,
}

impl Ids {
    /// A message is appended.
    pub fn appended(&self, truth: &Truth, fact: &Fact) -> Verdict {
        let newest = truth.newest(fact.channel);
        demand(fact.id == newest + 1, || format!("{fact} is appended after #{newest}"))
    }

    /// The server is an older copy of itself: ids that it does not know are given out once more.
    pub fn forget_lost(&mut self, truth: &Truth) {
        self.shown.retain(|(channel, id), _| truth.get(*channel, *id).is_some());
    }

    /// A message is shown to anybody, by an ack or a push.
    pub fn shown(&mut self, fact: &Fact) -> Verdict {
        let before = self.shown.entry((fact.channel, fact.id)).or_insert_with(|| fact.clone());
        demand(before == fact, || format!("shown as {before}, and now as {fact}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::oracle::fact::Label;
    use tern_core::log::{Links, Record, RecordKind};
    use tern_core::mail::Device;
    use tern_core::placement::ShardId;
    use tern_protocol::frames::message_kind;
    use tern_protocol::{DeviceId, Epoch, SendCounter, SendKey, Uin};

    pub(crate) const SENDER: Device = Device { uin: Uin(1), device: DeviceId(1) };

    /// A message of the channel 1-2 with this id and counter.
    pub(crate) fn fact(id: u64, counter: u32) -> Fact {
        Fact {
            channel: ChannelId::direct(Uin(1), Uin(2)),
            id,
            sender: SENDER,
            key: SendKey { epoch: Epoch(1), counter: SendCounter(counter) },
            time: 0,
            kind: message_kind::CONTENT,
            refers_to: 0,
            content: format!("1/{counter} ").into_bytes(),
            label: Some(Label { install: 1, serial: counter }),
        }
    }

    pub(crate) fn truth(facts: &[Fact]) -> Truth {
        let mut truth = Truth::default();
        for (index, fact) in facts.iter().enumerate() {
            truth.add(fact.clone(), (ShardId(0), index)).unwrap();
        }
        truth
    }

    #[test]
    fn holes_and_reuse_are_noticed() {
        let (mut ids, truth) = (Ids::default(), truth(&[fact(1, 1)]));
        assert_eq!(ids.appended(&truth, &fact(2, 2)), Ok(()));
        assert!(ids.appended(&truth, &fact(3, 2)).is_err());
        assert!(ids.appended(&truth, &fact(1, 2)).is_err());
        assert_eq!(ids.shown(&fact(1, 1)), Ok(()));
        assert_eq!(ids.shown(&fact(1, 1)), Ok(()));
        assert!(ids.shown(&fact(1, 2)).is_err());
    }

    #[test]
    fn a_record_that_is_no_message_is_no_fact() {
        let record = Record { kind: RecordKind::Entry, links: Links::default(), body: b"" };
        assert_eq!(Truth::default().read((ShardId(0), 0), record), None);
    }
}
