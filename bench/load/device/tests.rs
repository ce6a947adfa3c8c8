//! A device against frames made by hand.

use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{ErrorHead, Gap, Welcome};
use tern_protocol::limits::VERSION;
use zerocopy::{Immutable, IntoBytes};

use super::words::BODY_VERSION;
use super::*;

const CHANNEL: (Uin, Uin) = (Uin(1), Uin(2));

fn device() -> Device {
    let identity = Identity { uin: Uin(1), device: DeviceId(1), secret: [7; SECRET_BYTES] };
    Device::new(identity, Network::Wired, Datagrams::Off)
}

fn said(device: &mut Device) -> Vec<Kind> {
    let bytes = std::mem::take(device.outbox());
    let (mut rest, mut kinds) = (&bytes[..], Vec::new());
    while let Some(header) = Header::peek(rest) {
        kinds.push(Kind(header.kind));
        rest = &rest[header.frame_bytes()..];
    }
    kinds
}

fn hear<T: IntoBytes + Immutable>(
    device: &mut Device,
    kind: Kind,
    head: &T,
    tail: &[u8],
) -> Vec<Event> {
    let mut bytes = vec![0; frame_bytes::<T>(tail.len())];
    encode(kind, Flags::NONE, head, tail, &mut bytes);
    let (mut events, now) = (Vec::new(), Instant::now());
    for half in bytes.chunks(bytes.len().div_ceil(2)) {
        device.handle_bytes(now, half, 0.5, &mut |event| events.push(event));
    }
    events
}

fn logged_in() -> LoggedIn {
    LoggedIn {
        epoch: 3.into(),
        heartbeat_ms: 10_000.into(),
        resume_ms: 0.into(),
        resumed: 0,
        known: 0,
        reserved: [0; 2],
        token: [0; SECRET_BYTES],
    }
}

fn log_in(device: &mut Device) {
    assert_eq!(hear(device, Kind::LoggedIn, &logged_in(), &[]), [Event::Online { resumed: false }]);
}

fn message(tag: u64) -> Message {
    Message { channel: ChannelId::direct(CHANNEL.0, CHANNEL.1), tag, content_bytes: 100 }
}

#[test]
fn sends_wait_for_the_login_and_for_the_window() {
    let mut device = device();
    assert_eq!(said(&mut device), [Kind::Hello, Kind::Login]);
    (0..100).for_each(|tag| device.send(Instant::now(), message(tag)));
    assert!(said(&mut device).is_empty());
    log_in(&mut device);
    let sends = |kinds: &[Kind]| kinds.iter().filter(|kind| **kind == Kind::Send).count();
    assert_eq!(sends(&said(&mut device)), UNACKED_SENDS_MAX as usize);
    let ack = |counter: u32| SendAck {
        channel: message(0).channel,
        epoch: 3.into(),
        counter: counter.into(),
        id: 1.into(),
        server_time: 0.into(),
    };
    assert_eq!(hear(&mut device, Kind::SendAck, &ack(2), &[]), [Event::Acked(1)]);
    assert_eq!(sends(&said(&mut device)), 0, "the oldest holds the window");
    assert_eq!(hear(&mut device, Kind::SendAck, &ack(1), &[]), [Event::Acked(0)]);
    assert_eq!(sends(&said(&mut device)), 2);
    assert_eq!(hear(&mut device, Kind::SendAck, &ack(1), &[]), [], "a repeat");
}

#[test]
fn a_refusal_counts_only_while_its_send_waits_for_an_answer() {
    let mut device = device();
    log_in(&mut device);
    device.send(Instant::now(), message(0));
    let key = (3.into(), 1.into());
    let ack = SendAck {
        channel: message(0).channel,
        epoch: key.0,
        counter: key.1,
        id: 1.into(),
        server_time: 0.into(),
    };
    let refused = SendRefused {
        channel: message(0).channel,
        epoch: key.0,
        counter: key.1,
        code: Code::KeyUnknown.0.into(),
        member: 0.into(),
        retry_after_ms: 0.into(),
    };
    let failed = [Event::Failed(Kind::SendRefused, Code::KeyUnknown)];
    assert_eq!(hear(&mut device, Kind::SendRefused, &refused, &[]), failed);
    assert_eq!(hear(&mut device, Kind::SendAck, &ack, &[]), [Event::Acked(0)]);
    assert_eq!(hear(&mut device, Kind::SendRefused, &refused, &[]), [], "to a late repeat");
}

