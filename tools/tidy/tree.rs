//! The files of the checkout.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are made by tools or runs, by name.
const NOT_OURS: [&str; 3] = ["target", ".git", "tern-data"];

/// A text file.
#[derive(Clone, Debug)]
pub struct File {
    /// From the root of the checkout, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// The checkout.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

impl Tree {
    /// Reads every text file of the checkout that this crate belongs to.
    ///
    /// # Panics
    /// If a folder can't be read.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().expect("the crate lies two folders below the root");
        let mut tree = Self { root, files: Vec::new() };
        tree.walk(&tree.root.clone());
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(tree.file("Cargo.toml").is_some(), "{} is no checkout", tree.root.display());
        tree
    }

    /// All files whose path begins with `prefix` and ends with `suffix`.
    pub fn files<'a>(&'a self, prefix: &'a str, suffix: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |f| f.path.starts_with(prefix) && f.path.ends_with(suffix))
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The text of a file that must be there.
    ///
    /// # Panics
    /// If it is not.
    pub fn text(&self, path: &str) -> &str {
        self.file(path).map_or_else(|| panic!("{path} is missing"), |file| &file.text)
    }

    /// Whether something is at this path, from the root, be it a file or a folder.
    pub fn has(&self, path: &Path) -> bool {
        self.root.join(path).exists()
    }

    fn walk(&mut self, folder: &Path) {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry of a folder that is read").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy();
            if NOT_OURS.contains(&&*name) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                self.walk(&path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                self.files.push(File { path: self.name_of(&path), text });
            }
        }
    }

    fn name_of(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).expect("walked from the root");
        inside.to_string_lossy().replace('\\', "/")
    }
}
