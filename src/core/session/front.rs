//! All sessions of a worker: which one a frame, a piece of mail or a deadline is for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tern_protocol::frames::{Identity, Network};
use tern_protocol::limits::MISSED_BEATS_MAX;
use tern_protocol::registry::{Direction, Needs};
use tern_protocol::{Code, DeviceId, Flags, Frame, Kind, Uin};

use super::sending::Refusal;
use super::slot;
use super::{Session, State};
use crate::context::Context;
use crate::io::{Answer, ComeBack, Effect, LinkId, Outgoing};
use crate::log::Reader;
use crate::mail::{Address, Device, Mail, Proof, SessionRef};
use crate::placement::WorkerId;
use crate::sight::SessionSight;
use crate::time::Mono;

/// The sessions of one worker.
pub(crate) struct Front<R> {
    pub(super) id: WorkerId,
    pub(super) reader: R,
    /// Boxed: of a map's places about a third are empty, and all move when it grows.
    pub(super) sessions: FxHashMap<LinkId, Box<Session>>,
    /// One armed deadline a session, looked at when it comes and set anew if it had moved.
    deadlines: BinaryHeap<Reverse<(Mono, LinkId)>>,
    /// Sessions whose unread messages are counted, in turn.
    pub(super) counting: VecDeque<LinkId>,
    /// Sessions that are logged in.
    pub(super) live: usize,
    /// How many of them are on which network.
    pub(super) networks: [usize; Network::COUNT],
    /// Set once the server goes down: how many are told to come back.
    draining: Option<usize>,
}

/// What a frame's handling says of the connection: go on, or close it for this.
pub(super) type Verdict = Result<(), Code>;

impl<R: Reader> Front<R> {
    pub(crate) fn new(id: WorkerId, reader: R) -> Self {
        Self {
            id,
            reader,
            sessions: FxHashMap::default(),
            deadlines: BinaryHeap::new(),
            counting: VecDeque::new(),
            live: 0,
            networks: [0; Network::COUNT],
            draining: None,
        }
    }

