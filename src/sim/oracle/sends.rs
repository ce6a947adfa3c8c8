//! What clients have asked for under each key, as they stored it before its first frame left.

use std::collections::BTreeMap;

use bytes::Bytes;
use tern_client::machine::SavedSend;
use tern_core::mail::Device;
use tern_protocol::{ChannelId, SendKey};

use super::checks::blocks::changes_before;
use super::fact::{Fact, Label};
use super::truth::Truth;

/// Everything that was asked for under a key.
#[derive(Debug, Default)]
pub struct Sends {
    asked: BTreeMap<(Device, SendKey), Asked>,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The call of the application.
    pub label: Label,
    /// Where to.
    pub channel: ChannelId,
    /// See [`tern_protocol::frames::message_kind`].
    pub kind: u8,
    /// The message that it is about; else 0.
    pub refers_to: u64,
    /// What.
    pub content: Bytes,
    /// The channel's newest id at that time: what it was refused by stands there or behind.
    pub since: u64,
    /// How often the block that it may meet had been changed then.
    pub blocks_since: usize,
    /// The server's clock at that time, in ms since 1970; 0 if it leaps.
    pub time: u64,
}

impl Sends {
    /// A send is stored with its key. A copy of the device may bring it again.
    pub fn note(
        &mut self,
        device: Device,
        send: &SavedSend,
        (since, blocks_since): (u64, usize),
        time: u64,
    ) {
        let Some(key) = send.key else { return };
        self.asked.entry((device, key)).or_insert_with(|| Asked {
            label: Label::from_tag(send.tag),
            channel: send.channel,
            kind: send.kind,
            refers_to: send.refers_to.0,
            content: send.content.clone(),
            since,
            blocks_since,
            time,
        });
    }

    /// What was asked for under this key.
    pub fn get(&self, device: Device, key: SendKey) -> Option<&Asked> {
        self.asked.get(&(device, key))
    }

    /// Logs end where they do now: what was not durable is gone, and ids may be given out anew.
    pub fn clamp(&mut self, truth: &Truth) {
        for ((device, _), asked) in &mut self.asked {
            asked.since = truth.newest(asked.channel).min(asked.since);
            let blocks = changes_before(truth, device.uin, asked.channel);
            asked.blocks_since = blocks.min(asked.blocks_since);
        }
    }

    /// The fact with the label that only the client knows.
    pub fn labelled(&self, mut fact: Fact) -> Fact {
        let asked = || self.get(fact.sender, fact.key).map(|asked| asked.label);
        fact.label = fact.label.or_else(asked);
        fact
    }
}
