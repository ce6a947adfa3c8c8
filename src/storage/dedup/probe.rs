//! Open addressing over slots: a device stands at its home, or behind it where that was taken, and
//! no slot between the two is free.
//!
//! Taking a device out must not leave a free slot in the way of others. So what stands behind it
//! moves back (Knuth, 6.4, algorithm R), and nothing is left of it: a table that ages is as good
//! as a new one. All of it happens within one run of taken slots, which is what a look-up of a
//! device that is not there walks through too; while 4 of 5 slots are taken the longest run of a
//! million slots has some hundreds.
//!
//! Somebody who looks from outside could pass the gap before a device moved into it, and the
//! device's old place after it had left. So there is a count of moves that is odd meanwhile, and
//! "not there" is believed only if that was even and has not changed.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tern_core::placement::mix;
use tern_protocol::{DeviceId, Uin};

use super::memory::{Memory, Word};
use super::slot::{Slot, Torn, device_of};

/// The index of a device's slot, or of the free one where it would be. The owner alone may ask.
pub(super) fn find<M: Memory, const WORDS: usize>(
    slots: &[Slot<M, WORDS>],
    uin: Uin,
    device: DeviceId,
) -> usize {
    let found = run(slots.len(), uin, device)
        .find(|index| slots[*index].is_free() || slots[*index].is_of(uin, device));
    found.expect("a table always has free slots")
}

/// Frees a slot; what moves is counted in `moves`. The owner alone does.
pub(super) fn take_out<M: Memory, const WORDS: usize>(
    moves: &M::U64,
    slots: &[Slot<M, WORDS>],
    index: usize,
) {
    let number = moves.load(Relaxed);
    moves.store(number.wrapping_add(1), Relaxed);
    M::fence(Release);
    close_gap(slots, index);
    moves.store(number.wrapping_add(2), Release);
}

fn close_gap<M: Memory, const WORDS: usize>(slots: &[Slot<M, WORDS>], mut gap: usize) {
    let distance = |from: usize, to: usize| (to + slots.len() - from) % slots.len();
    let mut next = gap;
    loop {
        next = (next + 1) % slots.len();
        let words = slots[next].own();
        if words[0] == 0 {
            break;
        }
        let home = home(Uin(words[0]), device_of(words[1]), slots.len());
        // One whose home lies behind the gap is not searched from before it, and stays.
        if distance(home, next) >= distance(gap, next) {
            slots[gap].write(&words);
            gap = next;
        }
    }
    slots[gap].write(&[0; WORDS]);
}

/// What anybody may ask: the words of a device's slot, or an error where they can't be told now.
pub(super) fn look_up<M: Memory, const WORDS: usize>(
    moves: &M::U64,
    slots: &[Slot<M, WORDS>],
    uin: Uin,
    device: DeviceId,
) -> Result<Option<[u64; WORDS]>, Torn> {
    let before = moves.load(Acquire);
    for index in run(slots.len(), uin, device) {
        let words = slots[index].look()?;
        if words[0] == 0 {
            break;
        }
        if Uin(words[0]) == uin && device_of(words[1]) == device {
            return Ok(Some(words));
        }
    }
    M::fence(Acquire);
    if before & 1 == 1 || moves.load(Relaxed) != before {
        return Err(Torn);
    }
    Ok(None)
}

/// The slots where a device may stand, in the order of the search.
fn run(slots: usize, uin: Uin, device: DeviceId) -> impl Iterator<Item = usize> {
    let home = home(uin, device, slots);
    (home..slots).chain(0..home)
}

/// Where the search for a device begins.
pub(super) fn home(uin: Uin, device: DeviceId, slots: usize) -> usize {
    let mixed = mix(mix(uin.0) ^ u64::from(device.0));
    // The high half of the product: an even spread over any number of slots.
    ((u128::from(mixed) * slots as u128) >> 64) as usize
}
