//! `tern backup`: a verified copy of a data folder, while its server runs or without one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tern_storage::backup::LogSnapshot;
use tern_storage::{Folder, FolderOptions};

use super::folder::strange;
use super::{Exit, FolderArgs, fail, print};
use crate::backup::{self, BackupError, BackupReport, BackupState, Share};
use crate::control::client::Client;
use crate::control::protocol::{Reply, Request};
use crate::folder::{DataFolder, FolderError};

/// The command line of `tern backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to: a folder that is not there, or is empty; best on another disk
    #[arg(value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Time between two questions to the server, in milliseconds.
const ASK_MS: u64 = 50;

pub(super) fn run(args: &Args) -> Exit {
    make(args).unwrap_or_else(|exit| exit)
}

fn make(args: &Args) -> Result<Exit, Exit> {
    let data = args.folder.options()?.data;
    if !data.is_dir() {
        return Err(fail(Exit::Failed, BackupError::NoData(data)));
    }
    let failed = |error: &dyn std::fmt::Display| fail(Exit::Failed, error);
    let folder = DataFolder::open(&data).map_err(|error| failed(&error))?;
    let to = std::path::absolute(&args.to).map_err(|error| failed(&error))?;
    let report = match Client::connect(&folder) {
        Ok(Some(client)) => of_running(client, to.clone())?,
        Ok(None) => of_closed(&folder, &to)?,
        Err(error) => return Err(failed(&format!("the control socket can't be used: {error}"))),
    };
    Ok(print(&told(&report, &to)))
}

fn of_running(mut client: Client, to: PathBuf) -> Result<BackupReport, Exit> {
    let mut progress = Progress::default();
    let mut request = Request::Backup(to);
    loop {
        match client.ask(&request) {
            Ok(Reply::Backup(Some(BackupState::Done(report)))) => return Ok(report),
            Ok(Reply::Backup(Some(BackupState::Failed(reason)))) => {
                return Err(fail(Exit::Failed, reason));
            }
            Ok(Reply::Backup(Some(state))) => progress.show(&state),
            Ok(other) => return Err(strange(&other)),
            Err(error) => return Err(fail(Exit::Failed, error)),
        }
        request = Request::BackupState;
        std::thread::sleep(Duration::from_millis(ASK_MS));
    }
}

fn of_closed(folder: &DataFolder, to: &Path) -> Result<BackupReport, Exit> {
    let _lock = folder.lock().map_err(|error| match &error {
        FolderError::InUse { .. } => fail(Exit::InUse, error),
        FolderError::Io { .. } | FolderError::Content { .. } => fail(Exit::Failed, error),
    })?;
    let make = || {
        tern_storage::inspect::read_folder(folder.path())?;
        let logs = Folder::open(folder.path(), FolderOptions::default())?;
        let to = backup::prepare(folder, to)?;
        let snapshot = LogSnapshot::of_closed(&logs);
        let snapshot = snapshot.map_err(tern_storage::backup::CopyError::Io)?;
        let mut progress = Progress::default();
        backup::make(folder, &snapshot, to, &mut |state| progress.show(&state))
    };
    make().map_err(|error: BackupError| fail(Exit::Failed, error))
}

fn told(report: &BackupReport, to: &Path) -> String {
    let BackupReport { files, bytes, records, took_ms, damages } = report;
    let mut text = format!(
        "backup of {records} records in {}: {files} files, {} MiB, written and read back in {took_ms} ms\n",
        to.display(),
        bytes >> 20,
    );
    for damage in damages {
        text += &format!(
            "note       the data folder itself is damaged, and so is its copy: {damage}\n"
        );
    }
    text + &format!("next       tern restore {} --data NEW-DIR, when it is needed\n", to.display())
}

/// Says on standard error how far it is, about once a second.
#[derive(Default)]
pub(super) struct Progress(Option<Instant>);

impl Progress {
    pub(super) fn show(&mut self, state: &BackupState) {
        let (what, Share { bytes, of }) = match state {
            BackupState::Copying(share) => ("copied", share),
            BackupState::Verifying(share) => ("verified", share),
            BackupState::Done(_) | BackupState::Failed(_) => return,
        };
        let begun = *self.0.get_or_insert_with(Instant::now);
        if begun.elapsed() >= Duration::from_secs(1) {
            self.0 = Some(Instant::now());
            super::output::note(&format!("{what} {} of {} MiB", bytes >> 20, of >> 20));
        }
    }
}
