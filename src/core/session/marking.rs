//! How far the device's user has got, and what a session is told of how far others have.
//!
//! Comes in: READ, MARKS_ASK, RECEIPTS_ASK; what the device acknowledges. Goes out: hints to the
//! user's home shard, MARKS to who asked for them, RECEIPTS. Worth naming: the home shard is told
//! only of what this session was shown.

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{Mark, Marks, MarksAsk, ReadMark, ReceiptsAsk};
use tern_protocol::limits::MARKS_PER_FRAME_MAX;
use tern_protocol::{ChannelId, Code, Flags, Kind, MessageId};
use zerocopy::IntoBytes;

use super::front::{Front, Verdict, error};
use super::{Live, State};
use crate::context::Context;
use crate::io::{Effect, LinkId};
use crate::log::Reader;
use crate::mail::{Address, Mail, SessionRef};
use crate::progress::{MarkOf, MarksMail, MarksQuestion, Progress};

/// What a session has under way about marks.
#[derive(Default)]
pub(super) struct Marking {
    /// Whether an answer to MARKS_ASK is under way.
    asks_marks: bool,
    /// Whether an answer to RECEIPTS_ASK is.
    asks_receipts: bool,
}

impl<R: Reader> Front<R> {
    /// The user has read each channel up to an id. One error answers all entries of the frame
    /// that name a channel this session was not shown.
    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        list: &[ReadMark],
    ) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let mut is_refused = false;
        for mark in list {
            let Some(grant) = live.delivery.grant(mark.channel) else {
                is_refused = true;
                continue;
            };
            let (id, incarnation) = (mark.id.into(), mark.incarnation.into());
            let progress = Progress::read(id, incarnation, mark.quiet != 0).within(grant);
            live.tell_progress(context, mark.channel, progress);
        }
        if is_refused {
            context.counters.frames_refused += 1;
            error(context, link, Code::NotGranted, Kind::Read, Flags::NONE);
        }
        Ok(())
    }

    /// The device wants to know the marks of its user and of those he writes to.
    pub(super) fn marks_ask(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        ask: &MarksAsk,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        if std::mem::replace(&mut live.marking.asks_marks, true) {
            context.counters.frames_refused += 1;
            error(context, link, Code::Busy, Kind::MarksAsk, Flags::NONE);
            return Ok(());
        }
        let (life, since) = (ask.life.get(), ask.since.get());
        let device = live.device;
        let question = MarksQuestion { from, device, life, since, as_of: None, after: None };
        ask_home(context, question);
        Ok(())
    }

    /// The device asks how many have a message of a group.
    pub(super) fn receipts_ask(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        ask: &ReceiptsAsk,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let (channel, id) = (ask.channel, ask.id.into());
        let refused = if live.marking.asks_receipts {
            Some(Code::Busy)
        } else if !channel.is_group() {
            Some(Code::NotAMember)
        } else {
            let device = live.device;
            let mail = Mail::Marks(MarksMail::AskReceipts { from, device, channel, id });
            let shard = Address::Shard(context.placement.shard_of_channel(channel));
            context.post.request(context.counters, shard, mail).err().map(|_| Code::Busy)
        };
        if let Some(code) = refused {
            context.counters.frames_refused += 1;
            error(context, link, code, Kind::ReceiptsAsk, Flags::NONE);
        } else {
            live.marking.asks_receipts = true;
        }
        Ok(())
    }

    /// Mail about marks.
    pub(super) fn handle_marks_mail(&mut self, context: &mut Context<'_>, mail: MarksMail) {
        match mail {
            MarksMail::Mark { to, mark } => {
                if self.sessions.contains_key(&to.link) {
                    say_marks(context, to.link, (0, 0), &[mark], true);
                }
            }
            MarksMail::Page { next, more, marks } => self.marks_page(context, next, more, &marks),
            MarksMail::Receipts { to, channel, frame } => {
                self.receipts(context, to, channel, frame);
            }
            MarksMail::Seen { .. }
            | MarksMail::SeenAll { .. }
            | MarksMail::TellPeer { .. }
            | MarksMail::PeerSeen { .. }
            | MarksMail::Ask(_)
            | MarksMail::AskPeers { .. }
            | MarksMail::TellPeers { .. }
            | MarksMail::Peers { .. }
            | MarksMail::AskReceipts { .. }
            | MarksMail::Count(_)
            | MarksMail::Counted { .. } => {
                unreachable!("mail for a shard came to a front: {mail:?}")
            }
        }
    }

    /// A page of the marks that the session asked for.
    fn marks_page(
        &mut self,
        context: &mut Context<'_>,
        next: MarksQuestion,
        more: bool,
        marks: &[MarkOf],
    ) {
        let link = next.from.link;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let State::Live(live) = &mut session.state else { return };
        let as_of = next.as_of.expect("a page says what it is as of");
        if !more || !marks.is_empty() {
            say_marks(context, link, (next.life, as_of), marks, !more);
        }
        if more {
            ask_home(context, next);
        } else {
            live.marking.asks_marks = false;
        }
    }

    /// The group's shard answers.
    fn receipts(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        channel: ChannelId,
        frame: Result<Bytes, Code>,
    ) {
        self.send_answered(context, channel);
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        live.marking.asks_receipts = false;
        match frame {
            Ok(frame) => context.effect(Effect::Whole(to.link, frame)),
            Err(code) => {
                context.counters.frames_refused += 1;
                error(context, to.link, code, Kind::ReceiptsAsk, Flags::NONE);
            }
        }
    }
}

