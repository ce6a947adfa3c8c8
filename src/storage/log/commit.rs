//! The threads that make batches durable: write, sync, publish, wake the owner.
//!
//! Each shard belongs to one of them and has at most one batch under way, so its batches reach
//! the disk in order. A write or sync that fails is final: the kernel marks pages clean after a
//! failed sync, so a later success would lie. Only a write that finds no room is tried again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use tern_core::placement::ShardId;

use crate::disk::is_full;
use crate::header::Durability;
use crate::log::batch::Batch;
use crate::log::slice;
use crate::segment::Segment;
use crate::shared::ShardShared;
use crate::steps::Step;

/// Places in a commit thread's ring for each of its shards: one batch under way, and at the end
/// all that a closing log leaves (see [`CommitHandle::submit`], which waits for room).
const PLACES_PER_SHARD: usize = 4;

/// Time between two attempts to write to a full disk: short against a person who makes room, long
/// against what an attempt costs.
const ROOM_RETRY: Duration = Duration::from_millis(200);

/// Called when the log of a shard has a new proof, or failed.
pub type Wake = Arc<dyn Fn(ShardId) + Send + Sync>;

/// What a commit thread is asked to do.
enum Job {
    Commit(Arc<ShardShared>, Arc<Batch>),
    Stop,
}

/// A running commit thread.
pub(crate) struct Committer {
    handle: CommitHandle,
    thread: JoinHandle<()>,
}

/// The way to a commit thread.
#[derive(Clone)]
pub(crate) struct CommitHandle {
    ring: Arc<Ring>,
}

/// What a commit thread takes its jobs from.
struct Ring {
    jobs: ArrayQueue<Job>,
    /// Nobody waits for room any more.
    stopping: AtomicBool,
    /// Nobody takes any more.
    ended: AtomicBool,
    /// Who sleeps when there is nothing to do; set before the first log is open.
    sleeper: OnceLock<Thread>,
}

impl Committer {
    /// Starts a thread that does the work.
    pub(crate) fn start(number: usize, run: CommitRun) -> io::Result<Self> {
        let handle = run.handle();
        let builder = thread::Builder::new().name(format!("tern-commit-{number}"));
        let thread = builder.spawn(move || run.serve())?;
        let first = handle.ring.sleeper.set(thread.thread().clone());
        first.expect("one thread does the work of one ring");
        Ok(Self { handle, thread })
    }

    /// Ends the thread after everything that was submitted.
    pub(crate) fn stop(self) {
        self.handle.ring.stopping.store(true, Ordering::Release);
        self.handle.send(Job::Stop);
        // A panic has been printed, and has failed the shards.
        let _ = self.thread.join();
    }
}

impl CommitHandle {
    /// Hands over a batch. Never waits while the log is open: there is a place for each shard's
    /// batch under way.
    pub(crate) fn submit(&self, shard: &Arc<ShardShared>, batch: &Arc<Batch>) {
        self.send(Job::Commit(Arc::clone(shard), Arc::clone(batch)));
    }

    fn send(&self, mut job: Job) {
        while let Err(back) = self.ring.jobs.push(job) {
            if self.ring.ended.load(Ordering::Acquire) {
                return;
            }
            job = back;
            thread::yield_now();
        }
        if let Some(sleeper) = self.ring.sleeper.get() {
            sleeper.unpark();
        }
    }
}

/// The work of a commit thread, one step at a time: a batch is written in one, synced in the next.
pub(crate) struct CommitRun {
    shards: Vec<Arc<ShardShared>>,
    durability: Durability,
    wake: Wake,
    ring: Arc<Ring>,
    doing: Option<Doing>,
}

/// The batch under way.
struct Doing {
    shard: Arc<ShardShared>,
    batch: Arc<Batch>,
    began: Instant,
    written: bool,
}

impl CommitRun {
    /// The work for these shards.
    pub(crate) fn new(shards: Vec<Arc<ShardShared>>, durability: Durability, wake: Wake) -> Self {
        let ring = Arc::new(Ring {
            jobs: ArrayQueue::new(PLACES_PER_SHARD * shards.len() + 1),
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            sleeper: OnceLock::new(),
        });
        Self { shards, durability, wake, ring, doing: None }
    }

