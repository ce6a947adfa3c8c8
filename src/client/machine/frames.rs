//! The frames that a client says, each as one buffer.

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    Block, BlockList, Close, Cursor, Fetch, GroupInfo, Hello, HistoryAsk, HistoryWanted, Login,
    MarksAsk, Ping, ReadMark, ReceiptsAsk, Resume, Send, TokenLogin, block,
};
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::limits::{CURSORS_PER_FRAME_MAX, MAGIC, SECRET_BYTES, VERSION};
use tern_protocol::{ChannelId, Code, Epoch, Flags, Kind, MessageId, SendCounter, SendKey, Uin};
use zerocopy::{Immutable, IntoBytes};

use super::beat::Said;
use super::io::{Identity, Position, Proof, SavedSend};

/// Version of the body of a message that this client writes.
const BODY_VERSION: u8 = 1;

fn frame<T: IntoBytes + Immutable>(kind: Kind, head: &T, variable: &[u8]) -> Bytes {
    let mut buffer = vec![0; frame_bytes::<T>(variable.len())];
    encode(kind, Flags::NONE, head, variable, &mut buffer);
    buffer.into()
}

/// `capabilities` is what this client can do; what else it says is what a beat says.
pub(crate) fn hello(said: Said, capabilities: u64) -> Bytes {
    let hello = Hello {
        magic: MAGIC,
        version: VERSION.into(),
        network: said.network.to_wire(),
        reserved: 0,
        capabilities: capabilities.into(),
        digest: said.digest.into(),
        heartbeat_ms: said.wanted_ms.into(),
        reserved_end: 0.into(),
    };
    frame(Kind::Hello, &hello, &[])
}

pub(crate) fn login(identity: &Identity) -> Bytes {
    let (uin, device, reserved) = (identity.uin.into(), identity.device.into(), 0.into());
    match &identity.proof {
        Proof::Secret(secret) => {
            frame(Kind::Login, &Login { uin, device, reserved, secret: *secret }, &[])
        }
        Proof::Token(token) => {
            frame(Kind::TokenLogin, &TokenLogin { uin, device, reserved }, token)
        }
    }
}

pub(crate) fn resume(identity: &Identity, epoch: Epoch, token: [u8; SECRET_BYTES]) -> Bytes {
    let resume = Resume {
        uin: identity.uin.into(),
        device: identity.device.into(),
        epoch: epoch.into(),
        token,
    };
    frame(Kind::Resume, &resume, &[])
}

pub(crate) fn send(send: &SavedSend, key: SendKey, predecessor: SendCounter) -> Bytes {
    let head = Send {
        channel: send.channel,
        epoch: key.epoch.into(),
        counter: key.counter.into(),
        predecessor: predecessor.into(),
        content_type: send.content_type.into(),
        kind: send.kind,
        version: BODY_VERSION,
        refers_to: send.refers_to.into(),
    };
    frame(Kind::Send, &head, &send.content)
}

pub(crate) fn ping(sequence: u32, said: Said) -> Bytes {
    let ping = Ping {
        sequence: sequence.into(),
        network: said.network.to_wire(),
        reserved: [0; 3],
        digest: said.digest.into(),
        heartbeat_ms: said.wanted_ms.into(),
        reserved_end: 0.into(),
    };
    frame(Kind::Ping, &ping, &[])
}

pub(crate) fn fetch(channel: ChannelId, from: MessageId, to: MessageId) -> Bytes {
    frame(Kind::Fetch, &Fetch { channel, from: from.into(), to: to.into() }, &[])
}

pub(crate) fn group_info(channel: ChannelId, after: Uin) -> Bytes {
    frame(Kind::GroupInfo, &GroupInfo { channel, after: after.into() }, &[])
}

pub(crate) fn history_ask(channel: ChannelId, before: MessageId, limit: u32) -> Bytes {
    let (before, limit) = (before.into(), limit.into());
    frame(Kind::HistoryAsk, &HistoryAsk { channel, before, limit, reserved: 0.into() }, &[])
}

pub(crate) fn history_wanted(newest: u32) -> Bytes {
    let wanted = HistoryWanted { newest: newest.into(), reserved: 0.into() };
    frame(Kind::HistoryWanted, &wanted, &[])
}

