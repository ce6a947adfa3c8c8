//! A message on its way into the log: deduplicate, count, append; then wait for the proof.

use bytes::Bytes;
use tern_protocol::frames::{PushBody, Send, SendAck, message_kind};
use tern_protocol::{ChannelId, Code, Epoch, Frame, MessageId, SendCounter, SendKey};
use zerocopy::{FromBytes, IntoBytes};

use super::Shard;
use super::commit::Unproven;
use super::group::Refusal;
use super::recall;
use crate::context::Context;
use crate::dedup::{DedupEntry, DedupTable, Verdict};
use crate::io::{ColdRecord, Effect, Waiter};
use crate::log::{AppendError, Log, Offset, ReadError, RecordKind};
use crate::mail::{Address, Device, Mail, SessionRef};
use crate::moments::Happened;

/// Records of a device that are looked at for an old key: twice the window, since a late one may
/// stand behind as many newer ones.
const CHAIN_HOPS_MAX: u32 = 128;

/// Sends of one shard that wait for a cold read, and as many that wait for a proof.
const COLD_SENDS_MAX: usize = 1_024;

/// Asked of a client whose send was refused for now, in ms: a few commits.
const RETRY_SOON_MS: u32 = 50;

/// Asked of a client when an operator or a disk is needed, in ms.
const RETRY_LATE_MS: u32 = 5_000;

/// A message in the hands of its channel's shard.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) from: SessionRef,
    pub(super) device: Device,
    /// Epoch of the session.
    pub(super) epoch: Epoch,
    pub(super) frame: Bytes,
    /// Of a change: its newcomers have entered.
    pub(super) entered: bool,
}

impl Offer {
    pub(super) fn view(&self) -> (&Send, &[u8]) {
        match Frame::parse(&self.frame) {
            Ok((Frame::Send(head, content), _)) => (head, content),
            other => unreachable!("the session posts only frames that are sends: {other:?}"),
        }
    }

    pub(super) fn key(&self) -> SendKey {
        self.view().0.key()
    }

    pub(super) fn channel(&self) -> ChannelId {
        self.view().0.channel
    }
}

/// What the chain of a device's records says of a key.
enum Found {
    /// Appended before as this, with this content or another.
    Same(Unproven),
    Other,
    Never,
    Unknown,
    Cold(Offset),
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Takes a message: it is appended, answered, or kept until it can be; with it those that
    /// waited for it.
    pub(super) fn offer(&mut self, context: &mut Context<'_>, offer: Offer) {
        let device = offer.device;
        self.offer_one(context, offer);
        while let Some(follower) = self.take_follower(device) {
            self.offer_one(context, follower);
        }
    }

    fn offer_one(&mut self, context: &mut Context<'_>, offer: Offer) {
        if self.stopped {
            return refuse(context, &offer, Code::ShardStopped, RETRY_LATE_MS);
        }
        if self.removed.contains(&offer.device) {
            return refuse(context, &offer, Code::KeyUnknown, 0);
        }
        if let Some(refusal) = self.refused.get(context.now.mono, offer.device, offer.key()) {
            return refuse_named(context, &offer, refusal, 0);
        }
        let entry = self.table.get(offer.device.uin, offer.device.device);
        let verdict = match DedupEntry::judge(entry.as_ref(), offer.key()) {
            Verdict::Closed if mutant!(ClosedAppended) => Verdict::New,
            verdict => verdict,
        };
        match verdict {
            Verdict::Seen | Verdict::Closed => {
                let last = entry.expect("only a known device has old keys").last;
                self.answer_old(context, offer, last);
            }
            Verdict::New if self.is_doubtful(entry.as_ref(), &offer) => {
                let last = entry.map_or(Offset::NONE, |entry| entry.last);
                self.refuse_when_durable(context, offer, last, Code::KeyUnknown.into());
            }
            Verdict::New => {
                if let Some(offer) = self.refuse_late(context, offer, entry.as_ref()) {
                    self.offer_new(context, offer, entry.as_ref());
                }
            }
        }
    }

