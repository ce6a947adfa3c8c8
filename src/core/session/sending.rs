//! A device's messages: may it send this, now? Then to the channel's shard, and the answer back.

use bytes::Bytes;
use tern_protocol::frames::{Send, SendRefused, action, content_type, message_kind};
use tern_protocol::group::{self, ChangeView};
use tern_protocol::{ChannelId, Code, SendKey};

use super::front::{Front, Verdict};
use super::{Live, State};
use crate::context::Context;
use crate::io::{Effect, LinkId, Outgoing};
use crate::log::Reader;
use crate::mail::{Address, Mail, SessionRef};
use crate::moments::Happened;
use crate::shard::DurableAck;

/// Version of a message's body that this server keeps.
const BODY_VERSION: u8 = 1;

/// Asked of a client when a queue is full, in ms: some turns of the loop.
const RETRY_SOON_MS: u32 = 50;

/// Why a message was not accepted.
pub(super) struct Refusal {
    pub(super) code: Code,
    /// Which of the users named by a change the code is about, from 1; 0 for none.
    pub(super) member: u16,
    /// For codes of class retry.
    pub(super) retry_after_ms: u32,
}

impl<R: Reader> Front<R> {
    pub(super) fn send(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        head: &Send,
        content: &[u8],
        frame: &Bytes,
    ) -> Verdict {
        context.counters.sends += 1;
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let (channel, key) = (head.channel, head.key());
        context.moments.note(channel, live.device, Happened::Received(key));
        if let Err((code, retry_after_ms)) = live.admit(context, head, content) {
            let refusal = Refusal { code, member: 0, retry_after_ms };
            self.refuse_send(context, link, channel, key, refusal);
            return Ok(());
        }
        let mail =
            Mail::Send { from, device: live.device, epoch: live.epoch, frame: frame.clone() };
        let shard = Address::Shard(context.placement.shard_of_channel(channel));
        if context.post.request(context.counters, shard, mail).is_err() {
            live.sending.refund(context);
            let refusal = Refusal { code: Code::Busy, member: 0, retry_after_ms: RETRY_SOON_MS };
            self.refuse_send(context, link, channel, key, refusal);
        }
        self.tell_sent(context, link);
        Ok(())
    }

    /// The channel's shard has the message, durably.
    pub(super) fn acked(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        ack: DurableAck,
        duplicate: bool,
    ) {
        self.send_answered(context, ack.frame().channel);
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        if let State::Live(live) = &mut session.state
            && duplicate
        {
            live.sending.refund(context);
            let (channel, id) = (ack.frame().channel, ack.frame().id.into());
            context.moments.note(channel, live.device, Happened::Repeated(id));
            self.tell_sent(context, to.link);
        }
        context.counters.acks += 1;
        context.effect(Effect::Frame(to.link, Outgoing::SendAck(ack.frame())));
    }

    /// A request to the channel's shard has its answer.
    pub(super) fn send_answered(&mut self, context: &mut Context<'_>, channel: ChannelId) {
        let shard = Address::Shard(context.placement.shard_of_channel(channel));
        context.post.answered(shard);
    }

    pub(super) fn refuse_send(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        channel: ChannelId,
        key: SendKey,
        Refusal { code, member, retry_after_ms }: Refusal,
    ) {
        let Some(session) = self.sessions.get(&link) else { return };
        context.moments.note(channel, session.device(), Happened::Refused(key, code));
        match code.class() {
            tern_protocol::Class::Retry => context.counters.sends_refused_retry += 1,
            _ => context.counters.sends_refused_final += 1,
        }
        let refused = SendRefused {
            channel,
            epoch: key.epoch.into(),
            counter: key.counter.into(),
            code: code.0.into(),
            member: member.into(),
            retry_after_ms: retry_after_ms.into(),
        };
        context.effect(Effect::Frame(link, Outgoing::SendRefused(refused)));
    }
}

impl Live {
    /// Whether the message may go on its way, before its shard has seen it.
    fn admit(
        &mut self,
        context: &Context<'_>,
        head: &Send,
        content: &[u8],
    ) -> Result<(), (Code, u32)> {
        let key = head.key();
        if key.epoch.0 == 0 || key.counter.0 == 0 || head.predecessor.get() >= key.counter.0 {
            return Err((Code::KeyInvalid, 0));
        }
        if key.epoch > self.epoch {
            return Err((Code::KeyAhead, 0));
        }
        let is_change = head.kind == message_kind::CHANGE;
        let known = message_kind::CONTENT..=message_kind::EDIT;
        if !known.contains(&head.kind) || head.version != BODY_VERSION {
            return Err((Code::KindUnknown, 0));
        }
        if !is_change && content.len() > context.config.content_bytes_max as usize {
            return Err((Code::ContentTooLong, 0));
        }
        if !head.channel.is_group() && head.channel.peer_of(self.device.uin).is_none() {
            return Err((Code::NotAMember, 0));
        }
        if is_change && !self.is_change_of(head, content) {
            return Err((Code::ChangeInvalid, 0));
        }
        if !is_reference_valid(head, content) {
            return Err((Code::ReferenceInvalid, 0));
        }
        self.sending.take(context, key)
    }

    /// Whether the content is a change that makes sense, and if it makes a group, of the one that
    /// its key stands for.
    fn is_change_of(&self, head: &Send, content: &[u8]) -> bool {
        let Some(change) = ChangeView::parse(content).filter(ChangeView::is_valid) else {
            return false;
        };
        let own = || group::channel_of(self.device.uin, self.device.device, head.key());
        head.channel.is_group()
            && head.content_type.get() == content_type::OPAQUE
            && head.refers_to.get() == 0
            && (change.head.action != action::CREATE || head.channel == own())
    }
}

/// Whether a recall or an edit is one: both name a message, and a recall says nothing else.
fn is_reference_valid(head: &Send, content: &[u8]) -> bool {
    match head.kind {
        message_kind::RECALL => {
            let is_empty = content.is_empty() && head.content_type.get() == content_type::OPAQUE;
            is_empty && head.refers_to.get() != 0
        }
        message_kind::EDIT => head.refers_to.get() != 0,
        _ => true,
    }
}
