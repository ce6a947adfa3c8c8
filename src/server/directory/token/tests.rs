//! Tokens made here, good and bad in one way each, and what is said of them.

use serde_json::{Value, json};

use super::*;
use crate::directory::accounts::now;
use issuer::{
    AUDIENCE, ISSUER, Issuer, RSA_PEM, claims_of, ed, rs256, sign_by_hmac, unsigned, with, without,
};
use tern_protocol::Code;

#[path = "../../tests/support/issuer.rs"]
#[allow(dead_code, reason = "the tests of the binary use the rest")]
pub(in crate::directory) mod issuer;

/// What a server that trusts this issuer asks.
pub(in crate::directory) fn rules(issuer: &Issuer) -> Rules {
    Rules {
        keys: issuer.file(),
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        skew_seconds: 60,
        user_claim: "sub".to_owned(),
        user_prefix: String::new(),
        device_claim: "device".to_owned(),
        adds: Adds::Nothing,
    }
}

fn tokens(issuer: &Issuer) -> Tokens {
    Tokens::open(rules(issuer)).expect("keys")
}

/// What a client would hear.
fn check(tokens: &Tokens, token: impl AsRef<[u8]>, now: UnixMillis) -> Result<Bearer, Code> {
    tokens.check(token.as_ref(), now).map_err(|refusal| refusal.code())
}

fn claims() -> Value {
    claims_of("ann", "phone")
}

fn ann() -> Result<Bearer, Code> {
    Ok(Bearer { name: "ann".parse().expect("a name"), label: "phone".parse().expect("a label") })
}

#[test]
fn good_tokens_of_both_algorithms_are_taken() {
    let issuer = Issuer::new();
    let tokens = tokens(&issuer);
    assert_eq!(tokens.count(), 2, "the other two are for other things");
    let check = |header: &Value, claims: &Value| check(&tokens, issuer.sign(header, claims), now());
    assert_eq!(check(&ed(), &claims()), ann());
    assert_eq!(check(&rs256(), &claims()), ann());
    assert_eq!(check(&without(ed(), "kid"), &claims()), ann());
    assert_eq!(check(&without(rs256(), "kid"), &claims()), ann());
    let list = with(claims(), "aud", json!(["other", AUDIENCE]));
    assert_eq!(check(&ed(), &list), ann());
    let numbered = with(claims(), "device", json!(7));
    assert_eq!(check(&ed(), &numbered).expect("good").label.as_str(), "7");
}

#[test]
fn each_wrong_thing_is_refused_by_its_code() {
    const INVALID: Code = Code::TokenInvalid;
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let tokens = tokens(&issuer);
    let sign = |header: &Value, claims: &Value| issuer.sign(header, claims);
    let claim = |key: &str, value: Value| sign(&ed(), &with(claims(), key, value));
    let lacks = |key: &str| sign(&ed(), &without(claims(), key));
    let unknown = Code::TokenKeyUnknown;
    let for_encryption = with(rs256(), "kid", json!("for-encryption"));
    let cases = [
        ("another's signature", stranger.sign(&ed(), &claims()), INVALID),
        ("another's, and expired", stranger.sign(&ed(), &with(claims(), "exp", json!(5))), INVALID),
        ("without exp", lacks("exp"), INVALID),
        ("exp that is text", claim("exp", json!("tomorrow")), INVALID),
        ("exp that is nothing", claim("exp", Value::Null), INVALID),
        ("nbf that is text", claim("nbf", json!("today")), INVALID),
        ("unknown kid", sign(&with(ed(), "kid", json!("new")), &claims()), unknown),
        ("the kid of a key for encryption", sign(&for_encryption, &claims()), unknown),
        ("the kid of the other key", sign(&with(ed(), "kid", json!("rsa")), &claims()), INVALID),
        ("crit", sign(&with(ed(), "crit", json!(["exp"])), &claims()), INVALID),
        ("empty crit", sign(&with(ed(), "crit", json!([])), &claims()), INVALID),
        ("crit that is text", sign(&with(ed(), "crit", json!("exp")), &claims()), INVALID),
        ("another issuer", claim("iss", json!("https://evil.example")), INVALID),
        ("the issuer in a list", claim("iss", json!([ISSUER])), INVALID),
        ("no issuer", lacks("iss"), INVALID),
        ("another audience", claim("aud", json!("mail")), INVALID),
        ("an audience that is a number", claim("aud", json!(5)), INVALID),
        ("an audience of nobody", claim("aud", json!([])), INVALID),
        ("no audience", lacks("aud"), INVALID),
        ("no user", lacks("sub"), INVALID),
        ("no device", lacks("device"), INVALID),
        ("a user that is a list", claim("sub", json!(["ann"])), INVALID),
        ("a user that is a number", claim("sub", json!(10_001)), INVALID),
        ("a user that is a fraction", claim("sub", json!(1.5)), INVALID),
        ("a user with a slash", claim("sub", json!("../ann")), INVALID),
        ("a device without end", claim("device", json!("x".repeat(200))), INVALID),
        ("nothing", String::new(), INVALID),
        ("two parts", "e30.e30".to_owned(), INVALID),
        ("four parts", format!("{}.x", sign(&ed(), &claims())), INVALID),
        ("no signature", unsigned(&ed(), &claims()), INVALID),
        ("too long", format!("{}.", "A".repeat(TOKEN_BYTES_MAX)), INVALID),
        ("claims that are a list", sign(&ed(), &json!([claims()])), INVALID),
    ];
    for (what, token, code) in &cases {
        assert_eq!(check(&tokens, token, now()), Err(*code), "{what}");
    }
    println!("TEST S-12 token-matrix n={} accepted=0", cases.len());
}

