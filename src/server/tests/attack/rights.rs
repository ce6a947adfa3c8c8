//! What a client may not have: a login without the secret, another's session, ranges that were
//! not granted, channels that it is not in, keys that are not its own.

use tern_protocol::frames::Send;
use tern_protocol::{ChannelId, Code, DeviceId, Frame, Kind, Uin};

use crate::frames::{At, hear_error, must_end, peer_at};
use crate::support::dial::Dial;
use crate::support::peer::{End, Peer};
use crate::support::server::Account;
use crate::support::stage::Stage;
use crate::support::words;

/// A uin that nobody has.
const NOBODY: Uin = Uin(0x7fff_ffff_ffff);

#[test]
fn wrong_credentials_get_their_code_and_no_session() {
    let stage = Stage::start("credentials", &[]);
    let good = stage.server.user("mallory");
    let phone = stage.server.device("mallory", "phone");
    let other = stage.server.user("trent");
    stage.server.tern(&["device", "revoke", "mallory", &phone.device.to_string()]);
    stage.server.tern(&["user", "disable", "trent"]);
    let mut secret = good.secret;
    secret[31] ^= 1;
    let cases = [
        (Account { secret, ..good }, Code::BadCredentials),
        (Account { secret: [0; 32], ..good }, Code::BadCredentials),
        (Account { device: DeviceId(99), ..good }, Code::BadCredentials),
        (Account { device: DeviceId(0), ..good }, Code::BadCredentials),
        (Account { uin: NOBODY, ..good }, Code::BadCredentials),
        (Account { uin: Uin(u64::MAX), ..good }, Code::BadCredentials),
        (Account { uin: Uin(0), ..good }, Code::BadCredentials),
        (Account { secret: other.secret, ..good }, Code::BadCredentials),
        (Account { secret: phone.secret, ..good }, Code::BadCredentials),
        (other, Code::UserDisabled),
        (phone, Code::DeviceRevoked),
        (Account { secret, ..other }, Code::BadCredentials),
        (Account { secret, ..phone }, Code::BadCredentials),
    ];
    for (place, (account, code)) in cases.iter().enumerate() {
        let mut peer = peer_at(&stage, &good, At::Greeted);
        must_end(&mut peer, &words::login(account), *code, &format!("case {place}"));
    }
    let refused = stage.await_grown("logins_refused", cases.len() as u64);
    assert_eq!((refused, stage.grown("logins")), (cases.len() as u64, 0));
    stage.finish(cases.len(), format!("logins_refused={refused}"));
}

#[test]
fn a_live_session_ends_when_its_user_is_disabled_or_its_device_revoked() {
    let stage = Stage::start("revoked-live", &[]);
    let (mut peer, _, _) = stage.device("mallory");
    let phone = stage.server.device("mallory", "phone");
    let (mut second, _) = Peer::device(stage.server.address, &Dial::default(), &phone);
    stage.server.tern(&["device", "revoke", "mallory", &phone.device.to_string()]);
    assert_eq!(second.ended(), End::Code(Code::DeviceRevoked));
    peer.round_trip(1);
    stage.server.tern(&["user", "disable", "mallory"]);
    assert_eq!(peer.ended(), End::Code(Code::UserDisabled));
    assert_eq!(stage.await_grown("sessions_fenced", 2), 2);
    stage.finish(2, "sessions_fenced=2");
}

#[test]
fn a_session_is_resumed_with_its_token_alone() {
    let stage = Stage::start("resume", &[]);
    let (ann, bob) = (stage.server.user("mallory"), stage.server.user("trent"));
    let (mut first, answer) = Peer::device(stage.server.address, &Dial::default(), &ann);
    let (_second, of_bob) = Peer::device(stage.server.address, &Dial::default(), &bob);
    let (epoch, token) = (answer.epoch.get(), answer.token);
    let mut forged = token;
    forged[0] ^= 0x80;
    let mut peer = peer_at(&stage, &ann, At::Greeted);
    let wrong = [
        words::resume(&ann, epoch, forged),
        words::resume(&ann, epoch, [0; 32]),
        words::resume(&ann, epoch + 1, token),
        words::resume(&ann, 0, token),
        words::resume(&bob, of_bob.epoch.get(), token),
        words::resume(&ann, epoch, of_bob.token),
        words::resume(&Account { device: DeviceId(99), ..ann }, epoch, token),
        words::resume(&Account { uin: NOBODY, ..ann }, epoch, token),
    ];
    for (place, resume) in wrong.iter().enumerate() {
        peer.say(resume);
        let answer = hear_error(&mut peer);
        assert_eq!(answer, (Code::ResumeUnknown, Kind::Resume), "case {place}");
    }
    first.round_trip(1); // nobody took its place
    peer.say(&words::resume(&ann, epoch, token));
    let resumed = peer.hear_logged_in();
    assert_eq!((resumed.resumed, resumed.epoch.get()), (1, epoch));
    assert_eq!(first.ended(), End::Code(Code::Fenced));
    let mut next = peer_at(&stage, &ann, At::Greeted);
    let again = next.log_in_greeted(&ann);
    assert_eq!((again.resumed, again.epoch.get()), (0, epoch + 1));
    assert_eq!(peer.ended(), End::Code(Code::Fenced));
    let mut late = peer_at(&stage, &ann, At::Greeted);
    late.say(&words::resume(&ann, epoch, resumed.token));
    let answer = hear_error(&mut late);
    assert_eq!(answer, (Code::ResumeUnknown, Kind::Resume), "of a login that is over");
    next.round_trip(1);
    let refused = stage.await_grown("logins_refused", wrong.len() as u64 + 1);
    stage.finish(wrong.len() + 1, format!("logins_refused={refused}"));
}

