//! Which segments may go: rules over plain numbers, so that they can be tried at every age.
//!
//! Segments go whole, oldest first, and only sealed ones: behind each stands one with a record
//! that is proven durable.

/// An expired segment waits for company, so that not each one costs two checkpoints: for this
/// part of the retention at most.
const PATIENCE_PART: u64 = 32;

/// The active segment is closed when it is this part of the retention old, so that the age of
/// its oldest message and that of its newest are not far apart.
const ROLL_PART: u64 = 8;

/// What is known of a segment, oldest first in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) number: u64,
    pub(crate) base: u64,
    /// Bytes of disk that it holds.
    pub(crate) bytes: u64,
    /// Confirmed milliseconds when it was made.
    pub(crate) confirmed_ms: u64,
    /// Everything in it is durable, and nothing more comes.
    pub(crate) sealed: bool,
}

/// Segments that are past their retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Expired {
    /// How many, from the oldest on.
    pub(crate) count: usize,
    /// Bytes of disk that they hold.
    pub(crate) bytes: u64,
    /// Whether the oldest of them has waited long enough.
    pub(crate) overdue: bool,
}

/// By age. The newest record of a segment is not younger than the next but one segment: that was
/// made when the next one got its first record.
pub(crate) fn expired(kept: &[Kept], now_ms: u64, retention_ms: Option<u64>) -> Expired {
    let Some(retention_ms) = retention_ms else { return Expired::default() };
    let age = |index: usize| {
        let later = kept.get(index + 2)?;
        let age = now_ms.saturating_sub(later.confirmed_ms);
        (kept[index].sealed && age >= retention_ms).then_some(age)
    };
    let count = (0..kept.len()).take_while(|index| age(*index).is_some()).count();
    let patience_ms = retention_ms / PATIENCE_PART;
    Expired {
        count,
        bytes: kept[..count].iter().map(|segment| segment.bytes).sum(),
        overdue: age(0).is_some_and(|age| age >= retention_ms + patience_ms),
    }
}

/// To make room: how many of the oldest segments of each list go, so that `need` bytes come free;
/// the oldest of all lists first.
pub(crate) fn evicted(lists: &[Vec<Kept>], need: u64) -> Vec<usize> {
    let mut counts = vec![0; lists.len()];
    let mut freed = 0;
    while freed < need {
        let oldest = (0..lists.len())
            .filter_map(|list| Some((list, lists[list].get(counts[list])?)))
            .filter(|(_, segment)| segment.sealed)
            .min_by_key(|(_, segment)| segment.confirmed_ms);
        let Some((list, segment)) = oldest else { break };
        counts[list] += 1;
        freed += segment.bytes;
    }
    counts
}

/// Whether the active segment, in use since `since_ms`, is to be closed.
pub(crate) fn is_to_roll(since_ms: u64, now_ms: u64, retention_ms: Option<u64>) -> bool {
    retention_ms.is_some_and(|retention_ms| {
        now_ms.saturating_sub(since_ms) >= (retention_ms / ROLL_PART).max(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments made at these times; all are sealed but the last two.
    fn list(made: &[u64]) -> Vec<Kept> {
        let sealed = made.len().saturating_sub(2);
        let kept = |(index, confirmed_ms): (usize, &u64)| Kept {
            number: index as u64 + 1,
            base: index as u64 * 100,
            bytes: 100,
            confirmed_ms: *confirmed_ms,
            sealed: index < sealed,
        };
        made.iter().enumerate().map(kept).collect()
    }

    #[test]
    fn a_segment_expires_by_the_age_of_the_next_but_one() {
        let kept = list(&[0, 10, 20, 30, 40]);
        let count = |now, retention| expired(&kept, now, Some(retention)).count;
        for now in 0..200 {
            for retention in 1..150 {
                // Whatever the moment: no message younger than the retention goes.
                let newest = [20, 30, 40];
                let expected = newest.iter().filter(|made| *made + retention <= now).count();
                assert_eq!(count(now, retention), expected, "now {now} retention {retention}");
            }
        }
        assert_eq!(count(10_000, 1), 3, "the active and the spare one stay");
        assert_eq!(expired(&kept, 10_000, None), Expired::default());
        assert_eq!(count(15, 1), 0, "segments from the future, after a clock was lost");
    }

    #[test]
    fn an_expired_segment_waits_for_company() {
        let kept = list(&[0, 0, 1_000, 1_500, 1_600]);
        assert!(!expired(&kept, 4_230, Some(3_200)).overdue);
        assert!(expired(&kept, 4_300, Some(3_200)).overdue);
    }

    #[test]
    fn the_oldest_of_all_shards_go_first() {
        let lists = [list(&[5, 15, 25, 35]), list(&[0, 1, 2, 30, 40]), list(&[7])];
        assert_eq!(evicted(&lists, 0), [0, 0, 0]);
        assert_eq!(evicted(&lists, 1), [0, 1, 0]);
        assert_eq!(evicted(&lists, 301), [1, 3, 0]);
        assert_eq!(evicted(&lists, u64::MAX), [2, 3, 0], "what is not sealed stays");
    }

    #[test]
    fn the_active_segment_is_closed_in_time() {
        assert!(!is_to_roll(100, 199, Some(800)));
        assert!(is_to_roll(100, 200, Some(800)));
        assert!(!is_to_roll(0, u64::MAX, None));
    }
}
