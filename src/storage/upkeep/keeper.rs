//! The upkeep of one shard: when a checkpoint is made, which segments are deleted, and in which
//! order, so that a crash between any two steps leaves a shard that opens right.
//!
//! To delete segments takes, in this order: a checkpoint that says that their messages are gone;
//! a second one; both read through again; a list without the segments, for readers; the word to
//! the owner; the files. So whichever of the two checkpoints a start has to take, it knows of no
//! message in what was deleted, and what both cover is all that can be missing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId};
use zerocopy::FromBytes;

use crate::checkpoint::{Building, CheckpointError, CheckpointHeader, Shelf, build};
use crate::disk::Disk;
use crate::error::{IoError, Naming, RecoverError};
use crate::format::{Bad, Content};
use crate::recovery::scan::{LogPlace, Steps, segment_files};
use crate::segment::Segment;
use crate::segment::map::PAGE_BYTES;
use crate::segment::prepare::{Limits, RunIdentity};
use crate::shared::ShardShared;
use crate::upkeep::retention::{Expired, Kept, expired, is_to_roll};
use crate::upkeep::{CheckpointFacts, ShardUpkeep};

/// Time between two attempts after a checkpoint failed: long against what one costs, short
/// against the hours in which a disk fills.
const RETRY: Duration = Duration::from_secs(60);

/// A checkpoint is due when the segments behind the newest one are this many times its size: the
/// disk then writes at most half as much for checkpoints as for messages.
const UNCOVERED_PER_CHECKPOINT: u64 = 2;

/// Checkpoints made in one pass at most: what is to be deleted needs two.
const PASS_CHECKPOINTS_MAX: usize = 2;

/// The least part of a sealed segment that is worth giving back: 1/8 of it was never written.
const SLACK_PART: u64 = 8;

/// What a pass goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    /// Confirmed milliseconds.
    pub(crate) now_ms: u64,
    pub(crate) retention_ms: Option<u64>,
    /// Oldest segments that go to make room.
    pub(crate) evict: usize,
    pub(crate) checkpoint_bytes_min: u64,
    /// Don't wait after a failure.
    pub(crate) at_once: bool,
    /// The server ends: leave what takes long.
    pub(crate) stop: &'a AtomicBool,
}

/// Looks after the files of one shard.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<ShardShared>,
    disk: Arc<dyn Disk>,
    limits: Arc<Limits>,
    run: RunIdentity,
    shards: u16,
    /// `None` until the shard is open.
    state: Mutex<Option<State>>,
    facts: Mutex<ShardUpkeep>,
}

/// What an open shard has beside its listed segments.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) shelf: Shelf,
    /// Segments that no reader needs any more: number, file, bytes.
    pub(crate) leftovers: Vec<(u64, PathBuf, u64)>,
}

impl Found {
    /// Looks what there is, and what is wrong with it.
    pub(crate) fn look(place: &LogPlace<'_>) -> Result<(Self, Vec<String>), RecoverError> {
        let dir = place.dir;
        let (shelf, bad) = Shelf::look(place.disk, dir, &place.folder, place.shard)?;
        let bad = bad.iter().map(ToString::to_string).collect();
        let mut found = Self { shelf, leftovers: Vec::new() };
        let first = found.origin().map_or(1, |origin| origin.start_number);
        let files = segment_files(dir)?;
        if let Some((oldest, path)) = files.first().filter(|(oldest, _)| *oldest > first)
            && found.origin().is_none()
        {
            return Err(RecoverError::NoState { path: path.clone(), oldest: *oldest, bad });
        }
        for (number, path) in files.into_iter().filter(|(number, _)| *number < first) {
            let bytes = std::fs::metadata(&path).naming("read", &path)?.len();
            found.leftovers.push((number, path, bytes));
        }
        Ok((found, bad))
    }

    /// What the replay begins with.
    pub(crate) fn origin(&self) -> Option<&CheckpointHeader> {
        self.shelf.newest().map(|checkpoint| &checkpoint.header)
    }
}

