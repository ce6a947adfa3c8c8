//! Blocks: whom a user takes no messages from. A block is state of the shard that owns the direct
//! channel of the two, so it holds from the next message of that channel on, in the order of one
//! log, and for the first one too.
//!
//! Comes in: a user's wish, a question for all that it has blocked here. Goes out: answers, which
//! leave when what they rest on is durable. Worth naming: who is blocked is refused as if the
//! user did not exist, and so is told nothing else.

use std::collections::BTreeMap;
use std::ops::Bound;

use tern_protocol::frames::{block, message_kind};
use tern_protocol::limits::BLOCK_PAGE_UINS_MAX;
use tern_protocol::{ChannelId, Code, Uin};
use zerocopy::IntoBytes;

use super::Shard;
use super::chat::{Offer, refusal};
use super::records::BlockBody;
use super::state::BlockRow;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::{Links, Log, Offset, RecordKind};
use crate::mail::{Address, BlockWish, BlockedPart, Mail, SessionRef};
use crate::progress::MarksMail;

/// Said of a log that failed; an operator is needed, so the client waits for some seconds.
const STOPPED: (Code, u32) = (Code::ShardStopped, 5_000);

/// The blocks of one shard.
#[derive(Default)]
pub(super) struct Blocks {
    /// Blocker and blocked, and where the record is, if it was appended since the start.
    all: BTreeMap<(Uin, Uin), Offset>,
    /// The newest change of any.
    changed_at: Offset,
    /// Answers that rest on a record which is not durable yet.
    promises: Vec<(Offset, Answer)>,
}

impl Blocks {
    /// Takes a row of a checkpoint; `None` if it contradicts itself.
    pub(super) fn restore(&mut self, row: &BlockRow) -> Option<()> {
        let pair = (Uin::from(row.blocker), Uin::from(row.blocked));
        is_pair(pair).then_some(())?;
        self.all.insert(pair, Offset::NONE).is_none().then_some(())
    }

    /// Takes a record of the log; `None` if it makes no sense.
    pub(super) fn replay(&mut self, body: &BlockBody) -> Option<()> {
        let pair = (Uin::from(body.blocker), Uin::from(body.blocked));
        is_pair(pair).then_some(())?;
        match u8::try_from(body.action.get()).ok()? {
            block::BEGIN => _ = self.all.insert(pair, Offset::NONE),
            block::END => _ = self.all.remove(&pair),
            _ => return None,
        }
        Some(())
    }

    /// As rows of a checkpoint, in their order.
    pub(super) fn rows(&self) -> impl Iterator<Item = BlockRow> {
        let pairs = self.all.keys().filter(|_| !mutant!(BlockForgotten));
        pairs.map(|(blocker, blocked)| BlockRow {
            blocker: (*blocker).into(),
            blocked: (*blocked).into(),
        })
    }

    /// Whether a user blocks another.
    pub(super) fn holds(&self, blocker: Uin, blocked: Uin) -> bool {
        self.all.contains_key(&(blocker, blocked))
    }

    /// Whom a user has blocked, above a uin.
    fn of(&self, blocker: Uin, after: Uin) -> impl Iterator<Item = Uin> {
        let end = (blocker, Uin(u64::MAX));
        let range = (Bound::Excluded((blocker, after)), Bound::Included(end));
        // A range may not begin behind its end.
        let is_one = after < end.1;
        let found = is_one.then(|| self.all.range(range)).into_iter().flatten();
        found.map(|((_, blocked), _)| *blocked)
    }
}

/// An answer that rests on a record.
enum Answer {
    Done { to: SessionRef, wish: BlockWish },
    Part { to: SessionRef, part: Box<BlockedPart> },
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Where it was written that the other user of a direct channel blocks the sender of this;
    /// `None` if it is not so. A recall only takes away, so it is let through.
    pub(super) fn blocked_at(&self, offer: &Offer) -> Option<Offset> {
        let (head, sender) = (offer.view().0, offer.device.uin);
        if mutant!(BlockIgnored) {
            return None;
        }
        let peer = head.channel.peer_of(sender).filter(|_| head.kind != message_kind::RECALL)?;
        self.blocks.all.get(&(peer, sender)).copied()
    }

