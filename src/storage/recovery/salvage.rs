//! What readers need to get past a record whose header is damaged: which channel it was of, and
//! where that channel goes on before it.
//!
//! Recovery knows that for the damage that it met (its tombstones). Damage that comes later, or
//! lies in segments whose records recovery did not read, is met by readers; then the log is
//! searched for whoever points to the damaged place, and the newest checkpoint for a channel whose
//! newest message stood there; a message that came after it, and to which nobody points yet, is
//! known to its reader. That reads much of the log, so it has a thread of its own, started when it
//! is needed first.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, unbounded};
use rustc_hash::FxHashMap;
use tern_core::io::ColdRecord;
use tern_core::log::{Links, Offset};
use tern_core::shard::state::{ChannelRow, StateKind};
use tern_protocol::ChannelId;
use tern_protocol::frames::PushBody;
use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::checkpoint::{Checkpoint, checkpoint_number};
use crate::disk::read_only;
use crate::format::{Bad, Content};
use crate::io::Warmed;
use crate::recovery::scan::{Steps, files, walk};
use crate::segment::{Segment, SegmentList};
use crate::shared::ShardShared;
use crate::steps::Step;

/// One place to be got past.
struct Job {
    shard: Arc<ShardShared>,
    record: ColdRecord,
    done: Warmed,
}

/// The way to who salvages.
pub(crate) struct Salvager {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    stop: Arc<AtomicBool>,
    hands: Hands,
}

/// Who does the work.
enum Hands {
    /// A thread, once there is any.
    Later(SalvageRun),
    Thread(JoinHandle<()>),
    /// Whoever has the [`SalvageRun`].
    Others,
    /// The system refused a thread.
    Nobody,
}

/// The work, one place at a time.
pub(crate) struct SalvageRun {
    jobs: Receiver<Job>,
    stop: Arc<AtomicBool>,
}

impl Salvager {
    /// One that starts a thread when it is needed first.
    #[expect(clippy::disallowed_methods, reason = "each session and shard waits for one read")]
    pub(crate) fn new() -> Self {
        let (jobs, todo) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let run = SalvageRun { jobs: todo, stop: Arc::clone(&stop) };
        Self { jobs: Some(jobs), stop, hands: Hands::Later(run) }
    }

    /// One whose work is done by who asks for it here.
    pub(crate) fn by_hand() -> (Self, SalvageRun) {
        let mut salvager = Self::new();
        match std::mem::replace(&mut salvager.hands, Hands::Others) {
            Hands::Later(run) => (salvager, run),
            _ => unreachable!("it has just been made"),
        }
    }

    /// Finds the way past a record; then calls `done`.
    pub(crate) fn salvage(&mut self, shard: &Arc<ShardShared>, record: ColdRecord, done: Warmed) {
        if matches!(self.hands, Hands::Later(_))
            && let Hands::Later(run) = std::mem::replace(&mut self.hands, Hands::Nobody)
        {
            let builder = thread::Builder::new().name("tern-salvage".into());
            let thread = builder.spawn(move || while run.wait() == Step::Worked {});
            self.hands = thread.map_or(Hands::Nobody, Hands::Thread);
        }
        if matches!(self.hands, Hands::Nobody) {
            // It stays out of reach, as if nobody knew anything of it.
            shard.bury(&record);
            return done();
        }
        let job = Job { shard: Arc::clone(shard), record, done };
        // When the thread has ended, so has the storage: nobody waits for an answer.
        let _ = self.jobs.as_ref().expect("it is not dropped yet").send(job);
    }
}

impl Drop for Salvager {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        if let Hands::Thread(thread) = std::mem::replace(&mut self.hands, Hands::Nobody) {
            // A panic has been printed; there is nothing to save here.
            let _ = thread.join();
        }
    }
}

impl SalvageRun {
    /// Waits for the next place, and does it.
    fn wait(&self) -> Step {
        self.jobs.recv().map_or(Step::Ended, |job| self.salvage(job))
    }

    /// Does the next place, if there is one.
    pub(crate) fn step(&self) -> Step {
        self.jobs.try_recv().map_or(Step::Idle, |job| self.salvage(job))
    }

    /// Whether a step would do something.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn salvage(&self, Job { shard, record, done }: Job) -> Step {
        if self.stop.load(Ordering::Relaxed) {
            return Step::Ended;
        }
        if is_out_of_reach(&shard, &record) {
            salvage(&shard, &record, &self.stop);
        }
        done();
        Step::Worked
    }
}

/// Whether its reader can't tell where to go on.
pub(crate) fn is_out_of_reach(shard: &ShardShared, record: &ColdRecord) -> bool {
    let (list, at) = (shard.segments.load(), record.at.0);
    if at >= shard.proven() || at < list.start() {
        return false;
    }
    if let Some(tombstone) = shard.tombstones.load().get(&at) {
        return record.channel.is_some() && !tombstone.has_channel;
    }
    match list.find(at) {
        Some(segment) if at >= segment.header.first() => {
            let bad = segment.parse(at).err();
            bad.is_some_and(|bad| !matches!(bad, Bad::Body(_)))
        }
        _ => true,
    }
}

