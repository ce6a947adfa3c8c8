//! Each application gets each message once, in order, as it stands in the channel.
//!
//! What is allowed: a process that starts again may be given what was shown already, but only
//! behind the cursor that it found on its disk (the window between showing and remembering).

use std::collections::BTreeMap;

use tern_protocol::ChannelId;

use super::{Steps, Verdict, demand};
use crate::oracle::fact::Fact;

/// What each install was given and has shown.
#[derive(Debug, Default)]
pub struct Delivery {
    /// By this process.
    given: BTreeMap<(u32, ChannelId), u64>,
    /// By all processes of the install.
    shown: BTreeMap<(u32, ChannelId), u64>,
    /// The ids that never come, as applications were told.
    steps: Steps,
    shown_count: u64,
}

impl Delivery {
    /// A process of the install starts with these cursors; `restored` if they may be older than
    /// what it had before.
    pub fn started(
        &mut self,
        install: u32,
        cursors: impl Iterator<Item = (ChannelId, u64)>,
        restored: bool,
    ) {
        self.given.retain(|(of, _), _| *of != install);
        if restored {
            self.shown.retain(|(of, _), _| *of != install);
        }
        for (channel, id) in cursors {
            self.given.insert((install, channel), id);
            if restored {
                self.shown.insert((install, channel), id);
            }
        }
    }

    /// The application is told that the channel's history restarted at this id, and forgets what
    /// it has from there on.
    pub fn restarted(&mut self, install: u32, channel: ChannelId, at: u64) {
        let (of, last) = ((install, channel), at.saturating_sub(1));
        self.steps.forget_from(of, at);
        for known in [self.given.get_mut(&of), self.shown.get_mut(&of)].into_iter().flatten() {
            *known = last.min(*known);
        }
    }

    /// The machine gives a message to the application; `stood` is what stood there in the life of
    /// the history that the machine knows.
    pub fn given(&mut self, stood: Option<&Fact>, install: u32, fact: &Fact) -> Verdict {
        let given = self.given.entry((install, fact.channel)).or_default();
        let before = std::mem::replace(given, fact.id);
        demand(fact.id == before + 1, || {
            format!("install {install} is given {fact} after #{before}")
        })?;
        demand(stood == Some(fact), || {
            format!("install {install} is given {fact}, and there stands {stood:?}")
        })
    }

    /// The machine tells the application that these ids never come.
    pub fn stepped(&mut self, install: u32, channel: ChannelId, (from, to): (u64, u64)) -> Verdict {
        self.steps.add((install, channel), (from, to));
        let given = self.given.entry((install, channel)).or_default();
        let before = std::mem::replace(given, to);
        demand(from == before + 1 && from <= to, || {
            format!("install {install} is told to step over #{from} to #{to} after #{before}")
        })
    }

    /// The application shows a message.
    pub fn shown(&mut self, install: u32, channel: ChannelId, id: u64) -> Verdict {
        let before = self.newest_shown(install, channel);
        let shown = self.shown.entry((install, channel)).or_default();
        *shown = before.max(id);
        self.shown_count += 1;
        demand(id <= before + 1, || {
            format!("install {install} shows {channel}#{id}, and never showed #{}", before + 1)
        })
    }

    /// How far an install has shown a channel.
    pub fn newest_shown(&self, install: u32, channel: ChannelId) -> u64 {
        let shown = self.shown.get(&(install, channel)).copied().unwrap_or(0);
        self.steps.past((install, channel), shown)
    }

    /// Messages shown by all, repeats included.
    pub fn shown_count(&self) -> u64 {
        self.shown_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::fact;

    #[test]
    fn repeats_holes_and_changes_are_noticed() {
        let (first, second) = (fact(1, 1), fact(2, 2));
        let mut delivery = Delivery::default();
        assert_eq!(delivery.given(Some(&first), 1, &first), Ok(()));
        assert!(delivery.given(Some(&first), 1, &first).is_err());
        assert!(delivery.given(Some(&second), 2, &second).is_err());
        assert!(delivery.given(Some(&first), 3, &fact(1, 2)).is_err());
        assert!(delivery.given(None, 4, &first).is_err());
    }

    #[test]
    fn what_was_shown_comes_again_only_behind_the_cursor() {
        let first = fact(1, 1);
        let channel = first.channel;
        let mut delivery = Delivery::default();
        assert_eq!(delivery.shown(1, channel, 1), Ok(()));
        delivery.started(1, [(channel, 0)].into_iter(), false);
        assert_eq!(delivery.given(Some(&first), 1, &first), Ok(()));
        assert_eq!(delivery.shown(1, channel, 1), Ok(()));
        delivery.started(1, [(channel, 1)].into_iter(), false);
        assert!(delivery.given(Some(&first), 1, &first).is_err());
        assert!(delivery.shown(1, channel, 3).is_err());
        delivery.restarted(1, channel, 1);
        assert_eq!(delivery.given(Some(&first), 1, &first), Ok(()), "history restarted");
    }
}
