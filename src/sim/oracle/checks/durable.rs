//! Nothing is shown before it is durable: whatever leaves the server survives a power cut in the
//! same moment, or did until it was past its retention.

use super::{Verdict, demand};
use crate::disk::Disk;
use crate::oracle::truth::Place;

/// Whether the record at `place` survives a power cut now. What has expired was durable, and its
/// file may be gone.
pub fn survives(disk: &Disk, (shard, index): Place) -> bool {
    disk.is_synced(shard, index) || disk.is_gone(shard, index).1
}

/// Something that speaks of the record at `place` leaves the server.
pub fn is_durable(disk: &Disk, place: Place, what: &str) -> Verdict {
    let (shard, index) = place;
    demand(survives(disk, place), || {
        format!("{what} is shown, and record {index} of shard {} is not synced", shard.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskLog;
    use crate::random::Stream;
    use tern_core::log::{Links, Log, RecordKind};
    use tern_core::placement::ShardId;

    #[test]
    fn what_was_only_appended_is_noticed() {
        let disk = Disk::new(1, Stream::of(1, "disk"), None);
        let mut log = DiskLog::open(ShardId(0), &disk);
        log.append(RecordKind::Message, Links::default(), &[b"x"]).unwrap();
        log.commit();
        assert!(is_durable(&disk.borrow(), (ShardId(0), 0), "x").is_err());
        disk.borrow_mut().end_sync(ShardId(0), true);
        assert_eq!(is_durable(&disk.borrow(), (ShardId(0), 0), "x"), Ok(()));
    }
}
