//! What the demo and a device's process say to each other over the process's standard input and
//! output: an [`Order`] or a [`Report`] a line, in JSON.

use serde::{Deserialize, Serialize};

/// What a device is told to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Send this to the other user.
    Send {
        /// The message's number among this device's.
        number: u64,
        /// What it says.
        text: String,
    },
    /// Go on from another address.
    ChangeAddress,
}

/// What a device says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The process is up, and knows these messages from before, which have no answer yet.
    Started {
        /// Their numbers.
        kept: Vec<u64>,
    },
    /// Logged in.
    Online {
        /// Whether a live session went on.
        resumed: bool,
    },
    /// Without connection; it tries again by itself.
    Offline {
        /// The reason, if one was given.
        why: Option<String>,
    },
    /// A message is durable on the server.
    Acked {
        /// Its number.
        number: u64,
        /// Its place in the channel.
        id: u64,
    },
    /// A message was refused for good.
    Refused {
        /// Its number.
        number: u64,
        /// The reason.
        why: String,
    },
    /// A message came and is shown.
    Showed {
        /// Its place in the channel.
        id: u64,
        /// Who sent it.
        sender: u64,
        /// What it says.
        text: String,
    },
    /// A part of the channel's history will never come.
    HistoryLost {
        /// What was said about it.
        what: String,
    },
    /// The process can't go on.
    Failed {
        /// Why.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let order = Order::Send { number: 1, text: "a\nb".to_owned() };
        let line = serde_json::to_string(&order).expect("it is JSON");
        assert_eq!(line, r#"{"send":{"number":1,"text":"a\nb"}}"#);
        assert_eq!(serde_json::from_str::<Order>(&line).expect("the same"), order);
    }
}
