//! What an application asks and waits for: who waits for which answer.
//!
//! Comes in: questions, as [`Ask`]s, and the machine's events. Goes out: what the machine is told,
//! answers to those who wait, and the events that nobody waits for. The machine answers questions
//! of a kind in the order in which they were asked, and sends by their numbers. Who asked may have
//! gone; its answer is dropped then, but the result of a send becomes an event.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tern_protocol::{ChannelId, Code, MessageId, Uin};
use tokio::sync::oneshot;

use crate::group::GroupPage;
use crate::history::HistoryPage;
use crate::machine::{BlockPage, Event, Input, SendId, SendResult};
use crate::marks::{GroupReceipts, Unread, Which};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// A question, and who waits for its answer.
pub(crate) enum Ask {
    Change {
        channel: Option<ChannelId>,
        content: Bytes,
        reply: Reply<SendResult>,
    },
    Recall {
        channel: ChannelId,
        id: MessageId,
        reply: Reply<SendResult>,
    },
    Edit {
        channel: ChannelId,
        id: MessageId,
        content_type: u16,
        content: Bytes,
        reply: Reply<SendResult>,
    },
    Block {
        uin: Uin,
        begins: bool,
        reply: Reply<Result<(), Code>>,
    },
    BlockList {
        after: Uin,
        reply: Reply<Result<BlockPage, Code>>,
    },
    GroupInfo {
        channel: ChannelId,
        after: Uin,
        reply: Reply<Result<GroupPage, Code>>,
    },
    History {
        channel: ChannelId,
        before: MessageId,
        limit: u32,
        reply: Reply<Result<HistoryPage, Code>>,
    },
    GroupReceipts {
        channel: ChannelId,
        id: MessageId,
        reply: Reply<Result<GroupReceipts, Code>>,
    },
    Unread {
        which: Which,
        reply: Reply<Result<Vec<Unread>, Code>>,
    },
}

/// Who waits for what.
#[derive(Default)]
pub(super) struct Asks {
    sends: HashMap<SendId, Reply<SendResult>>,
    groups: VecDeque<Reply<Result<GroupPage, Code>>>,
    blocks: VecDeque<BlockReply>,
    histories: VecDeque<Reply<Result<HistoryPage, Code>>>,
    receipts: VecDeque<Reply<Result<GroupReceipts, Code>>>,
    counts: VecDeque<Reply<Result<Vec<Unread>, Code>>>,
}

/// Who waits for an answer about blocks.
enum BlockReply {
    Wish(Reply<Result<(), Code>>),
    Page(Reply<Result<BlockPage, Code>>),
}

impl Asks {
    /// Somebody waits for the result of this send.
    pub(super) fn await_send(&mut self, send: SendId, reply: Reply<SendResult>) {
        self.sends.insert(send, reply);
    }

    /// Notes who waits; what the machine is told. If it becomes a send, it is the one with this
    /// number.
    pub(super) fn ask(&mut self, ask: Ask, next: SendId) -> Input {
        match ask {
            Ask::Change { channel, content, reply } => {
                self.sends.insert(next, reply);
                Input::Change { channel, content, tag: 0 }
            }
            Ask::Recall { channel, id, reply } => {
                self.sends.insert(next, reply);
                Input::Recall { channel, id, tag: 0 }
            }
            Ask::Edit { channel, id, content_type, content, reply } => {
                self.sends.insert(next, reply);
                Input::Edit { channel, id, content_type, content, tag: 0 }
            }
            Ask::Block { uin, begins, reply } => {
                self.blocks.push_back(BlockReply::Wish(reply));
                Input::Block { uin, begins }
            }
            Ask::BlockList { after, reply } => {
                self.blocks.push_back(BlockReply::Page(reply));
                Input::BlockList { after }
            }
            Ask::GroupInfo { channel, after, reply } => {
                self.groups.push_back(reply);
                Input::GroupInfo { channel, after }
            }
            Ask::History { channel, before, limit, reply } => {
                self.histories.push_back(reply);
                Input::History { channel, before, limit }
            }
            Ask::GroupReceipts { channel, id, reply } => {
                self.receipts.push_back(reply);
                Input::GroupReceipts { channel, id }
            }
            Ask::Unread { which, reply } => {
                self.counts.push_back(reply);
                Input::Unread(which)
            }
        }
    }

    /// Gives an answer to who waits for it; tells which send is settled by that.
    ///
    /// # Errors
    /// The event, if nobody waits for it.
    pub(super) fn answer(&mut self, event: Event) -> Result<Option<SendId>, Event> {
        match event {
            Event::Result(result) => {
                let waiting = self.sends.remove(&result.send);
                let told = waiting.is_some_and(|waiting| waiting.send(result).is_ok());
                return if told { Ok(Some(result.send)) } else { Err(event) };
            }
            Event::GroupPage(page) => answer_next(&mut self.groups, Ok(page)),
            Event::GroupRefused { code, .. } => answer_next(&mut self.groups, Err(code)),
            Event::Blocked { refused, .. } => {
                if let Some(BlockReply::Wish(reply)) = self.blocks.pop_front() {
                    let _ = reply.send(refused.map_or(Ok(()), Err));
                }
            }
            Event::BlockPage(page) => {
                if let Some(BlockReply::Page(reply)) = self.blocks.pop_front() {
                    let _ = reply.send(page);
                }
            }
            Event::History(page) => answer_next(&mut self.histories, page),
            Event::GroupReceipts(answer) => answer_next(&mut self.receipts, answer),
            Event::Unread(answer) => answer_next(&mut self.counts, answer),
            other => return Err(other),
        }
        Ok(None)
    }
}

fn answer_next<T>(waiting: &mut VecDeque<Reply<T>>, answer: T) {
    if let Some(waiting) = waiting.pop_front() {
        let _ = waiting.send(answer);
    }
}
