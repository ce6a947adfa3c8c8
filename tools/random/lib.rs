//! Random numbers that repeat, for tests, models and load: who has the seed has the run. Nothing
//! that somebody could gain by guessing may come from here.
//!
//! - [`Stream`]: numbers, choices and times from a seed, by SplitMix64; [`mix`] is its finalizer.
//! - [`seed_from_env`] and [`soaked`]: what `TERN_SEED` and `TERN_SOAK` ask of a test.
//!
//! Not here: `mix` of `src/core/placement.rs`, which says what stands where on disk and so belongs
//! to the format; and the client's jitter, since what ships to phones has nothing of ours but the
//! protocol.
#![forbid(unsafe_code)]

mod stream;

mod env;

pub use env::{number_from_env, seed_from_env, soaked};
pub use stream::{Stream, mix};
