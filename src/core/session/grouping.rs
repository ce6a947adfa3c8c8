//! A member's questions about a group: one page at a time, from the channel's shard.

use bytes::Bytes;
use tern_protocol::frames::GroupInfo;
use tern_protocol::{ChannelId, Code, Flags, Kind};

use super::State;
use super::front::{Front, Verdict, error};
use crate::context::Context;
use crate::io::{Effect, LinkId};
use crate::log::Reader;
use crate::mail::{Address, Mail, SessionRef};

impl<R: Reader> Front<R> {
    /// The device asks who is in a group.
    pub(super) fn group_info(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        info: &GroupInfo,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let (channel, after) = (info.channel, info.after.into());
        let refused = if live.asks_group {
            Some(Code::Busy)
        } else if !channel.is_group() {
            Some(Code::NotAMember)
        } else {
            let mail = Mail::GroupInfo { from, device: live.device, channel, after };
            let shard = Address::Shard(context.placement.shard_of_channel(channel));
            context.post.request(context.counters, shard, mail).err().map(|_| Code::Busy)
        };
        if let Some(code) = refused {
            context.counters.frames_refused += 1;
            error(context, link, code, Kind::GroupInfo, Flags::NONE);
        } else {
            live.asks_group = true;
        }
        Ok(())
    }

    /// The channel's shard answers.
    pub(super) fn group_page(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        channel: ChannelId,
        page: Result<Bytes, Code>,
    ) {
        self.send_answered(context, channel);
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        live.asks_group = false;
        match page {
            Ok(frame) => context.effect(Effect::Whole(to.link, frame)),
            Err(code) => {
                context.counters.frames_refused += 1;
                error(context, to.link, code, Kind::GroupInfo, Flags::NONE);
            }
        }
    }
}
