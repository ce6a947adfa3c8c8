//! What became of each message, by its tag: the same account for every system.

use std::time::Duration;

use tern_bench::report::Figure;

/// One message.
#[derive(Clone, Copy, Debug)]
struct Entry {
    due: Duration,
    from: usize,
    acks: u8,
    receipts: u8,
}

/// All messages of a run; a tag is a place in the list.
#[derive(Default, Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
    /// Of each sender, the newest tag that was received.
    newest: Vec<Option<u64>>,
    acked: u64,
    received: u64,
    doubled: u64,
    reordered: u64,
}

/// What is said of a message that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receipt {
    /// For the first time; when it had been due.
    First(Duration),
    /// Once more.
    Again,
}

impl Ledger {
    /// For this many senders.
    pub fn new(senders: usize) -> Self {
        Self { newest: vec![None; senders], ..Self::default() }
    }

    /// A message is sent; its tag.
    pub fn send(&mut self, from: usize, due: Duration) -> u64 {
        self.entries.push(Entry { due, from, acks: 0, receipts: 0 });
        self.entries.len() as u64 - 1
    }

    /// A message is acked; when it had been due, if this is the first ack.
    pub fn ack(&mut self, tag: u64) -> Option<Duration> {
        let entry = self.entries.get_mut(tag as usize)?;
        entry.acks = entry.acks.saturating_add(1);
        self.acked += u64::from(entry.acks == 1);
        (entry.acks == 1).then_some(entry.due)
    }

    /// A message has come; `None` if it was never sent.
    pub fn receive(&mut self, tag: u64) -> Option<Receipt> {
        let entry = self.entries.get_mut(tag as usize)?;
        entry.receipts = entry.receipts.saturating_add(1);
        if entry.receipts > 1 {
            self.doubled += 1;
            return Some(Receipt::Again);
        }
        self.received += 1;
        let newest = &mut self.newest[entry.from];
        self.reordered += u64::from(newest.is_some_and(|newest| newest > tag));
        *newest = (*newest).max(Some(tag));
        Some(Receipt::First(entry.due))
    }

    /// Messages that were sent.
    pub fn sent(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether every message is acked and received.
    pub fn is_settled(&self) -> bool {
        self.acked == self.sent() && self.received == self.sent()
    }

    /// Messages that were acked and never came: the promise broken.
    pub fn lost(&self) -> u64 {
        let is_lost = |entry: &&Entry| entry.acks > 0 && entry.receipts == 0;
        self.entries.iter().filter(is_lost).count() as u64
    }

    /// The account.
    pub fn figures(&self) -> Vec<Figure> {
        let unanswered = self.sent() - self.acked;
        let counts = [
            ("sent", self.sent()),
            ("acked", self.acked),
            ("received", self.received),
            ("acked and lost", self.lost()),
            ("doubled", self.doubled),
            ("out of order", self.reordered),
            ("never answered", unanswered),
        ];
        counts.map(|(name, count)| Figure::new("ledger", name, "", count as f64)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(ledger: &Ledger, name: &str) -> f64 {
        let figures = ledger.figures();
        figures.iter().find(|figure| figure.name == name).expect("it is told").value
    }

    #[test]
    fn every_fate_is_counted() {
        let mut ledger = Ledger::new(2);
        let tags: Vec<u64> = (0..5).map(|s| ledger.send(0, Duration::from_secs(s))).collect();
        assert_eq!(ledger.ack(tags[0]), Some(Duration::ZERO));
        assert_eq!(ledger.ack(tags[0]), None, "the second ack is none");
        assert_eq!(ledger.ack(99), None);
        ledger.ack(tags[1]);
        assert_eq!(ledger.receive(tags[2]), Some(Receipt::First(Duration::from_secs(2))));
        assert_eq!(ledger.receive(tags[0]), Some(Receipt::First(Duration::ZERO)));
        assert_eq!(ledger.receive(tags[2]), Some(Receipt::Again));
        assert_eq!(ledger.receive(99), None);
        assert!(!ledger.is_settled());
        let expected = [
            ("sent", 5.0),
            ("acked", 2.0),
            ("received", 2.0),
            ("acked and lost", 1.0),
            ("doubled", 1.0),
            ("out of order", 1.0),
            ("never answered", 3.0),
        ];
        for (name, value) in expected {
            assert_eq!(count(&ledger, name), value, "{name}");
        }
    }
}
