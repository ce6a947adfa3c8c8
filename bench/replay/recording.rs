//! What clients said in a capture, read from the lines that `wirecat --extract` writes.
//!
//! In comes the text, out come the frames in their order, who spoke on which connection, and which
//! users must be there. What makes no sense is an error that names its line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tern_protocol::frames::message_kind;
use tern_protocol::group::ChangeView;
use tern_protocol::{ChannelId, DeviceId, Flags, Frame, Kind, MessageId, SendKey, Uin};

use crate::error::{BenchError, Tried};

/// Who speaks: a user's device.
pub type Who = (Uin, DeviceId);

/// What clients said.
#[derive(Debug)]
pub struct Recording {
    /// The frames, in the order in which they were whole in the capture.
    pub steps: Vec<Step>,
    /// The connections that they were said on.
    pub connections: Vec<Spoken>,
    /// The messages that got an id in the capture: who sent them, and under which key.
    pub ids: BTreeMap<(ChannelId, MessageId), (Who, SendKey)>,
    /// All users that are named where a new server must know them, and their devices.
    pub users: BTreeMap<Uin, BTreeSet<DeviceId>>,
}

/// One frame of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// When, since the beginning of the capture.
    pub at: Duration,
    /// Which of [`Recording::connections`].
    pub connection: usize,
    /// What it was.
    pub kind: Kind,
    /// Whether it travelled by datagram.
    pub by_datagram: bool,
    /// The frame with its header; `None` for a login whose secret was left out.
    pub frame: Option<Vec<u8>>,
    /// Changes of the same group that stand before it.
    pub changes_before: u64,
}

/// A connection of the capture.
#[derive(Clone, Default, Debug)]
pub struct Spoken {
    /// Who logged in; `None` if that is not in the capture.
    pub who: Option<Who>,
    /// Whether it told its cursors behind the login.
    pub tells_cursors: bool,
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    at_us: String,
    connection: u32,
    kind: String,
    by: Carrier,
    uin: Option<String>,
    device: Option<u32>,
    hex: Option<String>,
}

#[derive(PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Carrier {
    Stream,
    Datagram,
}

impl Step {
    /// The group that it changes, and the change; `None` if it is anything else.
    pub fn change(&self) -> Option<(ChannelId, ChangeView<'_>)> {
        let Ok((Frame::Send(send, content), _)) = Frame::parse(self.frame.as_deref()?) else {
            return None;
        };
        let change = ChangeView::parse(content).filter(|_| send.kind == message_kind::CHANGE)?;
        Some((send.channel, change))
    }

    /// The group that it changes.
    pub fn changes(&self) -> Option<ChannelId> {
        self.change().map(|(group, _)| group)
    }
}

