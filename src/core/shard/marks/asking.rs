//! What a session asks for as it begins: all marks of its user that changed, and from then on
//! those that move. The other side's marks are asked for at their home shards as well: hints may
//! have been lost, and after a start nothing is known of them here.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound;

use tern_protocol::{ChannelId, Uin};

use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;
use crate::mail::{Address, Grant, Mail};
use crate::placement::ShardId;
use crate::progress::{MarkOf, MarksMail, MarksQuestion, Progress};
use crate::shard::Shard;
use crate::shard::marks::{Marks, Tell};

/// The change by which marks are said to have moved that never did: who knows nothing is told of
/// them, and so of each channel.
const CHANGED_NEVER: u64 = 1;

/// Channels of a user that are looked at for one page: at most twice as many marks.
const CHANNELS_PER_PAGE: usize = 128;

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A session asks for a page of marks.
    pub(super) fn handle_ask_marks(&mut self, context: &mut Context<'_>, question: MarksQuestion) {
        let (from, uin) = (question.from, question.device.uin);
        if question.after.is_none() {
            self.listen_to_marks(question);
        }
        let Some(user) = self.home.users.get(&uin).filter(|user| user.is_session(from)) else {
            return; // fenced meanwhile; the news is on its way
        };
        let knows = question.life == self.marks.life;
        let since = if knows { question.since } else { 0 };
        let begin = question.after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = user.channels.range((begin, Bound::Unbounded)).map(|(channel, _)| *channel);
        let page: Vec<ChannelId> = page.take(CHANNELS_PER_PAGE).collect();
        let mut marks = Vec::new();
        let mut elsewhere: BTreeMap<ShardId, Vec<ChannelId>> = BTreeMap::new();
        for channel in page.iter().copied() {
            if let Some(peer) = channel.peer_of(uin).filter(|peer| *peer != uin) {
                elsewhere.entry(context.placement.home_of(peer)).or_default().push(channel);
            }
            let Some(grant) = self.home.grant(channel, uin) else { continue };
            let own = self.marks.own_mark(channel, uin, &grant);
            let own = own.unwrap_or_else(|| nothing_read(channel, uin, &grant));
            let both = iter::once(own).chain(self.marks.peer_mark(channel, uin, &grant));
            marks.extend(both.filter(|(_, changed)| *changed > since).map(|(mark, _)| mark));
        }
        let next = MarksQuestion {
            life: self.marks.life,
            as_of: question.as_of.or(Some(self.marks.changes)),
            after: page.last().copied(),
            since,
            ..question
        };
        let more = page.len() == CHANNELS_PER_PAGE;
        let mail = Mail::Marks(MarksMail::Page { next, more, marks });
        context.post.send(context.counters, Address::Front(from.worker), mail);
        for (home, channels) in elsewhere {
            let mail = Mail::Marks(MarksMail::AskPeers { from: self.id, uin, channels });
            context.post.send(context.counters, Address::Shard(home), mail);
        }
    }

    fn listen_to_marks(&mut self, question: MarksQuestion) {
        let (uin, from) = (question.device.uin, question.from);
        let Some(user) = self.home.users.get(&uin).filter(|user| user.is_session(from)) else {
            return;
        };
        let listeners = self.marks.listeners.entry(uin).or_default();
        listeners.retain(|listener| *listener != from && user.is_session(*listener));
        listeners.push(from);
    }

    /// A home shard asks how far users here have got in their channels with one of its own.
    pub(super) fn handle_ask_peers(
        &mut self,
        context: &mut Context<'_>,
        from: ShardId,
        uin: Uin,
        channels: &[ChannelId],
    ) {
        let mut by_shard: BTreeMap<ShardId, Vec<MarkOf>> = BTreeMap::new();
        for mark in channels.iter().filter_map(|channel| self.mark_for_peer(*channel, uin)) {
            let shard = context.placement.shard_of_channel(mark.channel);
            by_shard.entry(shard).or_default().push(mark);
        }
        for (shard, marks) in by_shard {
            let mail = Mail::Marks(MarksMail::TellPeers { to: from, marks });
            context.post.send(context.counters, Address::Shard(shard), mail);
        }
    }

    /// How far the other user of a direct channel, who is at home here, has got. What is asked
    /// before it is known how much he may read is told once that is.
    fn mark_for_peer(&mut self, channel: ChannelId, uin: Uin) -> Option<MarkOf> {
        let whose = channel.peer_of(uin)?;
        let Some(grant) = self.home.grant(channel, whose) else {
            self.marks.ask_early(channel, whose);
            return None;
        };
        let (mark, _) = self.marks.own_mark(channel, whose, &grant)?;
        Some(MarkOf { progress: mark.progress.for_others(), ..mark })
    }
}

impl Marks {
    fn ask_early(&mut self, channel: ChannelId, whose: Uin) {
        if self.own.contains_key(&(channel, whose)) {
            self.asked_early.insert((channel, whose));
        }
    }

    /// It is known now how much a user may read of a direct channel: after a start the other side
    /// may have asked before.
    pub(in crate::shard) fn granted(&mut self, channel: ChannelId, whose: Uin) {
        if self.asked_early.remove(&(channel, whose)) {
            self.tell(Tell::Peer(channel, whose));
        }
    }
}

fn nothing_read(channel: ChannelId, uin: Uin, grant: &Grant) -> (MarkOf, u64) {
    let progress = Progress::default().within(grant);
    (MarkOf { channel, uin, progress }, CHANGED_NEVER)
}
