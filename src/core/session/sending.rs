//! A device's messages: may it send this, now? Then to the channel's shard, and the answer back.

use bytes::Bytes;
use tern_protocol::frames::{Send, SendRefused, message_kind};
use tern_protocol::{ChannelId, Code, SendKey};

use super::front::{Front, Verdict};
use super::{Live, State};
use crate::context::Context;
use crate::io::{Effect, LinkId, Outgoing};
use crate::limiter::Rate;
use crate::log::Reader;
use crate::mail::{Address, Mail, SessionRef};
use crate::shard::DurableAck;

/// Version of a message's body that this server keeps.
const BODY_VERSION: u8 = 1;

/// Asked of a client when a queue is full, in ms: some turns of the loop.
const RETRY_SOON_MS: u32 = 50;

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
        if let Err((code, retry_after_ms)) = live.admit(context, head, content) {
            self.refuse_send(context, link, channel, key, code, retry_after_ms);
            return Ok(());
        }
        let mail =
            Mail::Send { from, device: live.device, epoch: live.epoch, frame: frame.clone() };
        let shard = Address::Shard(context.placement.shard_of_channel(channel));
        if context.post.request(context.counters, shard, mail).is_err() {
            live.sends.refund(sending_rate(context));
            self.refuse_send(context, link, channel, key, Code::Busy, RETRY_SOON_MS);
        }
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
            live.sends.refund(sending_rate(context));
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
        code: Code,
        retry_after_ms: u32,
    ) {
        if !self.sessions.contains_key(&link) {
            return;
        }
        match code.class() {
            tern_protocol::Class::Retry => context.counters.sends_refused_retry += 1,
            _ => context.counters.sends_refused_final += 1,
        }
        let refused = SendRefused {
            channel,
            epoch: key.epoch.into(),
            counter: key.counter.into(),
            code: code.0.into(),
            member: 0.into(),
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
        if head.kind != message_kind::CONTENT || head.version != BODY_VERSION {
            return Err((Code::KindUnknown, 0));
        }
        if content.len() > context.config.content_bytes_max as usize {
            return Err((Code::ContentTooLong, 0));
        }
        if head.channel.peer_of(self.device.uin).is_none() {
            return Err((Code::NotAMember, 0));
        }
        let taken = self.sends.take(context.now.mono, sending_rate(context));
        taken.map_err(|wait_ms| (Code::RateLimited, wait_ms))
    }
}

fn sending_rate(context: &Context<'_>) -> Rate {
    Rate::new(context.config.sends_per_second, 1_000, context.config.sends_burst)
}
