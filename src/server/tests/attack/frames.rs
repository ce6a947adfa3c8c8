//! Frames that are not as they should be: what does not fit, what is not known, what is not
//! allowed now or to this side. What can be answered is answered and the connection stays; what
//! can't ends the connection with its code, by frame and by QUIC.

use tern_protocol::frames::{Layout, layout};
use tern_protocol::registry::{Direction, KindRow, Needs};
use tern_protocol::{ChannelId, Code, Flags, Frame, Kind, Uin};

use crate::support::dial::Dial;
use crate::support::peer::{End, Peer};
use crate::support::server::Account;
use crate::support::stage::Stage;
use crate::support::words;

/// How far a conversation is before the bad frame comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum At {
    Start,
    Greeted,
    LoggedIn,
    Delivering,
}

/// Leads a new connection to that point.
pub fn peer_at(stage: &Stage, account: &Account, at: At) -> Peer {
    let mut peer = Peer::connect(stage.server.address, &Dial::default());
    if at >= At::Greeted {
        peer.say(&words::hello());
        peer.hear(Kind::Welcome);
    }
    if at >= At::LoggedIn {
        peer.say(&words::login(account));
        peer.hear_logged_in();
    }
    if at >= At::Delivering {
        peer.say(&words::cursors(&[], true));
    }
    peer
}

/// Says what must end the connection, and checks that it is ended with this code, first by a
/// frame and then by QUIC.
pub fn must_end(peer: &mut Peer, bytes: &[u8], code: Code, what: &str) {
    peer.say(bytes);
    let said = peer.hear(Kind::Close);
    let Frame::Close(close, _) = said.frame() else { unreachable!("it is a CLOSE") };
    assert_eq!(Code(close.code.get()), code, "{what}, by frame");
    assert_eq!(peer.ended(), End::Code(code), "{what}, by QUIC");
}

/// Waits for an ERROR; its code and the kind that it answers.
pub fn hear_error(peer: &mut Peer) -> (Code, Kind) {
    let said = peer.hear(Kind::Error);
    let Frame::Error(head, _) = said.frame() else { unreachable!("it is an ERROR") };
    (Code(head.code.get()), Kind(head.kind))
}

/// The point from which on a client may say a kind.
fn first_at(row: &KindRow) -> At {
    match row.needs {
        Needs::Nothing => At::Start,
        Needs::Welcome => At::Greeted,
        Needs::Login => At::LoggedIn,
    }
}

fn said_by(direction: Direction) -> impl Iterator<Item = &'static KindRow> {
    Kind::ALL.iter().filter(move |row| row.direction == direction)
}

fn layout_of(kind: Kind) -> Layout {
    layout(kind).expect("it stands in the registry")
}

/// A payload of zeros that fits the kind.
fn zeros(kind: Kind) -> Vec<u8> {
    vec![0; layout_of(kind).fixed_bytes()]
}

/// Payload lengths nearby, and the longest, that do not fit the kind.
fn wrong_lengths(kind: Kind) -> impl Iterator<Item = usize> {
    let layout = layout_of(kind);
    let fixed = layout.fixed_bytes();
    [0, 1, fixed - 1, fixed + 1, 65_535].into_iter().filter(move |&bytes| !layout.fits(bytes))
}

#[test]
fn unknown_kinds_and_flags_are_answered_and_the_connection_stays() {
    let stage = Stage::start("unknown", &[]);
    let (mut peer, _, _) = stage.device("mallory");
    let kinds = (0..=u8::MAX).map(Kind).filter(|kind| kind.row().is_none());
    let mut count = 0;
    for kind in kinds {
        peer.say(&words::frame(kind, 0, &vec![0xa5; usize::from(kind.0) * 7]));
        assert_eq!(hear_error(&mut peer), (Code::UnknownKind, kind));
        count += 1;
    }
    for row in said_by(Direction::ToServer).chain(said_by(Direction::Both)) {
        for flags in [2, 0x80, 0xfe, 0xff] {
            peer.say(&words::frame(row.kind, flags, &zeros(row.kind)));
            assert_eq!(hear_error(&mut peer), (Code::UnknownFlag, row.kind), "{flags:#x}");
            count += 1;
        }
    }
    peer.round_trip(1);
    assert_eq!(stage.await_grown("frames_unknown", count), count);
    stage.finish(count, "");
}

#[test]
fn frames_of_a_wrong_length_end_the_connection() {
    let stage = Stage::start("malformed", &[]);
    let account = stage.server.user("mallory");
    let mut count = 0;
    for row in said_by(Direction::ToServer).chain(said_by(Direction::Both)) {
        for bytes in wrong_lengths(row.kind) {
            let mut peer = peer_at(&stage, &account, first_at(row));
            let what = format!("{} of {bytes} bytes", row.label);
            let bad = words::frame(row.kind, 0, &vec![0; bytes]);
            must_end(&mut peer, &bad, Code::Malformed, &what);
            count += 1;
        }
    }
    assert_eq!(stage.await_grown("frames_malformed", count), count);
    stage.finish(count, "");
}

