//! Windows and table together against plain sets of keys, with sends that come years late,
//! devices that go, kills, reboots, and numbers at the end of their range (C-07).

use std::collections::{BTreeMap, BTreeSet};

use tern_core::dedup::Verdict;
use tern_protocol::SendKey;

use super::*;

/// Devices in the model: few, so that each lives through everything.
const DEVICES: u64 = 40;

/// Counters that a device's window reaches back.
const WINDOW: u32 = 64;

/// Keys that a device used, in all its epochs.
type Used = BTreeSet<SendKey>;

/// What a window must say, from the set of all keys alone.
fn verdict(used: &Used, key: SendKey) -> Verdict {
    match used.last() {
        Some(newest) if key.epoch < newest.epoch => Verdict::Closed,
        Some(newest)
            if key.epoch == newest.epoch
                && u64::from(key.counter.0) + u64::from(WINDOW) <= u64::from(newest.counter.0) =>
        {
            Verdict::Closed
        }
        _ if used.contains(&key) => Verdict::Seen,
        _ => Verdict::New,
    }
}

/// What an entry must be, from the set of all keys alone.
fn expected(used: &Used, last: Offset) -> DedupEntry {
    let newest = *used.last().expect("a device in the model has sent");
    let reach = 0..WINDOW.min(newest.counter.0);
    let counters = reach.map(|back| newest.counter.0 - back);
    let seen = |counter| used.contains(&SendKey { counter: SendCounter(counter), ..newest });
    let window = counters.enumerate().filter(|(_, c)| seen(*c)).fold(0, |w, (bit, _)| w | 1 << bit);
    DedupEntry { epoch: newest.epoch, newest: newest.counter, window, last }
}

/// What the log says: this is all that a rebuilt table has.
#[derive(Clone, Copy)]
enum Record {
    Sent(u64, SendKey),
    Gone(u64),
}

struct World {
    dir: TempDir,
    table: ShmTable,
    opening: u8,
    boot: u8,
    log: Vec<Record>,
    model: BTreeMap<u64, (Used, Offset)>,
    counts: [u64; 6],
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(MEMORY).unwrap();
        let table = attach_from(&small_supply(dir.path(), 16), 1, END).table;
        let (log, model) = (Vec::new(), BTreeMap::new());
        Self { dir, table, opening: 1, boot: 4, log, model, counts: [0; 6] }
    }

    fn offset(&self) -> Offset {
        Offset((self.log.len() as u64 + 1) * 16)
    }

    /// A device's send, first or repeated, new or years old.
    fn send(&mut self, uin: u64, key: SendKey) {
        let entry = get(&self.table, uin);
        let expected = self.model.get(&uin).map_or(Verdict::New, |(used, _)| verdict(used, key));
        assert_eq!(DedupEntry::judge(entry.as_ref(), key), expected, "{uin} {key}");
        self.counts[expected as usize] += 1;
        if expected == Verdict::New {
            let at = self.offset();
            append(&mut self.table, uin, key, at);
            self.log.push(Record::Sent(uin, key));
            let (used, last) = self.model.entry(uin).or_default();
            used.insert(key);
            *last = at;
            let expected = self::expected(used, at);
            assert_eq!(get(&self.table, uin), Some(expected));
        }
    }

    /// No key of the device can be accepted any more.
    fn evict(&mut self, uin: u64) {
        remove(&mut self.table, uin);
        self.log.push(Record::Gone(uin));
        self.model.remove(&uin);
        self.counts[3] += 1;
    }

    /// The process is killed, or the machine goes down and the table with it.
    fn restart(&mut self, reboot: bool) {
        self.boot += u8::from(reboot);
        self.opening += 1;
        let identity = TableIdentity { boot: [self.boot; 16], ..identity() };
        let mut supply =
            Supply::new(identity, vec![self.dir.path().into()], Mailbox::new().handle());
        supply.slots_first = 16;
        // Attached elsewhere meanwhile, so that the lock is given up.
        let elsewhere = tempfile::tempdir_in(MEMORY).unwrap();
        self.table = attach_from(&small_supply(elsewhere.path(), 16), 1, END).table;
        let attached = attach_from(&Arc::new(supply), self.opening, self.offset());
        self.table = attached.table;
        if attached.rebuilt.is_some() {
            for (number, record) in self.log.iter().enumerate() {
                match *record {
                    Record::Sent(uin, key) => {
                        append(&mut self.table, uin, key, Offset((number as u64 + 1) * 16));
                    }
                    Record::Gone(uin) => remove(&mut self.table, uin),
                }
            }
        }
        assert!(!reboot || attached.rebuilt.is_some());
        self.counts[4 + usize::from(reboot)] += 1;
        self.compare();
    }

    fn compare(&self) {
        assert_eq!(self.table.entries(), self.model.len());
        for uin in 1..=DEVICES {
            let expected = self.model.get(&uin).map(|(used, last)| expected(used, *last));
            assert_eq!(get(&self.table, uin), expected, "{uin}");
        }
    }
}

/// What a shard does with a key that is new.
fn append(table: &mut ShmTable, uin: u64, key: SendKey, at: Offset) {
    let entry = get(table, uin);
    if entry.is_none() {
        table.reserve().unwrap();
    }
    let entry = DedupEntry::accept(entry.as_ref(), key, at);
    table.put(Uin(uin), device(uin), entry, Offset(at.0 + 16));
}

