//! One entry of the flight recorder: what it says, and its eight words.

use tern_core::mail::Device;
use tern_core::moments::Happened;
use tern_protocol::{ChannelId, Code, DeviceId, Epoch, MessageId, SendCounter, SendKey, Uin};
use zerocopy::{FromBytes, IntoBytes};

/// Words of an entry: one cache line.
pub(super) const ENTRY_WORDS: usize = 8;

/// Words of an entry behind its number and checksum.
pub(super) const BODY_WORDS: usize = ENTRY_WORDS - 1;

/// Bits of the time within a run, in µs: nine years; the number of the run stands above them.
const MONO_BITS: u32 = 48;

/// Odd, with its bits well spread: what a checksum multiplies by (2^64 over the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bits by which a checksum turns between two words, so that each bit meets each other one.
const TURN: u32 = 29;

/// When something happened, by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stamp {
    /// µs since 1970 UTC, by a clock that may be set.
    pub wall_us: u64,
    /// µs since the start of the run, by one that only goes on.
    pub mono_us: u64,
}

/// How a push left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// On the control stream, which QUIC repeats until it comes.
    Stream,
    /// By datagram, which nobody repeats but the worker.
    Datagram,
    /// On the control stream, since a datagram with it was not acknowledged in time.
    Repair,
    /// By a second datagram, a moment behind the first.
    Copy,
}

/// What happened to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// As the machine knows it.
    Happened(Happened),
    /// This message was written to a device's connection.
    Pushed(MessageId, Carrier),
}

/// One moment of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When.
    pub stamp: Stamp,
    /// In which run of the server, counted from 1 since the file was made; it wraps.
    pub run: u16,
    /// In which channel.
    pub channel: ChannelId,
    /// Of which device, if of one.
    pub device: Option<Device>,
    /// What.
    pub what: What,
}

impl Entry {
    /// The words behind number and checksum.
    #[inline]
    pub(super) fn to_words(self) -> [u64; BODY_WORDS] {
        let (low, high) = self.channel.halves();
        let (kind, how, code, id) = self.what.to_parts();
        let device = self.device;
        let uin = device.map_or(0, |device| device.uin.0);
        let device = device.map_or(0, |device| device.device.0);
        let mono = self.stamp.mono_us & ((1 << MONO_BITS) - 1);
        let kinds = u64::from(kind) << 32 | u64::from(how) << 40 | u64::from(code) << 48;
        [
            self.stamp.wall_us,
            u64::from(self.run) << MONO_BITS | mono,
            low,
            high,
            id,
            uin,
            u64::from(device) | kinds,
        ]
    }

    /// What words say that fit their checksum; `None` if this version knows no such thing.
    pub(super) fn from_words(words: &[u64; BODY_WORDS]) -> Option<Self> {
        let [wall_us, mono, low, high, id, uin, last] = *words;
        let halves = [low.to_le(), high.to_le()];
        let channel = ChannelId::read_from_bytes(halves.as_bytes()).ok()?;
        let device = Device { uin: Uin(uin), device: DeviceId(last as u32) };
        let what =
            What::from_parts((last >> 32) as u8, (last >> 40) as u8, (last >> 48) as u16, id);
        Some(Self {
            stamp: Stamp { wall_us, mono_us: mono & ((1 << MONO_BITS) - 1) },
            run: (mono >> MONO_BITS) as u16,
            channel: Some(channel).filter(ChannelId::is_valid)?,
            device: (uin != 0).then_some(device),
            what: what?,
        })
    }
}

impl What {
    /// Kind, how, code, and id or key.
    fn to_parts(self) -> (u8, u8, u16, u64) {
        match self {
            Self::Happened(Happened::Received(key)) => (1, 0, 0, key_word(key)),
            Self::Happened(Happened::Refused(key, code)) => (2, 0, code.0, key_word(key)),
            Self::Happened(Happened::Repeated(id)) => (3, 0, 0, id.0),
            Self::Happened(Happened::Appended(id)) => (4, 0, 0, id.0),
            Self::Happened(Happened::Committed(id)) => (5, 0, 0, id.0),
            Self::Happened(Happened::Granted(id)) => (6, 0, 0, id.0),
            Self::Pushed(id, Carrier::Stream) => (7, 1, 0, id.0),
            Self::Pushed(id, Carrier::Datagram) => (7, 2, 0, id.0),
            Self::Pushed(id, Carrier::Repair) => (7, 3, 0, id.0),
            Self::Pushed(id, Carrier::Copy) => (7, 4, 0, id.0),
            Self::Happened(Happened::Acked(id)) => (8, 0, 0, id.0),
        }
    }

    fn from_parts(kind: u8, how: u8, code: u16, word: u64) -> Option<Self> {
        let id = MessageId(word);
        let key = SendKey { epoch: Epoch(word as u32), counter: SendCounter((word >> 32) as u32) };
        Some(Self::Happened(match (kind, how) {
            (1, _) => Happened::Received(key),
            (2, _) => Happened::Refused(key, Code(code)),
            (3, _) => Happened::Repeated(id),
            (4, _) => Happened::Appended(id),
            (5, _) => Happened::Committed(id),
            (6, _) => Happened::Granted(id),
            (7, 1) => return Some(Self::Pushed(id, Carrier::Stream)),
            (7, 2) => return Some(Self::Pushed(id, Carrier::Datagram)),
            (7, 3) => return Some(Self::Pushed(id, Carrier::Repair)),
            (7, 4) => return Some(Self::Pushed(id, Carrier::Copy)),
            (8, _) => Happened::Acked(id),
            _ => return None,
        }))
    }
}

fn key_word(key: SendKey) -> u64 {
    u64::from(key.epoch.0) | u64::from(key.counter.0) << 32
}

/// The checksum of words under a number. It finds what is torn or damaged by chance, and costs a
/// few cycles a word.
#[inline]
pub(super) fn fold(number: u32, words: &[u64]) -> u32 {
    let start = u64::from(number).wrapping_add(SPREAD);
    let turn = |sum: u64, word: &u64| (sum ^ word).rotate_left(TURN).wrapping_mul(SPREAD);
    (words.iter().fold(start, turn) >> 32) as u32
}
