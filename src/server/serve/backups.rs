//! Backups of the running server: one at a time, on a thread of its own.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_storage::IoError;
use tern_storage::backup::LogSnapshot;

use crate::backup::{self, BackupState, Share};
use crate::folder::DataFolder;

/// The backup that is under way, or was the last.
pub(super) struct Backups {
    data: DataFolder,
    newest: Arc<Mutex<Option<BackupState>>>,
}

impl Backups {
    pub(super) fn new(data: DataFolder) -> Self {
        Self { data, newest: Arc::default() }
    }

    pub(super) fn state(&self) -> Option<BackupState> {
        lock(&self.newest).clone()
    }

    /// Begins one of the logs that `snapshot` takes, if they are open.
    pub(super) fn begin(
        &self,
        to: &Path,
        snapshot: impl FnOnce() -> Option<Result<LogSnapshot, IoError>>,
    ) -> Result<(), String> {
        let mut newest = lock(&self.newest);
        if let Some(BackupState::Copying(_) | BackupState::Verifying(_)) = &*newest {
            return Err("a backup is under way; `tern backup` again when it has ended".to_owned());
        }
        let to = backup::prepare(&self.data, to).map_err(|error| error.to_string())?;
        let snapshot =
            snapshot().ok_or("the server goes down")?.map_err(|error| error.to_string())?;
        *newest = Some(BackupState::Copying(Share { bytes: 0, of: snapshot.bytes() }));
        let (data, state) = (self.data.clone(), Arc::clone(&self.newest));
        let run = move || {
            let mut tell = |now| *lock(&state) = Some(now);
            let made = backup::make(&data, &snapshot, to, &mut tell);
            tell(
                made.map_or_else(|error| BackupState::Failed(error.to_string()), BackupState::Done),
            );
        };
        let thread = std::thread::Builder::new().name("tern-backup".to_owned()).spawn(run);
        if let Err(error) = thread {
            *newest = None;
            return Err(format!("the system refuses a thread: {error}"));
        }
        Ok(())
    }
}

/// What is in it is replaced whole, so a panic elsewhere spoils nothing.
fn lock(state: &Mutex<Option<BackupState>>) -> MutexGuard<'_, Option<BackupState>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
