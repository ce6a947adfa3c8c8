//! 32 bytes as 64 hex digits, as secrets and pins stand in profiles and options.

use std::fmt::Write;

/// Bytes of a secret and of a SHA-256.
const BYTES: usize = 32;

/// The text is not 64 hex digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HexError {
    characters: usize,
}

impl std::fmt::Display for HexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { characters } = self;
        write!(f, "64 hex digits are needed, not these {characters} characters")
    }
}

impl std::error::Error for HexError {}

/// Reads 64 hex digits of either case; colons between pairs, as other tools print digests, are
/// stepped over.
///
/// # Errors
/// When it is anything else.
pub fn decode(text: &str) -> Result<[u8; BYTES], HexError> {
    let wrong = HexError { characters: text.chars().count() };
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Vec<u8> = digits
        .filter(|digits| digits.len() == 2 * BYTES)
        .map(|digits| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        .ok_or_else(|| wrong.clone())?;
    bytes.try_into().map_err(|_| wrong)
}

/// Writes bytes as lower-case hex digits.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let bytes: [u8; BYTES] = std::array::from_fn(|i| (i * 9) as u8);
        assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        assert_eq!(decode(&encode(&bytes).to_uppercase()), Ok(bytes));
        let colons = encode(&bytes)
            .as_bytes()
            .chunks(2)
            .map(|p| format!("{}{}:", p[0] as char, p[1] as char))
            .collect::<String>();
        assert_eq!(decode(colons.trim_end_matches(':')), Ok(bytes));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32), &"é".repeat(32)]
        {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
