//! What a device must remember through a crash: its sends that are not settled, how far each
//! channel is consumed and read, for each kind of network the round-trip time it last saw and the
//! heartbeat's interval that last worked, and at which addresses it found its server.
//!
//! Not stored, on purpose: a resume token and the next counter. Restored from a backup or copied
//! to another phone they would give a key that was used to another message; instead each process
//! logs in for an epoch of its own.

mod disk;
mod mail;
mod memory;
#[cfg(test)]
mod power;

use tern_protocol::frames::Network;

use crate::machine::{Change, Saved};
use crate::mailbox::{KeptMessage, Mail, MailQuery};
use crate::servers::KnownServer;

pub use disk::DiskStore;
pub use memory::MemoryStore;

/// Keeps what the machine asks to be kept.
pub trait Store: Send {
    /// Everything that is stored.
    ///
    /// # Errors
    /// When it can't be read.
    fn load(&mut self) -> Result<Saved, StoreError>;

    /// Makes all of these changes durable, in order, or none of them.
    ///
    /// # Errors
    /// When that is not sure; the store is not used any more then.
    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Whether it keeps messages too, see [`crate::mailbox`].
    fn keeps_mail(&self) -> bool {
        false
    }

    /// Makes these changes durable together with those of the mailbox, or none of them.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    fn apply_mail(&mut self, changes: &[Change], mail: &[Mail]) -> Result<(), StoreError> {
        assert!(mail.is_empty(), "a store that keeps no mail is given none");
        self.apply(changes)
    }

    /// A page of the mailbox, the newest first; nothing, if it keeps none.
    ///
    /// # Errors
    /// When it can't be read.
    fn mail(&mut self, _query: &MailQuery) -> Result<Vec<KeptMessage>, StoreError> {
        Ok(Vec::new())
    }

    /// The round-trip time last seen on this kind of network, in milliseconds.
    ///
    /// # Errors
    /// When it can't be read.
    fn rtt_ms(&mut self, network: Network) -> Result<Option<u32>, StoreError>;

    /// Remembers a round-trip time in milliseconds; may be lost in a crash.
    ///
    /// # Errors
    /// When it can't be written.
    fn set_rtt_ms(&mut self, network: Network, rtt_ms: u32) -> Result<(), StoreError>;

    /// The addresses at which the device has logged in, the last one first.
    ///
    /// # Errors
    /// When they can't be read.
    fn servers(&mut self) -> Result<Vec<KnownServer>, StoreError>;

    /// Remembers these addresses in place of those before, durably.
    ///
    /// # Errors
    /// When they can't be written.
    fn set_servers(&mut self, known: &[KnownServer]) -> Result<(), StoreError>;
}

/// Why a store can't be used.
#[derive(Debug)]
pub enum StoreError {
    /// The database refuses; what it says.
    Database(Box<dyn std::error::Error + Send + Sync>),
    /// It belongs to another device: the numbers of both.
    OtherDevice {
        /// User and device for whom it was opened.
        wanted: (u64, u32),
        /// User and device whose it is.
        found: (u64, u32),
    },
    /// It was written by another version of this client: the number of its format.
    Format(u32),
    /// A row is not what was written: which.
    Damaged(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Database(error) => write!(f, "the device's store: {error}"),
            Self::OtherDevice { wanted, found } => write!(
                f,
                "the device's store belongs to {}.{}, not to {}.{}; each device needs a file of \
                 its own",
                found.0, found.1, wanted.0, wanted.1
            ),
            Self::Format(format) => write!(
                f,
                "the device's store has format {format}, which this version does not know; \
                 update the client"
            ),
            Self::Damaged(row) => write!(
                f,
                "the device's store is damaged at {row}; add a new device to the user, the \
                 server still has its messages"
            ),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(&**error),
            Self::OtherDevice { .. } | Self::Format(_) | Self::Damaged(_) => None,
        }
    }
}