#[derive(Debug, Default)]
struct State {
    shelf: Shelf,
    leftovers: Vec<(u64, PathBuf, u64)>,
    /// Bytes of checkpoints that are counted as used.
    counted: u64,
    /// The newest message of each channel in segments that a checkpoint has given up and that
    /// are still there.
    given_up: FxHashMap<ChannelId, MessageId>,
    /// Lists for the owner that found no place yet.
    untold: Vec<(ChannelId, MessageId)>,
    /// The segment that is written to, and when it was first seen in use.
    active: Option<(u64, u64)>,
    /// Sealed segments up to this number were looked at for slack.
    trimmed: u64,
    retry_at: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(
        shared: Arc<ShardShared>,
        disk: Arc<dyn Disk>,
        limits: Arc<Limits>,
        run: RunIdentity,
        shards: u16,
    ) -> Self {
        let (state, facts) = (Mutex::default(), Mutex::default());
        Self { shared, disk, limits, run, shards, state, facts }
    }

    /// The shard is open; from now on its files are looked after.
    pub(crate) fn begin(&self, found: Found) {
        let mut state =
            State { shelf: found.shelf, leftovers: found.leftovers, ..State::default() };
        for (_, _, bytes) in &state.leftovers {
            self.limits.hold(&self.shared, *bytes);
        }
        self.count_checkpoints(&mut state);
        *lock(&self.state) = Some(state);
    }

    /// What is known for people.
    pub(crate) fn facts(&self, now_ms: u64) -> ShardUpkeep {
        let mut facts = lock(&self.facts).clone();
        let oldest = self.shared.segments.load().0.first().map(|s| s.header.confirmed_ms);
        facts.oldest_ms = oldest.unwrap_or(now_ms);
        facts.oldest_age = Duration::from_millis(now_ms.saturating_sub(facts.oldest_ms));
        facts
    }

