//! What the judge hears of where devices begin: their cursors, the channels that they are told of,
//! and new devices that want only some of what was said before.

use tern_core::mail::Device;
use tern_protocol::frames::{ChannelState, Cursor};
use tern_protocol::{ChannelId, Uin};

use super::Oracle;
use super::checks::{Verdict, demand, is_durable};
use crate::disk::Disk;

impl Oracle {
    /// Cursors arrive from a device; whether these are the `last` ones.
    pub fn cursors_arrive(&mut self, link: u64, list: &[Cursor], last: bool) {
        self.newcomers.cursors_arrive(link, list, last);
        self.flow.cursors_arrive(link, list);
    }

    /// A device is told of a channel.
    pub fn channel_leaves(&mut self, disk: &Disk, (uin, link): (Uin, u64), state: &ChannelState) {
        self.newcomers.told(link, uin, state);
        self.flow.told(link, state);
        let (channel, newest) = (state.channel, state.newest.get());
        let verdict = match self.truth.get(channel, newest) {
            Some((fact, place)) => is_durable(disk, *place, &format!("the word of {fact}")),
            None => demand(newest == 0, || {
                format!("{uin} is told that {channel}#{newest} is there, and it is not")
            }),
        };
        self.judge("durable", verdict);
    }

    /// A device is told that all channels of its user were shown.
    pub fn all_shown_leaves(&mut self, disk: &Disk, (device, link): (Device, u64), channels: u32) {
        let mut newcomers = std::mem::take(&mut self.newcomers);
        let is_due = |channel| self.due(disk, device, channel).is_some();
        let verdict = newcomers.all_shown(link, channels, is_due);
        self.newcomers = newcomers;
        self.judge("newcomers", verdict);
    }

    /// An application is told that its device, being new, gets nothing up to `to`.
    pub(super) fn may_skip(&self, install: u32, (channel, to): (ChannelId, u64)) -> Verdict {
        let is_of_one_life = self.lives.restarted_at(channel).next().is_none();
        let newest = is_of_one_life.then(|| self.truth.newest(channel));
        self.newcomers.skipped(install, (channel, to), newest)
    }
}
