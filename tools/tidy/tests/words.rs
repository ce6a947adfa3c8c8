//! What may not stand in the source, or only in named places.

use tern_tidy::{Source, Tree, report};

/// Files with `unsafe`, and what for. Everything else does without.
const UNSAFE: [(&str, &str); 11] = [
    ("src/server/alloc.rs", "counts allocations: a global allocator is an unsafe trait"),
    ("src/server/tests/disk/drop.rs", "process_madvise has no safe wrapper"),
    ("src/server/transport/reuseport.rs", "SO_ATTACH_REUSEPORT_CBPF has no safe wrapper"),
    ("src/storage/benches/commit/place.rs", "measures stores through a mapping"),
    ("src/storage/benches/commit/ring.rs", "hands io_uring a batch by its address"),
    ("src/storage/segment/map.rs", "reads log segments through a mapping"),
    ("src/storage/segment/sigbus.rs", "keeps a page that can't be read from ending the process"),
    ("src/storage/dedup/region.rs", "keeps the deduplication table in shared memory"),
    ("src/storage/log/slice.rs", "sched_setattr has no safe wrapper"),
    ("src/storage/recorder/map.rs", "keeps the flight recorder in shared memory"),
    ("tools/badlink/tcp/tun.rs", "makes namespaces and tunnels, which have no safe wrapper"),
];

/// Crates whose root forbids `unsafe` outright.
const FORBID_UNSAFE: [&str; 14] = [
    "protocol/lib.rs",
    "src/core/lib.rs",
    "src/client/lib.rs",
    "src/quic/lib.rs",
    "src/sim/lib.rs",
    "tools/badlink/main.rs",
    "tools/diskmodel/lib.rs",
    "tools/groupmodel/lib.rs",
    "tools/logview/main.rs",
    "tools/netmodel/lib.rs",
    "tools/random/lib.rs",
    "tools/tidy/lib.rs",
    "tools/wirecat/lib.rs",
    "tools/wirecat/main.rs",
];

/// Where a proof of durability may be stated: where the sync returned.
const STATES_DURABILITY: [&str; 5] = [
    "src/storage/",
    "src/core/memory.rs",
    "src/core/log.rs",
    "src/sim/disk/log.rs",
    "src/sim/engine/log.rs",
];

/// Words that are no part of a finished text, in two halves so that this file has none of them.
const BANNED: [(&str, &str, &str); 10] = [
    ("todo", "!(", "write it, or leave it out"),
    ("unimplemented", "!(", "write it, or leave it out"),
    ("dbg", "!(", "use a tracing event"),
    ("FIX", "ME", "mend it, or say what is missing in the documents"),
    ("TO", "DO", "do it, or say what is missing in the documents"),
    ("crates", ".io", "name no registry: a mirror may stand for it"),
    ("pypi", ".org", "name no registry: a mirror may stand for it"),
    ("npmjs", ".com", "name no registry: a mirror may stand for it"),
    ("/ho", "me/", "a path of one machine means nothing on another"),
    ("/wo", "rk/", "a path of one machine means nothing on another"),
];

/// Kinds of files that people read.
const READ_BY_PEOPLE: [&str; 7] = [".rs", ".md", ".toml", ".hex", ".sql", ".sh", ".ci/run"];

#[test]
fn unsafe_stands_in_named_files_only() {
    let tree = Tree::read();
    let has_unsafe = |text: &str| Source::new(text).words().any(|(_, word)| word == "unsafe");
    let mut violations = Vec::new();
    for file in tree.files("", ".rs").filter(|file| has_unsafe(&file.text)) {
        if !UNSAFE.iter().any(|(path, _)| *path == file.path) {
            violations.push(format!("{}: has unsafe and is not in the list", file.path));
        }
    }
    for (path, _) in UNSAFE {
        if !tree.file(path).is_some_and(|file| has_unsafe(&file.text)) {
            violations.push(format!("{path}: is in the list and has no unsafe"));
        }
    }
    report(&violations, "Do without, or add a row {file, reason} to UNSAFE in this file.");
}

#[test]
fn rooms_without_unsafe_forbid_it() {
    let tree = Tree::read();
    let open: Vec<String> = FORBID_UNSAFE
        .iter()
        .filter(|path| !tree.text(path).contains("#![forbid(unsafe_code)]"))
        .map(|path| format!("{path}: does not forbid unsafe code"))
        .collect();
    report(&open, "Write #![forbid(unsafe_code)] below the head comment.");
}

#[test]
fn only_a_log_states_durability() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for file in tree.files("", ".rs") {
        let allowed = STATES_DURABILITY.iter().any(|place| file.path.starts_with(place));
        let source = Source::new(&file.text);
        let calls = source.words().filter(|(_, word)| *word == "assert_synced");
        for (line, word) in calls.filter(|_| !allowed) {
            violations.push(format!("{}:{line}: {word}", file.path));
        }
    }
    report(&violations, "Take the proof from the log: an ack that was not synced is a lie.");
}

#[test]
fn no_unfinished_business() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for file in READ_BY_PEOPLE.iter().flat_map(|suffix| tree.files("", suffix)) {
        for (first, second, instead) in BANNED {
            let banned = [first, second].concat();
            for (index, _) in file.text.lines().enumerate().filter(|(_, l)| has_word(l, &banned)) {
                violations.push(format!("{}:{}: {banned} {instead}", file.path, index + 1));
            }
        }
    }
    report(&violations, "The text speaks of what is there.");
}

#[test]
fn each_source_file_says_what_it_is() {
    let tree = Tree::read();
    let silent: Vec<String> = tree
        .files("", ".rs")
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{}: has no head comment", file.path))
        .collect();
    report(&silent, "Begin with //! and say what it holds, what comes in, what goes out.");
}

/// Whether a line has this text, not as a part of a longer word.
fn has_word(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + text.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let open_end = text.ends_with(['(', '/']);
        (text.starts_with('/') || !joins(before)) && (open_end || !joins(after))
    })
}
