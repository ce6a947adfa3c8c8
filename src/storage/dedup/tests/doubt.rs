//! What makes a table be thrown away, and that what is taken over is right (C-04).

use std::collections::BTreeMap;

use tern_core::dedup::DedupEntry;

use super::super::slot::SLOT_BYTES;
use super::*;

/// Bytes before the first slot.
const HEADER: usize = 4096;

/// Devices in the table that is damaged, whose last record is at 8 times their number.
const DEVICES: u64 = 11;

/// Its slots.
const SLOTS: usize = 16;

const END_OF_ALL: Offset = Offset(DEVICES * 8 + 8);

/// A table with some entries, left by a process that was killed.
fn left() -> TempDir {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let mut table = attach_from(&small_supply(dir.path(), SLOTS), 1, END).table;
    (1..=DEVICES).for_each(|uin| {
        put(&mut table, uin, uin * 8);
    });
    dir
}

/// Attaches to these bytes as a table. If it is taken over, it holds what was put, and goes on
/// as a table should; otherwise it is empty.
fn judge(dir: &TempDir, path: &Path, bytes: &[u8]) -> Option<&'static str> {
    std::fs::write(path, bytes).unwrap();
    let Attached { mut table, applied, rebuilt } =
        attach_from(&small_supply(dir.path(), SLOTS), 2, END_OF_ALL);
    if rebuilt.is_some() {
        assert_eq!((table.entries(), applied), (0, Offset::NONE));
        assert!((1..=DEVICES).all(|uin| get(&table, uin).is_none()));
        return rebuilt;
    }
    assert_eq!((table.entries() as u64, applied), (DEVICES, END_OF_ALL));
    let mut model: BTreeMap<u64, DedupEntry> = (1..=DEVICES).map(|u| (u, entry(u * 8))).collect();
    let mut same = |table: &ShmTable, uin: u64, now: Option<DedupEntry>| {
        match now {
            Some(entry) => model.insert(uin, entry),
            None => model.remove(&uin),
        };
        let found = (1..30).filter_map(|uin| Some((uin, get(table, uin)?))).collect();
        assert_eq!(model, found);
    };
    for uin in 1..=DEVICES {
        remove(&mut table, uin);
        same(&table, uin, None);
        let put = put(&mut table, uin + 12, (uin + 12) * 8);
        same(&table, uin + 12, Some(put));
    }
    None
}

#[test]
fn every_doubt_throws_it_away() {
    let [before, now] = [opening(1), opening(2)];
    let of = |identity, life, openings, end| {
        let dir = left();
        let supply = supply_of(identity, &[dir.path()]);
        let _quiet = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        let attached = ShmTable::attach(&supply, life, openings, end).unwrap();
        if attached.rebuilt.is_some() {
            assert_eq!((attached.table.entries(), attached.applied), (0, Offset(0)));
            assert_eq!(get(&attached.table, 1), None);
        }
        attached.rebuilt
    };
    let (ours, end) = (identity(), END_OF_ALL);
    assert_eq!(of(ours, LIFE, [before, now], end), None);
    let wrong = "it is of another log, incarnation, boot or layout";
    let cases = [
        (TableIdentity { boot: [5; 16], ..ours }, LIFE, before, end, wrong),
        (ours, Incarnation(2), before, end, wrong),
        (ours, LIFE, opening(9), end, wrong),
        (ours, LIFE, before, Offset(end.0 - 8), "it knows more than the log"),
        (TableIdentity { folder: [5; 16], ..ours }, LIFE, before, end, "there was none"),
        (TableIdentity { shard: 3, ..ours }, LIFE, before, end, "there was none"),
    ];
    for (identity, life, opening, end, why) in cases {
        assert_eq!(of(identity, life, [opening, now], end), Some(why));
    }
    // Under the right name, and of another folder all the same.
    let (dir, other) = (left(), TableIdentity { folder: [5; 16], ..ours });
    let other = supply_of(other, &[dir.path()]);
    std::fs::rename(only_file(&dir), dir.path().join(other.name())).unwrap();
    assert_eq!(attach_from(&other, 2, end).rebuilt, Some(wrong));
}

#[test]
fn an_unknown_boot_is_never_the_same() {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let supply = supply_of(TableIdentity { boot: [0; 16], ..identity() }, &[dir.path()]);
    for number in 1..3 {
        assert!(attach_from(&supply, number, END).rebuilt.is_some());
    }
}

/// Other layouts, under a header that is whole: only the word in question differs.
#[test]
fn another_layout_is_never_read() {
    let dir = left();
    let path = only_file(&dir);
    let whole = std::fs::read(&path).unwrap();
    let mut words: Vec<u64> =
        whole.chunks(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap())).collect();
    let (kept, mut cases) = (words.clone(), 0);
    for (word, value) in [
        (0, u64::from_be_bytes(*b"TERNDEDV")),
        (1, kept[1] - (1 << 32)),
        (1, kept[1] + (1 << 32)),
        (1, kept[1] + 1),
        (2, kept[2] + 1),
        (3, kept[3] + 1),
        (4, kept[4] + 1),
        (5, kept[5] + 1),
        (6, kept[6] + 1),
        (7, kept[7] * 2),
        (8, kept[8] + 1),
        (9, kept[9] + 1),
    ] {
        words.copy_from_slice(&kept);
        words[word] = value;
        let crc =
            words[..10].iter().fold(0, |crc, word| crc32c::crc32c_append(crc, &word.to_le_bytes()));
        words[10] = u64::from(crc);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let wrong = "it is of another log, incarnation, boot or layout";
        assert_eq!(judge(&dir, &path, &bytes), Some(wrong), "word {word}");
        cases += 1;
    }
    let other_order: Vec<u8> =
        kept.iter().flat_map(|word| word.swap_bytes().to_ne_bytes()).collect();
    assert!(judge(&dir, &path, &other_order).is_some());
    assert_eq!(judge(&dir, &path, &whole), None, "nothing else was wrong");
    println!("TEST C-04 layouts n={} reinterpreted=0", cases + 1);
}

