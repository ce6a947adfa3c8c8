//! The I/O thread: everything that may wait for the disk and must not do so on a worker.
//! It prepares segments ahead, reads cold pages, and makes room for deduplication tables.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use tern_core::io::ColdRecord;

use crate::dedup::Supply;
use crate::recovery::salvage::{self, Salvager};
use crate::segment::prepare::Preparer;
use crate::segment::sigbus;
use crate::shared::{ReadFault, ShardShared};
use crate::steps::Step;

/// Time between two attempts to get room on a full disk: short against a person who makes room,
/// long against what an attempt costs.
const RETRY: Duration = Duration::from_millis(500);

/// Bytes read before a cold record: walks go from new to old.
const WARM_BEFORE_BYTES: u64 = 256 * 1024;

/// Bytes read behind the start of a cold record.
const WARM_AFTER_BYTES: u64 = 64 * 1024;

/// Cold records whose range could not be read are remembered up to this many per shard; a disk
/// with more bad places answers the same after another attempt.
const UNREADABLE_MAX: usize = 1024;

/// Called on the I/O thread when a record has been read into memory, or can't be.
pub type Warmed = Box<dyn FnOnce() + Send>;

enum Request {
    Warm(ColdRecord, Warmed),
    /// Look what is missing.
    Look,
    Stop,
}

/// The way to the I/O thread; it never waits.
#[derive(Clone, Debug)]
pub struct IoHandle {
    requests: Sender<Request>,
}

impl IoHandle {
    /// Reads the record, and what lies around it, into memory; then calls `done`.
    pub fn warm(&self, record: ColdRecord, done: Warmed) {
        self.send(Request::Warm(record, done));
    }

    /// A spare segment was taken, or a table wants to grow.
    pub(crate) fn look(&self) {
        self.send(Request::Look);
    }

    /// When the thread has ended, so has the storage: nobody waits for an answer.
    fn send(&self, request: Request) {
        let _ = self.requests.send(request);
    }
}

/// What the thread looks after, for each shard.
pub(crate) struct Cared {
    pub(crate) shared: Arc<ShardShared>,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) supply: Arc<Supply>,
}

/// The running thread.
pub(crate) struct IoThread {
    handle: IoHandle,
    thread: JoinHandle<()>,
}

/// A way to a thread that is still to be started.
pub(crate) struct Mailbox {
    handle: IoHandle,
    requests: Receiver<Request>,
}

impl Mailbox {
    #[expect(clippy::disallowed_methods, reason = "each session and shard waits for one read")]
    pub(crate) fn new() -> Self {
        let (sender, requests) = unbounded();
        Self { handle: IoHandle { requests: sender }, requests }
    }

    pub(crate) fn handle(&self) -> IoHandle {
        self.handle.clone()
    }
}

impl IoThread {
    /// Starts a thread that does the work and has this way to it.
    pub(crate) fn start(run: IoRun, handle: IoHandle) -> io::Result<Self> {
        let thread = thread::Builder::new().name("tern-io".into()).spawn(move || run.serve())?;
        Ok(Self { handle, thread })
    }

    pub(crate) fn stop(self) {
        self.handle.send(Request::Stop);
        // A panic has been printed; there is nothing to save here.
        let _ = self.thread.join();
    }
}

/// The work of the I/O thread, one request at a time.
pub(crate) struct IoRun {
    shards: Vec<Cared>,
    requests: Receiver<Request>,
    /// Pages that were known to be unreadable when it was last said.
    faults: u64,
    salvager: Salvager,
}

/// What a request comes to.
enum Heard {
    Done,
    Look,
    Stop,
}

impl IoRun {
    /// The work for these shards; what is out of reach is left to `salvager`.
    pub(crate) fn new(mailbox: Mailbox, shards: Vec<Cared>, salvager: Salvager) -> Self {
        Self { shards, requests: mailbox.requests, faults: 0, salvager }
    }

    fn serve(mut self) {
        let mut look_at = Instant::now() + RETRY;
        loop {
            let heard = match self.requests.recv_deadline(look_at) {
                Ok(request) => self.hear(request),
                Err(RecvTimeoutError::Timeout) => Heard::Look,
                Err(RecvTimeoutError::Disconnected) => Heard::Stop,
            };
            match heard {
                Heard::Done => {}
                Heard::Look => look_at = Instant::now(),
                Heard::Stop => return,
            }
            if Instant::now() >= look_at {
                self.look();
                look_at = Instant::now() + RETRY;
            }
        }
    }

    /// Does what was asked for longest ago.
    pub(crate) fn step(&mut self) -> Step {
        let Ok(request) = self.requests.try_recv() else { return Step::Idle };
        match self.hear(request) {
            Heard::Done => {}
            Heard::Look => self.look(),
            Heard::Stop => return Step::Ended,
        }
        Step::Worked
    }

    /// Whether a step would do something.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.requests.is_empty()
    }

    fn hear(&mut self, request: Request) -> Heard {
        match request {
            Request::Warm(record, done) => {
                self.warm_or_salvage(record, done);
                Heard::Done
            }
            Request::Look => Heard::Look,
            Request::Stop => Heard::Stop,
        }
    }

    /// Looks what is missing.
    pub(crate) fn look(&mut self) {
        for shard in &self.shards {
            shard.preparer.prepare_spare();
            shard.supply.attend();
        }
        self.tell_faults();
    }

    /// Says which files could not be read, once for each time that there are more.
    fn tell_faults(&mut self) {
        let faults = sigbus::faults();
        if std::mem::replace(&mut self.faults, faults) == faults {
            return;
        }
        for Cared { shared, .. } in &self.shards {
            for ReadFault { path, pages } in shared.read_faults() {
                let (shard, path) = (shared.id.0, path.display());
                tracing::error!(shard, pages, "can't read {path}: its messages are told as lost");
            }
        }
    }

    fn warm_or_salvage(&mut self, record: ColdRecord, done: Warmed) {
        let shard = &self.shards[usize::from(record.shard.0)].shared;
        let at = record.at.0;
        self.warm(shard, at);
        let is_unreadable = shard.unreadable.load().iter().any(|range| range.contains(&at));
        if is_unreadable || !salvage::is_out_of_reach(shard, &record) {
            return done();
        }
        self.salvager.salvage(shard, record, done);
    }

    fn warm(&self, shard: &ShardShared, at: u64) {
        let Some(segment) = shard.segments.load().find(at).cloned() else { return };
        let from = at.saturating_sub(WARM_BEFORE_BYTES).max(segment.header.base);
        let to = (at + WARM_AFTER_BYTES).min(segment.settled_end());
        let (before, after) = (segment.place(from), segment.place(to));
        count(&shard.counts.warmed);
        if segment.file.populate(before, after).is_ok() {
            return;
        }
        // Some page of the range is bad; perhaps not one of this record.
        let Err(error) = segment.file.populate(segment.place(at), after) else { return };
        tracing::error!(shard = shard.id.0, at, "can't read {}: {error}", segment.path.display());
        let mut unreadable = shard.unreadable.load().to_vec();
        if unreadable.len() < UNREADABLE_MAX {
            unreadable.push(at..to);
            shard.unreadable.store(Arc::new(unreadable));
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
