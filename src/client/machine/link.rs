//! The connection: opening it, greeting, logging in, losing it, and when to try again.
//!
//! ```text
//!            Connect     HELLO, LOGIN or RESUME   WELCOME
//!   Waiting ────────► Opening ───────► Greeting ───────► LoggingIn ──► Live
//!      ▲                 │                │                  │ RESUME_UNKNOWN: LOGIN
//!      └─────────────────┴── lost ────────┴──────────────────┴───────────┘
//!                              a code that no retry heals, or logout: Ended
//! ```
//!
//! HELLO and LOGIN leave in one flight, which saves a round trip: a server of another version
//! answers both with one CLOSE.

use tern_protocol::digest::UNSAID;
use tern_protocol::frames::{
    Close, ErrorHead, Identity as IdentityFrame, LoggedIn, Welcome, capabilities,
};
use tern_protocol::limits::{SECRET_BYTES, VERSION};
use tern_protocol::{Class, Code, DeviceId, Epoch, Kind, Uin};

use super::Machine;
use super::beat::Beat;
use super::frames;
use super::io::{Effect, End, Event, State};
use super::random::Random;
use super::time::Mono;

/// Milliseconds in a tenth of a second, the unit of slots on the wire.
const MS_PER_TENTH: u64 = 100;

/// Where the connection is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// There is none until then; `told` if the server named that time, so that nothing may shorten
    /// the wait.
    Waiting { until: Mono, told: bool },
    /// The driver opens one.
    Opening { until: Mono },
    /// HELLO waits for WELCOME, and what was said right behind it for LOGGED_IN.
    Greeting { until: Mono, resuming: bool },
    /// LOGIN or RESUME waits for LOGGED_IN.
    LoggingIn { until: Mono, resuming: bool },
    /// Logged in.
    Live { since: Mono, beat: Beat },
    /// It is over.
    Ended,
}

/// When the server wants the client back; all 0 where it said nothing.
#[derive(Clone, Copy, Default)]
struct ComeBack {
    /// No earlier than this.
    wait_ms: u64,
    /// At a random time within this from then on; 0: as long as the wait.
    slot_ms: u64,
}

impl ComeBack {
    fn after(wait_ms: u32) -> Self {
        Self { wait_ms: wait_ms.into(), slot_ms: 0 }
    }

    fn is_told(self) -> bool {
        self.wait_ms > 0 || self.slot_ms > 0
    }

    fn draw_ms(self, random: &mut Random) -> u64 {
        let slot_ms = if self.slot_ms == 0 { self.wait_ms } else { self.slot_ms };
        random.between(self.wait_ms, self.wait_ms + slot_ms)
    }
}

/// A session that may go on. Kept in memory alone: a token on the disk could be copied with it,
/// and two devices would count under one epoch. So each process logs in for an epoch of its own.
#[derive(Clone, Copy)]
pub(super) struct Session {
    epoch: Epoch,
    token: [u8; SECRET_BYTES],
}

impl std::fmt::Debug for Session {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.epoch)
    }
}

/// Whether the next attempt would get the same answer. A session that can't be resumed is not the
/// end: the device logs in.
fn is_fatal(code: Code) -> bool {
    code.class() == Class::Final && code != Code::ResumeUnknown
}

impl Machine {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// What this client can do.
    fn capabilities(&self) -> u64 {
        if self.tuning.datagrams { capabilities::DATAGRAMS } else { capabilities::NONE }
    }

    pub(super) fn connect(&mut self, now: Mono) {
        self.phase = Phase::Opening { until: now.after_ms(self.tuning.open_ms_max) };
        self.out.effect(Effect::Connect);
        self.out.tell(Event::State(State::Connecting));
    }

    pub(super) fn handle_connected(&mut self, now: Mono) {
        if let Phase::Opening { .. } = self.phase {
            let until = now.after_ms(self.tuning.login_ms_max);
            self.phase = Phase::Greeting { until, resuming: self.session.is_some() };
            self.mailbox.begin();
            let mut said = self.said();
            if self.histories.wants_less() {
                said.digest = UNSAID; // or nobody would ask for the cursors
            }
            self.out.transmit(frames::hello(said, self.capabilities()));
            self.out.transmit(match self.session {
                Some(Session { epoch, token }) => frames::resume(&self.identity, epoch, token),
                None => frames::login(&self.identity),
            });
        }
    }

