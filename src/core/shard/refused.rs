//! Keys that were refused for good by how things were at that moment: who is in a group, who may
//! speak there, who exists. Things change, and another copy of the same send can still be on its
//! way, late by datagram or on a connection that its device gave up; it must get the same answer,
//! or a message would appear whose sender was told that it never will.
//!
//! Worth naming: nothing of this is in the log. A copy can come as long as some connection of its
//! device lives, and none outlives the process; what a client says again later, it says because it
//! was never told, or did not keep it. Then it is judged anew, unless a younger message of its
//! device stands in its channel (late.rs).

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tern_protocol::limits::UNACKED_SENDS_MAX;
use tern_protocol::{Class, Code, SendKey};

use super::Shard;
use super::chat::{Offer, refuse, refuse_named};
use super::group::Refusal;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;
use crate::mail::Device;
use crate::time::Mono;

/// For how long a refusal is remembered after it was said last, or somewhat longer, in ms: a
/// connection that is silent for 90 s is gone, and what is on its way through the server takes
/// seconds.
const REMEMBERED_MS: u64 = 120_000;

/// Refusals that one shard remembers: some 4 MB. A device has as many as it may have sends under
/// way, so a thousand devices that do nothing else fill it.
const REMEMBERED_MAX: usize = 65_536;

/// Asked of a client whose refusal can't be remembered now, in ms.
const RETRY_AFTER_MS: u32 = 5_000;

/// The refusals of a shard.
#[derive(Default)]
pub(super) struct Refused {
    by_device: FxHashMap<Device, VecDeque<Known>>,
    /// When each may be forgotten, oldest first; those already gone are passed over.
    deadlines: VecDeque<(Mono, Device, SendKey)>,
    count: usize,
}

/// One refusal.
struct Known {
    key: SendKey,
    refusal: Refusal,
    /// When it was said last.
    said: Mono,
}

impl Refused {
    /// How this key was refused, which is said again.
    pub(super) fn get(&mut self, now: Mono, device: Device, key: SendKey) -> Option<Refusal> {
        self.forget_old(now);
        let known = self.by_device.get_mut(&device).filter(|_| !mutant!(RefusalForgotten))?;
        let known = known.iter_mut().find(|known| known.key == key)?;
        known.said = now;
        Some(known.refusal)
    }

    /// Remembers a refusal; says whether there was room.
    fn remember(&mut self, now: Mono, device: Device, key: SendKey, refusal: Refusal) -> bool {
        if self.get(now, device, key).is_some() {
            return true;
        }
        let known = self.by_device.entry(device).or_default();
        if known.len() >= UNACKED_SENDS_MAX as usize {
            known.pop_front(); // the device is that far ahead, so this one was answered long ago
            self.count -= 1;
        }
        if self.count >= REMEMBERED_MAX || self.deadlines.len() >= 2 * REMEMBERED_MAX {
            return false;
        }
        known.push_back(Known { key, refusal, said: now });
        self.count += 1;
        self.deadlines.push_back((now.after_ms(REMEMBERED_MS), device, key));
        true
    }

    fn forget_old(&mut self, now: Mono) {
        while let Some((_, device, key)) = self.deadlines.pop_front_if(|(at, ..)| *at <= now) {
            let Some(known) = self.by_device.get_mut(&device) else { continue };
            let Some(index) = known.iter().position(|known| known.key == key) else { continue };
            if known[index].said.after_ms(REMEMBERED_MS) > now {
                self.deadlines.push_back((now.after_ms(REMEMBERED_MS), device, key));
                continue; // it was said again meanwhile
            }
            known.remove(index);
            self.count -= 1;
            if known.is_empty() {
                self.by_device.remove(&device);
            }
        }
    }
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Refuses an offer by how things are now, or by its key alone. A final refusal is said again to each copy of it.
    pub(super) fn refuse_by_state(
        &mut self,
        context: &mut Context<'_>,
        offer: &Offer,
        refusal: Refusal,
        retry_after_ms: u32,
    ) {
        let is_final = refusal.code.class() == Class::Final && !is_of_key(refusal.code);
        let (now, device, key) = (context.now.mono, offer.device, offer.key());
        if is_final && !self.refused.remember(now, device, key, refusal) {
            return refuse(context, offer, Code::Busy, RETRY_AFTER_MS);
        }
        refuse_named(context, offer, refusal, retry_after_ms);
    }
}

/// What is said of the key itself is known by the log, or is not known.
fn is_of_key(code: Code) -> bool {
    matches!(code, Code::KeyClosed | Code::KeyConflict | Code::KeyUnknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::{DeviceId, Epoch, SendCounter, Uin};

    const DEVICE: Device = Device { uin: Uin(1), device: DeviceId(1) };
    const REFUSAL: Refusal = Refusal { code: Code::NotAMember, member: 0 };

    fn key(counter: u32) -> SendKey {
        SendKey { epoch: Epoch(1), counter: SendCounter(counter) }
    }

    #[test]
    fn a_refusal_is_remembered_for_its_time() {
        let mut refused = Refused::default();
        assert!(refused.remember(Mono(5), DEVICE, key(1), REFUSAL));
        assert!(refused.remember(Mono(6), DEVICE, key(2), REFUSAL));
        assert_eq!(refused.get(Mono(5), DEVICE, key(1)), Some(REFUSAL));
        assert_eq!(refused.get(Mono(6), DEVICE, key(3)), None);
        assert!(refused.remember(Mono(5 + REMEMBERED_MS), DEVICE, key(3), REFUSAL));
        let left = [1, 2, 3]
            .map(|counter| refused.get(Mono(5 + REMEMBERED_MS), DEVICE, key(counter)).is_some());
        assert_eq!((left, refused.count), ([false, true, true], 2));
    }

    #[test]
    fn what_is_said_again_is_remembered_from_then_on() {
        let mut refused = Refused::default();
        assert!(refused.remember(Mono(0), DEVICE, key(1), REFUSAL));
        assert!(refused.remember(Mono(1), DEVICE, key(2), REFUSAL));
        let [again, late] = [REMEMBERED_MS - 1, 2 * REMEMBERED_MS - 2].map(Mono);
        for now in [again, late] {
            assert_eq!(refused.get(now, DEVICE, key(1)), Some(REFUSAL), "{now:?}");
        }
        assert_eq!(refused.get(late, DEVICE, key(2)), None);
        assert_eq!((refused.count, refused.deadlines.len()), (1, 1));
        refused.forget_old(Mono(5 * REMEMBERED_MS));
        assert_eq!((refused.count, refused.by_device.len(), refused.deadlines.len()), (0, 0, 0));
    }

    #[test]
    fn a_device_has_its_share_and_the_shard_its_bound() {
        let mut refused = Refused::default();
        for counter in 1..=UNACKED_SENDS_MAX + 1 {
            assert!(refused.remember(Mono(0), DEVICE, key(counter), REFUSAL));
        }
        assert_eq!(refused.get(Mono(0), DEVICE, key(1)), None);
        assert_eq!(refused.count, UNACKED_SENDS_MAX as usize);
        refused.forget_old(Mono(REMEMBERED_MS));
        assert_eq!((refused.count, refused.by_device.len()), (0, 0));
        let others = (2..).map(|uin| Device { uin: Uin(uin), ..DEVICE });
        let mut taken = others.map(|device| refused.remember(Mono(0), device, key(1), REFUSAL));
        assert_eq!(taken.by_ref().take_while(|taken| *taken).count(), REMEMBERED_MAX);
    }
}
