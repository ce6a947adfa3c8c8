//! What clients said in a capture, said again to another server: at its own pace, faster, or as
//! fast as answers come.
//!
//! A [`Recording`] and who plays whom come in, counts and latencies come out ([`Played`]). The
//! order of what a connection says is kept; a connection waits for its device's one before it, a
//! message for the window and for the changes of its group before it. What is lost or refused for
//! now is said again under its key. What can't be replayed is left out, and counted with the
//! reason ([`cast`] knows them).

mod accounts;
mod cast;
mod puppet;
mod recording;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tern_protocol::{Class, Kind};

use crate::error::BenchError;
use crate::load::{Approach, Event, Identity, Swarm, Wait};
use crate::measure::latency::Latency;
use crate::system::Server;
pub use accounts::Accounts;
use cast::{Cast, Line};
use puppet::{Heard, Puppet, Tally};
pub use recording::{Recording, Spoken, Step, Who};

/// A message without an answer is said again after this time, on the stream: on a path of its own
/// machine it was lost in a full buffer.
const REPAIR_AFTER: Duration = Duration::from_secs(1);

/// How long nobody may be answered, once all is due, before the rest is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// All is over when nothing has come for this time behind the last answer.
const QUIET: Duration = Duration::from_secs(1);

/// Between two looks whether something is to be said again, or all is quiet.
const LOOK: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Default)]
pub struct Played {
    /// Frames of the capture that were said, by the kind that they were said as.
    pub said: BTreeMap<Kind, u64>,
    /// Of them, logins that were resumptions in the capture, or by a token.
    pub became_logins: u64,
    /// Of them, messages that the capture said before.
    pub said_before: u64,
    /// Frames that were left out, by the reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Frames that the replay said by itself, by kind.
    pub own: BTreeMap<Kind, u64>,
    /// Frames of the server, by kind.
    pub answers: BTreeMap<Kind, u64>,
    /// Codes that it told: kind of frame, code, and how often.
    pub codes: Vec<(Kind, tern_protocol::Code, u64)>,
    /// Messages that are durable.
    pub acked: u64,
    /// Messages that were refused for good.
    pub refused: u64,
    /// Messages without an answer in the end.
    pub unanswered: u64,
    /// Connections that ended before the capture's did.
    pub lost: u64,
    /// From a message's saying to its ack.
    pub to_ack: Latency,
    /// How much later than due each frame was said; empty if all was due at once.
    pub lateness: Latency,
    /// From the first frame to the last answer to a message.
    pub lasted: Duration,
}

/// Replays a recording: `players` are the devices that stand for those of the capture. `speed` is
/// how many times as fast as the capture, `None` as fast as answers come. `seen` hears how many
/// frames were said or left out.
///
/// # Errors
/// When a socket fails.
pub fn play(
    recording: &Recording,
    players: &[(Who, Identity)],
    approach: Approach,
    speed: Option<f64>,
    mut seen: impl FnMut(usize) -> Result<(), BenchError>,
) -> Result<Played, BenchError> {
    let mut player = Player::new(recording, players, Swarm::new(approach)?, speed);
    while !player.is_done() {
        player.turn()?;
        seen(player.done)?;
    }
    player.give_up();
    player.rest()?;
    Ok(player.finish())
}

/// For each device of the capture, one of a server that plays it.
///
/// # Errors
/// When the server refuses one.
pub fn provide(server: &Server, recording: &Recording) -> Result<Vec<(Who, Identity)>, BenchError> {
    let mut users = server.add_users(recording.users.len())?.into_iter().enumerate();
    let mut players = Vec::new();
    let mut newest = None;
    for (uin, device) in recording.devices() {
        let (number, identity) = match newest {
            Some((known, number)) if known == uin => (number, server.add_device(number)?),
            _ => users.next().expect("devices are in the order of their users, and each has one"),
        };
        newest = Some((uin, number));
        players.push(((uin, device), identity));
    }
    Ok(players)
}

/// A connection of the capture, as it is played.
#[derive(Default)]
struct Role {
    /// Frames that are due, by their place in the recording.
    queue: VecDeque<usize>,
    /// Its number in the swarm.
    line: Option<usize>,
    /// Whether it has said its login.
    has_logged_in: bool,
    /// Whether it has ended.
    is_over: bool,
}

/// A replay in progress.
struct Player<'a> {
    recording: &'a Recording,
    cast: Cast,
    swarm: Swarm<Puppet>,
    speed: Option<f64>,
    start: Instant,
    /// The next frame that becomes due.
    next: usize,
    roles: Vec<Role>,
    /// The connection of each line of the swarm.
    by_line: Vec<usize>,
    /// The connection that plays each device.
    on_stage: BTreeMap<Who, usize>,
    /// When something was said or heard last.
    moved: Instant,
    answered: Instant,
    done: usize,
    played: Played,
}