#[test]
fn ranges_not_granted_are_refused_and_the_connection_stays() {
    let stage = Stage::start("grants", &[]);
    let (mut mallory, own, _) = stage.device("mallory");
    let (ann, bob) = (stage.server.user("trent"), stage.server.user("walter"));
    let (mut writer, answer) = Peer::device(stage.server.address, &Dial::default(), &ann);
    let secret = ann.channel_with(&bob);
    let shared = ann.channel_with(&own);
    let epoch = answer.epoch.get();
    for counter in 1..=3 {
        writer.send(secret, epoch, counter, b"not for mallory");
    }
    writer.send(shared, epoch, 4, b"for mallory");
    mallory.hear(Kind::Push);
    let (none, long) = (Code::NotGranted, Code::RangeTooLong);
    let fetches = [
        (secret, 1, 3, none),
        (secret, 1, 1, none),
        (shared, 1, 2, none),
        (shared, 0, 1, none),
        (shared, 2, 1, none),
        (shared, 2, 2, none),
        (shared, 1, 1_001, long),
        (shared, 1, u64::MAX, long),
        (shared, u64::MAX, u64::MAX, none),
        (shared, 0, u64::MAX, none),
        (ChannelId::group(1), 1, 1, none),
        (ChannelId::direct(Uin(0), Uin(0)), 1, 1, none),
    ];
    for (channel, from, to, code) in fetches {
        mallory.say(&words::fetch(channel, from, to));
        let what = format!("{channel} {from}..={to}");
        assert_eq!(hear_error(&mut mallory), (code, Kind::Fetch), "{what}");
    }
    let acks =
        [(secret, 1), (secret, 0), (shared, 2), (shared, u64::MAX), (ChannelId::group(1), 1)];
    for (channel, id) in acks {
        mallory.say(&words::receive_ack(channel, id));
        let answer = hear_error(&mut mallory);
        assert_eq!(answer, (none, Kind::ReceiveAck), "{channel} {id}");
    }
    // What is granted comes, and nothing else ever did.
    mallory.say(&words::fetch(shared, 1, 1));
    let said = mallory.hear(Kind::Push);
    let Frame::Push(push, content) = said.frame() else { unreachable!("it is a PUSH") };
    assert_eq!((push.channel, content), (shared, &b"for mallory"[..]));
    mallory.round_trip(1);
    let refused = (fetches.len() + acks.len()) as u64;
    assert_eq!(stage.await_grown("frames_refused", refused), refused);
    stage.finish(refused, "");
}

#[test]
fn cursors_in_a_foreign_channel_show_nothing() {
    let stage = Stage::start("cursors-foreign", &[]);
    let (ann, bob) = (stage.server.user("trent"), stage.server.user("walter"));
    let (mut writer, answer) = Peer::device(stage.server.address, &Dial::default(), &ann);
    let channel = ann.channel_with(&bob);
    writer.send(channel, answer.epoch.get(), 1, b"not for mallory");
    let account = stage.server.user("mallory");
    let mut peer = peer_at(&stage, &account, At::LoggedIn);
    peer.say(&words::cursors(&[words::cursor(channel, 0)], true));
    peer.say(&words::fetch(channel, 1, 1));
    assert_eq!(hear_error(&mut peer), (Code::NotGranted, Kind::Fetch));
    writer.send(channel, answer.epoch.get(), 2, b"not either");
    peer.round_trip(1);
    assert!(peer.try_next().is_none(), "a foreign channel was shown");
    stage.finish(1, "");
}

