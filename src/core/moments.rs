//! What happened to messages, for whoever keeps a record of it: a driver that wants to know turns
//! it on, and drains it after each call. Nothing here decides anything, and nothing is kept.

use tern_protocol::{ChannelId, Code, MessageId, SendKey};

use crate::mail::Device;

/// Something happened to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// In which channel.
    pub channel: ChannelId,
    /// Of which device: who sent it, or who is to have it. `None` for what concerns no single one.
    pub device: Option<Device>,
    /// What.
    pub happened: Happened,
}

/// What can happen to a message. A send has a key before it has an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// A session took it from its device.
    Received(SendKey),
    /// Its device was told that it is not accepted.
    Refused(SendKey, Code),
    /// Its device was given the ack of the message that came under the same key before.
    Repeated(MessageId),
    /// Its channel's shard appended it.
    Appended(MessageId),
    /// The log proved it durable: its ack leaves, and home shards are told.
    Committed(MessageId),
    /// A session may read up to this one, and its device has not acked that much.
    Granted(MessageId),
    /// A device said that it has consumed up to this one.
    Acked(MessageId),
}

/// The moments of a worker since they were drained, if anybody wants them.
#[derive(Default)]
pub(crate) struct Moments {
    wanted: bool,
    noted: Vec<Moment>,
}

impl Moments {
    /// From now on somebody drains them.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether anybody does.
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// Notes one, if anybody wants it.
    #[inline]
    pub(crate) fn note(
        &mut self,
        channel: ChannelId,
        device: impl Into<Option<Device>>,
        happened: Happened,
    ) {
        if self.wanted {
            self.noted.push(Moment { channel, device: device.into(), happened });
        }
    }

    /// Takes all, in their order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Moment> {
        self.noted.drain(..)
    }
}