    /// Connections, and those of them that are logged in.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.sessions.len(), self.live)
    }

    /// How many sessions that are logged in are on which network.
    pub(crate) fn networks(&self) -> [usize; Network::COUNT] {
        self.networks
    }

    /// A session that is logged in, as an operator may see it.
    pub(crate) fn see(&self, now: Mono, link: LinkId) -> Option<SessionSight> {
        let session = self.sessions.get(&link)?;
        matches!(session.state, State::Live(_)).then(|| SessionSight {
            online_ms: now.since_ms(session.opened),
            silent_ms: now.since_ms(session.heard),
            beat_ms: session.beat_ms,
        })
    }

    /// Whose session it is, once it is logged in.
    pub(crate) fn device_of(&self, link: LinkId) -> Option<Device> {
        match &self.sessions.get(&link)?.state {
            State::Live(live) => Some(live.device),
            _ => None,
        }
    }

    pub(crate) fn handle_opened(&mut self, context: &mut Context<'_>, link: LinkId, begun: Mono) {
        if self.draining.is_some() || self.sessions.len() >= context.config.sessions_max {
            let code = if self.draining.is_some() { Code::Draining } else { Code::Busy };
            let come_back = self.slot(context);
            return context.effect(Effect::Close { link, code, come_back });
        }
        let now = context.now.mono;
        let deadline = now.after_ms(context.config.login_ms_max);
        let fresh =
            self.sessions.insert(link, Box::new(Session::new(begun, now, deadline))).is_none();
        assert!(fresh, "{link:?} was given twice");
        self.deadlines.push(Reverse((deadline, link)));
    }

    pub(crate) fn handle_closed(&mut self, context: &mut Context<'_>, link: LinkId) {
        self.forget(context, link, false);
    }

    pub(crate) fn handle_frame(&mut self, context: &mut Context<'_>, link: LinkId, bytes: Bytes) {
        context.counters.frames_in += 1;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.heard = context.now.mono;
        if let State::Live(live) = &mut session.state {
            live.delivery.heard(session.takes_datagrams);
        }
        let verdict = match Frame::parse(&bytes) {
            Err(_) => {
                context.counters.frames_malformed += 1;
                Err(Code::Malformed)
            }
            Ok((Frame::Unknown(kind, _), flags)) => {
                context.counters.frames_unknown += 1;
                error(context, link, Code::UnknownKind, kind, flags);
                Ok(())
            }
            Ok((frame, flags)) if flags.has_unknown() => {
                context.counters.frames_unknown += 1;
                error(context, link, Code::UnknownFlag, frame.kind(), flags);
                Ok(())
            }
            Ok((frame, flags)) => {
                let verdict = self.dispatch(context, link, frame, flags, &bytes);
                let refused = verdict.is_err_and(|code| code != Code::LoggedOut);
                context.counters.frames_refused += u64::from(refused);
                verdict
            }
        };
        if let Err(code) = verdict {
            self.end(context, link, code);
        }
    }

    fn dispatch(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        frame: Frame<'_>,
        flags: Flags,
        bytes: &Bytes,
    ) -> Verdict {
        self.check_turn(link, frame.kind())?;
        match frame {
            Frame::Hello(hello) => self.hello(context, link, hello),
            Frame::Login(login) => self.login(context, link, login),
            Frame::TokenLogin(login, token) => self.token_login(context, link, login, token),
            Frame::Resume(resume) => self.resume(context, link, resume),
            Frame::Cursors(list) => self.cursors(context, link, list, flags.has(Flags::LAST)),
            Frame::Send(head, content) => self.send(context, link, head, content, bytes),
            Frame::ReceiveAck(list) => self.receive_ack(context, link, list),
            Frame::Fetch(_)
            | Frame::Ping(_)
            | Frame::Block(_)
            | Frame::BlockList(_)
            | Frame::Read(_)
            | Frame::MarksAsk(_)
            | Frame::ReceiptsAsk(_)
            | Frame::UnreadAsk(_)
            | Frame::HistoryAsk(_)
                if !self.may_ask(context, link, frame.kind()) =>
            {
                Ok(())
            }
            Frame::Fetch(fetch) => self.fetch(context, link, fetch),
            Frame::GroupInfo(info) => self.group_info(context, link, info),
            Frame::Block(block) => self.block(context, link, block),
            Frame::BlockList(list) => self.block_list(context, link, list),
            Frame::Ping(ping) => self.ping(context, link, ping),
            Frame::Read(list) => self.read(context, link, list),
            Frame::MarksAsk(ask) => self.marks_ask(context, link, ask),
            Frame::ReceiptsAsk(ask) => self.receipts_ask(context, link, ask),
            Frame::UnreadAsk(list) => self.unread_ask(context, link, list),
            Frame::HistoryAsk(ask) => self.history_ask(context, link, ask),
            Frame::HistoryWanted(wanted) => self.history_wanted(link, wanted),
            Frame::Close(..) => Err(Code::LoggedOut),
            Frame::Welcome(_)
            | Frame::Identity(_)
            | Frame::LoggedIn(_)
            | Frame::SendAck(_)
            | Frame::SendRefused(_)
            | Frame::Push(..)
            | Frame::Channel(_)
            | Frame::Gap(_)
            | Frame::GroupPage(..)
            | Frame::Blocked(_)
            | Frame::BlockPage(..)
            | Frame::Pong(_)
            | Frame::AskCursors(_)
            | Frame::Marks(..)
            | Frame::Receipts(_)
            | Frame::Unread(_)
            | Frame::History(..)
            | Frame::ChannelsShown(_)
            | Frame::Error(..)
            | Frame::Unknown(..) => Err(Code::WrongDirection),
        }
    }

    /// Whether a client may say this kind at all, and now.
    fn check_turn(&self, link: LinkId, kind: Kind) -> Verdict {
        let row = kind.row().expect("unknown kinds were answered before");
        let has = match self.sessions[&link].state {
            State::Greeting => Needs::Nothing,
            State::Welcomed(_) | State::Authenticating(..) | State::Attaching(..) => Needs::Welcome,
            State::Live(_) => Needs::Login,
        };
        if row.direction == Direction::ToClient {
            Err(Code::WrongDirection)
        } else if row.needs > has {
            Err(Code::WrongState)
        } else {
            Ok(())
        }
    }

    pub(crate) fn handle_answer(&mut self, context: &mut Context<'_>, answer: Answer) {
        let (from, named, result) = match answer {
            Answer::Authenticated { session, result } => (session, None, result),
            Answer::Identified { session, result: Ok((device, token)) } => {
                (session, Some(device), Ok(token))
            }
            Answer::Identified { session, result: Err(code) } => (session, None, Err(code)),
            Answer::UserExists { .. } => unreachable!("the worker gives shards their answers"),
        };
        let Some(session) = self.sessions.get_mut(&from.link) else { return };
        let State::Authenticating(claimed, _) = session.state else { return };
        match result {
            Ok(token) => {
                let device = named.unwrap_or(claimed);
                if named.is_some() {
                    let (uin, device) = (device.uin.into(), device.device.into());
                    let identity = Identity { uin, device, reserved: 0.into() };
                    context.effect(Effect::Frame(from.link, Outgoing::Identity(identity)));
                }
                let mail = session.attach(from, device, Proof::Secret(token));
                let home = Address::Shard(context.placement.home_of(device.uin));
                context.post.send(context.counters, home, mail);
            }
            Err(code) => {
                context.counters.logins_refused += 1;
                self.end(context, from.link, code);
            }
        }
    }

    pub(crate) fn handle_mail(&mut self, context: &mut Context<'_>, mail: Mail) {
        match mail {
            Mail::SendAcked { to, ack, duplicate } => self.acked(context, to, ack, duplicate),
            Mail::SendRefused { to, channel, key, code, member, retry_after_ms } => {
                self.send_answered(context, channel);
                let refusal = Refusal { code, member, retry_after_ms };
                self.refuse_send(context, to.link, channel, key, refusal);
            }
            Mail::GroupPage { to, channel, page } => self.group_page(context, to, channel, page),
            Mail::BlockDone { to, wish, refused } => self.block_done(context, to, wish, refused),
            Mail::BlockedPart { to, part } => self.blocked_part(context, to, part),
            Mail::Attached(attached) => self.attached(context, *attached),
            Mail::Rates { to, rates } => self.rates(to, rates),
            Mail::AttachRefused { to, code, retry_after_ms } => {
                self.attach_refused(context, to, code, retry_after_ms);
            }
            Mail::Channels { to, page } => self.channels(context, to, page),
            Mail::Deliver { to, channel, grant } => self.deliver(context, to, channel, grant),
            Mail::Fence { to, code } => {
                // Not again one that the operator's order reached here first.
                context.counters.sessions_fenced += u64::from(self.sessions.contains_key(&to.link));
                self.end(context, to.link, code);
            }
            Mail::Marks(mail) => self.handle_marks_mail(context, mail),
            Mail::Send { .. }
            | Mail::GroupInfo { .. }
            | Mail::Block { .. }
            | Mail::AskBlocked { .. }
            | Mail::AskMembers { .. }
            | Mail::Members(_)
            | Mail::Attach { .. }
            | Mail::Subscribe { .. }
            | Mail::Detach { .. }
            | Mail::Network { .. }
            | Mail::Sent { .. }
            | Mail::Enter { .. }
            | Mail::Entered { .. }
            | Mail::Notify { .. }
            | Mail::Confirm { .. } => unreachable!("mail for a shard came to a front: {mail:?}"),
        }
    }

    /// The operator ends sessions, however far they have come.
    pub(crate) fn handle_kick(
        &mut self,
        context: &mut Context<'_>,
        uin: Uin,
        device: Option<DeviceId>,
        code: Code,
    ) {
        let chosen = |session: &Session| {
            session.device().is_some_and(|own| {
                own.uin == uin && device.is_none_or(|device| device == own.device)
            })
        };
        for link in self.links(|session| chosen(session)) {
            context.counters.sessions_fenced += 1;
            self.end(context, link, code);
        }
    }

    pub(crate) fn handle_drain(&mut self, context: &mut Context<'_>) {
        self.draining = Some(self.sessions.len());
        for link in self.links(|_| true) {
            self.end(context, link, Code::Draining);
        }
    }

    /// Deadlines that have come.
    pub(crate) fn handle_tick(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        while let Some(&Reverse((deadline, link))) = self.deadlines.peek() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.armed != deadline {
                continue; // an earlier one took its place
            }
            let (due, code) = session.deadline(context);
            if due > now {
                session.armed = due;
                self.deadlines.push(Reverse((due, link)));
            } else {
                context.counters.sessions_offline += u64::from(code == Code::Offline);
                context.counters.logins_slow += u64::from(code == Code::TooSlow);
                self.end(context, link, code);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        if !self.counting.is_empty() {
            return Some((Mono(0), "unread messages are counted"));
        }
        self.deadlines.peek().map(|Reverse((at, _))| (*at, "a session may have gone silent"))
    }

    /// The session's next deadline may be earlier than the one it waits for.
    pub(super) fn rearm(&mut self, context: &Context<'_>, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let (due, _) = session.deadline(context);
        if due < session.armed {
            session.armed = due;
            self.deadlines.push(Reverse((due, link)));
        }
    }

    /// Closes a connection with a code; its session waits for its device unless the code ends it.
    pub(super) fn end(&mut self, context: &mut Context<'_>, link: LinkId, code: Code) {
        let come_back = match code {
            Code::Draining | Code::Busy => self.slot(context),
            _ => ComeBack { ms: context.config.come_back_ms, slot_tenths: 0 },
        };
        self.end_for(context, link, code, come_back);
    }

    /// The same; who may come back is told when.
    pub(super) fn end_for(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        code: Code,
        come_back: ComeBack,
    ) {
        let retry = code.class() == tern_protocol::Class::Retry;
        if self.forget(context, link, !retry) {
            let come_back = if retry { come_back } else { ComeBack::default() };
            context.effect(Effect::Close { link, code, come_back });
        }
    }

    /// When those may come back who are sent away because there are too many, or all are.
    fn slot(&self, context: &Context<'_>) -> ComeBack {
        slot::come_back(context.config, self.draining.unwrap_or(self.sessions.len()))
    }

    fn forget(&mut self, context: &mut Context<'_>, link: LinkId, ended: bool) -> bool {
        let Some(session) = self.sessions.remove(&link) else { return false };
        if let State::Live(_) = session.state {
            self.live -= 1;
            self.networks[session.network.index()] -= 1;
        }
        let (device, (used, sent), cursors) = match session.state {
            State::Attaching(device, _) => (device, Default::default(), Vec::new()),
            State::Live(live) if ended => (live.device, live.sending.left(), Vec::new()),
            State::Live(live) => (live.device, live.sending.left(), live.delivery.cursors()),
            State::Greeting | State::Welcomed(_) | State::Authenticating(..) => return true,
        };
        let from = self.session_ref(link);
        let mail = Mail::Detach { from, device, ended, used, sent, cursors };
        let home = Address::Shard(context.placement.home_of(device.uin));
        context.post.send(context.counters, home, mail);
        true
    }

    pub(super) fn session_ref(&self, link: LinkId) -> SessionRef {
        SessionRef { worker: self.id, link }
    }

    fn links(&self, chosen: impl Fn(&Session) -> bool) -> Vec<LinkId> {
        let all = self.sessions.iter().filter(|(_, session)| chosen(session));
        let mut links: Vec<LinkId> = all.map(|(link, _)| *link).collect();
        links.sort_unstable(); // the map's order must not show
        links
    }
}

impl Session {
    /// When the session is over unless a frame comes, and as what.
    fn deadline(&self, context: &Context<'_>) -> (Mono, Code) {
        match self.state {
            State::Live(_) => {
                let silence_ms = u64::from(self.beat_ms) * u64::from(MISSED_BEATS_MAX);
                (self.heard.after_ms(silence_ms), Code::Offline)
            }
            _ => (self.opened.after_ms(context.config.login_ms_max), Code::TooSlow),
        }
    }
}

/// Answers a frame with an error; the connection stays.
pub(super) fn error(context: &mut Context<'_>, link: LinkId, code: Code, kind: Kind, flags: Flags) {
    let frame = Outgoing::Error { code, kind, flags, retry_after_ms: 0 };
    context.effect(Effect::Frame(link, frame));
}
