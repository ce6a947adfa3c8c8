//! What the disk holds, and what will happen, in words: before it runs out, not after.

use std::time::Duration;

use tern_storage::{ClockFacts, Eviction, Limit, SpaceReport};

use crate::control::status::DiskStatus;

/// Percent of the room that are used when a person should hear of it for the first time.
const WARN_PERCENT: u64 = 80;

/// Percent at which it is urgent.
const URGENT_PERCENT: u64 = 95;

/// Bytes at the end of the last segments that no message may fit into: with less left nothing is.
const REST_BYTES: u64 = 4096;

/// How full it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Level {
    /// There is room.
    #[default]
    Fine,
    /// More than [`WARN_PERCENT`] are used.
    Warn,
    /// More than [`URGENT_PERCENT`] are used.
    Urgent,
    /// No room is left.
    Full,
}

impl Level {
    /// Of what may be used in all: what is, and what still can be.
    pub(super) fn of(space: &SpaceReport) -> Self {
        let of_all = |percent: u64| {
            let all = u128::from(space.used) + u128::from(space.room);
            u128::from(space.used) * 100 >= all * u128::from(percent)
        };
        match () {
            () if is_full(space) => Self::Full,
            () if of_all(URGENT_PERCENT) => Self::Urgent,
            () if of_all(WARN_PERCENT) => Self::Warn,
            () => Self::Fine,
        }
    }

    /// What an operator should hear, and do.
    pub(super) fn trouble(self, space: &SpaceReport) -> Option<String> {
        let (what, raise) = match space.limit {
            Limit::Bound => ("what the logs may use", "raise the option log-bytes-max"),
            Limit::Disk => ("the disk of the logs", "make room on it, or set log-bytes-max"),
        };
        let full = match self {
            Self::Fine => return None,
            Self::Warn => format!("{WARN_PERCENT} % of {what} are used"),
            Self::Urgent => format!("{URGENT_PERCENT} % of {what} are used"),
            Self::Full => format!("{what} is used up"),
        };
        let advice = match space.eviction {
            Eviction::Refuse => {
                format!("{raise}, shorten retention-days, or choose when-full = evict")
            }
            Eviction::Oldest => format!("to keep messages for their time, {raise}"),
        };
        Some(format!("{full}; {}. What to do: {advice}", forecast(space)))
    }
}

/// Says once, each time, that it has become fuller by a level.
#[derive(Debug, Default)]
pub(super) struct SpaceWatch {
    told: Level,
}

impl SpaceWatch {
    pub(super) fn look(&mut self, space: &SpaceReport) -> Option<String> {
        let level = Level::of(space);
        let fuller = level > self.told;
        self.told = level;
        if fuller { level.trouble(space) } else { None }
    }
}

/// Everything of it for `tern status`.
pub(super) fn status(
    space: &SpaceReport,
    retention: Option<Duration>,
    oldest: Duration,
) -> DiskStatus {
    let bound = space.bound.map(|bound| format!(" of {}", size(bound))).unwrap_or_default();
    let free = space.free.map(|free| format!(", {} free on its disk", size(free)));
    let kept = match retention {
        None => "kept  for ever".to_owned(),
        Some(retention) => format!("kept  for {}", time(retention)),
    };
    DiskStatus {
        used_bytes: space.used,
        bound_bytes: space.bound,
        free_bytes: space.free,
        room_bytes: space.room,
        bytes_per_second: space.bytes_per_second,
        full_in_s: space.full_in.map(|time| time.as_secs()),
        retention_s: retention.map(|time| time.as_secs()),
        oldest_s: oldest.as_secs(),
        words: vec![
            format!("disk  {}{bound} used{}", size(space.used), free.unwrap_or_default()),
            format!("room  {}; {}", size(space.room), forecast(space)),
            format!("{kept}; the oldest file is {} old", time(oldest)),
        ],
    }
}

