//! What a signed token claims: for whom it was made, when it is good, and who bears it.
//!
//! Comes in: the claims of a token whose signature is good, and the time. Goes out: the names of
//! a user and a device, or the code of refusal. A claim that is there and not of its form is
//! refused, never overlooked.

use serde_json::{Map, Value};
use tern_protocol::{Code, UnixMillis};

use super::{Bearer, Rules};

/// Milliseconds of a second: claims count seconds.
const SECOND_MS: f64 = 1_000.0;

/// Claims by their names.
pub(super) type Claims = Map<String, Value>;

impl Rules {
    /// Who bears the token, if it was made for this server and is good now.
    pub(super) fn judge(&self, claims: &Claims, now: UnixMillis) -> Result<Bearer, Code> {
        if !self.is_from_issuer(claims) || !self.is_for_audience(claims) {
            return Err(Code::TokenInvalid);
        }
        self.check_time(claims, now)?;
        self.bearer(claims).ok_or(Code::TokenInvalid)
    }

    fn is_from_issuer(&self, claims: &Claims) -> bool {
        let issuer = self.issuer.as_deref();
        issuer.is_none_or(|issuer| claims.get("iss").and_then(Value::as_str) == Some(issuer))
    }

    /// A token for somebody else's ears is not ours, also if we have no name of our own.
    fn is_for_audience(&self, claims: &Claims) -> bool {
        match (&self.audience, claims.get("aud")) {
            (None, audience) => audience.is_none(),
            (Some(own), Some(Value::String(audience))) => audience == own,
            (Some(own), Some(Value::Array(list))) => {
                list.iter().any(|audience| audience.as_str() == Some(own))
            }
            (Some(_), _) => false,
        }
    }

    fn check_time(&self, claims: &Claims, now: UnixMillis) -> Result<(), Code> {
        // Exact to the millisecond for the next 285,000 years.
        let (now, skew) = (now.0 as f64 / SECOND_MS, self.skew_seconds as f64);
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or(Code::TokenInvalid)?;
        if now - skew >= expires {
            return Err(Code::TokenExpired);
        }
        match claims.get("nbf").map(Value::as_f64) {
            Some(None) => Err(Code::TokenInvalid),
            Some(Some(begins)) if now + skew < begins => Err(Code::TokenEarly),
            _ => Ok(()),
        }
    }

    fn bearer(&self, claims: &Claims) -> Option<Bearer> {
        let text = |claim: &str| text_of(claims.get(claim)?);
        let name = format!("{}{}", self.user_prefix, text(&self.user_claim)?);
        let label = text(&self.device_claim)?;
        Some(Bearer { name: name.parse().ok()?, label: label.parse().ok()? })
    }
}

/// A claim as text; a whole number as its digits.
fn text_of(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}
