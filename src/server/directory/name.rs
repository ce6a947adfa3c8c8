//! Names of users and labels of devices: both become parts of a profile's file name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most characters of a name or label.
const CHARS_MAX: usize = 64;

/// Most bytes of a name or label: `NAME.LABEL.toml` with a process number behind it stays below
/// the 255 bytes that file systems allow.
const BYTES_MAX: usize = 110;

const _: () = assert!(2 * BYTES_MAX + ".".len() + ".toml.".len() + "4194304".len() <= 255);

/// What is wrong with a name or label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameError {
    /// It is empty.
    Empty,
    /// It is longer than allowed.
    TooLong {
        /// Its characters.
        chars: usize,
        /// Its bytes in UTF-8.
        bytes: usize,
    },
    /// It has a character that it may not have.
    Character(char),
    /// It starts with a dot: its file would be hidden.
    LeadingDot,
    /// It starts or ends with a space.
    OuterSpace,
    /// A user's name of digits only: it would be taken for a uin.
    Number,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { chars, bytes } => write!(
                f,
                "it has {chars} characters in {bytes} bytes; at most {CHARS_MAX} characters and \
                 {BYTES_MAX} bytes are allowed"
            ),
            Self::Character(character) => write!(
                f,
                "it has the character {character:?}; slashes and control characters are not \
                 allowed"
            ),
            Self::LeadingDot => f.write_str("it starts with a dot"),
            Self::OuterSpace => f.write_str("it starts or ends with a space"),
            Self::Number => f.write_str("it is a number, and would be taken for a uin"),
        }
    }
}

impl std::error::Error for NameError {}

/// A user's name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// What a user calls a device.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

macro_rules! checked {
    ($($type:ident $check:ident;)*) => {$(
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(checked: $type) -> Self {
                checked.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

checked! {
    Name check_name;
    Label check;
}

fn check_name(text: &str) -> Result<(), NameError> {
    check(text)?;
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Err(NameError::Number),
        false => Ok(()),
    }
}

fn check(text: &str) -> Result<(), NameError> {
    let chars = text.chars().count();
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if text.is_empty() {
        Err(NameError::Empty)
    } else if chars > CHARS_MAX || text.len() > BYTES_MAX {
        Err(NameError::TooLong { chars, bytes: text.len() })
    } else if let Some(character) = text.chars().find(|&c| forbidden(c)) {
        Err(NameError::Character(character))
    } else if text.starts_with('.') {
        Err(NameError::LeadingDot)
    } else if text.trim() != text {
        Err(NameError::OuterSpace)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_wrong_with_them() {
        let name = |text: &str| text.parse::<Name>().map(|_| ());
        for good in ["ann", "Ann Lee", "安", "a.b", "7of9", &"a".repeat(64)] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        assert_eq!(name(""), Err(NameError::Empty));
        assert_eq!(name(&"a".repeat(65)), Err(NameError::TooLong { chars: 65, bytes: 65 }));
        assert_eq!(name(&"安".repeat(40)), Err(NameError::TooLong { chars: 40, bytes: 120 }));
        assert_eq!(name("a/b"), Err(NameError::Character('/')));
        assert_eq!(name("a\\b"), Err(NameError::Character('\\')));
        assert_eq!(name("a\nb"), Err(NameError::Character('\n')));
        assert_eq!(name("../etc"), Err(NameError::Character('/')));
        assert_eq!(name(".hidden"), Err(NameError::LeadingDot));
        assert_eq!(name("ann "), Err(NameError::OuterSpace));
        assert_eq!(name("10001"), Err(NameError::Number));
        assert!("2".parse::<Label>().is_ok(), "a label may be a number");
    }
}
