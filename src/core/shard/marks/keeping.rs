//! Marks on disk: what was read is written down some seconds later, all marks of a user that
//! moved in one record. A crash takes back what was read in that time, nothing else. What was
//! delivered is written along and never by itself: devices tell it again.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use tern_protocol::{ChannelId, Uin};
use zerocopy::{FromBytes, IntoBytes};

use super::{Mark, Marks};
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::{AppendError, Links, Log, RecordKind};
use crate::progress::Progress;
use crate::shard::Shard;
use crate::shard::records::{MarkEntry, MarksHead};
use crate::shard::state::MarkRow;
use crate::time::Mono;

/// A mark that moved is written down after this time, in ms: what a crash may take back, against a
/// record for everybody who reads in it.
const KEPT_AFTER_MS: u64 = 5_000;

/// Marks in one record: 12 KB.
const MARKS_PER_RECORD: usize = 256;

/// Records that one shard writes in one turn.
const RECORDS_PER_TURN: usize = 64;

/// The change by which marks are said to have moved that were there before the start.
const CHANGED_BEFORE: u64 = 1;

/// What is still to be written down.
#[derive(Default)]
pub(super) struct Keeping {
    moved: FxHashMap<Uin, BTreeSet<ChannelId>>,
    /// Users with marks that moved, and when they are written down, in this order.
    due: VecDeque<(Mono, Uin)>,
    /// There was no room; nothing is written down before.
    paused_until: Mono,
}

impl Keeping {
    /// A mark moved.
    pub(super) fn note(&mut self, context: &Context<'_>, channel: ChannelId, uin: Uin) {
        let moved = self.moved.entry(uin).or_default();
        if moved.is_empty() {
            self.due.push_back((context.now.mono.after_ms(KEPT_AFTER_MS), uin));
        }
        moved.insert(channel);
    }

    /// When something is to be written down.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due.front().map(|(at, _)| self.paused_until.max(*at))
    }

    /// The next user whose marks are due, and some of them.
    fn next(&mut self, now: Mono) -> Option<(Uin, Vec<ChannelId>)> {
        let paused_until = self.paused_until;
        let (_, uin) = self.due.pop_front_if(|(at, _)| paused_until.max(*at) <= now)?;
        let moved = self.moved.get_mut(&uin).expect("a user in the queue has marks that moved");
        let cut = moved.iter().nth(MARKS_PER_RECORD).copied();
        let rest = cut.map(|first| moved.split_off(&first));
        let channels = std::mem::take(moved).into_iter().collect();
        match rest {
            Some(rest) => {
                *moved = rest;
                self.due.push_front((now, uin));
            }
            None => _ = self.moved.remove(&uin),
        }
        Some((uin, channels))
    }
}

impl Marks {
    /// Takes a record of marks; `None` if it contradicts itself.
    pub(in crate::shard) fn replay(&mut self, record: &[u8]) -> Option<()> {
        let (head, entries) = MarksHead::ref_from_prefix(record).ok()?;
        let entries = <[MarkEntry]>::ref_from_bytes(entries).ok()?;
        (head.uin.get() != 0).then_some(())?;
        entries.iter().try_for_each(|entry| self.put(head.uin.into(), entry))
    }

    /// Takes a row of a checkpoint; `None` if it contradicts itself.
    pub(in crate::shard) fn restore(&mut self, row: &MarkRow) -> Option<()> {
        let is_new = !self.own.contains_key(&(row.mark.channel, row.uin.into()));
        (is_new && row.uin.get() != 0).then_some(())?;
        self.put(row.uin.into(), &row.mark)
    }

    fn put(&mut self, uin: Uin, entry: &MarkEntry) -> Option<()> {
        let progress = Progress::from(*entry);
        let is_ordered = progress.shown <= progress.read && progress.read <= progress.delivered;
        (is_ordered && entry.channel.is_valid()).then_some(())?;
        self.own.insert((entry.channel, uin), Mark { progress, changed: CHANGED_BEFORE });
        self.changes = CHANGED_BEFORE;
        Some(())
    }

    /// All marks of users at home here, as rows of a checkpoint in their order.
    pub(in crate::shard) fn rows(&self) -> impl Iterator<Item = MarkRow> {
        self.own.iter().map(|((channel, uin), mark)| MarkRow {
            uin: (*uin).into(),
            mark: MarkEntry::new(*channel, mark.progress),
        })
    }
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Writes down what is due, a turn's worth.
    pub(super) fn keep_marks(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        for _ in 0..RECORDS_PER_TURN {
            let Some((uin, channels)) = self.marks.keeping.next(now) else { return };
            let head = MarksHead { uin: uin.into() };
            let mark = |channel: &ChannelId| {
                let mark = self.marks.own.get(&(*channel, uin))?;
                Some(MarkEntry::new(*channel, mark.progress))
            };
            let entries: Vec<MarkEntry> = channels.iter().filter_map(mark).collect();
            let body = [head.as_bytes(), entries.as_bytes()];
            match self.log.append(RecordKind::Read, Links::default(), &body) {
                Ok(_) => context.counters.marks_records += 1,
                Err(AppendError::Failed) => return, // nothing is written any more
                Err(AppendError::Full | AppendError::Busy) => {
                    let keeping = &mut self.marks.keeping;
                    keeping.paused_until = now.after_ms(KEPT_AFTER_MS);
                    channels.into_iter().for_each(|channel| keeping.note(context, channel, uin));
                    return;
                }
            }
        }
    }

    /// The server goes down in order: what is to be written down is due now.
    pub(crate) fn handle_drain(&mut self, context: &Context<'_>) {
        for (at, _) in &mut self.marks.keeping.due {
            *at = context.now.mono;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_many_marks_takes_several_records_and_none_is_forgotten() {
        let mut keeping = Keeping::default();
        let all: BTreeSet<ChannelId> = (1..=600).map(ChannelId::group).collect();
        keeping.moved.insert(Uin(1), all.clone());
        keeping.due.push_back((Mono(7), Uin(1)));
        assert!(keeping.next(Mono(6)).is_none(), "nothing is due");
        let mut kept = Vec::new();
        let mut sizes = Vec::new();
        while let Some((uin, channels)) = keeping.next(Mono(7)) {
            assert_eq!(uin, Uin(1));
            sizes.push(channels.len());
            kept.extend(channels);
        }
        assert_eq!(sizes, [256, 256, 88]);
        assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), all);
        assert!(keeping.moved.is_empty() && keeping.due.is_empty());
    }
}
