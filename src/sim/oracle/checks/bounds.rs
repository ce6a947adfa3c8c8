//! Queues keep within their bounds: pushes under way to a device, sends under way from one.

use std::collections::BTreeMap;

use tern_protocol::ChannelId;
use tern_protocol::limits::UNACKED_SENDS_MAX;

use super::{Verdict, demand};

/// What is under way on each connection.
#[derive(Debug, Default)]
pub struct Bounds {
    windows: BTreeMap<u64, Window>,
}

/// The pushes of one connection.
#[derive(Debug, Default)]
struct Window {
    /// By channel: the newest id pushed and the newest acked.
    channels: BTreeMap<ChannelId, (u64, u64)>,
    /// The server knows the client's cursors from the connection before: delivery begins behind
    /// them, wherever that is.
    is_known: bool,
    /// The client asked for a range again, so delivery may have gone back.
    went_back: bool,
}

impl Window {
    /// A channel of which this id is the first that is delivered, if none was before.
    fn of(&mut self, channel: ChannelId, first: u64) -> &mut (u64, u64) {
        let before = if self.is_known { first - 1 } else { 0 };
        self.channels.entry(channel).or_insert((before, before))
    }
}

impl Bounds {
    /// A connection reaches the server.
    pub fn opened(&mut self, link: u64) {
        self.windows.insert(link, Window::default());
    }

    /// The server took the cursors that it knew.
    pub fn known(&mut self, link: u64) {
        if let Some(window) = self.windows.get_mut(&link) {
            window.is_known = true;
        }
    }

    /// The client told a cursor, at login or as an ack.
    pub fn told(&mut self, link: u64, channel: ChannelId, id: u64) {
        let Some(window) = self.windows.get_mut(&link) else { return };
        let (pushed, acked) = window.channels.entry(channel).or_default();
        (*pushed, *acked) = ((*pushed).max(id), (*acked).max(id));
    }

    /// The client asked for a range again.
    pub fn fetched(&mut self, link: u64) {
        if let Some(window) = self.windows.get_mut(&link) {
            window.went_back = true;
        }
    }

    /// A push leaves; at most `messages_max` may be unacked while the connection is there.
    pub fn pushed(&mut self, link: u64, channel: ChannelId, id: u64, messages_max: u32) -> Verdict {
        let Some(window) = self.windows.get_mut(&link) else { return Ok(()) };
        let (pushed, _) = window.of(channel, id);
        *pushed = (*pushed).max(id);
        let unacked: u64 = window.channels.values().map(|(pushed, acked)| pushed - acked).sum();
        demand(window.went_back || unacked <= u64::from(messages_max), || {
            format!("{unacked} pushes are under way on connection {link}, {messages_max} at most")
        })
    }

    /// A gap leaves: its ids are under way no more than they are to be acked.
    pub fn stepped(&mut self, link: u64, channel: ChannelId, (from, to): (u64, u64)) {
        let Some(window) = self.windows.get_mut(&link) else { return };
        let (pushed, acked) = window.of(channel, from);
        *pushed = (*pushed).max(to);
        *acked = (*acked + (to + 1).saturating_sub(from)).min(*pushed);
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.windows.remove(&link);
    }

    /// An install's machine has this many sends with a key.
    pub fn sends(install: u32, with_key: usize) -> Verdict {
        let most = 2 * UNACKED_SENDS_MAX as usize;
        demand(with_key <= most, || {
            format!("install {install} has {with_key} sends with a key, {most} at most")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Uin;

    #[test]
    fn a_window_that_overflows_is_noticed() {
        let channel = ChannelId::direct(Uin(1), Uin(2));
        let mut bounds = Bounds::default();
        bounds.opened(1);
        bounds.told(1, channel, 5);
        assert_eq!(bounds.pushed(1, channel, 7, 2), Ok(()));
        assert!(bounds.pushed(1, channel, 8, 2).is_err());
        bounds.told(1, channel, 6);
        assert_eq!(bounds.pushed(1, channel, 8, 2), Ok(()));
        assert!(Bounds::sends(1, 1_000).is_err());
    }
}
