//! The ledger: what was promised, what was seen, and where the two differ.
//!
//! In come facts in the order in which they were seen: a device was given a message to send, it
//! says that it was acked, a device showed a message. Out come a [`Verdict`] at any time, and
//! [`Open`]: what is still awaited. It reads no clock and touches nothing.
//!
//! The rules: each acked message is shown exactly once by each device of both users, the
//! sender's own included; ids count from 1 without a hole; a sender's messages stand in the
//! order in which it sent them; all devices show the same order; and an ack names the place
//! where the message really stands. A process that was killed between showing a message and
//! storing that it did may show it again after its restart, up to a stated number of messages:
//! these are counted apart, and one more is a duplicate.

mod anomaly;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use anomaly::{Anomaly, Kind};
use shown::Shown;

/// A device, by its place in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceNo(pub usize);

/// Names one message for the whole run: the `number`th, from 1, that a device sends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// Who sends it.
    pub by: DeviceNo,
    /// Its number among the sender's.
    pub number: u64,
}

/// What a device showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Showing {
    /// Which device.
    pub device: DeviceNo,
    /// The how manieth process of it, from 1.
    pub life: u32,
    /// The message's place in the channel.
    pub id: u64,
    /// The message, if the text is one of ours.
    pub mark: Option<Mark>,
}

/// Everything that was seen.
#[derive(Clone, Debug)]
pub struct Ledger {
    sends: BTreeMap<Mark, Send>,
    /// The message at each acked place.
    acked: BTreeMap<u64, Mark>,
    devices: Vec<Shown>,
    anomalies: Vec<Anomaly>,
    receive_times: Vec<Duration>,
}

#[derive(Clone, Debug)]
struct Send {
    at: Duration,
    ack: Option<Ack>,
    refused: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ack {
    after: Duration,
    id: u64,
}

/// What is still awaited.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Open {
    /// Messages without an answer.
    pub unanswered: usize,
    /// Showings of acked messages that are missing, over all devices.
    pub unseen: usize,
}

impl Open {
    /// Whether nothing is awaited.
    pub fn is_settled(self) -> bool {
        self == Self::default()
    }
}

/// The sum of it all.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// One row a device.
    pub devices: Vec<DeviceSum>,
    /// Every broken promise.
    pub anomalies: Vec<Anomaly>,
    /// Times from sending to the ack, sorted.
    pub ack_times: Vec<Duration>,
    /// Times from sending to each first showing by a device of the other user, sorted.
    pub receive_times: Vec<Duration>,
}

/// A device's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSum {
    /// Messages it was given to send.
    pub sent: usize,
    /// Of these, acked.
    pub acked: usize,
    /// Messages it showed, each counted once.
    pub delivered: usize,
    /// Messages it showed once more because it was killed before it had stored that it did.
    pub shown_again: u64,
}

impl Verdict {
    /// Anomalies of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.anomalies.iter().filter(|anomaly| anomaly.kind() == kind).count()
    }
}

impl Ledger {
    /// A ledger of so many devices, all in one channel. A new life of a device may show up to
    /// `again_max` messages that its last one had shown already.
    pub fn new(devices: usize, again_max: u64) -> Self {
        Self {
            sends: BTreeMap::new(),
            acked: BTreeMap::new(),
            devices: (0..devices).map(|_| Shown::new(again_max)).collect(),
            anomalies: Vec::new(),
            receive_times: Vec::new(),
        }
    }

    /// A device was given a message to send. A second time for the same mark (it was killed
    /// before it kept the message) changes nothing: the first counts.
    pub fn sent(&mut self, at: Duration, mark: Mark) {
        self.sends.entry(mark).or_insert(Send { at, ack: None, refused: false });
    }

    /// A device says that its message was acked.
    pub fn acked(&mut self, at: Duration, mark: Mark, id: u64) {
        let Some(send) = self.sends.get_mut(&mark) else {
            return self.anomalies.push(Anomaly::FalseAck { mark, id, but: None });
        };
        if let Some(first) = send.ack {
            if first.id != id {
                self.anomalies.push(Anomaly::FalseAck { mark, id, but: Some(first.id) });
            }
            return;
        }
        send.ack = Some(Ack { after: at.saturating_sub(send.at), id });
        if let Some(other) = self.acked.insert(id, mark) {
            self.anomalies.push(Anomaly::SharedPlace { id, marks: [other, mark] });
        }
    }

