//! Who plays whom: users, devices, groups and send keys of a capture, and those of the server that
//! it is replayed against.
//!
//! A frame of the capture goes in; out comes the frame that says the same here, or why it can't be
//! said yet, or not at all. Ids of messages are the server's own, so what names them is said of
//! what the device itself has read here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use tern_protocol::digest::UNSAID;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    Block, BlockList, Cursor, GroupInfo, Hello, HistoryAsk, Login, MarksAsk, Ping, ReadMark,
    ReceiptsAsk, Send, action, message_kind,
};
use tern_protocol::group::{CHANGE_BYTES_MAX, ChangeView, channel_of};
use tern_protocol::limits::UNACKED_SENDS_MAX;
use tern_protocol::{ChannelId, Epoch, Flags, Frame, Kind, MessageId, SendCounter, SendKey, Uin};
use zerocopy::little_endian::U64;
use zerocopy::{Immutable, IntoBytes};

use super::puppet::Puppet;
use super::recording::{Recording, Step, Who};
use crate::load::Identity;

/// What becomes of a frame of the capture.
#[derive(Debug)]
pub enum Line {
    /// It is said like this.
    Say(Bytes),
    /// The same message again: as it was said here the first time.
    Again(Bytes),
    /// It is about what this device has read, which the puppet says itself.
    ReceiveAck,
    /// The same for all cursors.
    Cursors,
    /// It can't be said before something else was answered.
    Wait,
    /// It can't be said, for this reason.
    LeaveOut(&'static str),
}

/// A message that was said here.
pub struct Sent {
    /// Its key here.
    pub key: SendKey,
    /// The frame.
    pub frame: Bytes,
    /// When it was said last.
    pub at: Instant,
    /// When it was said first.
    pub first: Instant,
    /// The group that it changes.
    pub changes: Option<ChannelId>,
}

/// A device of the capture, as it is played.
pub struct Actor {
    identity: Identity,
    /// Of its newest login here.
    pub epoch: Option<Epoch>,
    counter: u32,
    predecessors: BTreeMap<ChannelId, u32>,
    /// Keys of the capture, and the frames that stand for them here.
    keys: HashMap<SendKey, Bytes>,
    /// Ids that messages got here, by their keys here.
    ids: HashMap<SendKey, MessageId>,
    /// Messages without an answer, in the order of their keys.
    pub unanswered: VecDeque<Sent>,
}

/// All of them.
pub struct Cast {
    actors: BTreeMap<Who, Actor>,
    users: BTreeMap<Uin, Uin>,
    /// Groups that were made here.
    groups: BTreeMap<ChannelId, ChannelId>,
    /// Changes of each group of the capture that were answered here, or left out.
    changed: BTreeMap<ChannelId, u64>,
    /// Groups that the capture makes.
    made: Vec<ChannelId>,
    /// Who sent the messages of the capture that have an id there, and under which key.
    authors: BTreeMap<(ChannelId, MessageId), (Who, SendKey)>,
}

/// It names a group that the capture does not make.
const STRANGE_GROUP: &str = "groups that the capture does not make";

/// It names a user whom nobody writes to.
const STRANGE_USER: &str = "users whom no message of the capture names";

/// It names messages by ids of the captured server.
const STRANGE_ID: &str = "ids of the captured server";

impl Cast {
    /// Each device of the recording, played by one of the server.
    pub fn new(recording: &Recording, players: &[(Who, Identity)]) -> Self {
        let actors = players.iter().map(|(who, identity)| (*who, Actor::new(identity.clone())));
        let made = recording.steps.iter().filter_map(made_by).collect();
        Self {
            actors: actors.collect(),
            users: players.iter().map(|(who, identity)| (who.0, identity.uin)).collect(),
            groups: BTreeMap::new(),
            changed: BTreeMap::new(),
            made,
            authors: recording.ids.clone(),
        }
    }

