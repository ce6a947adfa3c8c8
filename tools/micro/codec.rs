//! Frames to bytes and back: a SEND of 100 bytes of content.

use std::hint::black_box;

use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{Send, content_type, message_kind};
use tern_protocol::{ChannelId, Flags, Frame, Kind, Uin};

use super::Operation;

/// Bytes of the content.
pub const CONTENT_BYTES: usize = 100;

/// A frame, and room to write it again.
pub struct Codec {
    bytes: Vec<u8>,
    counter: u32,
}

/// Writing instead of reading.
pub struct Encode(pub Codec);

impl Codec {
    /// A frame.
    pub fn new() -> Self {
        let mut codec = Self { bytes: vec![0; frame_bytes::<Send>(CONTENT_BYTES)], counter: 0 };
        codec.write();
        codec
    }

    fn write(&mut self) {
        self.counter += 1;
        let channel = ChannelId::direct(Uin(1), Uin(2));
        let head = send(channel, 1, self.counter);
        let content = black_box([7; CONTENT_BYTES]);
        encode(Kind::Send, Flags::NONE, &head, &content, black_box(&mut self.bytes));
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}

/// A SEND under this key.
pub fn send(channel: ChannelId, epoch: u32, counter: u32) -> Send {
    Send {
        channel,
        epoch: epoch.into(),
        counter: counter.into(),
        predecessor: 0.into(),
        content_type: content_type::OPAQUE.into(),
        kind: message_kind::CONTENT,
        version: 1,
        refers_to: 0.into(),
    }
}

impl Operation for Codec {
    fn once(&mut self) {
        let parsed = Frame::parse(black_box(&self.bytes));
        let Ok((Frame::Send(head, content), _)) = black_box(parsed) else {
            unreachable!("a SEND was written");
        };
        black_box((head.counter.get(), content.len()));
    }
}

impl Operation for Encode {
    fn once(&mut self) {
        self.0.write();
    }
}
