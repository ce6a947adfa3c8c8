//! Whom the user blocks: wishes and pages of the list, one under way at a time, the next when its
//! answer has come. What was under way when the connection was lost is asked for again on the next
//! one, and what the server can't do now a little later: all of it is harmless to ask twice.

use std::collections::VecDeque;

use tern_protocol::frames::{Blocked, block};
use tern_protocol::{Class, Code, Uin};
use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::frames;
use super::io::{BlockPage, Event};
use super::mailbox::BadFrame;
use super::out::Out;
use super::time::Mono;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Wish { uin: Uin, begins: bool },
    Page { after: Uin },
}

/// Everything that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// In the order of asking; the first is under way if any is.
    asks: VecDeque<Ask>,
    is_under_way: bool,
    /// Nothing is asked before this moment.
    again: Option<Mono>,
}

impl Blocks {
    /// The application blocks a user, or does so no more.
    pub(crate) fn wish(&mut self, uin: Uin, begins: bool) {
        self.asks.push_back(Ask::Wish { uin, begins });
    }

    /// The application asks for the blocked users above a uin.
    pub(crate) fn ask_page(&mut self, after: Uin) {
        self.asks.push_back(Ask::Page { after });
    }

    /// Asks for the next, unless one is under way or it is too early.
    pub(crate) fn flow(&mut self, now: Mono, out: &mut Out) {
        let is_early = self.again.is_some_and(|again| now < again);
        let Some(ask) = self.asks.front().filter(|_| !self.is_under_way && !is_early) else {
            return;
        };
        (self.is_under_way, self.again) = (true, None);
        out.transmit(match *ask {
            Ask::Wish { uin, begins } => frames::block(uin, begins),
            Ask::Page { after } => frames::block_list(after),
        });
    }

    /// When something is asked for again.
    pub(crate) fn due(&self) -> Option<Mono> {
        self.again.filter(|_| !self.asks.is_empty())
    }

    /// A BLOCKED; a wait of class retry is at least `wait_ms`.
    pub(crate) fn handle_answer(
        &mut self,
        now: Mono,
        answer: &Blocked,
        wait_ms: u64,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let (uin, begins) = (Uin::from(answer.uin), answer.action == block::BEGIN);
        if !self.is_under_way || self.asks.front() != Some(&Ask::Wish { uin, begins }) {
            return Err(BadFrame);
        }
        match Code(answer.code.get()) {
            Code(0) => self.answered(Event::Blocked { uin, begins, refused: None }, out),
            code => {
                let wait_ms = u64::from(answer.retry_after_ms.get()).max(wait_ms);
                self.refused(now, code, wait_ms, out);
            }
        }
        Ok(())
    }

    /// A BLOCK_PAGE.
    pub(crate) fn handle_page(
        &mut self,
        after: Uin,
        rest: &[u8],
        is_last: bool,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let uins = <[U64]>::ref_from_bytes(rest).map_err(|_| BadFrame)?;
        if !self.is_under_way || self.asks.front() != Some(&Ask::Page { after }) {
            return Err(BadFrame);
        }
        let uins: Vec<Uin> = uins.iter().map(|uin| Uin(uin.get())).collect();
        if !is_last && uins.last().is_none_or(|last| *last <= after) {
            return Err(BadFrame); // the next page would begin no further
        }
        self.answered(Event::BlockPage(Ok(BlockPage { uins, is_last })), out);
        Ok(())
    }

    /// The server does not do what is under way, now or for good.
    pub(crate) fn refused(&mut self, now: Mono, code: Code, wait_ms: u64, out: &mut Out) {
        let Some(ask) = self.asks.front().copied().filter(|_| self.is_under_way) else { return };
        if code.class() == Class::Retry {
            (self.is_under_way, self.again) = (false, Some(now.after_ms(wait_ms)));
            return;
        }
        let event = match ask {
            Ask::Wish { uin, begins } => Event::Blocked { uin, begins, refused: Some(code) },
            Ask::Page { .. } => Event::BlockPage(Err(code)),
        };
        self.answered(event, out);
    }

    fn answered(&mut self, event: Event, out: &mut Out) {
        self.asks.pop_front();
        self.is_under_way = false;
        out.tell(event);
    }

    /// The connection is gone, and what was under way with it.
    pub(crate) fn disconnected(&mut self) {
        (self.is_under_way, self.again) = (false, None);
    }
}