    /// A device.
    pub fn actor(&mut self, who: Who) -> Option<&mut Actor> {
        self.actors.get_mut(&who)
    }

    /// All devices.
    pub fn actors(&mut self) -> impl Iterator<Item = (&Who, &mut Actor)> {
        self.actors.iter_mut()
    }

    /// A change of this group was answered, or is never said.
    pub fn note_change(&mut self, group: ChannelId) {
        *self.changed.entry(group).or_default() += 1;
    }

    /// What stands for a frame of the capture here.
    pub fn line(&mut self, now: Instant, who: Who, step: &Step, puppet: &Puppet) -> Line {
        match step.kind {
            Kind::Login | Kind::TokenLogin | Kind::Resume => return self.login(who),
            Kind::ReceiveAck => return Line::ReceiveAck,
            _ => {}
        }
        let frame = step.frame.as_deref().map(Frame::parse);
        let Some(Ok((frame, flags))) = frame else {
            return Line::LeaveOut("frames that can't be taken apart");
        };
        match frame {
            Frame::Hello(hello) => {
                said(flags, Kind::Hello, &Hello { digest: UNSAID.into(), ..*hello })
            }
            Frame::Close(..) => {
                Line::Say(Bytes::copy_from_slice(step.frame.as_deref().unwrap_or(&[])))
            }
            _ if self.actors.get(&who).is_none_or(|actor| actor.epoch.is_none()) => Line::Wait,
            Frame::Send(send, content) => self.send(now, who, step, (send, content)),
            Frame::Cursors(_) if flags == Flags::LAST => Line::Cursors,
            Frame::Cursors(_) => Line::LeaveOut("parts of lists of cursors, which are said in one"),
            Frame::Ping(ping) => {
                said(flags, Kind::Ping, &Ping { digest: puppet.digest().into(), ..*ping })
            }
            other => self.ask(&other, flags, step, puppet),
        }
    }

    fn login(&self, who: Who) -> Line {
        let Some(Actor { identity, .. }) = self.actors.get(&who) else { return Line::Wait };
        let login = Login {
            uin: identity.uin.into(),
            device: identity.device.into(),
            reserved: 0.into(),
            secret: identity.secret,
        };
        said(Flags::NONE, Kind::Login, &login)
    }

    /// What asks or tells something beside messages.
    fn ask(&self, frame: &Frame<'_>, flags: Flags, step: &Step, puppet: &Puppet) -> Line {
        let own = |channel: ChannelId| {
            let channel = self.channel(channel)?;
            Some((channel, puppet.readings.get(&channel)?.entry(channel)))
        };
        let line = match frame {
            Frame::Read(marks) => {
                let marks: Vec<ReadMark> = marks
                    .iter()
                    .filter_map(|mark| {
                        let (channel, Cursor { id, incarnation, .. }) = own(mark.channel)?;
                        Some(ReadMark { channel, id, incarnation, ..*mark })
                    })
                    .collect();
                (!marks.is_empty()).then(|| listed(flags, Kind::Read, marks.as_bytes()))
            }
            Frame::UnreadAsk(list) => {
                let list = list.iter().filter_map(|one| own(one.channel).map(|(_, entry)| entry));
                let list: Vec<Cursor> = list.collect();
                (!list.is_empty()).then(|| listed(flags, Kind::UnreadAsk, list.as_bytes()))
            }
            Frame::ReceiptsAsk(ask) => own(ask.channel).map(|(channel, Cursor { id, .. })| {
                said(flags, Kind::ReceiptsAsk, &ReceiptsAsk { channel, id })
            }),
            Frame::HistoryAsk(ask) => own(ask.channel).map(|(channel, Cursor { id, .. })| {
                let before = if ask.before.get() == 0 { 0 } else { id.get() };
                let ask = HistoryAsk { channel, before: before.into(), ..**ask };
                said(flags, Kind::HistoryAsk, &ask)
            }),
            Frame::GroupInfo(ask) => self.channel(ask.channel).map(|channel| {
                let after = self.users.get(&Uin(ask.after.get())).map_or(0, |uin| uin.0);
                said(flags, Kind::GroupInfo, &GroupInfo { channel, after: after.into() })
            }),
            Frame::MarksAsk(_) => {
                Some(said(flags, Kind::MarksAsk, &MarksAsk { life: 0.into(), since: 0.into() }))
            }
            Frame::Block(block) => {
                let uin = self.users.get(&Uin(block.uin.get()));
                let uin = uin.map(|uin| Block { uin: uin.0.into(), ..**block });
                return uin.map_or(Line::LeaveOut(STRANGE_USER), |block| {
                    said(flags, Kind::Block, &block)
                });
            }
            Frame::BlockList(list) => {
                let after = self.users.get(&Uin(list.after.get())).map_or(0, |uin| uin.0);
                Some(said(flags, Kind::BlockList, &BlockList { after: after.into() }))
            }
            Frame::HistoryWanted(_) | Frame::Unknown(..) => {
                step.frame.as_deref().map(|frame| Line::Say(Bytes::copy_from_slice(frame)))
            }
            _ => None,
        };
        line.unwrap_or(Line::LeaveOut(STRANGE_ID))
    }

