//! How far the user has read, here and on his other devices, and how far others have.
//!
//! Invariants: a mark is set only to what the application was given, and stored before the server
//! may lose it; what the server does not confirm is said again on each connection; of what it
//! tells only news goes on to the application. One question is under way at a time, and one that
//! a lost connection took along is asked again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tern_protocol::frames::{ChannelState, Mark, Marks as MarksHead, Receipts, UnreadCount};
use tern_protocol::limits::{CURSORS_PER_FRAME_MAX, UNREAD_CHANNELS_MAX};
use tern_protocol::{ChannelId, Code, Incarnation, Kind, MessageId, Uin};
use zerocopy::FromBytes;

use super::frames;
use super::io::{Change, Event, Position};
use super::mailbox::BadFrame;
use super::out::Out;
use super::time::Mono;
use super::tuning::Tuning;
use crate::marks::{Receipt, Which};

/// After this long in ms it is said again what was read of a channel that the server did not know
/// to be this user's: a server that starts asks for the members of groups once a second.
const READ_AGAIN_MS: u64 = 2_000;

/// That wait grows with each refusal on a connection, and is doubled at most so often: nine
/// minutes between two frames are no load.
const READ_AGAIN_DOUBLINGS: u32 = 8;

/// All marks that the device knows.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Of this user.
    own: BTreeMap<ChannelId, Own>,
    /// Of the others in direct channels, with the life of the history.
    others: BTreeMap<ChannelId, (Incarnation, Receipt)>,
    /// Up to where the server's changes are known.
    life: u64,
    as_of: u64,
    /// The life of an answer that is under way.
    answering: u64,
    /// Whether the server can do all this.
    offered: bool,
    /// Whether the server has told on this connection what changed before.
    is_synced: bool,
    /// When it is asked for that again, if it did not answer.
    ask_again: Option<Mono>,
    /// Channels whose mark the server is to be told, and when.
    unsaid: BTreeSet<ChannelId>,
    say_due: Option<Mono>,
    /// The server refused the last ones for their number: nothing is said before it is due.
    is_held: bool,
    /// When what the server does not have is said once more; what is read meanwhile need not wait
    /// for that.
    all_due: Option<Mono>,
    /// How often the server did not know yet, on this connection, that the user may read.
    ungranted: u32,
    asks: VecDeque<Ask>,
    is_under_way: bool,
}

/// The mark of this user in a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    incarnation: Incarnation,
    read: MessageId,
    /// What of it the server is known to have.
    confirmed: MessageId,
    /// What the server told of another life of the history, before CHANNEL said where that begins
    /// and so what of `read` still holds in it.
    ahead: Option<(Incarnation, MessageId)>,
}

impl Own {
    /// The server has it up to `id`, of the life that is known here.
    fn confirm(&mut self, channel: ChannelId, id: MessageId, out: &mut Out) {
        if id <= self.confirmed {
            return;
        }
        self.confirmed = id;
        let at = Position { channel, id, incarnation: self.incarnation };
        if id > self.read {
            self.read = id;
            out.change(Change::Read(at));
        }
        out.tell(Event::Read(at));
    }
}

/// A question of the application.
#[derive(Debug)]
enum Ask {
    Receipts(ChannelId, MessageId),
    Unread(Which),
}

impl Ask {
    fn kind(&self) -> Kind {
        match self {
            Self::Receipts(..) => Kind::ReceiptsAsk,
            Self::Unread(_) => Kind::UnreadAsk,
        }
    }

    fn refuse(&self, code: Code, out: &mut Out) {
        out.tell(match self {
            Self::Receipts(..) => Event::GroupReceipts(Err(code)),
            Self::Unread(_) => Event::Unread(Err(code)),
        });
    }
}

impl Marks {
    /// The marks as the last process left them.
    pub(crate) fn new(reads: Vec<Position>) -> Self {
        let own = reads.into_iter().map(|at| {
            let Position { channel, id, incarnation } = at;
            (channel, Own { incarnation, read: id, ..Own::default() })
        });
        Self { own: own.collect(), ..Self::default() }
    }

    /// What the server can do.
    pub(crate) fn offer(&mut self, offered: bool) {
        self.offered = offered;
    }

    /// A connection begins: the server is asked what changed.
    pub(crate) fn logged_in(&mut self, out: &mut Out) {
        if self.offered {
            out.transmit(frames::marks_ask(self.life, self.as_of));
        }
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        (self.is_synced, self.is_under_way) = (false, false);
        (self.ask_again, self.say_due, self.answering) = (None, None, 0);
        (self.ungranted, self.is_held, self.all_due) = (0, false, None);
        self.unsaid.clear();
    }

