//! A batch that `io_uring` writes and syncs: two linked requests, handed over and awaited by one
//! system call.
//!
//! Invariant: between two calls nothing is under way, so the kernel never reads a batch that its
//! owner has changed or freed.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::abort;

use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};

/// Requests of a commit: the write and the sync.
const REQUESTS: usize = 2;

/// Tags of the two answers.
const WRITE: u64 = 1;
const SYNC: u64 = 2;

/// Place of the one file in the ring's table of files.
const FILE: Fixed = Fixed(0);

/// A ring with one file in its table; of use to the thread that made it only.
pub(crate) struct Ring<'a> {
    ring: IoUring,
    file: PhantomData<BorrowedFd<'a>>,
}

impl<'a> Ring<'a> {
    /// Makes a ring with the settings that are best for one thread that waits for each answer
    /// (Linux 6.1 and newer).
    pub(crate) fn new(file: BorrowedFd<'a>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(REQUESTS as u32)?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self { ring, file: PhantomData })
    }

    /// Writes a batch at an offset and makes it durable.
    pub(crate) fn commit(&mut self, at: u64, batch: &[u8]) -> io::Result<()> {
        let bytes = u32::try_from(batch.len()).expect("a batch is far below 4 GiB");
        let write = opcode::Write::new(FILE, batch.as_ptr(), bytes).offset(at).build();
        let write = write.flags(squeue::Flags::IO_LINK).user_data(WRITE);
        let sync = opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build().user_data(SYNC);
        // SAFETY: the kernel reads `bytes` bytes of `batch`, which is borrowed until this function
        // returns; `wait` comes back only when both requests have ended. The sync has no memory.
        let pushed = unsafe { self.ring.submission().push_multiple(&[write, sync]) };
        pushed.expect("the ring holds two, and nothing else is under way");
        self.wait();
        self.results(bytes)
    }

    /// Hands over what is pushed and waits until all of it has ended.
    fn wait(&mut self) {
        while self.ring.completion().len() < REQUESTS {
            let result = self.ring.submit_and_wait(REQUESTS);
            let passes = |error: &io::Error| {
                matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
            };
            if let Err(error) = result
                && !passes(&error)
            {
                // Neither return nor unwind: the kernel may still read the batch.
                eprintln!("io_uring_enter: {error}");
                abort();
            }
        }
    }

    /// The first thing that went wrong; a failed or short write cancels the sync.
    fn results(&mut self, bytes: u32) -> io::Result<()> {
        let mut outcome = Ok(());
        for answer in self.ring.completion() {
            let error = match (answer.user_data(), answer.result()) {
                (_, code) if code < 0 => io::Error::from_raw_os_error(-code),
                (WRITE, written) if written as u32 != bytes => {
                    io::Error::other("a short write: is the disk full?")
                }
                _ => continue,
            };
            outcome = outcome.and(Err(error));
        }
        outcome
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        // The kernel ends a ring some time after its close. The file must not be freed then, into
        // the next measurement; if this fails, it is.
        let _ = self.ring.submitter().unregister_files();
    }
}