    /// A new key that may be appended.
    fn offer_new(&mut self, context: &mut Context<'_>, offer: Offer, entry: Option<&DedupEntry>) {
        if !follows(entry, &offer) {
            self.park(context, offer);
        } else if offer.channel().is_group() {
            self.offer_to_group(context, offer, entry);
        } else {
            self.offer_direct(context, offer, entry);
        }
    }

    /// A message to another user, or to oneself, under a new key, whose predecessor is there.
    fn offer_direct(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        entry: Option<&DedupEntry>,
    ) {
        let refers = recall::refers(offer.view().0);
        if !refers && !self.channels.contains_key(&offer.channel()) {
            self.open(context, offer);
        } else if let Some(at) = self.blocked_at(&offer) {
            self.refuse_when_durable(context, offer, at, Code::NoSuchUser.into());
        } else if refers {
            self.offer_reference(context, offer, entry);
        } else {
            self.append(context, &offer, entry);
        }
    }

    /// Whether the key of an older login may be that of a lost message. A login of this life of
    /// the server came after the loss, so keys of its epoch can't be.
    fn is_doubtful(&self, entry: Option<&DedupEntry>, offer: &Offer) -> bool {
        let last = entry.map_or(Offset::NONE, |entry| entry.last);
        offer.key().epoch < offer.epoch && self.doubts.between(last, self.log.tail())
    }

    /// The cold reads that sends wait for are done.
    pub(crate) fn handle_warmed(&mut self, context: &mut Context<'_>) {
        for offer in std::mem::take(&mut self.cold) {
            self.offer(context, offer);
        }
    }

    /// Appends a message, or a change, to its open channel.
    pub(super) fn append(
        &mut self,
        context: &mut Context<'_>,
        offer: &Offer,
        entry: Option<&DedupEntry>,
    ) {
        if entry.is_none() && self.table.reserve().is_err() {
            return refuse(context, offer, Code::DiskFull, RETRY_LATE_MS);
        }
        let (head, content) = offer.view();
        let kind = match head.kind {
            message_kind::CHANGE => RecordKind::Change,
            message_kind::RECALL => RecordKind::Recall,
            _ => RecordKind::Message,
        };
        if kind == RecordKind::Change {
            self.open_group(head.channel);
        }
        let channel = self.channels.get_mut(&head.channel).expect("only open channels come here");
        let links = channel.next_links(entry.map_or(Offset::NONE, |entry| entry.last));
        let body = push_body(offer, head, channel.next_id(), context);
        if mutant!(DedupFirst) {
            let entry = DedupEntry::accept(entry, offer.key(), self.log.tail());
            self.table.put(offer.device.uin, offer.device.device, entry, self.log.tail());
        }
        let at = match self.log.append(kind, links, &[body.as_bytes(), content]) {
            Ok(at) => at,
            Err(error) => {
                let (code, retry_after_ms) = refusal(error);
                return refuse(context, offer, code, retry_after_ms);
            }
        };
        let id = channel.appended(at, context.now.wall);
        context.moments.note(head.channel, offer.device, Happened::Appended(id));
        match kind {
            RecordKind::Change => self.change_appended(context, offer, id, at),
            RecordKind::Recall => {
                channel.recall_appended(at, head.refers_to.into());
                context.counters.recalls += 1;
            }
            _ => {}
        }
        context.counters.edits += u64::from(head.kind == message_kind::EDIT);
        let entry = DedupEntry::accept(entry, offer.key(), at);
        self.table.put(offer.device.uin, offer.device.device, entry, self.log.tail());
        context.counters.sends_appended += 1;
        let ack = ack_of(&body);
        self.ack_when_durable(context, Unproven { at, to: offer.from, ack, duplicate: false });
    }