    /// The way to it.
    pub(crate) fn handle(&self) -> CommitHandle {
        CommitHandle { ring: Arc::clone(&self.ring) }
    }

    fn serve(mut self) {
        if let Err(error) = slice::ask_for_short() {
            tracing::debug!(%error, "a loaded worker on the same core may delay commits");
        }
        loop {
            match self.step() {
                Step::Worked => {}
                Step::Idle => thread::park(),
                Step::NoRoom => thread::park_timeout(ROOM_RETRY),
                Step::Ended => return,
            }
        }
    }

    /// Writes the next batch, or syncs the one that was written.
    pub(crate) fn step(&mut self) -> Step {
        match self.doing.take() {
            Some(doing) if doing.written => self.finish(doing),
            Some(doing) => self.write(doing),
            None => match self.ring.jobs.pop() {
                Some(Job::Commit(shard, _)) if shard.failed() => Step::Worked,
                Some(Job::Commit(shard, batch)) => {
                    self.write(Doing { shard, batch, began: Instant::now(), written: false })
                }
                Some(Job::Stop) => Step::Ended,
                None => Step::Idle,
            },
        }
    }

    /// Whether a step would do something.
    pub(crate) fn is_wanted(&self) -> bool {
        self.doing.is_some() || !self.ring.jobs.is_empty()
    }

    /// Writes a batch. File systems that copy on write want room even for what was allocated; no
    /// sync has seen the batch yet, so the same bytes may be written again. Other shards of this
    /// thread wait too: they are on the same disk.
    fn write(&mut self, mut doing: Doing) -> Step {
        let (shard, batch) = (&doing.shard, &doing.batch);
        let segment = &batch.segment;
        if let Some(before) = &batch.sync_before
            && let Err(error) = sync(before)
        {
            let what = format!("sync before {}: {error}", segment.path.display());
            return self.fail(doing, what);
        }
        let result = segment.file.write(segment.place(batch.start), &batch.bytes);
        let full = result.as_ref().is_err_and(is_full);
        if shard.set_starved(full) != full {
            tracing::error!(shard = shard.id.0, full, "room to write changed");
        }
        if full && !self.ring.stopping.load(Ordering::Acquire) {
            self.doing = Some(doing);
            return Step::NoRoom;
        }
        if let Err(error) = result {
            let what = format!("write to {}: {error}", segment.path.display());
            return self.fail(doing, what);
        }
        doing.written = true;
        self.doing = Some(doing);
        Step::Worked
    }

    /// Makes a written batch durable, and says so.
    fn finish(&mut self, doing: Doing) -> Step {
        if let Err(what) = self.sync(&doing.batch) {
            return self.fail(doing, what);
        }
        let Doing { shard, batch, began, .. } = doing;
        let (segment, end) = (&batch.segment, batch.end());
        segment.file.settle(segment.place(end));
        // Before the proof: whoever sees the proof has the buffer for himself.
        drop(batch);
        shard.counts.commit_took(began.elapsed());
        shard.prove(end);
        (self.wake)(shard.id);
        Step::Worked
    }

    fn sync(&self, batch: &Batch) -> Result<(), String> {
        let segment = &batch.segment;
        let path = segment.path.display();
        if self.durability == Durability::Disk || batch.always_sync {
            sync(segment).map_err(|error| format!("sync {path}: {error}"))?;
        }
        // Other bytes of the file are gone: the disk did not keep its word, or somebody cut it.
        if segment.file.faults() > 0 {
            return Err(format!("read {path}: it was cut by another program, or the disk fails"));
        }
        Ok(())
    }

    fn fail(&self, doing: Doing, what: String) -> Step {
        doing.shard.fail(what);
        (self.wake)(doing.shard.id);
        Step::Worked
    }
}

/// Makes durable what was written to a segment.
fn sync(segment: &Segment) -> io::Result<()> {
    let file = segment.file.file();
    file.expect("it is closed when the next one has proven records").sync()
}

impl Drop for CommitRun {
    /// A thread that panicked proves nothing more: its shards say so rather than hang.
    fn drop(&mut self) {
        self.ring.ended.store(true, Ordering::Release);
        if thread::panicking() {
            for shard in &self.shards {
                shard.fail("the commit thread panicked".into());
                (self.wake)(shard.id);
            }
        }
    }
}
