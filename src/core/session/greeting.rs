//! From HELLO to LOGGED_IN.

use tern_protocol::frames::{
    Hello, LoggedIn, Login, Network, Resume, TokenLogin, Welcome, capabilities,
};
use tern_protocol::limits::{MAGIC, TOKEN_BYTES_MAX, UNACKED_SENDS_MAX, VERSION};
use tern_protocol::{Code, Flags, Kind};

use super::blocking::Blocking;
use super::cursors::Cursors;
use super::delivery::Delivery;
use super::front::{Front, Verdict};
use super::history::Looking;
use super::marking::Marking;
use super::rates::Sending;
use super::{Live, State};
use crate::context::Context;
use crate::io::{ComeBack, Effect, LinkId, Outgoing, Query};
use crate::limiter::Limiter;
use crate::log::Reader;
use crate::mail::{Address, Attached, Device, Mail, Proof, SessionRef};

impl<R: Reader> Front<R> {
    pub(super) fn hello(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        hello: &Hello,
    ) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        if !matches!(session.state, State::Greeting) {
            return Err(Code::WrongState);
        }
        if hello.magic != MAGIC {
            return Err(Code::Malformed);
        }
        if hello.version.get() != VERSION {
            return Err(Code::Version);
        }
        session.network = Network::from_wire(hello.network);
        session.beat_ms = hello.heartbeat_ms.get();
        session.state = State::Welcomed(hello.digest.get());
        let can = |bit: u64, it: bool| if it { bit } else { capabilities::NONE };
        let datagrams = can(capabilities::DATAGRAMS, context.config.datagrams);
        session.takes_datagrams = hello.capabilities.get() & datagrams != 0;
        let tokens = can(capabilities::TOKENS, context.config.tokens);
        let offered = datagrams
            | tokens
            | capabilities::GROUPS
            | capabilities::MARKS
            | capabilities::RECALLS
            | capabilities::BLOCKS
            | capabilities::HISTORY;
        let welcome = Welcome {
            version: VERSION.into(),
            unacked_sends_max: (UNACKED_SENDS_MAX as u16).into(), // fits: 64
            content_bytes_max: context.config.content_bytes_max.into(),
            capabilities: offered.into(),
            server_time: context.now.wall.into(),
            reserved: 0.into(),
        };
        context.effect(Effect::Frame(link, Outgoing::Welcome(welcome)));
        Ok(())
    }

    pub(super) fn login(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        login: &Login,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Welcomed(digest) = session.state else { return Err(Code::WrongState) };
        let device = Device { uin: login.uin.into(), device: login.device.into() };
        session.state = State::Authenticating(device, digest);
        let query = Query::Authenticate { session: from, device, secret: login.secret };
        context.effect(Effect::Directory(query));
        Ok(())
    }

    pub(super) fn token_login(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        login: &TokenLogin,
        token: &[u8],
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Welcomed(digest) = session.state else { return Err(Code::WrongState) };
        if !context.config.tokens {
            return Err(Code::TokensNotTaken);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Code::TokenInvalid);
        }
        let claimed = Device { uin: login.uin.into(), device: login.device.into() };
        session.state = State::Authenticating(claimed, digest);
        // A copy: the token may wait for long, and a slice would hold the receive buffer.
        let query = Query::Identify { session: from, claimed, token: token.into() };
        context.effect(Effect::Directory(query));
        Ok(())
    }

    pub(super) fn resume(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        resume: &Resume,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Welcomed(_) = session.state else { return Err(Code::WrongState) };
        let device = Device { uin: resume.uin.into(), device: resume.device.into() };
        let proof = Proof::Token(resume.epoch.into(), resume.token);
        let mail = session.attach(from, device, proof);
        let home = Address::Shard(context.placement.home_of(device.uin));
        context.post.send(context.counters, home, mail);
        Ok(())
    }

    /// The home shard gave the session to the device.
    pub(super) fn attached(&mut self, context: &mut Context<'_>, attached: Attached) {
        let Attached { to, device, epoch, token, resumed, rates, cursors } = attached;
        let home = Address::Shard(context.placement.home_of(device.uin));
        let Some(session) = self.sessions.get_mut(&to.link) else {
            // Its connection went while the epoch was made durable: nobody is there.
            let cursors = cursors.unwrap_or_default();
            let (ended, used, sent) = (false, rates.used, 0);
            let mail = Mail::Detach { from: to, device, ended, used, sent, cursors };
            return context.post.send(context.counters, home, mail);
        };
        let (beat_ms, is_known) =
            (context.config.beat_ms(session.network, session.beat_ms), cursors.is_some());
        let answer = LoggedIn {
            epoch: epoch.into(),
            heartbeat_ms: beat_ms.into(),
            resume_ms: context.config.resume_ms.into(),
            resumed: u8::from(resumed),
            known: u8::from(is_known),
            reserved: [0; 2],
            token,
        };
        session.beat_ms = beat_ms;
        session.state = State::Live(Live {
            device,
            epoch,
            sending: Sending::new(rates, epoch),
            asks: Limiter::default(),
            cursors: Cursors::default(),
            asks_group: false,
            all_shown: false,
            blocking: Blocking::default(),
            marking: Marking::default(),
            looking: Looking::default(),
            delivery: Delivery::default(),
        });
        self.live += 1;
        self.networks[session.network.index()] += 1;
        context.counters.resumes += u64::from(resumed);
        context.counters.logins += u64::from(!resumed);
        context.counters.cursors_known += u64::from(is_known);
        context.effect(Effect::Frame(to.link, Outgoing::LoggedIn(answer)));
        self.rearm(context, to.link);
        if let Some(list) = cursors {
            // The list passed these checks when the session before had it from the client.
            let taken = self.cursors(context, to.link, &list, true);
            assert!(taken.is_ok(), "a list that was kept can be taken");
        }
    }

    /// The home shard refuses the session. An unknown resume may be followed by a login on the
    /// same connection; anything else closes it.
    pub(super) fn attach_refused(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        code: Code,
        retry_after_ms: u32,
    ) {
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        context.counters.logins_refused += 1;
        if code != Code::ResumeUnknown {
            let come_back = ComeBack { ms: retry_after_ms, slot_tenths: 0 };
            return self.end_for(context, to.link, code, come_back);
        }
        session.state = State::Welcomed(session.state.digest());
        let (kind, flags) = (Kind::Resume, Flags::NONE);
        let error = Outgoing::Error { code, kind, flags, retry_after_ms };
        context.effect(Effect::Frame(to.link, error));
    }
}
