//! Where the workers keep the lists of live connections that a later process reads after a crash:
//! in shared memory, which outlives the process and costs no disk.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tern_client::hex;

use crate::folder::{DataFolder, FOLDER_MODE};

/// The folder for the lists of this data folder, made if absent: in shared `memory` under the data
/// folder's `id`, which nobody else can guess, or, where that can't be had, in the data folder.
pub(super) fn folder(memory: &Path, data: &DataFolder, id: &[u8]) -> io::Result<PathBuf> {
    let shared = memory.join(format!("tern-{}-peers", hex::encode(id)));
    match make_own(&shared) {
        Ok(()) => Ok(shared),
        Err(error) => {
            tracing::info!(%error, "no shared memory for the lists of connections");
            let path = data.path().join("peers");
            make_own(&path).map(|()| path)
        }
    }
}

/// After an orderly end nothing is left to tell: removes the folder.
pub(super) fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        tracing::info!(%error, path = %folder.display(), "the lists of connections stay");
    }
}

/// Makes a folder that only this user may enter, or takes one that is so.
fn make_own(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = std::fs::symlink_metadata(path)?;
    let own = found.uid() == rustix::process::geteuid().as_raw();
    match found.is_dir() && own && found.mode() & 0o777 == FOLDER_MODE {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} is not this server's own", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_folder_of_our_own() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("lists");
        make_own(&path).expect("made");
        make_own(&path).expect("taken again");
        let link = parent.path().join("link");
        symlink(&path, &link).expect("linked");
        make_own(&link).expect_err("somebody else may have put it there");
    }
}
