//! What the judge hears of marks, receipts and unread counts.

use tern_client::marks::{GroupReceipts, Unread};
use tern_core::mail::Device;
use tern_protocol::frames::{Mark, ReadMark};
use tern_protocol::{ChannelId, Class, Code, Uin};

use super::Oracle;
use super::checks::marks::{Moment, Told};
use super::checks::{demand, marks};
use crate::disk::Disk;

impl Oracle {
    /// A device says how far its user has read.
    pub fn read_arrives(&mut self, uin: Uin, list: &[ReadMark]) {
        for mark in list {
            self.marks.read_said(&self.truth, uin, mark.channel, mark.id.get());
        }
    }

    /// Marks leave the server for this user.
    pub fn marks_leave(&mut self, disk: &Disk, (viewer, link): (Uin, u64), list: &[Mark]) {
        for mark in list {
            let far = (mark.delivered.get(), mark.read.get());
            let (channel, uin) = (mark.channel, mark.uin.into());
            let told = Told { channel, uin, far, incarnation: mark.incarnation.get() };
            self.step_over_expired(disk, (uin, channel), far.0);
            let newest = self.truth.newest(channel);
            let verdict = self.marks.told(link, viewer, told, newest);
            self.judge("marks", verdict);
        }
    }

    /// The server steps over what has expired for a session whose connection may be gone by then,
    /// so that no GAP is seen to leave.
    fn step_over_expired(&mut self, disk: &Disk, of: (Uin, ChannelId), to: u64) {
        let (uin, channel) = of;
        let mut between = self.marks.said(uin, channel).0 + 1..=to;
        let is_expired = |id| {
            let place = self.truth.get(channel, id).map(|(_, place)| *place);
            place.is_some_and(|(shard, index)| disk.is_gone(shard, index).1)
        };
        if !between.is_empty() && between.all(is_expired) {
            self.marks.delivered(&self.truth, uin, channel, to);
        }
    }

    /// An application asks how much is unread, in a world `at_rest` or not.
    pub fn unread_asked(&mut self, disk: &Disk, install: u32, at_rest: bool) {
        let moment = at_rest.then(|| self.moment(disk));
        self.last_questions.ask(install, moment);
    }

    fn moment(&self, disk: &Disk) -> Moment {
        Moment { messages: self.truth.messages(), expired: disk.all_expired_records() }
    }

    /// Whether an install waits for that.
    pub fn asks_unread(&self, install: u32) -> bool {
        self.last_questions.is_asking(install)
    }

    /// Whether it was told how much is unread, when nothing moved any more.
    pub fn knows_unread(&self, install: u32) -> bool {
        self.last_questions.was_told(install)
    }

    /// It is told.
    pub fn unread_told(
        &mut self,
        disk: &Disk,
        (install, device): (u32, Device),
        told: &Result<Vec<Unread>, Code>,
    ) {
        let now = self.moment(disk);
        let is_exact = self.last_questions.answered(install, now, told.is_err());
        let list = match told {
            Ok(list) => list,
            Err(code) => {
                let wrong = || format!("{device:?} may not know what is unread: {code}");
                return self.judge("unread", demand(code.class() == Class::Retry, wrong));
            }
        };
        let is_gone = |(shard, index)| {
            let (damaged, expired) = disk.is_gone(shard, index);
            damaged || expired
        };
        for one in list {
            let first = self.due(disk, device, one.channel).map_or(1, |(first, _)| first);
            if !is_exact && self.lives.restarted_at(one.channel).next().is_some() {
                continue; // of the life before, or asked by a mark of that
            }
            let at = (first, is_exact);
            let verdict = marks::unread(&self.truth, device.uin, one, at, is_gone);
            self.judge("unread", verdict);
        }
    }

    /// An application is told how many members of a group have a message.
    pub fn group_counted(
        &mut self,
        device: Device,
        (channel, id): (ChannelId, u64),
        told: &Result<GroupReceipts, Code>,
    ) {
        let verdict = match told {
            Ok(told) => self.marks.counted(&self.truth, device.uin, (channel, id), told),
            Err(code) => {
                let is_so = match *code {
                    Code::NotAMember | Code::NotGranted => channel.is_group(),
                    other => other.class() == Class::Retry,
                };
                demand(is_so, || format!("{device:?} may not know who has {channel}#{id}: {code}"))
            }
        };
        self.judge("marks", verdict);
    }
}
