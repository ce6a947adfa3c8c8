//! SPEC.md tells what the code does: its tables and drawings are written from the code, and the
//! registry they come from is consistent.
//!
//! `TERN_WRITE_SPEC=1 cargo test -p tern-protocol --test spec` writes them anew.

mod drawing;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::{env, fs};

use tern_protocol::frames::{Change, GroupMember, HistoryEntry, Layout, Mark, Tail, layout};
use tern_protocol::limits;
use tern_protocol::registry::{Direction, Needs};
use tern_protocol::{Class, Code, Frame, Kind};

/// Set to have SPEC.md rewritten instead of compared.
const WRITE: &str = "TERN_WRITE_SPEC";

const SPEC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md");

#[test]
fn the_tables_in_spec_md_are_those_of_the_code() {
    let old = fs::read_to_string(SPEC).expect("SPEC.md beside Cargo.toml");
    let mut new = fill(&old, "kinds", &kinds());
    new = fill(&new, "codes", &codes());
    new = fill(&new, "limits", &limits_table());
    for row in Kind::ALL {
        let layout = layout(row.kind).expect("a kind in the table has a layout");
        new = fill(&new, row.label, &drawing::frame(&layout));
    }
    let change = Layout { fields: Change::FIELDS, tail: Tail::Bytes("members, then the name") };
    new = fill(&new, "CHANGE", &drawing::frame(&change));
    let member = Layout { fields: GroupMember::FIELDS, tail: Tail::None };
    new = fill(&new, "MEMBER", &drawing::frame(&member));
    let mark = Layout { fields: Mark::FIELDS, tail: Tail::None };
    new = fill(&new, "MARK", &drawing::frame(&mark));
    let entry = Layout { fields: HistoryEntry::FIELDS, tail: Tail::None };
    new = fill(&new, "ENTRY", &drawing::frame(&entry));
    if env::var_os(WRITE).is_some() {
        fs::write(SPEC, new).expect("SPEC.md can be written");
    } else if let Some((old, new)) = old.lines().zip(new.lines()).find(|(old, new)| old != new) {
        panic!("SPEC.md has\n  {old}\nand the code\n  {new}\nrun this test with {WRITE}=1");
    } else {
        assert_eq!(old, new, "SPEC.md ends elsewhere; run this test with {WRITE}=1");
    }
}

/// Every `§4.2` in SPEC.md and in the code of this crate has such a heading.
#[test]
fn cited_sections_exist() {
    let spec = fs::read_to_string(SPEC).expect("SPEC.md beside Cargo.toml");
    let headings: BTreeSet<&str> = spec
        .lines()
        .filter_map(|line| line.strip_prefix("##")?.trim_start_matches('#').split(' ').nth(1))
        .map(|number| number.trim_end_matches('.'))
        .collect();
    for line in spec.lines().filter(|line| !line.contains("RFC")) {
        for cited in line.split('§').skip(1) {
            let end = cited.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(cited.len());
            let number = cited[..end].trim_end_matches('.');
            assert!(headings.contains(number), "no section {number}, cited in: {line}");
        }
    }
}

fn fill(spec: &str, name: &str, block: &str) -> String {
    let start = format!("<!-- generated {name} -->\n");
    let from = spec.find(&start).unwrap_or_else(|| panic!("SPEC.md has no {start}")) + start.len();
    let length = spec[from..].find("<!-- end -->").expect("a generated block has an end");
    format!("{}\n{block}\n{}", &spec[..from], &spec[from + length..])
}

fn kinds() -> String {
    let mut table = String::from("| number | kind | said by | needs | |\n|---|---|---|---|---|\n");
    for row in Kind::ALL {
        let said_by = match row.direction {
            Direction::ToServer => "client",
            Direction::ToClient => "server",
            Direction::Both => "both",
        };
        let needs = match (row.direction, row.needs) {
            (Direction::ToClient, _) | (_, Needs::Nothing) => "",
            (_, Needs::Welcome) => "greeting",
            (_, Needs::Login) => "login",
        };
        let (number, label, sentence) = (row.kind.0, row.label, row.sentence);
        writeln!(table, "| {number:#04x} | {label} | {said_by} | {needs} | {sentence} |")
            .expect("a string takes all");
    }
    table
}

fn codes() -> String {
    let mut table = String::from("| number | code | class | |\n|---|---|---|---|\n");
    for row in Code::ALL {
        let class = match row.class {
            Class::Final => "final",
            Class::Retry => "retry",
            Class::Notice => "notice",
        };
        let (number, label, sentence) = (row.code.0, row.label, row.sentence);
        writeln!(table, "| {number:#06x} | {label} | {class} | {sentence} |")
            .expect("a string takes all");
    }
    table
}

macro_rules! values {
    ($($name:ident),*) => { vec![$((stringify!($name), format!("{:?}", limits::$name))),*] };
}

