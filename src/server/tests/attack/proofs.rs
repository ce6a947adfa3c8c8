//! What does not prove a device: secrets, tokens of the operator's login and resumes of sessions
//! that are wrong in one way each. Each gets its code, and none a session.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tern_protocol::limits::TOKEN_BYTES_MAX;
use tern_protocol::{Code, DeviceId, Frame, Kind, Uin};

use crate::frames::{At, hear_error, must_end, peer_at};
use crate::support::dial::Dial;
use crate::support::issuer::{
    self, Issuer, RSA_PEM, claims_of, ed, rs256, seconds_from_now, sign_by_hmac, unsigned, with,
};
use crate::support::peer::{End, Peer};
use crate::support::random::Random;
use crate::support::scaled;
use crate::support::server::Account;
use crate::support::stage::Stage;
use crate::support::words;

/// Bits that are flipped of each kind of proof.
const FLIPS: u32 = 60;

/// Cases between two heartbeats of the device that is attacked: a second, where a heartbeat is
/// due every ten.
const CASES_PER_BEAT: usize = 64;

/// A device whose user a token may name.
const NOBODY: (Uin, DeviceId) = (Uin(0), DeviceId(0));

/// A frame that must not be let in, and the code that must come.
struct Case {
    what: String,
    frame: Vec<u8>,
    code: Code,
}

fn case(what: impl Into<String>, frame: Vec<u8>, code: Code) -> Case {
    Case { what: what.into(), frame, code }
}

fn flipped(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[random.below(bytes.len())] ^= 1 << random.below(8);
    flipped
}

/// Logs in by a token that is good; the numbers that the server says.
fn by_token(peer: &mut Peer, token: &str) -> (Uin, DeviceId) {
    peer.say(&words::token_login(NOBODY.0, NOBODY.1, token.as_bytes()));
    let said = peer.hear(Kind::Identity);
    let Frame::Identity(numbers) = said.frame() else { unreachable!("it is an IDENTITY") };
    let numbers = (numbers.uin.into(), numbers.device.into());
    peer.hear_logged_in();
    numbers
}

fn secrets(random: &mut Random, good: &Account, phone: &Account, other: &Account) -> Vec<Case> {
    let bad = Code::BadCredentials;
    let login = |account: Account| words::login(&account);
    let mut cases = vec![
        case("another device's secret", login(Account { secret: phone.secret, ..*good }), bad),
        case("another user's secret", login(Account { secret: other.secret, ..*good }), bad),
        case("another device", login(Account { device: DeviceId(99), ..*good }), bad),
        case("another user", login(Account { uin: Uin(9), ..*good }), bad),
        case("a revoked device", login(*phone), Code::DeviceRevoked),
        case("a disabled user", login(*other), Code::UserDisabled),
    ];
    for flip in 0..scaled(FLIPS) {
        let secret = flipped(random, &good.secret).try_into().expect("as long as before");
        cases.push(case(format!("secret, flip {flip}"), login(Account { secret, ..*good }), bad));
    }
    cases
}

