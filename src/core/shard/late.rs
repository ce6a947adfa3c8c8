//! Sends whose time is over: a younger one of the same device stands in their channel already. A
//! younger one is appended only when the older was appended or refused for good, so this one was
//! refused. Its client did not keep that, and the server forgot it: both may have died since. Only
//! after another login can a client have forgotten.
//!
//! Comes in: a new key of an older login, below its device's newest one, a rare thing. Goes out:
//! whether it is late in its channel. Worth naming: the window says how many younger keys there
//! are, so the walk along the device's chain ends once it has met them all, after 64 records or
//! far less.

use tern_protocol::Code;
use tern_protocol::frames::PushBody;
use zerocopy::FromBytes;

use super::Shard;
use super::chat::Offer;
use crate::context::Context;
use crate::dedup::{DedupEntry, DedupTable};
use crate::log::{Log, Offset, ReadError};

/// What the device's chain says of a send that comes after younger ones.
enum Late {
    /// They are in other channels.
    No,
    Yes,
    /// Not all of them can be read.
    Unknown,
    Cold(Offset),
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Gives the offer back if it may be appended; else answers it, or keeps it until a cold
    /// record is in memory.
    pub(super) fn refuse_late(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        entry: Option<&DedupEntry>,
    ) -> Option<Offer> {
        let is_of_before = offer.key().epoch < offer.epoch;
        let entry = entry.filter(|_| is_of_before);
        let younger = entry.map_or(0, |entry| entry.younger_than(offer.key()));
        let Some(last) = entry.filter(|_| younger > 0).map(|entry| entry.last) else {
            return Some(offer);
        };
        let code = match self.is_late(&offer, last, younger) {
            Late::No => return Some(offer),
            Late::Yes => Code::KeyClosed,
            Late::Unknown => Code::KeyUnknown,
            Late::Cold(at) => {
                self.wait_for(context, offer, (at, None));
                return None;
            }
        };
        self.refuse_when_durable(context, offer, last, code.into());
        None
    }

    /// Looks at the records of the `younger` keys, the newest of which is at `last`.
    fn is_late(&mut self, offer: &Offer, last: Offset, younger: u32) -> Late {
        let (mut next, mut left) = (last, younger);
        while left > 0 {
            let Some(at) = next.some() else { return Late::Unknown };
            let read = self.log.with_record(at, |record| {
                let body = PushBody::ref_from_prefix(record.body).ok();
                let key = body.map(|(body, _)| (body.key(), body.channel == offer.channel()));
                (key, record.links.device)
            });
            match read {
                Ok((Some((key, same)), older)) => {
                    let is_younger = key.epoch == offer.key().epoch && key > offer.key();
                    if is_younger && same {
                        return Late::Yes;
                    }
                    left -= u32::from(is_younger);
                    next = older;
                }
                Ok((None, older)) => next = older,
                Err(ReadError::Cold) => return Late::Cold(at),
                Err(ReadError::Lost(_) | ReadError::Expired) => return Late::Unknown,
            }
        }
        Late::No
    }
}
