//! The loop of one worker: what it holds, the order of a turn, and how it sleeps.
//!
//! Work per turn is bounded in each step, so that no client and no neighbour can hold up the
//! others; what is left over keeps the worker from sleeping.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use quinn_proto::Endpoint;
use quinn_udp::{UdpSockRef, UdpSocketState};
use tern_core::io::{ColdRecord, Input, LinkId, Query, Waiter};
use tern_core::log::Reader;
use tern_core::placement::{ShardId, WorkerId};
use tern_core::time::{Mono, Now};
use tern_protocol::UnixMillis;
use tern_protocol::frames::Network;
use tern_storage::{Recorder, Stamp};

use super::Ended;
use super::guests::Guests;
use super::inbox::{BELL, Command, LookAt, QUERIES_MAX, Seat, Seen, WARMS_MAX};
use super::links::{Links, spill_bytes_max};
use super::machine::{Directory, Machine, Warmer};
use super::pool::Pool;
use super::receive::Receiver;
use super::resets::{PeerList, ResetSender};
use super::status::{Counts, Histogram};
use super::thread::ThreadStat;
use super::timers::Timers;
use super::transmit::Sender;
use crate::transport::settings::TransportSettings;

/// The socket's token in the poll; the bell has another.
const SOCKET: Token = Token(BELL.0 + 1);

/// Letters taken from each neighbour a turn: each may be a push to a member of a group.
const LETTERS_PER_TURN: usize = 64;

/// Deadlines of connections that are met in one turn: a message to many sets one for each of them,
/// and one that comes a turn later does no harm.
const TIMERS_PER_TURN: usize = 64;

/// Answers of each kind taken a turn.
const ANSWERS_PER_TURN: usize = 256;

/// Time between two publications of the figures.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);

/// How long a worker that keeps mail for a full ring sleeps at most before it tries again.
const MAIL_RETRY: Duration = Duration::from_millis(1);

/// A worker that has not slept for this time offers its core to others at the end of a turn: a
/// commit thread whose disk is done would wait for the kernel's tick otherwise, up to 4 ms. Long
/// against what the offer costs if nobody wants it, half a microsecond.
const OFFER_AFTER: Duration = Duration::from_micros(250);

/// Questions that are open, at most as many as answers have room, and those that wait their turn.
/// The machine asks at most one per login under way, per channel being opened and per session or
/// shard that reads cold, which bounds what waits.
pub(super) struct Questions<Q> {
    pub(super) open: usize,
    pub(super) waiting: VecDeque<Q>,
    open_max: usize,
}

impl<Q> Questions<Q> {
    fn new(open_max: usize) -> Self {
        Self { open: 0, waiting: VecDeque::new(), open_max }
    }

    /// The next one that may be asked; it counts as open.
    pub(super) fn next(&mut self) -> Option<Q> {
        if self.open == self.open_max {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.open += 1;
        Some(next)
    }

    /// Questions open or waiting.
    fn len(&self) -> usize {
        self.open + self.waiting.len()
    }
}

/// A worker's socket, and what quinn-udp knows of it; its receiver and its sender share it.
pub(super) type Socket = Arc<(UdpSocket, UdpSocketState)>;

/// A cold read.
pub(super) type Warm = (ColdRecord, Waiter);

/// What a driver is made of.
pub(super) struct Parts<M, R> {
    pub(super) machine: M,
    pub(super) reader: R,
    pub(super) seat: Seat,
    pub(super) socket: UdpSocket,
    pub(super) endpoint: Endpoint,
    pub(super) settings: Arc<TransportSettings>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) warmer: Arc<dyn Warmer>,
    pub(super) peer_list: Option<PeerList>,
    pub(super) recorder: Option<Recorder>,
    pub(super) resets: ResetSender,
    pub(super) spin: Duration,
    pub(super) epoch: Instant,
}

