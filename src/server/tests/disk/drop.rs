//! Pages of files taken out of memory under the process that has them mapped, as a kernel short
//! of memory takes them. The only file of the tests with `unsafe` in it.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Advice, fadvise, statfs};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `f_type` of file systems that have no disk to read from again (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Takes all pages of these files out of memory that are written to the disk, first from the
/// process that has them mapped and then from the page cache; or why that is not possible here.
pub fn drop_pages(pid: u32, files: &[impl AsRef<Path>]) -> Result<(), String> {
    let raw = i32::try_from(pid).expect("the kernel's numbers of processes are positive");
    let pid = Pid::from_raw(raw).expect("a child is no process 0");
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    let maps = fs::read_to_string(format!("/proc/{raw}/maps")).map_err(|why| why.to_string())?;
    for path in files.iter().map(AsRef::as_ref) {
        if statfs(path).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC) {
            return Err("the folder of the test lies in memory".into());
        }
        let name = path.to_str().expect("paths of tests are text");
        for line in maps.lines().filter(|line| line.ends_with(name)) {
            page_out(&process, range(line)).map_err(|why| format!("process_madvise: {why}"))?;
        }
        let file = File::open(path).map_err(|why| why.to_string())?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|why| format!("fadvise: {why}"))?;
    }
    Ok(())
}

/// Start and length of a mapping, by its line in `/proc/<pid>/maps`.
fn range(line: &str) -> (usize, usize) {
    let (start, rest) = line.split_once('-').expect("a range comes first");
    let (end, _) = rest.split_once(' ').expect("rights come second");
    let address = |text| usize::from_str_radix(text, 16).expect("addresses are hexadecimal");
    (address(start), address(end) - address(start))
}

/// Lets the kernel take the pages of a mapping of another process, also those that it uses.
fn page_out(process: &OwnedFd, (start, len): (usize, usize)) -> io::Result<()> {
    let piece = libc::iovec { iov_base: std::ptr::without_provenance_mut(start), iov_len: len };
    let (piece, count, flags) = (&raw const piece, 1usize, 0u32);
    // SAFETY: the call reads the one `iovec` that lives on this stack, and no memory behind the
    // address in it, which is one of the other process. This advice changes no content: pages
    // that are taken come back from their file when they are touched.
    let taken = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            piece,
            count,
            libc::MADV_PAGEOUT,
            flags,
        )
    };
    if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
