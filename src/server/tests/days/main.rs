//! Days in the life of devices and their server, over real sockets to the real binary: phones that
//! move, clocks that jump, profiles that were copied, crowds that come at once, and all of it
//! together. Sizes grow with `TERN_SOAK`.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]
#![allow(clippy::print_stdout, reason = "a test tells its figures")]

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod crowd;
mod device;

mod clocks;
mod copies;
mod drain;
mod limits;
mod phone;
mod soak;
mod storms;
mod whereabouts;
