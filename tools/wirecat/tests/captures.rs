//! Captures of QUIC conversations in memory: each cipher, each form of file, whatever QUIC does
//! with ids, keys and addresses.

mod support;

use rustls::CipherSuite;
use support::file::{Link, decode, pcap, pcapng};
use support::{Setup, Talk, frame, talk};
use tern_protocol::Kind;
use tern_wirecat::event::{Carrier, Event, What};
use tern_wirecat::quic::Way;
use tern_wirecat::show::extract::Extract;
use tern_wirecat::show::{json, table, text};

/// The frames of one side by one carrier, in order.
fn found(events: &[Event], way: Way, carrier: Carrier) -> Vec<&[u8]> {
    let frames = events.iter().filter_map(|event| match &event.what {
        What::Frame { way: said, carrier: by, bytes, .. } if (*said, *by) == (way, carrier) => {
            Some(bytes.as_slice())
        }
        _ => None,
    });
    frames.collect()
}

/// Every frame of the talk is there, once, and nothing else.
fn judge(talk: &Talk, file: &[u8], keys: &str) -> Vec<Event> {
    let (decoder, events) = decode(file, keys);
    let strays = decoder.strays();
    let text: Vec<String> = events.iter().map(|event| text::line(event, true)).collect();
    let text = text.join("\n");
    assert!(found(&events, Way::ToServer, Carrier::Stream) == talk.said[0], "{text}");
    assert!(found(&events, Way::ToClient, Carrier::Stream) == talk.said[1], "{text}");
    assert!(found(&events, Way::ToServer, Carrier::Datagram) == talk.by_datagram, "{text}");
    assert_eq!((strays.foreign, strays.unknown, decoder.packets().1), (0, 0, 0), "{text}");
    let stats = &decoder.stats()[0];
    assert_eq!((stats.moves, stats.held), (1, 0), "{}", table::text(stats));
    for side in &stats.sides {
        assert_eq!((side.key_updates, side.broken, side.unopened), (1, 0, 0), "{side:?}");
        assert_eq!((side.unacknowledged, side.waiting_bytes), (0, 0), "{side:?}");
    }
    let closed =
        |event: &&Event| matches!(&event.what, What::Closed { reason, .. } if reason == "enough");
    assert_eq!(events.iter().filter(closed).count(), 1, "{text}");
    events
}

#[test]
fn every_cipher_is_opened() {
    for (suite, name) in [
        (CipherSuite::TLS13_AES_128_GCM_SHA256, "AES-128-GCM"),
        (CipherSuite::TLS13_AES_256_GCM_SHA384, "AES-256-GCM"),
        (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "ChaCha20-Poly1305"),
    ] {
        let talk = talk(Setup { suite, ..Setup::default() });
        let file = pcap(&talk.passed, Link::Ethernet);
        judge(&talk, &file, &talk.keys);
        assert_eq!(decode(&file, &talk.keys).0.stats()[0].suite, Some(name));
    }
}

#[test]
fn every_form_of_file_is_read() {
    let talk = talk(Setup::default());
    for link in [Link::Ethernet, Link::Raw, Link::Null, Link::LinuxSll2] {
        judge(&talk, &pcap(&talk.passed, link), &talk.keys);
    }
    judge(&talk, &pcapng(&talk.passed, &talk.keys), "");
}

#[test]
fn retries_empty_ids_and_segments_are_followed() {
    for retry in [false, true] {
        for client_id_bytes in [8, 0, 20] {
            for segments in [1, 10] {
                let setup = Setup { retry, client_id_bytes, segments, ..Setup::default() };
                let talk = talk(setup);
                judge(&talk, &pcap(&talk.passed, Link::Raw), &talk.keys);
            }
        }
    }
}

#[test]
fn packets_out_of_order_and_doubled_change_nothing() {
    let talk = talk(Setup::default());
    let mut passed: Vec<_> =
        talk.passed.iter().flat_map(|one| [one.clone(), one.clone()]).collect();
    // Neighbours of one side overtake each other; an answer can't come before its question.
    passed.chunk_by_mut(|a, b| a.to == b.to && a.from == b.from).for_each(<[_]>::reverse);
    let (decoder, events) = decode(&pcap(&passed, Link::Raw), &talk.keys);
    for (side, way) in [Way::ToServer, Way::ToClient].into_iter().enumerate() {
        assert!(found(&events, way, Carrier::Stream) == talk.said[side]);
        assert!(decoder.stats()[0].sides[side].doubled > 0);
    }
}