#[test]
fn sends_that_are_not_allowed_are_refused_and_leave_no_trace() {
    let stage = Stage::start("sends", &[]);
    let (mut peer, own, epoch) = stage.device("mallory");
    let (ann, bob) = (stage.server.user("trent"), stage.server.user("walter"));
    let channel = own.channel_with(&ann);
    let head = words::send_head(channel, epoch, 1);
    let to = |channel| Send { channel, ..head };
    let cases = [
        (to(ann.channel_with(&bob)), Code::NotAMember),
        (to(ChannelId::group(7)), Code::NotAMember),
        (to(ChannelId::direct(Uin(0), Uin(0))), Code::NotAMember),
        (to(ChannelId::direct(own.uin, NOBODY)), Code::NoSuchUser),
        (Send { epoch: (epoch + 1).into(), ..head }, Code::KeyAhead),
        (Send { epoch: u32::MAX.into(), ..head }, Code::KeyAhead),
        (Send { epoch: 0.into(), ..head }, Code::KeyInvalid),
        (Send { counter: 0.into(), ..head }, Code::KeyInvalid),
        (Send { predecessor: 1.into(), ..head }, Code::KeyInvalid),
        (Send { predecessor: u32::MAX.into(), ..head }, Code::KeyInvalid),
        (Send { kind: 2, ..head }, Code::ChangeInvalid),
        (Send { kind: 3, ..head }, Code::ReferenceInvalid),
        (Send { kind: 4, ..head }, Code::ReferenceInvalid),
        (Send { kind: 0x7f, ..head }, Code::KindUnknown),
        (Send { kind: 0, ..head }, Code::KindUnknown),
        (Send { version: 2, ..head }, Code::KindUnknown),
    ];
    for (place, (head, code)) in cases.iter().enumerate() {
        peer.say(&words::send_of(*head, b"no"));
        assert_eq!(hear_refusal(&mut peer), *code, "case {place}");
    }
    // The first key was refused for good.
    assert_eq!(peer.send(channel, epoch, 2, b"yes"), 1, "the first id is free");
    let refused = stage.await_grown("sends_refused_final", cases.len() as u64);
    assert_eq!((refused, stage.grown("sends_refused_retry")), (cases.len() as u64, 0));
    stage.finish(cases.len(), format!("sends_refused_final={refused}"));
}

#[test]
fn a_key_names_one_message_for_ever() {
    let stage = Stage::start("keys", &[]);
    let (mut peer, own, epoch) = stage.device("mallory");
    let (ann, bob) = (stage.server.user("trent"), stage.server.user("walter"));
    let channel = own.channel_with(&ann);
    let head = words::send_head(channel, epoch, 100);
    assert_eq!(peer.send(channel, epoch, 100, b"one"), 1);
    for (head, content) in [
        (head, &b"two"[..]),
        (head, b"one "),
        (head, b""),
        (Send { content_type: 1.into(), ..head }, b"one"),
        (Send { refers_to: 1.into(), ..head }, b"one"),
    ] {
        peer.say(&words::send_of(head, content));
        assert_eq!(hear_refusal(&mut peer), Code::KeyConflict, "{head:?}");
    }
    assert_eq!(peer.send(channel, epoch, 100, b"one"), 1, "the same again is the same message");
    peer.say(&words::send(channel, epoch, 36, b"too old"));
    assert_eq!(hear_refusal(&mut peer), Code::KeyClosed);
    assert_eq!(peer.send(channel, epoch, 37, b"just inside"), 2);
    // In another channel the key may lie in another shard, which has not seen it; there it is
    // either new or in conflict, never taken for the first message.
    peer.say(&words::send(own.channel_with(&bob), epoch, 100, b"one"));
    let said = peer.until("an answer", |peer| {
        peer.try_next().filter(|said| [Kind::SendAck, Kind::SendRefused].contains(&said.kind()))
    });
    match said.frame() {
        Frame::SendAck(ack) => assert_eq!(ack.channel, own.channel_with(&bob)),
        Frame::SendRefused(refused) => assert_eq!(Code(refused.code.get()), Code::KeyConflict),
        other => unreachable!("{other:?} is no answer"),
    }
    let mut later = Peer::connect(stage.server.address, &Dial::default());
    let next = later.log_in(&own).epoch.get();
    assert_eq!(next, epoch + 1);
    assert_eq!(later.send(channel, epoch, 100, b"one"), 1, "also after the next login");
    later.send(channel, next, 1, b"of the new epoch");
    later.say(&words::send(channel, epoch, 101, b"of the old one"));
    assert_eq!(hear_refusal(&mut later), Code::KeyClosed);
    let duplicates = stage.await_grown("sends_duplicate", 2);
    stage.finish(9, format!("sends_duplicate={duplicates}"));
}

/// Waits for a SEND_REFUSED; its code. An ack ends the test.
pub fn hear_refusal(peer: &mut Peer) -> Code {
    loop {
        let said = peer.next();
        match said.frame() {
            Frame::SendRefused(refused) => return Code(refused.code.get()),
            Frame::SendAck(ack) => panic!("acked: {ack:?}"),
            _ => {}
        }
    }
}
