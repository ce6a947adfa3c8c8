//! The project's rules about its own source, held by `cargo test -p tern-tidy`.
//!
//! What comes in is the checkout itself; what goes out is a list of violations, each with the
//! file, the line and what to do instead. Nothing is compiled or run. The rules are in `tests/`,
//! one function each; here is what they share: [`Tree`] finds files, [`Source`] reads Rust
//! without its comments and strings, [`manifest`] reads Cargo's files.
//!
//! A rule has no exceptions in the text it checks; where one is needed it is a row of a table in
//! the rule, with its reason. A row that is not needed any more is a violation too.
#![forbid(unsafe_code)]

pub mod manifest;
mod source;
mod tree;

pub use source::{Function, Source};
pub use tree::{File, Tree};

/// Fails with all violations at once and what to do about them.
///
/// # Panics
/// If there are any.
pub fn report(violations: &[String], advice: &str) {
    assert!(violations.is_empty(), "\n{}\n\n{advice}\n", violations.join("\n"));
}
