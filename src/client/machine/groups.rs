//! What the application asks of groups: one page under way at a time, the next when it has come.
//! A page that was under way when the connection was lost is asked for again on the next one.

use std::collections::VecDeque;

use tern_protocol::frames::GroupPage as PageHead;
use tern_protocol::{ChannelId, Code, Uin};

use super::frames;
use super::io::Event;
use super::mailbox::BadFrame;
use super::out::Out;
use crate::group::GroupPage;

/// Pages that are asked for.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Which groups, and from which uin on; the first is under way if any is.
    asks: VecDeque<(ChannelId, Uin)>,
    is_under_way: bool,
}

impl Groups {
    /// The application asks for the members of a group above a uin.
    pub(crate) fn ask(&mut self, channel: ChannelId, after: Uin) {
        self.asks.push_back((channel, after));
    }

    /// Asks for the next page, unless one is under way.
    pub(crate) fn flow(&mut self, out: &mut Out) {
        let Some(&(channel, after)) = self.asks.front().filter(|_| !self.is_under_way) else {
            return;
        };
        self.is_under_way = true;
        out.transmit(frames::group_info(channel, after));
    }

    /// A GROUP_PAGE.
    pub(crate) fn handle_page(
        &mut self,
        (head, rest): (&PageHead, &[u8]),
        is_last: bool,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let asked = (head.channel, Uin::from(head.after));
        if !self.is_under_way || self.asks.front() != Some(&asked) {
            return Err(BadFrame);
        }
        let page = GroupPage::read(head, rest, is_last).ok_or(BadFrame)?;
        self.asks.pop_front();
        self.is_under_way = false;
        out.tell(Event::GroupPage(page));
        Ok(())
    }

    /// The server answers no page but this code. Whether one was under way.
    pub(crate) fn refused(&mut self, code: Code, out: &mut Out) -> bool {
        let ask = self.asks.pop_front_if(|_| self.is_under_way);
        self.is_under_way = false;
        if let Some((channel, _)) = ask {
            out.tell(Event::GroupRefused { channel, code });
        }
        ask.is_some()
    }

    /// The connection is gone, and what was under way with it.
    pub(crate) fn disconnected(&mut self) {
        self.is_under_way = false;
    }
}
