//! Packets out of captures, and datagrams out of packets.

mod file;
mod live;
mod packet;

pub use file::{CaptureError, Item, Packet, Reader};
pub use live::{Live, Wanted};
pub use packet::{Datagram, datagram};

/// A moment by the clock of who captured, in nanoseconds since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Nanoseconds since an earlier moment; 0 if that one is later: clocks are set back.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time of day, UTC, to the microsecond.
    pub fn time_of_day(self) -> String {
        let micros = self.0 / 1_000;
        let (seconds, micros) = (micros / 1_000_000 % 86_400, micros % 1_000_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
    }
}
