//! A letter between workers: into the ring of a pair of workers and out again. The ring is the one
//! of `src/server/worker/inbox.rs`; the bell that wakes a sleeping worker is not part of it.

use std::hint::black_box;

use crossbeam::queue::ArrayQueue;
use tern_core::io::LinkId;
use tern_core::mail::{Address, Mail, SessionRef};
use tern_core::placement::WorkerId;
use tern_protocol::{ChannelId, Code, Epoch, SendCounter, SendKey, Uin};

use super::Operation;

/// Letters that the ring holds, as between few workers.
const LETTERS: usize = 1_024;

/// A ring, half full of nothing.
pub struct Mailbox {
    ring: ArrayQueue<(Address, Mail)>,
    count: u64,
}

impl Mailbox {
    /// An empty ring.
    pub fn new() -> Self {
        Self { ring: ArrayQueue::new(LETTERS), count: 0 }
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation for Mailbox {
    fn once(&mut self) {
        self.count += 1;
        let letter = Mail::SendRefused {
            to: SessionRef { worker: WorkerId(1), link: LinkId(self.count) },
            channel: ChannelId::direct(Uin(1), Uin(2)),
            key: SendKey { epoch: Epoch(1), counter: SendCounter(1) },
            code: Code::Busy,
            member: 0,
            retry_after_ms: 1,
        };
        let pushed = self.ring.push(black_box((Address::Front(WorkerId(1)), letter)));
        assert!(pushed.is_ok(), "every letter is taken out again");
        black_box(self.ring.pop());
    }
}
