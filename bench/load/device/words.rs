//! What a device says: its frames, into the bytes of its stream or its datagrams.

use std::time::Instant;

use bytes::Bytes;
use tern_protocol::digest::UNSAID;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    Cursor, Hello, Login, Resume, Send, capabilities, content_type, message_kind,
};
use tern_protocol::limits::{MAGIC, SECRET_BYTES, VERSION};
use tern_protocol::{Epoch, Flags, Kind, MessageId, SendCounter, SendKey};
use zerocopy::{Immutable, IntoBytes};

use super::{CONTENT_BYTES_MIN, Device, Message, Unanswered};
use crate::load::Datagrams;

/// Version of the body that is sent.
pub(super) const BODY_VERSION: u8 = 1;

impl Device {
    pub(super) fn say_all_cursors(&mut self) {
        let read =
            self.cursors.iter().filter(|(_, reading)| reading.cursor != MessageId::default());
        let list: Vec<Cursor> = read.map(|(channel, reading)| reading.entry(*channel)).collect();
        self.say_cursors(Kind::Cursors, Flags::LAST, &list);
        self.cursors.values_mut().for_each(|reading| reading.acked = reading.cursor);
    }

    pub(super) fn capabilities(&self) -> u64 {
        if self.way == Datagrams::Off { capabilities::NONE } else { capabilities::DATAGRAMS }
    }

    pub(super) fn say_hello(&mut self) {
        let hello = Hello {
            magic: MAGIC,
            version: VERSION.into(),
            network: self.network.to_wire(),
            reserved: 0,
            capabilities: self.capabilities().into(),
            digest: UNSAID.into(),
            heartbeat_ms: 0.into(),
            reserved_end: 0.into(),
        };
        self.say(Kind::Hello, Flags::NONE, &hello, &[]);
    }

    pub(super) fn say_login(&mut self) {
        let login = Login {
            uin: self.identity.uin.into(),
            device: self.identity.device.into(),
            reserved: 0.into(),
            secret: self.identity.secret,
        };
        self.say(Kind::Login, Flags::NONE, &login, &[]);
    }

    pub(super) fn say_resume(&mut self, epoch: Epoch, token: [u8; SECRET_BYTES]) {
        let resume = Resume {
            uin: self.identity.uin.into(),
            device: self.identity.device.into(),
            epoch: epoch.into(),
            token,
        };
        self.say(Kind::Resume, Flags::NONE, &resume, &[]);
    }

    pub(super) fn say_send(&mut self, now: Instant, epoch: Epoch, message: Message) {
        let mut content = vec![0; message.content_bytes.max(CONTENT_BYTES_MIN)];
        content[..CONTENT_BYTES_MIN].copy_from_slice(&message.tag.to_le_bytes());
        self.say_content(now, epoch, message, message_kind::CONTENT, &content);
    }

    /// Sends a message of this kind and content under the present counter.
    pub(super) fn say_content(
        &mut self,
        now: Instant,
        epoch: Epoch,
        Message { channel, tag, .. }: Message,
        kind: u8,
        content: &[u8],
    ) {
        let key = SendKey { epoch, counter: SendCounter(self.counter) };
        let head = Send {
            channel,
            epoch: epoch.into(),
            counter: key.counter.into(),
            predecessor: self.predecessors.insert(channel, self.counter).unwrap_or(0).into(),
            content_type: content_type::OPAQUE.into(),
            kind,
            version: BODY_VERSION,
            refers_to: 0.into(),
        };
        let mut frame = vec![0; frame_bytes::<Send>(content.len())];
        encode(Kind::Send, Flags::NONE, &head, content, &mut frame);
        let frame = Bytes::from(frame);
        let free = self.uses_datagrams.then_some(now);
        self.unanswered.push_back(Unanswered { key, tag, frame: frame.clone(), free });
        if self.uses_datagrams && self.way != Datagrams::Repeated {
            self.datagrams.push_back(frame);
        } else {
            self.outbox.extend_from_slice(&frame);
        }
    }

    /// Acknowledges every channel that was read further.
    pub(super) fn say_receive_ack(&mut self) {
        (self.unacked, self.ack_at) = (0, None);
        let further = self.cursors.iter_mut().filter(|(_, reading)| reading.acked < reading.cursor);
        let list: Vec<Cursor> = further
            .map(|(channel, reading)| {
                reading.acked = reading.cursor;
                reading.entry(*channel)
            })
            .collect();
        self.say_cursors(Kind::ReceiveAck, Flags::NONE, &list);
    }

    pub(super) fn say_cursors(&mut self, kind: Kind, flags: Flags, list: &[Cursor]) {
        self.say(kind, flags, &(), list.as_bytes());
    }

    pub(super) fn say<T: IntoBytes + Immutable>(
        &mut self,
        kind: Kind,
        flags: Flags,
        head: &T,
        tail: &[u8],
    ) {
        let start = self.outbox.len();
        self.outbox.resize(start + frame_bytes::<T>(tail.len()), 0);
        encode(kind, flags, head, tail, &mut self.outbox[start..]);
    }
}
