//! Cargo's files, read as far as the rules need: sections of lines.

use crate::Tree;

/// A package of the workspace.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its folder, from the root.
    pub folder: String,
    /// The names of everything it depends on, also for its tests and for building it.
    pub dependencies: Vec<String>,
}

/// A package in Cargo.lock.
#[derive(Clone, Debug, Default)]
pub struct Locked {
    /// Its name.
    pub name: String,
    /// Its version, as written.
    pub version: String,
    /// What it depends on: the name, and the version where there are several.
    pub dependencies: Vec<String>,
}

/// The packages of the workspace.
///
/// # Panics
/// If the root manifest lists a folder without a manifest.
pub fn members(tree: &Tree) -> Vec<Member> {
    listed(tree, "members")
}

/// The packages that stand outside of the workspace, with lock files of their own. A folder of one
/// may lie within a member's, and is no part of it.
///
/// # Panics
/// If the root manifest lists a folder without a manifest.
pub fn outsiders(tree: &Tree) -> Vec<Member> {
    listed(tree, "exclude")
}

fn listed(tree: &Tree, list: &str) -> Vec<Member> {
    let root = tree.text("Cargo.toml");
    let found =
        root.split_once(&format!("\n{list} = [")).and_then(|(_, rest)| rest.split_once(']'));
    let (found, _) = found.unwrap_or_else(|| panic!("the root manifest has no list of {list}"));
    let folders = found.split(',').map(|item| item.trim().trim_matches('"'));
    folders.filter(|folder| !folder.is_empty()).map(|folder| member(tree, folder)).collect()
}

fn member(tree: &Tree, folder: &str) -> Member {
    let text = tree.text(&format!("{folder}/Cargo.toml"));
    let name = value(text, "name").expect("a package has a name");
    let sections = text.split("\n[").filter_map(|section| section.split_once(']'));
    let lists = sections.filter(|(title, _)| title.ends_with("dependencies"));
    let keys = lists.flat_map(|(_, lines)| lines.lines()).filter_map(key);
    Member { name, folder: folder.to_string(), dependencies: keys.collect() }
}

/// The name before `=` or `.` on a line of a table.
pub fn key(line: &str) -> Option<String> {
    let line = line.trim();
    let end = line.find(['.', '=', ' '])?;
    let name = &line[..end];
    (!name.is_empty() && !line.starts_with(['#', '['])).then(|| name.to_string())
}

/// The string that a key has in a manifest, wherever it first stands.
pub fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.split(['=', ' ']).next() == Some(key))?;
    line.split('"').nth(1).map(str::to_string)
}

/// The packages of Cargo.lock.
pub fn locked(tree: &Tree) -> Vec<Locked> {
    tree.text("Cargo.lock").split("\n[[package]]").skip(1).map(one_locked).collect()
}

fn one_locked(section: &str) -> Locked {
    let list = section.split_once("dependencies = [").map_or("", |(_, rest)| rest);
    let names = list.lines().filter_map(|line| line.trim().strip_prefix('"'));
    Locked {
        name: value(section, "name").expect("a locked package has a name"),
        version: value(section, "version").expect("a locked package has a version"),
        dependencies: names.map(|name| name.trim_end_matches(['"', ',']).to_string()).collect(),
    }
}

/// A version's three numbers, and whether it is a release.
///
/// # Panics
/// If it has no three numbers.
pub fn numbers(version: &str) -> ([u64; 3], bool) {
    let (version, _) = version.split_once('+').unwrap_or((version, ""));
    let (release, pre) = version.split_once('-').unwrap_or((version, ""));
    let parts: Vec<u64> = release.split('.').filter_map(|part| part.parse().ok()).collect();
    let parts = parts.try_into().unwrap_or_else(|_| panic!("{version} is no version"));
    (parts, pre.is_empty())
}
