//! Small file systems of several kinds, mounted for a test and gone with it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    /// The smallest that its tools make without being forced, or 24 MiB.
    fn bytes(self) -> u64 {
        match self {
            Self::Tmpfs | Self::Ext4 => 24 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    fn format(self, image: &Path) -> Result<(), String> {
        let image = image.to_str().expect("paths of tests are text");
        match self {
            Self::Tmpfs => Ok(()),
            Self::Ext4 => run("mkfs.ext4", &["-q", "-F", image]),
            Self::Xfs => run("mkfs.xfs", &["-q", image]),
            Self::Btrfs => run("mkfs.btrfs", &["-q", image]),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mounted file system; unmounted when it is dropped.
pub struct Mounted {
    place: PathBuf,
}

impl Mounted {
    /// Makes a file system and mounts it at `place`; or why that is not possible here.
    pub fn new(kind: Kind, place: &Path) -> Result<Self, String> {
        fs::create_dir_all(place).unwrap();
        let at = place.to_str().expect("paths of tests are text");
        let size = kind.bytes();
        let mounted = if kind == Kind::Tmpfs {
            run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tern-test", at])
        } else {
            let image = place.with_extension("image");
            File::create(&image).unwrap().set_len(size).unwrap();
            let from = image.to_str().expect("paths of tests are text");
            kind.format(&image)
                .and_then(|()| run("mount", &["-t", kind.name(), "-o", "loop", from, at]))
        };
        mounted.map(|()| Self { place: place.into() })
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = statvfs(&self.place).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes room until so many bytes are left, or as few as the file system lets it; gives the
    /// file that holds them.
    pub fn fill(&self, name: &str, leave: u64) -> PathBuf {
        let path = self.place.join(name);
        let file = File::create(&path).unwrap();
        let mut step: u64 = 16 << 20;
        let mut len = 0;
        while step >= 4096 {
            // What is free to root alone goes too when nothing is to be left.
            let most = if leave == 0 { step } else { self.free().saturating_sub(leave).min(step) };
            if most < 4096 || fallocate(&file, FallocateFlags::empty(), len, most).is_err() {
                step /= 2;
                continue;
            }
            len += most;
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.place.to_str().expect("paths of tests are text");
        // Lazily, so that a failed test leaves no mount behind even if its server still lives.
        let _ = run("umount", &["-l", at]);
    }
}

/// Runs a tool; if it fails or is not there, what it said.
fn run(tool: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{tool}: {}", said.trim().replace('\n', "; ")))
        }
        Err(error) => Err(format!("{tool}: {error}")),
    }
}
