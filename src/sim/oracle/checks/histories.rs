//! Looking back: a page speaks of just the ids that were asked for, each once and in order, as far
//! as there are any; what it says of each is judged by the rules of pushes and gaps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tern_protocol::frames::HistoryPage;
use tern_protocol::history::{Entry, split_entry};
use tern_protocol::limits::HISTORY_IDS_MAX;
use tern_protocol::{ChannelId, Code};

use super::{Verdict, demand};
use crate::oracle::fact::Fact;

/// What a page says of some ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// This message stands there.
    Message(Fact),
    /// These ids can't be read, and why.
    Gap {
        /// First id.
        from: u64,
        /// Last id.
        to: u64,
        /// Why.
        code: Code,
    },
}

/// A question: channel, below which id (0: from the newest), how many ids.
pub type Question = (ChannelId, u64, u32);

/// The questions that are under way.
#[derive(Debug, Default)]
pub struct Histories {
    /// By connection: what the server was asked last.
    by_link: BTreeMap<u64, Question>,
    /// By install: what its application asked, oldest first, and how many messages there were in
    /// all, if the world was at rest.
    by_install: BTreeMap<u32, VecDeque<(Question, Option<usize>)>>,
    /// Whose application was told the newest of a channel, when nothing moved any more.
    told: BTreeSet<(u32, ChannelId)>,
}

impl Histories {
    /// A question reaches the server.
    pub fn arrives(&mut self, link: u64, question: Question) {
        self.by_link.insert(link, question);
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.by_link.remove(&link);
    }

    /// An application asks; of a world at rest with so many messages.
    pub fn ask(&mut self, install: u32, question: Question, at_rest: Option<usize>) {
        self.by_install.entry(install).or_default().push_back((question, at_rest));
    }

    /// Whether an application waits for an answer.
    pub fn is_asking(&self, install: u32) -> bool {
        self.by_install.get(&install).is_some_and(|asked| !asked.is_empty())
    }

    /// Whether it was told the newest of this channel at rest.
    pub fn knows(&self, install: u32, channel: ChannelId) -> bool {
        self.told.contains(&(install, channel))
    }

    /// It gets an answer, in a world with so many messages: to what, and whether nothing moved
    /// meanwhile.
    pub fn answered(&mut self, install: u32, messages: usize) -> Option<(Question, bool)> {
        let (question, at_rest) = self.by_install.get_mut(&install)?.pop_front()?;
        let is_exact = at_rest == Some(messages);
        if is_exact {
            self.told.insert((install, question.0));
        }
        Some((question, is_exact))
    }

    /// A process of an install starts: nothing is asked any more.
    pub fn process_starts(&mut self, install: u32) {
        self.by_install.remove(&install);
        self.told.retain(|(of, _)| *of != install);
    }

    /// A page leaves the server: it is of the shape that the question asks for.
    ///
    /// # Errors
    /// When it was not asked for, or speaks of other ids.
    pub fn page(
        &mut self,
        link: u64,
        head: &HistoryPage,
        entries: &[u8],
        is_last: bool,
    ) -> Result<Vec<Part>, String> {
        let asked = self.by_link.remove(&link);
        let (channel, before, limit) = asked.ok_or_else(|| format!("nobody asked for {head:?}"))?;
        let wrong = || format!("{head:?} answers before {before}, {limit} of {channel}");
        demand((head.channel, head.before.get()) == (channel, before), wrong)?;
        let (oldest, newest) = (head.oldest.get(), head.newest.get());
        let to = if before == 0 { newest } else { newest.min(before - 1) };
        let most = u64::from(limit.min(HISTORY_IDS_MAX));
        let count = most.min((to + 1).saturating_sub(oldest));
        let ids = (head.from.get(), head.to.get());
        demand(ids == (to + 1 - count, to) && is_last == (ids.0 <= oldest), wrong)?;
        demand(oldest > 0 && (oldest == 1) == (head.code.get() == 0), wrong)?;
        parts(ids, entries)
    }
}

