//! Everything that belongs to one shard, from the start on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dedup::{Supply, TableIdentity};
use crate::disk::Disk;
use crate::io::IoHandle;
use crate::log::commit::CommitHandle;
use crate::segment::prepare::{Limits, Preparer, RunIdentity};
use crate::shared::ShardShared;
use crate::upkeep::clock::ConfirmedClock;
use crate::upkeep::keeper::Keeper;

/// What recovery needs of a shard, and hands on to the log.
pub(crate) struct ShardContext {
    pub(crate) shared: Arc<ShardShared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) run: RunIdentity,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) keeper: Keeper,
    pub(crate) committer: CommitHandle,
    pub(crate) io: IoHandle,
}

/// What all shards of a folder have in common.
pub(crate) struct Common {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) run: RunIdentity,
    pub(crate) clock: Arc<ConfirmedClock>,
    /// How many shards.
    pub(crate) shards: u16,
    /// Where their tables may be, best first.
    pub(crate) table_dirs: Vec<PathBuf>,
    pub(crate) io: IoHandle,
}

impl ShardContext {
    /// A shard that is not open yet.
    pub(crate) fn new(shared: Arc<ShardShared>, common: &Common, committer: CommitHandle) -> Self {
        let Common { run, io, .. } = common;
        let disk = || Arc::clone(&common.disk);
        let limits = || Arc::clone(&common.limits);
        let ours = || Arc::clone(&shared);
        let clock = Arc::clone(&common.clock);
        let identity = TableIdentity { folder: run.folder, shard: shared.id.0, boot: run.boot };
        Self {
            preparer: Arc::new(Preparer::new(ours(), disk(), limits(), *run, clock)),
            supply: Arc::new(Supply::new(identity, common.table_dirs.clone(), io.clone())),
            keeper: Keeper::new(ours(), disk(), limits(), *run, common.shards),
            disk: disk(),
            limits: limits(),
            run: *run,
            committer,
            io: io.clone(),
            shared,
        }
    }
}

impl std::fmt::Debug for ShardContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShardContext({:?})", self.shared.id)
    }
}
