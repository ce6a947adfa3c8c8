//! As much as fits, one more, and far too much.

use tern_protocol::frames::Cursor;
use tern_protocol::limits::{CONTENT_BYTES_MAX, PAYLOAD_BYTES_MAX};
use tern_protocol::{ChannelId, Code, Frame, Kind, Uin};

use crate::frames::{At, hear_error, peer_at};
use crate::rights::hear_refusal;
use crate::support::dial::Dial;
use crate::support::peer::{End, Peer};
use crate::support::stage::Stage;
use crate::support::{scaled, words};

/// Waits for the next PUSH; its content.
fn hear_push(peer: &mut Peer) -> Vec<u8> {
    match peer.hear(Kind::Push).frame() {
        Frame::Push(_, content) => content.to_vec(),
        other => unreachable!("{other:?} is no PUSH"),
    }
}

#[test]
fn s16_contents_up_to_the_limit_and_no_longer() {
    let stage = Stage::start("S-16", &[]);
    let (mut peer, own, epoch) = stage.device("mallory");
    let channel = own.channel_with(&own);
    let content: Vec<u8> = (0..1_440).map(|byte| byte as u8).collect();
    peer.send(channel, epoch, 1, &content);
    assert_eq!(hear_push(&mut peer), content);
    peer.send(channel, epoch, 2, b"");
    assert_eq!(hear_push(&mut peer), b"");
    let before = stage.rss_grown_kib();
    let count = scaled(100);
    let longest = PAYLOAD_BYTES_MAX - size_of::<tern_protocol::frames::Send>();
    for number in 0..count {
        let bytes = if number % 2 == 0 { 1_441 } else { longest };
        peer.say(&words::send(channel, epoch, 3, &vec![0xa5; bytes]));
        assert_eq!(hear_refusal(&mut peer), Code::ContentTooLong, "{bytes} bytes");
        peer.say(&words::frame(Kind(0x7e), 0, &vec![0xa5; PAYLOAD_BYTES_MAX]));
        assert_eq!(hear_error(&mut peer), (Code::UnknownKind, Kind(0x7e)));
    }
    assert_eq!(peer.send(channel, epoch, 3, b"still"), 3);
    let rss = stage.rss_grown_kib().saturating_sub(before);
    assert!(rss <= 4 << 10, "frames that were refused left {rss} KiB behind");
    let refused = stage.await_grown("sends_refused_final", u64::from(count));
    stage.finish(2 * count, format!("sends_refused_final={refused} rss_kib=+{rss}"));
}

#[test]
fn s16_the_largest_limit_holds() {
    let limit = CONTENT_BYTES_MAX.to_string();
    let stage = Stage::start("S-16-max", &["--content-bytes-max", &limit]);
    let (mut peer, own, epoch) = stage.device("mallory");
    let channel = own.channel_with(&own);
    let content: Vec<u8> = (0..CONTENT_BYTES_MAX).map(|byte| (byte / 7) as u8).collect();
    for counter in 1..=5 {
        peer.send(channel, epoch, counter, &content);
        assert_eq!(hear_push(&mut peer), content);
        peer.say(&words::receive_ack(channel, u64::from(counter)));
    }
    peer.say(&words::send(channel, epoch, 6, &[&content[..], b"+"].concat()));
    assert_eq!(hear_refusal(&mut peer), Code::ContentTooLong);
    let refused = stage.await_grown("sends_refused_final", 1);
    stage.finish(6, format!("sends_refused_final={refused}"));
}

/// Cursors in channels that nobody ever had, all different.
fn cursors_of(first: u64, count: u64) -> Vec<Cursor> {
    let channel = |n| ChannelId::direct(Uin(1 << 40 | n), Uin(1 << 41 | n));
    (first..first + count).map(|n| words::cursor(channel(n), n)).collect()
}

#[test]
fn s16_cursors_without_end_are_refused() {
    /// What the cursors of one session may cost, in KiB: 32,768 of about 100 bytes, and the map
    /// while it grows.
    const SESSION_KIB_MAX: u64 = 16 << 10;
    /// Cursors of the longest frame.
    const LONGEST: u64 = (PAYLOAD_BYTES_MAX / size_of::<Cursor>()) as u64;
    let stage = Stage::start("S-16-cursors", &[]);
    let account = stage.server.user("mallory");
    let count = scaled(3);
    let before = stage.rss_grown_kib();
    let mut said = 0;
    for _ in 0..count {
        let mut peer = peer_at(&stage, &account, At::LoggedIn);
        said = 0;
        while peer.end().is_none() {
            assert!(said <= 32_768 + 2 * LONGEST, "{said} cursors were taken");
            peer.say(&words::cursors(&cursors_of(said, LONGEST), false));
            peer.turn(std::time::Duration::from_millis(1));
            said += LONGEST;
        }
        assert_eq!(peer.end(), Some(&End::Code(Code::RangeTooLong)));
    }
    let rss = stage.rss_grown_kib().saturating_sub(before);
    let bound = u64::from(count) * SESSION_KIB_MAX;
    assert!(rss <= bound, "cursors cost {rss} KiB");
    let refused = stage.await_grown("frames_refused", u64::from(count));
    stage.finish(
        format!("{count}x{said}"),
        format!("frames_refused={refused} rss_kib=+{rss} of {bound}"),
    );
}

#[test]
fn s16_a_frame_full_of_foreign_acks_is_answered_by_one_error() {
    let stage = Stage::start("S-16-acks", &[]);
    let account = stage.server.user("mallory");
    let acks = cursors_of(0, 2_047);
    let bomb = words::frame(Kind::ReceiveAck, 0, zerocopy::IntoBytes::as_bytes(&acks[..]));
    let mut peer = Peer::connect(stage.server.address, &Dial::default());
    peer.log_in(&account);
    let count = scaled(20);
    for sequence in 0..count {
        peer.say(&bomb);
        assert_eq!(hear_error(&mut peer), (Code::NotGranted, Kind::ReceiveAck));
        peer.round_trip(sequence); // the very next frame is the answer to this
    }
    let refused = stage.await_grown("frames_refused", u64::from(count));
    stage.finish(count, format!("acks={} frames_refused={refused}", acks.len()));
}
