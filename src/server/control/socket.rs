//! The control socket's address. A unix socket's path has room for about a hundred bytes; a data
//! folder that lies deeper is reached through a descriptor of the folder instead.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Most bytes of a path in a socket's address (`sun_path` of Linux, without its final zero).
const PATH_BYTES_MAX: usize = 107;

/// A path that fits a socket's address, for as long as this lives.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl SocketPath {
    pub(super) fn new(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path: socket.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
