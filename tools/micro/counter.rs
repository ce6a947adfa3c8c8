//! The id of the next message of a channel: the channel is looked up by its name among ten
//! thousand, gives its next id and the links of the record, and takes note that the record was
//! appended. Nothing is written for it: an id is a message's place in the log of its shard, so it
//! is durable with the message and no sooner.

use std::hint::black_box;

use rustc_hash::FxHashMap;
use tern_core::log::Offset;
use tern_protocol::{ChannelId, Incarnation, MessageId, Uin, UnixMillis};

use super::Operation;
use super::channel::Channel;

/// Channels of the shard.
const CHANNELS: u64 = 10_000;

/// A step through them that has no divisor in common with their number.
const STRIDE: u64 = 7_919;

/// From one record to the next in the log, in bytes: a message of 100 bytes.
const RECORD_BYTES: u64 = 232;

/// The channels of a shard.
pub struct Counter {
    channels: FxHashMap<ChannelId, Channel>,
    turn: u64,
    end: Offset,
}

impl Counter {
    /// Each of them has one message.
    pub fn new() -> Self {
        let fresh = |number| (Self::name(number), Channel::new(Incarnation(1)));
        let channels = (0..CHANNELS).map(fresh).collect();
        let mut counter = Self { channels, turn: 0, end: Offset(RECORD_BYTES) };
        (0..CHANNELS).for_each(|_| counter.once());
        counter
    }

    fn name(number: u64) -> ChannelId {
        ChannelId::direct(Uin(1 + number), Uin(1 + CHANNELS))
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation for Counter {
    fn once(&mut self) {
        let (round, number) = (self.turn / CHANNELS, self.turn * STRIDE % CHANNELS);
        let channel = self.channels.get_mut(&black_box(Self::name(number)));
        let channel = channel.expect("all of them are there");
        let id = channel.next_id();
        black_box(channel.next_links(Offset::NONE));
        assert_eq!(id, channel.appended(black_box(self.end), UnixMillis(0)));
        assert_eq!(id, MessageId(round + 1), "no id is left out, and none given twice");
        self.turn += 1;
        self.end.0 += RECORD_BYTES;
    }
}