impl<'a> Player<'a> {
    fn new(
        recording: &'a Recording,
        players: &[(Who, Identity)],
        swarm: Swarm<Puppet>,
        speed: Option<f64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            recording,
            cast: Cast::new(recording, players),
            swarm,
            speed,
            start: now,
            next: 0,
            roles: recording.connections.iter().map(|_| Role::default()).collect(),
            by_line: Vec::new(),
            on_stage: BTreeMap::new(),
            moved: now,
            answered: now,
            done: 0,
            played: Played::default(),
        }
    }

    /// Whether all was said that can be, and all messages are answered; or nothing moves any more.
    fn is_done(&mut self) -> bool {
        if self.next < self.recording.steps.len() {
            return false;
        }
        let is_idle = self.roles.iter().all(|role| role.queue.is_empty())
            && self.cast.actors().all(|(_, actor)| actor.unanswered.is_empty());
        is_idle || self.moved.elapsed() > PATIENCE
    }

    /// When a frame is due.
    fn due(&self, step: &Step) -> Duration {
        let since = step.at.saturating_sub(self.recording.steps[0].at);
        self.speed.map_or(Duration::ZERO, |speed| since.div_f64(speed))
    }

    fn turn(&mut self) -> Result<(), BenchError> {
        while let Some(step) = self.recording.steps.get(self.next)
            && self.due(step) <= self.start.elapsed()
        {
            self.roles[step.connection].queue.push_back(self.next);
            self.next += 1;
        }
        for connection in 0..self.roles.len() {
            while self.say_next(connection)? {}
        }
        self.swarm.turn()?;
        self.hear();
        self.repair();
        let next = self.recording.steps.get(self.next).map(|step| self.start + self.due(step));
        let look = Instant::now() + LOOK;
        self.swarm.wait(next.map_or(look, |next| next.min(look)), Wait::Sleep)
    }

    /// Says the next frame of a connection, or leaves it out; `false` if there is none, or it has
    /// to wait.
    fn say_next(&mut self, connection: usize) -> Result<bool, BenchError> {
        let Some(place) = self.roles[connection].queue.front().copied() else { return Ok(false) };
        let step = &self.recording.steps[place];
        let Some(who) = self.recording.connections[connection].who else {
            return Ok(self.leave_out(connection, "connections whose login is not in the capture"));
        };
        if self.roles[connection].is_over {
            return Ok(self.leave_out(connection, "connections that had ended"));
        }
        let line = match self.roles[connection].line {
            Some(line) => line,
            None => match self.enter(connection, who)? {
                Some(line) => line,
                None => return Ok(false),
            },
        };
        let is_login = matches!(step.kind, Kind::Login | Kind::TokenLogin | Kind::Resume);
        if is_login && std::mem::replace(&mut self.roles[connection].has_logged_in, true) {
            return Ok(self.leave_out(connection, "logins behind a resumption that was refused"));
        }
        let now = Instant::now();
        match self.cast.line(now, who, step, self.swarm.speaker(line)) {
            Line::Wait => return Ok(false),
            Line::LeaveOut(why) => return Ok(self.leave_out(connection, why)),
            Line::Say(frame) => {
                let kind = Kind(frame[2]);
                self.played.became_logins += u64::from(kind == Kind::Login && step.kind != kind);
                self.swarm.speak(line).say(frame, step.by_datagram);
                self.roles[connection].is_over = kind == Kind::Close;
                self.count(kind);
            }
            Line::Again(frame) => {
                self.played.said_before += 1;
                self.swarm.speak(line).say(frame, step.by_datagram);
                self.count(Kind::Send);
            }
            Line::ReceiveAck => {
                if !self.swarm.speak(line).say_receive_ack() {
                    let why = "acknowledgements of what is acknowledged, or has not come yet";
                    return Ok(self.leave_out(connection, why));
                }
                self.count(Kind::ReceiveAck);
            }
            Line::Cursors => {
                self.swarm.speak(line).say_all_cursors();
                self.count(Kind::Cursors);
            }
        }
        if self.speed.is_some() {
            let due = self.due(step);
            self.played.lateness.record(self.start.elapsed().saturating_sub(due));
        }
        self.roles[connection].queue.pop_front();
        (self.moved, self.done) = (now, self.done + 1);
        Ok(true)
    }

    /// Opens a connection, in the place of the one that its device had: with what that one knew.
    /// Not before that one has said all that is due, and where answers set the pace, has them.
    fn enter(&mut self, connection: usize, who: Who) -> Result<Option<usize>, BenchError> {
        let mut readings = BTreeMap::new();
        if let Some(before) = self.on_stage.get(&who).copied() {
            let is_open = !self.roles[before].is_over && self.speed.is_none();
            let actor = self.cast.actor(who);
            let waits = actor.is_some_and(|actor| is_open && !actor.unanswered.is_empty());
            if waits || !self.roles[before].queue.is_empty() {
                return Ok(None);
            }
            if let Some(line) = self.roles[before].line {
                readings = std::mem::take(&mut self.swarm.speaker_mut(line).readings);
                self.swarm.disconnect(line);
            }
            self.roles[before].is_over = true;
        }
        if let Some(actor) = self.cast.actor(who) {
            actor.leave();
        }
        let tells_cursors = self.recording.connections[connection].tells_cursors;
        let line = self.swarm.join(Puppet::new(readings, tells_cursors))?;
        self.by_line.push(connection);
        self.roles[connection].line = Some(line);
        self.on_stage.insert(who, connection);
        Ok(Some(line))
    }

    fn count(&mut self, kind: Kind) {
        *self.played.said.entry(kind).or_default() += 1;
    }

    /// The next frame of a connection is never said.
    fn leave_out(&mut self, connection: usize, why: &'static str) -> bool {
        let place = self.roles[connection].queue.pop_front();
        if let Some(group) = place.and_then(|place| self.recording.steps[place].changes()) {
            self.cast.note_change(group);
        }
        *self.played.left_out.entry(why).or_default() += 1;
        self.done += 1;
        true
    }

    fn hear(&mut self) {
        while let Some((line, _, event)) = self.swarm.poll_event() {
            if let Event::Failed(..) = event {
                let role = &mut self.roles[self.by_line[line]];
                self.played.lost += u64::from(!std::mem::replace(&mut role.is_over, true));
            }
        }
        for line in 0..self.by_line.len() {
            while let Some((at, heard)) = self.swarm.speaker_mut(line).poll_heard() {
                self.moved = at;
                self.take(line, at, heard);
            }
        }
    }

    fn take(&mut self, line: usize, at: Instant, heard: Heard) {
        let connection = self.by_line[line];
        let Some(who) = self.recording.connections[connection].who else { return };
        let is_on_stage = self.on_stage.get(&who) == Some(&connection);
        let Some(actor) = self.cast.actor(who) else { return };
        let (key, id) = match heard {
            Heard::LoggedIn(epoch) if is_on_stage => {
                actor.begin(epoch);
                // As a client does: what was never answered comes first.
                return self.say_again(line, who, Duration::ZERO);
            }
            Heard::LoggedIn(_) => return,
            Heard::Refused(_, code) if code.class() == Class::Retry => return,
            Heard::Refused(key, _) => (key, None),
            Heard::Acked(key, id) => (key, Some(id)),
        };
        let Some(sent) = actor.answer(key, id) else { return };
        if id.is_some() {
            self.played.acked += 1;
            self.played.to_ack.record(at.saturating_duration_since(sent.first));
        } else {
            self.played.refused += 1;
        }
        self.answered = at;
        if let Some(group) = sent.changes {
            self.cast.note_change(group);
        }
    }

    /// Says again what has no answer for long.
    fn repair(&mut self) {
        for (who, connection) in self.on_stage.clone() {
            if let Some(line) =
                self.roles[connection].line.filter(|_| !self.roles[connection].is_over)
            {
                self.say_again(line, who, REPAIR_AFTER);
            }
        }
    }

    /// Says again what a device said longer ago than this, on the stream.
    fn say_again(&mut self, line: usize, who: Who, after: Duration) {
        let Some(actor) = self.cast.actor(who).filter(|actor| actor.epoch.is_some()) else {
            return;
        };
        let now = Instant::now();
        for sent in actor.unanswered.iter_mut().filter(|sent| now - sent.at >= after) {
            sent.at = now;
            let puppet = self.swarm.speak(line);
            puppet.say(sent.frame.clone(), false);
            puppet.count_own(Kind::Send);
        }
    }

    /// What could not be said until now never will.
    fn give_up(&mut self) {
        for connection in 0..self.roles.len() {
            while !self.roles[connection].queue.is_empty() {
                self.leave_out(connection, "frames that waited for an answer that did not come");
            }
        }
    }

    /// Lets deliveries come, and acknowledges them, until nothing comes any more.
    fn rest(&mut self) -> Result<(), BenchError> {
        let (mut answers, mut changed) = (0, Instant::now());
        let deadline = changed + PATIENCE;
        while changed.elapsed() < QUIET && Instant::now() < deadline {
            self.swarm.turn()?;
            self.hear();
            for line in 0..self.by_line.len() {
                if self.swarm.speaker_mut(line).say_receive_ack() {
                    self.swarm.speak(line).count_own(Kind::ReceiveAck);
                }
            }
            let now =
                (0..self.by_line.len()).map(|line| self.swarm.speaker(line).tally.total()).sum();
            if answers != now {
                (answers, changed) = (now, Instant::now());
            }
            self.swarm.wait(Instant::now() + LOOK, Wait::Sleep)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Played {
        let mut all = Tally::default();
        (0..self.by_line.len()).for_each(|line| all.add(&self.swarm.speaker(line).tally));
        let unanswered = self.cast.actors().map(|(_, actor)| actor.unanswered.len() as u64).sum();
        let codes = all.codes.into_iter().map(|((kind, code), count)| (kind, code, count));
        Played {
            own: all.own,
            answers: all.answers,
            codes: codes.collect(),
            unanswered,
            lasted: self.answered - self.start,
            ..self.played
        }
    }
}
