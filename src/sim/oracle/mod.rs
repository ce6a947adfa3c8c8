//! Who must have what, once, in order: told everything that happens, it reads the disk itself and
//! judges. The first thing that is wrong ends the run.

mod blocks;
pub mod checks;
pub mod fact;
mod groups;
mod histories;
pub mod lives;
mod marks;
mod newcomers;
mod recalls;
pub mod sends;
pub mod truth;

use std::collections::{BTreeMap, BTreeSet};

use tern_client::machine::{Change, End, Event, Message, SendOutcome, SendResult};
use tern_core::mail::Device;
use tern_core::placement::ShardId;
use tern_groupmodel::Rest;
use tern_protocol::frames::SendAck;
use tern_protocol::{ChannelId, Code, Epoch, Incarnation, SendKey, Uin};

use crate::disk::Disk;
use checks::{
    Acked, Blocks, Bounds, Cursors, Delivery, Due, Epochs, Fenced, Flow, Histories, Honesty, Ids,
    Keys, Logs, Marks, Newcomers, Recalls, Verdict, blocks as block_checks, by_member, demand,
    groups as group_checks, in_order, is_durable, marks as mark_checks, recalls as recall_checks,
    to_member,
};
use fact::{Fact, Label};
use groups::Questions;
use lives::Lives;
use sends::Sends;
use truth::{Place, Truth};

/// Something that must never happen, and did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The check that noticed it.
    pub check: &'static str,
    /// What was noticed.
    pub what: String,
}

/// The judge of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What the logs hold.
    pub truth: Truth,
    /// What they held before the server went back to an older copy of itself.
    pub lives: Lives,
    /// What applications were given and have shown.
    pub delivery: Delivery,
    /// What applications were told of their sends.
    pub honesty: Honesty,
    /// What senders were promised.
    pub acked: Acked,
    /// What applications have.
    pub logs: Logs,
    /// What was said of how far users have got.
    pub marks: Marks,
    /// Who asks, and who was told, whom his user blocks.
    pub blocks: Blocks,
    /// Places of channels that two devices of a user both have, and have the same of.
    pub compared: u64,
    last_questions: mark_checks::LastQuestions,
    recalls: Recalls,
    hours: recall_checks::Hours,
    ids: Ids,
    keys: Keys,
    epochs: Epochs,
    fenced: Fenced,
    flow: Flow,
    cursors: Cursors,
    bounds: Bounds,
    sends: Sends,
    questions: Questions,
    histories: Histories,
    /// What new devices want of what was said before.
    pub newcomers: Newcomers,
    rest: Rest,
    /// Devices whose store was ever copied or set back.
    copied: BTreeSet<Device>,
    violation: Option<Violation>,
}

impl Oracle {
    /// The first thing that went wrong.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Takes a verdict of the check of this name.
    pub fn judge(&mut self, check: &'static str, verdict: Verdict) {
        if let (Err(what), None) = (verdict, &self.violation) {
            self.violation = Some(Violation { check, what });
        }
    }

    /// The store of this device was copied or set back: it may be told that a key is closed, and
    /// its application may send a message twice.
    pub fn copied(&mut self, device: Device) {
        self.copied.insert(device);
    }

    /// Whether the store of this device was ever copied or set back.
    pub fn is_copied(&self, device: Device) -> bool {
        self.copied.contains(&device)
    }

    /// Records were appended.
    pub fn appended(&mut self, disk: &mut Disk, now: u64) {
        self.keys.forget_old(now);
        let appended = disk.take_appended();
        for place in &appended {
            self.take(disk, *place);
        }
        if !appended.is_empty() {
            self.marks.unhush(&self.truth);
        }
    }

