//! What Tern keeps: each shard's log in mapped segments, made durable in groups, and the
//! deduplication table in shared memory. FORMAT.md describes every byte.
//!
//! In the order of a start, then of a message:
//!
//! 1. `folder`: who has the data folder, and what it was made as; `disk`: the door to files.
//! 2. `storage`: the threads. `scan`: where does a shard's log end? `recovery`: what does it say?
//! 3. `dedup`: the table that a killed process left, or a new one.
//! 4. `log`: a record goes into the `batch` in memory; `commit`: write, sync, proof.
//! 5. `prepare`, `io`: the next `segment` is ready before it is needed.
//! 6. `reader`: any worker reads what is durable, in place, and never waits for the disk.
//! 7. [`backup`]: a consistent copy while all of this runs, and the way back.
//! 8. [`inspect`]: tools look at a folder from outside.
//!
//! A record is copied once, into the batch; readers borrow it from the mapping (`map`), also where
//! a page of it can't be given (`sigbus`). All `unsafe` is in these two and in the region
//! of `dedup`.
#![deny(unsafe_code)]

mod disk;
mod error;
mod folder;
mod owner;

mod accepted;
mod loss;
mod recovery;
mod replay;
mod scan;
mod shard;
mod shared;
mod stats;
mod storage;
mod verdict;
mod visitor;

mod dedup;

mod batch;
mod commit;
mod format;
mod header;
mod log;

mod io;
mod map;
mod prepare;
mod segment;
mod sigbus;

mod reader;
mod salvage;

mod checkpoint;
mod clock;
mod keeper;
mod maintain;
mod retention;
mod upkeep;

pub mod backup;
pub mod repair;

pub mod inspect;

pub use checkpoint::{CheckpointError, CheckpointHeader, RowKey};
pub use clock::{ClockFacts, ClockSource, Reading, SystemClock};
pub use commit::Wake;
pub use dedup::{ShmTable, TableFacts, TableView, TornEntry};
pub use disk::{Disk, DiskFile, RealDisk, Space};
pub use error::{FolderError, IoError, RecoverError};
pub use folder::{Folder, FolderOptions, SHARDS_DEFAULT};
pub use format::{BODY_BYTES_MAX, FORMAT_VERSION, Id, RECORD_HEADER_BYTES};
pub use header::{Durability, SEGMENT_HEADER_BYTES};
pub use io::{IoHandle, Warmed};
pub use log::{MappedLog, PENDING_BYTES_MAX};
pub use loss::{Loss, Lost};
pub use reader::{MappedReader, WARM_BYTES};
pub use recovery::{Opened, Raised, RecoveryReport, ShardScan};
pub use shared::ReadFault;
pub use sigbus::guard_mappings;
pub use stats::ShardStats;
pub use storage::{
    CHECKPOINT_BYTES_MIN, FREE_BYTES_MIN, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, Storage, StorageConfig,
};
pub use upkeep::{CheckpointFacts, Eviction, Limit, ShardUpkeep, SpaceReport};
pub use visitor::Visitor;
