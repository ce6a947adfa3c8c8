//! The threads that make batches durable: write, sync, publish, wake the owner.
//!
//! Each shard belongs to one of them and has at most one batch under way, so its batches reach
//! the disk in order. A write or sync that fails is final: the kernel marks pages clean after a
//! failed sync, so a later success would lie. Only a write that finds no room is tried again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use tern_core::placement::ShardId;

use crate::disk::is_full;
use crate::header::Durability;
use crate::log::batch::Batch;
use crate::shared::ShardShared;

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
    thread: Thread,
}

/// What a commit thread takes its jobs from.
struct Ring {
    jobs: ArrayQueue<Job>,
    /// Nobody waits for room any more.
    stopping: AtomicBool,
    /// Nobody takes any more.
    ended: AtomicBool,
}

impl Committer {
    /// Starts a thread for these shards.
    pub(crate) fn start(
        number: usize,
        shards: Vec<Arc<ShardShared>>,
        durability: Durability,
        wake: Wake,
    ) -> io::Result<Self> {
        let jobs = ArrayQueue::new(PLACES_PER_SHARD * shards.len() + 1);
        let ring = Arc::new(Ring {
            jobs,
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let own = Arc::clone(&ring);
        let thread =
            thread::Builder::new().name(format!("tern-commit-{number}")).spawn(move || {
                Run { shards, durability, wake, ring: own }.serve();
            })?;
        Ok(Self { handle: CommitHandle { ring, thread: thread.thread().clone() }, thread })
    }

    /// The way to it.
    pub(crate) fn handle(&self) -> CommitHandle {
        self.handle.clone()
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
        self.thread.unpark();
    }
}

/// What the thread has.
struct Run {
    shards: Vec<Arc<ShardShared>>,
    durability: Durability,
    wake: Wake,
    ring: Arc<Ring>,
}

impl Run {
    fn serve(&self) {
        loop {
            match self.ring.jobs.pop() {
                Some(Job::Commit(shard, batch)) => self.commit(&shard, batch),
                Some(Job::Stop) => return,
                None => thread::park(),
            }
        }
    }

    fn commit(&self, shard: &ShardShared, batch: Arc<Batch>) {
        if shard.failed() {
            return;
        }
        let (start, end) = (Instant::now(), batch.end());
        let result = self.write(shard, &batch);
        // Before the proof: whoever sees the proof has the buffer for himself.
        drop(batch);
        match result {
            Ok(()) => {
                shard.counts.commit_took(start.elapsed());
                shard.prove(end);
            }
            Err(what) => shard.fail(what),
        }
        (self.wake)(shard.id);
    }

    fn write(&self, shard: &ShardShared, batch: &Batch) -> Result<(), String> {
        let segment = &batch.segment;
        let failed = |what: &str, error| format!("{what} {}: {error}", segment.path.display());
        if let Some(before) = &batch.sync_before {
            before.file.file().sync().map_err(|error| failed("sync before", error))?;
        }
        let from = segment.place(batch.start);
        let written = self.write_once_there_is_room(shard, batch, from);
        written.map_err(|error| failed("write to", error))?;
        if self.durability == Durability::Disk || batch.always_sync {
            segment.file.file().sync().map_err(|error| failed("sync", error))?;
        }
        // Other bytes of the file are gone: the disk did not keep its word, or somebody cut it.
        if segment.file.faults() > 0 {
            let path = segment.path.display();
            return Err(format!("read {path}: it was cut by another program, or the disk fails"));
        }
        segment.file.settle(from + batch.bytes.len());
        Ok(())
    }

    /// Writes a batch. File systems that copy on write want room even for what was allocated; no
    /// sync has seen the batch yet, so the same bytes may be written again. Other shards of this
    /// thread wait too: they are on the same disk.
    fn write_once_there_is_room(
        &self,
        shard: &ShardShared,
        batch: &Batch,
        from: usize,
    ) -> io::Result<()> {
        loop {
            let result = batch.segment.file.write(from, &batch.bytes);
            let full = result.as_ref().is_err_and(is_full);
            if shard.set_starved(full) != full {
                tracing::error!(shard = shard.id.0, full, "room to write changed");
            }
            if !full || self.ring.stopping.load(Ordering::Acquire) {
                return result;
            }
            thread::park_timeout(ROOM_RETRY);
        }
    }
}

impl Drop for Run {
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