    /// A device says that its message was refused for good.
    pub fn refused(&mut self, mark: Mark, why: String) {
        if let Some(send) = self.sends.get_mut(&mark) {
            send.refused = true;
        }
        self.anomalies.push(Anomaly::Refused { mark, why });
    }

    /// A device says that a part of the history will never come.
    pub fn history_lost(&mut self, device: DeviceNo, what: String) {
        self.anomalies.push(Anomaly::HistoryLost { device, what });
    }

    /// A device showed a message.
    pub fn showed(&mut self, at: Duration, showing: Showing) {
        let Showing { device, life, id, mark } = showing;
        let Some((mark, sent_at)) = mark.and_then(|mark| Some((mark, self.sends.get(&mark)?.at)))
        else {
            return self.anomalies.push(Anomaly::Phantom { device, id });
        };
        let is_first = self.devices[device.0].take(device, life, id, mark, &mut self.anomalies);
        if is_first && mark.by != device {
            self.receive_times.push(at.saturating_sub(sent_at));
        }
    }

    /// Marks of a device that have no answer yet, in the order of sending.
    pub fn unanswered(&self, by: DeviceNo) -> impl Iterator<Item = Mark> + '_ {
        let of_device = self.sends.iter().filter(move |(mark, _)| mark.by == by);
        of_device.filter(|(_, send)| send.ack.is_none() && !send.refused).map(|(mark, _)| *mark)
    }

    /// What is still awaited.
    pub fn open(&self) -> Open {
        let answered = |send: &&Send| send.ack.is_some() || send.refused;
        let unseen = |device: &Shown| self.unseen_by(device).count();
        Open {
            unanswered: self.sends.len() - self.sends.values().filter(answered).count(),
            unseen: self.devices.iter().map(unseen).sum(),
        }
    }

    /// The sum. What is open when nothing more is awaited is lost.
    pub fn verdict(&self) -> Verdict {
        let mut anomalies = self.anomalies.clone();
        for no in (0..self.devices.len()).map(DeviceNo) {
            anomalies.extend(self.unanswered(no).map(|mark| Anomaly::Unanswered { mark }));
            anomalies.extend(self.audit(no));
        }
        let mut ack_times: Vec<_> =
            self.sends.values().filter_map(|send| Some(send.ack?.after)).collect();
        ack_times.sort_unstable();
        let mut receive_times = self.receive_times.clone();
        receive_times.sort_unstable();
        let devices = (0..self.devices.len()).map(|no| self.sum(DeviceNo(no))).collect();
        Verdict { devices, anomalies, ack_times, receive_times }
    }

    fn unseen_by<'a>(&'a self, device: &'a Shown) -> impl Iterator<Item = (u64, Mark)> + 'a {
        let acked = self.acked.iter().map(|(&id, &mark)| (id, mark));
        acked.filter(|(_, mark)| device.place_of(*mark).is_none())
    }

    /// Compares what a device showed with the acks, and with the devices before it.
    fn audit(&self, no: DeviceNo) -> Vec<Anomaly> {
        let shown = &self.devices[no.0];
        let mut found: Vec<_> = self
            .unseen_by(shown)
            .map(|(id, mark)| Anomaly::Lost { mark, id, device: no })
            .collect();
        for (id, mark) in shown.places() {
            let others = self.devices[..no.0].iter().filter_map(|other| other.at(id));
            let other = others.chain(self.acked.get(&id).copied()).find(|other| *other != mark);
            found.extend(other.map(|other| Anomaly::Disagree { device: no, id, mark, other }));
        }
        found
    }

    /// A device's figures.
    pub fn sum(&self, no: DeviceNo) -> DeviceSum {
        let sends = self.sends.iter().filter(|(mark, _)| mark.by == no);
        let acks = sends.clone().filter(|(_, send)| send.ack.is_some());
        let shown = &self.devices[no.0];
        DeviceSum {
            sent: sends.count(),
            acked: acks.count(),
            delivered: shown.places().count(),
            shown_again: shown.shown_again(),
        }
    }
}
