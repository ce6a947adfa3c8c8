//! The ways in which a promise can be broken, each with what shows it.

use std::fmt;

use super::{DeviceNo, Mark};

/// One broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anomaly {
    /// Acked, and a device never showed it.
    Lost {
        /// The message.
        mark: Mark,
        /// Its place according to the ack.
        id: u64,
        /// Who misses it.
        device: DeviceNo,
    },
    /// Shown once too often.
    Duplicated {
        /// Who showed it.
        device: DeviceNo,
        /// The message.
        mark: Mark,
        /// Its first place and the other one; the same if the place came twice.
        ids: [u64; 2],
    },
    /// Behind a later one of the same sender.
    OutOfOrder {
        /// Who showed it.
        device: DeviceNo,
        /// The message.
        mark: Mark,
        /// The sender's newest number before it.
        after: u64,
    },
    /// Ids that were stepped over.
    Hole {
        /// Who stepped over them.
        device: DeviceNo,
        /// First id.
        from: u64,
        /// Last id.
        to: u64,
    },
    /// An id came behind a later one.
    Late {
        /// Who showed it.
        device: DeviceNo,
        /// Its place.
        id: u64,
        /// The message.
        mark: Mark,
    },
    /// The same place holds another message than for an earlier showing, device or ack.
    Disagree {
        /// Who showed it.
        device: DeviceNo,
        /// The place.
        id: u64,
        /// What it showed there.
        mark: Mark,
        /// What stands there otherwise.
        other: Mark,
    },
    /// An ack for what was not sent, or a second one that names another place.
    FalseAck {
        /// The message.
        mark: Mark,
        /// The place it names.
        id: u64,
        /// The place that the first ack named, if there was one.
        but: Option<u64>,
    },
    /// Two messages were acked with the same place.
    SharedPlace {
        /// The place.
        id: u64,
        /// The two.
        marks: [Mark; 2],
    },
    /// Shown, and nobody sent it.
    Phantom {
        /// Who showed it.
        device: DeviceNo,
        /// Its place.
        id: u64,
    },
    /// Refused for good, although nothing was wrong with it.
    Refused {
        /// The message.
        mark: Mark,
        /// The reason given.
        why: String,
    },
    /// Never answered.
    Unanswered {
        /// The message.
        mark: Mark,
    },
    /// A part of the history was declared lost.
    HistoryLost {
        /// To whom.
        device: DeviceNo,
        /// What was said.
        what: String,
    },
}

/// Anomalies by what they mean to a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A message is missing.
    Lost,
    /// A message is there twice.
    Duplicated,
    /// The order is not that of the sender, or not the same for all.
    OutOfOrder,
    /// An answer is missing or wrong.
    Answer,
}

impl Anomaly {
    /// What it means to a user.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Lost { .. } | Self::Hole { .. } | Self::HistoryLost { .. } => Kind::Lost,
            Self::Duplicated { .. } | Self::Phantom { .. } => Kind::Duplicated,
            Self::OutOfOrder { .. } | Self::Late { .. } | Self::Disagree { .. } => Kind::OutOfOrder,
            Self::FalseAck { .. }
            | Self::SharedPlace { .. }
            | Self::Refused { .. }
            | Self::Unanswered { .. } => Kind::Answer,
        }
    }

    /// In words, with the devices' names.
    pub fn describe<'a>(&'a self, names: &'a [&'a str]) -> impl fmt::Display + 'a {
        Described { anomaly: self, names }
    }
}

struct Described<'a> {
    anomaly: &'a Anomaly,
    names: &'a [&'a str],
}

impl Described<'_> {
    fn name(&self, device: DeviceNo) -> &str {
        self.names[device.0]
    }

    fn mark(&self, mark: Mark) -> String {
        format!("message {} of {}", mark.number, self.name(mark.by))
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.anomaly {
            Anomaly::Lost { mark, id, device } => {
                write!(f, "lost: {}, acked as {id}, at {}", self.mark(*mark), self.name(*device))
            }
            Anomaly::Duplicated { device, mark, ids: [first, second] } => {
                let (mark, name) = (self.mark(*mark), self.name(*device));
                write!(f, "duplicated: {mark} at {name}, as {first} and as {second}")
            }
            Anomaly::OutOfOrder { device, mark, after } => {
                let (mark, name) = (self.mark(*mark), self.name(*device));
                write!(f, "out of order: {mark} at {name}, behind the sender's {after}")
            }
            Anomaly::Hole { device, from, to } => {
                write!(f, "hole: {} stepped over ids {from} to {to}", self.name(*device))
            }
            Anomaly::Late { device, id, mark } => {
                let (mark, name) = (self.mark(*mark), self.name(*device));
                write!(f, "out of order: {mark}, id {id}, at {name}, behind a later id")
            }
            Anomaly::Disagree { device, id, mark, other } => {
                let (name, mark, other) = (self.name(*device), self.mark(*mark), self.mark(*other));
                write!(f, "disagreement: id {id} is {mark} at {name}, and {other} elsewhere")
            }
            Anomaly::FalseAck { mark, id, but: None } => {
                write!(f, "false ack: {} as {id}, which was not sent", self.mark(*mark))
            }
            Anomaly::FalseAck { mark, id, but: Some(first) } => {
                write!(f, "false ack: {} as {first}, then as {id}", self.mark(*mark))
            }
            Anomaly::SharedPlace { id, marks: [first, second] } => {
                let (first, second) = (self.mark(*first), self.mark(*second));
                write!(f, "false ack: id {id} for {first} and for {second}")
            }
            Anomaly::Phantom { device, id } => {
                write!(f, "phantom: id {id} at {}, which nobody sent", self.name(*device))
            }
            Anomaly::Refused { mark, why } => write!(f, "refused: {}: {why}", self.mark(*mark)),
            Anomaly::Unanswered { mark } => write!(f, "unanswered: {}", self.mark(*mark)),
            Anomaly::HistoryLost { device, what } => {
                write!(f, "history lost: {what}, at {}", self.name(*device))
            }
        }
    }
}
