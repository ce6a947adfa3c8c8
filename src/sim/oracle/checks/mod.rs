//! The checks, one promise a file. Each is told what happened and says what is wrong with it.

mod acked;
pub mod blocks;
mod bounds;
mod cursors;
mod delivery;
mod durable;
mod epochs;
mod fenced;
mod flow;
pub mod groups;
pub mod histories;
mod honesty;
pub(crate) mod ids;
mod keys;
mod logs;
pub mod marks;
mod members;
mod newcomers;
mod order;
pub mod recalls;
mod steps;

pub use acked::Acked;
pub use blocks::Blocks;
pub use bounds::Bounds;
pub use cursors::Cursors;
pub use delivery::Delivery;
pub use durable::{is_durable, survives};
pub use epochs::Epochs;
pub use fenced::Fenced;
pub use flow::Flow;
pub use histories::Histories;
pub use honesty::{Due, Honesty};
pub use ids::Ids;
pub use keys::Keys;
pub use logs::Logs;
pub use marks::Marks;
pub use members::{by_member, to_member};
pub use newcomers::Newcomers;
pub use order::in_order;
pub use recalls::Recalls;
pub use steps::Steps;

/// What a check says: nothing, or what is wrong.
pub type Verdict = Result<(), String>;

/// Says what is wrong unless `holds`.
pub(crate) fn demand(holds: bool, wrong: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(wrong()) }
}
