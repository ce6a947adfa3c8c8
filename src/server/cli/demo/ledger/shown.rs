//! What one device showed, checked message by message as it comes.

use std::collections::{BTreeMap, HashMap};

use super::{Anomaly, DeviceNo, Mark};

/// One device's side of the ledger.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    again_max: u64,
    by_id: BTreeMap<u64, Mark>,
    by_mark: HashMap<Mark, u64>,
    /// The newest number shown of each sender.
    newest_of: HashMap<DeviceNo, u64>,
    life: u32,
    /// The id that this life must show next; `None` before its first.
    next: Option<u64>,
    shown_again: u64,
}

impl Shown {
    pub(super) fn new(again_max: u64) -> Self {
        Self {
            again_max,
            by_id: BTreeMap::new(),
            by_mark: HashMap::new(),
            newest_of: HashMap::new(),
            life: 1,
            next: Some(1),
            shown_again: 0,
        }
    }

    /// A message was shown; whether it counts as its first time.
    pub(super) fn take(
        &mut self,
        device: DeviceNo,
        life: u32,
        id: u64,
        mark: Mark,
        anomalies: &mut Vec<Anomaly>,
    ) -> bool {
        if life != self.life {
            self.life = life;
            self.next = None;
        }
        let newest = self.newest();
        let expected = self.next.unwrap_or_else(|| self.first_of_life(id));
        if id > expected {
            anomalies.push(Anomaly::Hole { device, from: expected, to: id - 1 });
        }
        self.next = Some(expected.max(id + 1));
        if self.by_id.contains_key(&id) {
            self.repeat(device, id, mark, id >= expected && id <= newest, anomalies);
            return false;
        }
        if id < expected {
            anomalies.push(Anomaly::Late { device, id, mark });
        }
        self.first_time(device, id, mark, anomalies);
        true
    }

    /// The id that a new life may start at: any within the stated window behind the newest one.
    fn first_of_life(&self, id: u64) -> u64 {
        let newest = self.newest();
        id.clamp((newest + 1).saturating_sub(self.again_max).max(1), newest + 1)
    }

    /// An id comes again: excused if the life may do so, and it says the same.
    fn repeat(
        &mut self,
        device: DeviceNo,
        id: u64,
        mark: Mark,
        excused: bool,
        anomalies: &mut Vec<Anomaly>,
    ) {
        match self.by_id.get(&id) {
            Some(&other) if other != mark => {
                anomalies.push(Anomaly::Disagree { device, id, mark, other });
            }
            Some(_) if excused => self.shown_again += 1,
            _ => anomalies.push(Anomaly::Duplicated { device, mark, ids: [id, id] }),
        }
    }

    fn first_time(&mut self, device: DeviceNo, id: u64, mark: Mark, anomalies: &mut Vec<Anomaly>) {
        self.by_id.insert(id, mark);
        if let Some(&first) = self.by_mark.get(&mark) {
            anomalies.push(Anomaly::Duplicated { device, mark, ids: [first, id] });
            return;
        }
        self.by_mark.insert(mark, id);
        let newest = self.newest_of.entry(mark.by).or_default();
        if mark.number < *newest {
            anomalies.push(Anomaly::OutOfOrder { device, mark, after: *newest });
        }
        *newest = mark.number.max(*newest);
    }

    fn newest(&self) -> u64 {
        self.by_id.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Where a message was shown first.
    pub(super) fn place_of(&self, mark: Mark) -> Option<u64> {
        self.by_mark.get(&mark).copied()
    }

    /// What was shown at a place.
    pub(super) fn at(&self, id: u64) -> Option<Mark> {
        self.by_id.get(&id).copied()
    }

    /// All places and what was shown there.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, Mark)> + '_ {
        self.by_id.iter().map(|(id, mark)| (*id, *mark))
    }

    /// Messages shown once more after a kill, within the window.
    pub(super) fn shown_again(&self) -> u64 {
        self.shown_again
    }
}
