//! Marks in the workload: users read what their applications show, and applications ask how much
//! is unread and who has a message.

use tern_client::machine::{Event, Input};
use tern_client::marks::Which;
use tern_protocol::frames::Mark;
use tern_protocol::{ChannelId, MessageId, Uin};
use zerocopy::FromBytes;

use super::World;
use crate::device::Act;
use crate::fault::Fault;

/// How long a user takes to read what is shown, at most, in ms.
const READING_MS_MAX: u64 = 4_000;

/// Sends in a hundred beside which an application asks how much is unread, or who has a message.
const ASKS_PERCENT: u64 = 4;

impl World {
    /// An application has shown a message: now and then its user reads it, some time later.
    pub(super) fn look_at(&mut self, install: usize, channel: ChannelId, id: MessageId) {
        if self.work.percent(self.draw.reads_percent) {
            let delay = self.work.between(0, READING_MS_MAX);
            self.plan_act(install, delay, Act::Look(channel, id));
        }
    }

    /// A user has read so far.
    pub(super) fn read_up_to(&mut self, install: usize, channel: ChannelId, id: MessageId) {
        let uin = self.installs[install].device.uin;
        self.oracle.marks.read_here(uin, channel, id.0);
        self.device_input(install, Input::Read { channel, id });
    }

    /// Now and then an application asks something about marks.
    pub(super) fn ask_of_marks(&mut self, install: usize) {
        if !self.work.percent(ASKS_PERCENT) {
            return;
        }
        let groups = &self.groups;
        match self.work.pick(groups).filter(|_| self.work.percent(50)) {
            None => self.ask_unread(install, false),
            Some(group) => {
                let newest = self.oracle.truth.newest(group);
                let id = MessageId(self.work.between(1, newest + 1));
                if let Some(process) = self.installs[install].process.as_mut() {
                    process.counting.push_back((group, id));
                }
                self.device_input(install, Input::GroupReceipts { channel: group, id });
            }
        }
    }

    fn ask_unread(&mut self, install: usize, at_rest: bool) {
        let channels = self.channels_of(install);
        if !channels.is_empty() {
            self.oracle.unread_asked(&self.disk.borrow(), install as u32, at_rest);
            self.device_input(install, Input::Unread(Which::These(channels)));
        }
    }

    /// The channels of which this install's user is to have something.
    pub(super) fn channels_of(&self, install: usize) -> Vec<ChannelId> {
        let (disk, device) = (&self.disk.borrow(), self.installs[install].device);
        let channels = self.oracle.truth.channels();
        channels.filter(|channel| self.oracle.due(disk, device, *channel).is_some()).collect()
    }

    /// An application is told of counts.
    pub(super) fn take_counts(&mut self, install: usize, event: &Event) {
        let device = self.installs[install].device;
        self.trace.note(
            self.now,
            &[23, install as u64],
            format!("{event:?}").as_bytes(),
            format_args!("install {install} is told {event:?}"),
        );
        match event {
            Event::Unread(told) => {
                let who = (install as u32, device);
                self.oracle.unread_told(&self.disk.borrow(), who, told);
            }
            Event::GroupReceipts(told) => {
                let process = self.installs[install].process.as_mut();
                if let Some(at) = process.and_then(|process| process.counting.pop_front()) {
                    self.oracle.group_counted(device, (at.0, at.1.0), told);
                }
            }
            _ => {}
        }
    }

    /// Marks leave for a device.
    pub(super) fn marks_leave(&mut self, link: u64, rest: &[u8]) {
        let Some(device) = self.device_of(link) else { return };
        if let Ok(list) = <[Mark]>::ref_from_bytes(rest) {
            self.oracle.marks_leave(&self.disk.borrow(), (device.uin, link), list);
        }
    }

    /// What keeps the devices of a user from knowing the same of what he has read, and those to
    /// whom he writes from knowing it too.
    pub(super) fn missing_of_marks(&self) -> Option<String> {
        let core: Vec<usize> = self.core().collect();
        // What is told to others is a hint, and the next session asks for what was lost of it.
        let tells = !self.draw.faults.contains(&Fault::HintsLost);
        core.iter().find_map(|install| {
            let one = &self.installs[*install];
            let own = one.device.uin;
            self.channels_of(*install).into_iter().find_map(|channel| {
                let read = one.store.read(channel);
                let own_others =
                    core.iter().filter(|other| self.installs[**other].device.uin == own);
                let other = own_others
                    .copied()
                    .find(|other| self.installs[*other].store.read(channel) != read);
                if let Some(other) = other {
                    let its = self.installs[other].store.read(channel);
                    return Some(format!(
                        "install {install} of {own} has read {channel}#{read}, install {other} \
                         #{its}"
                    ));
                }
                // Who is blocked is not told, and after the block only of what is read from then on.
                let hears = |peer: &Uin| self.oracle.truth.blocks(own, *peer).is_empty();
                let peer = channel.peer_of(own).filter(|peer| *peer != own && tells)?;
                let newest = self.oracle.truth.blocks(own, peer).last();
                if newest.is_some_and(|(begins, _)| *begins) {
                    return None; // who is blocked hears nothing of it
                }
                let peer = Some(peer).filter(hears)?;
                self.missing_receipt(&core, (own, read), (peer, channel))
            })
        })
    }

    /// Which device of the other side does not know that this user has read so far.
    fn missing_receipt(
        &self,
        core: &[usize],
        (own, read): (Uin, u64),
        (peer, channel): (Uin, ChannelId),
    ) -> Option<String> {
        let mut theirs = core.iter().filter(|other| self.installs[**other].device.uin == peer);
        let late = theirs.find(|other| {
            let (_, known) = self.oracle.marks.known_receipt(**other as u32, channel);
            known < read
        })?;
        Some(format!("install {late} does not know that {own} has read {channel}#{read}"))
    }

    /// What keeps the living devices from knowing how much is unread; they ask for it.
    pub(super) fn missing_of_unread(&mut self) -> Option<String> {
        let installs: Vec<usize> = self.core().collect();
        let mut missing = None;
        for install in installs {
            let number = install as u32;
            if self.oracle.knows_unread(number) || self.channels_of(install).is_empty() {
                continue;
            }
            if !self.oracle.asks_unread(number) {
                self.ask_unread(install, true);
            }
            missing = Some(format!("install {install} does not know how much is unread"));
        }
        missing
    }
}
