//! Everything that belongs to one shard, from the start on.

use std::sync::Arc;

use crate::commit::CommitHandle;
use crate::dedup::Supply;
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

impl std::fmt::Debug for ShardContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShardContext({:?})", self.shared.id)
    }
}
