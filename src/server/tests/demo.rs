//! The newcomer's command on the real binary: a short run of everything holds every promise and
//! says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use tern_wirecat::Decoder;
use tern_wirecat::capture::Reader;
use tern_wirecat::event::{Carrier, What};
use tern_wirecat::keylog::KeyLog;
use tern_wirecat::show::fields::{Value, parts};

#[test]
fn a_short_demo_holds_every_promise_and_its_captures_read_completely() {
    let folder = tempfile::tempdir().expect("a folder");
    play(&["--capture"], Some(folder.path()));
    let inside = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let kept = inside(folder.path()).into_iter().find(|path| path.join("keys").is_file());
    let kept = kept.expect("it keeps its folder");
    let captures: Vec<PathBuf> = inside(&kept)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "pcap"))
        .collect();
    assert_eq!(captures.len(), 4, "both ends of both links");
    let (mut frames, mut doubled) = (0, 0);
    for capture in &captures {
        let (read, again) = read_completely(capture, &kept.join("keys"));
        (frames, doubled) = (frames + read, doubled + again);
    }
    println!("TEST wirecat-demo n={frames} by_second_datagram={doubled} undecoded=0");
    assert!(frames > 0 && doubled > 0);
}

/// Reads a capture in which nothing may be left over: how many frames there are, and how many
/// messages that came before came by datagram.
fn read_completely(capture: &Path, keys: &Path) -> (u64, u64) {
    let mut log = KeyLog::default();
    log.follow(keys.to_owned()).expect("the keys");
    let (mut decoder, mut events) = (Decoder::new(log), Vec::new());
    let mut reader = Reader::open(capture).expect("a capture");
    while let Some(item) = reader.next_item().expect("a whole capture") {
        events.extend(decoder.handle(&item));
    }
    events.extend(decoder.end());
    let (mut frames, mut doubled) = (0, 0);
    for event in &events {
        match &event.what {
            What::Frame { carrier, is_again, bytes, .. } => {
                let parts = parts(bytes, true);
                assert!(!parts.is_malformed && parts.kind.row().is_some(), "{parts:?}");
                let raw = parts.all().into_iter().flatten().find(|(name, value)| {
                    let is_key = matches!(*name, "secret" | "token");
                    matches!(value, Value::Bytes(_)) && !is_key
                });
                assert_eq!(raw, None, "of {:?}", parts.kind);
                frames += 1;
                doubled += u64::from(*is_again && *carrier == Carrier::Datagram);
            }
            What::Sealed | What::Foreign { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    for stats in decoder.stats() {
        // A side that dies in its handshake leaves packets whose keys were never agreed on.
        assert!(stats.held == 0 || stats.suite.is_none(), "{stats:?}");
        let [client, server] = &stats.sides;
        assert_eq!((client.broken, server.broken, client.unopened), (0, 0, 0), "{stats:?}");
    }
    (frames, doubled)
}

#[test]
fn a_short_demo_by_streams_holds_every_promise() {
    play(&["--streams"], None);
}

/// Plays one; what it keeps goes below `folder`.
fn play(more: &[&str], folder: Option<&Path>) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tern"));
    demo.args(["demo", "--messages", "40", "--seconds", "4"]).args(more);
    if let Some(folder) = folder {
        demo.env("TMPDIR", folder);
    }
    let demo = demo.output().expect("the binary is there");
    let (said, complained) =
        (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{}: {said}{complained}", demo.status);
    let last = said.lines().last().expect("it says how it went");
    assert!(
        last.starts_with(
            "demo seed=1 sent=80 acked=80 delivered=160 lost=0 dup=0 reorder=0 answers=0 "
        ),
        "{said}"
    );
    for event in ["kill -9 of the server", "the server is back", "kill -9 of bob's client"] {
        assert!(said.contains(event), "{said}");
    }
}