    fn take(&mut self, disk: &Disk, place: Place) {
        let (shard, index) = place;
        let Some((_, _, record)) = disk.record(shard, index) else { return };
        let Some(fact) = self.truth.read(place, record) else { return };
        let fact = self.sends.labelled(fact);
        let copied = self.is_copied(fact.sender);
        let verdict = self.ids.appended(&self.truth, &fact);
        self.judge("ids", verdict);
        let verdict = self.keys.appended(&self.truth, &fact, copied);
        self.judge("keys", verdict);
        self.judge("members", by_member(&fact));
        self.judge("recalls", self.hours.appended(&self.truth, &fact));
        self.judge("blocks", block_checks::not_blocked(&self.truth, &fact));
        // A frame that is repeated brings back what was lost with a life, in any order; and so may
        // a copied device what was called unknown, or refused by a group as it was.
        let is_late = self.keys.was_unknown(fact.sender, fact.key)
            || self.keys.was_refused(fact.sender, fact.key);
        let may_be_late = self.lives.lost_key(fact.sender, fact.key) || (copied && is_late);
        if !may_be_late {
            let verdict = in_order(&self.truth, &fact, copied);
            self.judge("order", verdict);
        }
        let verdict = self.truth.add(fact, place);
        self.judge("groups", verdict);
    }

    /// A process found these logs.
    pub fn recovered(&mut self, disk: &Disk, shards: u16) {
        self.reread(disk, shards);
        let verdict = self.acked.check(&self.truth);
        self.judge("acked", verdict);
    }

    fn reread(&mut self, disk: &Disk, shards: u16) {
        self.truth = Truth::default();
        for shard in (0..shards).map(ShardId) {
            for index in 0..disk.records(shard) {
                self.take(disk, (shard, index));
            }
        }
        self.sends.clamp(&self.truth);
        self.recalls.server_starts(&self.truth);
        self.marks.server_starts();
        self.marks.unhush(&self.truth);
        self.blocks.clamp();
        self.questions.clamp(|channel| self.truth.newest(channel));
        self.keys.server_starts();
    }

    /// A life of the logs is about to end.
    pub fn life_ends(&mut self, disk: &Disk) {
        self.lives.note_gone(&self.truth, |(shard, index)| {
            let (damaged, expired) = disk.is_gone(shard, index);
            damaged || expired
        });
    }

    /// The logs of a dead server are an older copy of themselves, or begin a new life as they
    /// are. What is not in them is lost, and what was said of it forgotten.
    pub fn life_ended(&mut self, disk: &Disk, lives: BTreeMap<ShardId, Incarnation>, shards: u16) {
        let before = std::mem::take(&mut self.truth);
        self.reread(disk, shards);
        self.lives.end((lives, shards), &before, &self.truth);
        self.newcomers.life_ended();
        self.acked.forget_lost(&self.truth);
        self.ids.forget_lost(&self.truth);
        self.keys.forget_lost(&self.truth);
    }

    /// An ack leaves the server for this device.
    pub fn ack_leaves(&mut self, disk: &Disk, sender: Device, ack: &SendAck) {
        let found = self.truth.get(ack.channel, ack.id.get()).cloned();
        let matching = found.filter(|(fact, _)| {
            (fact.sender, fact.key, fact.time) == (sender, ack.key(), ack.server_time.get())
        });
        let Some((fact, place)) = matching else {
            let wrong = format!("{sender:?} gets an ack that no record stands behind: {ack:?}");
            return self.judge("acked", Err(wrong));
        };
        self.judge("durable", is_durable(disk, place, &format!("the ack of {fact}")));
        let verdict = self.keys.acked(&fact);
        self.judge("keys", verdict);
        let verdict = self.ids.shown(&fact);
        self.judge("ids", verdict);
        self.acked.promise(&fact);
    }

    /// A push leaves the server for this device, on this connection. At most `messages_max` may be
    /// under way; `is_steady`: the server's clock does not leap.
    pub fn push_leaves(
        &mut self,
        disk: &Disk,
        (device, link): (Device, u64),
        place: Place,
        body: &[u8],
        (messages_max, is_steady): (u32, bool),
    ) {
        let Some(fact) = Fact::of(body) else {
            return self.judge("ids", Err(format!("a push of {place:?}, which is no message")));
        };
        let fact = self.sends.labelled(fact);
        self.judge("members", to_member(&self.truth, &fact, device));
        let verdict = self.recalls.pushed(&self.truth, &fact, (device.uin, link));
        self.judge("recalls", verdict);
        self.judge("durable", is_durable(disk, place, &format!("the push of {fact}")));
        let verdict = self.ids.shown(&fact);
        self.judge("ids", verdict);
        let verdict = self.bounds.pushed(link, fact.channel, fact.id, messages_max);
        self.judge("bounds", verdict);
        let verdict = self.flow.leaves(link, fact.channel, (fact.id, fact.id));
        self.judge("flow", verdict);
        let is_gone = |(shard, index)| disk.is_gone(shard, index) != (false, false);
        let (to, at) = ((link, device.uin), (fact.channel, fact.id));
        let verdict = self.newcomers.pushed((&self.truth, is_gone), to, at, is_steady);
        self.judge("newcomers", verdict);
    }

