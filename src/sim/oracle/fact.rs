//! What stands at one place of a channel, and the label by which the world knows its messages.

use tern_client::group::GroupChange;
use tern_core::mail::Device;
use tern_groupmodel::Said;
use tern_protocol::frames::{PushBody, message_kind};
use tern_protocol::{ChannelId, SendKey};
use zerocopy::FromBytes;

/// A message as it stands in its channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Where.
    pub channel: ChannelId,
    /// Its place there.
    pub id: u64,
    /// Who sent it.
    pub sender: Device,
    /// Under which key.
    pub key: SendKey,
    /// When the server accepted it, by its own clock.
    pub time: u64,
    /// See [`message_kind`].
    pub kind: u8,
    /// The message that a recall or an edit is about; else 0.
    pub refers_to: u64,
    /// What it says.
    pub content: Vec<u8>,
    /// The call that sent it: a text tells it, of a change only the client knows.
    pub label: Option<Label>,
}

impl Fact {
    /// From the body of a message's record or push; `None` if it is none.
    pub fn of(body: &[u8]) -> Option<Self> {
        let (head, content) = PushBody::ref_from_prefix(body).ok()?;
        Some(Self::from_parts(head, content))
    }

    /// From the fixed part of a push and the content.
    pub fn from_parts(head: &PushBody, content: &[u8]) -> Self {
        Self {
            channel: head.channel,
            id: head.id.get(),
            sender: Device { uin: head.sender.into(), device: head.device.into() },
            key: head.key(),
            time: head.server_time.get(),
            kind: head.kind,
            refers_to: head.refers_to.get(),
            content: content.to_vec(),
            label: Label::of(head.kind, content),
        }
    }

    /// The message whose words it says: of an edit the original, else itself.
    pub fn original(&self) -> u64 {
        if self.kind == message_kind::EDIT { self.refers_to } else { self.id }
    }

    /// As the rules of groups look at it.
    pub fn said(&self) -> Said<'_> {
        let (sender, kind, time) = (self.sender.uin.0, self.kind, self.time);
        Said { sender, kind, time, content: &self.content }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Device { uin, device } = self.sender;
        write!(f, "{}#{} by {uin}.{device} key {}", self.channel, self.id, self.key)?;
        if let Some(label) = self.label {
            write!(f, " \"{label}\"")?;
        }
        match self.kind {
            message_kind::CHANGE => write!(f, " {:?}", GroupChange::decode(&self.content)),
            message_kind::RECALL => write!(f, " recalls #{}", self.refers_to),
            message_kind::EDIT => write!(f, " edits #{}", self.refers_to),
            _ => Ok(()),
        }
    }
}

/// Names one call of "send" of one application; it stands in the content and in the tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Label {
    /// The install that was called.
    pub install: u32,
    /// The calls of that install, counted from 1.
    pub serial: u32,
}

impl Label {
    /// As the application's mark.
    pub fn to_tag(self) -> u64 {
        u64::from(self.install) << 32 | u64::from(self.serial)
    }

    /// From the application's mark.
    pub fn from_tag(tag: u64) -> Self {
        Self { install: (tag >> 32) as u32, serial: tag as u32 } // two halves
    }

    /// A content of this many bytes, or more if the label needs them.
    pub fn content(self, bytes: usize) -> Vec<u8> {
        let mut content = format!("{self} ").into_bytes();
        content.resize(content.len().max(bytes), b'.');
        content
    }

    /// Of a message, by what it says; of a change only the client knows.
    pub fn of(kind: u8, content: &[u8]) -> Option<Self> {
        (kind == message_kind::CONTENT).then(|| Self::read(content)).flatten()
    }

    fn read(content: &[u8]) -> Option<Self> {
        let end = content.iter().position(|byte| *byte == b' ')?;
        let (install, serial) = std::str::from_utf8(&content[..end]).ok()?.split_once('/')?;
        Some(Self { install: install.parse().ok()?, serial: serial.parse().ok()? })
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.install, self.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_survives_the_way() {
        let label = Label { install: 3, serial: 70_001 };
        assert_eq!(Label::from_tag(label.to_tag()), label);
        assert_eq!(Label::read(&label.content(0)), Some(label));
        assert_eq!(Label::read(&label.content(900)), Some(label));
        assert_eq!(Label::read(b"other"), None);
    }
}
