//! A device's messages stand in a channel in the order in which it sent them.

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// A message is appended: keys of a device rise within a channel, and, unless its store was ever
/// `copied`, so do the calls of its application.
pub fn in_order(truth: &Truth, fact: &Fact, copied: bool) -> Verdict {
    let newest = truth.newest_key(fact.channel, fact.sender);
    demand(newest.is_none_or(|newest| newest < fact.key), || {
        format!("{fact} is appended after key {newest:?} of its device")
    })?;
    let Some(label) = fact.label.filter(|_| !copied) else { return Ok(()) };
    let newest = truth.newest_serial(fact.channel, label.install);
    demand(newest.is_none_or(|newest| newest < label.serial), || {
        format!("{fact} is appended after call {newest:?} of its application")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};

    #[test]
    fn a_message_that_overtook_another_is_noticed() {
        let truth = truth(&[fact(1, 2)]);
        assert!(in_order(&truth, &fact(2, 1), false).is_err());
        assert_eq!(in_order(&truth, &fact(2, 3), false), Ok(()));
        let late = Fact { label: fact(1, 1).label, ..fact(2, 3) };
        assert!(in_order(&truth, &late, false).is_err());
        assert_eq!(in_order(&truth, &late, true), Ok(()));
    }
}