    /// The listed segments, as the rules see them.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let (list, proven) = (self.shared.segments.load(), self.shared.proven());
        let sealed =
            |index: usize| list.0.get(index + 1).is_some_and(|next| proven > next.header.first());
        let kept = |(index, segment): (usize, &Arc<Segment>)| Kept {
            number: segment.header.number,
            base: segment.header.base,
            bytes: segment.file.bytes_on_disk(),
            confirmed_ms: segment.header.confirmed_ms,
            sealed: sealed(index),
        };
        list.0.iter().enumerate().map(kept).collect()
    }

    /// Does all that is due.
    pub(crate) fn pass(&self, pass: &Pass<'_>) {
        let mut guard = lock(&self.state);
        let Some(state) = guard.as_mut() else { return };
        self.tell(state);
        let waits = state.retry_at.is_some_and(|at| Instant::now() < at) && !pass.at_once;
        if waits || self.shared.failed() {
            return;
        }
        self.roll(state, pass);
        let result = self.trim(state).map_err(CheckpointError::from);
        let result = result.and_then(|()| self.keep(state, pass));
        self.count_checkpoints(state);
        state.retry_at = result.is_err().then(|| Instant::now() + RETRY);
        self.note(state, pass, result.err());
    }

    /// Makes the checkpoints that are due, and deletes what they allow.
    fn keep(&self, state: &mut State, pass: &Pass<'_>) -> Result<(), CheckpointError> {
        let kept = self.kept();
        let by_age = expired(&kept, pass.now_ms, pass.retention_ms);
        for _ in 0..PASS_CHECKPOINTS_MAX {
            if pass.stop.load(Relaxed) || !is_due(state, &kept, by_age, pass) {
                break;
            }
            self.make_checkpoint(state, &kept, by_age.count.max(pass.evict), pass)?;
        }
        self.delete(state, by_age.count)?;
        Ok(state.shelf.prune(&*self.disk, &self.shared.dir)?)
    }

    fn make_checkpoint(
        &self,
        state: &mut State,
        kept: &[Kept],
        gone: usize,
        pass: &Pass<'_>,
    ) -> Result<(), CheckpointError> {
        let began = Instant::now();
        state.shelf.prove_newest()?;
        let list = self.shared.segments.load_full();
        let previous = state.shelf.newest().map(|checkpoint| checkpoint.header);
        let (covered, before) = previous.map_or((0, 0), |header| (header.at, header.start));
        let sealed = kept.iter().filter(|segment| segment.sealed).count();
        let first = kept.iter().filter(|segment| segment.base < covered).count();
        let (Some(at), Some(start)) = (kept.get(sealed), kept.get(gone)) else { return Ok(()) };
        let (at, start) = ((at.base, at.number), (start.base, start.number));
        let start = previous.map_or(start, |p| start.max((p.start, p.start_number)));
        for segment in list.0.iter().filter(|segment| segment.header.base < start.0) {
            if segment.header.base >= before {
                note_newest(&mut state.given_up, segment)?;
            }
        }
        let checkpoint = build(&Building {
            disk: &*self.disk,
            dir: &self.shared.dir,
            folder: self.run.folder,
            shard: self.shared.id,
            shards: self.shards,
            number: state.shelf.next_number(),
            previous: state.shelf.newest(),
            sealed: &list.0[first..sealed.max(first)],
            at: previous.map_or(at, |p| at.max((p.at, p.at_number))),
            start,
            expired: &state.given_up,
            losses: self.shared.losses(),
            confirmed_ms: pass.now_ms,
            stop: pass.stop,
        })?;
        let (shard, number, bytes) =
            (self.shared.id.0, checkpoint.header.number, checkpoint.header.bytes);
        tracing::info!(shard, number, bytes, took = ?began.elapsed(), "made a checkpoint");
        state.shelf.add(checkpoint);
        let mut facts = lock(&self.facts);
        facts.checkpoints_made += 1;
        facts.checkpoint = Some(CheckpointFacts { took: began.elapsed(), ..Default::default() });
        Ok(())
    }

    /// Deletes the segments that the newest two checkpoints have given up.
    fn delete(&self, state: &mut State, expired: usize) -> Result<(), CheckpointError> {
        let keeps_from = state.shelf.keeps_from();
        let list = self.shared.segments.load_full();
        let gone = list.0.iter().filter(|segment| segment.header.number < keeps_from).count();
        let left = state.leftovers.iter().any(|(number, ..)| *number < keeps_from);
        if gone == 0 && !left {
            return Ok(());
        }
        state.shelf.prove_pair()?;
        for segment in &list.0[..gone] {
            let bytes = segment.file.bytes_on_disk();
            state.leftovers.push((segment.header.number, segment.path.clone(), bytes));
        }
        self.shared.withdraw(keeps_from);
        state.untold.extend(state.given_up.drain());
        self.tell(state);
        lock(&self.facts).segments_evicted += gone.saturating_sub(expired) as u64;
        Ok(self.remove(state, keeps_from)?)
    }

    fn remove(&self, state: &mut State, keeps_from: u64) -> Result<(), IoError> {
        state.leftovers.sort();
        while let Some((_, path, bytes)) =
            state.leftovers.first().filter(|(number, ..)| *number < keeps_from)
        {
            self.disk.remove(path).naming("remove", path)?;
            self.limits.release(&self.shared, *bytes);
            let mut facts = lock(&self.facts);
            facts.segments_deleted += 1;
            facts.bytes_freed += bytes;
            state.leftovers.remove(0);
        }
        self.disk.sync_dir(&self.shared.dir).naming("sync", &self.shared.dir)
    }

    /// Tells the owner which messages are gone.
    fn tell(&self, state: &mut State) {
        if !state.untold.is_empty() {
            let untold = std::mem::take(&mut state.untold);
            if let Err(back) = self.shared.expired.push(untold) {
                state.untold = back;
            }
        }
    }

    /// Asks the owner to close a segment that gets old.
    fn roll(&self, state: &mut State, pass: &Pass<'_>) {
        let (list, proven) = (self.shared.segments.load(), self.shared.proven());
        let in_use = |segment: &&Arc<Segment>| proven > segment.header.first();
        let Some(active) = list.0.iter().rev().find(in_use) else { return };
        let number = active.header.number;
        match state.active {
            Some((known, since_ms)) if known == number => {
                if is_to_roll(since_ms, pass.now_ms, pass.retention_ms) {
                    self.shared.ask_to_close(number);
                }
            }
            _ => state.active = Some((number, pass.now_ms)),
        }
    }

    /// Gives back the end of sealed segments that was never written.
    fn trim(&self, state: &mut State) -> Result<(), IoError> {
        let list = self.shared.segments.load_full();
        let sealed = self.kept().iter().filter(|segment| segment.sealed).count();
        for segment in &list.0[..sealed] {
            if segment.header.number <= state.trimmed {
                continue;
            }
            let len = segment.file.settled().next_multiple_of(PAGE_BYTES) as u64;
            let before = segment.file.bytes_on_disk();
            if len + segment.header.capacity / SLACK_PART <= before {
                segment.cut(&*self.disk, len).naming("cut", &segment.path)?;
                self.limits.release(&self.shared, before - len);
            }
            state.trimmed = segment.header.number;
        }
        Ok(())
    }

    /// Brings what is counted as used up to date with the checkpoints there are.
    fn count_checkpoints(&self, state: &mut State) {
        let bytes = state.shelf.bytes();
        self.limits.hold(&self.shared, bytes);
        self.limits.release(&self.shared, std::mem::replace(&mut state.counted, bytes));
        let newest = state.shelf.newest().map_or(0, |checkpoint| checkpoint.header.bytes);
        self.limits.checkpoint_bytes.fetch_max(newest, Relaxed);
    }

    fn note(&self, state: &State, pass: &Pass<'_>, error: Option<CheckpointError>) {
        let kept = self.kept();
        let mut facts = lock(&self.facts);
        let newest = state.shelf.newest().map(|checkpoint| checkpoint.header);
        let took = facts.checkpoint.map_or(Duration::ZERO, |checkpoint| checkpoint.took);
        facts.checkpoint = newest.map(|header| CheckpointFacts {
            number: header.number,
            at: header.at,
            bytes: header.bytes,
            rows: header.rows_all(),
            took,
            age: Duration::from_millis(pass.now_ms.saturating_sub(header.confirmed_ms)),
        });
        facts.uncovered_bytes = uncovered(&kept, newest.map_or(0, |header| header.at));
        let stopped = matches!(error, Some(CheckpointError::Stopped));
        if let Some(error) = error.filter(|_| !stopped) {
            facts.checkpoints_failed += 1;
            let why = format!("no checkpoint is made and nothing deleted, since {error}");
            if facts.suspended.as_ref() != Some(&why) {
                tracing::error!(shard = self.shared.id.0, "{why}");
            }
            facts.suspended = Some(why);
        } else {
            facts.suspended = None;
        }
    }
}

