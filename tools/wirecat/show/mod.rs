//! Events for people and programs.
//!
//! - [`fields`]: what a frame's bytes say, field by field, by the registry.
//! - [`filter`]: which events are wanted.
//! - [`text`], [`json`]: a line for each.
//! - [`extract`]: what clients said, to be said again.
//! - [`table`]: the statistics.
//! - [`life`]: what became of one message, as a sequence; [`svg`] draws it.

pub mod fields;
mod tails;

pub mod filter;

pub mod json;
pub mod text;

pub mod extract;

pub mod table;

pub mod life;
pub mod svg;

pub use filter::Filter;
