//! The client of Tern.
#![forbid(unsafe_code)]

pub mod hex;
pub mod machine;
pub mod profile;
pub mod store;
