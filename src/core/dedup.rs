//! Was this send key seen before? A window of 64 counters a device, as in IPsec (RFC 4303 §3.4.3)
//! and DTLS (RFC 9147 §4.5.1), so that a message that arrives late is not taken for a repeat.

use tern_protocol::{DeviceId, Epoch, SendCounter, SendKey, Uin};

use crate::log::Offset;
use crate::shard::state::WindowRow;

/// What a shard remembers of one device's sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DedupEntry {
    /// The epoch of the newest key.
    pub epoch: Epoch,
    /// The newest counter of that epoch.
    pub newest: SendCounter,
    /// Bit i: counter `newest - i` was appended. Bit 0 is always set.
    pub window: u64,
    /// The device's newest record in this shard: head of its chain.
    pub last: Offset,
}

/// What an entry says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Never appended, and may be.
    New,
    /// Appended before.
    Seen,
    /// Of an older epoch, or below the window: may have been appended, and never will be again.
    Closed,
}

impl DedupEntry {
    /// Judges a key by the entry of its device, if there is one.
    pub fn judge(entry: Option<&Self>, key: SendKey) -> Verdict {
        match entry {
            None => Verdict::New,
            Some(entry) if key.epoch > entry.epoch => Verdict::New,
            Some(entry) if key.epoch < entry.epoch => Verdict::Closed,
            Some(entry) => entry.judge_counter(key.counter),
        }
    }

    fn judge_counter(&self, counter: SendCounter) -> Verdict {
        match self.newest.0.checked_sub(counter.0) {
            None => Verdict::New,
            Some(back) if back >= u64::BITS => Verdict::Closed,
            Some(back) if self.window >> back & 1 == 1 => Verdict::Seen,
            Some(_) => Verdict::New,
        }
    }

    /// How many keys of the window are younger than this one, which is of it too: none for the
    /// key of the next message.
    pub(crate) fn younger_than(&self, key: SendKey) -> u32 {
        let back = self.newest.0.checked_sub(key.counter.0).filter(|_| key.epoch == self.epoch);
        back.map_or(0, |back| (self.window & !(u64::MAX << back.min(u64::BITS - 1))).count_ones())
    }

    /// The entry after the record at `at` was appended under `key`.
    ///
    /// # Panics
    /// If the key is not [`Verdict::New`]: appending it would make a second message.
    #[must_use]
    pub fn accept(entry: Option<&Self>, key: SendKey, at: Offset) -> Self {
        assert_eq!(Self::judge(entry, key), Verdict::New, "{key} is appended twice");
        match entry {
            Some(old) if old.epoch == key.epoch => old.accept_counter(key.counter, at),
            _ => Self { epoch: key.epoch, newest: key.counter, window: 1, last: at },
        }
    }

    /// The entry after a replay that met losses comes to the record at `at` under `key`. If the
    /// device is `torn`, an earlier message of it is lost, with a key that nobody knows: all keys
    /// below the newest count as used, and the chain says of them "unknown".
    pub(crate) fn replay(entry: Option<&Self>, key: SendKey, at: Offset, torn: bool) -> Self {
        let mut entry = match (Self::judge(entry, key), entry) {
            (Verdict::Seen, Some(assumed)) => Self { last: at, ..*assumed },
            _ => Self::accept(entry, key, at),
        };
        if torn {
            entry.window = u64::MAX;
        }
        entry
    }

    fn accept_counter(&self, counter: SendCounter, at: Offset) -> Self {
        let (newest, window) = match counter.0.checked_sub(self.newest.0) {
            Some(ahead) => (counter, self.window.checked_shl(ahead).unwrap_or(0) | 1),
            None => (self.newest, self.window | 1 << (self.newest.0 - counter.0)),
        };
        Self { epoch: self.epoch, newest, window, last: at }
    }
}

impl From<WindowRow> for DedupEntry {
    fn from(row: WindowRow) -> Self {
        Self {
            epoch: row.epoch.into(),
            newest: row.newest.into(),
            window: row.window.get(),
            last: Offset(row.last.get()),
        }
    }
}

impl DedupEntry {
    /// As a row of a checkpoint.
    pub fn to_row(self, uin: Uin, device: DeviceId) -> WindowRow {
        WindowRow {
            uin: uin.into(),
            device: device.into(),
            epoch: self.epoch.into(),
            newest: self.newest.into(),
            torn: 0.into(),
            window: self.window.into(),
            last: self.last.0.into(),
        }
    }
}

/// There is no memory for one more device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableFull;

/// The deduplication table of a shard: a cache of what its log says, written after the log.
pub trait DedupTable {
    /// The entry of a device.
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry>;

    /// Makes room for one more device, so that the next [`put`](Self::put) can't fail.
    ///
    /// # Errors
    /// When there is no memory.
    fn reserve(&mut self) -> Result<(), TableFull>;

    /// Sets the entry of a device after the record at `entry.last`; `applied` is the end of what
    /// the table now knows of the log.
    ///
    /// # Panics
    /// If the device is new and no room was reserved.
    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, applied: Offset);

    /// The device was removed for good and will never send again: its room may be used for
    /// another. Only a hint, which may come late, twice, or never; a table may keep the entry.
    fn remove(&mut self, _uin: Uin, _device: DeviceId) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn key(epoch: u32, counter: u32) -> SendKey {
        SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) }
    }

    #[test]
    fn a_late_message_is_no_repeat() {
        let entry = DedupEntry::accept(None, key(1, 8), Offset(1));
        assert_eq!(DedupEntry::judge(Some(&entry), key(1, 7)), Verdict::New);
        let entry = DedupEntry::accept(Some(&entry), key(1, 7), Offset(2));
        assert_eq!(DedupEntry::judge(Some(&entry), key(1, 7)), Verdict::Seen);
        assert_eq!(DedupEntry::judge(Some(&entry), key(1, 8)), Verdict::Seen);
    }

    #[test]
    fn the_last_counters_of_an_epoch() {
        let entry = DedupEntry::accept(None, key(1, u32::MAX), Offset(1));
        assert_eq!(DedupEntry::judge(Some(&entry), key(1, u32::MAX - 63)), Verdict::New);
        assert_eq!(DedupEntry::judge(Some(&entry), key(1, u32::MAX - 64)), Verdict::Closed);
    }

    proptest! {
        /// Against a plain model: a set of accepted keys and the newest of them.
        #[test]
        fn agrees_with_a_set(keys in prop::collection::vec((1u32..4, 1u32..200), 1..300)) {
            let mut entry: Option<DedupEntry> = None;
            let mut accepted: HashSet<SendKey> = HashSet::new();
            for (at, (epoch, counter)) in keys.into_iter().enumerate() {
                let key = key(epoch, counter);
                let newest = accepted.iter().max().copied();
                let expected = match newest {
                    Some(newest) if key.epoch < newest.epoch => Verdict::Closed,
                    Some(newest) if key.epoch == newest.epoch
                        && key.counter.0 + 64 <= newest.counter.0 => Verdict::Closed,
                    _ if accepted.contains(&key) => Verdict::Seen,
                    _ => Verdict::New,
                };
                prop_assert_eq!(DedupEntry::judge(entry.as_ref(), key), expected);
                if expected == Verdict::New {
                    entry = Some(DedupEntry::accept(entry.as_ref(), key, Offset(at as u64 + 1)));
                    accepted.insert(key);
                }
            }
        }
    }
}
