//! Looking back: a page of a channel below an id, and how much of its channels a new device wants.
//!
//! Comes in: HISTORY_ASK, HISTORY_WANTED; what a page waited for. Goes out: HISTORY, one whole
//! page a frame, CHANNELS_SHOWN. Worth naming: a page is read within the grant that the session
//! has when it is read, so what was recalled or has expired since the question is told as such; it
//! moves no cursor and takes no room in the window.

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    ChannelsShown, HistoryAsk, HistoryEntry, HistoryPage, HistoryWanted, PushBody,
};
use tern_protocol::limits::{HISTORY_IDS_MAX, PAYLOAD_BYTES_MAX};
use tern_protocol::{ChannelId, Code, Flags, Kind, MessageId};
use zerocopy::IntoBytes;

use super::State;
use super::counting::Counting;
use super::front::{Front, Verdict, error};
use super::page::{Item, PAGE_MESSAGES, Page};
use crate::context::Context;
use crate::io::{ColdRecord, Effect, LinkId, Waiter};
use crate::log::{Offset, Reader};
use crate::mail::Grant;
use crate::placement::ShardId;

const _: () = assert!(HISTORY_IDS_MAX as usize <= PAGE_MESSAGES);

/// What a session looks for in its channels; boxed, since most look for nothing.
#[derive(Default)]
pub(super) struct Looking(Option<Box<LookedFor>>);

#[derive(Default)]
struct LookedFor {
    counting: Option<Counting>,
    asked: Option<Asked>,
    /// How many of the newest messages the device wants of a channel that it did not name; all,
    /// if `None`.
    newest_wanted: Option<u32>,
}

/// A HISTORY_ASK that is not answered yet.
struct Asked {
    channel: ChannelId,
    before: MessageId,
    limit: u32,
    /// The place of the newest cold read, and whether it is under way.
    waited_for: Offset,
    warming: bool,
}

/// A run of ids of a page: a message at its place, or a gap.
struct Part {
    first: MessageId,
    last: MessageId,
    at: Offset,
    bytes: u32,
    code: Code,
}

/// The code of what is no gap.
const NO_CODE: Code = Code(0);

impl Looking {
    /// What is being counted for UNREAD_ASK.
    pub(super) fn counting(&mut self) -> &mut Option<Counting> {
        &mut self.0.get_or_insert_default().counting
    }

    /// How many of the newest messages the device wants of a channel that it did not name.
    pub(super) fn newest_wanted(&self) -> Option<u32> {
        self.0.as_ref()?.newest_wanted
    }

    fn asked(&mut self) -> &mut Option<Asked> {
        &mut self.0.get_or_insert_default().asked
    }
}

impl<R: Reader> Front<R> {
    /// The device looks back in a channel.
    pub(super) fn history_ask(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        ask: &HistoryAsk,
    ) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        if live.looking.asked().is_some() {
            refuse(context, link, Code::Busy);
            return Ok(());
        }
        *live.looking.asked() = Some(Asked {
            channel: ask.channel,
            before: ask.before.into(),
            limit: ask.limit.get(),
            waited_for: Offset::NONE,
            warming: false,
        });
        self.answer_history(context, link);
        Ok(())
    }

    /// How much a new device wants of what it does not name in its cursors.
    pub(super) fn history_wanted(&mut self, link: LinkId, wanted: &HistoryWanted) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        if live.cursors.have_come() {
            return Err(Code::WrongState);
        }
        live.looking.0.get_or_insert_default().newest_wanted = Some(wanted.newest.get());
        Ok(())
    }

    /// All channels of the user were shown. Who asked about another one is in none such.
    pub(super) fn all_shown(&mut self, context: &mut Context<'_>, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let State::Live(live) = &mut session.state else { return };
        live.all_shown = true;
        if let Some(looked_for) = live.looking.0.as_mut()
            && let Some(wanted) = looked_for.newest_wanted.take()
        {
            looked_for.newest_wanted = mutant!(WantedForEver).then_some(wanted);
            let channels = u32::try_from(live.delivery.channels()).unwrap_or(u32::MAX).into();
            let shown = ChannelsShown { channels, reserved: 0.into() };
            let mut frame = [0; frame_bytes::<ChannelsShown>(0)];
            encode(Kind::ChannelsShown, Flags::NONE, &shown, &[], &mut frame);
            context.effect(Effect::Whole(link, Bytes::copy_from_slice(&frame)));
        }
        self.answer_history(context, link);
    }

    /// What a page waited for is in memory.
    pub(crate) fn handle_history_warmed(&mut self, context: &mut Context<'_>, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let State::Live(live) = &mut session.state else { return };
        if let Some(asked) = live.looking.asked() {
            asked.warming = false;
        }
        self.answer_history(context, link);
    }

    /// Answers what is asked, if that is possible now.
    fn answer_history(&mut self, context: &mut Context<'_>, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let State::Live(live) = &mut session.state else { return };
        let Some(LookedFor { asked: question, .. }) = live.looking.0.as_deref_mut() else { return };
        let Some(asked) = question.as_mut().filter(|asked| !asked.warming) else { return };
        let Some(grant) = live.delivery.grant(asked.channel) else {
            if live.all_shown {
                *question = None;
                refuse(context, link, Code::NotGranted);
            }
            return;
        };
        let shard = context.placement.shard_of_channel(asked.channel);
        match asked.page(&mut self.reader, shard, grant) {
            Ok(frame) => {
                *question = None;
                context.counters.history_pages += 1;
                context.effect(Effect::Whole(link, frame));
            }
            Err(at) => {
                (asked.waited_for, asked.warming) = (at, true);
                context.counters.reads_cold += 1;
                let record = ColdRecord { shard, at, channel: Some(asked.channel) };
                context.effect(Effect::Warm { record, waiter: Waiter::History(link) });
            }
        }
    }
}

