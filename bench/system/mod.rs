//! What is measured: a Tern server as a child process, or one that was found running. Another
//! system gets a file of its own here, and a device of its own in the load.

mod control;
mod server;
mod status;

pub use control::from_hex;
pub use server::{Cores, Plan, Server, on_cores};
pub use status::Status;
