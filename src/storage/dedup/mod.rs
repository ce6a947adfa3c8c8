//! The deduplication table: a cache in shared memory of what the log says of each device, so that
//! a process that was killed finds it again.
//!
//! - [`slots`]: a file as an array of slots, each whole or visibly not (the `unsafe` is there).
//! - [`supply`]: where such files come from; making one waits for the kernel, so the I/O thread
//!   does it.
//! - [`ShmTable`]: open addressing over one of them, or over two while the table grows.
//! - [`attach`]: whether a table that was left behind can be believed.

mod attach;
mod slots;
mod supply;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use attach::Attached;
pub(crate) use supply::{Supply, TableIdentity, table_name};
pub use table::ShmTable;
pub use view::{TableFacts, TableView, TornEntry};
