//! What we stand on: no version with a known hole, no pre-release, each with a reason.

use tern_tidy::{Tree, manifest, report};

/// The lowest version of a package that is free of the holes known of it, and which these are.
const FLOORS: [(&str, &str, &str); 10] = [
    ("quinn-proto", "0.11.15", "RUSTSEC-2026-0185: unbounded reassembly of gapped fragments"),
    ("rustls", "0.23.18", "RUSTSEC-2024-0399: panic in the acceptor"),
    ("rustls-webpki", "0.103.13", "RUSTSEC-2026-0104: panic on a revocation list"),
    ("ring", "0.17.12", "RUSTSEC-2025-0009: panic in AES with overflow checks"),
    ("memmap2", "0.9.11", "RUSTSEC-2026-0186: unchecked range in flush and advise"),
    ("bytes", "1.11.1", "RUSTSEC-2026-0007: overflow in reserve"),
    ("crossbeam-epoch", "0.9.20", "RUSTSEC-2026-0204: bad pointer in fmt"),
    ("mio", "0.8.11", "RUSTSEC-2024-0019: tokens of named pipes"),
    ("jsonwebtoken", "10.3.0", "GHSA-h395-gr6q-cpjc: a time that is no number is overlooked"),
    ("zerocopy", "0.7.31", "RUSTSEC-2023-0074: unsound methods of Ref"),
];

/// Dependencies that may stand under one comment: more, and it is no reason any more.
const GROUP_MAX: usize = 3;

/// S-19.
#[test]
fn no_version_with_a_known_hole() {
    let locked = manifest::locked(&Tree::read());
    let mut violations = Vec::new();
    for (name, floor, why) in FLOORS {
        for package in locked.iter().filter(|package| package.name == name) {
            if manifest::numbers(&package.version).0 < manifest::numbers(floor).0 {
                violations.push(format!("{name} {} is below {floor}: {why}", package.version));
            }
        }
    }
    report(&violations, "cargo update -p NAME; if something holds it back, update that first.");
}

#[test]
fn no_direct_dependency_is_a_pre_release() {
    let tree = Tree::read();
    let locked = manifest::locked(&tree);
    let mut violations = Vec::new();
    for member in manifest::members(&tree) {
        let own = locked.iter().find(|package| package.name == member.name);
        for used in &own.expect("Cargo.lock knows each member").dependencies {
            let (name, version) = used.split_once(' ').unwrap_or((used, ""));
            let found = locked.iter().find(|package| {
                package.name == name && (version.is_empty() || package.version == version)
            });
            let found = found.expect("Cargo.lock has what it names");
            if !manifest::numbers(&found.version).1 {
                violations.push(format!("{} uses {name} {}", member.folder, found.version));
            }
        }
    }
    report(&violations, "Use a release: its authors stand behind it.");
}

#[test]
fn each_dependency_has_a_reason() {
    let tree = Tree::read();
    let root = tree.text("Cargo.toml");
    let (_, rest) = root.split_once("[workspace.dependencies]\n").expect("a table of dependencies");
    let table = rest.split("\n[").next().unwrap_or_default();
    let (mut below, mut violations) = (GROUP_MAX, Vec::new());
    for line in table.lines() {
        if line.starts_with('#') {
            below = 0;
        } else if let Some(name) = manifest::key(line).filter(|name| !name.starts_with("tern-")) {
            below += 1;
            if below > GROUP_MAX {
                violations.push(format!("Cargo.toml: {name} has no reason"));
            }
        }
    }
    report(&violations, "Write a comment above it: what it is for, and why we don't do without.");
}

#[test]
fn versions_are_said_once() {
    let tree = Tree::read();
    let own_version = |text: &str| {
        let package = text.split("\n[").next().unwrap_or_default();
        let lines = package.lines().filter_map(manifest::key);
        let said: Vec<_> = lines.filter(|key| key == "version").collect();
        said.len() > package.matches("version.workspace").count()
    };
    let mut violations = Vec::new();
    for member in manifest::members(&tree) {
        let path = format!("{}/Cargo.toml", member.folder);
        let text = tree.text(&path);
        if own_version(text) {
            violations.push(format!("{path}: has a version of its own"));
        }
        if text.contains("version = \"") && text.contains("dependencies") {
            violations.push(format!("{path}: gives a version to a dependency"));
        }
    }
    report(&violations, "Say it in the root Cargo.toml and write `.workspace = true` here.");
}
