//! Everything that belongs to one shard, from the start on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::commit::CommitHandle;
use crate::dedup::{Supply, TableIdentity};
use crate::disk::Disk;
use crate::io::IoHandle;
use crate::prepare::{Limits, Preparer, RunIdentity};
use crate::shared::ShardShared;

/// What recovery needs of a shard, and hands on to the log.
pub(crate) struct ShardContext {
    pub(crate) shared: Arc<ShardShared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) run: RunIdentity,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) committer: CommitHandle,
    pub(crate) io: IoHandle,
}

impl ShardContext {
    /// A shard that is not open yet. `dirs` are where its table may be, best first.
    pub(crate) fn new(
        shared: Arc<ShardShared>,
        disk: Arc<dyn Disk>,
        limits: Arc<Limits>,
        run: RunIdentity,
        dirs: Vec<PathBuf>,
        committer: CommitHandle,
        io: &IoHandle,
    ) -> Self {
        let (ours, files) = (Arc::clone(&shared), Arc::clone(&disk));
        let identity = TableIdentity { folder: run.folder, shard: shared.id.0, boot: run.boot };
        Self {
            preparer: Arc::new(Preparer::new(ours, files, Arc::clone(&limits), run)),
            supply: Arc::new(Supply::new(identity, dirs, io.clone())),
            shared,
            disk,
            limits,
            run,
            committer,
            io: io.clone(),
        }
    }
}

impl std::fmt::Debug for ShardContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShardContext({:?})", self.shared.id)
    }
}
