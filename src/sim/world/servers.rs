//! The server: its process starts, dies and takes turns; what its workers decide is carried out.

use tern_core::counters::Counters;
use tern_core::io::{ColdRecord, Effect, Input, LinkId, Order, Outgoing, Waiter};
use tern_core::log::Offset;
use tern_core::mail::{Device, Mail};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::time::Now;
use tern_netmodel::carrier::Way;
use tern_protocol::{Code, Flags, Frame, UnixMillis};

use super::{Happening, WALL_AT_START, World};
use crate::disk::Death;
use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::parcel::Parcel;
use crate::server::{Seat, Server, Shown, encode, encode_close, encode_push};

/// Mail that a ring between two workers holds.
const RING_MAX: usize = 64;

/// Things that a worker takes in one turn.
const TURN_MAX: u64 = 48;

/// Turns in a row whose deadline had passed before and passes again.
const IDLE_TURNS_MAX: u32 = 5_000;

/// Pushes in a hundred that the defect "content changed" spoils, and answers that "mail lost" loses.
const SPOILED_PERCENT: u64 = 3;

impl World {
    /// A process starts on what is on the disk.
    pub(super) fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        if self.draw.faults.contains(&Fault::OtherWorkers) {
            let [least, most] = self.plan.workers;
            self.workers = self.schedule.between(least, most) as u16;
        }
        self.server_generation += 1;
        let placement = Placement::new(self.draw.shards, self.workers);
        let seats = match self.engine {
            Some(_) => self.recover_storage(placement),
            None => self.recover_all(placement),
        };
        match seats {
            Err(_) if self.died_at_once() => {}
            Err(wrong) => self.oracle.judge("acked", Err(format!("recovery fails: {wrong}"))),
            Ok(seats) => {
                let (generation, born) = (self.server_generation, self.now);
                let mono_at_birth = self.schedule.between(0, 10_000);
                self.server = Some(Server { generation, born, mono_at_birth, placement, seats });
                self.start_wire();
                self.start_threads();
                (0..usize::from(self.workers)).for_each(|worker| self.wake(worker));
                self.trace.note(
                    self.now,
                    &[10, generation, u64::from(self.workers)],
                    &[],
                    format_args!("server {generation} starts with {} workers", self.workers),
                );
            }
        }
    }

    /// All workers, on the simulated disk.
    fn recover_all(&mut self, placement: Placement) -> Result<Vec<Seat>, String> {
        self.oracle.recovered(&self.disk.borrow(), self.draw.shards);
        // A process starts when there is room for its tables.
        let full = std::mem::replace(&mut self.disk.borrow_mut().full, false);
        let workers = 0..self.workers;
        let seats = workers.map(|worker| self.recover(placement, WorkerId(worker))).collect();
        self.disk.borrow_mut().full = full;
        seats
    }

    /// The process, or its whole machine, dies; another one starts a little later.
    pub(super) fn kill_server(&mut self, death: Death) {
        if self.server.is_none() {
            return;
        }
        self.count_branches();
        self.trace.note(self.now, &[11], &[], format_args!("the server dies: {death:?}"));
        self.end_with_storage(death);
        self.kill_wire();
        self.fail_next_sync = false;
        self.come_back();
    }

    /// Another process starts a little later.
    pub(super) fn come_back(&mut self) {
        let back = self.now + self.chaos.between(50, 8_000);
        self.agenda.add(back, Happening::ServerStarts);
        self.drop_links(back);
    }

    /// Takes down what the workers of this process have counted.
    pub(super) fn count_branches(&mut self) {
        let seats = self.server.iter().flat_map(|server| &server.seats);
        for counters in seats.map(|seat| seat.worker.counters()) {
            for ((name, _), count) in Counters::DESCRIPTORS.iter().zip(counters.values()) {
                self.branches.hit(name, count);
            }
        }
    }

    fn count_code(&mut self, code: Code) {
        self.branches.hit(code.row().map_or("an unknown code", |row| row.label), 1);
    }

    pub(super) fn server_now(&self, server: &Server) -> Now {
        let wall = WALL_AT_START + self.now as i64 + self.wall_offset;
        Now { mono: server.mono(self.now), wall: UnixMillis(wall.max(1) as u64) }
    }

    /// Something waits for a worker.
    pub(super) fn worker_input(&mut self, worker: usize, input: Input) {
        if let Some(server) = self.server.as_mut() {
            server.seats[worker].inbox.push_back(input);
            self.wake(worker);
        }
    }

    /// A worker's next turn comes soon.
    pub(super) fn wake(&mut self, worker: usize) {
        let soon = self.now + self.schedule.between(0, 1);
        self.turn_by(worker, soon);
    }

    fn turn_by(&mut self, worker: usize, when: u64) {
        let Some(server) = self.server.as_mut() else { return };
        let seat = &mut server.seats[worker];
        let when = when.max(seat.paused_until).max(self.now);
        if seat.turn_at.is_none_or(|at| when < at || at < self.now) {
            seat.turn_at = Some(when);
            self.agenda.add(when, Happening::Turn(server.generation, worker));
        }
    }

    /// One turn of a worker, as its driver takes it.
    pub(super) fn turn(&mut self, generation: u64, worker: usize) {
        let Some(server) = self.server.as_mut().filter(|s| s.generation == generation) else {
            return;
        };
        let seat = &mut server.seats[worker];
        if seat.turn_at != Some(self.now) {
            return; // another one was planned
        }
        seat.turn_at = None;
        if seat.paused_until > self.now {
            let until = seat.paused_until;
            return self.turn_by(worker, until);
        }
        self.tick_worker(worker);
        let most = self.schedule.between(1, TURN_MAX);
        for _ in 0..most {
            match self.next_input(worker) {
                Some(input) => self.say(worker, input),
                None => break,
            }
        }
        self.end_turn(worker);
    }

    fn tick_worker(&mut self, worker: usize) {
        let Some(server) = self.server.as_mut() else { return };
        let mono = server.mono(self.now);
        let seat = &mut server.seats[worker];
        match seat.worker.poll_timeout() {
            Some((when, why)) if when <= mono => {
                seat.idle_ticks += 1;
                if seat.idle_ticks > IDLE_TURNS_MAX {
                    let wrong = format!("worker {worker} spins: {why}");
                    self.oracle.judge("liveness", Err(wrong));
                }
                self.say(worker, Input::Tick);
            }
            _ => seat.idle_ticks = 0,
        }
    }

    /// What a worker takes next: of its inbox, or of a ring that may be looked at.
    fn next_input(&mut self, worker: usize) -> Option<Input> {
        let now = self.now;
        let seat = &mut self.server.as_mut()?.seats[worker];
        let rings = seat.ready_rings(now);
        let inbox = usize::from(!seat.inbox.is_empty());
        let choice = self.schedule.below((rings.len() + inbox) as u64) as usize;
        match rings.get(choice) {
            Some(from) => {
                let (address, mail) = seat.rings[*from].mail.pop_front()?;
                Some(Input::Mail(address, mail))
            }
            None => seat.inbox.pop_front(),
        }
    }

    fn say(&mut self, worker: usize, input: Input) {
        let Some(mut server) = self.server.take() else { return };
        let now = self.server_now(&server);
        server.seats[worker].worker.handle(now, input);
        self.after(&mut server, worker);
        self.server = Some(server);
    }

    /// Judges and carries out what a worker has done and decided.
    fn after(&mut self, server: &mut Server, worker: usize) {
        self.oracle.appended(&mut self.disk.borrow_mut(), self.now);
        while let Some(effect) = server.seats[worker].worker.poll_effect() {
            self.carry_out_effect(server, worker, effect);
        }
    }

    fn end_turn(&mut self, worker: usize) {
        let Some(mut server) = self.server.take() else { return };
        let now = self.server_now(&server);
        server.seats[worker].worker.commit(now);
        self.after(&mut server, worker);
        let woken = self.carry_mail(&mut server, worker);
        self.server = Some(server);
        woken.into_iter().for_each(|to| self.wake(to));
        self.plan_syncs();
        self.note_met();
        self.plan_turn(worker);
    }

    fn plan_turn(&mut self, worker: usize) {
        let now = self.now;
        let Some(server) = self.server.as_ref() else { return };
        let seat = &server.seats[worker];
        if !seat.inbox.is_empty() || !seat.ready_rings(now).is_empty() {
            return self.wake(worker);
        }
        let tick = seat.worker.poll_timeout().map(|(when, _)| server.world_time(when));
        let ring = seat.ring_due();
        if let Some(when) = tick.into_iter().chain(ring).min() {
            self.turn_by(worker, when.max(now + 1));
        }
    }

    /// Carries mail to other workers as far as their rings have room. Returns who got some, and
    /// the worker itself if some stayed.
    fn carry_mail(&mut self, server: &mut Server, from: usize) -> Vec<usize> {
        let mut woken = Vec::new();
        for to in (0..server.seats.len()).filter(|to| *to != from) {
            let narrow = self.is_on(Fault::RingsFull);
            let room = if narrow { self.schedule.between(1, 2) as usize } else { RING_MAX };
            let blocked = self.is_on(Fault::MailDelayed) && self.schedule.percent(20);
            let before = server.seats[to].rings[from].mail.len();
            while server.seats[to].rings[from].mail.len() < room {
                let id = WorkerId(to as u16); // fits: a worker's number
                let Some((address, mail)) = server.seats[from].worker.poll_mail(id) else { break };
                if !self.loses(&mail) {
                    server.seats[to].rings[from].mail.push_back((address, mail));
                }
            }
            let ring = &mut server.seats[to].rings[from];
            if ring.mail.len() > before {
                woken.push(to);
                if blocked {
                    self.tally.hit(Fault::MailDelayed);
                    ring.blocked_until = self.now + self.schedule.between(1, 3_000);
                }
            }
            if ring.mail.len() >= room {
                if narrow && ring.mail.len() > before {
                    self.tally.hit(Fault::RingsFull);
                }
                woken.push(from);
            }
        }
        woken
    }

    fn loses(&mut self, mail: &Mail) -> bool {
        match mail {
            Mail::Notify { change: Some(_), .. } if self.mutant == Some(Mutant::HintsNeverHeal) => {
                true
            }
            Mail::Notify { .. }
            | Mail::Confirm { .. }
            | Mail::AskMembers { .. }
            | Mail::Members(_)
            | Mail::Enter { .. }
            | Mail::Entered { .. }
                if self.is_on(Fault::HintsLost) =>
            {
                let lost = self.schedule.percent(50);
                if lost {
                    self.tally.hit(Fault::HintsLost);
                }
                lost
            }
            // All of them: one that is lost now and then is asked for again by the client.
            Mail::SendAcked { .. } if self.mutant == Some(Mutant::MailLost) => true,
            _ => false,
        }
    }

    fn plan_syncs(&mut self) {
        self.plan_storage();
        let Some(generation) = self.server.as_ref().map(|server| server.generation) else { return };
        let syncs = self.disk.borrow_mut().take_syncs();
        for shard in syncs {
            let delay = if self.struck(Fault::SlowSync) {
                self.schedule.between(20, 3_000)
            } else {
                self.schedule.between(0, 4)
            };
            self.agenda.add(self.now + delay, Happening::SyncEnds(generation, shard));
        }
    }

    /// A sync ends, well or not.
    pub(super) fn sync_ends(&mut self, generation: u64, shard: ShardId) {
        let Some(server) = self.server.as_ref().filter(|s| s.generation == generation) else {
            return;
        };
        let worker = usize::from(server.placement.worker_of(shard).0);
        let ok = !std::mem::take(&mut self.fail_next_sync);
        self.trace.note(
            self.now,
            &[12, u64::from(shard.0), u64::from(ok)],
            &[],
            format_args!("the sync of shard {} ends{}", shard.0, if ok { "" } else { ": failed" }),
        );
        self.disk.borrow_mut().end_sync(shard, ok);
        if !ok {
            self.tally.hit(Fault::SyncFails);
            let when = self.now + self.chaos.between(1_000, 20_000);
            self.agenda.add(when, Happening::ServerDies(generation, Death::Process));
        }
        self.plan_syncs();
        self.worker_input(worker, Input::Durable(shard));
    }

    pub(super) fn note_met(&mut self) {
        let met = std::mem::take(&mut self.disk.borrow_mut().met);
        for (met, fault) in
            met.into_iter().zip([Fault::DiskFull, Fault::DiskBusy, Fault::ColdReads])
        {
            if met {
                self.tally.hit(fault);
            }
        }
    }

    fn carry_out_effect(&mut self, server: &Server, worker: usize, effect: Effect) {
        match effect {
            Effect::Frame(LinkId(link), frame) => self.frame_leaves(link, &frame),
            Effect::Whole(LinkId(link), frame) => {
                self.whole_leaves(link, &frame);
                self.give(link, frame, Order::Kept);
            }
            Effect::Push { link: LinkId(link), shard, at, order } => {
                self.push_leaves(link, shard, at, order);
            }
            Effect::Close { link: LinkId(link), code, come_back } => {
                self.trace.note(
                    self.now,
                    &[13, link, u64::from(code.0)],
                    &[],
                    format_args!("the server closes connection {link}: {code}"),
                );
                self.count_code(code);
                self.close_by_server(link, encode_close(code, come_back), code);
            }
            Effect::Directory(query) => self.ask_directory(server.generation, worker, query),
            Effect::Warm { record, waiter } => {
                if let Some(engine) = &self.engine {
                    return engine.warm((worker, record, waiter));
                }
                let when = self.now + self.schedule.between(1, 60);
                let what = Happening::Warmed(server.generation, worker, record, waiter);
                self.agenda.add(when, what);
            }
        }
    }

    /// A frame that was made as a whole leaves: it is judged what it says.
    fn whole_leaves(&mut self, link: u64, frame: &[u8]) {
        match Frame::parse(frame) {
            Ok((Frame::Marks(_, rest), _)) => self.marks_leave(link, rest),
            Ok((Frame::History(head, rest), flags)) => {
                self.history_leaves(link, (head, rest), flags.has(Flags::LAST));
            }
            Ok((Frame::ChannelsShown(shown), _)) => {
                let Some(device) = self.device_of(link) else { return };
                let to = (device, link);
                self.oracle.all_shown_leaves(&self.disk.borrow(), to, shown.channels.get());
            }
            _ => {}
        }
    }

    fn frame_leaves(&mut self, link: u64, frame: &Outgoing) {
        let Some(device) = self.device_of(link) else { return };
        match frame {
            Outgoing::SendAck(ack) => self.oracle.ack_leaves(&self.disk.borrow(), device, ack),
            Outgoing::SendRefused(no) => {
                self.count_code(Code(no.code.get()));
                let at = (self.now, self.wall_of_asked());
                self.oracle.refusal_leaves(&self.disk.borrow(), device, no, at);
            }
            Outgoing::Gap(gap) => {
                self.count_code(Code(gap.code.get()));
                let range = (gap.from.get(), gap.to.get());
                let code = Code(gap.code.get());
                self.oracle.gap_leaves((device.uin, link), gap.channel, range, code);
            }
            Outgoing::LoggedIn(head) => {
                let (epoch, resumed) = (head.epoch.into(), head.resumed != 0);
                let on = (link, self.now);
                if head.known != 0 {
                    self.oracle.cursors_known(link);
                }
                self.oracle.login_leaves(&self.disk.borrow(), device, (epoch, resumed), on);
            }
            Outgoing::Blocked(answer) => {
                self.oracle.blocked_leaves(&self.disk.borrow(), (device.uin, link), answer);
            }
            Outgoing::AskCursors(_) => {
                self.oracle.fetch_arrives(link); // delivery may go back
                self.oracle.newcomers.asked_again(link);
            }
            Outgoing::Channel(state) => {
                let to = (device.uin, link);
                self.oracle.channel_leaves(&self.disk.borrow(), to, state);
            }
            Outgoing::Error { code, .. } => self.count_code(*code),
            _ => {}
        }
        self.give(link, encode(frame), Order::Kept);
    }

    fn push_leaves(&mut self, link: u64, shard: ShardId, at: Offset, order: Order) {
        let index = self.disk.borrow().index_of(shard, at);
        let body = self.body_to_push(shard, at, index);
        let Some(mut body) = body else {
            let wrong = format!("a push of offset {} of shard {}, where nothing is", at.0, shard.0);
            return self.oracle.judge("ids", Err(wrong));
        };
        if self.mutant == Some(Mutant::ContentChanged)
            && self.schedule.percent(SPOILED_PERCENT)
            && let Some(last) = body.last_mut()
        {
            *last ^= 1;
        }
        let link = self.misdirect(link);
        let Some(device) = self.device_of(link) else { return };
        let (to, place) = ((device, link), (shard, index));
        let is_steady = !self.draw.faults.contains(&Fault::WallJump);
        let world = (self.config.longest_window(), is_steady);
        self.oracle.push_leaves(&self.disk.borrow(), to, place, &body, world);
        self.give(link, encode_push(&body), order);
    }

    /// The connection itself, or under the defect "misdelivered" now and then any other.
    fn misdirect(&mut self, link: u64) -> u64 {
        if self.mutant != Some(Mutant::Misdelivered) || !self.schedule.percent(SPOILED_PERCENT) {
            return link;
        }
        let links: Vec<u64> = self.links.keys().copied().collect();
        self.schedule.pick(&links).unwrap_or(link)
    }

    fn give(&mut self, link: u64, frame: bytes::Bytes, order: Order) {
        self.oracle.said(link, self.now);
        self.trace.note(
            self.now,
            &[14, link],
            &frame,
            format_args!("the server says  {} on connection {link}", Shown(&frame)),
        );
        match order {
            Order::Kept => self.offer(link, Way::ToClient, Parcel::Frame(frame)),
            Order::Free => self.offer_free(link, Way::ToClient, frame),
        }
    }

    pub(super) fn device_of(&self, link: u64) -> Option<Device> {
        let conn = self.links.get(&link)?;
        Some(self.installs[conn.install].device)
    }

    /// A cold record is in memory.
    pub(super) fn warmed(
        &mut self,
        generation: u64,
        worker: usize,
        record: ColdRecord,
        waiter: Waiter,
    ) {
        if self.server.as_ref().is_some_and(|server| server.generation == generation) {
            self.disk.borrow_mut().warm(record.shard, record.at);
            self.worker_input(worker, Input::Warmed(waiter));
        }
    }
}
