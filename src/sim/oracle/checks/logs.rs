//! All devices of a user end with the same log: at each place the message as it stands in the
//! channel, edits and recalls among them, or a word why it never comes.

use std::collections::BTreeMap;

use tern_core::mail::Device;
use tern_protocol::{ChannelId, Code};

use super::Verdict;
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// What an application has at one place of a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    /// This message.
    Shown(Fact),
    /// Nothing, for this reason.
    Gone(Code),
}

type Log = BTreeMap<u64, Entry>;

/// The logs of all applications.
#[derive(Debug, Default)]
pub struct Logs {
    logs: BTreeMap<(u32, ChannelId), Log>,
    /// What applications were given and have not shown.
    given: BTreeMap<(u32, ChannelId), BTreeMap<u64, Fact>>,
    /// What stands in the backups of phones.
    backups: BTreeMap<u32, BTreeMap<ChannelId, Log>>,
}

impl Logs {
    /// The phone's disk is kept as a backup.
    pub fn backed_up(&mut self, install: u32) {
        let own = self.logs.iter().filter(|((of, _), _)| *of == install);
        let kept = own.map(|((_, channel), log)| (*channel, log.clone())).collect();
        self.backups.insert(install, kept);
    }

    /// The phone's disk is what its backup was.
    pub fn restored(&mut self, install: u32) {
        self.logs.retain(|(of, _), _| *of != install);
        let kept = self.backups.remove(&install).unwrap_or_default();
        self.logs.extend(kept.into_iter().map(|(channel, log)| ((install, channel), log)));
    }

    /// A process starts with these cursors. If `restored`, the log goes no further than they do.
    pub fn started(&mut self, install: u32, cursors: &[(ChannelId, u64)], restored: bool) {
        self.given.retain(|(of, _), _| *of != install);
        if !restored {
            return;
        }
        let cursors: BTreeMap<ChannelId, u64> = cursors.iter().copied().collect();
        for ((of, channel), log) in &mut self.logs {
            if *of == install {
                let kept = cursors.get(channel).copied().unwrap_or(0);
                log.retain(|id, _| *id <= kept);
            }
        }
    }

    /// A phone's disk is copied to another phone.
    pub fn copied(&mut self, from: u32, to: u32) {
        let own = self.logs.iter().filter(|((of, _), _)| *of == from);
        let copies: Vec<_> = own.map(|((_, at), log)| ((to, *at), log.clone())).collect();
        self.logs.extend(copies);
    }

    /// An application is given a message.
    pub fn given(&mut self, install: u32, fact: Fact) {
        self.given.entry((install, fact.channel)).or_default().insert(fact.id, fact);
    }

    /// It shows it.
    pub fn shown(&mut self, install: u32, channel: ChannelId, id: u64) {
        let given = self.given.get_mut(&(install, channel));
        if let Some(fact) = given.and_then(|given| given.remove(&id)) {
            self.logs.entry((install, channel)).or_default().insert(id, Entry::Shown(fact));
        }
    }

    /// It is told that these ids never come.
    pub fn stepped(&mut self, install: u32, channel: ChannelId, range: (u64, u64), code: Code) {
        let log = self.logs.entry((install, channel)).or_default();
        for id in range.0..=range.1 {
            let is_shown = matches!(log.get(&id), Some(Entry::Shown(_)));
            if !is_shown || code == Code::Recalled {
                log.insert(id, Entry::Gone(code));
            }
        }
    }

    /// The history begins anew with this id.
    pub fn restarted(&mut self, install: u32, channel: ChannelId, at: u64) {
        if let Some(log) = self.logs.get_mut(&(install, channel)) {
            log.split_off(&at);
        }
        if let Some(given) = self.given.get_mut(&(install, channel)) {
            given.split_off(&at);
        }
    }

    /// Messages that an application shows, newest last, each with its place and sender: what its
    /// user can speak of.
    pub fn contents(&self, install: u32) -> Vec<(ChannelId, u64, Device)> {
        let own = self.logs.iter().filter(|((of, _), _)| *of == install);
        let entries = own.flat_map(|((_, channel), log)| log.iter().map(|entry| (*channel, entry)));
        let of = |(channel, (id, entry)): (ChannelId, (&u64, &Entry))| match entry {
            Entry::Shown(fact) => Some((channel, *id, fact.sender)),
            Entry::Gone(_) => None,
        };
        entries.filter_map(of).collect()
    }