/// A key near to, or far from, what the device has sent; also at the ends of both numbers.
fn draw(random: &mut Stream, newest: Option<SendKey>) -> SendKey {
    let ends = [1, 2, 1 << 31, u32::MAX - 100, u32::MAX - 1, u32::MAX];
    let Some(newest) = newest else {
        let epoch = if random.below(8) == 0 { u32::MAX - 2 } else { 1 + random.below(3) as u32 };
        return SendKey {
            epoch: Epoch(epoch),
            counter: SendCounter(ends[random.below(6) as usize]),
        };
    };
    let near = |random: &mut Stream, n: u32, back: u64, width: u64| {
        let n = (u64::from(n) + random.below(width)).saturating_sub(back);
        n.clamp(1, u64::from(u32::MAX)) as u32
    };
    let epoch = match random.below(16) {
        0 => near(random, newest.epoch.0, 2, 4),
        1 => 1,
        _ => newest.epoch.0,
    };
    let counter = match random.below(12) {
        0 => ends[random.below(6) as usize],
        1 => near(random, newest.counter.0, 1000, 2000),
        2..=4 => near(random, newest.counter.0, 66, 132),
        _ => near(random, newest.counter.0, 1, 4),
    };
    SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) }
}

#[test]
fn agrees_with_sets_of_keys() {
    let (mut random, mut world) = (Stream::new(seed_from_env(SEED)), World::new());
    let steps = soaked(60_000);
    for _ in 0..steps {
        let uin = random.below(DEVICES) + 1;
        match random.below(2_000) {
            // Openings are numbered by a byte here.
            0 if world.opening < u8::MAX - 1 => {
                let reboot = random.below(3) == 0 && world.boot < u8::MAX;
                world.restart(reboot);
            }
            1..30 => world.evict(uin),
            _ => {
                let newest = world.model.get(&uin).and_then(|(used, _)| used.last().copied());
                let key = draw(&mut random, newest);
                world.send(uin, key);
            }
        }
    }
    world.compare();
    let [new, seen, closed, evicted, kills, reboots] = world.counts;
    assert!([new, seen, closed, evicted, kills, reboots].iter().all(|count| *count > 0));
    println!(
        "TEST C-07 n={steps} new={new} seen={seen} closed={closed} evicted={evicted} \
         kills={kills} reboots={reboots} wrong=0"
    );
}

/// Every sequence of these counters, asked about all of them after each: the edges of the
/// window, and of the number.
#[test]
fn every_short_sequence_of_edges_agrees_with_a_set() {
    const EDGES: [u32; 11] =
        [1, 2, 63, 64, 65, 66, 129, u32::MAX - 64, u32::MAX - 63, u32::MAX - 1, u32::MAX];
    let mut sequences = 0_u64;
    let mut stack: Vec<(Vec<u32>, Option<DedupEntry>)> = vec![(Vec::new(), None)];
    while let Some((used, entry)) = stack.pop() {
        sequences += 1;
        let newest = used.iter().max();
        for counter in EDGES {
            let key = SendKey { epoch: Epoch(1), counter: SendCounter(counter) };
            let expected = match newest {
                Some(newest) if u64::from(counter) + 64 <= u64::from(*newest) => Verdict::Closed,
                _ if used.contains(&counter) => Verdict::Seen,
                _ => Verdict::New,
            };
            assert_eq!(
                DedupEntry::judge(entry.as_ref(), key),
                expected,
                "{counter} after {used:?}"
            );
            if expected == Verdict::New {
                let at = Offset(used.len() as u64 + 1);
                let next = DedupEntry::accept(entry.as_ref(), key, at);
                assert_eq!((next.last, next.window & 1), (at, 1));
                stack.push(([&used[..], &[counter]].concat(), Some(next)));
            }
        }
    }
    println!("TEST C-07 window n={sequences} wrong=0");
}

/// Numbers never wrap: behind the last counter of an epoch only a newer epoch is new, and behind
/// the last key of all there is none.
#[test]
fn the_last_keys_there_are() {
    let key = |epoch, counter| SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) };
    let last = DedupEntry::accept(None, key(7, u32::MAX), Offset(8));
    let judge = |entry: &DedupEntry, key| DedupEntry::judge(Some(entry), key);
    for (counter, verdict) in [
        (u32::MAX, Verdict::Seen),
        (u32::MAX - 1, Verdict::New),
        (u32::MAX - 63, Verdict::New),
        (u32::MAX - 64, Verdict::Closed),
        (1, Verdict::Closed),
        (0, Verdict::Closed),
    ] {
        assert_eq!(judge(&last, key(7, counter)), verdict, "{counter}");
    }
    assert_eq!(judge(&last, key(8, 1)), Verdict::New);
    let all = DedupEntry::accept(Some(&last), key(u32::MAX, u32::MAX), Offset(16));
    assert_eq!(all.window, 1);
    let mut random = Stream::new(seed_from_env(SEED));
    for _ in 0..10_000 {
        let key = key(random.draw() as u32, random.draw() as u32);
        let newer = judge(&all, key) == Verdict::New;
        let within = key.epoch.0 == u32::MAX && key.counter.0 > u32::MAX - 64;
        assert!(!newer || within, "{key}");
    }
}