impl Live {
    /// The device has consumed more of a channel.
    pub(super) fn tell_delivered(&self, context: &mut Context<'_>, channel: ChannelId) {
        let Some((grant, id)) = self.delivery.grant(channel).zip(self.delivery.acked_to(channel))
        else {
            return;
        };
        let progress = Progress::delivered(id, grant.incarnation);
        self.tell_progress(context, channel, progress);
    }

    /// The same of all these channels, as a session begins.
    pub(super) fn tell_all_delivered(&self, context: &mut Context<'_>, channels: &[ChannelId]) {
        let progress = |channel: &ChannelId| {
            let channel = *channel;
            let id = self.delivery.acked_to(channel).filter(|id| *id > MessageId(0))?;
            let incarnation = self.delivery.grant(channel)?.incarnation;
            Some((channel, Progress::delivered(id, incarnation)))
        };
        let list: Vec<_> = channels.iter().filter_map(progress).collect();
        if !list.is_empty() {
            let uin = self.device.uin;
            let home = Address::Shard(context.placement.home_of(uin));
            let mail = Mail::Marks(MarksMail::SeenAll { uin, list });
            context.post.send(context.counters, home, mail);
        }
    }

    fn tell_progress(&self, context: &mut Context<'_>, channel: ChannelId, progress: Progress) {
        let uin = self.device.uin;
        let home = Address::Shard(context.placement.home_of(uin));
        let mail = Mail::Marks(MarksMail::Seen { uin, channel, progress });
        context.post.send(context.counters, home, mail);
    }
}

fn ask_home(context: &mut Context<'_>, question: MarksQuestion) {
    let home = Address::Shard(context.placement.home_of(question.device.uin));
    context.post.send(context.counters, home, Mail::Marks(MarksMail::Ask(question)));
}

/// Says marks in as many frames as they need, at least one; the last of an answer is marked.
fn say_marks(
    context: &mut Context<'_>,
    link: LinkId,
    (life, as_of): (u64, u64),
    marks: &[MarkOf],
    ends: bool,
) {
    context.counters.marks_told += marks.len() as u64;
    let head = Marks { life: life.into(), as_of: as_of.into() };
    let frames = marks.len().div_ceil(MARKS_PER_FRAME_MAX).max(1);
    for index in 0..frames {
        let rest = marks.iter().skip(index * MARKS_PER_FRAME_MAX).take(MARKS_PER_FRAME_MAX);
        let list: Vec<Mark> = rest.map(to_wire).collect();
        let is_last = ends && life != 0 && index + 1 == frames;
        let flags = if is_last { Flags::LAST } else { Flags::NONE };
        let mut frame = vec![0; frame_bytes::<Marks>(list.as_bytes().len())];
        encode(Kind::Marks, flags, &head, list.as_bytes(), &mut frame);
        context.effect(Effect::Whole(link, frame.into()));
    }
}

fn to_wire(mark: &MarkOf) -> Mark {
    Mark {
        channel: mark.channel,
        uin: mark.uin.into(),
        delivered: mark.progress.delivered.into(),
        read: mark.progress.read.into(),
        incarnation: mark.progress.incarnation.into(),
        reserved: 0.into(),
    }
}
