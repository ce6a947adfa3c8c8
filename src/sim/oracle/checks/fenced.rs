//! A session that was taken over by a later login of its device falls silent.

use std::collections::BTreeMap;

use tern_core::mail::Device;
use tern_protocol::Epoch;

use super::{Verdict, demand};

/// How long after the later login was answered the session before it may still say something, in
/// ms: the word of it may have to wait for a worker that stands still, and then for its turn.
const SILENT_AFTER_MS: u64 = 60_000;

/// The newest session of each device, and those before it that still have a connection.
#[derive(Debug, Default)]
pub struct Fenced {
    newest: BTreeMap<Device, (Epoch, u64)>,
    over: BTreeMap<u64, u64>,
}

impl Fenced {
    /// A login is answered on this connection. Answers can overtake each other, so the epoch
    /// decides which one is later; resumes of one session don't tell.
    pub fn logged_in(&mut self, device: Device, epoch: Epoch, link: u64, now: u64) {
        let newest = self.newest.entry(device).or_insert((epoch, link));
        let (before, was) = *newest;
        if epoch >= before {
            *newest = (epoch, link);
        }
        if epoch != before {
            let (older, _) = if epoch > before { (was, link) } else { (link, was) };
            self.over.entry(older).or_insert(now);
        }
    }

    /// The server says something on this connection.
    pub fn said(&self, link: u64, now: u64) -> Verdict {
        let since = self.over.get(&link).copied();
        demand(since.is_none_or(|since| now - since <= SILENT_AFTER_MS), || {
            format!("connection {link} is served, and its device has a later login since {since:?}")
        })
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.over.remove(&link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::SENDER;

    #[test]
    fn a_session_that_lives_on_is_noticed() {
        let mut fenced = Fenced::default();
        fenced.logged_in(SENDER, Epoch(1), 7, 0);
        fenced.logged_in(SENDER, Epoch(2), 9, 100);
        assert_eq!(fenced.said(7, 100 + SILENT_AFTER_MS), Ok(()));
        assert!(fenced.said(7, 101 + SILENT_AFTER_MS).is_err());
        assert_eq!(fenced.said(9, 10 * SILENT_AFTER_MS), Ok(()));
        fenced.logged_in(SENDER, Epoch(2), 11, 200);
        assert_eq!(fenced.said(9, 10 * SILENT_AFTER_MS), Ok(()), "resumed elsewhere, or late");
    }
}
