//! The numbers that name things, each a type of its own so that two of them are never mixed up.
//!
//! All are little-endian on the wire. Zero is reserved in each unless its text says otherwise.

use core::fmt;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number!(
    /// A user's number. Never reused; 0 is no user.
    Uin, u64
);
number!(
    /// One install of one user; counted from 1 within the user, never reused.
    DeviceId, u32
);
number!(
    /// Place of a message in its channel: 1, 2, 3, … without a hole. 0 is "before the first".
    MessageId, u64
);
number!(
    /// Raised by one at each full login of a device. 0 is "never logged in".
    Epoch, u32
);
number!(
    /// A device's count of its sends within an epoch, from 1. 0 is "no send". It never wraps: a
    /// device that has used all 2^32 - 1 logs in for a new epoch (at 50 messages a second, after
    /// 2.7 years).
    SendCounter, u32
);
number!(
    /// Life of a shard's log: raised whenever recovery may have lost something that was shown.
    /// The first is 1; a client that knows none yet says 0.
    Incarnation, u32
);
number!(
    /// Milliseconds since 1970-01-01 UTC by the server's clock. For display and retention, never
    /// for order.
    UnixMillis, u64
);

impl MessageId {
    /// The id after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The id that a skip link of this message points to: its lowest set bit cleared. Following
    /// skip and previous links reaches any older id in logarithmic steps.
    pub const fn skip(self) -> Self {
        Self(self.0 & self.0.wrapping_sub(1))
    }
}

/// The key under which a device sends a message once: with {uin, device} it names one send for
/// ever. Ordered by epoch, then counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SendKey {
    /// The login within which the device counts.
    pub epoch: Epoch,
    /// The device's count within that epoch.
    pub counter: SendCounter,
}

impl fmt::Display for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

/// Where messages go: 16 bytes, on the wire, in the log and as a map's key.
///
/// A *direct* channel is `{low uin, high uin}` and needs no look-up; low = high is a user's notes
/// to self. A *group* is `{0, group id}`.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ChannelId {
    low: U64,
    high: U64,
}

impl ChannelId {
    /// The channel between two users, whichever is named first.
    pub fn direct(a: Uin, b: Uin) -> Self {
        Self { low: U64::new(a.0.min(b.0)), high: U64::new(a.0.max(b.0)) }
    }

    /// Its two numbers.
    pub(crate) fn parts(self) -> (u64, u64) {
        (self.low.get(), self.high.get())
    }

    /// The channel of a group.
    pub const fn group(id: u64) -> Self {
        Self { low: U64::ZERO, high: U64::new(id) }
    }

    /// The two users of a direct channel (equal for notes to self); `None` for a group and for
    /// bytes that name no channel.
    pub fn members(&self) -> Option<(Uin, Uin)> {
        let (low, high) = (self.low.get(), self.high.get());
        (low != 0 && low <= high).then_some((Uin(low), Uin(high)))
    }

    /// Whether a peer's 16 bytes name a direct channel or a group.
    pub fn is_valid(&self) -> bool {
        self.high.get() != 0 && self.low.get() <= self.high.get()
    }

    /// Whether this names a group.
    pub fn is_group(&self) -> bool {
        self.low.get() == 0 && self.high.get() != 0
    }

    /// In a direct channel, the other user as `uin` sees it; `None` if `uin` is not in it.
    pub fn peer_of(&self, uin: Uin) -> Option<Uin> {
        match self.members()? {
            (low, high) if low == uin => Some(high),
            (low, high) if high == uin => Some(low),
            _ => None,
        }
    }

    /// The two halves, low first; the order that maps and lists of channels use.
    pub fn halves(&self) -> (u64, u64) {
        (self.low.get(), self.high.get())
    }
}

impl Ord for ChannelId {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.halves().cmp(&other.halves())
    }
}

impl PartialOrd for ChannelId {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.halves() {
            (0, group) => write!(f, "g{group}"),
            (low, high) => write!(f, "{low}-{high}"),
        }
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({self})")
    }
}

macro_rules! wire {
    ($($name:ident as $wire:ty),*) => {$(
        impl From<$name> for $wire {
            fn from(id: $name) -> Self { Self::new(id.0) }
        }
        impl From<$wire> for $name {
            fn from(wire: $wire) -> Self { Self(wire.get()) }
        }
    )*};
}

wire!(Uin as U64, MessageId as U64, UnixMillis as U64);
wire!(DeviceId as U32, Epoch as U32, SendCounter as U32, Incarnation as U32);
