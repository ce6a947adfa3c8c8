//! When those who are sent away may come back: each at a random time within a slot, and the slot so
//! long that whoever they come back to can log all of them in as they come.

use crate::config::Config;
use crate::io::ComeBack;

/// Full logins that a worker can answer a second and still have a third of its core for messages.
/// Source: `tern-bench login` and `idle` find 310 to 340 µs of a worker's CPU time in a handshake
/// and a login, and 410 µs in all threads of the server together.
pub const LOGINS_PER_SECOND: u32 = 2_000;

/// Milliseconds in a tenth of a second, the unit of slots.
const MS_PER_TENTH: u64 = 100;

/// The slot for a crowd of so many: never shorter than the wait before it.
pub(super) fn come_back(config: &Config, crowd: usize) -> ComeBack {
    let needed_ms = login_ms(crowd).max(config.come_back_ms.into());
    let tenths = needed_ms.div_ceil(MS_PER_TENTH);
    ComeBack { ms: config.come_back_ms, slot_tenths: u16::try_from(tenths).unwrap_or(u16::MAX) }
}

/// How long it takes to log so many in, in ms.
pub(crate) fn login_ms(crowd: usize) -> u64 {
    (crowd as u64 * 1_000).div_ceil(u64::from(LOGINS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_grows_with_the_crowd_and_has_room_for_all_of_it() {
        let config = Config { come_back_ms: 1_000, ..Config::default() };
        for (crowd, tenths) in
            [(0, 10), (200, 10), (2_000, 10), (2_001, 11), (100_000, 500), (1_000_000, 5_000)]
        {
            let slot = come_back(&config, crowd);
            assert_eq!(slot, ComeBack { ms: 1_000, slot_tenths: tenths }, "{crowd}");
            let room = u64::from(tenths) * u64::from(LOGINS_PER_SECOND) / 10;
            assert!(room >= crowd as u64, "{crowd} do not come back within {tenths} tenths");
        }
        assert_eq!(come_back(&config, usize::MAX >> 12).slot_tenths, u16::MAX, "it stays a slot");
    }
}
