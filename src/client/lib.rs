//! The client of Tern.
#![forbid(unsafe_code)]

pub mod hex;
pub mod profile;

pub mod machine;

pub mod store;

mod driver;

pub use driver::{
    Client, Closed, ConnectError, Events, NotTaken, Options, Problem, Trust, certificate_pin,
};
