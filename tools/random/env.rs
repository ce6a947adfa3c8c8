//! What a run is asked for by the environment: which seed, and how much of everything.

/// The seed in `TERN_SEED`, or `otherwise`. Tests print it, so that a failure can be run again.
///
/// # Panics
/// If the variable is no whole number.
pub fn seed_from_env(otherwise: u64) -> u64 {
    number_from_env("TERN_SEED", otherwise)
}

/// `count`, times the factor in `TERN_SOAK` if that is set.
///
/// # Panics
/// If the variable is no whole number.
pub fn soaked(count: u64) -> u64 {
    count.saturating_mul(number_from_env("TERN_SOAK", 1))
}

/// The number in a variable of the environment, or `otherwise` where it is not set.
///
/// # Panics
/// If it is set to something else than a whole number.
pub fn number_from_env(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("{name}={text}: set it to a whole number"))
        }
        Err(_) => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_as_usual() {
        assert_eq!(number_from_env("TERN_NOBODY_SETS_THIS", 7), 7);
    }

    #[test]
    #[should_panic(expected = "set it to a whole number")]
    fn what_is_no_number_is_said() {
        number_from_env("CARGO_PKG_NAME", 7);
    }
}