/// Whether a checkpoint is to be made now.
fn is_due(state: &State, kept: &[Kept], by_age: Expired, pass: &Pass<'_>) -> bool {
    let newest = state.shelf.newest().map(|checkpoint| checkpoint.header);
    let bytes = newest.map_or(0, |header| header.bytes);
    let worth = pass.checkpoint_bytes_min.max(UNCOVERED_PER_CHECKPOINT * bytes);
    if uncovered(kept, newest.map_or(0, |header| header.at)) >= worth {
        return true;
    }
    let given_up = newest.map_or(0, |header| header.start_number);
    let gone = by_age.count.max(pass.evict);
    let more = gone > 0 && kept[gone - 1].number >= given_up;
    let pressing = pass.evict > 0 || by_age.overdue || by_age.bytes >= worth;
    if more && pressing {
        return true;
    }
    // The second of a pair: what the newest one has given up is still there.
    let numbers = kept.iter().map(|segment| segment.number);
    let mut numbers = numbers.chain(state.leftovers.iter().map(|(number, ..)| *number));
    let keeps_from = state.shelf.keeps_from();
    numbers.any(|number| keeps_from <= number && number < given_up)
}

/// Bytes of sealed segments from `at` on.
fn uncovered(kept: &[Kept], at: u64) -> u64 {
    let open = kept.iter().filter(|segment| segment.sealed && segment.base >= at);
    open.map(|segment| segment.bytes).sum()
}

/// Notes the newest message of each channel in a segment. What is damaged has no id to note.
fn note_newest(
    newest: &mut FxHashMap<ChannelId, MessageId>,
    segment: &Segment,
) -> Result<(), IoError> {
    let (mut at, mut steps) = (segment.header.first(), Steps::new(segment));
    while at < segment.settled_end() {
        steps.reach(at)?;
        let (len, content) = match segment.parse(at) {
            Ok((len, content)) => (len, Some(content)),
            Err(Bad::Body(head)) => (head.bytes, None),
            Err(_) => return Ok(()),
        };
        at += len as u64;
        let Some(Content::Record(record)) = content else { continue };
        if record.kind.is_in_channel()
            && let Ok((body, _)) = PushBody::ref_from_prefix(record.body)
        {
            newest.insert(body.channel, body.id.into());
        }
    }
    Ok(())
}

/// Each holder leaves it whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
