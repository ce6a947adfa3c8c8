//! Where is my message? What the log and the flight recorder say of one, put together: beside a
//! running server or about a folder whose server is gone. `tern trace` prints it.
//!
//! The log knows what became of the message for good; the recorder knows what happened when, to
//! which device, as far as that was not overwritten. Neither is changed by the look.

mod log;
mod moments;
mod window;

pub use log::{Damage, Fate, LogSays, Logged, Mention, Proof, search};
pub use moments::{DeviceStory, Moment, Recorded};

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tern_core::moments::Happened;
use tern_protocol::{ChannelId, MessageId, Uin};
use tern_storage::{RecordingError, What, inspect, recording_path};

use crate::folder::DataFolder;

/// All that is known of a message.
#[derive(Debug)]
pub struct Trace {
    /// Its channel.
    pub channel: ChannelId,
    /// Its number there.
    pub id: MessageId,
    /// What the log says.
    pub log: LogSays,
    /// What the flight recorder says, or why nothing.
    pub recorded: Result<Recorded, RecordingError>,
}

/// Looks for all that is known of a message. `shared_memory` is where the recorder would be if no
/// link in the folder says it.
///
/// # Errors
/// When the folder is none, or its log can't be read.
pub fn look(
    data: &Path,
    shared_memory: &Path,
    channel: ChannelId,
    id: MessageId,
) -> io::Result<Trace> {
    let folder = inspect::read_folder(data).map_err(io::Error::other)?.id;
    let log = search(data, channel, id)?;
    let found = match &log.fate {
        Fate::Found(found) => Some(&**found),
        _ => None,
    };
    let places = recordings(data, shared_memory, &folder);
    let read = |path: &PathBuf| Recorded::read(path, &folder, channel, id, found);
    let mut recorded = Err(RecordingError::Missing);
    for place in &places {
        recorded = read(place);
        if !matches!(recorded, Err(RecordingError::Missing)) {
            break;
        }
    }
    Ok(Trace { channel, id, log, recorded })
}

impl Trace {
    /// Whether the recorder saw the message proven durable.
    pub fn is_committed(&self) -> bool {
        let mut moments = self.recorded.iter().flat_map(|recorded| &recorded.moments);
        let committed = What::Happened(Happened::Committed(self.id));
        moments.any(|moment| moment.entry.what == committed)
    }

    /// The users concerned: the members of a direct channel, the sender, and whoever had moments.
    pub fn users(&self) -> BTreeSet<Uin> {
        let members = self.channel.members().map(|(low, high)| [low, high]);
        let sender = match &self.log.fate {
            Fate::Found(found) => Some(found.sender),
            _ => None,
        };
        let recorded = self.recorded.iter().flat_map(|recorded| &recorded.moments);
        let seen = recorded.filter_map(|moment| moment.entry.device.map(|device| device.uin));
        members.into_iter().flatten().chain(sender).chain(seen).collect()
    }
}

/// Where the recording may be, best first.
fn recordings(data: &Path, shared_memory: &Path, folder: &tern_storage::Id) -> Vec<PathBuf> {
    let linked = DataFolder::recording_link_of(data);
    let linked = std::fs::read_link(linked).ok();
    let places = [shared_memory, data].map(|place| recording_path(place, folder));
    linked.into_iter().chain(places).collect()
}