pub(crate) fn block(uin: Uin, begins: bool) -> Bytes {
    let action = if begins { block::BEGIN } else { block::END };
    frame(Kind::Block, &Block { uin: uin.into(), action, reserved: [0; 7] }, &[])
}

pub(crate) fn block_list(after: Uin) -> Bytes {
    frame(Kind::BlockList, &BlockList { after: after.into() }, &[])
}

pub(crate) fn marks_ask(life: u64, since: u64) -> Bytes {
    frame(Kind::MarksAsk, &MarksAsk { life: life.into(), since: since.into() }, &[])
}

pub(crate) fn receipts_ask(channel: ChannelId, id: MessageId) -> Bytes {
    frame(Kind::ReceiptsAsk, &ReceiptsAsk { channel, id: id.into() }, &[])
}

/// One UNREAD_ASK for at most as many channels as it may name.
pub(crate) fn unread_ask(list: &[Position]) -> Bytes {
    cursor_frame(Kind::UnreadAsk, Flags::NONE, list)
}

/// One READ for at most as many channels as a frame holds.
pub(crate) fn read(list: &[Position], quiet: bool) -> Bytes {
    let marks: Vec<ReadMark> = list
        .iter()
        .map(|position| ReadMark {
            channel: position.channel,
            id: position.id.into(),
            incarnation: position.incarnation.into(),
            quiet: u8::from(quiet),
            reserved: [0; 3],
        })
        .collect();
    list_frame(Kind::Read, Flags::NONE, marks.as_bytes())
}

pub(crate) fn close(code: Code) -> Bytes {
    let close = Close { code: code.0.into(), slot_tenths: 0.into(), come_back_ms: 0.into() };
    frame(Kind::Close, &close, &[])
}

/// The whole list in as many frames as it needs, the last one marked; an empty list is one frame.
pub(crate) fn cursors(list: &[Position]) -> Vec<Bytes> {
    let pages = list.len().div_ceil(CURSORS_PER_FRAME_MAX).max(1);
    (0..pages)
        .map(|page| {
            let rest = &list[page * CURSORS_PER_FRAME_MAX..];
            let flags = if page + 1 == pages { Flags::LAST } else { Flags::NONE };
            cursor_frame(Kind::Cursors, flags, &rest[..rest.len().min(CURSORS_PER_FRAME_MAX)])
        })
        .collect()
}

/// One RECEIVE_ACK for at most as many channels as a frame holds.
pub(crate) fn receive_ack(list: &[Position]) -> Bytes {
    cursor_frame(Kind::ReceiveAck, Flags::NONE, list)
}

fn cursor_frame(kind: Kind, flags: Flags, list: &[Position]) -> Bytes {
    let cursors: Vec<Cursor> = list
        .iter()
        .map(|position| Cursor {
            channel: position.channel,
            id: position.id.into(),
            incarnation: position.incarnation.into(),
            reserved: 0.into(),
        })
        .collect();
    list_frame(kind, flags, cursors.as_bytes())
}

fn list_frame(kind: Kind, flags: Flags, payload: &[u8]) -> Bytes {
    let mut buffer = Vec::with_capacity(HEADER_BYTES + payload.len());
    let header = tern_protocol::frame::header(kind, flags, payload.len());
    buffer.extend_from_slice(header.as_bytes());
    buffer.extend_from_slice(payload);
    buffer.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::{Frame, Incarnation};

    #[test]
    fn a_long_list_of_cursors_spans_frames_and_only_the_last_is_marked() {
        let position = |n: u64| Position {
            channel: ChannelId::direct(Uin(1), Uin(n + 1)),
            id: MessageId(n),
            incarnation: Incarnation(1),
        };
        for (count, frames) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2)] {
            let list: Vec<Position> = (0..count).map(position).collect();
            let pages = cursors(&list);
            assert_eq!(pages.len(), frames, "{count}");
            let mut seen = 0;
            for (n, page) in pages.iter().enumerate() {
                let (frame, flags) = Frame::parse(page).unwrap();
                assert_eq!(flags.has(Flags::LAST), n + 1 == frames);
                match frame {
                    Frame::Cursors(entries) => seen += entries.len() as u64,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(seen, count);
        }
    }
}
