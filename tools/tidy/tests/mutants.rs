//! Deliberate defects are for tests: nothing that is shipped may have them.

use tern_tidy::{Tree, report};

/// Manifests that may name the feature: where the defects are, and who asks for them.
const MANIFESTS: [&str; 2] = ["src/core/Cargo.toml", "src/sim/Cargo.toml"];

/// The file that the defects are in.
const DEFECTS: &str = "src/core/mutants.rs";

/// What stands before each item of that file.
const GATE: &str = "#[cfg(feature = \"mutants\")]";

#[test]
fn only_the_simulator_asks_for_deliberate_defects() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for file in tree.files("", "Cargo.toml") {
        let mut section = "";
        for (index, line) in file.text.lines().enumerate() {
            section = if line.starts_with('[') { line } else { section };
            let names = line.split('#').next().is_some_and(|code| code.contains("mutants"));
            let may = match section {
                "[features]" | "[dev-dependencies]" => MANIFESTS.contains(&file.path.as_str()),
                _ => false,
            };
            let is_default = section == "[features]" && line.starts_with("default");
            if (names && !may) || (is_default && MANIFESTS.contains(&file.path.as_str())) {
                violations.push(format!("{}:{}: {line}", file.path, index + 1));
            }
        }
    }
    report(
        &violations,
        "A dependency or a default would put deliberate defects into the server; only tests of \
         the simulator may ask for them.",
    );
}

#[test]
fn without_the_feature_no_defect_exists() {
    let tree = Tree::read();
    let lines: Vec<&str> = tree.text(DEFECTS).lines().collect();
    let is_item = |line: &str| {
        ["use ", "pub ", "pub(crate) fn", "fn ", "static ", "thread_local!"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let is_gated = |index: usize| {
        let above = lines[..index].iter().rev().take_while(|line| line.starts_with('#'));
        above.into_iter().any(|line| *line == GATE)
    };
    let open = (0..lines.len()).filter(|index| is_item(lines[*index]) && !is_gated(*index));
    let violations: Vec<String> =
        open.map(|index| format!("{DEFECTS}:{}: {}", index + 1, lines[index])).collect();
    report(&violations, "Put `#[cfg(feature = \"mutants\")]` before it.");
    assert!(lines.iter().filter(|line| **line == GATE).count() >= 4, "{DEFECTS}: is it the file?");
}
