//! A disk on which one operation fails, the n-th of a run, and which counts them all.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tern_storage::{Disk, DiskFile};

use tern_diskmodel::quick::QuickDisk;

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// EIO, and nothing was done.
    Broken,
    /// ENOSPC, and nothing was done.
    Full,
    /// EINTR, and nothing was done.
    Interrupted,
    /// EIO; a write, and a growing, got half way.
    Half,
    /// EIO, but all was done.
    Late,
}

impl Fault {
    pub const ALL: [Self; 5] =
        [Self::Broken, Self::Full, Self::Interrupted, Self::Half, Self::Late];

    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Full => libc::ENOSPC,
            Self::Interrupted => libc::EINTR,
            Self::Broken | Self::Half | Self::Late => libc::EIO,
        })
    }
}

/// What is done with which kind of file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Name,
    Write,
    Sync,
    Size,
}

/// What went by, and what shall fail.
#[derive(Debug, Default)]
pub struct Countdown {
    /// Operations until the one that fails; `None`: all succeed.
    pub left: Option<(u64, Fault)>,
    /// Only operations of this kind count down; `None`: all do.
    pub only: Option<Done>,
    /// From then on all of that kind fail.
    pub again: bool,
    /// What failed.
    pub fired: Option<Done>,
    /// Operations so far.
    pub ops: u64,
}

#[derive(Debug, Default)]
pub struct CountdownDisk {
    pub plan: Arc<Mutex<Countdown>>,
}

#[derive(Debug)]
struct CountdownFile {
    inner: Arc<dyn DiskFile>,
    plan: Arc<Mutex<Countdown>>,
}

/// Counts an operation; how it fails, if it does.
fn count(plan: &Mutex<Countdown>, done: Done) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    plan.ops += 1;
    if plan.only.as_ref().is_some_and(|only| *only != done) {
        return None;
    }
    let (left, fault) = plan.left?;
    if plan.fired.is_some() && !plan.again {
        return None;
    }
    plan.left = Some((left.checked_sub(1)?, fault));
    (left == 1).then(|| {
        plan.left = plan.again.then_some((1, fault));
        plan.fired = Some(done);
        fault
    })
}

/// Does an operation that has no half.
fn run<T>(fault: Option<Fault>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match fault {
        None => run(),
        Some(fault @ (Fault::Late | Fault::Half)) => {
            run()?;
            Err(fault.error())
        }
        Some(fault) => Err(fault.error()),
    }
}

impl CountdownDisk {
    fn wrap(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountdownFile { inner, plan: Arc::clone(&self.plan) })
    }
}

impl Disk for CountdownDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        run(count(&self.plan, Done::Name), || Ok(self.wrap(QuickDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        run(count(&self.plan, Done::Name), || Ok(self.wrap(QuickDisk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        run(count(&self.plan, Done::Name), || QuickDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        run(count(&self.plan, Done::Name), || QuickDisk.remove(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        run(count(&self.plan, Done::Sync), || QuickDisk.sync_dir(path))
    }
}

impl DiskFile for CountdownFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = count(&self.plan, Done::Write);
        if fault == Some(Fault::Half) {
            self.inner.write_at(at, &bytes[..bytes.len() / 2])?;
            return Err(Fault::Half.error());
        }
        run(fault, || self.inner.write_at(at, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        run(count(&self.plan, Done::Sync), || self.inner.sync())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let fault = count(&self.plan, Done::Size);
        let len = if fault == Some(Fault::Half) { len / 2 } else { len };
        run(fault, || self.inner.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        run(count(&self.plan, Done::Size), || self.inner.set_len(len))
    }

    fn handle(&self) -> &File {
        self.inner.handle()
    }
}
