//! `tern restore`: a backup becomes a data folder again.

use std::path::PathBuf;

use super::backup::Progress;
use super::output::time;
use super::{Exit, FolderArgs, fail, print};
use crate::backup::{BackupError, Restored, restore};

/// The command line of `tern restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `tern backup` made
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &Args) -> Exit {
    bring_back(args).unwrap_or_else(|exit| exit)
}

fn bring_back(args: &Args) -> Result<Exit, Exit> {
    let data = args.folder.options()?.data;
    let mut progress = Progress::default();
    let restored = restore(&args.backup, &data, &mut |state| progress.show(&state));
    let restored = restored.map_err(|error: BackupError| fail(Exit::Failed, error))?;
    let Restored { made_ms, tern, files, bytes, shards, jump, lives, counted } = restored;
    let data = data.display();
    if !counted {
        super::output::note(
            "the backup can't be written to, so another restore of it would not know of this one: \
             devices could take its history for this one's",
        );
    }
    Ok(print(&format!(
        "\
restored   {data}: {files} files, {} MiB, as they were at {} (tern {tern})
history    {shards} logs rise by {lives} incarnations at the next start: devices hear from which message
           on their history is void, and nothing that came after the backup is taken for delivered
numbers    the next {} uins and {} device numbers of each user are left out: they may be in use
next       tern serve --data {data}; the server that this is a copy of must not run any more
",
        bytes >> 20,
        time(made_ms),
        jump.uins,
        jump.devices,
    )))
}