    /// A channel here; `None` if a user or group of it is not known.
    fn channel(&self, channel: ChannelId) -> Option<ChannelId> {
        match channel.members() {
            Some((low, high)) => {
                Some(ChannelId::direct(*self.users.get(&low)?, *self.users.get(&high)?))
            }
            None => self.groups.get(&channel).copied(),
        }
    }

    fn send(
        &mut self,
        now: Instant,
        who: Who,
        step: &Step,
        (send, content): (&Send, &[u8]),
    ) -> Line {
        let Some(actor) = self.actors.get(&who) else { return Line::Wait };
        if let Some(frame) = actor.keys.get(&send.key()) {
            return Line::Again(frame.clone());
        }
        let Some(key) = actor.next_key() else { return Line::Wait };
        let is_change = send.kind == message_kind::CHANGE;
        let makes =
            made_by(step).map(|_| channel_of(actor.identity.uin, actor.identity.device, key));
        let channel = match makes.or_else(|| self.channel(send.channel)) {
            Some(channel) => channel,
            None if self.made.contains(&send.channel) => return Line::Wait,
            None => return Line::LeaveOut(STRANGE_GROUP),
        };
        let changed = self.changed.get(&send.channel).copied().unwrap_or(0);
        if send.channel.is_group() && changed < step.changes_before {
            return Line::Wait;
        }
        let refers_to = match self.id_here(send.channel, send.refers_to.into()) {
            Ok(Some(id)) => id,
            Ok(None) => return Line::Wait,
            Err(why) => return Line::LeaveOut(why),
        };
        let changed = if is_change { self.change(content) } else { Some(content.to_vec()) };
        let Some(content) = changed else { return Line::LeaveOut(STRANGE_USER) };
        if makes.is_some() {
            self.groups.insert(send.channel, channel);
        }
        let actor = self.actors.get_mut(&who).expect("it was just there");
        let changes = is_change.then_some(send.channel);
        Line::Say(actor.send(
            now,
            key,
            (Send { channel, refers_to: refers_to.into(), ..*send }, &content),
            (send.key(), changes),
        ))
    }

    /// What a message of the capture is called here; `None` while it has no answer here.
    fn id_here(
        &self,
        channel: ChannelId,
        id: MessageId,
    ) -> Result<Option<MessageId>, &'static str> {
        if id == MessageId::default() {
            return Ok(Some(id)); // it names none
        }
        let author = self.authors.get(&(channel, id));
        let author = author.and_then(|(who, key)| Some((self.actors.get(who)?, key)));
        let (actor, captured) = author.ok_or(STRANGE_ID)?;
        let Some(key) = actor.keys.get(captured).and_then(key_of) else { return Ok(None) };
        match actor.ids.get(&key) {
            Some(id) => Ok(Some(*id)),
            None if actor.unanswered.iter().any(|sent| sent.key == key) => Ok(None),
            None => Err("edits and recalls of messages that were refused here"),
        }
    }

