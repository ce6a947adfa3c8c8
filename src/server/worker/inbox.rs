//! What can reach a worker from other threads, and the bell that wakes it: when to ring it is
//! decided by [`Sleep`].
//!
//! ```text
//!  other worker ── ring per ordered pair ──┐
//!  commit       ── one flag per shard ─────┤
//!  directory    ── queue of answers ───────┼──► Seat (the worker's end) ── bell: mio::Waker
//!  I/O thread   ── queue of warm answers ──┤
//!  control      ── queues of commands and looks ┘
//! ```
//!
//! [`Doors`] is shared by everyone; a [`Seat`] is moved into the worker's thread. Both exist before any log is opened, since a log must know whom to tell of its
//! proofs.
//!
//! What a full queue does: a ring's writer sees that it is full beforehand and keeps its mail
//! (the machine has a rule for each kind); answers always have room, as a worker has no more
//! questions open than the queue has places; proofs are flags and coalesce; a command is
//! never dropped: the operator's thread waits for room, the only one here that ever waits; a look
//! is refused; a
//! stray datagram is dropped and counted, like any datagram may be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use mio::{Poll, Token, Waker};
use quinn_udp::EcnCodepoint;
use tern_core::io::{Answer, LinkId, Waiter};
use tern_core::mail::{Address, Mail};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::sight::{DeviceSight, SessionSight};
use tern_protocol::{Code, DeviceId, Uin};

use super::sleep::Sleep;
use super::status::Board;

/// Letters that a ring holds, with few workers. A letter is about 150 bytes.
const RING_LETTERS_MAX: usize = 1_024;

/// Letters that a ring holds at least.
const RING_LETTERS_MIN: usize = 64;

/// Letters that may wait for one worker in all rings together.
const INBOX_LETTERS: usize = 4_096;

/// Questions to the directory that a worker may have open, and places for their answers.
pub const QUERIES_MAX: usize = 1_024;

/// Cold reads that a worker may have open, and places for their answers.
pub const WARMS_MAX: usize = 1_024;

/// Stray datagrams that may wait for a worker.
const STRAYS_MAX: usize = 256;

/// Commands that may wait for a worker, which takes all of them every turn.
const COMMANDS_MAX: usize = 256;

/// Looks that may wait for a worker, which takes one every turn: a few commands at once.
const LOOKS_MAX: usize = 16;

/// How long the operator's thread waits before it tries a full queue of commands again.
const COMMAND_RETRY: Duration = Duration::from_millis(1);

/// The bell's token in a worker's poll; the socket has another.
pub(super) const BELL: Token = Token(0);

/// A message on its way between two workers.
pub(super) type Letter = (Address, Mail);

/// A datagram that came to another worker's socket.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) remote: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) data: BytesMut,
}

/// What the control plane tells a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// End sessions; see [`tern_core::io::Input::Kick`].
    Kick {
        /// Whose.
        uin: Uin,
        /// One device, or all.
        device: Option<DeviceId>,
        /// Why.
        code: Code,
    },
    /// Tell every client to come back, then end; at the latest after this time.
    Drain(Duration),
    /// End at once, as a crash would: no client is told.
    Stop,
    /// Publish fresh figures on the [`Board`] now.
    Publish,
}

/// A look at what a worker knows; the answer goes to who asked, on the worker's thread.
pub struct Look {
    /// At what.
    pub at: LookAt,
    /// Takes what was seen; it must not block.
    pub reply: Box<dyn FnOnce(Seen) + Send>,
}

/// What is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookAt {
    /// The devices of these users, whose home shards are this worker's.
    Users(Vec<Uin>),
    /// These sessions of this worker.
    Sessions(Vec<LinkId>),
}

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Devices and their users.
    Users(Vec<(Uin, DeviceSight)>),
    /// Sessions that are still there.
    Sessions(Vec<(LinkId, SessionSight)>),
}

/// The inboxes of one worker.
struct Inbox {
    sleep: Sleep,
    bell: Waker,
    /// By the worker that writes.
    rings: Box<[ArrayQueue<Letter>]>,
    strays: ArrayQueue<Stray>,
    /// By shard; only its worker's are ever set.
    durable: Box<[AtomicBool]>,
    any_durable: AtomicBool,
    answers: ArrayQueue<Answer>,
    warmed: ArrayQueue<Waiter>,
    commands: ArrayQueue<Command>,
    looks: ArrayQueue<Look>,
    /// Whether the worker has ended, so that nobody waits for it.
    ended: AtomicBool,
    board: Board,
}

