//! Measures a Tern server from outside: a child process, real sockets, a real disk, and the
//! kernel's own figures of what it cost.
//!
//! In comes a command line ([`cli`]), out go a table for people and JSON for machines
//! ([`report`]). In between a `scenario` has processes of their own (`loader`) lay a [`load`]
//! on a [`system`] and reads the kernel's books ([`measure`]). A scenario returns figures and never
//! prints them; the report prints and never measures.
//!
//! `tern-bench` is the command; the comparison with other systems lays the same load and reads the
//! same books.
//!
//! Invariants worth naming: the schedule of the load never depends on an answer, so a stall of the
//! server shows in every message that was due in it; whatever a device was refused ends the run,
//! so no figure stands for messages that were not delivered; nothing here reads a file of the
//! server's source, so an older `tern` is measured by the same tool.
#![forbid(unsafe_code)]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the heads of rooms speak to those who read the source; outside, few names are used"
)]

pub mod cli;
pub mod error;

mod scenario;

pub mod load;
mod loader;

mod floor;

pub mod replay;

pub mod system;

pub mod measure;

pub mod report;

mod progress;

pub use scenario::OTHERS;
