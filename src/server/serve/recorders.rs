//! The flight recorder of a server: one file for all workers, in shared memory, and a link in the
//! data folder that leads there, since a command may not know what the server was started with.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tern_storage::{Id, Recorder, recording_path, remove_recording};

use crate::folder::DataFolder;
use crate::options::Options;

/// A part of the recorder for each worker; none if it is off or can't be had, which costs nothing
/// but what it would tell.
pub(super) fn open(options: &Options, data: &DataFolder, id: &Id, workers: u16) -> Vec<Recorder> {
    let places = [options.shared_memory.clone(), data.path().to_owned()];
    if options.trace_bytes == 0 {
        places.iter().for_each(|place| remove_recording(place, id));
        let _ = std::fs::remove_file(data.recording_link()); // there is none, most of the time
        return Vec::new();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = now.as_millis() as u64; // 584 million years
    let opened = Recorder::open_all(&places, id, workers, options.trace_bytes, now_ms);
    let opened = opened.and_then(|(place, all)| link(data, &place, id).map(|()| all));
    opened.unwrap_or_else(|error| {
        tracing::warn!(%error, "no flight recorder: `tern trace` will know the logs alone");
        Vec::new()
    })
}

fn link(data: &DataFolder, place: &Path, id: &Id) -> io::Result<()> {
    let link = data.recording_link();
    let target = std::path::absolute(recording_path(place, id))?;
    if std::fs::read_link(&link).is_ok_and(|before| before == target) {
        return Ok(());
    }
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, link),
    }
}