/// The way to every worker.
pub struct Doors {
    placement: Placement,
    inboxes: Box<[CachePadded<Inbox>]>,
}

/// A worker's own end of its inboxes.
pub struct Seat {
    pub(super) id: WorkerId,
    pub(super) poll: Poll,
    pub(super) doors: Arc<Doors>,
}

impl Doors {
    /// Makes the inboxes of all workers, before there is any worker.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn open(placement: Placement) -> io::Result<(Arc<Self>, Vec<Seat>)> {
        let workers = placement.workers();
        let mut polls = Vec::with_capacity(usize::from(workers));
        let mut inboxes = Vec::with_capacity(usize::from(workers));
        for _ in 0..workers {
            let poll = Poll::new()?;
            let bell = Waker::new(poll.registry(), BELL)?;
            inboxes.push(CachePadded::new(Inbox::new(placement, bell)));
            polls.push(poll);
        }
        let doors = Arc::new(Self { placement, inboxes: inboxes.into() });
        let seat = |(id, poll)| Seat { id: WorkerId(id), poll, doors: Arc::clone(&doors) };
        let seats = (0..workers).zip(polls).map(seat).collect();
        Ok((doors, seats))
    }

    /// Which worker has what.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// The log of a shard has a new proof, or failed. Many calls may become one notice.
    pub fn durable(&self, shard: ShardId) {
        let inbox = self.inbox(self.placement.worker_of(shard));
        inbox.durable[usize::from(shard.0)].store(true, Ordering::Release);
        inbox.any_durable.store(true, Ordering::Release);
        inbox.ring_bell();
    }

    /// [`durable`](Self::durable) as a value for the commit threads.
    pub fn commit_notice(self: &Arc<Self>) -> Arc<dyn Fn(ShardId) + Send + Sync> {
        let doors = Arc::clone(self);
        Arc::new(move |shard| doors.durable(shard))
    }

    /// The directory answers a worker's question. Each question has one answer.
    ///
    /// # Panics
    /// If there are more answers than questions.
    pub fn answer(&self, worker: WorkerId, answer: Answer) {
        let inbox = self.inbox(worker);
        let pushed = inbox.answers.push(answer);
        assert!(pushed.is_ok(), "more answers than questions for {worker:?}");
        inbox.ring_bell();
    }

    /// The I/O thread has read what a worker asked for. Each request has one answer.
    ///
    /// # Panics
    /// If there are more answers than requests.
    pub fn warmed(&self, worker: WorkerId, waiter: Waiter) {
        let inbox = self.inbox(worker);
        let pushed = inbox.warmed.push(waiter);
        assert!(pushed.is_ok(), "more warm answers than requests for {worker:?}");
        inbox.ring_bell();
    }

    /// Gives one worker a command; waits for a turn of it if many commands wait already. A worker
    /// that has ended takes none any more.
    pub fn command(&self, worker: WorkerId, command: Command) {
        let inbox = self.inbox(worker);
        while inbox.commands.push(command).is_err() && !inbox.ended.load(Ordering::Relaxed) {
            std::thread::sleep(COMMAND_RETRY);
        }
        inbox.ring_bell();
    }

    /// Gives every worker a command.
    pub fn command_all(&self, command: Command) {
        for worker in 0..self.placement.workers() {
            self.command(WorkerId(worker), command);
        }
    }

    /// Has a worker look; `false` if too many looks wait already, or it has ended.
    pub fn look(&self, worker: WorkerId, look: Look) -> bool {
        let inbox = self.inbox(worker);
        let taken = !inbox.ended.load(Ordering::Relaxed) && inbox.looks.push(look).is_ok();
        inbox.ring_bell();
        taken
    }

    /// Where a worker publishes its figures.
    pub fn board(&self, worker: WorkerId) -> &Board {
        &self.inbox(worker).board
    }

    /// Whether the ring from one worker to another has room. Only `from` writes it, so the room
    /// stays until `from` uses it.
    pub(super) fn has_room(&self, from: WorkerId, to: WorkerId) -> bool {
        !self.inbox(to).rings[usize::from(from.0)].is_full()
    }

    /// Puts a letter into a ring that [has room](Self::has_room). The bell is the caller's, once
    /// for all its letters: [`ring`](Self::ring).
    pub(super) fn post(&self, from: WorkerId, to: WorkerId, letter: Letter) {
        let pushed = self.inbox(to).rings[usize::from(from.0)].push(letter);
        assert!(pushed.is_ok(), "{from:?} wrote into a full ring to {to:?}");
    }

    /// Wakes a worker for what was [posted](Self::post).
    pub(super) fn ring(&self, to: WorkerId) {
        self.inbox(to).ring_bell();
    }

    /// Hands a stray datagram over; `false` if it was dropped.
    pub(super) fn hand_over(&self, to: WorkerId, stray: Stray) -> bool {
        let inbox = self.inbox(to);
        let pushed = inbox.strays.push(stray).is_ok();
        inbox.ring_bell();
        pushed
    }

    fn inbox(&self, worker: WorkerId) -> &Inbox {
        &self.inboxes[usize::from(worker.0)]
    }
}

