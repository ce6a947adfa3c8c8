//! The deduplication table: a cache in shared memory of what the log says of each device, so that
//! a process that was killed finds it again.
//!
//! - `memory`: the integers of a table, mapped or under a model checker.
//! - [`slot`]: one device's place, whole or visibly not; [`probe`]: how a device is found, and
//!   taken out.
//! - [`region`]: a file as an array of slots (the `unsafe` is there).
//! - [`supply`]: where such files come from; making one waits for the kernel, so the I/O thread
//!   does it.
//! - [`ShmTable`]: open addressing over one of them, or over two while the table grows.
//! - [`attach`]: whether a table that was left behind can be believed.

mod memory;
mod probe;
mod slot;

mod region;
mod supply;

mod attach;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use attach::Attached;
pub(crate) use supply::{Supply, TableIdentity, table_name};
pub use table::ShmTable;
#[cfg(test)]
pub(crate) use tests::spawn;
pub use view::{TableFacts, TableView, TornEntry};
