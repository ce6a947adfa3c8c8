//! A cursor never passes what the application has consumed, and an ack to the server never
//! passes the cursor on the disk.

use std::collections::BTreeMap;

use tern_protocol::ChannelId;

use super::{Steps, Verdict, demand};

/// How far each install's process has consumed its channels.
#[derive(Debug, Default)]
pub struct Cursors {
    consumed: BTreeMap<(u32, ChannelId), u64>,
    steps: Steps,
}

impl Cursors {
    /// A process starts with these cursors.
    pub fn started(&mut self, install: u32, cursors: impl Iterator<Item = (ChannelId, u64)>) {
        self.consumed.retain(|(of, _), _| *of != install);
        self.consumed.extend(cursors.map(|(channel, id)| ((install, channel), id)));
    }

    /// The application says that it has consumed up to here.
    pub fn consumed(&mut self, install: u32, channel: ChannelId, id: u64) {
        let consumed = self.consumed.entry((install, channel)).or_default();
        *consumed = (*consumed).max(id);
    }

    /// The application is told that these ids never come.
    pub fn stepped(&mut self, install: u32, channel: ChannelId, range: (u64, u64)) {
        self.steps.add((install, channel), range);
    }

    /// The application is told that the channel's history restarted at this id.
    pub fn restarted(&mut self, install: u32, channel: ChannelId, at: u64) {
        self.steps.forget_from((install, channel), at);
        if let Some(consumed) = self.consumed.get_mut(&(install, channel)) {
            *consumed = at.saturating_sub(1).min(*consumed);
        }
    }

    /// The machine has this cursor stored.
    pub fn stored(&self, install: u32, channel: ChannelId, id: u64) -> Verdict {
        let consumed = self.consumed.get(&(install, channel)).copied().unwrap_or(0);
        let consumed = self.steps.past((install, channel), consumed);
        demand(id <= consumed, || {
            format!("install {install} stores cursor {channel}#{id}, consumed up to #{consumed}")
        })
    }

    /// The machine tells the server a cursor; `on_disk` is what its store holds.
    pub fn told(install: u32, channel: ChannelId, id: u64, on_disk: u64) -> Verdict {
        demand(id <= on_disk, || {
            format!("install {install} acks {channel}#{id}, on its disk is #{on_disk}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Uin;

    #[test]
    fn a_cursor_that_runs_ahead_is_noticed() {
        let channel = ChannelId::direct(Uin(1), Uin(2));
        let mut cursors = Cursors::default();
        assert!(cursors.stored(1, channel, 1).is_err());
        cursors.consumed(1, channel, 1);
        assert_eq!(cursors.stored(1, channel, 1), Ok(()));
        cursors.started(1, [(channel, 0)].into_iter());
        assert!(cursors.stored(1, channel, 1).is_err());
        assert!(Cursors::told(1, channel, 2, 1).is_err());
        assert_eq!(Cursors::told(1, channel, 1, 1), Ok(()));
    }
}
