//! What is measured: today a Tern server as a child process. Another system gets a file of its
//! own here, and a device of its own in the load.

mod control;
mod server;
mod status;

pub use server::{Cores, Plan, Server, on_cores};
pub use status::Status;
