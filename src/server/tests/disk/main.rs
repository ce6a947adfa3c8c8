//! Bad disks under the real binary: file systems that are full, that lose what was not synced,
//! and that fail single calls. What was acked is there in the end, once; nothing is acked that is
//! not; a server that can't go on says why.
//!
//! Some of it needs the right to mount, FUSE, or strace. Where one of them is missing the test
//! says `SKIPPED` and why, and passes. Sizes grow with `TERN_SOAK`.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]
#![allow(clippy::print_stdout, reason = "a test tells its figures")]

#[path = "../../cli/demo/ledger/mod.rs"]
#[allow(dead_code, reason = "the demo uses the rest of its judge")]
mod ledger;
#[path = "../support/lines.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod lines;
#[path = "../support/mod.rs"]
mod support;

mod drop;
mod mount;
mod writer;

mod bound;
mod cold;
mod descriptors;
mod full;
mod inject;
mod power;
