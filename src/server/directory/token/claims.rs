//! What a signed token claims: for whom it was made, when it is good, and who bears it.
//!
//! Comes in: the claims of a token whose signature is good, and the time. Goes out: the names of
//! a user and a device, or why not. A claim that is there and not of its form is
//! refused, never overlooked.

use serde_json::{Map, Value};
use tern_protocol::UnixMillis;

use super::{Bearer, Refusal, Rules};

/// Milliseconds of a second: claims count seconds.
const SECOND_MS: f64 = 1_000.0;

/// Claims by their names.
pub(super) type Claims = Map<String, Value>;

impl Rules {
    /// Who bears the token, if it was made for this server and is good now.
    pub(super) fn judge(&self, claims: &Claims, now: UnixMillis) -> Result<Bearer, Refusal> {
        if !self.is_from_issuer(claims) {
            return Err(wrong("iss"));
        }
        if !self.is_for_audience(claims) {
            return Err(Refusal::Audience);
        }
        self.check_time(claims, now)?;
        self.bearer(claims)
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

    fn check_time(&self, claims: &Claims, now: UnixMillis) -> Result<(), Refusal> {
        // Exact to the millisecond for the next 285,000 years.
        let (now, skew) = (now.0 as f64 / SECOND_MS, self.skew_seconds as f64);
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or_else(|| wrong("exp"))?;
        if now - skew >= expires {
            return Err(Refusal::Expired);
        }
        match claims.get("nbf").map(Value::as_f64) {
            Some(None) => Err(wrong("nbf")),
            Some(Some(begins)) if now + skew < begins => Err(Refusal::Early),
            _ => Ok(()),
        }
    }

    fn bearer(&self, claims: &Claims) -> Result<Bearer, Refusal> {
        let Self { user_claim, user_prefix, device_claim, .. } = self;
        let text = |claim| claims.get(claim).and_then(text_of).ok_or_else(|| wrong(claim));
        let name = format!("{user_prefix}{}", text(user_claim)?);
        Ok(Bearer {
            name: name.parse().map_err(|_| wrong(user_claim))?,
            label: text(device_claim)?.parse().map_err(|_| wrong(device_claim))?,
        })
    }
}

fn wrong(claim: &str) -> Refusal {
    Refusal::Claim(claim.to_owned())
}

/// A claim as text; a whole number from 0 as its digits.
fn text_of(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        _ => None,
    }
}