    /// What an application of this install has of these ids is what it must have.
    ///
    /// # Errors
    /// Says what is missing, other, or still in sight.
    pub fn is_whole(
        &self,
        truth: &Truth,
        install: u32,
        (channel, first, last): (ChannelId, u64, u64),
    ) -> Verdict {
        let nothing = Log::new();
        let log = self.logs.get(&(install, channel)).unwrap_or(&nothing);
        for id in first..=last {
            let stands = truth.get(channel, id).map(|(fact, _)| fact);
            match log.get(&id) {
                None => return Err(format!("install {install} has nothing at {channel}#{id}")),
                Some(Entry::Shown(fact)) if stands != Some(fact) => {
                    return Err(format!("install {install} has {fact}, and there is {stands:?}"));
                }
                Some(_) => {} // the reason of a gap was judged when it was told
            }
        }
        Ok(())
    }

    /// Two devices of a user have the same: what both show is the same message. Tells how many
    /// places both have.
    ///
    /// # Errors
    /// Says what differs.
    pub fn are_same(&self, first: u32, second: u32, channel: ChannelId) -> Result<u64, String> {
        let nothing = Log::new();
        let of = |install| self.logs.get(&(install, channel)).unwrap_or(&nothing);
        let (one, other) = (of(first), of(second));
        let mut compared = 0;
        for (id, entry) in one {
            let Some(twin) = other.get(id) else { continue };
            compared += 1;
            let same = match (entry, twin) {
                (Entry::Shown(one), Entry::Shown(other)) => one == other,
                _ => true, // the reason of a gap was judged when it was told
            };
            if !same {
                return Err(format!(
                    "installs {first} and {second} differ at {channel}#{id}: {entry:?}, {twin:?}"
                ));
            }
        }
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};

    fn has(logs: &mut Logs, install: u32, fact: &Fact) {
        logs.given(install, fact.clone());
        logs.shown(install, fact.channel, fact.id);
    }

    #[test]
    fn what_is_missing_or_other_is_noticed() {
        let (first, second) = (fact(1, 1), fact(2, 2));
        let (truth, channel) = (truth(&[first.clone(), second.clone()]), first.channel);
        let mut logs = Logs::default();
        has(&mut logs, 1, &first);
        assert!(logs.is_whole(&truth, 1, (channel, 1, 2)).is_err());
        has(&mut logs, 1, &Fact { content: b"other".to_vec(), ..second.clone() });
        assert!(logs.is_whole(&truth, 1, (channel, 1, 2)).is_err());
        has(&mut logs, 2, &second);
        assert!(logs.are_same(1, 2, channel).is_err());
        has(&mut logs, 1, &second);
        logs.stepped(2, channel, (1, 1), Code::Expired);
        assert_eq!(logs.is_whole(&truth, 1, (channel, 1, 2)), Ok(()));
        assert_eq!(logs.is_whole(&truth, 2, (channel, 1, 2)), Ok(()));
        assert_eq!(logs.are_same(1, 2, channel), Ok(2));
        logs.restarted(1, channel, 2);
        assert!(logs.is_whole(&truth, 1, (channel, 1, 2)).is_err());
    }

    #[test]
    fn a_restored_phone_has_what_its_backup_had() {
        let (first, second) = (fact(1, 1), fact(2, 2));
        let (truth, channel) = (truth(&[first.clone(), second.clone()]), first.channel);
        let mut logs = Logs::default();
        has(&mut logs, 1, &first);
        logs.backed_up(1);
        has(&mut logs, 1, &second);
        logs.restarted(1, channel, 1);
        logs.restored(1);
        assert_eq!(logs.is_whole(&truth, 1, (channel, 1, 1)), Ok(()));
        assert!(logs.is_whole(&truth, 1, (channel, 1, 2)).is_err());
    }
}