fn refuse(context: &mut Context<'_>, link: LinkId, code: Code) {
    context.counters.frames_refused += 1;
    error(context, link, code, Kind::HistoryAsk, Flags::NONE);
}

impl Asked {
    /// The answer as a whole frame.
    ///
    /// # Errors
    /// The place of a record that must be waited for.
    fn page<R: Reader>(
        &self,
        reader: &mut R,
        shard: ShardId,
        grant: &Grant,
    ) -> Result<Bytes, Offset> {
        let unclipped = mutant!(HistoryRecalled).then(|| Grant { recalled: None, ..grant.clone() });
        let grant = unclipped.as_ref().unwrap_or(grant);
        let oldest = match mutant!(HistoryBeyond) {
            true => MessageId(1),
            false => grant.from.max(grant.visible_from).max(MessageId(1)),
        };
        let asked_to = if self.before.0 == 0 { u64::MAX } else { self.before.0 - 1 };
        let to = MessageId(grant.to.0.min(asked_to));
        let most = u64::from(self.limit.min(HISTORY_IDS_MAX));
        let count = most.min((to.0 + 1).saturating_sub(oldest.0));
        let count = count.saturating_sub(u64::from(mutant!(HistoryShort)));
        let after = MessageId(to.0 - count);
        let parts = if count == 0 {
            Vec::new()
        } else {
            let place = (shard, self.channel);
            let page = Page::read(reader, place, grant, after, count, self.waited_for)?;
            parts(&page, after, to)
        };
        let kept = newest_that_fit(&parts);
        let from = kept.first().map_or(to.next(), |part| part.first);
        let mut entries = Vec::new();
        for part in kept {
            part.write(reader, shard, &mut entries)?;
        }
        let head = self.head(grant, (from, to), oldest);
        let flags = if from <= oldest { Flags::LAST } else { Flags::NONE };
        let mut frame = vec![0; frame_bytes::<HistoryPage>(entries.len())];
        encode(Kind::History, flags, &head, &entries, &mut frame);
        Ok(frame.into())
    }

    fn head(
        &self,
        grant: &Grant,
        (from, to): (MessageId, MessageId),
        oldest: MessageId,
    ) -> HistoryPage {
        let code = if oldest <= MessageId(1) {
            NO_CODE
        } else if grant.from > grant.visible_from {
            Code::Expired
        } else {
            Code::NotVisible
        };
        HistoryPage {
            channel: self.channel,
            before: self.before.into(),
            from: from.into(),
            to: to.into(),
            oldest: oldest.into(),
            newest: grant.to.into(),
            incarnation: grant.incarnation.into(),
            code: code.0.into(),
            reserved: 0.into(),
        }
    }
}

/// What a page says of the ids behind `after`, up to `to`.
fn parts(page: &Page, after: MessageId, to: MessageId) -> Vec<Part> {
    let mut told = after;
    let mut parts = Vec::with_capacity(HISTORY_IDS_MAX as usize);
    for item in page.items() {
        let first = told.next();
        if first > to {
            break; // a page may know more of what is lost
        }
        let part = match item {
            Item::Message { at, bytes } => Part { first, last: first, at, bytes, code: NO_CODE },
            Item::Gap { to: last, code } => {
                Part { first, last: last.min(to), at: Offset::NONE, bytes: 0, code }
            }
        };
        told = part.last;
        parts.push(part);
    }
    parts
}

/// As many of the last parts as fit a frame: at least one.
fn newest_that_fit(parts: &[Part]) -> &[Part] {
    let mut room = PAYLOAD_BYTES_MAX - size_of::<HistoryPage>();
    let fits = |part: &&Part| {
        let left = room.checked_sub(size_of::<HistoryEntry>() + part.bytes as usize);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let count = parts.iter().rev().take_while(fits).count();
    &parts[parts.len() - count..]
}

impl Part {
    fn write<R: Reader>(
        &self,
        reader: &mut R,
        shard: ShardId,
        entries: &mut Vec<u8>,
    ) -> Result<(), Offset> {
        let ids = u32::try_from(self.last.0 + 1 - self.first.0).expect("a page is short");
        let bytes = u16::try_from(self.bytes).expect("it fits a frame");
        let (ids, bytes, code) = (ids.into(), bytes.into(), self.code.0.into());
        entries.extend_from_slice(HistoryEntry { ids, bytes, code }.as_bytes());
        if self.code != NO_CODE {
            return Ok(());
        }
        let read = reader.with_record(shard, self.at, |record| {
            debug_assert!(record.body.len() >= size_of::<PushBody>(), "the page found a message");
            entries.extend_from_slice(record.body);
        });
        read.map_err(|_| self.at) // it went in between: the next look says why
    }
}
