//! Bad disks, behind the door by which storage changes files.
//!
//! 1. [`quick`]: the file system without its syncs.
//! 2. [`model`]: what may be on a disk after a power cut: each file as of its last sync with any
//!    subset of the later pieces, each folder as of its last sync with any of the later names.
//! 3. [`trace`]: a disk that writes down all that is asked of it, so that a test can cut the power
//!    after any entry of the list.
//! 4. [`power`]: a disk that lives through power cuts, failed syncs, want of room and the death of
//!    its process, for a simulator.
//!
//! Files stand in a real folder, since storage reads them through mappings; what of them is
//! durable stands in memory. For tests alone: what should never go wrong panics.
#![forbid(unsafe_code)]

pub mod quick;

pub mod model;

pub mod trace;

pub mod power;