    /// The content of a change, with the users of this server.
    fn change(&self, content: &[u8]) -> Option<Vec<u8>> {
        let change = ChangeView::parse(content)?;
        let members = change.uins().map(|uin| Some(self.users.get(&uin)?.0));
        let mut members = members.collect::<Option<Vec<u64>>>()?;
        members.sort_unstable();
        let members: Vec<U64> = members.into_iter().map(U64::from).collect();
        let mut buffer = vec![0; CHANGE_BYTES_MAX.max(content.len())];
        let bytes = ChangeView { members: &members, ..change }.encode(&mut buffer);
        buffer.truncate(bytes);
        Some(buffer)
    }
}

impl Actor {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            epoch: None,
            counter: 0,
            predecessors: BTreeMap::new(),
            keys: HashMap::new(),
            ids: HashMap::new(),
            unanswered: VecDeque::new(),
        }
    }

    /// A login was answered.
    pub fn begin(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
        self.counter = 0;
        self.predecessors.clear();
    }

    /// Its connection is gone.
    pub fn leave(&mut self) {
        self.epoch = None;
    }

    /// The key of the next message, if one may be sent now: those of older logins are answered,
    /// and the oldest unanswered one is near enough.
    fn next_key(&self) -> Option<SendKey> {
        let epoch = self.epoch?;
        let oldest = self.unanswered.front().map_or(self.counter + 1, |sent| sent.key.counter.0);
        let is_open = self.unanswered.iter().all(|sent| sent.key.epoch == epoch)
            && self.counter + 1 - oldest < UNACKED_SENDS_MAX;
        is_open.then_some(SendKey { epoch, counter: SendCounter(self.counter + 1) })
    }

    fn send(
        &mut self,
        now: Instant,
        key: SendKey,
        (send, content): (Send, &[u8]),
        (captured, changes): (SendKey, Option<ChannelId>),
    ) -> Bytes {
        self.counter = key.counter.0;
        let predecessor = self.predecessors.insert(send.channel, self.counter).unwrap_or(0);
        let (epoch, counter) = (key.epoch.into(), key.counter.into());
        let head = Send { epoch, counter, predecessor: predecessor.into(), ..send };
        let mut frame = vec![0; frame_bytes::<Send>(content.len())];
        encode(Kind::Send, Flags::NONE, &head, content, &mut frame);
        let frame = Bytes::from(frame);
        self.keys.insert(captured, frame.clone());
        self.unanswered.push_back(Sent { key, frame: frame.clone(), at: now, first: now, changes });
        frame
    }

    /// The message of this key is answered now: it has this id, or it is refused.
    pub fn answer(&mut self, key: SendKey, id: Option<MessageId>) -> Option<Sent> {
        self.ids.extend(id.map(|id| (key, id)));
        let place = self.unanswered.iter().position(|sent| sent.key == key)?;
        self.unanswered.remove(place)
    }
}

/// The key of a message.
fn key_of(frame: &Bytes) -> Option<SendKey> {
    match Frame::parse(frame) {
        Ok((Frame::Send(send, _), _)) => Some(send.key()),
        _ => None,
    }
}

/// The group that a frame makes.
fn made_by(step: &Step) -> Option<ChannelId> {
    let (group, change) = step.change()?;
    (change.head.action == action::CREATE).then_some(group)
}

fn said<T: IntoBytes + Immutable>(flags: Flags, kind: Kind, head: &T) -> Line {
    let mut frame = vec![0; frame_bytes::<T>(0)];
    encode(kind, flags, head, &[], &mut frame);
    Line::Say(frame.into())
}