fn salvage(shard: &ShardShared, record: &ColdRecord, stop: &AtomicBool) {
    let (list, at) = (shard.segments.load_full(), record.at.0);
    let range = damaged_around(&list, at);
    let mut channels = who_points_to(&list, &range, stop);
    if let Some(checkpoint) = newest_checkpoint(shard, &list) {
        note_spines(&checkpoint, &range, &mut channels);
    }
    if let Some(channel) = record.channel {
        channels.entry(at).or_insert(channel);
    }
    let before = newest_before(&list, &range, &channels, stop);
    let shard_id = shard.id.0;
    let (from, to, messages) = (range.start, range.end, channels.len());
    tracing::error!(shard_id, from, to, messages, "a part of the log can't be read any more");
    let mut tombstones = FxHashMap::clone(&shard.tombstones.load());
    for (at, channel) in &channels {
        let back = before.get(channel).copied().unwrap_or_default();
        let tombstone = tombstones.entry(*at).or_default();
        tombstone.links.channel = Offset(back);
        tombstone.has_channel = true;
    }
    tombstones.entry(at).or_default();
    shard.tombstones.store(Arc::new(tombstones));
}

/// The range without a valid header that a place lies in.
fn damaged_around(list: &SegmentList, at: u64) -> Range<u64> {
    let Some(segment) = list.find(at) else {
        let after = list.0.partition_point(|segment| segment.header.base <= at);
        let start = after.checked_sub(1).map_or(0, |before| list.0[before].header.end());
        let end = list.0.get(after).map_or(u64::MAX, |next| next.header.base);
        return start..end;
    };
    let alone = at..at + 1;
    let Ok(walked) = walk(segment, 0) else { return alone };
    if at >= walked.stop {
        return walked.stop..segment.header.end();
    }
    let gap = walked.gaps.iter().find(|gap| (gap.from..gap.to).contains(&at));
    gap.map_or(alone, |gap| gap.from..gap.to)
}

/// Places in the range that messages behind it point to, and the channel of each.
fn who_points_to(
    list: &SegmentList,
    range: &Range<u64>,
    stop: &AtomicBool,
) -> FxHashMap<u64, ChannelId> {
    let mut found = FxHashMap::default();
    for segment in list.0.iter().filter(|segment| segment.header.end() > range.start) {
        each_message(segment, stop, |_, channel, links| {
            for link in [links.channel, links.skip] {
                if range.contains(&link.0) {
                    found.insert(link.0, channel);
                }
            }
        });
    }
    found
}

/// The newest checkpoint that is good. What can't be read of one is no help, and no error here.
fn newest_checkpoint(shard: &ShardShared, list: &SegmentList) -> Option<Checkpoint> {
    let folder = list.0.first()?.header.folder;
    let numbered = |path: PathBuf| Some((checkpoint_number(&path)?, path));
    let mut paths: Vec<_> = files(&shard.dir).ok()?.into_iter().filter_map(numbered).collect();
    paths.sort();
    let good = |(_, path): (u64, PathBuf)| {
        let checkpoint = Checkpoint::open_any(read_only(&path).ok()?, &path).ok()?;
        let is_ours = (checkpoint.header.folder, checkpoint.header.shard) == (folder, shard.id.0);
        (is_ours && checkpoint.verify().is_ok()).then_some(checkpoint)
    };
    paths.into_iter().rev().find_map(good)
}

/// Places in the range to which no message need point, since they were the newest of their channel
/// when the checkpoint was made: its way back begins there.
fn note_spines(
    checkpoint: &Checkpoint,
    range: &Range<u64>,
    channels: &mut FxHashMap<u64, ChannelId>,
) {
    let read = checkpoint.rows(|kind, row| {
        if kind == StateKind::Channel
            && let Ok((row, spine)) = ChannelRow::ref_from_prefix(row)
            && let Ok(spine) = <[U64]>::ref_from_bytes(spine)
        {
            let within = spine.iter().map(|at| at.get()).filter(|at| range.contains(at));
            channels.extend(within.map(|at| (at, row.channel)));
        }
        Ok(())
    });
    // It was read through a moment ago; what goes bad in between is found out by somebody else.
    if let Err(error) = read {
        tracing::warn!("{error}");
    }
}

/// The newest readable message before the range, of each of these channels.
fn newest_before(
    list: &SegmentList,
    range: &Range<u64>,
    channels: &FxHashMap<u64, ChannelId>,
    stop: &AtomicBool,
) -> FxHashMap<ChannelId, u64> {
    let mut newest: FxHashMap<ChannelId, u64> =
        channels.values().map(|channel| (*channel, 0)).collect();
    for segment in list.0.iter().rev().filter(|segment| segment.header.base < range.start) {
        if newest.values().all(|at| *at != 0) {
            break;
        }
        let mut here = FxHashMap::default();
        each_message(segment, stop, |at, channel, _| {
            if at < range.start && newest.get(&channel) == Some(&0) {
                here.insert(channel, at);
            }
        });
        newest.extend(here);
    }
    newest
}

/// Every message of a segment that can be read. A place that the disk does not give ends it.
fn each_message(
    segment: &Segment,
    stop: &AtomicBool,
    mut visit: impl FnMut(u64, ChannelId, Links),
) {
    let Ok(walked) = walk(segment, 0) else { return };
    let (mut at, mut steps) = (segment.header.first(), Steps::new(segment));
    let mut gaps = walked.gaps.iter().peekable();
    while at < walked.stop && !stop.load(Ordering::Relaxed) && steps.reach(at).is_ok() {
        if let Some(gap) = gaps.next_if(|gap| gap.from == at) {
            at = gap.to;
            continue;
        }
        let Ok((len, content)) = segment.parse(at) else { return };
        if let Content::Record(record) = content
            && record.kind.is_in_channel()
            && let Ok((body, _)) = PushBody::ref_from_prefix(record.body)
        {
            visit(at, body.channel, record.links);
        }
        at += len as u64;
    }
}