fn tokens(random: &mut Random, issuer: &Issuer, numbers: (Uin, DeviceId)) -> Vec<Case> {
    let invalid = Code::TokenInvalid;
    let say = |token: &str| words::token_login(NOBODY.0, NOBODY.1, token.as_bytes());
    let claims = claims_of("mallory", "tablet");
    let claim =
        |key: &str, value: Value| say(&issuer.sign(&ed(), &with(claims.clone(), key, value)));
    let header = |header: Value| say(&issuer.sign(&header, &claims));
    let good = issuer.sign(&ed(), &claims);
    let hs256 = |kid: &str| json!({ "alg": "HS256", "kid": kid });
    let by_hmac = |kid: &str, secret: &[u8]| say(&sign_by_hmac(&hs256(kid), &claims, secret));
    let none = unsigned(&json!({ "alg": "none" }), &claims);
    let late = seconds_from_now(-3_600);
    let early = seconds_from_now(3_600);
    let as_mallory = |(uin, device)| words::token_login(uin, device, good.as_bytes());
    let long = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX + 1 - good.len()));
    let mut cases = vec![
        case("alg none", say(&none), invalid),
        case("HS256 by the public RSA key", by_hmac("rsa", RSA_PEM.as_bytes()), invalid),
        case("HS256 by the public Ed25519 key", by_hmac("ed", issuer.ed_public()), invalid),
        case("the RSA key used as EdDSA", say(&issuer.sign_by_rsa(&ed(), &claims)), invalid),
        case("the Ed25519 key used as RS256", say(&issuer.sign_by_ed(&rs256(), &claims)), invalid),
        case("another's keys", say(&Issuer::new().sign(&ed(), &claims)), invalid),
        case("unknown kid", header(with(ed(), "kid", json!("old"))), Code::TokenKeyUnknown),
        case("crit", header(with(ed(), "crit", json!(["exp"]))), invalid),
        case("expired", claim("exp", json!(late)), Code::TokenExpired),
        case("early", claim("nbf", json!(early)), Code::TokenEarly),
        case("another issuer", claim("iss", json!("https://evil.example")), invalid),
        case("another audience", claim("aud", json!("mail")), invalid),
        case("a revoked device", claim("device", json!("phone")), Code::DeviceRevoked),
        case("a disabled user", claim("sub", json!("trent")), Code::UserDisabled),
        case("a name that is none", claim("sub", json!("../mallory")), invalid),
        case("too long", say(&long), invalid),
        case("nothing", say(""), invalid),
        case("another uin", as_mallory((Uin(numbers.0.0 + 1), numbers.1)), Code::BadCredentials),
        case("another device", as_mallory((numbers.0, DeviceId(1))), Code::BadCredentials),
    ];
    for token in [good.clone(), issuer.sign(&rs256(), &claims)] {
        let signature = token.rfind('.').expect("three parts") + 1;
        for flip in 0..scaled(FLIPS) {
            let (start, part) = [(0, "token"), (signature, "signature")][flip as usize % 2];
            let mut changed = token.clone().into_bytes();
            changed.splice(start.., flipped(random, &token.as_bytes()[start..]));
            let frame = words::token_login(NOBODY.0, NOBODY.1, &changed);
            // A flip in the header may name a key that is not there.
            let code = if start == 0 { Code(0) } else { invalid };
            cases.push(case(format!("{part}, flip {flip}"), frame, code));
        }
    }
    cases
}

/// Says a frame that may be refused by any code of those for tokens.
fn must_end_somehow(peer: &mut Peer, frame: &[u8], what: &str) {
    peer.say(frame);
    let said = peer.hear(Kind::Close);
    let Frame::Close(close, _) = said.frame() else { unreachable!("it is a CLOSE") };
    let code = Code(close.code.get());
    let known = [Code::TokenInvalid, Code::TokenKeyUnknown];
    assert!(known.contains(&code), "{what}: {code}");
}

#[test]
fn s12_no_wrong_proof_is_let_in() {
    let issuer = Issuer::new();
    let options = issuer::options(&issuer.file());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let stage = Stage::start("S-12", &options);
    let mut random = Random::seeded();
    let good = stage.server.user("mallory");
    let phone = stage.server.device("mallory", "phone");
    let other = stage.server.user("trent");
    let mut tablet = peer_at(&stage, &good, At::Greeted);
    let token = issuer.sign(&ed(), &claims_of("mallory", "tablet"));
    let numbers = by_token(&mut tablet, &token);
    assert_eq!(numbers, (good.uin, DeviceId(3)), "a device of the user that is there");
    let mut own = peer_at(&stage, &good, At::Greeted);
    let live = own.log_in_greeted(&good);
    stage.server.tern(&["device", "revoke", "mallory", "phone"]);
    stage.server.tern(&["user", "disable", "trent"]);

    let mut cases = secrets(&mut random, &good, &phone, &other);
    cases.extend(tokens(&mut random, &issuer, numbers));
    for (place, Case { what, frame, code }) in cases.iter().enumerate() {
        if place % CASES_PER_BEAT == 0 {
            own.round_trip(1);
        }
        let mut peer = peer_at(&stage, &good, At::Greeted);
        match *code {
            Code(0) => must_end_somehow(&mut peer, frame, what),
            code => must_end(&mut peer, frame, code, what),
        }
    }
    let mut stranger = peer_at(&stage, &good, At::Greeted);
    let resumes = scaled(FLIPS);
    for flip in 0..resumes {
        let token = flipped(&mut random, &live.token).try_into().expect("as long as before");
        stranger.say(&words::resume(&good, live.epoch.get(), token));
        let answer = hear_error(&mut stranger);
        assert_eq!(answer, (Code::ResumeUnknown, Kind::Resume), "resume, flip {flip}");
    }
    own.round_trip(1);
    let tried = cases.len() as u64 + u64::from(resumes);
    let unread = 1; // the token that is too long: its frame is refused, nobody is asked
    let refused = stage.await_grown("logins_refused", tried - unread) + unread;
    let accepted = stage.grown("logins") + stage.grown("resumes") - 2; // those of the beginning
    assert_eq!((refused, accepted), (tried, 0), "seed {}", random.seed);
    assert_eq!(stage.grown("frames_refused"), unread);
    let figures = format!("accepted={accepted} refused={refused} seed={}", random.seed);
    stage.finish(tried, figures);
}

