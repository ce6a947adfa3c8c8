//! The client of Tern.

pub mod hex;
pub mod profile;
