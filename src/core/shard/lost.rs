//! What of a shard's log can't be read any more, while it is replayed.
//!
//! Comes in: places whose message is lost but whose header, and so its links, is whole; ranges of
//! which nothing is known; rows of a checkpoint about both; and the links of the messages that
//! can be read. Goes out: whether missing ids are explained by what is lost; for each lost place
//! where a reader goes on; which places nothing explains. Worth naming: links only ever lead
//! back, and a message's own id is proven, so the ids below it were given out.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use zerocopy::little_endian::{U32, U64};

use super::state::{TombstoneRow, tombstone};
use crate::log::{Links, Offset};

/// No record is shorter, in bytes: how many a range may have held at most.
const RECORD_BYTES_MIN: u64 = 8;

/// Everything that is lost.
#[derive(Default)]
pub(super) struct Losses {
    places: BTreeMap<Offset, Place>,
    /// Ranges of which nothing is known: first and end.
    ranges: BTreeMap<Offset, Offset>,
}

/// A lost message.
struct Place {
    /// Where the next record can begin; none within a range.
    end: Offset,
    links: Links,
    /// The links are its own.
    whole: bool,
    /// Its channel is known, and counts it.
    explained: bool,
    /// A later message of its device is known.
    followed: bool,
}

impl Losses {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.ranges.is_empty()
    }

    /// A message whose header is whole.
    pub(super) fn add_place(&mut self, at: Offset, end: Offset, links: Links, explained: bool) {
        let place = Place { end, links, whole: true, explained, followed: false };
        self.places.entry(at).or_insert(place);
    }

    /// A range of which nothing is known.
    pub(super) fn add_range(&mut self, at: Offset, end: Offset) {
        let known = self.ranges.entry(at).or_insert(end);
        *known = end.max(*known);
    }

    /// Whether the record at this place is lost.
    pub(super) fn holds(&self, at: Offset) -> bool {
        at != Offset::NONE && (self.places.contains_key(&at) || self.is_in_range(at))
    }

    /// Follows a link through lost messages whose channel is known to one that can be read;
    /// `None` where that can't be told.
    pub(super) fn readable(&self, link: Offset) -> Option<Offset> {
        let mut at = link;
        while self.holds(at) {
            let place = self.places.get(&at).filter(|place| place.explained)?;
            at = back(at, place.links.channel);
        }
        Some(at)
    }

    /// A message at `at`, whose link to the previous one of its channel is `link`, comes when
    /// `missing` ids of its channel have not been seen since the message at `newest_at`. Explains
    /// those ids by what is lost, or says that nothing does.
    pub(super) fn explain(
        &mut self,
        link: Offset,
        newest_at: Offset,
        at: Offset,
        missing: u64,
    ) -> Result<(), &'static str> {
        let passed = self.unexplained_from(link);
        let passed_count = passed.len() as u64;
        if passed_count > missing {
            return Err("its way back passes more lost messages than ids are missing");
        }
        if passed_count < missing && self.room(newest_at, at) < missing {
            return Err("its id is ahead, and nothing lost explains those between");
        }
        self.set_explained(&passed, newest_at);
        Ok(())
    }

    /// A message that can be read has this skip link, which should lead to the message at
    /// `skip_at`: what is lost on the way there is of the same channel.
    pub(super) fn meet_skip(&mut self, link: Offset, skip_at: Offset) {
        let passed = self.unexplained_from(link);
        self.set_explained(&passed, skip_at);
    }

    /// Lost messages of an unknown channel on the way back from a link, up to one whose own links
    /// are unknown.
    fn unexplained_from(&self, link: Offset) -> Vec<Offset> {
        let (mut next, mut passed) = (link, Vec::new());
        while self.holds(next) {
            let place = self.places.get(&next);
            if place.is_none_or(|place| !place.explained) {
                passed.push(next);
            }
            let Some(place) = place.filter(|place| place.whole || place.explained) else { break };
            next = back(next, place.links.channel);
        }
        passed
    }

    /// The channel of these is known; the newest message before them that can be read is there.
    fn set_explained(&mut self, passed: &[Offset], readable: Offset) {
        for at in passed {
            let unknown = || Place::within_range(Links::default());
            let place = self.places.entry(*at).or_insert_with(unknown);
            if !place.whole {
                place.links.channel = readable;
            }
            place.explained = true;
        }
    }

    /// A message that can be read has this link to its device's previous one. Returns whether
    /// that one is lost.
    pub(super) fn meet_device(&mut self, link: Offset) -> bool {
        let mut next = link;
        while self.holds(next) {
            let place = self.places.entry(next);
            let place = place.or_insert_with(|| Place::within_range(Links::default()));
            if std::mem::replace(&mut place.followed, true) {
                break;
            }
            next = back(next, place.links.device);
        }
        self.holds(link)
    }

    /// Lost messages of an unknown channel, though their header is whole.
    pub(super) fn unexplained(&self) -> Vec<Offset> {
        let unexplained = self.places.iter().filter(|(_, place)| place.whole && !place.explained);
        unexplained.map(|(at, _)| *at).collect()
    }

    /// Messages whose successor in their device's chain is lost, and was the device's newest:
    /// none stands for a device's first.
    pub(super) fn doubts(&self) -> FxHashSet<Offset> {
        let newest = self.places.values().filter(|place| place.whole && !place.followed);
        newest.map(|place| place.links.device).collect()
    }

    /// Ranges of which nothing is known, first and end, in their order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Offset, Offset)> {
        self.ranges.iter().map(|(at, end)| (*at, *end))
    }

    /// The lost places of which it is known where to go on, in their order.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = TombstoneRow> {
        let known = self.places.iter().filter(|(_, place)| place.whole || place.explained);
        known.map(|(at, place)| place.to_row(*at))
    }

    /// Places and ranges, as rows of a checkpoint.
    pub(super) fn rows(&self) -> Vec<TombstoneRow> {
        let places = self.places.iter().map(|(at, place)| place.to_row(*at));
        let ranges = self.ranges.iter().map(|(at, end)| range_row(*at, *end));
        let mut rows: Vec<TombstoneRow> = places.chain(ranges).collect();
        rows.sort_unstable_by_key(|row| (row.at.get(), row.state.get()));
        rows
    }

    /// Takes such a row; `None` if it contradicts itself.
    pub(super) fn restore(&mut self, row: &TombstoneRow) -> Option<()> {
        let (at, end, state) = (Offset(row.at.get()), Offset(row.end.get()), row.state.get());
        if at == Offset::NONE || state & !tombstone::ALL != 0 {
            return None;
        }
        if state == tombstone::RANGE {
            (at < end).then_some(())?;
            self.add_range(at, end);
            return Some(());
        }
        let place = Place {
            end,
            links: row.links(),
            whole: state & tombstone::WHOLE != 0,
            explained: state & tombstone::EXPLAINED != 0,
            followed: state & tombstone::FOLLOWED != 0,
        };
        self.places.insert(at, place);
        (state & tombstone::RANGE == 0).then_some(())
    }

    fn is_in_range(&self, at: Offset) -> bool {
        self.ranges.range(..=at).next_back().is_some_and(|(_, end)| at < *end)
    }

    /// How many lost messages of an unknown channel there may be between two places.
    fn room(&self, after: Offset, before: Offset) -> u64 {
        let ranges = self.ranges.range(..before).rev().take_while(|(_, end)| **end > after);
        let bytes = ranges.map(|(at, end)| end.min(&before).0 - at.max(&after).0);
        let places = self.places.range(after..before);
        let unknown = places.filter(|(_, place)| place.whole && !place.explained).count() as u64;
        bytes.sum::<u64>() / RECORD_BYTES_MIN + unknown
    }
}

impl Place {
    fn within_range(links: Links) -> Self {
        Self { end: Offset::NONE, links, whole: false, explained: false, followed: false }
    }

    fn to_row(&self, at: Offset) -> TombstoneRow {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let state = bit(self.whole, tombstone::WHOLE)
            | bit(self.explained, tombstone::EXPLAINED)
            | bit(self.followed, tombstone::FOLLOWED);
        TombstoneRow {
            at: at.0.into(),
            end: self.end.0.into(),
            channel: self.links.channel.0.into(),
            device: self.links.device.0.into(),
            skip: self.links.skip.0.into(),
            state: state.into(),
            reserved: U32::ZERO,
        }
    }
}

fn range_row(at: Offset, end: Offset) -> TombstoneRow {
    TombstoneRow {
        at: at.0.into(),
        end: end.0.into(),
        channel: U64::ZERO,
        device: U64::ZERO,
        skip: U64::ZERO,
        state: tombstone::RANGE.into(),
        reserved: U32::ZERO,
    }
}

/// A link of the record at `from`: what does not lead back leads nowhere.
fn back(from: Offset, link: Offset) -> Offset {
    if link < from { link } else { Offset::NONE }
}