impl Inbox {
    fn new(placement: Placement, bell: Waker) -> Self {
        let workers = usize::from(placement.workers());
        let letters = (INBOX_LETTERS / workers).clamp(RING_LETTERS_MIN, RING_LETTERS_MAX);
        Self {
            sleep: Sleep::default(),
            bell,
            rings: (0..workers).map(|_| ArrayQueue::new(letters)).collect(),
            strays: ArrayQueue::new(STRAYS_MAX),
            durable: (0..placement.shards()).map(|_| AtomicBool::new(false)).collect(),
            any_durable: AtomicBool::new(false),
            answers: ArrayQueue::new(QUERIES_MAX),
            warmed: ArrayQueue::new(WARMS_MAX),
            commands: ArrayQueue::new(COMMANDS_MAX),
            looks: ArrayQueue::new(LOOKS_MAX),
            ended: AtomicBool::new(false),
            board: Board::new(),
        }
    }

    /// After an item was put in.
    fn ring_bell(&self) {
        if self.sleep.must_ring() {
            self.bell.wake().expect("an eventfd takes a wake-up as long as it is open");
        }
    }

    fn is_empty(&self) -> bool {
        !self.any_durable.load(Ordering::Acquire)
            && self.rings.iter().all(ArrayQueue::is_empty)
            && self.strays.is_empty()
            && self.answers.is_empty()
            && self.warmed.is_empty()
            && self.commands.is_empty()
            && self.looks.is_empty()
    }
}

impl Seat {
    fn inbox(&self) -> &Inbox {
        self.doors.inbox(self.id)
    }

    /// Before sleeping: whether there is nothing to do. After `true`, writers ring the bell;
    /// [`rise`](Self::rise) must follow.
    pub(super) fn lie_down(&self) -> bool {
        let inbox = self.inbox();
        inbox.sleep.lie_down(|| inbox.is_empty())
    }

    /// After sleeping.
    pub(super) fn rise(&self) {
        self.inbox().sleep.rise();
    }

    /// Whether anything waits, without going to sleep.
    pub(super) fn has_post(&self) -> bool {
        !self.inbox().is_empty()
    }

    pub(super) fn next_letter(&self, from: WorkerId) -> Option<Letter> {
        self.inbox().rings[usize::from(from.0)].pop()
    }

    pub(super) fn next_stray(&self) -> Option<Stray> {
        self.inbox().strays.pop()
    }

    pub(super) fn next_answer(&self) -> Option<Answer> {
        self.inbox().answers.pop()
    }

    pub(super) fn next_warmed(&self) -> Option<Waiter> {
        self.inbox().warmed.pop()
    }

    pub(super) fn next_look(&self) -> Option<Look> {
        self.inbox().looks.pop()
    }

    pub(super) fn next_command(&self) -> Option<Command> {
        self.inbox().commands.pop()
    }

    /// Whether any shard has news; clears the mark, so [`take_durable`](Self::take_durable) must
    /// follow for each shard.
    pub(super) fn take_any_durable(&self) -> bool {
        self.inbox().any_durable.swap(false, Ordering::AcqRel)
    }

    /// Whether this shard has news; clears it.
    pub(super) fn take_durable(&self, shard: ShardId) -> bool {
        self.inbox().durable[usize::from(shard.0)].swap(false, Ordering::AcqRel)
    }

