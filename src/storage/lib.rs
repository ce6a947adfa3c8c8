//! What Tern keeps: each shard's log in mapped segments, made durable in groups, and the
//! deduplication table in shared memory. FORMAT.md describes every byte.
//!
//! In the order of a start, then of a message, then of old age:
//!
//! 1. `folder`: who has the data folder, and what it was made as; `disk`: the door to files.
//! 2. `storage`: the threads, and one `shard` for each of them; `steps`: their work without them.
//! 3. `format`, `header`: what records and segments look like.
//! 4. `recovery`: where does a shard's log end, what does it say, and what of it is lost?
//! 5. `dedup`: the table that a killed process left, or a new one.
//! 6. `log`: a record goes into the batch in memory; write, sync, proof; any worker reads what is
//!    durable, in place, and never waits for the disk.
//! 7. `segment`: the next one is ready before it is needed; a page of a mapping that can't be given.
//!    `io`: what is cold is read before it is needed.
//! 8. `upkeep`: when a `checkpoint` is made and which segments go, by a clock that is confirmed.
//! 9. [`backup`]: a consistent copy while all of this runs, and the way back; [`repair`]: what to
//!    accept as lost.
//! 10. `recorder`: what happened to messages lately, beside the log and worth nothing to it.
//! 11. [`inspect`]: tools look at a folder from outside.
//!
//! A record is copied once, into the batch; readers borrow it from the mapping. All `unsafe` is in
//! `segment/map`, `segment/sigbus`, `dedup/region`, `recorder/map` and `log/slice`.
#![deny(unsafe_code)]

mod disk;
mod error;
mod folder;

mod shard;
mod shared;
mod stats;
mod steps;
mod storage;

mod format;
mod header;

mod recovery;

mod dedup;

mod log;

mod io;
mod segment;

mod checkpoint;
mod upkeep;

pub mod backup;
pub use recovery::repair;

mod recorder;

pub mod inspect;

pub use checkpoint::{CheckpointError, CheckpointHeader, RowKey};
pub use dedup::{ShmTable, TableFacts, TableView, TornEntry};
pub use disk::{Disk, DiskFile, RealDisk, Space};
pub use error::{FolderError, IoError, RecoverError};
pub use folder::{Folder, FolderOptions, SHARDS_DEFAULT};
pub use format::{BODY_BYTES_MAX, FORMAT_VERSION, Id, RECORD_HEADER_BYTES};
pub use header::{Durability, SEGMENT_HEADER_BYTES};
pub use io::{IoHandle, Warmed};
pub use log::commit::Wake;
pub use log::reader::{MappedReader, WARM_BYTES};
pub use log::{MappedLog, PENDING_BYTES_MAX};
pub use recorder::{
    Carrier, Entry, Recorder, Recording, RecordingError, RingFacts, Stamp, What, read_recording,
    recording_path, remove_recording,
};
pub use recovery::loss::{Loss, Lost};
pub use recovery::visitor::Visitor;
pub use recovery::{Opened, Raised, RecoveryReport, ShardScan};
pub use segment::sigbus::guard_mappings;
pub use shared::ReadFault;
pub use stats::ShardStats;
pub use steps::{Step, Steps};
pub use storage::{
    CHECKPOINT_BYTES_MIN, FREE_BYTES_MIN, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, Storage, StorageConfig,
};
pub use upkeep::clock::{ClockFacts, ClockSource, Reading, SystemClock};
pub use upkeep::{CheckpointFacts, Eviction, Limit, ShardUpkeep, SpaceReport};
