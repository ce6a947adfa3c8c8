//! Whom the device writes with: a client in the test's own process that is never killed, writes
//! all the time, and remembers everything that it hears.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tern_client::machine::{Event, SendOutcome};
use tern_client::profile::Profile;
use tern_client::store::MemoryStore;
use tern_client::{Client, Events, Options};
use tern_protocol::ChannelId;
use tern_protocol::frames::content_type;
use tokio::time::{Instant, sleep_until};

/// A message is written so often, if the server answers as fast.
const PAUSE: Duration = Duration::from_millis(3);

/// Messages without an answer, beyond which none is written.
const OPEN_MAX: u64 = 40;

pub struct Partner {
    client: Client,
    events: Events,
    channel: ChannelId,
    next_write: Instant,
    /// Messages written, and where they stand.
    written: u64,
    pub places: BTreeMap<u64, u64>,
    /// What came, by its place.
    pub came: BTreeMap<u64, String>,
    /// How far the server says that the device has got: consumed, read.
    pub delivered: u64,
    pub read: u64,
}

/// What a message of the partner says.
pub fn text(number: u64) -> String {
    format!("bob {number}")
}

impl Partner {
    pub fn new(profile: &Path, channel: ChannelId) -> Self {
        let whose = Profile::load(profile).unwrap();
        let options = Options::from_profile(&whose, Box::new(MemoryStore::default())).unwrap();
        let (client, events) = Client::connect(options).unwrap();
        Self {
            client,
            events,
            channel,
            next_write: Instant::now(),
            written: 0,
            places: BTreeMap::new(),
            came: BTreeMap::new(),
            delivered: 0,
            read: 0,
        }
    }

    /// Lives for a while, writing.
    pub async fn live_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let wake = end.min(self.next_write);
            tokio::select! {
                event = self.events.next() => self.take(&event.expect("nobody closes it")),
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= self.next_write {
                self.next_write = Instant::now() + PAUSE;
                self.write();
            }
        }
    }

    /// Listens for a while, and writes nothing.
    pub async fn listen_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(end, self.events.next()).await {
            self.take(&event.expect("nobody closes it"));
        }
    }

    /// Messages that it wrote and has no answer for.
    pub fn open(&self) -> u64 {
        self.written - self.places.len() as u64
    }

    /// Messages of the channel that it knows: those that came are its own too, some of them.
    pub fn count(&self) -> usize {
        let ids: BTreeSet<&u64> = self.places.values().chain(self.came.keys()).collect();
        ids.len()
    }

    fn write(&mut self) {
        if self.open() < OPEN_MAX {
            self.written += 1;
            let (number, text) = (self.written, text(self.written));
            self.client.send_nowait(self.channel, content_type::TEXT, text, number).unwrap();
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Message(message) => {
                let text = String::from_utf8(message.content.to_vec()).unwrap();
                let before = self.came.insert(message.position.id.0, text);
                assert_eq!(before, None, "a message comes once: {message:?}");
            }
            Event::Result(result) => {
                let SendOutcome::Acked { id, .. } = result.outcome else { panic!("{result:?}") };
                self.places.insert(result.tag, id.0);
            }
            Event::Receipt(receipt) => {
                self.delivered = self.delivered.max(receipt.delivered.0);
                self.read = self.read.max(receipt.read.0);
            }
            Event::Gap { .. } | Event::HistoryRestarted { .. } => panic!("{event:?}"),
            _ => {}
        }
        self.client.confirm(event);
    }
}