    pub(super) fn board(&self) -> &Board {
        &self.inbox().board
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inbox().ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Events;
    use std::sync::atomic::AtomicU64;

    fn answer(number: u64) -> Answer {
        Answer::UserExists {
            shard: ShardId(0),
            channel: tern_protocol::ChannelId::group(1),
            uin: Uin(number),
            exists: None,
        }
    }

    /// Sleeps for real when nothing waits; returns when something does.
    fn sleep(seat: &mut Seat, events: &mut Events) {
        if seat.lie_down() {
            let longest = Duration::from_secs(20);
            seat.poll.poll(events, Some(longest)).expect("poll");
            assert!(!events.is_empty(), "a wake-up was lost");
            seat.rise();
        }
    }

    /// Two writers of different kinds ring a worker that goes to sleep as often as it can. Each
    /// item waits for the one before to be seen, so a lost wake-up stops everything and the
    /// long sleep fails the test.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 20_000;
        let (doors, mut seats) = Doors::open(Placement::new(1, 1)).expect("descriptors");
        let mut seat = seats.remove(0);
        let seen = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let writers = [0, 1].map(|kind| {
            let (doors, seen) = (Arc::clone(&doors), Arc::clone(&seen));
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    match kind {
                        0 => doors.answer(WorkerId(0), answer(round)),
                        _ => doors.durable(ShardId(0)),
                    }
                    while seen[kind].load(Ordering::Acquire) <= round {
                        std::thread::yield_now();
                    }
                }
            })
        });
        let mut events = Events::with_capacity(4);
        let mut got = [0, 0];
        while got != [ROUNDS; 2] {
            sleep(&mut seat, &mut events);
            while seat.next_answer().is_some() {
                got[0] += 1;
                seen[0].store(got[0], Ordering::Release);
            }
            if seat.take_any_durable() && seat.take_durable(ShardId(0)) {
                got[1] += 1;
                seen[1].store(got[1], Ordering::Release);
            }
        }
        for writer in writers {
            writer.join().expect("no panic");
        }
    }

    #[test]
    fn the_bell_rings_only_for_a_sleeper() {
        let (doors, mut seats) = Doors::open(Placement::new(2, 2)).expect("descriptors");
        let seat = &mut seats[1];
        let mut events = Events::with_capacity(4);
        doors.answer(WorkerId(1), answer(1));
        doors.durable(ShardId(1));
        seat.poll.poll(&mut events, Some(Duration::ZERO)).expect("poll");
        assert!(events.is_empty(), "awake: nobody rang");
        assert!(!seat.lie_down(), "there is post");
        assert!(seat.next_answer().is_some() && seat.take_any_durable());

        assert!(seat.lie_down());
        doors.command(WorkerId(1), Command::Publish);
        doors.command(WorkerId(1), Command::Stop);
        seat.poll.poll(&mut events, Some(Duration::from_secs(20))).expect("poll");
        assert_eq!(events.iter().count(), 1);
        seat.rise();
        assert_eq!(seat.next_command(), Some(Command::Publish));
        assert_eq!(seat.next_command(), Some(Command::Stop));
    }

    #[test]
    fn commands_wait_for_room_and_not_for_the_dead() {
        const COMMANDS: usize = 3 * COMMANDS_MAX;
        let (doors, mut seats) = Doors::open(Placement::new(1, 1)).expect("descriptors");
        let seat = seats.remove(0);
        let operator = std::thread::spawn(move || {
            (0..COMMANDS).for_each(|_| doors.command_all(Command::Publish));
            doors
        });
        let mut taken = 0;
        while taken < COMMANDS {
            match seat.next_command() {
                Some(command) => taken += usize::from(command == Command::Publish),
                None => std::thread::yield_now(),
            }
        }
        let doors = operator.join().expect("no panic");
        drop(seat);
        (0..COMMANDS).for_each(|_| doors.command_all(Command::Publish));
    }

    #[test]
    fn letters_keep_their_order_and_a_full_ring_is_seen() {
        let (doors, seats) = Doors::open(Placement::new(2, 2)).expect("descriptors");
        let (from, to) = (WorkerId(0), WorkerId(1));
        let mut posted = 0_u64;
        while doors.has_room(from, to) {
            posted += 1;
            let mail = Mail::Confirm { from: ShardId(0), to: ShardId(1), sequence: posted };
            doors.post(from, to, (Address::Shard(ShardId(1)), mail));
        }
        assert_eq!(posted as usize, RING_LETTERS_MAX);
        for expected in 1..=posted {
            let (_, mail) = seats[1].next_letter(from).expect("posted");
            assert!(matches!(mail, Mail::Confirm { sequence, .. } if sequence == expected));
        }
        assert!(doors.has_room(from, to) && seats[1].next_letter(from).is_none());
    }

    #[test]
    fn proofs_coalesce_per_shard() {
        let (doors, seats) = Doors::open(Placement::new(4, 2)).expect("descriptors");
        let notice = doors.commit_notice();
        notice(ShardId(3));
        notice(ShardId(3));
        assert!(!seats[0].take_any_durable(), "shard 3 is worker 1's");
        assert!(seats[1].take_any_durable() && !seats[1].take_durable(ShardId(1)));
        assert!(seats[1].take_durable(ShardId(3)) && !seats[1].take_durable(ShardId(3)));
    }
}
