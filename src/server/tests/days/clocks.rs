//! D-05: the server's wall clock jumps by years, steps, stands still and begins in 1970; its
//! clients must not notice, tokens are judged by it, and nothing is deleted for it.

use tern_protocol::{Code, DeviceId, Frame, Kind, Uin};

use crate::clock::{Clock, Wish};
use crate::support::dial::Dial;
use crate::support::honest::Honest;
use crate::support::issuer::{self, Issuer, claims_of, ed};
use crate::support::peer::{End, Peer};
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Account, Server};
use crate::support::words;

/// What the clock does, and whether a token that is good for five minutes of true time is good.
const WISHES: [(Wish, Option<Code>); 9] = [
    (Wish::Years(10), Some(Code::TokenExpired)),
    (Wish::Years(-10), None),
    (Wish::True, None),
    (Wish::Beginning, None),
    (Wish::Seconds(-3_700), None),
    (Wish::Seconds(3_700), Some(Code::TokenExpired)),
    (Wish::Frozen, None),
    (Wish::Seconds(-1), None),
    (Wish::True, None),
];

/// Steps of the clock, one after the other, while messages pass.
const STEPS: u32 = 20;

/// A session of another device begins, is left, and goes on: both by numbers that no clock makes.
fn log_in_and_resume(server: &Server, account: &Account) {
    let (peer, logged_in) = Peer::device(server.address, &Dial::default(), account);
    drop(peer);
    let mut again = Peer::connect(server.address, &Dial::default());
    let resume = words::resume(account, logged_in.epoch.get(), logged_in.token);
    again.say(&[words::hello(), resume].concat());
    assert_eq!(again.hear_logged_in().resumed, 1, "the session of a moment ago goes on");
}

/// What a token login gets.
fn token_login(server: &Server, token: &str) -> Option<Code> {
    let mut peer = Peer::connect(server.address, &Dial::default());
    let login = words::token_login(Uin(0), DeviceId(0), token.as_bytes());
    peer.say(&[words::hello(), login].concat());
    peer.until("an answer to the token", |peer| match peer.try_next() {
        Some(said) if said.kind() == Kind::LoggedIn => Some(None),
        Some(said) => match said.frame() {
            Frame::Close(close, _) => Some(Some(Code(close.code.get()))),
            _ => None,
        },
        None => match peer.end() {
            Some(End::Code(code)) => Some(Some(*code)),
            _ => None,
        },
    })
}

/// All texts of the channel as a new device gets them, with their ids.
fn read_all(server: &Server, account: &Account, count: u64) {
    let (mut peer, _) = Peer::device(server.address, &Dial::default(), account);
    for id in 1..=count {
        match peer.hear(Kind::Push).frame() {
            Frame::Push(push, content) => {
                assert_eq!(push.id.get(), id);
                assert_eq!(content, id.to_string().as_bytes());
                peer.say(&words::receive_ack(push.channel, id));
            }
            other => unreachable!("{other:?} is no PUSH"),
        }
    }
}

#[test]
fn d_05_a_server_whose_clock_jumps_steps_or_stands_still_keeps_order_and_messages() {
    let (folder, clock, issuer) = (tempfile::tempdir().unwrap(), Clock::new(), Issuer::new());
    let data = folder.path().join("data");
    let before = clock.before();
    let by: Vec<&str> = before.iter().map(String::as_str).collect();
    let mut options = issuer::options(&issuer.file());
    options.push("--retention-days=1".to_owned());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let start = |listen: &str| Server::try_start(&by, &data, listen, 2, &options).unwrap();
    let server = start(ANY_PORT);
    let address = server.address.to_string();
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (mut peer, logged_in) = Peer::device(server.address, &Dial::default(), &ann);
    let honest = Honest::start(&server);
    let token = issuer.sign(&ed(), &claims_of("carol", "phone"));

    let mut sent = 0;
    let mut say = |peer: &mut Peer| {
        sent += 1;
        let (epoch, text) = (logged_in.epoch.get(), sent.to_string());
        let id = peer.send(ann.channel_with(&bob), epoch, sent, text.as_bytes());
        assert_eq!(id, u64::from(sent), "ids count on, whatever the clock says");
    };
    let (mut logins, mut tokens) = (0, 0);
    for (wish, refused) in WISHES {
        clock.set(wish);
        honest.wait_for(5);
        say(&mut peer);
        log_in_and_resume(&server, &bob);
        assert_eq!(token_login(&server, &token), refused, "{wish:?}");
        (logins, tokens) = (logins + 2, tokens + 1);
    }
    for step in 0..scaled(STEPS) {
        let years = i64::from(step % 21) - 10;
        clock.set(if step % 3 == 0 { Wish::Seconds(years * 17) } else { Wish::Years(years) });
        honest.wait_for(2);
        say(&mut peer);
    }
    clock.set(Wish::True);
    let report = honest.finish();
    drop(peer);
    server.stop();

    // Recovery, and the upkeep behind it, by clocks that are ten years off.
    let mut lives = 1;
    for wish in [Wish::Years(10), Wish::Years(-10), Wish::True] {
        clock.set(wish);
        let server = start(&address);
        read_all(&server, &bob, u64::from(sent));
        assert_eq!(server.figures().get("channels_expired"), 0, "no retention by such a clock");
        server.stop();
        lives += 1;
    }
    println!(
        "TEST D-05 n={} lost=0 dup=0 reorder=0 jumps={} logins={logins} tokens={tokens} \
         lives={lives} expired=0 p99={:?}",
        report.messages + sent,
        WISHES.len() as u32 + scaled(STEPS),
        report.p99,
    );
}