    pub(super) fn handle_welcome(&mut self, now: Mono, welcome: &Welcome) {
        let Phase::Greeting { until, resuming } = self.phase else {
            return self.bad_frame(now);
        };
        if welcome.version.get() != VERSION {
            return self.end(End::Refused(Code::Version), Code::Version);
        }
        let (unacked_max, content_bytes_max) =
            (welcome.unacked_sends_max.get(), welcome.content_bytes_max.get());
        self.outbox.limit(unacked_max, content_bytes_max, &self.tuning);
        let both = welcome.capabilities.get() & self.capabilities();
        self.outbox.may_be_free(both & capabilities::DATAGRAMS != 0);
        let marks = welcome.capabilities.get() & capabilities::MARKS != 0;
        self.marks.offer(marks && self.tuning.marks);
        self.histories.offer(welcome.capabilities.get() & capabilities::HISTORY != 0);
        self.mailbox.expect_any_order(both & capabilities::DATAGRAMS != 0);
        self.phase = Phase::LoggingIn { until, resuming };
    }

    /// The server says who the token stands for: never somebody else than before.
    pub(super) fn handle_identity(&mut self, now: Mono, told: &IdentityFrame) {
        let (uin, device) = (Uin::from(told.uin), DeviceId::from(told.device));
        let own = &mut self.identity;
        let fits = [Uin(0), uin].contains(&own.uin) && [DeviceId(0), device].contains(&own.device);
        let is_answer = matches!(self.phase, Phase::LoggingIn { .. });
        if !fits || !is_answer || uin == Uin(0) || device == DeviceId(0) {
            return self.bad_frame(now);
        }
        (own.uin, own.device) = (uin, device);
        self.outbox.owned_by((uin, device));
        self.out.tell(Event::Identity { uin, device });
    }

    pub(super) fn handle_logged_in(&mut self, now: Mono, logged_in: &LoggedIn) {
        let Phase::LoggingIn { .. } = self.phase else {
            return self.bad_frame(now);
        };
        let (epoch, resumed) = (Epoch::from(logged_in.epoch), logged_in.resumed != 0);
        if epoch == Epoch(0) {
            return self.bad_frame(now);
        }
        self.session = Some(Session { epoch, token: logged_in.token });
        let beat_ms = logged_in.heartbeat_ms.get();
        self.intervals.told(self.network, beat_ms);
        let beat = Beat::new(now, beat_ms);
        self.phase = Phase::Live { since: now, beat };
        self.out.counters.logins += 1;
        self.out.counters.resumes += u64::from(resumed);
        self.outbox.logged_in(epoch);
        if logged_in.known == 0 {
            self.mailbox.begin();
            self.histories.say_wanted(&mut self.out);
            self.say_cursors();
        }
        self.marks.logged_in(&mut self.out);
        self.out.tell(Event::State(State::Online { epoch, resumed }));
    }

    /// Says the whole list of cursors.
    pub(super) fn say_cursors(&mut self) {
        for frame in frames::cursors(&self.mailbox.cursors()) {
            self.out.transmit(frame);
        }
    }

    pub(super) fn handle_error(&mut self, now: Mono, error: &ErrorHead) {
        let (code, kind) = (Code(error.code.get()), Kind(error.kind));
        match self.phase {
            Phase::LoggingIn { until, resuming: true } if code == Code::ResumeUnknown => {
                self.session = None;
                self.phase = Phase::LoggingIn { until, resuming: false };
                self.out.transmit(frames::login(&self.identity));
            }
            Phase::Live { .. }
                if kind == Kind::GroupInfo && self.groups.refused(code, &mut self.out) => {}
            Phase::Live { .. } if kind == Kind::HistoryAsk => {
                let jitter_ms = self.random.between(1, self.tuning.retry_jitter_ms);
                let wait_ms = u64::from(error.retry_after_ms.get()).saturating_add(jitter_ms);
                self.histories.refused(now, code, wait_ms, &mut self.out);
            }
            Phase::Live { .. } if [Kind::Block, Kind::BlockList].contains(&kind) => {
                self.block_refused(now, code, error.retry_after_ms.get());
            }
            Phase::Live { .. }
                if self.marks.refused(
                    now,
                    (code, kind),
                    error.retry_after_ms.get(),
                    &mut self.out,
                ) => {}
            Phase::Live { .. } => self.out.tell(Event::ServerError { code, kind }),
            _ => self.refused(now, code, ComeBack::after(error.retry_after_ms.get())),
        }
    }

