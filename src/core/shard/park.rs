//! Sends that came before their predecessor: kept for a while, so that a device's messages stand
//! in a channel in the order in which it sent them, whatever carried them here.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tern_protocol::limits::UNACKED_SENDS_MAX;
use tern_protocol::{Code, SendKey};

use super::Shard;
use super::chat::{Offer, follows, refuse};
use crate::context::Context;
use crate::dedup::{DedupEntry, DedupTable, Verdict};
use crate::log::Log;
use crate::mail::Device;
use crate::time::Mono;

/// Sends that one shard keeps for their predecessors: with contents of the default limit 6 MB.
const PARKED_MAX: usize = 4_096;

/// How long a send waits for its predecessor in ms: longer than a lost packet's repair on a path
/// of 350 ms, shorter than a person's patience.
const PARKED_MS: u64 = 2_000;

/// Asked of a client that must send in order again, in ms.
const RETRY_AFTER_MS: u32 = 100;

/// The parked sends of a shard.
#[derive(Default)]
pub(super) struct Parked {
    by_device: FxHashMap<Device, Vec<Offer>>,
    /// When each is given up, oldest first; those already gone are passed over.
    deadlines: VecDeque<(Mono, Device, SendKey)>,
    count: usize,
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    pub(super) fn park(&mut self, context: &mut Context<'_>, offer: Offer) {
        let parked = &mut self.parked;
        let (device, key) = (offer.device, offer.key());
        let list = parked.by_device.entry(device).or_default();
        if let Some(same) = list.iter_mut().find(|parked| parked.key() == key) {
            let older = std::mem::replace(same, offer);
            return refuse(context, &older, Code::Predecessor, RETRY_AFTER_MS);
        }
        if parked.count >= PARKED_MAX || list.len() >= UNACKED_SENDS_MAX as usize {
            return refuse(context, &offer, Code::Predecessor, RETRY_AFTER_MS);
        }
        list.push(offer);
        parked.count += 1;
        parked.deadlines.push_back((context.now.mono.after_ms(PARKED_MS), device, key));
        context.counters.sends_parked += 1;
    }

    /// A parked send of the device whose predecessor has come, or that came by another way itself.
    pub(super) fn take_follower(&mut self, device: Device) -> Option<Offer> {
        if self.parked.count == 0 {
            return None;
        }
        let entry = self.table.get(device.uin, device.device);
        let list = self.parked.by_device.get(&device)?;
        let ready = |offer: &&Offer| {
            let verdict = DedupEntry::judge(entry.as_ref(), offer.key());
            verdict != Verdict::New || follows(entry.as_ref(), offer)
        };
        let key = list.iter().find(ready)?.key();
        self.parked.take(device, key)
    }

    /// Gives up on predecessors that did not come in time.
    pub(super) fn expire_parked(&mut self, context: &mut Context<'_>) {
        while let Some(&(deadline, device, key)) = self.parked.deadlines.front() {
            if deadline > context.now.mono {
                break;
            }
            self.parked.deadlines.pop_front();
            if let Some(offer) = self.parked.take(device, key) {
                refuse(context, &offer, Code::Predecessor, RETRY_AFTER_MS);
            }
        }
    }

    pub(super) fn parked_deadline(&self) -> Option<Mono> {
        self.parked.deadlines.front().map(|(deadline, ..)| *deadline)
    }

    pub(super) fn take_parked(&mut self) -> Vec<Offer> {
        let parked = std::mem::take(&mut self.parked);
        parked.by_device.into_values().flatten().collect()
    }
}

impl Parked {
    fn take(&mut self, device: Device, key: SendKey) -> Option<Offer> {
        let list = self.by_device.get_mut(&device)?;
        let index = list.iter().position(|offer| offer.key() == key)?;
        let offer = list.swap_remove(index);
        if list.is_empty() {
            self.by_device.remove(&device);
        }
        self.count -= 1;
        Some(offer)
    }
}
