//! Who may use whom, and what the deciding rooms may not touch.

use tern_tidy::{Source, Tree, manifest, report};

/// Which packages of ours each package may use.
const ARROWS: [(&str, &[&str]); 18] = [
    ("tern-random", &[]),
    ("tern-protocol", &["tern-random"]), // its tests
    ("tern-core", &["tern-groupmodel", "tern-protocol"]), // the former its tests
    // `tern-diskmodel` has the disks of its tests, which need its door: an arrow both ways.
    ("tern-storage", &["tern-core", "tern-diskmodel", "tern-protocol", "tern-random"]),
    ("tern-client", &["tern-protocol", "tern-random"]), // the latter its tests
    ("tern-quic", &["tern-core", "tern-protocol"]),
    (
        "tern-server",
        &[
            "tern-badlink", // the links of `tern demo`
            "tern-bench",   // says again what its tests have captured
            "tern-client",
            "tern-core",
            "tern-netmodel",
            "tern-protocol",
            "tern-quic",
            "tern-random", // its tests
            "tern-storage",
            "tern-wirecat", // reads the captures of its tests
        ],
    ),
    ("tern-bench", &["tern-protocol", "tern-random"]),
    (
        "tern-peers", // outside of the workspace
        &["tern-badlink", "tern-bench", "tern-netmodel", "tern-protocol", "tern-random"],
    ),
    ("tern-micro", &["tern-core", "tern-protocol", "tern-storage"]),
    (
        "tern-sim",
        &[
            "tern-client",
            "tern-core",
            "tern-diskmodel",
            "tern-groupmodel",
            "tern-netmodel",
            "tern-protocol",
            "tern-quic",
            "tern-random",  // its tests
            "tern-sim",     // its tests, with the deliberate defects
            "tern-storage", // the third depth
        ],
    ),
    ("tern-netmodel", &["tern-random"]),
    ("tern-diskmodel", &["tern-random", "tern-storage"]),
    ("tern-groupmodel", &["tern-protocol"]),
    ("tern-badlink", &["tern-netmodel"]),
    ("tern-logview", &["tern-core", "tern-protocol", "tern-storage"]),
    ("tern-wirecat", &["tern-protocol", "tern-random"]), // the latter its tests
    ("tern-tidy", &[]),
];

/// What decides and never does: told the time, given the bytes.
const PURE: [&str; 3] = ["src/core/", "src/client/machine/", "tools/netmodel/"];

/// Names that may not stand there, and what to use instead.
const NOT_IN_PURE: [(&str, &str); 8] = [
    ("Instant", "take the time as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("quinn", "speak of links; the driver knows QUIC"),
    ("quinn_proto", "speak of links; the driver knows QUIC"),
    ("quinn_udp", "speak of links; the driver knows sockets"),
    ("tokio", "leave waiting to the driver"),
    ("mio", "leave waiting to the driver"),
    ("rand", "take random numbers as arguments"),
];

/// Modules of std that may not be used there, and what to use instead.
const NO_STD_IN_PURE: [(&str, &str); 5] = [
    ("fs", "go through the log's or the store's door"),
    ("net", "speak of links; the driver knows addresses"),
    ("thread", "leave threads to the driver"),
    ("process", "leave ending the process to the binary"),
    ("env", "take settings as arguments"),
];

#[test]
fn each_package_has_its_arrows() {
    let tree = Tree::read();
    let members = packages(&tree);
    let without: Vec<String> = members
        .iter()
        .filter(|member| arrows(&member.name).is_none())
        .map(|member| format!("{}: {} is in no row", member.folder, member.name))
        .collect();
    report(
        &without,
        "Add a row to ARROWS in this file: which of our packages may it use, and why?",
    );
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert!(ARROWS.iter().all(|(name, _)| names.contains(name)), "ARROWS has a row too many");
}

#[test]
fn manifests_follow_the_arrows() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for member in packages(&tree) {
        let allowed = arrows(&member.name).unwrap_or_default();
        let ours = member.dependencies.iter().filter(|name| name.starts_with("tern-"));
        for used in ours.filter(|used| !allowed.contains(&used.as_str())) {
            violations.push(format!("{}/Cargo.toml: uses {used}", member.folder));
        }
    }
    report(&violations, "Move what both need to a room below both; see ARROWS in this file.");
}

#[test]
fn sources_follow_the_arrows() {
    let tree = Tree::read();
    let outside: Vec<String> =
        manifest::outsiders(&tree).iter().map(|package| format!("{}/", package.folder)).collect();
    let mut violations = Vec::new();
    for member in packages(&tree) {
        let mut allowed = arrows(&member.name).unwrap_or_default().to_vec();
        allowed.push(&member.name);
        let folder = format!("{}/", member.folder);
        let is_another =
            |path: &str| outside.iter().any(|nested| *nested != folder && path.starts_with(nested));
        for file in tree.files(&folder, ".rs").filter(|file| !is_another(&file.path)) {
            for (line, word) in Source::new(&file.text).words() {
                let package = word.replace('_', "-");
                let ours = ARROWS.iter().any(|(name, _)| *name == package);
                if ours && !allowed.contains(&package.as_str()) {
                    violations.push(format!("{}:{line}: uses {word}", file.path));
                }
            }
        }
    }
    report(&violations, "Move what both need to a room below both; see ARROWS in this file.");
}

#[test]
fn what_decides_touches_nothing() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    let pure = PURE.iter().flat_map(|prefix| tree.files(prefix, ".rs"));
    // A bench is a driver, and measures.
    for file in pure.filter(|file| !file.path.contains("/benches/")) {
        let source = Source::new(&file.text);
        for (line, word) in source.words() {
            if let Some((_, instead)) = NOT_IN_PURE.iter().find(|(banned, _)| *banned == word) {
                violations.push(format!("{}:{line}: {word}: {instead}", file.path));
            }
        }
        let is_test = file.path.contains("/tests/"); // may be told a seed by the environment
        for (line, module) in source.std_modules().into_iter().filter(|_| !is_test) {
            if let Some((_, instead)) = NO_STD_IN_PURE.iter().find(|(name, _)| *name == module) {
                violations.push(format!("{}:{line}: std::{module}: {instead}", file.path));
            }
        }
    }
    report(&violations, "The simulator runs this code with its own time, network and disk.");
}

/// A crate without `std` and without `alloc` can't allocate: so decoding a frame never does.
#[test]
fn the_protocol_has_no_heap() {
    let tree = Tree::read();
    assert!(tree.text("protocol/lib.rs").contains("#![no_std]"), "protocol/lib.rs: no_std is gone");
    let sources = tree.files("protocol/", ".rs").filter(|f| !f.path.contains("/tests/"));
    let violations: Vec<String> = sources
        .flat_map(|file| {
            let source = Source::new(&file.text);
            let named = source.words().any(|(_, word)| word == "alloc" || word == "std");
            named.then(|| format!("{}: names alloc or std", file.path))
        })
        .collect();
    report(&violations, "Borrow from the received bytes, or write into the caller's buffer.");
}

/// Those of the workspace, and those outside of it.
fn packages(tree: &Tree) -> Vec<manifest::Member> {
    [manifest::members(tree), manifest::outsiders(tree)].concat()
}

fn arrows(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(own, _)| *own == name).map(|(_, allowed)| *allowed)
}
