//! Power cuts: the store and its mailbox on a disk that forgets what was not synced, in whole, in
//! part, or sector by sector. What `apply_mail` returned for is there afterwards; of the batch
//! that was cut short there is all or nothing; a torn end is never taken for content.
//!
//! `TERN_SOAK` multiplies the number of cuts; `TERN_SEED` says which.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redb::{Database, StorageBackend};
use tern_protocol::frames::{Network, message_kind};
use tern_protocol::{
    ChannelId, DeviceId, Epoch, Incarnation, MessageId, SendCounter, SendKey, Uin, UnixMillis,
};
use tern_random::{Stream, seed_from_env, soaked};

use super::{DiskStore, Store};
use crate::machine::{Change, Message, Position, Saved, SavedSend, SendId};
use crate::mailbox::{KeptMessage, Mail, MailLimits, MailQuery};

/// Power cuts, unless `TERN_SOAK` wants more.
const CUTS: u64 = 300;

/// Most calls to the disk between two cuts.
const CALLS_MAX: u64 = 120;

/// What a disk writes as one.
const SECTOR_BYTES: usize = 512;

const ME: (Uin, DeviceId) = (Uin(1), DeviceId(1));
const PEERS: u64 = 3;

/// A file on such a disk; clones are the same file.
#[derive(Clone, Debug, Default)]
struct Platter(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    /// What a read gives.
    seen: Vec<u8>,
    /// What survives, and what may.
    synced: Vec<u8>,
    pending: Vec<Call>,
    /// Calls until the power is gone.
    left: u64,
}

