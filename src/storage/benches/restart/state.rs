//! What the state of a shard weighs in memory, by kind: how much larger the process is with it.

use tern_core::Recovery;
use tern_core::log::Offset;
use tern_core::memory::MemoryTable;
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::state::{ChannelRow, DeviceRow, EntryRow, StateKind};
use tern_protocol::{ChannelId, Uin};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Rows of each kind: so many that the steps in which maps grow show in no figure by more than
/// half.
const ROWS: u64 = 1_000_000;

/// Messages of each channel: one with 7 bits set.
const NEWEST: u64 = 0b111_1111;

type State = Recovery<MemoryTable>;

pub(crate) fn weigh() {
    println!("memory at rest, difference of the resident set, {ROWS} of each:");
    one("channel of 127 messages", channel);
    one("user with one channel", |state, n| entry(state, n, 1));
    one("user with one device", |state, n| device(state, n, 1));
    one("further device of a user, 4 of each", |state, n| device(state, n / 4, n % 4));
    one("further channel of a user, 16 of each", |state, n| entry(state, n / 16, n % 16));
}

fn one(what: &str, put: fn(&mut State, u64)) {
    let before = resident();
    let (placement, table) = (Placement::new(1, 1), MemoryTable::default());
    let mut state = Recovery::new(ShardId(0), placement, table, Offset::NONE);
    (0..ROWS).for_each(|number| put(&mut state, number));
    println!("  {what}: {} bytes", resident().saturating_sub(before) / ROWS);
    // What is given back here would hide what the next one takes.
    std::mem::forget(state);
}

fn channel(state: &mut State, number: u64) {
    let bits = NEWEST.count_ones();
    let row = ChannelRow {
        channel: ChannelId::direct(Uin(number + 1), Uin(number + 2)),
        newest: NEWEST.into(),
        oldest: 1.into(),
        restarted_at: u64::MAX.into(),
        links: bits.into(),
        newest_s: 0.into(),
    };
    let spine: Vec<U64> = (1..=u64::from(bits)).map(|at| U64::new(at * 64)).collect();
    put(state, StateKind::Channel, &[row.as_bytes(), spine.as_bytes()].concat());
}

fn entry(state: &mut State, user: u64, other: u64) {
    let channel = ChannelId::direct(Uin(user + 1), Uin(user + other + 1));
    let row = EntryRow { uin: (user + 1).into(), channel };
    put(state, StateKind::Entry, row.as_bytes());
}

fn device(state: &mut State, user: u64, device: u64) {
    let row = DeviceRow {
        uin: (user + 1).into(),
        device: (device as u32 + 1).into(),
        epoch: 1.into(),
        logins: [0.into(); 4],
    };
    put(state, StateKind::Device, row.as_bytes());
}

fn put(state: &mut State, kind: StateKind, row: &[u8]) {
    state.restore(Offset(1 << 40), kind, row).expect("it is a row of this kind");
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
