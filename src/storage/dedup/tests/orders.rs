//! The same code as in the mapped file, run by a model checker through every order of loads and
//! stores that the memory model allows, with a bound on involuntary switches where that would be
//! too many (C-01). The rings between workers are not ours; their bell has its own model.
//!
//! Each property is tried without the fences too: then the checker must find the defect, or it
//! proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU64 as Count, Ordering};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::thread;

use super::super::memory::{Memory, Word};
use super::super::probe::{find, home, look_up, take_out};
use super::super::slot::{Slot, Torn, checksum};
use super::*;

/// The checker's memory, with fences or without.
struct Model<const FENCED: bool>;

impl<const FENCED: bool> Memory for Model<FENCED> {
    type U32 = AtomicU32;
    type U64 = AtomicU64;

    fn fence(order: Ordering) {
        if FENCED {
            loom::sync::atomic::fence(order);
        }
    }
}

impl Word<u32> for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        AtomicU32::load(self, order)
    }

    fn store(&self, value: u32, order: Ordering) {
        AtomicU32::store(self, value, order);
    }
}

impl Word<u64> for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
}

/// Runs all orders with at most so many involuntary switches; how many that were.
fn orders(switches: Option<usize>, run: impl Fn() + Sync + Send + 'static) -> u64 {
    let (count, mut model) = (StdArc::new(Count::new(0)), loom::model::Builder::new());
    model.preemption_bound = switches;
    let counted = StdArc::clone(&count);
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    count.load(Ordering::Relaxed)
}

/// Whether the checker finds something wrong.
fn finds(run: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| orders(Some(3), run))).is_err()
}

/// One writer writes twice, one reader reads: it has all words of one write, with its checksum,
/// by the version alone, and a second look never goes back.
fn slot_is_whole<const FENCED: bool>() {
    let slot: Arc<Slot<Model<FENCED>, 2>> = Arc::new(Slot::free());
    let writer = thread::spawn({
        let slot = Arc::clone(&slot);
        move || (1..3).for_each(|number| slot.write(&[number; 2]))
    });
    if let Ok((words, check)) = slot.stable() {
        assert_eq!(words[0], words[1], "torn");
        assert!(words == [0; 2] || check == checksum(&words), "torn");
    }
    writer.join().unwrap();
    assert_eq!(slot.look(), Ok([2; 2]));
}

#[test]
fn no_order_tears_a_slot() {
    let n = orders(Some(3), slot_is_whole::<true>);
    assert!(n > 100);
    println!("TEST C-01 slot orders n={n} torn=0");
}

#[test]
fn a_slot_without_fences_is_found_out() {
    assert!(finds(slot_is_whole::<false>));
}

/// Slots of the small table.
const SLOTS: usize = 3;

/// Two devices whose search begins at the same of [`SLOTS`] slots, not the last.
fn neighbours() -> [Uin; 2] {
    let home = |uin: &u64| home(Uin(*uin), DeviceId(0), SLOTS);
    let first = (1..).find(|uin| home(uin) == 0).expect("some uin");
    let second = (first + 1..).find(|uin| home(uin) == 0).expect("some other");
    [Uin(first), Uin(second)]
}

/// The first of two neighbours is taken out, so that the second moves back; a reader that looks
/// for the second meanwhile finds it, or knows that it can't tell.
fn the_moved_is_found<const FENCED: bool>() {
    type Table<const FENCED: bool> = (AtomicU64, Vec<Slot<Model<FENCED>, 2>>);
    let slots = (0..SLOTS).map(|_| Slot::free()).collect();
    let table: Arc<Table<FENCED>> = Arc::new((AtomicU64::new(0), slots));
    let [goes, stays] = neighbours();
    for (at, uin) in [goes, stays].into_iter().enumerate() {
        assert_eq!(find(&table.1, uin, DeviceId(0)), at);
        table.1[at].write(&[uin.0, 0]);
    }
    let owner = thread::spawn({
        let table = Arc::clone(&table);
        move || take_out(&table.0, &table.1, 0)
    });
    let found = look_up(&table.0, &table.1, stays, DeviceId(0));
    assert!(matches!(found, Ok(Some(_)) | Err(Torn)), "it was there all the time");
    owner.join().unwrap();
    assert_eq!(look_up(&table.0, &table.1, stays, DeviceId(0)), Ok(Some([stays.0, 0])));
    assert_eq!(look_up(&table.0, &table.1, goes, DeviceId(0)), Ok(None));
}

#[test]
fn no_order_hides_what_moves() {
    let n = orders(Some(2), the_moved_is_found::<true>);
    assert!(n > 100);
    println!("TEST C-01 removal orders n={n} hidden=0");
}

#[test]
fn a_removal_without_fences_is_found_out() {
    assert!(finds(the_moved_is_found::<false>));
}