#[test]
fn what_only_the_server_says_ends_the_connection() {
    let stage = Stage::start("direction", &[]);
    let account = stage.server.user("mallory");
    let mut count = 0;
    for row in said_by(Direction::ToClient) {
        for at in [At::Start, At::Greeted, At::Delivering] {
            let mut peer = peer_at(&stage, &account, at);
            let bad = words::frame(row.kind, 0, &zeros(row.kind));
            let what = format!("{} at {at:?}", row.label);
            must_end(&mut peer, &bad, Code::WrongDirection, &what);
            count += 1;
        }
    }
    assert_eq!(stage.await_grown("frames_refused", count), count);
    stage.finish(count, "");
}

#[test]
fn frames_out_of_turn_end_the_connection() {
    let stage = Stage::start("state", &[]);
    let account = stage.server.user("mallory");
    let mut count = 0;
    let mut refuse = |at: At, bytes: &[u8], code: Code, what: &str| {
        must_end(&mut peer_at(&stage, &account, at), bytes, code, &format!("{what} at {at:?}"));
        count += 1;
    };
    for row in said_by(Direction::ToServer) {
        let early = [At::Start, At::Greeted].into_iter().filter(|at| *at < first_at(row));
        for at in early {
            let frame = words::frame(row.kind, 0, &zeros(row.kind));
            refuse(at, &frame, Code::WrongState, row.label);
        }
    }
    let login = words::login(&account);
    for (at, bytes, what) in [
        (At::Greeted, words::hello(), "HELLO again"),
        (At::Delivering, words::hello(), "HELLO again"),
        (At::LoggedIn, login.clone(), "LOGIN again"),
        (At::Greeted, [login.clone(), login].concat(), "LOGIN twice"),
        (At::LoggedIn, words::resume(&account, 1, [0; 32]), "RESUME"),
        (At::Delivering, words::cursors(&[], true), "CURSORS after the last"),
        (At::Delivering, words::cursors(&[], false), "CURSORS after the last"),
    ] {
        refuse(at, &bytes, Code::WrongState, what);
    }
    refuse(At::Start, &words::hello_of(*b"HTTP", 1), Code::Malformed, "another protocol");
    for version in [0, 2, u16::MAX] {
        refuse(At::Start, &words::hello_of(*b"TERN", version), Code::Version, "another version");
    }
    let nowhere = words::cursor(ChannelId::direct(Uin(0), Uin(0)), 1);
    refuse(At::LoggedIn, &words::cursors(&[nowhere], true), Code::Malformed, "no channel");
    assert_eq!(stage.await_grown("frames_refused", count), count);
    stage.finish(count, "");
}

#[test]
fn a_wrong_alpn_gets_no_connection() {
    let stage = Stage::start("alpn", &[]);
    let protocols: [&[u8]; 4] = [b"tern/2", b"h3", b"tern/10", b"TERN/1"];
    for alpn in protocols {
        let mut peer = Peer::dial(stage.server.address, &Dial { alpn, ..Dial::default() });
        let end = peer.ended();
        // RFC 7301 §3.2: no_application_protocol is alert 120; RFC 9001 §4.8: plus 0x100
        assert!(matches!(end, End::Quic(code) if u64::from(code) == 0x100 + 120), "{end:?}");
    }
    let failed = stage.await_grown("handshakes_failed", protocols.len() as u64);
    stage.finish(protocols.len(), format!("handshakes_failed={failed}"));
}

#[test]
fn an_end_of_the_stream_is_an_end_of_the_connection() {
    let stage = Stage::start("stream-ends", &[]);
    let account = stage.server.user("mallory");
    let half = &words::ping(1)[..7];
    for (bytes, reset, code) in [
        (&[][..], false, Code::LoggedOut),
        (&[], true, Code::LoggedOut),
        (half, false, Code::Malformed),
        (half, true, Code::Malformed),
    ] {
        let mut peer = peer_at(&stage, &account, At::Delivering);
        peer.round_trip(1);
        peer.say(bytes);
        peer.run_for(std::time::Duration::from_millis(30));
        let stream = peer.stream();
        let mut sender = peer.connection.send_stream(stream);
        if reset {
            sender.reset(0_u32.into()).expect("it is open");
        } else {
            sender.finish().expect("it is open");
        }
        assert_eq!(peer.ended(), End::Code(code), "after {bytes:?}, reset: {reset}");
    }
    assert_eq!(stage.await_grown("streams_cut", 2), 2);
    stage.finish(4, "streams_cut=2");
}

#[test]
fn flags_of_another_frame_do_not_matter() {
    let stage = Stage::start("flags", &[]);
    let (mut peer, _, _) = stage.device("mallory");
    let mut ping = words::ping(9);
    ping[3] = Flags::LAST.0;
    peer.say(&ping);
    peer.hear(Kind::Pong);
    stage.finish(1, "");
}
