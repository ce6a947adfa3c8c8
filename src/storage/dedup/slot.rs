//! One device's place in a table: whole, or visibly not.
//!
//! A slot is written under a version that is odd meanwhile; a reader copies, and takes the copy if
//! the version was even and has not changed (Boehm, "Can seqlocks get along with programming
//! language memory models?", 2012). A checksum finds what was damaged.
//!
//! The version wraps: a reader that sleeps over exactly a multiple of 2^31 writes of one slot,
//! in the nanoseconds between its two looks, would have the checksum alone.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tern_core::dedup::DedupEntry;
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Epoch, SendCounter, Uin};

use super::memory::{Mapped, Memory, Word};

/// Bytes of a slot. With at most 4 of 5 slots in use, an entry costs 60 bytes.
pub(crate) const SLOT_BYTES: usize = 48;

/// Words of 8 bytes that say what a slot holds.
pub(crate) const SLOT_WORDS: usize = 5;

/// A place in a table. Word 0 is a uin, 0 if the slot is free; the low half of word 1 a device.
#[repr(C)]
pub(crate) struct Slot<M: Memory = Mapped, const WORDS: usize = SLOT_WORDS> {
    /// Odd while the slot is written.
    version: M::U32,
    /// CRC-32C of the words.
    check: M::U32,
    words: [M::U64; WORDS],
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES && align_of::<Slot>() == 8);

/// A slot that is not whole (now).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Torn;

impl<M: Memory, const WORDS: usize> Slot<M, WORDS> {
    /// What the slot's one writer reads.
    pub(crate) fn own(&self) -> [u64; WORDS] {
        std::array::from_fn(|word| self.words[word].load(Relaxed))
    }

    /// Whether the device of the slot's one writer is here.
    pub(crate) fn is_of(&self, uin: Uin, device: DeviceId) -> bool {
        self.words[0].load(Relaxed) == uin.0 && device_of(self.words[1].load(Relaxed)) == device
    }

    /// Whether nobody is here.
    pub(crate) fn is_free(&self) -> bool {
        self.words[0].load(Relaxed) == 0
    }

    /// Writes the slot; its owner alone does.
    pub(crate) fn write(&self, words: &[u64; WORDS]) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        M::fence(Release);
        self.check.store(checksum(words), Relaxed);
        self.words.iter().zip(words).for_each(|(place, word)| place.store(*word, Relaxed));
        self.version.store(version.wrapping_add(2), Release);
    }

    /// What anybody else reads: whole, or an error if it is being written, or is damaged.
    pub(crate) fn look(&self) -> Result<[u64; WORDS], Torn> {
        let (words, check) = self.stable()?;
        if words[0] != 0 && checksum(&words) != check {
            return Err(Torn);
        }
        Ok(words)
    }

    /// The words and their checksum, all of one write.
    pub(super) fn stable(&self) -> Result<([u64; WORDS], u32), Torn> {
        let before = self.version.load(Acquire);
        let (words, check) = (self.own(), self.check.load(Relaxed));
        M::fence(Acquire);
        if before & 1 == 1 || self.version.load(Relaxed) != before {
            return Err(Torn);
        }
        Ok((words, check))
    }

    /// A free slot, in memory that is not a file.
    #[cfg(test)]
    pub(super) fn free() -> Self
    where
        M::U32: From<u32>,
        M::U64: From<u64>,
    {
        Self { version: 0.into(), check: 0.into(), words: std::array::from_fn(|_| 0.into()) }
    }
}

/// CRC-32C of the words as they stand in memory.
pub(super) fn checksum<const WORDS: usize>(words: &[u64; WORDS]) -> u32 {
    words.iter().fold(0, |crc, word| crc32c::crc32c_append(crc, &word.to_ne_bytes()))
}

/// Whose word 1 of a slot is.
pub(super) fn device_of(word: u64) -> DeviceId {
    DeviceId(word as u32) // the low half
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) uin: Uin,
    pub(crate) device: DeviceId,
    pub(crate) entry: DedupEntry,
}

impl Held {
    /// As the words of a slot.
    pub(crate) fn words(&self) -> [u64; SLOT_WORDS] {
        let DedupEntry { epoch, newest, window, last } = self.entry;
        [
            self.uin.0,
            u64::from(self.device.0) | u64::from(epoch.0) << 32,
            u64::from(newest.0),
            window,
            last.0,
        ]
    }

    /// From the words of a slot; `None` if it is free.
    pub(crate) fn from_words(words: &[u64; SLOT_WORDS]) -> Option<Self> {
        let [uin, device_epoch, newest, window, last] = *words;
        (uin != 0).then(|| Self {
            uin: Uin(uin),
            device: device_of(device_epoch),
            entry: DedupEntry {
                epoch: Epoch((device_epoch >> 32) as u32), // the high half
                newest: SendCounter(newest as u32),        // the high half is 0
                window,
                last: Offset(last),
            },
        })
    }

    /// The same place for the search, and nobody there: bit 0 of a real window is always set.
    pub(crate) fn removed(mut self) -> Self {
        self.entry.window = 0;
        self
    }

    /// Whether this is somebody, and was not [`removed`](Self::removed).
    pub(crate) fn is_alive(&self) -> bool {
        self.entry.window & 1 == 1
    }
}