    /// A gap leaves the server for this user, on this connection.
    pub fn gap_leaves(
        &mut self,
        (uin, link): (Uin, u64),
        channel: ChannelId,
        range: (u64, u64),
        code: Code,
    ) {
        let verdict = self.flow.leaves(link, channel, range);
        self.judge("flow", verdict);
        let verdict = self.newcomers.stepped(link, channel, range, code);
        self.judge("newcomers", verdict);
        self.bounds.stepped(link, channel, range);
        self.recalls.told(link, uin, channel, range.1);
        self.marks.delivered(&self.truth, uin, channel, range.1);
    }

    /// The server says anything on a connection.
    pub fn said(&mut self, link: u64, now: u64) {
        self.judge("fenced", self.fenced.said(link, now));
    }

    /// A login is answered on this connection.
    pub fn login_leaves(
        &mut self,
        disk: &Disk,
        device: Device,
        (epoch, resumed): (Epoch, bool),
        (link, now): (u64, u64),
    ) {
        self.fenced.logged_in(device, epoch, link, now);
        self.recalls.logged_in(link, device.uin);
        let verdict = if resumed {
            self.epochs.resumed(device, epoch)
        } else {
            self.epochs.granted(&self.truth, disk, device, epoch)
        };
        self.judge("epochs", verdict);
    }

    /// A connection reaches the server.
    pub fn link_opened(&mut self, link: u64) {
        self.bounds.opened(link);
    }

    /// The server goes on with the cursors that it knows of the client.
    pub fn cursors_known(&mut self, link: u64) {
        self.newcomers.known(link);
        self.flow.known(link);
        self.bounds.known(link);
    }

    /// A cursor of this user's device arrives at the server.
    pub fn cursor_arrives(&mut self, (uin, link): (Uin, u64), channel: ChannelId, id: u64) {
        self.bounds.told(link, channel, id);
        self.marks.delivered(&self.truth, uin, channel, id);
    }

    /// A client's wish for a range arrives at the server.
    pub fn fetch_arrives(&mut self, link: u64) {
        self.bounds.fetched(link);
    }

    /// A connection is gone.
    pub fn link_closed(&mut self, link: u64) {
        self.bounds.closed(link);
        self.fenced.closed(link);
        self.recalls.closed(link);
        self.marks.closed(link);
        self.histories.closed(link);
        self.newcomers.closed(link);
        self.flow.closed(link);
    }

    /// A process of an install starts with these cursors.
    pub fn process_starts(&mut self, install: u32, cursors: &[(ChannelId, u64)], restored: bool) {
        self.delivery.started(install, cursors.iter().copied(), restored);
        self.cursors.started(install, cursors.iter().copied());
        self.questions.forget(install);
        self.logs.started(install, cursors, restored);
        self.marks.process_starts(install);
        self.blocks.process_starts(install);
        self.last_questions.process_starts(install);
        self.histories.process_starts(install);
    }

    /// The machine gives the application a message.
    /// `shard` is the log of its channel.
    pub fn message_given(&mut self, install: u32, shard: ShardId, message: &Message) {
        let fact = Fact {
            channel: message.position.channel,
            id: message.position.id.0,
            sender: Device { uin: message.sender, device: message.device },
            key: message.key,
            time: message.server_time.0,
            kind: message.kind,
            refers_to: message.refers_to.0,
            content: message.content.to_vec(),
            label: Label::of(message.kind, &message.content),
        };
        let fact = self.sends.labelled(fact);
        let at = (shard, fact.channel, fact.id);
        let stood = self.lives.stood(&self.truth, at, message.position.incarnation);
        let verdict = self.delivery.given(stood, install, &fact);
        self.judge("delivery", verdict);
        self.logs.given(install, fact);
    }

