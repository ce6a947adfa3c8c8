//! `tern repair`: what is damaged in the logs, and accepting it as lost.
//!
//! Without `--accept` nothing is changed. Accepting is about what stops a log: state, or what may
//! have been state. Damaged messages need nothing, since readers step over them.

use tern_storage::repair::{Plan, plan};
use tern_storage::{Folder, FolderOptions};

use super::{Exit, FolderArgs, fail, print};
use crate::folder::{DataFolder, FolderError};

/// The command line of `tern repair`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept what is listed as lost, for good
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &Args) -> Exit {
    repair(args).unwrap_or_else(|exit| exit)
}

fn repair(args: &Args) -> Result<Exit, Exit> {
    let data = args.folder.options()?.data;
    let failed = |error: &dyn std::fmt::Display| fail(Exit::Failed, error);
    // A folder that is none must not be made by the look at it.
    tern_storage::inspect::read_folder(&data).map_err(|error| failed(&error))?;
    let own = DataFolder::open(&data).map_err(|error| failed(&error))?;
    let _lock = own.lock().map_err(|error| match &error {
        FolderError::InUse { .. } => fail(Exit::InUse, error),
        FolderError::Io { .. } | FolderError::Content { .. } => failed(&error),
    })?;
    let logs = Folder::open(&data, FolderOptions::default()).map_err(|error| failed(&error))?;
    let (mut stopped, mut beyond) = (Vec::new(), 0);
    for shard in logs.shard_ids() {
        match plan(&logs, shard) {
            Ok(plan) => {
                print(&told(&plan));
                stopped.extend(plan.is_stopped().then_some(plan));
            }
            Err(error) => {
                beyond += 1;
                failed(&format!("shard {}: {error}", shard.0));
            }
        }
    }
    match (stopped.is_empty(), args.accept) {
        (true, _) => print("nothing has to be accepted\n"),
        (false, false) => {
            return Err(failed(&format!(
                "nothing was changed. If no backup has these files, `tern repair --data {} \
                 --accept` accepts the losses of {} shards",
                data.display(),
                stopped.len()
            )));
        }
        (false, true) => {
            for plan in &stopped {
                let file = plan.accept(&logs).map_err(|error| failed(&error))?;
                print(&format!("shard {}: accepted in {}\n", plan.shard.0, file.display()));
            }
            Exit::Ok
        }
    };
    Ok(if beyond == 0 { Exit::Ok } else { Exit::Failed })
}

/// What is lost of a shard, and what accepting it means.
fn told(plan: &Plan) -> String {
    let shard = plan.shard.0;
    if plan.losses.is_empty() {
        return format!("shard {shard}: nothing is damaged\n");
    }
    let mut text = String::new();
    for loss in &plan.losses {
        let becomes = match (loss.accepted, loss.stops) {
            (true, _) => "accepted earlier",
            (false, true) => "stops the log",
            (false, false) => "told to readers as lost; the log goes on",
        };
        text += &format!("shard {shard}: {loss}: {becomes}\n");
    }
    if plan.is_stopped() {
        text += &format!(
            "shard {shard}: takes nothing until what stops it is accepted. Then its history goes on \
             as incarnation {}: devices hear from which message on it is void, message ids behind \
             the damage may be given once more, and all that can be read stays\n",
            plan.next_incarnation()
        );
    }
    text
}
