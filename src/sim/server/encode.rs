//! Frames as bytes, and as text for people.

use bytes::Bytes;
use tern_client::group::GroupChange;
use tern_core::io::{ComeBack, Outgoing};
use tern_protocol::frames::{Close, ErrorHead, Mark, message_kind};
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::{Code, Flags, Frame};
use zerocopy::FromBytes;

use crate::oracle::fact::Fact;

/// A frame of the machine as bytes.
pub fn encode(frame: &Outgoing) -> Bytes {
    let error;
    let frame = match frame {
        Outgoing::Welcome(head) => Frame::Welcome(head),
        Outgoing::Identity(head) => Frame::Identity(head),
        Outgoing::LoggedIn(head) => Frame::LoggedIn(head),
        Outgoing::SendAck(head) => Frame::SendAck(head),
        Outgoing::SendRefused(head) => Frame::SendRefused(head),
        Outgoing::Channel(head) => Frame::Channel(head),
        Outgoing::Gap(head) => Frame::Gap(head),
        Outgoing::Blocked(head) => Frame::Blocked(head),
        Outgoing::Pong(head) => Frame::Pong(head),
        Outgoing::AskCursors(head) => Frame::AskCursors(head),
        Outgoing::Error { code, kind, flags, retry_after_ms } => {
            error = ErrorHead {
                code: code.0.into(),
                kind: kind.0,
                flags: flags.0,
                retry_after_ms: (*retry_after_ms).into(),
            };
            Frame::Error(&error, code.sentence().as_bytes())
        }
    };
    bytes_of(&frame)
}

/// CLOSE as bytes.
pub fn encode_close(code: Code, come_back: ComeBack) -> Bytes {
    let (slot_tenths, come_back_ms) = (come_back.slot_tenths.into(), come_back.ms.into());
    let head = Close { code: code.0.into(), slot_tenths, come_back_ms };
    bytes_of(&Frame::Close(&head, &[]))
}

/// PUSH with this body.
pub fn encode_push(body: &[u8]) -> Bytes {
    let header = tern_protocol::frame::header(tern_protocol::Kind::Push, Flags::NONE, body.len());
    [zerocopy::IntoBytes::as_bytes(&header), body].concat().into()
}

fn bytes_of(frame: &Frame<'_>) -> Bytes {
    let (fixed, tail) = frame.payload();
    let mut buffer = vec![0; HEADER_BYTES + fixed.len() + tail.len()];
    frame.encode(Flags::NONE, &mut buffer);
    buffer.into()
}

/// A frame as people read it in a trace.
pub struct Shown<'a>(pub &'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ok((frame, _)) = Frame::parse(self.0) else { return write!(f, "no frame") };
        write!(f, "{} ", frame.kind())?;
        match frame {
            Frame::Send(head, content) => {
                let pred = head.predecessor.get();
                write!(f, "{} key {} after {pred} ", head.channel, head.key())?;
                if head.kind == message_kind::CHANGE {
                    return write!(f, "{:?}", GroupChange::decode(content));
                }
                if head.kind != message_kind::CONTENT {
                    write!(f, "about #{} ", head.refers_to)?;
                }
                let label = String::from_utf8_lossy(content);
                write!(f, "\"{}\"", label.split(' ').next().unwrap_or_default())
            }
            Frame::SendAck(ack) => write!(f, "{} key {} = #{}", ack.channel, ack.key(), ack.id),
            Frame::SendRefused(no) => {
                write!(f, "{} key {} {}", no.channel, no.key(), Code(no.code.get()))
            }
            Frame::Push(head, content) => Fact::from_parts(head, content).fmt(f),
            Frame::Cursors(list) | Frame::ReceiveAck(list) => {
                list.iter().try_for_each(|at| write!(f, "{}#{} ", at.channel, at.id))
            }
            Frame::Read(list) => {
                list.iter().try_for_each(|at| write!(f, "{}#{} ", at.channel, at.id))
            }
            Frame::Marks(head, rest) => {
                write!(f, "life {} as of {} ", head.life, head.as_of)?;
                let list = <[Mark]>::ref_from_bytes(rest).unwrap_or_default();
                list.iter().try_for_each(|at| {
                    let (delivered, read) = (at.delivered.get(), at.read.get());
                    write!(f, "{} of {} #{delivered} read #{read} ", at.channel, at.uin)
                })
            }
            Frame::LoggedIn(head) => write!(f, "epoch {} resumed {}", head.epoch, head.resumed),
            Frame::Error(head, _) => write!(f, "{}", Code(head.code.get())),
            Frame::Close(head, _) => write!(f, "{}", Code(head.code.get())),
            Frame::Gap(gap) => {
                let code = Code(gap.code.get());
                write!(f, "{} #{} to #{} {code}", gap.channel, gap.from, gap.to)
            }
            Frame::Channel(state) => write!(f, "{} newest #{}", state.channel, state.newest),
            Frame::Login(head) => write!(f, "{}.{}", head.uin, head.device),
            Frame::Resume(head) => write!(f, "{}.{} epoch {}", head.uin, head.device, head.epoch),
            _ => Ok(()),
        }
    }
}
