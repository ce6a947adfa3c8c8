//! Single frames by datagram: what is no SEND ends the connection, and a SEND is looked at as if
//! it had come by stream.

use tern_protocol::limits::CONTENT_BYTES_DEFAULT;
use tern_protocol::{ChannelId, Code, Frame, Kind, Uin};

use crate::frames::{At, peer_at};
use crate::support::peer::{End, Peer};
use crate::support::stage::Stage;
use crate::support::words;

/// Has the bytes leave as a datagram.
fn say_free(peer: &mut Peer, bytes: &[u8]) {
    let sent = peer.connection.datagrams().send(bytes.to_vec().into(), false);
    sent.expect("the server takes datagrams");
    peer.flush();
}

#[test]
fn a_datagram_is_one_whole_send_or_the_end() {
    let stage = Stage::start("free", &["--datagrams", "on"]);
    let account = stage.server.user("mallory");
    let peer = stage.server.user("peer");
    let channel = account.channel_with(&peer);
    let send = words::send(channel, 1, 1, b"hi");
    let mut bad = vec![
        Vec::new(),
        send[..3].to_vec(),
        send[..send.len() - 1].to_vec(),
        [&send[..], &[0]].concat(),
        [send.clone(), send.clone()].concat(),
        words::frame(Kind::Push, 0, &[0; 64]),
        words::frame(Kind(0x77), 0, &[0; 9]),
        vec![0xff; 1_000],
    ];
    let others = Kind::ALL.iter().filter(|row| row.kind != Kind::Send);
    bad.extend(others.map(|row| words::frame(row.kind, 0, &[0; 48])));
    let mut count = 0;
    for at in [At::Start, At::LoggedIn, At::Delivering] {
        for bytes in &bad {
            let mut peer = peer_at(&stage, &account, at);
            say_free(&mut peer, bytes);
            assert_eq!(peer.ended(), End::Code(Code::Malformed), "{bytes:?}");
            count += 1;
        }
    }
    assert_eq!(stage.grown("datagrams_bad"), count);
    let mut early = peer_at(&stage, &account, At::Greeted);
    say_free(&mut early, &send);
    assert_eq!(early.ended(), End::Code(Code::WrongState), "a SEND before LOGGED_IN");
    stage.finish(count, "datagrams");
}

#[test]
fn a_send_by_datagram_is_judged_as_any_other() {
    let stage = Stage::start("free sends", &["--datagrams", "on"]);
    let (mut peer, account, epoch) = stage.device("mallory");
    let other = stage.server.user("other");
    let channel = account.channel_with(&other);
    say_free(&mut peer, &words::send(channel, epoch, 1, b"one"));
    assert_eq!(peer.hear_ack(1), 1);
    for again in 0..20 {
        say_free(&mut peer, &words::send(channel, epoch, 1, b"one"));
        assert_eq!(peer.hear_ack(1), 1, "repeat {again} is the same message");
    }
    let refused = |peer: &mut Peer| {
        let said = peer.hear(Kind::SendRefused);
        let Frame::SendRefused(no) = said.frame() else { unreachable!("it is a SEND_REFUSED") };
        Code(no.code.get())
    };
    say_free(&mut peer, &words::send(channel, epoch, 1, b"two"));
    assert_eq!(refused(&mut peer), Code::KeyConflict);
    say_free(&mut peer, &words::send(channel, epoch + 1, 2, b"two"));
    assert_eq!(refused(&mut peer), Code::KeyAhead);
    let foreign = ChannelId::direct(other.uin, Uin(other.uin.0 + 1_000));
    say_free(&mut peer, &words::send(foreign, epoch, 3, b"two"));
    assert_eq!(refused(&mut peer), Code::NotAMember);
    let long = vec![7; CONTENT_BYTES_DEFAULT + 1];
    let fits =
        peer.connection.datagrams().send(words::send(channel, epoch, 4, &long).into(), false);
    assert!(fits.is_err(), "the longest content needs a stream");
    stage.finish(24, "sends");
}