/// A worker's thread.
pub(super) struct Driver<M, R> {
    pub(super) machine: M,
    pub(super) reader: R,
    pub(super) seat: Seat,
    pub(super) id: WorkerId,
    pub(super) workers: u16,
    pub(super) shards: Vec<ShardId>,
    pub(super) settings: Arc<TransportSettings>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) warmer: Arc<dyn Warmer>,
    pub(super) queries: Questions<Query>,
    pub(super) warms: Questions<Warm>,

    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    pub(super) endpoint: Endpoint,
    pub(super) links: Links,
    pub(super) timers: Timers,
    pub(super) pool: Pool,
    pub(super) peer_list: Option<PeerList>,
    pub(super) recorder: Option<Recorder>,
    resets: ResetSender,

    /// Indices of links with events of QUIC to take.
    pub(super) to_serve: VecDeque<u32>,
    /// Indices of links with more to read than a turn allows.
    pub(super) to_read: VecDeque<u32>,
    /// Indices of links with something to send, or with a deadline that may have moved.
    pub(super) to_send: VecDeque<u32>,
    /// Links closed by the driver of which the machine is not told yet.
    pub(super) lost: VecDeque<LinkId>,
    /// Chunks of one read, empty between reads.
    pub(super) chunks: Vec<Bytes>,
    /// Bytes that may wait for one client; see [`spill_bytes_max`].
    pub(super) spill_max: usize,
    /// Links that have not ended.
    pub(super) live: usize,
    pub(super) handshakes: usize,
    pub(super) unproven: usize,
    /// What those wait for who are not logged in yet.
    pub(super) guests: Guests,
    /// Set by a drain: until then everything must be over.
    pub(super) drain_until: Option<Instant>,

    pub(super) counts: Counts,
    turns: Histogram,
    stat: ThreadStat,
    publish_at: Instant,
    /// Whether the poll tells when the socket takes more.
    watches_writable: bool,
    mail_held: bool,
    spin: Duration,
    /// When it last slept, or offered its core to others.
    offered: Instant,
    epoch: Instant,
    /// The moment of this turn.
    pub(super) now: Instant,
    pub(super) now_core: Now,
    /// The same for the flight recorder.
    pub(super) stamp: Stamp,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Go,
    End,
}

impl<M: Machine, R: Reader> Driver<M, R> {
    pub(super) fn new(mut parts: Parts<M, R>) -> std::io::Result<Self> {
        if parts.recorder.is_some() {
            parts.machine.want_moments();
        }
        let placement = parts.seat.doors.placement();
        let (id, now) = (parts.seat.id, Instant::now());
        let state = UdpSocketState::new(UdpSockRef::from(&parts.socket.as_fd()))?;
        let registry = parts.seat.poll.registry();
        let descriptor = parts.socket.as_raw_fd();
        registry.register(&mut SourceFd(&descriptor), SOCKET, Interest::READABLE)?;
        let socket = Arc::new((parts.socket, state));
        Ok(Self {
            machine: parts.machine,
            reader: parts.reader,
            id,
            workers: placement.workers(),
            shards: placement.shards_of(id).collect(),
            seat: parts.seat,
            spill_max: spill_bytes_max(parts.settings.window_bytes),
            settings: parts.settings,
            directory: parts.directory,
            warmer: parts.warmer,
            queries: Questions::new(QUERIES_MAX),
            warms: Questions::new(WARMS_MAX),
            receiver: Receiver::new(Arc::clone(&socket)),
            sender: Sender::new(socket),
            endpoint: parts.endpoint,
            links: Links::new(id),
            timers: Timers::default(),
            pool: Pool::new(),
            peer_list: parts.peer_list,
            recorder: parts.recorder,
            resets: parts.resets,
            to_serve: VecDeque::new(),
            to_read: VecDeque::new(),
            to_send: VecDeque::new(),
            lost: VecDeque::new(),
            chunks: Vec::new(),
            live: 0,
            handshakes: 0,
            unproven: 0,
            guests: Guests::default(),
            drain_until: None,
            counts: Counts::default(),
            turns: Histogram::default(),
            stat: ThreadStat::default(),
            publish_at: now,
            watches_writable: false,
            mail_held: false,
            spin: parts.spin,
            offered: now,
            epoch: parts.epoch,
            now,
            now_core: Now::default(),
            stamp: Stamp::default(),
        })
    }

    /// Runs until told to end; gives the machine back, with its logs.
    pub(super) fn run(mut self) -> Ended<M> {
        let mut events = Events::with_capacity(8); // a socket and a bell
        self.stat = ThreadStat::open();
        loop {
            self.sleep(&mut events);
            self.read_clocks();
            let started = self.now;
            let flow = self.turn();
            self.turns.record(started.elapsed());
            self.counts.turns += 1;
            if flow == Flow::End || self.is_drained() {
                break;
            }
        }
        self.publish();
        self.finish()
    }

    /// What is left when it runs no more.
    pub(super) fn finish(self) -> Ended<M> {
        Ended { machine: self.machine, socket: self.sender.into_socket() }
    }

    fn turn(&mut self) -> Flow {
        self.receive();
        self.receive_strays();
        self.fire_timers();
        self.serve_links();
        self.read_links();

        let flow = self.take_commands();
        self.take_look();
        self.take_letters();
        self.take_proofs();
        self.take_answers();
        self.tick();

        self.commit();
        self.post_mail();
        self.ask();
        self.transmit();
        self.serve_guests();
        self.send_resets();
        if self.now >= self.publish_at {
            self.publish();
        }
        flow
    }