#[test]
fn without_its_secrets_a_connection_is_named_and_no_more() {
    let talk = talk(Setup::default());
    let (decoder, events) = decode(&pcap(&talk.passed, Link::Raw), "");
    let what: Vec<&What> = events.iter().map(|event| &event.what).collect();
    assert!(matches!(what[..], [What::Opened { .. }, What::Sealed]), "{what:?}");
    assert!(decoder.stats()[0].held > 0);
}

#[test]
fn a_capture_that_begins_too_late_is_counted() {
    let talk = talk(Setup::default());
    let late: Vec<_> = talk.passed[8..].to_vec();
    let (decoder, events) = decode(&pcap(&late, Link::Raw), &talk.keys);
    assert!(events.is_empty() && decoder.stats().is_empty());
    assert_eq!(decoder.strays().unknown, late.len() as u64);
}

#[test]
fn messages_said_again_are_marked() {
    let talk = talk(Setup::default());
    let (_, events) = decode(&pcap(&talk.passed, Link::Raw), &talk.keys);
    let again = events.iter().filter(|e| matches!(e.what, What::Frame { is_again: true, .. }));
    assert_eq!(again.count(), 0);
    let objects: Vec<_> = events.iter().map(|event| json::object(event, false)).collect();
    let kinds = objects.iter().filter_map(|object| object["kind"].as_str());
    assert!(kinds.clone().any(|kind| kind == "WELCOME"));
    let channel = objects.iter().find(|object| object["kind"] == "CHANNEL").unwrap();
    assert!(channel["fields"]["newest"].is_string(), "eight bytes are a string: {channel}");
    let login = objects.iter().find(|object| object["kind"] == "LOGIN").unwrap();
    assert_eq!(login["fields"]["secret"]["secret_bytes"], 32, "{login}");
    assert_eq!(frame(Kind::Hello, 7).len(), 36);
}

/// What a client said can be taken out whole, and its secret only when that is asked for.
#[test]
fn frames_of_clients_are_extracted_as_they_were_said() {
    let keys = include_str!("../testdata/hello.keys");
    let (_, events) = decode(include_bytes!("../testdata/hello.pcap"), keys);
    let said = events.iter().filter_map(|event| match &event.what {
        What::Frame { way: Way::ToServer, bytes, .. } => Some(bytes.as_slice()),
        _ => None,
    });
    let said: Vec<&[u8]> = said.collect();
    for with_secrets in [true, false] {
        let mut extract = Extract::new(with_secrets);
        let mut lines: Vec<_> = events.iter().filter_map(|event| extract.line(event)).collect();
        let is_ack = |line: &&serde_json::Value| line["kind"] == "SEND_ACK";
        assert_eq!(lines.iter().filter(is_ack).count(), 1, "of the one message");
        lines.retain(|line| !is_ack(&line));
        assert_eq!(lines.len(), said.len());
        assert!(lines.iter().any(|line| line["kind"] == "SEND" && line["epoch"].is_u64()));
        let times = lines.iter().map(|line| line["at_us"].as_str().unwrap().parse::<u64>());
        assert!(times.map(Result::unwrap).is_sorted());
        for (line, bytes) in lines.iter().zip(&said) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let is_login = line["kind"] == "LOGIN";
            match with_secrets || !is_login {
                true => assert_eq!(line["hex"], hex),
                false => assert!(line["hex"].is_null() && line["secret_bytes"] == bytes.len()),
            }
        }
        assert_eq!(lines[0]["kind"], "HELLO");
    }
}

/// A conversation that was really held, as it was captured, and what it says.
#[test]
fn a_capture_of_a_real_server_reads_as_it_did() {
    let keys = include_str!("../testdata/hello.keys");
    let (_, events) = decode(include_bytes!("../testdata/hello.pcap"), keys);
    let lines: String = events.iter().map(|event| text::line(event, false) + "\n").collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/hello.txt");
    if std::env::var_os("TERN_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &lines).unwrap();
    }
    assert_eq!(lines, std::fs::read_to_string(path).unwrap());
}