fn push(id: u64, sender: u64) -> PushBody {
    PushBody {
        channel: message(0).channel,
        id: id.into(),
        sender: sender.into(),
        device: 1.into(),
        epoch: 1.into(),
        counter: 1.into(),
        content_type: 0.into(),
        kind: message_kind::CONTENT,
        version: BODY_VERSION,
        server_time: 0.into(),
        refers_to: 0.into(),
    }
}

#[test]
fn pushes_are_told_once_and_acknowledged() {
    let mut device = device();
    log_in(&mut device);
    said(&mut device);
    let content = 9_u64.to_le_bytes();
    assert_eq!(hear(&mut device, Kind::Push, &push(1, 2), &content), [Event::Received(9)]);
    assert_eq!(hear(&mut device, Kind::Push, &push(1, 2), &content), [], "a repeat");
    assert_eq!(hear(&mut device, Kind::Push, &push(2, 1), &content), [], "its own");
    assert!(said(&mut device).is_empty(), "acks are collected");
    let at = device.poll_timeout().expect("an ack is due");
    device.handle_timeout(at);
    assert_eq!(said(&mut device), [Kind::ReceiveAck]);
    let hole = hear(&mut device, Kind::Push, &push(9, 2), &content);
    assert_eq!(hole, [Event::Failed(Kind::Push, Code::Lost)]);
}

#[test]
fn what_came_ahead_of_a_gap_is_told_behind_it() {
    let identity = Identity { uin: Uin(1), device: DeviceId(1), secret: [7; SECRET_BYTES] };
    let mut device = Device::new(identity, Network::Wired, Datagrams::Single);
    device.want_newest(0);
    let welcome = Welcome {
        version: VERSION.into(),
        reserved: 0.into(),
        server_time: 0.into(),
        capabilities: capabilities::DATAGRAMS.into(),
        content_bytes_max: 0.into(),
        unacked_sends_max: 0.into(),
    };
    hear(&mut device, Kind::Welcome, &welcome, &[]);
    said(&mut device);
    log_in(&mut device);
    assert_eq!(said(&mut device), [Kind::HistoryWanted, Kind::Cursors]);
    let content = 9_u64.to_le_bytes();
    assert_eq!(hear(&mut device, Kind::Push, &push(8, 2), &content), [], "ahead of its turn");
    let gap = Gap {
        channel: message(0).channel,
        from: 1.into(),
        to: 7.into(),
        code: Code::Skipped.0.into(),
        reserved: [0; 6],
    };
    assert_eq!(hear(&mut device, Kind::Gap, &gap, &[]), [Event::Received(9)]);
}

#[test]
fn a_heartbeat_waits_for_its_answer() {
    let mut device = device();
    log_in(&mut device);
    said(&mut device);
    let at = device.poll_timeout().expect("a beat is due");
    device.handle_timeout(at);
    assert_eq!(said(&mut device), [Kind::Ping]);
    assert_eq!(device.poll_timeout(), None);
    let pong = Pong {
        sequence: 1.into(),
        heartbeat_ms: 5.into(),
        server_time: 0.into(),
        moved: 0,
        reserved: [0; 7],
    };
    assert_eq!(hear(&mut device, Kind::Pong, &pong, &[]), [Event::Beat]);
    assert!(device.poll_timeout().is_some());
}

#[test]
fn a_device_that_comes_back_sends_again_and_says_where_it_was() {
    let mut device = device();
    log_in(&mut device);
    let now = Instant::now();
    device.send(now, message(1));
    said(&mut device);
    device.reconnect(true);
    assert_eq!(said(&mut device), [Kind::Hello, Kind::Resume]);
    let head = ErrorHead {
        code: Code::ResumeUnknown.0.into(),
        kind: Kind::Resume.0,
        flags: 0,
        retry_after_ms: 0.into(),
    };
    assert_eq!(hear(&mut device, Kind::Error, &head, &[]), []);
    assert_eq!(said(&mut device), [Kind::Login], "the session is gone");
    let again = LoggedIn { epoch: 4.into(), ..logged_in() };
    let online = Event::Online { resumed: false };
    assert_eq!(hear(&mut device, Kind::LoggedIn, &again, &[]), [online]);
    device.send(now, message(2));
    assert_eq!(said(&mut device), [Kind::Cursors, Kind::Send], "the old key, and no new one yet");
    let ack = SendAck {
        channel: message(0).channel,
        epoch: 3.into(),
        counter: 1.into(),
        id: 1.into(),
        server_time: 0.into(),
    };
    assert_eq!(hear(&mut device, Kind::SendAck, &ack, &[]), [Event::Acked(1)]);
    assert_eq!(said(&mut device), [Kind::Send], "now the new epoch may be used");
}
