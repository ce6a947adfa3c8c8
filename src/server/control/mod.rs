//! The control plane: what an operator asks of a server, beside the way of the messages.
//!
//! One thread with one tokio runtime runs the directory's [`service`](crate::directory::service),
//! the signals, and a unix socket in the data folder that the `tern` commands speak to: one
//! request and one response a line, in JSON. It reaches workers by message only, through
//! [`Server`].
//!
//! Requests about accounts work without a server too: then the command takes the folder's lock
//! and does the same to the same store ([`accounts`]).

pub mod access;
pub mod accounts;
mod chores;
pub mod client;
mod connection;
mod plane;
pub mod presence;
pub mod protocol;
mod socket;
pub mod status;

use std::path::Path;
use std::pin::Pin;

use tern_protocol::{Code, DeviceId, Uin};

pub use plane::{Control, ControlError, Parts, Stop};
use presence::Presence;
use status::Status;

use crate::backup::BackupState;

/// Looks at devices, which takes the workers a turn each.
pub type Seeing = Pin<Box<dyn Future<Output = Option<Vec<Presence>>> + Send>>;

/// What the control plane asks of the server it belongs to; nothing of it waits.
pub trait Server: Send + Sync + 'static {
    /// Ends the sessions of a user, or of one device, on all workers.
    fn kick(&self, uin: Uin, device: Option<DeviceId>, code: Code);

    /// Has the workers publish their figures, which takes them a moment.
    fn refresh(&self);

    /// How the server does, by the figures published last.
    fn status(&self) -> Status;

    /// Where the devices of these users are, and when they logged in; `None` if that can't be
    /// seen now.
    fn presences(&self, uins: Vec<Uin>) -> Seeing;

    /// Begins a backup into a folder.
    ///
    /// # Errors
    /// When one is under way, or it can't go there; the words are for people.
    fn begin_backup(&self, to: &Path) -> Result<(), String>;

    /// How far the newest backup is, if there was one.
    fn backup_state(&self) -> Option<BackupState>;

    /// Goes down in order.
    fn stop(&self, why: Stop);
}