    /// The server does not act on a question about blocks.
    fn block_refused(&mut self, now: Mono, code: Code, retry_after_ms: u32) {
        let jitter_ms = self.random.between(1, self.tuning.retry_jitter_ms);
        let wait_ms = u64::from(retry_after_ms).saturating_add(jitter_ms);
        self.blocks.refused(now, code, wait_ms, &mut self.out);
    }

    pub(super) fn handle_close(&mut self, now: Mono, close: &Close) {
        let slot_ms = u64::from(close.slot_tenths.get()) * MS_PER_TENTH;
        let wait_ms = close.come_back_ms.get().into();
        self.refused(now, Code(close.code.get()), ComeBack { wait_ms, slot_ms });
    }

    /// The server ends the connection, or does not let the device in.
    fn refused(&mut self, now: Mono, code: Code, come_back: ComeBack) {
        if is_fatal(code) {
            return self.end(End::Refused(code), code);
        }
        if code == Code::ResumeUnknown {
            self.session = None;
        }
        self.out.effect(Effect::Disconnect { code });
        self.lost(now, Some(code), come_back);
    }

    /// The connection is gone, or never came.
    pub(super) fn handle_disconnected(&mut self, now: Mono, code: Option<Code>) {
        match (self.phase, code) {
            (Phase::Waiting { .. } | Phase::Ended, _) => {}
            (_, Some(code)) if is_fatal(code) => self.ended(End::Refused(code)),
            _ => self.lost(now, code, ComeBack::default()),
        }
    }

    /// This side gives the connection up and tries another.
    pub(super) fn give_up(&mut self, now: Mono, code: Code) {
        self.out.effect(Effect::Disconnect { code });
        self.lost(now, Some(code), ComeBack::default());
    }

    pub(super) fn bad_frame(&mut self, now: Mono) {
        self.out.counters.bad_frames += 1;
        self.give_up(now, Code::Malformed);
    }

    /// The counters of this epoch are used up: the next connection logs in for a new one.
    pub(super) fn renew_epoch(&mut self, now: Mono) {
        self.session = None;
        self.give_up(now, Code::LoggedOut);
    }

    fn lost(&mut self, now: Mono, code: Option<Code>, come_back: ComeBack) {
        if let Phase::Live { since, .. } = self.phase
            && now.since_ms(since) >= self.tuning.good_after_ms
        {
            self.backoff.reset();
        }
        let mut retry_in_ms = self.backoff.next_ms(&self.tuning, &mut self.random);
        let told = come_back.is_told() && code.is_none_or(|code| code.class() == Class::Retry);
        if told {
            retry_in_ms = come_back.draw_ms(&mut self.random);
        }
        self.phase = Phase::Waiting { until: now.after_ms(retry_in_ms), told };
        self.drop_link();
        self.out.tell(Event::State(State::Offline { retry_in_ms, code }));
    }

    fn drop_link(&mut self) {
        self.outbox.disconnected();
        self.mailbox.disconnected();
        self.groups.disconnected();
        self.blocks.disconnected();
        self.marks.disconnected();
        self.histories.disconnected();
    }

    /// Ends it all, closing what is open.
    pub(super) fn end(&mut self, end: End, code: Code) {
        match self.phase {
            Phase::Ended => return,
            Phase::Waiting { .. } => {}
            _ => self.out.effect(Effect::Disconnect { code }),
        }
        self.ended(end);
    }

    fn ended(&mut self, end: End) {
        self.phase = Phase::Ended;
        self.session = None;
        self.drop_link();
        self.out.tell(Event::State(State::Ended(end)));
    }

    pub(super) fn logout(&mut self) {
        if self.is_live() {
            self.out.transmit(frames::close(Code::LoggedOut));
        }
        self.end(End::LoggedOut, Code::LoggedOut);
    }
}