impl Recording {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).tried(format!("read {}", path.display()))?;
        Self::parse(&text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn parse(text: &str) -> Result<Self, BenchError> {
        let mut recording = Self {
            steps: Vec::new(),
            connections: Vec::new(),
            ids: BTreeMap::new(),
            users: BTreeMap::new(),
        };
        let (mut numbers, mut changes) = (BTreeMap::new(), BTreeMap::new());
        for (number, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            recording.take(text, &mut numbers, &mut changes).ok_or_else(|| {
                let line = number + 1;
                let what = format!("line {line} is none that wirecat --extract writes: {text:.80}");
                BenchError::Usage(what)
            })?;
        }
        if recording.steps.is_empty() {
            return Err(BenchError::Usage("the capture holds no frame of a client".to_owned()));
        }
        Ok(recording)
    }

    /// How long it lasts.
    pub fn lasts(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |step| step.at)
    }

    /// Each device of each user; a user who is only written to has one too.
    pub fn devices(&self) -> Vec<Who> {
        let each = self.users.iter().flat_map(|(uin, devices)| {
            let own = devices.iter().map(|device| (*uin, *device));
            let silent = devices.is_empty().then_some((*uin, DeviceId(0)));
            own.chain(silent)
        });
        each.collect()
    }

    fn take(
        &mut self,
        text: &str,
        numbers: &mut BTreeMap<u32, usize>,
        changes: &mut BTreeMap<ChannelId, u64>,
    ) -> Option<()> {
        let line: Line = serde_json::from_str(text).ok()?;
        let frame = line.hex.as_deref().map(unhex);
        let frame = frame.map_or(Some(None), |frame| frame.map(Some))?;
        let kind = match frame.as_ref().map(|frame| frame.get(2)) {
            Some(kind) => Kind(*kind?),
            None => Kind::ALL.iter().find(|row| row.label == line.kind)?.kind,
        };
        let next = self.connections.len();
        let connection = *numbers.entry(line.connection).or_insert(next);
        if connection == next {
            self.connections.push(Spoken::default());
        }
        if let (Some(uin), Some(device)) = (&line.uin, line.device) {
            let who = (Uin(uin.parse().ok()?), DeviceId(device));
            self.connections[connection].who = Some(who);
            self.users.entry(who.0).or_default().insert(who.1);
        }
        if let Some(Ok((Frame::SendAck(ack), _))) = frame.as_deref().map(Frame::parse) {
            let named = self.connections[connection].who.map(|who| (who, ack.key()));
            self.ids.extend(named.map(|named| ((ack.channel, ack.id.into()), named)));
            return Some(()); // the server said it
        }
        let at = Duration::from_micros(line.at_us.parse().ok()?);
        let mut changes_before = 0;
        if let Some(Ok((frame, flags))) = frame.as_deref().map(Frame::parse) {
            changes_before = self.look(connection, &frame, flags, changes);
        }
        let by_datagram = line.by == Carrier::Datagram;
        self.steps.push(Step { at, connection, kind, by_datagram, frame, changes_before });
        Some(())
    }

    /// Notes whom a frame needs; how many changes of its group stand before it.
    fn look(
        &mut self,
        connection: usize,
        frame: &Frame<'_>,
        flags: Flags,
        changes: &mut BTreeMap<ChannelId, u64>,
    ) -> u64 {
        match frame {
            Frame::Cursors(_) if flags == Flags::LAST => {
                self.connections[connection].tells_cursors = true;
            }
            Frame::Block(block) => drop(self.users.entry(Uin(block.uin.get())).or_default()),
            Frame::Send(send, content) => {
                if let Some((low, high)) = send.channel.members() {
                    for uin in [low, high] {
                        self.users.entry(uin).or_default();
                    }
                    return 0;
                }
                let before = changes.entry(send.channel).or_default();
                let number = *before;
                if send.kind == message_kind::CHANGE {
                    *before += 1;
                    let named = ChangeView::parse(content);
                    named.iter().flat_map(ChangeView::uins).for_each(|uin| {
                        self.users.entry(uin).or_default();
                    });
                }
                return number;
            }
            _ => {}
        }
        0
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_steps() {
        let text = concat!(
            r#"{"again":false,"at_us":"5","by":"stream","connection":7,"kind":"HELLO","hex":"00000100"}"#,
            "\n\n",
            r#"{"again":false,"at_us":"9","by":"stream","connection":7,"kind":"LOGIN","uin":"12","device":3,"secret_bytes":52}"#,
            "\n",
            r#"{"again":true,"at_us":"11","by":"datagram","connection":9,"kind":"PING","hex":"00002000"}"#,
        );
        let recording = Recording::parse(text).expect("all lines are sound");
        let kinds: Vec<Kind> = recording.steps.iter().map(|step| step.kind).collect();
        assert_eq!(kinds, [Kind::Hello, Kind::Login, Kind::Ping]);
        assert_eq!(recording.connections[0].who, Some((Uin(12), DeviceId(3))));
        assert_eq!(recording.connections[1].who, None);
        assert_eq!((recording.steps[2].connection, recording.steps[2].by_datagram), (1, true));
        assert_eq!(recording.lasts(), Duration::from_micros(11));
        assert_eq!(recording.devices(), [(Uin(12), DeviceId(3))]);
    }

    #[test]
    fn what_is_no_recording_is_named() {
        for text in
            ["", "{}", "no JSON", r#"{"at_us":"x","connection":1,"kind":"PING","by":"stream"}"#]
        {
            assert!(Recording::parse(text).is_err(), "{text}");
        }
        let odd = r#"{"at_us":"1","connection":1,"kind":"PING","by":"stream","hex":"0"}"#;
        assert!(Recording::parse(odd).is_err());
    }
}