#[test]
fn a_token_is_good_in_its_time_and_the_allowance_alone() {
    let issuer = Issuer::new();
    let tokens = tokens(&issuer);
    let at = |seconds: u64| UnixMillis(seconds * 1_000);
    let times = with(with(claims(), "nbf", json!(10_000)), "exp", json!(20_000));
    let token = issuer.sign(&ed(), &times);
    let at_time = |now: UnixMillis| check(&tokens, &token, now);
    for good in [at(9_940), at(10_000), at(20_000), at(20_059), UnixMillis(20_059_999)] {
        assert_eq!(at_time(good), ann(), "{good:?}");
    }
    for early in [UnixMillis(0), at(1), UnixMillis(9_939_999)] {
        assert_eq!(at_time(early), Err(Code::TokenEarly), "{early:?}");
    }
    for late in [at(20_060), at(1 << 40), UnixMillis(u64::MAX)] {
        assert_eq!(at_time(late), Err(Code::TokenExpired), "{late:?}");
    }
    let fraction = issuer.sign(&ed(), &with(claims(), "exp", json!(20_000.5)));
    assert_eq!(check(&tokens, &fraction, UnixMillis(20_060_400)), ann());
    let over = check(&tokens, &fraction, UnixMillis(20_060_500));
    assert_eq!(over, Err(Code::TokenExpired));
    let past = issuer.sign(&ed(), &with(claims(), "exp", json!(-1)));
    assert_eq!(check(&tokens, &past, at(100)), Err(Code::TokenExpired));
}

/// The old tricks: no signature at all, the public key as the secret of an HMAC, and one key's
/// algorithm with another key.
#[test]
fn no_other_algorithm_is_taken_whatever_the_header_says() {
    let issuer = Issuer::new();
    let mut tried = 0;
    for keys in [issuer.key_set(), RSA_PEM.to_owned()] {
        issuer.publish(&keys);
        let tokens = tokens(&issuer);
        let mut refused = |token: &str, what: &str| {
            assert_eq!(check(&tokens, token, now()), Err(Code::TokenInvalid), "{what}");
            tried += 1;
        };
        for none in ["none", "None", "NONE", "nOnE", ""] {
            let token = unsigned(&json!({ "alg": none }), &claims());
            refused(&token, none);
            refused(token.trim_end_matches('.'), none);
        }
        let ed_public = issuer.ed_public().to_vec();
        for secret in [keys.as_bytes(), RSA_PEM.as_bytes(), RSA_PEM.trim().as_bytes(), &ed_public] {
            for kid in [Some("rsa"), Some("ed"), None] {
                for alg in ["HS256", "RS256", "EdDSA"] {
                    let header = json!({ "alg": alg, "kid": kid });
                    refused(&sign_by_hmac(&header, &claims(), secret), &header.to_string());
                }
            }
        }
        for alg in ["RS384", "RS512", "PS256", "ES256", "HS512", "EdDSA2", "rs256"] {
            refused(&issuer.sign_by_rsa(&json!({ "alg": alg, "kid": "rsa" }), &claims()), alg);
        }
        for kid in [Some("rsa"), Some("ed"), None] {
            let (ed, rsa) =
                (json!({"alg": "EdDSA", "kid": kid}), json!({"alg": "RS256", "kid": kid}));
            refused(&issuer.sign_by_rsa(&ed, &claims()), "the RSA key for EdDSA");
            refused(&issuer.sign_by_ed(&rsa, &claims()), "the Ed25519 key for RS256");
        }
        let own = json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "AA" } });
        refused(&Issuer::new().sign_by_ed(&own, &claims()), "a key that the token brings");
    }
    println!("TEST S-12 token-algorithms n={tried} accepted=0");
}