fn listed(flags: Flags, kind: Kind, list: &[u8]) -> Line {
    let mut frame = vec![0; frame_bytes::<()>(list.len())];
    encode(kind, flags, &(), list, &mut frame);
    Line::Say(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tern_protocol::DeviceId;
    use tern_protocol::frames::Change;

    const ANN: Who = (Uin(70), DeviceId(1));
    const BOB: Who = (Uin(50), DeviceId(4));

    /// The key in the capture of the message that has id 40 there.
    const OLD: SendKey = SendKey { epoch: Epoch(9), counter: SendCounter(8) };

    fn step(kind: Kind, frame: Vec<u8>, changes_before: u64) -> Step {
        let (at, connection, by_datagram) = (Duration::ZERO, 0, false);
        Step { at, connection, kind, by_datagram, frame: Some(frame), changes_before }
    }

    fn send(channel: ChannelId, counter: u32, kind: u8, content: &[u8]) -> Vec<u8> {
        let head = Send {
            channel,
            epoch: 9.into(),
            counter: counter.into(),
            predecessor: 0.into(),
            content_type: 0.into(),
            kind,
            version: 1,
            refers_to: 0.into(),
        };
        let mut frame = vec![0; frame_bytes::<Send>(content.len())];
        encode(Kind::Send, Flags::NONE, &head, content, &mut frame);
        frame
    }

    fn creation(group: ChannelId, member: Uin) -> Vec<u8> {
        let head = Change {
            action: action::CREATE,
            role: 0,
            settings: 0,
            reserved: 0,
            members: 1.into(),
            name_bytes: 1.into(),
            until: 0.into(),
        };
        let mut content = vec![0; CHANGE_BYTES_MAX];
        let view = ChangeView { head: &head, members: &[member.0.into()], name: b"g" };
        let bytes = view.encode(&mut content);
        send(group, 1, message_kind::CHANGE, &content[..bytes])
    }

    /// Ann, now user 1, and Bob, now user 2.
    fn cast(steps: Vec<Step>) -> Cast {
        let identity = |uin| Identity { uin: Uin(uin), device: DeviceId(1), secret: [0; 32] };
        let recording = Recording {
            steps,
            connections: Vec::new(),
            ids: BTreeMap::from([((ChannelId::direct(ANN.0, BOB.0), MessageId(40)), (ANN, OLD))]),
            users: BTreeMap::new(),
        };
        let mut cast = Cast::new(&recording, &[(ANN, identity(1)), (BOB, identity(2))]);
        for who in [ANN, BOB] {
            cast.actor(who).expect("both play").begin(Epoch(3));
        }
        cast
    }

    fn said(line: Line) -> Bytes {
        match line {
            Line::Say(frame) | Line::Again(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    fn head(frame: &Bytes) -> (ChannelId, u32, u32, u32) {
        match Frame::parse(frame) {
            Ok((Frame::Send(send, _), _)) => {
                (send.channel, send.epoch.get(), send.counter.get(), send.predecessor.get())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_get_the_keys_and_users_of_this_server() {
        let (mut cast, puppet, now) = (cast(Vec::new()), Puppet::default(), Instant::now());
        let channel = ChannelId::direct(ANN.0, BOB.0);
        let frames = [8, 9, 8].map(|counter| step(Kind::Send, send(channel, counter, 1, b"x"), 0));
        let lines = frames.each_ref().map(|step| cast.line(now, ANN, step, &puppet));
        assert!(matches!(lines[2], Line::Again(_)), "the key of the first");
        let [first, second, again] = lines.map(said);
        let here = ChannelId::direct(Uin(1), Uin(2));
        assert_eq!((head(&first), head(&second)), ((here, 3, 1, 0), (here, 3, 2, 1)));
        assert_eq!(first, again);
        let actor = cast.actor(ANN).expect("she plays");
        assert_eq!(actor.unanswered.len(), 2);
        actor.begin(Epoch(4));
        let next = step(Kind::Send, send(channel, 10, 1, b"x"), 0);
        assert!(matches!(cast.line(now, ANN, &next, &puppet), Line::Wait), "older keys first");
    }

    #[test]
    fn a_group_is_there_once_its_changes_are_answered() {
        let group = ChannelId::group(77);
        let make = step(Kind::Send, creation(group, BOB.0), 0);
        let (mut cast, puppet, now) = (cast(vec![make.clone()]), Puppet::default(), Instant::now());
        let word = step(Kind::Send, send(group, 1, 1, b"hello"), 1);
        assert!(matches!(cast.line(now, BOB, &word, &puppet), Line::Wait), "it is not made");
        let made = said(cast.line(now, ANN, &make, &puppet));
        let key = SendKey { epoch: Epoch(3), counter: SendCounter(1) };
        let here = channel_of(Uin(1), DeviceId(1), key);
        assert_eq!(head(&made).0, here);
        let Ok((Frame::Send(_, content), _)) = Frame::parse(&made) else { panic!("{made:?}") };
        let members: Vec<Uin> = ChangeView::parse(content).expect("a change").uins().collect();
        assert_eq!(members, [Uin(2)]);
        assert!(matches!(cast.line(now, BOB, &word, &puppet), Line::Wait), "nor answered");
        let sent = cast
            .actor(ANN)
            .and_then(|actor| actor.answer(key, Some(MessageId(1))))
            .expect("it was said");
        assert_eq!(sent.changes, Some(group));
        cast.note_change(group);
        assert_eq!(head(&said(cast.line(now, BOB, &word, &puppet))).0, here);
    }

    #[test]
    fn a_recall_names_what_it_names_by_its_id_here() {
        let (mut cast, puppet, now) = (cast(Vec::new()), Puppet::default(), Instant::now());
        let channel = ChannelId::direct(ANN.0, BOB.0);
        let recall = |id: u64| {
            let mut frame = send(channel, 1, message_kind::RECALL, &[]);
            let end = frame.len();
            frame[end - 8..].copy_from_slice(&id.to_le_bytes()); // `refers_to` is the last field
            step(Kind::Send, frame, 0)
        };
        assert!(matches!(cast.line(now, BOB, &recall(41), &puppet), Line::LeaveOut(STRANGE_ID)));
        assert!(matches!(cast.line(now, BOB, &recall(40), &puppet), Line::Wait), "it is not said");
        let first = step(Kind::Send, send(channel, 8, 1, b"x"), 0);
        said(cast.line(now, ANN, &first, &puppet));
        assert!(matches!(cast.line(now, BOB, &recall(40), &puppet), Line::Wait), "nor answered");
        let key = SendKey { epoch: Epoch(3), counter: SendCounter(1) };
        cast.actor(ANN).and_then(|actor| actor.answer(key, Some(MessageId(7)))).expect("it was");
        let here = said(cast.line(now, BOB, &recall(40), &puppet));
        let Ok((Frame::Send(head, _), _)) = Frame::parse(&here) else { panic!("{here:?}") };
        assert_eq!(head.refers_to.get(), 7);
    }

    #[test]
    fn what_names_strangers_is_left_out() {
        let (mut cast, puppet, now) = (cast(Vec::new()), Puppet::default(), Instant::now());
        let strange = step(Kind::Send, send(ChannelId::group(5), 1, 1, b"x"), 0);
        assert!(matches!(cast.line(now, ANN, &strange, &puppet), Line::LeaveOut(STRANGE_GROUP)));
        let damaged = step(Kind::Send, vec![1, 0, 0x10, 0, 9], 0);
        assert!(matches!(cast.line(now, ANN, &damaged, &puppet), Line::LeaveOut(_)));
    }
}