    /// The user has read everything up to here, which the application was given.
    pub(crate) fn read(&mut self, now: Mono, at: Position, tuning: &Tuning, out: &mut Out) {
        let own = self.own.entry(at.channel).or_default();
        if own.incarnation != at.incarnation {
            *own = Own { incarnation: at.incarnation, ..Own::default() };
        }
        if at.id > own.read {
            own.read = at.id;
            out.change(Change::Read(at));
            self.say(now, at.channel, tuning);
        }
    }

    fn say(&mut self, now: Mono, channel: ChannelId, tuning: &Tuning) {
        if self.is_synced {
            self.unsaid.insert(channel);
            self.say_due = self.say_due.or(Some(now.after_ms(tuning.read_ms)));
        }
    }

    /// The application asks.
    pub(crate) fn ask_receipts(&mut self, channel: ChannelId, id: MessageId) {
        self.asks.push_back(Ask::Receipts(channel, id));
    }

    /// The application asks.
    pub(crate) fn ask_unread(&mut self, which: Which) {
        self.asks.push_back(Ask::Unread(which));
    }

    /// Lets leave what may leave now.
    pub(crate) fn flow(&mut self, now: Mono, tuning: &Tuning, out: &mut Out) {
        if !self.offered {
            self.asks.drain(..).for_each(|ask| ask.refuse(Code::UnknownKind, out));
            return;
        }
        if self.ask_again.is_some_and(|at| at <= now) {
            self.ask_again = None;
            self.logged_in(out);
        }
        if self.is_synced && !self.is_under_way {
            self.ask_next(out);
        }
        if self.all_due.is_some_and(|at| at <= now) {
            self.all_due = None;
            self.say_all_again(now);
        }
        let may_join = out.has_transmitted() && !self.is_held;
        if self.say_due.is_some_and(|due| due <= now || may_join) {
            self.say_now(tuning, out);
        }
    }

    fn say_now(&mut self, tuning: &Tuning, out: &mut Out) {
        (self.say_due, self.is_held) = (None, false);
        let position = |channel| {
            let own: &Own = &self.own[&channel];
            Position { channel, id: own.read, incarnation: own.incarnation }
        };
        let list: Vec<Position> =
            std::mem::take(&mut self.unsaid).into_iter().map(position).collect();
        for page in list.chunks(CURSORS_PER_FRAME_MAX) {
            out.transmit(frames::read(page, tuning.quiet_reads));
        }
    }

    fn ask_next(&mut self, out: &mut Out) {
        let Some(ask) = self.asks.front() else { return };
        let frame = match ask {
            Ask::Receipts(channel, id) => frames::receipts_ask(*channel, *id),
            Ask::Unread(Which::These(channels)) => frames::unread_ask(&self.positions(channels)),
            Ask::Unread(Which::After(after)) => {
                let behind = self.own.keys().filter(|channel| Some(**channel) > *after);
                let channels: Vec<ChannelId> = behind.take(UNREAD_CHANNELS_MAX).copied().collect();
                frames::unread_ask(&self.positions(&channels))
            }
        };
        self.is_under_way = true;
        out.transmit(frame);
    }

    fn positions(&self, channels: &[ChannelId]) -> Vec<Position> {
        let position = |channel: &ChannelId| {
            let own = self.own.get(channel).copied().unwrap_or_default();
            Position { channel: *channel, id: own.read, incarnation: own.incarnation }
        };
        channels.iter().map(position).collect()
    }

    /// A MARKS; `me` is this device's user.
    pub(crate) fn handle_marks(
        &mut self,
        now: Mono,
        (head, rest): (&MarksHead, &[u8]),
        (is_last, me): (bool, Uin),
        tuning: &Tuning,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let marks = <[Mark]>::ref_from_bytes(rest).map_err(|_| BadFrame)?;
        if marks.iter().any(|mark| !mark.channel.is_valid()) {
            return Err(BadFrame);
        }
        let life = head.life.get();
        if life != 0 && life != self.life && life != self.answering {
            // The server began anew, and tells all: what it does not tell it does not have.
            for own in self.own.values_mut() {
                (own.confirmed, own.ahead) = (MessageId(0), None);
            }
            self.answering = life;
        }
        for mark in marks {
            if Uin::from(mark.uin) == me {
                self.handle_own(mark, out);
            } else {
                self.handle_other(mark, out);
            }
        }
        if is_last && life != 0 {
            (self.life, self.as_of) = (life, head.as_of.get());
            self.is_synced = true;
        }
        let behind = |(_, own): &(&ChannelId, &Own)| own.confirmed < own.read;
        let unsaid: Vec<ChannelId> =
            self.own.iter().filter(behind).map(|(channel, _)| *channel).collect();
        if is_last {
            unsaid.into_iter().for_each(|channel| self.say(now, channel, tuning));
        }
        Ok(())
    }

