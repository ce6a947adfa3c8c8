//! Whom the device's user blocks: wishes go to the shard of the two users' direct channel, a
//! question for all of them to every shard, since each knows its own. One wish or one question is
//! under way at a time.

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{Block, BlockList, BlockPage, Blocked, block};
use tern_protocol::limits::BLOCK_PAGE_UINS_MAX;
use tern_protocol::{ChannelId, Code, Flags, Kind, Uin};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::State;
use super::front::{Front, Verdict, error};
use crate::context::Context;
use crate::io::{Effect, LinkId, Outgoing};
use crate::log::Reader;
use crate::mail::{Address, BlockWish, BlockedPart, Mail, SessionRef};
use crate::placement::ShardId;

/// Asked of a client whose wish comes before the answer to the one before, in ms.
const RETRY_AFTER_MS: u32 = 50;

/// What a session waits for.
#[derive(Default)]
pub(super) enum Blocking {
    #[default]
    Nothing,
    /// The answer to a wish.
    Wish,
    /// The parts of a page.
    Page(Box<Gathering>),
}

/// A page that shards are asked for.
pub(super) struct Gathering {
    after: Uin,
    /// Shards that have not answered.
    awaited: u16,
    uins: Vec<Uin>,
    more: bool,
    refused: Option<Code>,
}

impl<R: Reader> Front<R> {
    /// The user blocks another, or does so no more.
    pub(super) fn block(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        asked: &Block,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let (blocker, blocked) = (live.device.uin, Uin::from(asked.uin));
        let is_valid = [block::BEGIN, block::END].contains(&asked.action);
        let refused = if !is_valid || blocked == blocker || blocked.0 == 0 {
            Some((Code::BlockInvalid, 0))
        } else if !matches!(live.blocking, Blocking::Nothing) {
            Some((Code::Busy, RETRY_AFTER_MS))
        } else {
            None
        };
        if refused.is_some() {
            context.counters.frames_refused += 1;
            answer(context, link, (asked.uin, asked.action), refused);
            return Ok(());
        }
        live.blocking = Blocking::Wish;
        let wish = BlockWish { blocker, blocked, begins: asked.action == block::BEGIN };
        let channel = ChannelId::direct(blocker, blocked);
        let shard = Address::Shard(context.placement.shard_of_channel(channel));
        context.post.send(context.counters, shard, Mail::Block { from, wish });
        Ok(())
    }

    /// The channel's shard answers.
    pub(super) fn block_done(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        wish: BlockWish,
        refused: Option<(Code, u32)>,
    ) {
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        live.blocking = Blocking::Nothing;
        let action = if wish.begins { block::BEGIN } else { block::END };
        answer(context, to.link, (wish.blocked.into(), action), refused);
    }

    /// The device asks whom its user has blocked.
    pub(super) fn block_list(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        asked: &BlockList,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        if !matches!(live.blocking, Blocking::Nothing) {
            context.counters.frames_refused += 1;
            error(context, link, Code::Busy, Kind::BlockList, Flags::NONE);
            return Ok(());
        }
        let (blocker, after) = (live.device.uin, Uin::from(asked.after));
        let awaited = context.placement.shards();
        let (uins, more, refused) = (Vec::new(), false, None);
        let page = Gathering { after, awaited, uins, more, refused };
        live.blocking = Blocking::Page(Box::new(page));
        for shard in (0..awaited).map(ShardId) {
            let mail = Mail::AskBlocked { from, blocker, after };
            context.post.send(context.counters, Address::Shard(shard), mail);
        }
        Ok(())
    }

    /// A shard has said its part of a page; the last one completes it.
    pub(super) fn blocked_part(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        part: Result<Box<BlockedPart>, Code>,
    ) {
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        let Blocking::Page(page) = &mut live.blocking else { return };
        page.take(part);
        if page.awaited > 0 {
            return;
        }
        match page.refused {
            None => context.effect(Effect::Whole(to.link, page.frame())),
            Some(code) => {
                context.counters.frames_refused += 1;
                error(context, to.link, code, Kind::BlockList, Flags::NONE);
            }
        }
        live.blocking = Blocking::Nothing;
    }
}

impl Gathering {
    fn take(&mut self, part: Result<Box<BlockedPart>, Code>) {
        self.awaited -= 1;
        match part {
            Ok(part) => {
                debug_assert_eq!(part.after, self.after, "one question is under way");
                self.uins.extend(part.uins);
                self.more |= part.more;
            }
            Err(code) => self.refused = Some(code),
        }
    }

    /// The BLOCK_PAGE. Each shard gave its first ones, so the first of all are among them.
    fn frame(&mut self) -> Bytes {
        self.uins.sort_unstable();
        let is_last = !self.more && self.uins.len() <= BLOCK_PAGE_UINS_MAX;
        let uins: Vec<U64> =
            self.uins.iter().take(BLOCK_PAGE_UINS_MAX).map(|uin| U64::new(uin.0)).collect();
        let head = BlockPage { after: self.after.into() };
        let flags = if is_last { Flags::LAST } else { Flags::NONE };
        let mut frame = vec![0; frame_bytes::<BlockPage>(size_of_val(&uins[..]))];
        encode(Kind::BlockPage, flags, &head, uins.as_bytes(), &mut frame);
        frame.into()
    }
}

fn answer(
    context: &mut Context<'_>,
    link: LinkId,
    (uin, action): (U64, u8),
    refused: Option<(Code, u32)>,
) {
    let (code, retry_after_ms) = refused.map_or((0, 0), |(code, ms)| (code.0, ms));
    let blocked = Blocked {
        uin,
        action,
        reserved: 0,
        code: code.into(),
        retry_after_ms: retry_after_ms.into(),
    };
    context.effect(Effect::Frame(link, Outgoing::Blocked(blocked)));
}