    /// The application shows a message.
    pub fn message_shown(&mut self, install: u32, channel: ChannelId, id: u64) {
        let verdict = self.delivery.shown(install, channel, id);
        self.judge("delivery", verdict);
        self.logs.shown(install, channel, id);
    }

    /// The application says that it has consumed up to here.
    pub fn consumed(&mut self, install: u32, channel: ChannelId, id: u64) {
        self.cursors.consumed(install, channel, id);
    }

    /// The machine has changes stored.
    pub fn changes_stored(&mut self, install: u32, uin: Uin, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Cursor(at) => {
                    let verdict = self.cursors.stored(install, at.channel, at.id.0);
                    self.judge("cursors", verdict);
                }
                Change::Read(at) => {
                    let mark = (at.incarnation.0, at.id.0);
                    let verdict = self.marks.stored((install, uin), at.channel, mark);
                    self.judge("marks", verdict);
                }
                Change::Send(_)
                | Change::Forget(_)
                | Change::Newcomer(_)
                | Change::Interval { .. } => {}
            }
        }
    }

    /// The machine tells the server a cursor.
    pub fn cursor_told(&mut self, install: u32, channel: ChannelId, id: u64, on_disk: u64) {
        self.judge("cursors", Cursors::told(install, channel, id, on_disk));
    }

    /// The application is told a result; `hurt` if the shard it was sent to has damaged or deleted
    /// messages, on which an answer may rest that is unknown then.
    pub fn result_told(
        &mut self,
        install: u32,
        device: Device,
        result: &SendResult,
        due: Due,
        hurt: bool,
    ) {
        let copied = self.is_copied(device);
        let by_rules = |code: &Code| self.is_by_rules(result.channel, *code);
        // What was refused by rules before, and forgotten by both sides, is closed once a younger
        // message of its device stands in its channel.
        let younger = self.truth.newest_key(result.channel, device);
        let is_behind = |key: SendKey| {
            younger.is_some_and(|younger| younger.epoch == key.epoch && younger > key)
        };
        let is_known = |code: &Code| {
            by_rules(code) || *code == Code::KeyClosed && result.key.is_some_and(is_behind)
        };
        let said = match (result.outcome, result.key) {
            (SendOutcome::Refused(code), Some(key)) => {
                Some(code).filter(|code| self.keys.was_refused_by(device, key, *code))
            }
            _ => None,
        };
        let said = said.filter(is_known);
        if let (SendOutcome::Refused(code), Some(key)) = (result.outcome, result.key)
            && by_rules(&code)
        {
            self.keys.refusal_told(device, key, code);
        }
        let history = (&self.truth, &self.lives);
        let verdict = self.honesty.told(history, install, result, (due, said), copied, hurt);
        self.judge("honesty", verdict);
    }

    /// The application is told something that an honest device in this world never hears.
    pub fn misfortune(&mut self, disk: &Disk, (install, device): (u32, Device), event: &Event) {
        let verdict = match event {
            Event::Gap { channel, from, to, code } => {
                self.cursors.stepped(install, *channel, (from.0, to.0));
                let in_order = self.delivery.stepped(install, *channel, (from.0, to.0));
                self.judge("delivery", in_order);
                self.logs.stepped(install, *channel, (from.0, to.0), *code);
                if *code == Code::Skipped {
                    let verdict = self.may_skip(install, (*channel, to.0));
                    return self.judge("newcomers", verdict);
                }
                let who = (install, device);
                let mut ids = from.0..=to.0;
                ids.try_for_each(|id| self.may_step_over(disk, who, (*channel, id), *code))
            }
            Event::HistoryRestarted { channel, at } => {
                self.delivery.restarted(install, *channel, at.0);
                self.cursors.restarted(install, *channel, at.0);
                self.logs.restarted(install, *channel, at.0);
                let is_damaged = |id| match self.truth.get(*channel, id) {
                    // A word of an earlier life may come late.
                    _ if self.lives.was_gone((*channel, id)) => true,
                    Some((_, (shard, index))) => disk.is_gone(*shard, *index).0,
                    None => false,
                };
                match self.ends_for(device, (*channel, at.0)) {
                    true => Ok(()),
                    false => Honesty::restarted(&self.lives, install, (*channel, at.0), is_damaged),
                }
            }
            Event::ServerError { code, kind } => Honesty::error(install, *code, *kind),
            Event::GroupPage(page) => return self.page_told(install, device, page),
            Event::GroupRefused { channel, code } => {
                return self.page_refused(install, device, (*channel, *code));
            }
            Event::Blocked { uin, refused, .. } => demand(refused.is_none(), || {
                format!("{} may not change whether it blocks {uin}: {refused:?}", device.uin)
            }),
            Event::BlockPage(page) => return self.block_page_told(install, device.uin, page),
            Event::Read(at) => {
                let verdict = self.marks.confirmed(device.uin, at.channel, at.id.0);
                return self.judge("marks", verdict);
            }
            Event::Receipt(receipt) => {
                let restarted = self.lives.restarted_at(receipt.channel).next().is_some();
                let verdict = self.marks.receipt(install, receipt, restarted);
                return self.judge("marks", verdict);
            }
            // Heard elsewhere, or of no interest to a device that knows its numbers.
            Event::Message(_)
            | Event::Result(_)
            | Event::State(_)
            | Event::GroupReceipts(_)
            | Event::History(_)
            | Event::Unread(_)
            | Event::Identity { .. } => Ok(()),
        };
        self.judge("honesty", verdict);
    }

    /// An install is told that this id never comes.
    fn may_step_over(
        &self,
        disk: &Disk,
        (install, device): (u32, Device),
        (channel, id): (ChannelId, u64),
        code: Code,
    ) -> Verdict {
        let is_recalled = |fact: &Fact| {
            code == Code::Recalled && self.lives.was_recalled(channel, fact.original())
        };
        match self.truth.get(channel, id) {
            _ if code == Code::NotVisible => {
                let now = self.truth.group(channel).into_iter();
                let histories = now.chain(self.lives.groups_of(channel));
                group_checks::hidden(histories, device, (channel, id))
            }
            _ if self.lives.was_gone((channel, id)) => Ok(()),
            Some((fact, _)) if is_recalled(fact) => Ok(()),
            Some((fact, _)) if code == Code::Recalled => {
                recall_checks::is_gap(&self.truth, install, fact)
            }
            Some((fact, (shard, index))) => {
                Honesty::gap(install, fact, code, disk.is_gone(*shard, *index))
            }
            None => Err(format!("install {install} is told {code} of {channel}#{id}")),
        }
    }

    /// The machine ended.
    pub fn machine_ended(&mut self, install: u32, device: Device, end: End) {
        let copied = self.is_copied(device);
        self.judge("honesty", Honesty::ended(install, end, copied));
    }

    /// A machine has this many sends with a key.
    pub fn sends_kept(&mut self, install: u32, with_key: usize) {
        self.judge("bounds", Bounds::sends(install, with_key));
    }

    /// What an install has of a channel is all that its user is to have, and another device of him
    /// has the same.
    pub fn compare_logs(
        &mut self,
        disk: &Disk,
        (install, device): (u32, Device),
        twin: Option<u32>,
        channel: ChannelId,
    ) {
        let Some((first, last)) = self.due(disk, device, channel) else { return };
        let verdict = self.logs.is_whole(&self.truth, install, (channel, first, last));
        self.judge("logs", verdict);
        let Some(twin) = twin else { return };
        match self.logs.are_same(install, twin, channel) {
            Ok(compared) => self.compared += compared,
            Err(differs) => self.judge("logs", Err(differs)),
        }
    }

    /// The healed world came to rest, or did not; `missing` says what is left.
    pub fn at_rest(&mut self, missing: Option<String>) {
        let verdict = demand(missing.is_none(), || missing.unwrap_or_default());
        self.judge("liveness", verdict);
        let verdict = self.acked.check(&self.truth);
        self.judge("acked", verdict);
    }
}
