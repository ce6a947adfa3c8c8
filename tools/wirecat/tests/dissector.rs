//! The dissector in the repository is the one that the registry gives, and tshark, where it is
//! installed, reads with it what wirecat reads.
#![expect(clippy::print_stdout, reason = "a test tells its figures")]

mod support;

use std::process::Command;

use support::file::decode;
use tern_protocol::{Header, Kind};
use tern_wirecat::event::What;
use tern_wirecat::lua;

/// Set to have the file rewritten instead of compared.
const WRITE: &str = "TERN_WRITE_LUA";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tern.lua");

const CAPTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/hello.pcap");

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/hello.keys");

#[test]
fn the_file_is_what_the_registry_gives() {
    let script = lua::dissector();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(SCRIPT, &script).expect("the file can be written");
    }
    let file = std::fs::read_to_string(SCRIPT).expect("tern.lua is beside Cargo.toml");
    assert!(file == script, "tern.lua is old; run this test with {WRITE}=1");
}

/// What tshark prints with the script; `None`, said aloud, where there is no tshark.
fn tshark(more: &[&str]) -> Option<String> {
    let mut command = Command::new("tshark");
    command.args(["-X", &format!("lua_script:{SCRIPT}"), "-r", CAPTURE]);
    command.args(["-o", &format!("tls.keylog_file:{KEYS}")]).args(more);
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(!complained.contains("Lua"), "{complained}");
            Some(String::from_utf8(output.stdout).expect("text"))
        }
        Err(error) => {
            println!("TEST dissector not run in tshark: {error}");
            None
        }
    }
}

#[test]
fn tshark_finds_the_frames_that_wirecat_finds() {
    let keys = std::fs::read_to_string(KEYS).expect("keys");
    let (_, events) = decode(&std::fs::read(CAPTURE).expect("a capture"), &keys);
    let mut frames: Vec<Kind> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Frame { bytes, .. } => Header::peek(bytes).map(|header| Kind(header.kind)),
            _ => None,
        })
        .collect();
    let fields = ["-T", "fields", "-e", "tern.kind", "-Y", "tern"];
    let Some(kinds) = tshark(&fields) else { return };
    let number = |text: &str| u8::from_str_radix(text.trim().trim_start_matches("0x"), 16);
    let kinds = kinds.split([',', '\n']).filter(|text| !text.trim().is_empty());
    let mut found: Vec<Kind> = kinds.map(|text| Kind(number(text).expect("a kind"))).collect();
    frames.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, frames, "by tshark, by wirecat");
    let told = tshark(&["-V", "-Y", "tern.kind == 0x13"]).expect("it ran before");
    for field in ["Tern PUSH", "channel: 10001-10002", "sender: 10001", "counter: 1"] {
        assert!(told.contains(field), "no {field} in\n{told}");
    }
    println!("TEST dissector frames={} same=all", found.len());
}