    /// A user blocks another, or does so no more.
    pub(super) fn handle_block(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        wish: BlockWish,
    ) {
        let done = Answer::Done { to, wish };
        match self.change_block(context, wish) {
            Ok(at) => self.promise(context, at, done),
            Err(refused) => done.send(context, Some(refused)),
        }
    }

    /// Does what is wished, if it is not so already; tells the place of the record that says so.
    fn change_block(
        &mut self,
        context: &mut Context<'_>,
        wish: BlockWish,
    ) -> Result<Offset, (Code, u32)> {
        let pair = (wish.blocker, wish.blocked);
        if self.stopped {
            return Err(STOPPED);
        }
        if self.blocks.all.contains_key(&pair) == wish.begins {
            return Ok(self.blocks.changed_at);
        }
        let own = self.blocks.of(wish.blocker, Uin(0)).count();
        if wish.begins && own >= context.config.blocks_per_user {
            return Err((Code::BlocksFull, 0));
        }
        let action = if wish.begins { block::BEGIN } else { block::END };
        let body = BlockBody {
            blocker: wish.blocker.into(),
            blocked: wish.blocked.into(),
            server_time: context.now.wall.into(),
            action: u32::from(action).into(),
            reserved: 0.into(),
        };
        let appended = self.log.append(RecordKind::Block, Links::default(), &[body.as_bytes()]);
        let at = appended.map_err(refusal)?;
        if wish.begins {
            self.blocks.all.insert(pair, at);
        } else {
            self.blocks.all.remove(&pair);
            ask_marks(context, wish);
        }
        self.blocks.changed_at = at;
        context.counters.blocks += 1;
        Ok(at)
    }

    /// A user asks whom it has blocked: this shard's part of a page.
    pub(super) fn handle_ask_blocked(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        blocker: Uin,
        after: Uin,
    ) {
        let mut rest = self.blocks.of(blocker, after);
        let uins: Vec<Uin> = rest.by_ref().take(BLOCK_PAGE_UINS_MAX).collect();
        let more = rest.next().is_some();
        drop(rest);
        let part = Box::new(BlockedPart { after, uins, more });
        self.promise(context, self.blocks.changed_at, Answer::Part { to, part });
    }

    /// Sends this when the record at `at` is durable.
    fn promise(&mut self, context: &mut Context<'_>, at: Offset, answer: Answer) {
        if self.is_proven(at) || mutant!(BlockUnproven) {
            answer.send(context, None);
        } else if self.stopped {
            answer.send(context, Some(STOPPED));
        } else {
            self.blocks.promises.push((at, answer));
        }
    }

    /// Sends the answers that the newest proof covers.
    pub(super) fn settle_blocks(&mut self, context: &mut Context<'_>) {
        let proof = self.proof;
        for (_, answer) in self.blocks.promises.extract_if(.., |(at, _)| proof.covers(*at)) {
            answer.send(context, None);
        }
    }

    /// The log failed: no answer that rests on it can be given.
    pub(super) fn refuse_blocks(&mut self, context: &mut Context<'_>) {
        for (_, answer) in std::mem::take(&mut self.blocks.promises) {
            answer.send(context, Some(STOPPED));
        }
    }
}

impl Answer {
    /// Sends it, or in its place why it can't be given, and when to ask again in ms.
    fn send(self, context: &mut Context<'_>, refused: Option<(Code, u32)>) {
        let (worker, mail) = match self {
            Self::Done { to, wish } => (to.worker, Mail::BlockDone { to, wish, refused }),
            Self::Part { to, part } => {
                let part = refused.map_or(Ok(part), |(code, _)| Err(code));
                (to.worker, Mail::BlockedPart { to, part })
            }
        };
        context.post.send(context.counters, Address::Front(worker), mail);
    }
}

/// A block ended: who was blocked is told how far the other has got meanwhile.
fn ask_marks(context: &mut Context<'_>, wish: BlockWish) {
    let BlockWish { blocker, blocked, .. } = wish;
    let placement = context.placement;
    let channels = vec![ChannelId::direct(blocker, blocked)];
    let ask = MarksMail::AskPeers { from: placement.home_of(blocked), uin: blocked, channels };
    context.post.send(
        context.counters,
        Address::Shard(placement.home_of(blocker)),
        Mail::Marks(ask),
    );
}

/// Two users that one block can be about.
fn is_pair((blocker, blocked): (Uin, Uin)) -> bool {
    blocker != blocked && blocker.0 != 0 && blocked.0 != 0
}
