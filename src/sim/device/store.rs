//! A client's disk: batches of changes become durable in order, later; a crash keeps some of
//! those that were under way and loses the rest.

use std::collections::{BTreeMap, VecDeque};

use tern_client::history::Newcomer;
use tern_client::machine::{Change, Position, Saved, SavedSend, SendId, Ticket};
use tern_protocol::frames::Network;
use tern_protocol::{ChannelId, Incarnation, MessageId};

use crate::mutant::Mutant;
use crate::random::Stream;

/// Batches that the defect "store lies" keeps in memory after it called them stored.
const LIED_ABOUT: usize = 3;

/// What one install keeps.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    sends: BTreeMap<SendId, SavedSend>,
    cursors: BTreeMap<ChannelId, (MessageId, Incarnation)>,
    reads: BTreeMap<ChannelId, (MessageId, Incarnation)>,
    intervals: BTreeMap<u8, u32>,
    newcomer: Newcomer,
    /// It was told to store that all channels were shown, and has.
    is_settled: bool,
    /// Batches under way, oldest first.
    pending: VecDeque<(Ticket, Vec<Change>)>,
    /// Batches that were called stored and are not: only under a defect.
    lied: VecDeque<Vec<Change>>,
    /// When the newest batch will be done: they are done in order.
    busy_until: u64,
}

impl SimStore {
    /// Takes a batch that would be done at `done`; returns when it really is.
    pub fn keep(&mut self, ticket: Ticket, changes: Vec<Change>, done: u64) -> u64 {
        self.pending.push_back((ticket, changes));
        self.busy_until = self.busy_until.max(done);
        self.busy_until
    }

    /// The oldest batch is done.
    pub fn finish(&mut self, mutant: Option<Mutant>) -> Option<Ticket> {
        let (ticket, changes) = self.pending.pop_front()?;
        if mutant == Some(Mutant::StoreLies) {
            self.lied.push_back(changes);
            if self.lied.len() > LIED_ABOUT
                && let Some(changes) = self.lied.pop_front()
            {
                self.apply(&changes, mutant);
            }
        } else {
            self.apply(&changes, mutant);
        }
        Some(ticket)
    }

    /// The process dies: of what was under way the oldest batches may have been done.
    pub fn crash(&mut self, stream: &mut Stream, mutant: Option<Mutant>) {
        let done = stream.between(0, self.pending.len() as u64);
        for (_, changes) in std::mem::take(&mut self.pending).into_iter().take(done as usize) {
            self.apply(&changes, mutant);
        }
        self.lied.clear();
        self.busy_until = 0;
    }

    /// What the next process finds.
    pub fn load(&self) -> Saved {
        let positions = |table: &BTreeMap<ChannelId, (MessageId, Incarnation)>| {
            let rows = table.iter();
            rows.map(|(&channel, &(id, incarnation))| Position { channel, id, incarnation })
                .collect()
        };
        let intervals = self.intervals.iter();
        Saved {
            sends: self.sends.values().cloned().collect(),
            cursors: positions(&self.cursors),
            reads: positions(&self.reads),
            intervals: intervals.map(|(network, ms)| (Network::from_wire(*network), *ms)).collect(),
            newcomer: self.newcomer,
        }
    }

    /// A copy of the disk as it is, without what is under way.
    pub fn copy(&self) -> Self {
        let (sends, cursors) = (self.sends.clone(), self.cursors.clone());
        let (reads, newcomer, is_settled) = (self.reads.clone(), self.newcomer, self.is_settled);
        Self { sends, cursors, reads, newcomer, is_settled, ..Self::default() }
    }

    /// The cursors on the disk.
    pub fn cursors(&self) -> impl Iterator<Item = (ChannelId, u64)> + '_ {
        self.cursors.iter().map(|(channel, (id, _))| (*channel, id.0))
    }

    /// One of them.
    pub fn cursor(&self, channel: ChannelId) -> u64 {
        self.cursors.get(&channel).map_or(0, |(id, _)| id.0)
    }

    /// How far a channel is read, by what is on the disk.
    pub fn read(&self, channel: ChannelId) -> u64 {
        self.reads.get(&channel).map_or(0, |(id, _)| id.0)
    }

    /// How far it is with the channels that its user had before it, by what is on the disk.
    pub fn newcomer(&self) -> Newcomer {
        self.newcomer
    }

    /// Whether it has stored that all of them were shown.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The marks of the sends on the disk.
    pub fn tags(&self) -> impl Iterator<Item = u64> + '_ {
        self.sends.values().map(|send| send.tag)
    }

    fn apply(&mut self, changes: &[Change], mutant: Option<Mutant>) {
        for change in changes {
            match change {
                Change::Send(send) => {
                    let mut send = send.clone();
                    if mutant == Some(Mutant::KeyNotStored) {
                        send.key = None;
                    }
                    self.sends.insert(send.id, send);
                }
                Change::Forget(send) => {
                    self.sends.remove(send);
                }
                Change::Cursor(_) if mutant == Some(Mutant::CursorLost) => {}
                Change::Cursor(at) => {
                    self.cursors.insert(at.channel, (at.id, at.incarnation));
                }
                Change::Read(at) => {
                    self.reads.insert(at.channel, (at.id, at.incarnation));
                }
                Change::Newcomer(newcomer) => {
                    self.is_settled = *newcomer == Newcomer::Settled;
                    if !self.is_settled || mutant != Some(Mutant::SettledLost) {
                        self.newcomer = *newcomer;
                    }
                }
                Change::Interval { network, ms } => {
                    self.intervals.insert(network.to_wire(), *ms);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Uin;

    #[test]
    fn a_crash_keeps_the_oldest_of_what_was_under_way() {
        let channel = ChannelId::direct(Uin(1), Uin(2));
        let cursor = |id| {
            vec![Change::Cursor(Position {
                channel,
                id: MessageId(id),
                incarnation: Incarnation(1),
            })]
        };
        let mut stream = Stream::of(1, "store");
        let mut seen = [false; 4];
        for _ in 0..100 {
            let mut store = SimStore::default();
            assert_eq!(store.keep(Ticket(1), cursor(1), 9), 9);
            assert_eq!(store.keep(Ticket(2), cursor(2), 5), 9, "in order");
            assert_eq!(store.keep(Ticket(3), cursor(3), 12), 12);
            assert_eq!(store.finish(None), Some(Ticket(1)));
            store.crash(&mut stream, None);
            seen[store.cursor(channel) as usize] = true;
        }
        assert_eq!(seen, [false, true, true, true]);
    }
}
