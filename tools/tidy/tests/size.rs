//! Files and functions stay small enough to be read at once.

use tern_tidy::{Source, Tree, manifest, report};

/// Lines of a file, tests inside it included. Most have 100 to 450.
const FILE_LINES_MAX: usize = 600;

/// Lines of a function: a screenful. Most have 5 to 25.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer: file, name, why.
const LONG_FUNCTIONS: [(&str, &str, &str); 0] = [];

#[test]
fn no_file_gathers() {
    let tree = Tree::read();
    let long: Vec<String> = tree
        .files("", ".rs")
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines, {FILE_LINES_MAX} at most", file.path))
        .collect();
    report(&long, "Split the file along the nouns in it; leave a table of contents behind.");
}

#[test]
fn no_function_fills_more_than_a_screen() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for file in tree.files("", ".rs") {
        for function in Source::new(&file.text).functions() {
            let (name, line, lines) = (&function.name, function.line, function.lines);
            if lines > FUNCTION_LINES_MAX && !may_be_long(&file.path, name) {
                violations.push(format!("{}:{line}: {name} has {lines} lines", file.path));
            }
        }
    }
    let advice = format!(
        "{FUNCTION_LINES_MAX} lines at most: keep the decisions, name a step that is pure and has \
         a noun or verb of its own, or add a row to LONG_FUNCTIONS with the reason."
    );
    report(&violations, &advice);
}

#[test]
fn no_file_is_forgotten() {
    let tree = Tree::read();
    let mut violations = Vec::new();
    for member in manifest::members(&tree) {
        let folder = format!("{}/", member.folder);
        let code: String = tree
            .files(&folder, ".rs")
            .map(|file| Source::new(&file.text).code().to_string())
            .collect();
        for file in tree.files(&folder, ".rs") {
            let inside = &file.path[folder.len()..];
            if let Some(module) = module_name(inside)
                && !code.contains(&format!("mod {module};"))
            {
                violations.push(format!("{}: no `mod {module};` leads to it", file.path));
            }
        }
    }
    report(&violations, "Name the file in its parent, or delete it: nobody compiles it.");
}

/// The module that a file of a package is; `None` for one that cargo finds by itself.
fn module_name(inside: &str) -> Option<&str> {
    let (folder, file) = inside.rsplit_once('/').unwrap_or(("", inside));
    match (folder, file) {
        ("", "lib.rs" | "main.rs" | "build.rs") | ("tests" | "examples" | "benches", _) => None,
        (_, "main.rs") => None,
        (_, "mod.rs") => folder.rsplit('/').next(),
        (_, file) => file.strip_suffix(".rs"),
    }
}

fn may_be_long(path: &str, name: &str) -> bool {
    LONG_FUNCTIONS.iter().any(|(file, function, _)| *file == path && *function == name)
}