    fn handle_own(&mut self, mark: &Mark, out: &mut Out) {
        let (id, incarnation) = (MessageId::from(mark.read), Incarnation::from(mark.incarnation));
        let own = self.own.entry(mark.channel).or_default();
        if own.incarnation == incarnation {
            own.confirm(mark.channel, id, out);
        } else if own.read == MessageId(0) {
            *own = Own { incarnation, ..Own::default() };
            own.confirm(mark.channel, id, out);
        } else {
            let before = own.ahead.filter(|(life, _)| *life == incarnation);
            own.ahead = Some((incarnation, before.map_or(id, |(_, before)| before.max(id))));
        }
    }

    fn handle_other(&mut self, mark: &Mark, out: &mut Out) {
        let told = Receipt {
            channel: mark.channel,
            uin: mark.uin.into(),
            delivered: mark.delivered.into(),
            read: mark.read.into(),
        };
        let incarnation = Incarnation::from(mark.incarnation);
        let known = self.others.get(&mark.channel).filter(|known| known.0 == incarnation);
        let (delivered, read) =
            known.map_or((MessageId(0), MessageId(0)), |(_, known)| (known.delivered, known.read));
        if told.delivered > delivered || told.read > read {
            let receipt = Receipt {
                delivered: told.delivered.max(delivered),
                read: told.read.max(read),
                ..told
            };
            self.others.insert(mark.channel, (incarnation, receipt));
            out.tell(Event::Receipt(receipt));
        }
    }

    /// A CHANNEL: of another life of the history, what came from where it restarted is void, and
    /// so is what the user may not read any more: that life may have ended his membership before.
    /// Of the same life only the first word of a connection counts.
    pub(crate) fn handle_state(&mut self, state: &ChannelState, is_first: bool, out: &mut Out) {
        let incarnation = Incarnation::from(state.incarnation);
        let Some(own) = self.own.get_mut(&state.channel) else { return };
        let last = MessageId(state.newest.get());
        if own.incarnation == incarnation && (own.read <= last || !is_first) {
            return;
        }
        let read = match own.incarnation == incarnation {
            true => last,
            false => own.read.min(last).min(MessageId(state.restarted_at.get().max(1) - 1)),
        };
        let ahead = own.ahead.filter(|(life, _)| *life == incarnation);
        *own = Own { incarnation, read, ..Own::default() };
        out.change(Change::Read(Position { channel: state.channel, id: read, incarnation }));
        if let Some((_, id)) = ahead {
            own.confirm(state.channel, id, out);
        }
    }

    /// A RECEIPTS.
    pub(crate) fn handle_receipts(
        &mut self,
        counts: &Receipts,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let asked = |ask: &mut Ask| matches!(ask, Ask::Receipts(..));
        self.answered(asked)?;
        out.tell(Event::GroupReceipts(Ok(counts.into())));
        Ok(())
    }

    /// An UNREAD.
    pub(crate) fn handle_unread(
        &mut self,
        counts: &[UnreadCount],
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        self.answered(|ask| matches!(ask, Ask::Unread(_)))?;
        out.tell(Event::Unread(Ok(counts.iter().map(Into::into).collect())));
        Ok(())
    }

    fn answered(&mut self, fits: impl FnOnce(&mut Ask) -> bool) -> Result<(), BadFrame> {
        if !self.is_under_way {
            return Err(BadFrame);
        }
        self.asks.pop_front_if(fits).ok_or(BadFrame)?;
        self.is_under_way = false;
        Ok(())
    }

    /// The server did not act on a frame of this room. Whether it was one.
    pub(crate) fn refused(
        &mut self,
        now: Mono,
        (code, kind): (Code, Kind),
        wait_ms: u32,
        out: &mut Out,
    ) -> bool {
        let again = now.after_ms(u64::from(wait_ms.max(1)));
        match kind {
            Kind::MarksAsk => self.ask_again = Some(again),
            Kind::Read if code == Code::TooManyRequests => {
                self.say_all_again(again);
                self.is_held = true;
            }
            Kind::Read if code == Code::NotGranted => {
                // After a start the server learns what users may read of groups; of a channel that
                // is lost to this user it never will.
                let wait_ms = READ_AGAIN_MS << self.ungranted.min(READ_AGAIN_DOUBLINGS);
                self.ungranted += 1;
                self.all_due = Some(now.after_ms(wait_ms));
            }
            Kind::ReceiptsAsk | Kind::UnreadAsk if self.is_under_way => {
                let Some(ask) = self.asks.pop_front_if(|ask| ask.kind() == kind) else {
                    return false;
                };
                self.is_under_way = false;
                ask.refuse(code, out);
            }
            _ => return false,
        }
        true
    }

    fn say_all_again(&mut self, at: Mono) {
        let behind = self.own.iter().filter(|(_, own)| own.confirmed < own.read);
        self.unsaid = behind.map(|(channel, _)| *channel).collect();
        self.say_due = Some(at);
    }

    /// When something is due.
    pub(crate) fn due(&self) -> Option<Mono> {
        self.say_due.into_iter().chain(self.ask_again).chain(self.all_due).min()
    }
}
