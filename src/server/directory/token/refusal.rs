//! Why a token is not taken: for the operator in words, for the client as a code.

use std::fmt;

use tern_protocol::Code;
use tern_protocol::limits::TOKEN_BYTES_MAX;

/// Why a token is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It has more bytes than a token may have.
    TooLong,
    /// It has not the form of a JSON Web Token, or an algorithm that no key here is for.
    Form,
    /// Its header names what must be understood, and nothing is.
    Critical,
    /// No key has the id that it names.
    UnknownKey(String),
    /// No key has signed it by the algorithm of its header.
    Signature,
    /// A claim is missing, or not of its form, or not what it must be.
    Claim(String),
    /// It was made for others.
    Audience,
    /// It is no longer good.
    Expired,
    /// It is not good yet.
    Early,
}

impl Refusal {
    /// What the client is told.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLong
            | Self::Form
            | Self::Critical
            | Self::Signature
            | Self::Claim(_)
            | Self::Audience => Code::TokenInvalid,
            Self::UnknownKey(_) => Code::TokenKeyUnknown,
            Self::Expired => Code::TokenExpired,
            Self::Early => Code::TokenEarly,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it has more than {TOKEN_BYTES_MAX} bytes"),
            Self::Form => f.write_str(
                "it is no JSON Web Token in compact form, or by an algorithm that is not known",
            ),
            Self::Critical => f.write_str("its header has `crit`, and nothing of that is known"),
            Self::UnknownKey(id) => write!(f, "there is no key with the `kid` {id:?}"),
            Self::Signature => {
                f.write_str("its signature is by none of the keys for the algorithm of its header")
            }
            Self::Claim(claim) => {
                write!(f, "the claim {claim:?} is missing, or not as the options ask for it")
            }
            Self::Audience => f.write_str(
                "the claim \"aud\" is not the option token-audience, or is there without one",
            ),
            Self::Expired => f.write_str("it has expired, by the claim \"exp\""),
            Self::Early => f.write_str("it is not good yet, by the claim \"nbf\""),
        }
    }
}