#[test]
fn no_bit_of_a_token_may_be_changed() {
    let issuer = Issuer::new();
    let tokens = tokens(&issuer);
    let mut tried = 0;
    for header in [ed(), rs256()] {
        let token = issuer.sign(&header, &claims()).into_bytes();
        assert_eq!(check(&tokens, &token, now()), ann());
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone();
                changed[at] ^= 1 << bit;
                assert!(check(&tokens, &changed, now()).is_err(), "bit {bit} of byte {at}");
                tried += 1;
            }
            assert!(check(&tokens, &token[..at], now()).is_err(), "cut to {at} bytes");
        }
    }
    println!("TEST S-12 token-bits n={tried} accepted=0");
}

#[test]
fn the_operator_is_told_why() {
    let issuer = Issuer::new();
    let tokens = tokens(&issuer);
    let why = |header: Value, claims: Value| {
        let token = issuer.sign(&header, &claims);
        tokens.check(token.as_bytes(), now()).expect_err("not taken").to_string()
    };
    let unknown = why(with(ed(), "kid", json!("new")), claims());
    assert_eq!(unknown, "there is no key with the `kid` \"new\"");
    assert!(why(ed(), with(claims(), "iss", json!("x"))).contains("\"iss\""));
    assert!(why(ed(), with(claims(), "aud", json!("x"))).contains("token-audience"));
    assert!(why(ed(), without(claims(), "device")).contains("\"device\""));
    assert!(why(ed(), with(claims(), "sub", json!("a/b"))).contains("\"sub\""));
    assert!(why(ed(), with(claims(), "nbf", json!("x"))).contains("\"nbf\""));
    assert!(why(rs256(), with(claims(), "exp", json!(1))).contains("expired"));
}

/// Good signatures over what no honest issuer says, and bytes that are no token at all. A panic
/// would end the server.
#[test]
fn nothing_that_a_token_may_hold_is_more_than_refused() {
    let issuer = Issuer::new();
    let tokens = tokens(&issuer);
    let deep = "[".repeat(1_000) + &"]".repeat(1_000);
    let values =
        ["null", "true", "-1", "1e308", "0.5", "18446744073709551616", "\"\"", "\"\\u0000\"", "{}"];
    let values = values.into_iter().chain(["[]", "[null]", "[\"exp\"]", &deep, "1e999", ""]);
    let headers = ["alg", "kid", "typ", "cty", "crit", "jwk", "jku", "x5c", "x5u", "zip", "b64"];
    let names = ["exp", "nbf", "iat", "iss", "aud", "sub", "device", "jti"];
    let (good_header, good_claims) = (ed().to_string(), claims().to_string());
    let mut texts = Vec::new();
    for value in values {
        let also = |text: &str, name: &str, value: &str| {
            [format!("{},\"{name}\":{value}}}", &text[..text.len() - 1]), value.to_owned()]
        };
        for changed in headers.iter().flat_map(|name| also(&good_header, name, value)) {
            texts.push((changed, good_claims.clone()));
        }
        for changed in names.iter().flat_map(|name| also(&good_claims, name, value)) {
            texts.push((good_header.clone(), changed));
        }
    }
    let (mut tried, mut taken) = (0, 0);
    for (header, claims) in &texts {
        let came = check(&tokens, issuer.sign_text(header, claims), now());
        assert!(came.is_err() || came == ann(), "{header} {claims}");
        (tried, taken) = (tried + 1, taken + u32::from(came.is_ok()));
    }
    let mut random = tern_random::Stream::new(tern_random::seed_from_env(1));
    for _ in 0..tern_random::soaked(2_000) {
        let letters = b"eyJhbGciOiJFZERTQSJ9.=_-\x00\xff";
        let token: Vec<u8> =
            (0..random.index(200)).map(|_| letters[random.index(letters.len())]).collect();
        assert!(check(&tokens, &token, now()).is_err(), "{token:?}");
        tried += 1;
    }
    assert!(taken > 0, "what is not looked at may be anything");
    println!("TEST S-12 token-forms n={tried} taken_as_they_should={taken}");
}

