//! Looking back in the workload: now and then an application asks for a page of some channel, its
//! user's own or not; and in the end for the newest of all of them.

use tern_client::history::HistoryPage;
use tern_client::machine::Input;
use tern_protocol::frames::HistoryPage as Head;
use tern_protocol::limits::HISTORY_IDS_MAX;
use tern_protocol::{ChannelId, Code, MessageId};

use super::World;

/// Sends in a hundred beside which an application looks back.
const ASKS_PERCENT: u64 = 8;

/// Of these, questions about the channels of the user himself.
const OWN_PERCENT: u64 = 85;

/// Of all of these, questions from the newest message on.
const NEWEST_PERCENT: u64 = 40;

/// How many ids are asked for at most; a server tells fewer.
const IDS_MAX: u64 = HISTORY_IDS_MAX as u64 + 8;

impl World {
    /// Now and then an application looks back.
    pub(super) fn look_back_sometimes(&mut self, install: usize) {
        if !self.work.percent(ASKS_PERCENT) {
            return;
        }
        let channels = match self.work.percent(OWN_PERCENT) {
            true => self.channels_of(install),
            false => self.oracle.truth.channels().collect(),
        };
        let Some(channel) = self.work.pick(&channels) else { return };
        let newest = self.oracle.truth.newest(channel);
        let before = match self.work.percent(NEWEST_PERCENT) {
            true => 0,
            false => self.work.between(1, newest + 2),
        };
        let limit = self.work.between(0, IDS_MAX) as u32; // fits: few
        self.look_back(install, (channel, before, limit), false);
    }

    fn look_back(&mut self, install: usize, question: (ChannelId, u64, u32), at_rest: bool) {
        let (channel, before, limit) = question;
        self.trace.note(
            self.now,
            &[24, install as u64, before, u64::from(limit)],
            &[],
            format_args!("install {install} looks back: {limit} of {channel} before {before}"),
        );
        self.oracle.history_asked(install as u32, question, at_rest);
        let before = MessageId(before);
        self.device_input(install, Input::History { channel, before, limit });
    }

    /// A page leaves the server.
    pub(super) fn history_leaves(&mut self, link: u64, page: (&Head, &[u8]), is_last: bool) {
        let Some(install) = self.links.get(&link).map(|conn| conn.install) else { return };
        let (number, device) = (install as u32, self.installs[install].device);
        let disk = &self.disk.borrow();
        self.oracle.history_leaves(disk, (number, device, link), page, is_last);
    }

    /// An application is told a page, or why not.
    pub(super) fn take_history(&mut self, install: usize, told: &Result<HistoryPage, Code>) {
        self.trace.note(
            self.now,
            &[25, install as u64],
            format!("{told:?}").as_bytes(),
            format_args!("install {install} is told {told:?}"),
        );
        let who = (install as u32, self.installs[install].device);
        self.oracle.history_told(&self.disk.borrow(), who, told);
    }

    /// What keeps the living devices from knowing the newest page of each channel; they ask for it.
    pub(super) fn missing_of_histories(&mut self) -> Option<String> {
        let installs: Vec<usize> = self.core().collect();
        let mut missing = None;
        for install in installs {
            let number = install as u32;
            let mut channels = self.channels_of(install);
            channels.retain(|channel| !self.oracle.knows_history(number, *channel));
            if !channels.is_empty() {
                missing = Some(format!("install {install} does not know the newest {channels:?}"));
            }
            if self.oracle.looks_back(number) {
                continue;
            }
            for channel in channels {
                self.look_back(install, (channel, 0, HISTORY_IDS_MAX), true);
            }
        }
        missing
    }
}