#[test]
fn a_server_without_keys_takes_no_token() {
    let stage = Stage::start("tokens-off", &[]);
    let account = stage.server.user("mallory");
    let issuer = Issuer::new();
    let token = issuer.sign(&ed(), &claims_of("mallory", "1"));
    let mut peer = peer_at(&stage, &account, At::Greeted);
    let frame = words::token_login(NOBODY.0, NOBODY.1, token.as_bytes());
    must_end(&mut peer, &frame, Code::TokensNotTaken, "no keys");
    stage.finish(1, "");
}

/// A login that came through or was refused; then the connection has its end.
fn log_in(stage: &Stage, account: &Account) -> Peer {
    let mut peer = peer_at(stage, account, At::Greeted);
    peer.say(&words::login(account));
    peer.until("an answer", |peer| match peer.end() {
        Some(_) => Some(()),
        None => peer.try_hear(Kind::LoggedIn).map(|_| ()),
    });
    peer
}

/// Logins by the old secret never stop while it is changed; once the command has said that it was,
/// none of them is in.
#[test]
fn no_login_slips_past_a_change_of_the_secret() {
    let stage = Stage::start("rotate", &[]);
    let mut account = stage.server.user("mallory");
    let (mut tried, mut accepted) = (0, 0);
    for _ in 0..scaled(2) {
        let (mut away, before) = Peer::device(stage.server.address, &Dial::default(), &account);
        let changed = AtomicBool::new(false);
        let old = account;
        let last = std::thread::scope(|scope| {
            let logins = [(); 3].map(|()| {
                scope.spawn(|| {
                    let (mut last, mut count) = (None, 0);
                    while !changed.load(Ordering::Acquire) {
                        last = Some(log_in(&stage, &old));
                        count += 1;
                    }
                    (last, count)
                })
            });
            stage.server.tern(&["device", "rotate", "mallory", "1"]);
            changed.store(true, Ordering::Release);
            logins.map(|login| login.join().expect("it only logs in"))
        });
        account = stage.server.account("mallory");
        assert_ne!(account.secret, old.secret);
        for (last, count) in last {
            tried += count;
            let end = last.expect("a second is long enough for a login").ended();
            let known = [Code::SecretChanged, Code::BadCredentials, Code::Fenced, Code::TooSlow];
            assert!(known.map(End::Code).contains(&end), "{end:?}");
        }
        assert!([Code::Fenced, Code::SecretChanged].map(End::Code).contains(&away.ended()));
        let mut late = peer_at(&stage, &old, At::Greeted);
        late.say(&words::resume(&old, before.epoch.get(), before.token));
        assert_eq!(hear_error(&mut late), (Code::ResumeUnknown, Kind::Resume));
        late.say(&words::login(&old));
        accepted += u32::from(late.ended() != End::Code(Code::BadCredentials));
    }
    log_in(&stage, &account).round_trip(1);
    assert_eq!(accepted, 0);
    stage.finish(tried, format!("accepted={accepted}"));
}