    fn read_clocks(&mut self) {
        self.now = Instant::now();
        let mono_us = self.now.duration_since(self.epoch).as_micros() as u64; // 584,000 years
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_us = wall.as_micros() as u64; // as long
        self.stamp = Stamp { wall_us, mono_us };
        self.now_core = Now { mono: Mono(mono_us / 1_000), wall: UnixMillis(wall_us / 1_000) };
    }

    /// Waits for something to do: spins for a while if so set, then sleeps.
    fn sleep(&mut self, events: &mut Events) {
        self.watch();
        let now = Instant::now();
        let deadline = self.next_deadline();
        let busy = self.has_work() || deadline.is_some_and(|at| at <= now);
        if busy || self.spin_for_work(now, deadline, events) || !self.seat.lie_down() {
            self.offer_core(now);
            self.poll(events, Some(Duration::ZERO));
            return;
        }
        self.counts.sleeps += 1;
        self.poll(events, deadline.map(|at| at.saturating_duration_since(now)));
        self.seat.rise();
        self.offered = Instant::now();
    }

    /// Lets others run on this core, if it was long enough this thread's.
    fn offer_core(&mut self, now: Instant) {
        if now.duration_since(self.offered) >= OFFER_AFTER {
            std::thread::yield_now();
            self.offered = Instant::now();
        }
    }

    /// Has the poll tell that the socket takes more only while that is waited for: each datagram
    /// sent makes room, so otherwise each would wake this thread. The kernel looks at the socket
    /// when it is asked, so room that came in between is told too.
    fn watch(&mut self) {
        let wanted = !self.sender.writable;
        if wanted == self.watches_writable {
            return;
        }
        let writable = wanted.then_some(Interest::WRITABLE);
        let interest = writable.map_or(Interest::READABLE, |more| Interest::READABLE | more);
        let descriptor = self.sender.descriptor();
        let registry = self.seat.poll.registry();
        registry
            .reregister(&mut SourceFd(&descriptor), SOCKET, interest)
            .expect("the socket was registered at the start, and stays open");
        self.watches_writable = wanted;
    }

    /// Whether something came while spinning.
    fn spin_for_work(
        &mut self,
        start: Instant,
        deadline: Option<Instant>,
        events: &mut Events,
    ) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        let end = deadline.map_or(start + self.spin, |at| at.min(start + self.spin));
        loop {
            self.poll(events, Some(Duration::ZERO));
            if self.seat.has_post() || !events.is_empty() {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) {
        match self.seat.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => events.clear(),
            Err(error) => panic!("epoll failed on descriptors of our own: {error}"),
        }
        for event in events.iter().filter(|event| event.token() == SOCKET) {
            self.receiver.readable |= event.is_readable();
            self.sender.writable |= event.is_writable();
        }
    }

    /// Whether a turn left work that needs no wake-up.
    fn has_work(&self) -> bool {
        let sends = !self.to_send.is_empty() && self.sender.writable;
        let guests = self.guests.were_served() || !self.guests.is_empty();
        let links = !self.to_read.is_empty() || !self.to_serve.is_empty();
        self.receiver.readable || sends || guests || links
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let core = self.machine.poll_timeout().map(|(at, _)| self.instant_of(at));
        let mail = self.mail_held.then(|| self.now + MAIL_RETRY);
        let resets = self.resets.poll_timeout();
        let all = [self.timers.next(), core, mail, resets, self.drain_until, Some(self.publish_at)];
        all.into_iter().flatten().min()
    }

    fn instant_of(&self, mono: Mono) -> Instant {
        /// Farther than any worker sleeps: a deadline beyond it needs no exact time.
        const FAR: Duration = Duration::from_secs(3_600);
        let at = self.epoch.checked_add(Duration::from_millis(mono.0));
        at.unwrap_or(self.now + FAR)
    }

    fn fire_timers(&mut self) {
        for _ in 0..TIMERS_PER_TURN {
            let Some(index) = self.timers.pop_due(self.now) else { break };
            self.fire_timer(index);
        }
    }

    fn take_commands(&mut self) -> Flow {
        while let Some(command) = self.seat.next_command() {
            match command {
                Command::Kick { uin, device, code } => {
                    self.handle(Input::Kick { uin, device, code });
                }
                Command::Drain(longest) => {
                    self.drain_until = Some(self.now + longest);
                    self.refuse_waiting();
                    self.drop_handshakes();
                    self.handle(Input::Drain);
                }
                Command::Publish => self.publish(),
                Command::Stop => return Flow::End,
            }
        }
        Flow::Go
    }

