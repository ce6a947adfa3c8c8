//! Looking back: one page under way at a time, the next when it has come. And what a new device
//! wants of the channels that its user has already; it says so at each login until all of them
//! were shown to it, and what it steps over is stored by then.

use std::collections::VecDeque;

use bytes::Bytes;
use tern_protocol::frames::HistoryPage as PageHead;
use tern_protocol::history::{Entry, split_entry};
use tern_protocol::{ChannelId, Code, Incarnation, MessageId};

use super::frames;
use super::io::{Change, Event, Message};
use super::mailbox::BadFrame;
use super::out::Out;
use super::time::Mono;
use super::tuning::Tuning;
use crate::history::{HistoryItem, HistoryPage, Newcomer};

/// A question: which channel, below which id (0: from the newest), how many ids.
type Question = (ChannelId, MessageId, u32);

/// Pages that are asked for, and what the device wants of older channels.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    asks: VecDeque<Question>,
    is_under_way: bool,
    /// When the first of them is asked again: the server said to wait.
    again: Option<Mono>,
    /// Whether the server can tell.
    is_offered: bool,
    /// How many messages of each channel that the device does not name; all, if `None`.
    wanted: Option<u32>,
}

impl Histories {
    /// As the last process left it. A device without cursors is new, and wants what it is set to.
    pub(crate) fn new(
        newcomer: Newcomer,
        has_cursors: bool,
        tuning: &Tuning,
        out: &mut Out,
    ) -> Self {
        let wanted = match newcomer {
            Newcomer::Wants(newest) => Some(newest),
            Newcomer::Unknown if !has_cursors => tuning.newest_wanted,
            Newcomer::Unknown | Newcomer::Settled => None,
        };
        if let (Newcomer::Unknown, Some(newest)) = (newcomer, wanted) {
            out.change(Change::Newcomer(Newcomer::Wants(newest)));
        }
        Self { wanted, ..Self::default() }
    }

    /// Whether the server can tell, from WELCOME.
    pub(crate) fn offer(&mut self, is_offered: bool) {
        self.is_offered = is_offered;
    }

    /// Whether the list of cursors must be said, so that this can be said before it.
    pub(crate) fn wants_less(&self) -> bool {
        self.wanted.is_some()
    }

    /// Before the cursors: what a new device wants of what it does not name.
    pub(crate) fn say_wanted(&self, out: &mut Out) {
        if let Some(newest) = self.wanted.filter(|_| self.is_offered) {
            out.transmit(frames::history_wanted(newest));
        }
    }

    /// A CHANNELS_SHOWN: what is skipped has its cursors, which were stored before this is.
    pub(crate) fn handle_shown(&mut self, out: &mut Out) {
        if self.wanted.take().is_some() {
            out.change(Change::Newcomer(Newcomer::Settled));
        }
    }

    /// The application looks back.
    pub(crate) fn ask(&mut self, channel: ChannelId, before: MessageId, limit: u32) {
        self.asks.push_back((channel, before, limit));
    }

    /// Asks for the next page, unless one is under way.
    pub(crate) fn flow(&mut self, now: Mono, out: &mut Out) {
        if !self.is_offered {
            while self.asks.pop_front().is_some() {
                out.tell(Event::History(Err(Code::UnknownKind)));
            }
        }
        if self.is_under_way || self.again.is_some_and(|again| again > now) {
            return;
        }
        self.again = None;
        if let Some(&(channel, before, limit)) = self.asks.front() {
            self.is_under_way = true;
            out.transmit(frames::history_ask(channel, before, limit));
        }
    }

    /// A HISTORY; `frame` holds `entries`.
    pub(crate) fn handle_page(
        &mut self,
        frame: &Bytes,
        (head, entries): (&PageHead, &[u8]),
        is_last: bool,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let fits =
            |ask: &mut Question| (ask.0, ask.1) == (head.channel, MessageId::from(head.before));
        if !self.is_under_way {
            return Err(BadFrame);
        }
        let page = read_page(frame, (head, entries), is_last).ok_or(BadFrame)?;
        self.asks.pop_front_if(fits).ok_or(BadFrame)?;
        self.is_under_way = false;
        out.tell(Event::History(Ok(page)));
        Ok(())
    }

    /// The server answers no page but this code. Whether one was under way.
    pub(crate) fn refused(&mut self, now: Mono, code: Code, wait_ms: u64, out: &mut Out) -> bool {
        if !std::mem::take(&mut self.is_under_way) {
            return false;
        }
        if code == Code::TooManyRequests {
            self.again = Some(now.after_ms(wait_ms));
        } else {
            self.asks.pop_front();
            out.tell(Event::History(Err(code)));
        }
        true
    }

    /// When the next page is asked for, if it waits for a time.
    pub(crate) fn due(&self) -> Option<Mono> {
        self.again
    }

    /// The connection is gone, and what was under way with it.
    pub(crate) fn disconnected(&mut self) {
        self.is_under_way = false;
        self.again = None;
    }
}

/// The page; `None` if its entries are not those of its ids.
fn read_page(
    frame: &Bytes,
    (head, mut entries): (&PageHead, &[u8]),
    is_last: bool,
) -> Option<HistoryPage> {
    let (from, end) = (head.from.get(), head.to.get().checked_add(1)?);
    let incarnation = Incarnation::from(head.incarnation);
    let (mut next, mut items) = (from, Vec::new());
    while !entries.is_empty() {
        let (entry, rest) = split_entry(entries)?;
        let first = next;
        match entry {
            Entry::Message(body, content) => {
                if (body.channel, body.id.get()) != (head.channel, first) {
                    return None;
                }
                next = first.checked_add(1)?;
                let message = Message::of(body, frame.slice_ref(content), incarnation);
                items.push(HistoryItem::Message(message));
            }
            Entry::Gap { ids, code } => {
                next = first.checked_add(ids.into())?;
                let (from, to) = (MessageId(first), MessageId(next - 1));
                items.push(HistoryItem::Gap { from, to, code });
            }
        }
        entries = rest;
    }
    let cut = Code(head.code.get());
    (from > 0 && next == end).then(|| HistoryPage {
        channel: head.channel,
        incarnation,
        items,
        from: MessageId(from),
        oldest: head.oldest.into(),
        newest: head.newest.into(),
        is_last,
        cut: (cut.0 != 0).then_some(cut),
    })
}