/// What the entries of a page say of its ids.
fn parts((from, to): (u64, u64), mut entries: &[u8]) -> Result<Vec<Part>, String> {
    let (mut next, mut parts) = (from, Vec::new());
    while !entries.is_empty() {
        let split = split_entry(entries).ok_or_else(|| format!("no entry at #{next}"))?;
        let part = match split.0 {
            Entry::Message(head, content) => Part::Message(Fact::from_parts(head, content)),
            Entry::Gap { ids, code } => {
                Part::Gap { from: next, to: next + u64::from(ids) - 1, code }
            }
        };
        next = match &part {
            Part::Message(_) => next + 1,
            Part::Gap { to, .. } => to + 1,
        };
        let is_there = |fact: &Fact| fact.id + 1 == next;
        let in_order = !matches!(&part, Part::Message(fact) if !is_there(fact));
        demand(in_order, || format!("{part:?} stands below #{next}"))?;
        parts.push(part);
        entries = split.1;
    }
    demand(next == to + 1, || format!("entries to #{next} exclusive, of a page to #{to}"))?;
    Ok(parts)
}

/// An application that has been shown some of what it may read of a channel is told that it is not
/// its own.
pub fn refused(code: Code, is_its_own: bool) -> Verdict {
    let is_so = code == Code::NotGranted && !is_its_own;
    demand(is_so, || format!("an application that has messages of a channel is told {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::fact;
    use tern_protocol::frames::HistoryEntry;
    use zerocopy::IntoBytes;

    /// A page of lost messages.
    fn page((oldest, newest): (u64, u64), (from, to): (u64, u64)) -> (HistoryPage, Vec<u8>) {
        let head = HistoryPage {
            channel: fact(1, 1).channel,
            before: 0.into(),
            from: from.into(),
            to: to.into(),
            oldest: oldest.into(),
            newest: newest.into(),
            incarnation: 1.into(),
            code: if oldest == 1 { 0 } else { Code::Expired.0 }.into(),
            reserved: 0.into(),
        };
        let ids = ((to + 1 - from) as u32).into(); // fits: a test's few
        let entry = HistoryEntry { ids, bytes: 0.into(), code: Code::Lost.0.into() };
        (head, entry.as_bytes().to_vec())
    }

    #[test]
    fn a_page_of_other_ids_than_were_asked_for_is_noticed() {
        let judge = |(head, entries): (HistoryPage, Vec<u8>), is_last| {
            let mut histories = Histories::default();
            histories.arrives(7, (fact(1, 1).channel, 0, 4));
            histories.page(7, &head, &entries, is_last)
        };
        let all = vec![Part::Gap { from: 6, to: 9, code: Code::Lost }];
        assert_eq!(judge(page((1, 9), (6, 9)), false), Ok(all));
        assert!(judge(page((1, 9), (7, 9)), false).is_err(), "one too few");
        assert!(judge(page((1, 9), (5, 9)), false).is_err(), "one too many");
        assert!(judge(page((1, 9), (5, 8)), false).is_err(), "not the newest");
        assert!(judge(page((1, 9), (6, 9)), true).is_err(), "there is more");
        assert!(judge(page((8, 9), (8, 9)), true).is_ok());
        let (head, _) = page((8, 9), (8, 9));
        let (_, short) = page((8, 9), (9, 9));
        assert!(judge((head, short), true).is_err(), "an id of which nothing is said");
        let (head, entries) = page((1, 9), (6, 9));
        assert!(Histories::default().page(7, &head, &entries, false).is_err(), "unasked");
    }

    #[test]
    fn an_answer_is_exact_if_nothing_moved_since_the_question() {
        let (mut histories, channel) = (Histories::default(), fact(1, 1).channel);
        histories.ask(1, (channel, 0, 4), None);
        histories.ask(1, (channel, 0, 4), Some(3));
        assert_eq!(histories.answered(1, 3), Some(((channel, 0, 4), false)));
        assert!(histories.is_asking(1) && !histories.knows(1, channel));
        assert_eq!(histories.answered(1, 3), Some(((channel, 0, 4), true)));
        assert!(!histories.is_asking(1) && histories.knows(1, channel));
        assert!(refused(Code::NotGranted, true).is_err());
    }
}
