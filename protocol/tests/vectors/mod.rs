//! The golden vectors in `testdata/`: hex with a comment for each field.

use std::fs;
use std::path::PathBuf;

use tern_protocol::Kind;

/// Where the vectors are.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The bytes of a vector by its name: the label of its kind in small letters.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; each kind has a vector", path.display()));
    text.lines().flat_map(|line| without_comment(line).split_whitespace()).map(byte).collect()
}

/// The vectors of all kinds in the table, the one of an unknown kind, and that of a SEND whose
/// content is a change.
pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
    let known = Kind::ALL.iter().map(|row| row.label.to_lowercase());
    known
        .chain(["unknown", "change"].map(String::from))
        .map(|name| (name.clone(), bytes(&name)))
        .collect()
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

fn byte(digits: &str) -> u8 {
    assert_eq!(digits.len(), 2, "a byte is two digits, not {digits:?}");
    u8::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{digits:?}: {error}"))
}
