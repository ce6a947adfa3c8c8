//! Frames written by hand, right ones and wrong ones.

use tern_protocol::frames::{Cursor, Fetch, Hello, Login, Network, Ping, Resume, Send, TokenLogin};
use tern_protocol::limits::{MAGIC, VERSION};
use tern_protocol::{ChannelId, DeviceId, Flags, Kind, Uin};
use zerocopy::IntoBytes;

use super::server::Account;

/// A frame of any kind and flags around any payload.
pub fn frame(kind: Kind, flags: u8, payload: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(payload.len()).expect("a payload fits a frame");
    let mut frame = bytes.to_le_bytes().to_vec();
    frame.extend([kind.0, flags]);
    frame.extend(payload);
    frame
}

/// HELLO.
pub fn hello() -> Vec<u8> {
    hello_of(MAGIC, VERSION)
}

/// HELLO of another protocol or version.
pub fn hello_of(magic: [u8; 4], version: u16) -> Vec<u8> {
    let network = Network::Wired.to_wire();
    let hello = Hello {
        magic,
        version: version.into(),
        network,
        reserved: 0,
        capabilities: 0.into(),
        digest: 0.into(),
        heartbeat_ms: 0.into(),
        reserved_end: 0.into(),
    };
    frame(Kind::Hello, 0, hello.as_bytes())
}

/// LOGIN.
pub fn login(account: &Account) -> Vec<u8> {
    let Account { uin, device, secret } = *account;
    let login = Login { uin: uin.into(), device: device.into(), reserved: 0.into(), secret };
    frame(Kind::Login, 0, login.as_bytes())
}

/// TOKEN_LOGIN.
pub fn token_login(uin: Uin, device: DeviceId, token: &[u8]) -> Vec<u8> {
    let head = TokenLogin { uin: uin.into(), device: device.into(), reserved: 0.into() };
    frame(Kind::TokenLogin, 0, &[head.as_bytes(), token].concat())
}

/// RESUME.
pub fn resume(account: &Account, epoch: u32, token: [u8; 32]) -> Vec<u8> {
    let Account { uin, device, .. } = *account;
    let resume = Resume { uin: uin.into(), device: device.into(), epoch: epoch.into(), token };
    frame(Kind::Resume, 0, resume.as_bytes())
}

/// A cursor of a client that knows no incarnation.
pub fn cursor(channel: ChannelId, id: u64) -> Cursor {
    Cursor { channel, id: id.into(), incarnation: 0.into(), reserved: 0.into() }
}

/// CURSORS; with `last`, the end of the list.
pub fn cursors(list: &[Cursor], last: bool) -> Vec<u8> {
    let flags = if last { Flags::LAST } else { Flags::NONE };
    frame(Kind::Cursors, flags.0, list.as_bytes())
}

/// RECEIVE_ACK.
pub fn receive_ack(channel: ChannelId, id: u64) -> Vec<u8> {
    frame(Kind::ReceiveAck, 0, cursor(channel, id).as_bytes())
}

/// FETCH.
pub fn fetch(channel: ChannelId, from: u64, to: u64) -> Vec<u8> {
    let fetch = Fetch { channel, from: from.into(), to: to.into() };
    frame(Kind::Fetch, 0, fetch.as_bytes())
}

/// PING.
pub fn ping(sequence: u32) -> Vec<u8> {
    let network = Network::Wired.to_wire();
    let ping = Ping {
        sequence: sequence.into(),
        network,
        reserved: [0; 3],
        digest: 0.into(),
        heartbeat_ms: 0.into(),
        reserved_end: 0.into(),
    };
    frame(Kind::Ping, 0, ping.as_bytes())
}

/// The head of a SEND without a predecessor.
pub fn send_head(channel: ChannelId, epoch: u32, counter: u32) -> Send {
    Send {
        channel,
        epoch: epoch.into(),
        counter: counter.into(),
        predecessor: 0.into(),
        content_type: 0.into(),
        kind: 1,
        version: 1,
        refers_to: 0.into(),
    }
}

/// SEND of any head and content.
pub fn send_of(head: Send, content: &[u8]) -> Vec<u8> {
    frame(Kind::Send, 0, &[head.as_bytes(), content].concat())
}

/// SEND.
pub fn send(channel: ChannelId, epoch: u32, counter: u32, content: &[u8]) -> Vec<u8> {
    send_of(send_head(channel, epoch, counter), content)
}
