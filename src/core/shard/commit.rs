//! From the log's proof to the ack: the only place where an ack is made.

use std::collections::VecDeque;

use tern_protocol::MessageId;
use tern_protocol::frames::SendAck;

use super::Shard;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::{Durable, Log, Offset};
use crate::mail::{Address, Mail, SessionRef};
use crate::moments::Happened;

/// An ack that a proof of durability stands behind; made only in this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurableAck(SendAck);

impl DurableAck {
    /// The frame for the sender.
    pub fn frame(&self) -> SendAck {
        self.0
    }
}

/// A message that was appended, or found again, and whose ack waits for the proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unproven {
    pub(super) at: Offset,
    pub(super) to: SessionRef,
    pub(super) ack: SendAck,
    pub(super) duplicate: bool,
}

impl Unproven {
    fn prove(&self, proof: Durable) -> Option<DurableAck> {
        let is_proven = proof.covers(self.at) || (self.duplicate && mutant!(RepeatUnproven));
        is_proven.then_some(DurableAck(self.ack))
    }
}

/// Acks that wait for a proof.
#[derive(Default)]
pub(super) struct Waiting {
    /// Fresh messages in the order of their offsets.
    fresh: VecDeque<Unproven>,
    /// Repeats of messages that are not durable yet: few, so they are looked through.
    repeats: Vec<Unproven>,
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// The ack of `unproven` leaves now if its record is durable, or with the proof.
    pub(super) fn ack_when_durable(&mut self, context: &mut Context<'_>, unproven: Unproven) {
        match unproven.prove(self.proof) {
            Some(ack) => send_ack(context, &unproven, ack),
            None if unproven.duplicate => self.waiting.repeats.push(unproven),
            None => self.waiting.fresh.push_back(unproven),
        }
    }

    /// The log says how far it is durable now.
    pub(crate) fn handle_durable(&mut self, context: &mut Context<'_>) {
        match self.log.durable() {
            Err(_) => self.stop(context),
            Ok(proof) if proof > self.proof => {
                self.proof = proof;
                self.release_acks(context);
                self.offer_unproven(context);
                self.settle_home(context);
                self.settle_pages(context);
                self.settle_blocks(context);
                self.notify(context);
            }
            Ok(_) => {}
        }
    }

    fn release_acks(&mut self, context: &mut Context<'_>) {
        while let Some(unproven) = self.waiting.fresh.front().copied() {
            let Some(ack) = unproven.prove(self.proof) else { break };
            self.waiting.fresh.pop_front();
            let channel = self.channels.get_mut(&unproven.ack.channel);
            let id = MessageId::from(unproven.ack.id);
            let channel = channel.expect("a channel with messages is open");
            context.moments.note(unproven.ack.channel, None, Happened::Committed(id));
            // Who left may still read what was said before, and must not what is recalled of it.
            let is_recall = channel.proven(id, unproven.at);
            let group = self.groups.get_mut(&unproven.ack.channel);
            let is_change = group.is_some_and(|group| group.proven(id));
            self.mark_changed(context, unproven.ack.channel, is_change || is_recall);
            send_ack(context, &unproven, ack);
        }
        let proof = self.proof;
        self.waiting.repeats.retain(|unproven| match unproven.prove(proof) {
            Some(ack) => {
                send_ack(context, unproven, ack);
                false
            }
            None => true,
        });
    }

    /// A sync failed: nothing more is acked, and whoever waits is told.
    fn stop(&mut self, context: &mut Context<'_>) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        let waiting = std::mem::take(&mut self.waiting);
        for unproven in waiting.fresh.into_iter().chain(waiting.repeats) {
            super::chat::refuse_stopped(context, &unproven);
        }
        self.refuse_home(context);
        self.refuse_pages(context);
        self.refuse_blocks(context);
        self.refuse_waiting_sends(context);
    }
}

fn send_ack(context: &mut Context<'_>, unproven: &Unproven, ack: DurableAck) {
    let mail = Mail::SendAcked { to: unproven.to, ack, duplicate: unproven.duplicate };
    context.post.send(context.counters, Address::Front(unproven.to.worker), mail);
}
