//! Who is blocked says nothing more to who blocks: what was appended was allowed to, what is
//! refused deserves it, and answers tell what is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tern_core::mail::Device;
use tern_protocol::frames::message_kind;
use tern_protocol::{ChannelId, Uin};

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::sends::Asked;
use crate::oracle::truth::{Place, Truth};

/// A change of a block, and where it is written.
type Change = (bool, Place);

/// The questions and wishes about blocks that are under way.
#[derive(Debug, Default)]
pub struct Blocks {
    /// By connection: the wish that the server has, and how often it was changed before.
    wishes: BTreeMap<u64, usize>,
    /// By install: how often each block of its user was changed when it asked for all of them;
    /// `None` if the logs lost something since, for the answer may be of before.
    pages: BTreeMap<u32, VecDeque<Option<BTreeMap<Uin, usize>>>>,
    /// Installs of which a process was told since it started.
    told: BTreeSet<u32>,
}

/// Whether a block is, or was at some moment since it was changed so often.
fn was(changes: &[Change], since: usize, begun: bool, is_durable: impl Fn(Place) -> bool) -> bool {
    let before = since.checked_sub(1).and_then(|index| changes.get(index));
    let is = |(begins, place): &Change| *begins == begun && is_durable(*place);
    before.map_or(!begun && since == 0, is) || changes.iter().skip(since).any(is)
}

/// A message is appended: its sender is not blocked, or only takes something away.
pub fn not_blocked(truth: &Truth, fact: &Fact) -> Verdict {
    let sender = fact.sender.uin;
    let peer = fact.channel.peer_of(sender).filter(|_| fact.kind != message_kind::RECALL);
    let newest = peer.and_then(|peer| truth.blocks(peer, sender).last());
    let is_blocked = newest.is_some_and(|(begins, _)| *begins);
    demand(!is_blocked, || format!("{fact} is appended, and its sender is blocked"))
}

/// How often the block that this send may meet was changed.
pub fn changes_before(truth: &Truth, sender: Uin, channel: ChannelId) -> usize {
    channel.peer_of(sender).map_or(0, |peer| truth.blocks(peer, sender).len())
}

/// A send is refused as if there were no such user: since it was asked for he blocked its sender.
pub fn deserved(
    truth: &Truth,
    (device, asked): (Device, &Asked),
    is_durable: impl Fn(Place) -> bool,
) -> Verdict {
    let peer = asked.channel.peer_of(device.uin);
    let changes = peer.map(|peer| truth.blocks(peer, device.uin)).unwrap_or_default();
    let is_so =
        asked.kind != message_kind::RECALL && was(changes, asked.blocks_since, true, is_durable);
    demand(is_so, || {
        let (since, label) = (asked.blocks_since, asked.label);
        format!(
            "{label} of {device:?} to {} is refused for a block: {changes:?} since {since}",
            asked.channel
        )
    })
}

impl Blocks {
    /// The server has a wish of this user.
    pub fn wished(&mut self, truth: &Truth, link: u64, (blocker, blocked): (Uin, Uin)) {
        self.wishes.insert(link, truth.blocks(blocker, blocked).len());
    }

    /// The server says that it is done.
    pub fn done(
        &mut self,
        truth: &Truth,
        link: u64,
        (blocker, blocked, begins): (Uin, Uin, bool),
        is_durable: impl Fn(Place) -> bool,
    ) -> Verdict {
        let changes = truth.blocks(blocker, blocked);
        let since = self.wishes.remove(&link);
        let is_so = since.is_some_and(|since| was(changes, since, begins, is_durable));
        demand(is_so, || {
            format!("{blocker} hears that {blocked} is blocked: {begins}, and {changes:?}")
        })
    }

    /// An application asks whom its user has blocked.
    pub fn page_asked(&mut self, truth: &Truth, install: u32, uin: Uin) {
        let ever = truth.ever_blocked(uin);
        let since = ever.map(|other| (other, truth.blocks(uin, other).len())).collect();
        self.pages.entry(install).or_default().push_back(Some(since));
    }

    /// Whether an install waits for that.
    pub fn asks_page(&self, install: u32) -> bool {
        self.pages.get(&install).is_some_and(|asked| !asked.is_empty())
    }

    /// Whether a process of it was told.
    pub fn knows(&self, install: u32) -> bool {
        self.told.contains(&install)
    }

    /// It is told.
    pub fn page_told(&mut self, truth: &Truth, install: u32, uin: Uin, page: &[Uin]) -> Verdict {
        let answered = self.answered(install);
        self.told.insert(install);
        let Some(since) = answered else { return Ok(()) };
        let told: BTreeSet<Uin> = page.iter().copied().collect();
        let ever: BTreeSet<Uin> = truth.ever_blocked(uin).chain(told.iter().copied()).collect();
        let wrong = ever.into_iter().find(|other| {
            let since = since.get(other).copied().unwrap_or(0);
            !was(truth.blocks(uin, *other), since, told.contains(other), |_| true)
        });
        demand(wrong.is_none(), || {
            let changes = wrong.map(|other| (other, truth.blocks(uin, other)));
            format!("{uin} is told that it blocks {page:?}, and it is {changes:?}")
        })
    }

    /// It is told nothing.
    pub fn page_refused(&mut self, install: u32) {
        self.answered(install);
    }

    fn answered(&mut self, install: u32) -> Option<BTreeMap<Uin, usize>> {
        let asked = self.pages.get_mut(&install).and_then(VecDeque::pop_front);
        asked.unwrap_or_else(|| Some(BTreeMap::new()))
    }

    /// A process of an install starts.
    pub fn process_starts(&mut self, install: u32) {
        self.pages.remove(&install);
        self.told.remove(&install);
    }

    /// Logs end where they do now: what was not durable is gone.
    pub fn clamp(&mut self) {
        self.wishes.clear();
        self.told.clear();
        self.pages.values_mut().flatten().for_each(|since| *since = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{SENDER, fact};
    use tern_core::placement::ShardId;

    const AT: Place = (ShardId(0), 0);

    #[test]
    fn a_block_counts_from_its_change_to_the_next() {
        let changes = [(true, AT), (false, AT)];
        let durable = |_| true;
        assert!(was(&changes, 0, true, durable) && was(&changes, 1, true, durable));
        assert!(!was(&changes, 2, true, durable) && was(&changes, 2, false, durable));
        assert!(was(&[], 0, false, durable) && !was(&[], 0, true, durable));
        assert!(!was(&changes, 1, true, |_| false), "nothing was durable");
    }

    #[test]
    fn an_answer_and_a_page_without_a_record_are_noticed() {
        let (truth, mut blocks) = (Truth::default(), Blocks::default());
        blocks.wished(&truth, 7, (Uin(2), SENDER.uin));
        assert!(blocks.done(&truth, 7, (Uin(2), SENDER.uin, true), |_| true).is_err());
        blocks.page_asked(&truth, 1, Uin(2));
        assert!(blocks.asks_page(1) && !blocks.knows(1));
        assert!(blocks.page_told(&truth, 1, Uin(2), &[SENDER.uin]).is_err());
        assert_eq!(blocks.page_told(&truth, 1, Uin(2), &[]), Ok(()));
        assert_eq!(not_blocked(&truth, &fact(1, 1)), Ok(()));
    }
}