#[derive(Clone, Debug)]
enum Call {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Call {
    fn carry_out(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, written) => bytes[*at..at + written.len()].copy_from_slice(written),
        }
    }

    /// What a power cut leaves of it.
    fn torn(&self, bytes: &mut Vec<u8>, kept_percent: u64, random: &mut Stream) {
        match (self, random.below(2)) {
            _ if random.percent(kept_percent) => self.carry_out(bytes),
            (Self::Write(at, written), 0) => {
                for (index, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                    if random.percent(50) {
                        let at = at + index * SECTOR_BYTES;
                        bytes[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Content {
    fn call(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        Ok(())
    }
}

impl Platter {
    fn on<T>(&self, act: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        act(&mut self.0.lock().unwrap())
    }

    /// Cuts the power. Lengths are the file system's own, which keeps them in order.
    fn cut(&self, random: &mut Stream) -> Self {
        let content = self.0.lock().unwrap();
        let mut bytes = content.synced.clone();
        let longest = content.pending.iter().filter_map(|call| match call {
            Call::Length(length) => Some(*length),
            Call::Write(..) => None,
        });
        bytes.resize(longest.max().unwrap_or(0).max(bytes.len()), 0);
        // Some cuts leave nearly all, some nearly nothing.
        let kept_percent = random.pick(&[0, 50, 95, 100]).expect("there are some");
        for call in content.pending.iter().filter(|call| matches!(call, Call::Write(..))) {
            call.torn(&mut bytes, kept_percent, random);
        }
        let after = Content { seen: bytes.clone(), synced: bytes, ..Content::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// The same, for so many calls to come.
    fn powered_for(self, calls: u64) -> Self {
        self.0.lock().unwrap().left = calls;
        self
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        self.on(|content| Ok(content.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        self.on(|content| {
            let bytes = content.seen.get(at..at + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(Call::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.on(|content| {
            content.call()?;
            let Content { synced, pending, .. } = content;
            pending.drain(..).for_each(|call| call.carry_out(synced));
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Call::Write(offset as usize, data.to_vec()))
    }
}

impl Platter {
    fn note(&self, call: Call) -> io::Result<()> {
        self.on(|content| {
            content.call()?;
            call.carry_out(&mut content.seen);
            content.pending.push(call);
            Ok(())
        })
    }
}

/// Everything that a store holds but its hints.
type Held = (Saved, Vec<Vec<KeptMessage>>);

fn open(platter: Platter) -> Option<DiskStore> {
    let database = Database::builder().create_with_backend(platter).ok()?;
    let store = DiskStore::of(database, ME.0, ME.1).ok()?;
    Some(store.with_mail(MailLimits { messages_max: 150, ..MailLimits::default() }))
}

fn held(store: &mut DiskStore) -> Held {
    let page = |peer: u64| MailQuery { channel: channel(peer), before: None, limit: 1_000 };
    let saved = store.load().unwrap();
    (saved, (2..2 + PEERS).map(|peer| store.mail(&page(peer)).unwrap()).collect())
}

fn channel(peer: u64) -> ChannelId {
    ChannelId::direct(ME.0, Uin(peer))
}

/// What a device does to its store, told by random numbers; no two batches say the same.
struct Life {
    random: Stream,
    ids: [u64; PEERS as usize],
    sends: u64,
    unsettled: Vec<(SendId, u64)>,
}

impl Life {
    fn batch(&mut self) -> (Vec<Change>, Vec<Mail>) {
        let (mut changes, mut mail) = (Vec::new(), Vec::new());
        for _ in 0..=self.random.below(4) {
            let peer = 2 + self.random.below(PEERS);
            match self.random.below(5) {
                0 => changes.push(self.send(peer)),
                1 => mail.extend(self.answer()),
                2 if !self.unsettled.is_empty() => {
                    let index = self.random.index(self.unsettled.len());
                    changes.push(Change::Forget(self.unsettled.remove(index).0));
                }
                3 => changes.push(Change::Read(self.newest(peer))),
                _ => {
                    let message = self.message(peer);
                    changes.push(Change::Cursor(message.position));
                    mail.push(Mail::Received(message));
                }
            }
        }
        (changes, mail)
    }

    fn newest(&self, peer: u64) -> Position {
        let id = MessageId(self.ids[peer as usize - 2]);
        Position { channel: channel(peer), id, incarnation: Incarnation(1) }
    }

    fn key(&self, counter: u64) -> SendKey {
        SendKey { epoch: Epoch(1), counter: SendCounter(counter as u32) }
    }

    fn send(&mut self, peer: u64) -> Change {
        self.sends += 1;
        self.unsettled.push((SendId(self.sends), peer));
        let content = self.random.bytes(1_400);
        Change::Send(SavedSend {
            id: SendId(self.sends),
            tag: self.sends,
            key: Some(self.key(self.sends)),
            refused: None,
            refused_member: 0,
            kind: message_kind::CONTENT,
            channel: channel(peer),
            content_type: 1,
            refers_to: MessageId(0),
            content: content.into(),
        })
    }

    fn answer(&mut self) -> Option<Mail> {
        let (send, peer) = self.random.pick(&self.unsettled)?;
        self.ids[peer as usize - 2] += 1;
        let id = MessageId(self.ids[peer as usize - 2]);
        Some(Mail::Acked { send, id, server_time: UnixMillis(id.0) })
    }

    fn message(&mut self, peer: u64) -> Message {
        self.ids[peer as usize - 2] += 1;
        let position = self.newest(peer);
        let length = self.random.below(1_400) as usize;
        Message {
            position,
            sender: Uin(peer),
            device: DeviceId(1),
            key: self.key(position.id.0),
            server_time: UnixMillis(position.id.0),
            kind: message_kind::CONTENT,
            content_type: 1,
            refers_to: MessageId(0),
            content: Bytes::from(self.random.bytes(length)),
        }
    }
}

/// What became of batches that a cut met.
#[derive(Default, Debug)]
struct Met {
    whole: u64,
    nothing: u64,
    while_opening: u64,
}

#[test]
fn after_a_power_cut_there_is_all_that_was_applied_and_no_half() {
    let seed = seed_from_env(1);
    let mut life =
        Life { random: Stream::of(seed, "life"), ids: [0; 3], sends: 0, unsettled: Vec::new() };
    let mut cuts = Stream::of(seed, "cuts");
    let (mut met, mut batches) = (Met::default(), 0);
    let mut platter = Platter::default();
    // The same store on a disk that never fails.
    let mut model = open(Platter::default().powered_for(u64::MAX)).unwrap();
    for cut in 0..soaked(CUTS) {
        let powered = platter.powered_for(cuts.below(CALLS_MAX));
        let mut meant = None;
        match open(powered.clone()) {
            None => met.while_opening += 1,
            Some(mut store) => {
                while meant.is_none() {
                    if cuts.percent(10) {
                        // May be lost, and must take nothing else along.
                        let _ = store.set_rtt_ms(Network::Wifi, cuts.below(500) as u32);
                    }
                    let (changes, mail) = life.batch();
                    if store.apply_mail(&changes, &mail).is_ok() {
                        batches += 1;
                        model.apply_mail(&changes, &mail).unwrap();
                    } else {
                        meant = Some((changes, mail));
                    }
                }
            }
        }
        platter = powered.cut(&mut cuts).powered_for(u64::MAX);
        let mut after = open(platter.clone()).expect("it opens after a cut");
        let now = held(&mut after);
        if now != held(&mut model) {
            let (changes, mail) = meant.unwrap_or_else(|| panic!("cut {cut}: a batch is lost"));
            model.apply_mail(&changes, &mail).unwrap();
            assert!(held(&mut model) == now, "cut {cut}: more than nothing of a batch, not all");
            met.whole += 1;
        } else if meant.is_some() {
            met.nothing += 1;
        }
    }
    println!("TEST B-03 mailbox seed={seed} n={batches} lost=0 cuts={} {met:?}", soaked(CUTS));
    assert!(met.whole > 0 && met.nothing > 0, "{met:?}: the cuts met nothing");
}