    /// Answers a key that was used, or can't be used any more.
    fn answer_old(&mut self, context: &mut Context<'_>, offer: Offer, last: Offset) {
        match self.find(&offer, last) {
            Found::Same(unproven) => {
                context.counters.sends_duplicate += 1;
                self.ack_when_durable(context, unproven);
            }
            Found::Other => {
                self.refuse_when_durable(context, offer, last, Code::KeyConflict.into())
            }
            Found::Never => self.refuse_when_durable(context, offer, last, Code::KeyClosed.into()),
            Found::Unknown => {
                self.refuse_when_durable(context, offer, last, Code::KeyUnknown.into())
            }
            Found::Cold(at) => self.wait_for(context, offer, (at, None)),
        }
    }

    /// A final refusal rests on a record, the device's newest or the group's newest change: it may
    /// not leave before that one is durable, for a power cut would take back the reason. Until
    /// then the offer waits, and is judged again with the next proof.
    pub(super) fn refuse_when_durable(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        last: Offset,
        refusal: Refusal,
    ) {
        if self.is_proven(last) || mutant!(RefusalUnproven) {
            self.refuse_by_state(context, &offer, refusal, 0);
        } else if self.unproven.len() >= COLD_SENDS_MAX {
            refuse(context, &offer, Code::Busy, RETRY_SOON_MS);
        } else {
            self.unproven.push(offer);
        }
    }

    /// Whether what rests on this record may be said. What rests on none needs no proof: where
    /// nothing is appended none ever comes.
    pub(super) fn is_proven(&self, at: Offset) -> bool {
        at.some().is_none_or(|at| self.proof.covers(at))
    }

    /// Judges again what waited for a proof.
    pub(super) fn offer_unproven(&mut self, context: &mut Context<'_>) {
        for offer in std::mem::take(&mut self.unproven) {
            self.offer(context, offer);
        }
    }

    /// Looks for the offer's key in its device's chain. A message in it that can't be read may be
    /// the one, and so may one that no link leads to any more, since it was lost as the newest:
    /// then what is not found behind it is unknown.
    fn find(&mut self, offer: &Offer, last: Offset) -> Found {
        let (mut next, mut never) = (last, Found::Never);
        for _ in 0..CHAIN_HOPS_MAX {
            let Some(at) = next.some() else { return never };
            let read = self.log.with_record(at, |record| {
                let passes = passes(offer, record.body);
                (compare(offer, record.body, at), record.links.device, passes)
            });
            match read {
                Ok((Some(Found::Never), ..)) => return never,
                Ok((Some(found), ..)) => return found,
                Ok((None, older, passes)) => {
                    if passes && self.doubts.between(older, at) {
                        never = Found::Unknown;
                    }
                    next = older;
                }
                Err(ReadError::Lost(links)) => {
                    never = Found::Unknown;
                    next = if links.device < at { links.device } else { Offset::NONE };
                }
                Err(ReadError::Cold) => return Found::Cold(at),
                Err(ReadError::Expired) => return Found::Unknown,
            }
        }
        Found::Unknown
    }

    /// Keeps an offer until the record at this place is in memory: a message of this channel, if
    /// that is known.
    pub(super) fn wait_for(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        (at, channel): (Offset, Option<ChannelId>),
    ) {
        if self.cold.len() >= COLD_SENDS_MAX {
            return refuse(context, &offer, Code::Busy, RETRY_SOON_MS);
        }
        context.counters.reads_cold += 1;
        self.cold.push(offer);
        let waiter = Waiter::Shard(self.id);
        let record = ColdRecord { shard: self.id, at, channel };
        context.effect(Effect::Warm { record, waiter });
    }

    /// Everything that waits inside of this shard is told that it stopped.
    pub(super) fn refuse_waiting_sends(&mut self, context: &mut Context<'_>) {
        let mut opening = self.take_opening();
        opening.append(&mut self.take_all_entering());
        let parked = self.take_parked();
        let mut waiting = std::mem::take(&mut self.cold);
        waiting.append(&mut self.unproven);
        for offer in waiting.into_iter().chain(opening).chain(parked) {
            refuse(context, &offer, Code::ShardStopped, RETRY_LATE_MS);
        }
    }
}