/// Bytes of the header that mean something.
const MEANT: usize = 16 * 8;

/// Every bit of what means something, one at a time; of the rest of the header's page some, or all
/// where `TERN_SOAK` is set.
#[test]
fn a_flipped_bit_throws_it_away_or_does_no_harm() {
    let dir = left();
    let path = only_file(&dir);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), HEADER + SLOTS * SLOT_BYTES);
    let step = if soaked(1) > 1 { 1 } else { 101 };
    let rest = (MEANT * 8..HEADER * 8).step_by(step);
    let bits: Vec<usize> = (0..MEANT * 8).chain(rest).chain(HEADER * 8..whole.len() * 8).collect();
    let (mut harmless, mut bytes) = (0, whole.clone());
    for bit in &bits {
        let at = bit / 8;
        bytes[at] ^= 1 << (bit % 8);
        if judge(&dir, &path, &bytes).is_none() {
            harmless += 1;
            // The count of moves and each version may be any even number; what is behind the
            // words of the header means nothing, nor does what a free slot holds but its uin.
            let slot = at.checked_sub(HEADER).map(|at| &whole[HEADER + at / 48 * 48..][..48]);
            let may = match slot {
                None => at >= 15 * 8,
                Some(slot) => (at - HEADER) % 48 < 4 || slot[8..16] == [0; 8],
            };
            assert!(may, "bit {} of byte {at}", bit % 8);
        }
        bytes[at] = whole[at];
    }
    let flips = bits.len();
    println!(
        "TEST C-04 flips n={flips} thrown_away={} harmless={harmless} wrong=0",
        flips - harmless
    );
}

#[test]
fn any_length_but_its_own_throws_it_away() {
    let dir = left();
    let path = only_file(&dir);
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        assert!(judge(&dir, &path, &whole[..len]).is_some(), "{len} bytes");
    }
    for more in [1, 8, SLOT_BYTES, HEADER] {
        let longer = [&whole[..], &vec![0; more]].concat();
        assert!(judge(&dir, &path, &longer).is_some(), "{more} bytes more");
    }
    println!("TEST C-04 lengths n={} taken_over=0", whole.len() + 4);
}

/// Random bytes: everywhere, behind a header that is whole, and in some places only.
#[test]
fn random_bytes_are_never_believed() {
    let dir = left();
    let path = only_file(&dir);
    let whole = std::fs::read(&path).unwrap();
    let mut random = Stream::new(seed_from_env(SEED));
    let (tries, mut harmless) = (soaked(3_000), 0);
    for number in 0..tries {
        let mut bytes = whole.clone();
        match number % 3 {
            0 => bytes.iter_mut().for_each(|byte| *byte = random.draw() as u8),
            1 => bytes[HEADER..].iter_mut().for_each(|byte| *byte = random.draw() as u8),
            _ => (0..=random.below(8)).for_each(|_| {
                // Half of them where it counts: in the words of the header.
                let bound = [128, whole.len() as u64][random.below(2) as usize];
                bytes[random.below(bound) as usize] = random.draw() as u8;
            }),
        }
        let taken = judge(&dir, &path, &bytes).is_none();
        assert!(!taken || number % 3 == 2, "try {number}");
        harmless += u64::from(taken);
    }
    println!("TEST C-04 random n={tries} harmless={harmless} wrong=0");
}

/// Slots in other places, each whole: as if blocks of the file had been swapped or repeated.
#[test]
fn whole_slots_in_wrong_places_throw_it_away() {
    let dir = left();
    let path = only_file(&dir);
    let whole = std::fs::read(&path).unwrap();
    let slot = |index: usize| HEADER + index * SLOT_BYTES..HEADER + (index + 1) * SLOT_BYTES;
    let (mut swaps, mut harmless) = (0, 0);
    for (first, second) in (0..SLOTS).flat_map(|a| (0..SLOTS).map(move |b| (a, b))) {
        for twice in [false, true] {
            let mut bytes = whole.clone();
            bytes[slot(first)].copy_from_slice(&whole[slot(second)]);
            if !twice {
                bytes[slot(second)].copy_from_slice(&whole[slot(first)]);
            }
            swaps += 1;
            harmless += u64::from(judge(&dir, &path, &bytes).is_none());
        }
    }
    assert!(harmless < swaps / 2);
    println!("TEST C-04 swaps n={swaps} harmless={harmless} wrong=0");
}

/// The table of a snapshot: an older state of the same file is right up to where it says, and the
/// log has the rest.
#[test]
fn an_older_copy_knows_less_and_nothing_wrong() {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let mut table = attach(&dir, 1, END).table;
    fill(&mut table, 1..500);
    let older = std::fs::read(only_file(&dir)).unwrap();
    fill(&mut table, 500..1000);
    drop(table);
    std::fs::write(only_file(&dir), older).unwrap();
    let Attached { mut table, applied, rebuilt } = attach(&dir, 2, Offset(1000 * 8));
    assert_eq!((rebuilt, applied, table.entries()), (None, Offset(500 * 8), 499));
    fill(&mut table, 500..1000);
    assert!((1..1000).all(|uin| get(&table, uin) == Some(entry(uin * 8))));
}