    /// Takes one look, so that a turn stays short.
    fn take_look(&self) {
        let Some(look) = self.seat.next_look() else { return };
        let (machine, now) = (&self.machine, self.now_core);
        (look.reply)(match look.at {
            LookAt::Users(uins) => {
                let devices = |uin| machine.see_user(now, uin).into_iter().map(move |it| (uin, it));
                Seen::Users(uins.into_iter().flat_map(devices).collect())
            }
            LookAt::Sessions(links) => {
                let see = |link| Some((link, machine.see_session(now, link)?));
                Seen::Sessions(links.into_iter().filter_map(see).collect())
            }
        });
    }

    fn take_letters(&mut self) {
        for from in 0..self.workers {
            for _ in 0..LETTERS_PER_TURN {
                let Some((address, mail)) = self.seat.next_letter(WorkerId(from)) else { break };
                self.counts.mail_in += 1;
                self.handle(Input::Mail(address, mail));
            }
        }
    }

    fn take_proofs(&mut self) {
        if !self.seat.take_any_durable() {
            return;
        }
        for place in 0..self.shards.len() {
            let shard = self.shards[place];
            if self.seat.take_durable(shard) {
                self.counts.proofs += 1;
                self.handle(Input::Durable(shard));
            }
        }
    }

    fn take_answers(&mut self) {
        for _ in 0..ANSWERS_PER_TURN {
            let Some(answer) = self.seat.next_answer() else { break };
            self.queries.open -= 1;
            self.handle(Input::Directory(answer));
        }
        for _ in 0..ANSWERS_PER_TURN {
            let Some(waiter) = self.seat.next_warmed() else { break };
            self.warms.open -= 1;
            self.handle(Input::Warmed(waiter));
        }
    }

    fn tick(&mut self) {
        let due = self.machine.poll_timeout().is_some_and(|(at, _)| at <= self.now_core.mono);
        if due {
            self.handle(Input::Tick);
        }
    }

    /// Hands mail to the other workers, as far as their rings have room.
    fn post_mail(&mut self) {
        self.mail_held = false;
        for to in (0..self.workers).map(WorkerId).filter(|&to| to != self.id) {
            let before = self.counts.mail_out;
            let mut room = self.seat.doors.has_room(self.id, to);
            while room {
                let Some(letter) = self.machine.poll_mail(to) else { break };
                self.seat.doors.post(self.id, to, letter);
                self.counts.mail_out += 1;
                room = self.seat.doors.has_room(self.id, to);
            }
            if self.counts.mail_out > before {
                self.seat.doors.ring(to);
            }
            self.mail_held |= !room;
        }
    }

    /// Asks what the machine wants to know, as far as the answers have room.
    fn ask(&mut self) {
        while let Some(query) = self.queries.next() {
            self.directory.ask(self.id, query);
        }
        while let Some((record, waiter)) = self.warms.next() {
            self.warmer.warm(self.id, record, waiter);
        }
    }

    /// Resets to clients of the process before; one that the socket does not take is lost, like
    /// any datagram may be.
    fn send_resets(&mut self) {
        while let Some((client, packet)) = self.resets.poll_reset(self.now) {
            self.counts.resets_restart += 1;
            self.sender.send_reset(&mut self.counts, &client, packet);
        }
    }

    /// Whether a drain is over: every client has been told, or its time is up.
    fn is_drained(&self) -> bool {
        let Some(until) = self.drain_until else { return false };
        let told = self.live == 0 && self.to_send.is_empty() && self.sender.is_idle();
        told || Instant::now() >= until
    }

    fn publish(&mut self) {
        self.publish_at = self.now + PUBLISH_INTERVAL;
        let allocations = crate::alloc::counts();
        let (_, sessions) = self.machine.sessions();
        let counts = &mut self.counts;
        counts.links_now = self.links.len() as u64;
        counts.handshakes_now = self.handshakes as u64;
        counts.sessions_now = sessions as u64;
        let on = self.machine.networks().map(|sessions| sessions as u64);
        counts.sessions_wired_now = on[Network::Wired.index()];
        counts.sessions_wifi_now = on[Network::Wifi.index()];
        counts.sessions_cellular_now = on[Network::Cellular.index()];
        counts.sessions_elsewhere_now = on[Network::Unknown.index()];
        counts.queries_now = self.queries.len() as u64;
        counts.allocations_ours = allocations.ours;
        counts.allocations_quic = allocations.quic;
        counts.datagrams_dropped = self.receiver.dropped();
        counts.major_faults = self.stat.major_faults();
        counts.cpu_us = self.stat.cpu_us();
        self.seat.board().publish(self.machine.counters(), counts, &self.turns);
    }
}