/// Whether the message before this one in its channel has been appended. Below the window it was
/// answered long ago: a device may not send so far ahead of an unanswered one.
pub(super) fn follows(entry: Option<&DedupEntry>, offer: &Offer) -> bool {
    let predecessor = SendCounter::from(offer.view().0.predecessor);
    let key = SendKey { epoch: offer.key().epoch, counter: predecessor };
    predecessor == SendCounter(0)
        || mutant!(OrderIgnored)
        || DedupEntry::judge(entry, key) != Verdict::New
}

/// What a record of the device's chain says of the offer's key; `None` to look further back.
fn compare(offer: &Offer, record: &[u8], at: Offset) -> Option<Found> {
    let (body, content) = PushBody::ref_from_prefix(record).ok()?;
    if body.key().epoch < offer.key().epoch {
        return Some(Found::Never); // epochs only fall from here on
    }
    if body.key() != offer.key() {
        return None;
    }
    let (head, offered) = offer.view();
    let same = body.channel == head.channel
        && body.content_type == head.content_type
        && body.kind == head.kind
        && body.refers_to == head.refers_to
        && content == offered;
    let mut ack = ack_of(body);
    if mutant!(OtherAnswer) {
        ack.server_time += 1;
    }
    Some(if same {
        Found::Same(Unproven { at, to: offer.from, ack, duplicate: true })
    } else {
        Found::Other
    })
}

/// Whether the offer's key is of an epoch before this record's, so that its message may be one
/// that was lost before this record. Keys of the record's own epoch can't be: if its link passes
/// a loss, its login came after that.
fn passes(offer: &Offer, record: &[u8]) -> bool {
    PushBody::ref_from_prefix(record).is_ok_and(|(body, _)| offer.key().epoch < body.key().epoch)
}

fn push_body(offer: &Offer, head: &Send, id: MessageId, context: &Context<'_>) -> PushBody {
    PushBody {
        channel: head.channel,
        id: id.into(),
        sender: offer.device.uin.into(),
        device: offer.device.device.into(),
        epoch: head.epoch,
        counter: head.counter,
        content_type: head.content_type,
        kind: head.kind,
        version: head.version,
        server_time: context.now.wall.into(),
        refers_to: head.refers_to,
    }
}

fn ack_of(body: &PushBody) -> SendAck {
    SendAck {
        channel: body.channel,
        epoch: body.epoch,
        counter: body.counter,
        id: body.id,
        server_time: body.server_time,
    }
}

/// The code for an append that did not happen, and when to try again, in ms.
pub(super) fn refusal(error: AppendError) -> (Code, u32) {
    match error {
        AppendError::Full => (Code::DiskFull, RETRY_LATE_MS),
        AppendError::Busy => (Code::Busy, RETRY_SOON_MS),
        AppendError::Failed => (Code::ShardStopped, RETRY_LATE_MS),
    }
}

/// Refuses an offer to its session.
pub(super) fn refuse(context: &mut Context<'_>, offer: &Offer, code: Code, retry_after_ms: u32) {
    refuse_named(context, offer, code.into(), retry_after_ms);
}

/// Refuses a change for one of the users that it names.
pub(super) fn refuse_named(
    context: &mut Context<'_>,
    offer: &Offer,
    Refusal { code, member }: Refusal,
    retry_after_ms: u32,
) {
    let (channel, key) = (offer.channel(), offer.key());
    let mail = Mail::SendRefused { to: offer.from, channel, key, code, member, retry_after_ms };
    context.post.send(context.counters, Address::Front(offer.from.worker), mail);
}

/// Refuses a message that was appended to a log which then failed.
pub(super) fn refuse_stopped(context: &mut Context<'_>, unproven: &Unproven) {
    let (channel, key) = (unproven.ack.channel, unproven.ack.key());
    let (to, code, retry_after_ms) = (unproven.to, Code::ShardStopped, RETRY_LATE_MS);
    let mail = Mail::SendRefused { to, channel, key, code, member: 0, retry_after_ms };
    context.post.send(context.counters, Address::Front(to.worker), mail);
}