#[test]
fn issuer_and_audience_are_the_operators_choice() {
    let issuer = Issuer::new();
    let open = Rules { issuer: None, audience: None, ..rules(&issuer) };
    let tokens = Tokens::open(open).expect("keys");
    let check = |claims: &Value| check(&tokens, issuer.sign(&ed(), claims), now());
    let anyone = without(with(claims(), "iss", json!("anyone")), "aud");
    assert_eq!(check(&anyone), ann());
    for audience in [json!(AUDIENCE), json!([]), json!(5), Value::Null] {
        let for_others = check(&with(claims(), "aud", audience));
        assert_eq!(for_others, Err(Code::TokenInvalid), "it names an audience, and we are nobody");
    }
}

#[test]
fn numbers_become_names_by_a_prefix_and_claims_have_other_names() {
    let issuer = Issuer::new();
    let rules = Rules {
        user_claim: "account".to_owned(),
        user_prefix: "user-".to_owned(),
        device_claim: "sid".to_owned(),
        ..rules(&issuer)
    };
    let tokens = Tokens::open(rules).expect("keys");
    let claims = with(with(claims(), "account", json!(4711)), "sid", json!("s-1"));
    let bearer = tokens.check(issuer.sign(&ed(), &claims).as_bytes(), now()).expect("good");
    assert_eq!((bearer.name.as_str(), bearer.label.as_str()), ("user-4711", "s-1"));
}

#[test]
fn keys_are_read_again_and_a_bad_file_leaves_them() {
    let issuer = Issuer::new();
    let tokens = tokens(&issuer);
    let (by_ed, by_rsa) = (issuer.sign(&ed(), &claims()), issuer.sign(&rs256(), &claims()));
    let check = |token: &str| check(&tokens, token, now());
    assert!(tokens.reload_if_changed().is_none(), "nothing changed");

    issuer.publish(RSA_PEM);
    let keys = tokens.reload_if_changed().expect("it changed").expect("a key");
    assert_eq!(keys, 1);
    assert_eq!((check(&by_ed), check(&by_rsa)), (Err(Code::TokenInvalid), ann()), "withdrawn");

    let no_key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----";
    for bad in ["", "{}", "{\"keys\": []}", no_key] {
        issuer.publish(bad);
        assert!(tokens.reload_if_changed().expect("it changed").is_err(), "{bad}");
        assert!(tokens.reload_if_changed().is_none(), "said once");
        assert_eq!(check(&by_rsa), ann(), "the keys of before");
    }
    std::fs::remove_file(issuer.file()).expect("removed");
    assert!(tokens.reload().is_err());
    issuer.publish(&format!("{RSA_PEM}{RSA_PEM}"));
    assert_eq!(tokens.reload().expect("keys"), 2);
    assert_eq!(check(&by_rsa), ann());
}

#[test]
fn what_is_wrong_with_a_file_of_keys_is_said() {
    use base64::Engine;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let issuer = Issuer::new();
    let said = |text: &str| {
        issuer.publish(text);
        Tokens::open(rules(&issuer)).expect_err("no keys").to_string()
    };
    let set = |key: Value| json!({ "keys": [key] }).to_string();
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
    assert!(said(private).contains("private key has no business"));
    let x = base64(&[1; 32]);
    let private = set(json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "d": x }));
    assert!(said(&private).contains("private key has no business"));
    let short = set(json!({ "kty": "RSA", "n": base64(&[255; 128]), "e": "AQAB" }));
    assert!(said(&short).contains("2,048"));
    let short = set(json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(&[1; 31]) }));
    assert!(said(&short).contains("32 bytes"));
    let symmetric = set(json!({ "kty": "oct", "k": base64(&[1; 32]) }));
    assert!(said(&symmetric).contains("none is an Ed25519 or RSA"));
    let signs = set(json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "key_ops": ["encrypt"] }));
    assert!(said(&signs).contains("none is an Ed25519 or RSA"));
    assert!(said(&RSA_PEM.repeat(65)).contains("65 keys"));
    let certificate = RSA_PEM.replace("PUBLIC KEY", "CERTIFICATE");
    assert!(said(&certificate).contains("something else than a public key"));
    assert!(said("hello").contains("JSON Web Key Set"));
    assert!(said(&" ".repeat(2 << 20)).contains("more than"));
    std::fs::remove_file(issuer.file()).expect("removed");
    std::fs::create_dir(issuer.file()).expect("made");
    assert!(Tokens::open(rules(&issuer)).expect_err("a folder").to_string().contains("no file"));
}