fn limits_table() -> String {
    let source = include_str!("../limits.rs");
    let numbers = values![
        PORT,
        VERSION,
        PAYLOAD_BYTES_MAX,
        FRAME_BYTES_MAX,
        CONTENT_BYTES_DEFAULT,
        CONTENT_BYTES_MAX,
        UNACKED_SENDS_MAX,
        CURSORS_PER_FRAME_MAX,
        FETCH_IDS_MAX,
        HISTORY_IDS_MAX,
        CHANGE_MEMBERS_MAX,
        GROUP_NAME_BYTES_MAX,
        GROUP_PAGE_MEMBERS_MAX,
        BLOCK_PAGE_UINS_MAX,
        MARKS_PER_FRAME_MAX,
        UNREAD_CHANNELS_MAX,
        UNREAD_COUNT_MAX,
        ERROR_TEXT_BYTES_MAX,
        SECRET_BYTES,
        TOKEN_BYTES_MAX,
        MISSED_BEATS_MAX
    ];
    let texts = [("ALPN", limits::ALPN), ("MAGIC", &limits::MAGIC)];
    let texts = texts.map(|(name, bytes)| (name, String::from_utf8_lossy(bytes).into_owned()));
    let rows: Vec<_> = texts.into_iter().chain(numbers).collect();
    assert_eq!(rows.len(), source.matches("pub const ").count(), "a limit is not in this list");
    let mut table = String::from("| name | value | |\n|---|---|---|\n");
    for (name, value) in rows {
        let value = drawing::grouped(&value);
        let text = drawing::plain(&doc_above(source, &format!("pub const {name}:")));
        writeln!(table, "| `{name}` | {value} | {text} |").expect("a string takes all");
    }
    table
}

/// The doc comment above the line that begins with `item`, as one line.
fn doc_above(source: &str, item: &str) -> String {
    let before = &source[..source.find(item).unwrap_or_else(|| panic!("no {item} in limits.rs"))];
    let mut lines: Vec<&str> = before.lines().rev().map_while(|l| l.strip_prefix("///")).collect();
    assert!(!lines.is_empty(), "{item} says nothing of itself");
    lines.reverse();
    lines.concat()
}

#[test]
fn kinds_are_unique_and_ascending() {
    assert!(Kind::ALL.windows(2).all(|pair| pair[0].kind < pair[1].kind));
    assert_eq!(labels(Kind::ALL.iter().map(|row| row.label)).len(), Kind::ALL.len());
}

#[test]
fn codes_are_unique_and_ascending() {
    assert!(Code::ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    assert_eq!(labels(Code::ALL.iter().map(|row| row.label)).len(), Code::ALL.len());
    assert_ne!(Code::ALL[0].code, Code(0), "0 is QUIC's \"no error\" in many stacks");
}

fn labels<'a>(all: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let shape = |c: char| c.is_ascii_uppercase() || c == '_';
    all.inspect(|label| assert!(label.chars().all(shape), "{label} is no label")).collect()
}

/// What the decoder takes and what the table says are the same kinds.
#[test]
fn each_kind_is_decoded_and_no_other() {
    for number in 0..=u8::MAX {
        let kind = Kind(number);
        let fixed = layout(kind).map_or(0, |layout| layout.fixed_bytes());
        let mut bytes = vec![fixed as u8, 0, number, 0];
        bytes.resize(4 + fixed, 0);
        let (frame, _) = Frame::parse(&bytes).expect("a payload of the fixed length");
        assert_eq!(frame.kind(), kind);
        assert_eq!(matches!(frame, Frame::Unknown(..)), kind.row().is_none(), "{kind}");
    }
}

#[test]
fn a_client_can_reach_every_state() {
    let says = |needs| {
        Kind::ALL.iter().any(|row| row.needs == needs && row.direction == Direction::ToServer)
    };
    assert!(says(Needs::Nothing) && says(Needs::Welcome) && says(Needs::Login));
    let first = Kind::ALL.iter().filter(|row| row.needs == Needs::Nothing);
    let first: Vec<_> = first.filter(|row| row.direction == Direction::ToServer).collect();
    assert_eq!(first.len(), 1, "a conversation begins in one way only");
    assert_eq!(first[0].kind, Kind::Hello);
}

#[test]
fn a_code_says_what_to_do() {
    for row in Code::ALL {
        assert!(row.sentence.ends_with('.'), "{}: a sentence ends with a full stop", row.label);
        assert!(row.sentence.len() <= limits::ERROR_TEXT_BYTES_MAX, "{} is too long", row.label);
        assert_eq!((row.code.class(), row.code.sentence()), (row.class, row.sentence));
    }
    assert_eq!(Code(0x7777).class(), Class::Final, "nobody retries for ever");
}