/// Jumps of the clock, and a clock that began again: both delay deletion.
pub(super) fn clock_troubles(clock: &ClockFacts) -> Vec<String> {
    let jump = clock.newest_jump.as_ref().map(|jump| {
        format!(
            "the machine's clock jumped ({jump}); the jump is not counted as age, so messages are \
             kept longer. What to do: set the clock, and see that it stays so"
        )
    });
    let again = clock.began_again.as_ref().map(|why| {
        format!("the age of messages is counted anew ({why}), so they are kept longer, once")
    });
    jump.into_iter().chain(again).collect()
}

fn is_full(space: &SpaceReport) -> bool {
    space.room < REST_BYTES
}

fn forecast(space: &SpaceReport) -> String {
    let then = match space.eviction {
        Eviction::Refuse => "sends are refused with DISK_FULL until there is room",
        Eviction::Oldest => "the oldest messages go before their time",
    };
    match space.full_in {
        _ if is_full(space) => format!("now {then}"),
        None if space.bytes_per_second == 0 => {
            format!("nothing is written now; when it is full, {then}")
        }
        None => format!(
            "at {}/s it does not fill up, since what expires makes room in time",
            size(space.bytes_per_second)
        ),
        Some(left) => format!(
            "full in about {} at the present {}/s; then {then}",
            time(left),
            size(space.bytes_per_second)
        ),
    }
}

/// Bytes for people: three digits or so.
fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes >= *unit);
    match unit {
        None => format!("{bytes} bytes"),
        Some((unit, name)) if bytes / unit >= 100 => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
    }
}

/// A time for people: its largest unit.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(used: u64, room: u64) -> SpaceReport {
        SpaceReport {
            used,
            bound: Some(used + room),
            free: Some(10 << 30),
            reserve: 0,
            room,
            bytes_per_second: 1 << 20,
            limit: Limit::Bound,
            full_in: Some(Duration::from_secs(9 * 3_600 + 5)),
            eviction: Eviction::Refuse,
        }
    }

    #[test]
    fn each_level_is_told_once_and_again_after_it_was_better() {
        let mut watch = SpaceWatch::default();
        let mut look = |used: u64| watch.look(&space(used << 20, (1_000 - used) << 20));
        assert_eq!(look(799), None);
        let warned = look(800).expect("80 %");
        assert!(warned.starts_with("80 % of what the logs may use are used; full in about 9 h at"));
        assert!(warned.contains("raise the option log-bytes-max"), "{warned}");
        assert_eq!(look(949), None, "told already");
        assert!(look(950).is_some_and(|told| told.starts_with("95 %")));
        assert!(look(1_000).is_some_and(|told| told.contains("is used up; now sends are refused")));
        assert_eq!(look(900), None, "better");
        assert!(look(960).is_some(), "worse again");
    }

    #[test]
    fn the_words_say_what_will_happen() {
        let mut space = space(300 << 20, 724 << 20);
        let words = |space: &SpaceReport| {
            status(space, Some(Duration::from_secs(7 * 86_400)), Duration::from_secs(7_300)).words
        };
        assert_eq!(
            words(&space),
            [
                "disk  300 MiB of 1.0 GiB used, 10.0 GiB free on its disk",
                "room  724 MiB; full in about 9 h at the present 1.0 MiB/s; then sends are refused \
                 with DISK_FULL until there is room",
                "kept  for 7 days; the oldest file is 2 h old",
            ]
        );
        space.eviction = Eviction::Oldest;
        assert!(words(&space)[1].ends_with("then the oldest messages go before their time"));
        space.full_in = None;
        assert!(words(&space)[1].contains("it does not fill up"));
        space.bytes_per_second = 0;
        assert!(words(&space)[1].contains("nothing is written now"));
        assert_eq!(
            status(&space, None, Duration::ZERO).words[2],
            "kept  for ever; the oldest file is 0 s old"
        );
    }
}
