//! Facts that stand in two places say the same in both; links lead somewhere.

use std::path::{Component, Path, PathBuf};

use tern_tidy::{File, Tree, manifest, report};

/// The two commands of a newcomer: one runs the main job, one passes the tests.
const COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo test --workspace"];

#[test]
fn the_readme_has_the_two_commands_that_are_run() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for command in COMMANDS {
        for path in ["README.md", ".ci/run"] {
            if !tree.text(path).contains(command) {
                violations.push(format!("{path}: does not say `{command}`"));
            }
        }
    }
    report(&violations, "The first screen of the README and the check of every change agree.");
}

#[test]
fn the_readme_names_the_compiler() {
    let tree = Tree::read();
    let version = manifest::value(tree.text("Cargo.toml"), "rust-version").expect("a rust-version");
    let said = format!("Rust {version}");
    assert!(tree.text("README.md").contains(&said), "README.md: should say \"{said}\"");
    let toolchain = tree.file("rust-toolchain.toml").map_or("", |file| &file.text);
    assert!(toolchain.is_empty() || toolchain.contains(&version), "rust-toolchain.toml differs");
}

#[test]
fn the_changelog_knows_this_version() {
    let tree = Tree::read();
    let version = manifest::value(tree.text("Cargo.toml"), "version").expect("a version");
    let heading = format!("## [{version}]");
    assert!(tree.text("CHANGELOG.md").contains(&heading), "CHANGELOG.md: no section {heading}");
}

#[test]
fn the_licence_is_the_one_that_is_named() {
    let tree = Tree::read();
    let named = manifest::value(tree.text("Cargo.toml"), "license");
    assert_eq!(named.as_deref(), Some("Apache-2.0"), "LICENSE has to be the text of this one");
    assert!(tree.text("LICENSE").contains("Apache License"), "LICENSE: another licence");
}

#[test]
fn documents_name_the_port() {
    let tree = Tree::read();
    let port = constant(tree.text("protocol/limits.rs"), "PORT: u16");
    assert!(tree.text("README.md").contains(&port), "README.md: does not name port {port}");
    let spec = tree.text("protocol/SPEC.md");
    assert!(spec.contains(&format!("port {port}")), "SPEC.md: does not name port {port}");
}

/// What SPEC.md says of defaults in its sentences; its tables are compared by its own test.
#[test]
fn the_spec_names_the_defaults() {
    let tree = Tree::read();
    let (config, spec) = (tree.text("src/core/config.rs"), tree.text("protocol/SPEC.md"));
    let default = |name: &str| {
        let said = config.rsplit(&format!(" {name}: ")).next().unwrap_or_default();
        said.split(',').next().unwrap_or_default().replace('_', "")
    };
    let seconds = |name: &str| {
        let ms: u64 = default(name).parse().unwrap_or_else(|e| panic!("config.rs, {name}: {e}"));
        format!("{} s", ms / 1_000)
    };
    let sentences = [
        format!("{} a second over time", default("sends_per_second")),
        format!("{} at once", default("sends_burst")),
        format!("by default {} an hour", default("channels_per_hour")),
        format!("cable {}", seconds("heartbeat_wired_ms")),
        format!("wireless LAN {}", seconds("heartbeat_wifi_ms")),
        format!("cellular and unknown {}", seconds("heartbeat_cellular_ms")),
        format!("has {} by default", seconds("login_ms_max").replace(" s", " seconds")),
        format!("{} unacknowledged messages", default("window_messages")),
    ];
    let missing = sentences.iter().filter(|sentence| !spec.contains(sentence.as_str()));
    let missing: Vec<String> = missing.map(|s| format!("SPEC.md: should say \"{s}\"")).collect();
    report(&missing, "The defaults are those of Config::default in src/core/config.rs.");
}

#[test]
fn links_lead_somewhere() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for file in tree.files("", ".md") {
        for target in links(&file.text) {
            if !leads_somewhere(&tree, file, target) {
                violations.push(format!("{}: {target}", file.path));
            }
        }
    }
    report(&violations, "A link is relative to its file; an anchor is a heading in small letters.");
}

/// Code and documents cite SPEC.md by section, as in `SPEC.md §4.3`.
#[test]
fn cited_sections_of_the_spec_exist() {
    let tree = Tree::read();
    let spec = tree.text("protocol/SPEC.md");
    let sections: Vec<&str> = spec
        .lines()
        .filter(|line| line.starts_with("##"))
        .filter_map(|line| Some(line.split(' ').nth(1)?.trim_end_matches('.')))
        .collect();
    let mark = ["SPEC.md", " §"].concat(); // not in one piece, or it would cite nothing here
    let mut violations = Vec::new();
    for file in tree.files("", ".rs").chain(tree.files("", ".md")) {
        for cited in file.text.split(&mark).skip(1) {
            let end = cited.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(cited.len());
            let section = cited[..end].trim_end_matches('.');
            if !sections.contains(&section) {
                violations.push(format!("{}: SPEC.md has no §{section}", file.path));
            }
        }
    }
    report(&violations, "Cite the section that says it, or say it there.");
}

/// The value of a constant in Rust source.
fn constant(source: &str, name: &str) -> String {
    let line = source.lines().find(|line| line.contains(&format!("const {name} =")));
    let value = line.and_then(|line| line.split(['=', ';']).nth(1));
    value.unwrap_or_else(|| panic!("no constant {name}")).trim().replace('_', "")
}

/// Targets of Markdown links that lie in this checkout.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let fenced = text.split("```").step_by(2);
    let targets = fenced.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| {
        let end = rest.find(')')?;
        Some(&rest[..end])
    });
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

fn leads_somewhere(tree: &Tree, file: &File, target: &str) -> bool {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    if path.is_empty() {
        return has_heading(&file.text, anchor);
    }
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let Some(path) = inside(&folder.join(path)) else { return false };
    let text = tree.file(&path.to_string_lossy()).map(|file| file.text.as_str());
    tree.has(&path) && (anchor.is_empty() || text.is_some_and(|text| has_heading(text, anchor)))
}

/// The path without `..`; `None` if it leaves the checkout.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if clean.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

fn has_heading(text: &str, anchor: &str) -> bool {
    text.lines().filter(|line| line.starts_with('#')).any(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>() == anchor
    })
}
