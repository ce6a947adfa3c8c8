//! A crowd that storms the server in some stretches and says nothing but heartbeats in the others.
//! A storm is as strong as server and crowd can bear: what is done is begun anew at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::limits::CHANGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Uin};

use super::{Conductor, Done, progress};
use crate::error::BenchError;
use crate::load::{Crowd, Event, Message, Wait, check};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// Tag of what makes the group; messages count from 0.
const CHANGE: u64 = u64::MAX;

/// How long the group may take to be there, and what a storm began to be done.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a crowd does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Many devices come anew, one after the other: full handshake, LOGIN, a durable epoch
    Reconnects,
    /// The same with TLS's ticket and RESUME, as after a loss of the network
    Resumes,
    /// A few come and go without a pause: TLS's ticket, LOGIN, and away
    Flips,
    /// They talk in one group that is as large as it may be
    Group,
}

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reconnects => "reconnects",
            Self::Resumes => "resumes",
            Self::Flips => "flips",
            Self::Group => "group",
        }
    }

    /// Whether its devices keep TLS's tickets.
    pub(super) fn has_tickets(self) -> bool {
        matches!(self, Self::Resumes | Self::Flips)
    }
}

/// What a crowd does, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Storm {
    /// What.
    pub kind: Kind,
    /// How many logins, or messages that not all have, are under way at once.
    pub at_once: usize,
    /// For each stretch, whether it storms in it.
    pub stretches: Vec<bool>,
    /// How long a storm lasts.
    pub length: Duration,
    /// Bytes of content of each message.
    pub bytes: usize,
}

struct Run<'a> {
    task: &'a Storm,
    crowd: Crowd,
    /// Logins that were answered, or messages that all have, within a storm.
    done: u64,
    sent: u64,
    /// How long each login took, or each message to all.
    took: Latency,
}

impl Storm {
    pub(super) fn run(&self, mut crowd: Crowd, conductor: &Conductor) -> Result<Done, BenchError> {
        let group = (self.kind == Kind::Group).then(|| make_group(&mut crowd)).transpose()?;
        let took = Latency::default();
        let mut run = Run { task: self, crowd, done: 0, sent: 0, took };
        for storms in &self.stretches {
            conductor.wait(&mut run.crowd)?;
            match group {
                _ if !storms => {}
                Some(group) => run.talk(group)?,
                None => run.come()?,
            }
        }
        let mut curves = Curves::default();
        curves.add(&format!("{}: each took", self.kind.name()), run.took);
        let counts = vec![(self.kind.name().to_owned(), "done".to_owned(), run.done)];
        Ok(Done { counts, log: curves.to_log()?, ..Done::default() })
    }
}

/// The first device makes a group of all.
fn make_group(crowd: &mut Crowd) -> Result<ChannelId, BenchError> {
    let mut others: Vec<Uin> = crowd.uins[1..].to_vec();
    others.sort_unstable();
    let mut chunks = others.chunks(CHANGE_MEMBERS_MAX);
    let group = crowd.swarm.create_group(0, chunks.next().unwrap_or_default(), CHANGE);
    acked(crowd)?;
    for members in chunks {
        crowd.swarm.add_members(0, group, members, CHANGE);
        acked(crowd)?;
    }
    Ok(group)
}

/// Lets the crowd live until a change of the group is durable.
fn acked(crowd: &mut Crowd) -> Result<(), BenchError> {
    let (deadline, mut is_acked) = (Instant::now() + PATIENCE, false);
    while !is_acked {
        check_time(deadline, "the group is not made")?;
        let look = Instant::now() + Conductor::LOOK;
        crowd.rest(look, |event| is_acked |= event == Event::Acked(CHANGE))?;
    }
    Ok(())
}

fn check_time(deadline: Instant, what: &str) -> Result<(), BenchError> {
    let is_over = Instant::now() > deadline;
    if is_over { Err(BenchError::Load(format!("{what} in time"))) } else { Ok(()) }
}

impl Run<'_> {
    /// Devices come in turns, as many at once as shall, each over a new connection.
    fn come(&mut self) -> Result<(), BenchError> {
        let end = Instant::now() + self.task.length;
        let mut began: Vec<Option<Instant>> = vec![None; self.crowd.uins.len()];
        let (mut next, mut under_way) = (0, 0);
        loop {
            while Instant::now() < end && under_way < self.task.at_once && began[next].is_none() {
                self.crowd.swarm.disconnect(next);
                self.crowd.swarm.reconnect(next, self.task.kind == Kind::Resumes)?;
                began[next] = Some(Instant::now());
                (next, under_way) = ((next + 1) % began.len(), under_way + 1);
            }
            if under_way == 0 {
                return Ok(());
            }
            check_time(end + PATIENCE, "not all were logged in")?;
            self.crowd.swarm.turn()?;
            while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
                check(device, event)?;
                let is_online = matches!(event, Event::Online { .. });
                if let Some(begun) = began[device].take_if(|_| is_online) {
                    under_way -= 1;
                    self.count(at, begun, end)?;
                }
            }
            self.crowd.swarm.wait(end + PATIENCE, Wait::Sleep)?;
        }
    }

    /// Members talk in turns; of so many messages at once not all members have each.
    fn talk(&mut self, group: ChannelId) -> Result<(), BenchError> {
        let end = Instant::now() + self.task.length;
        let mut open: HashMap<u64, (Instant, usize)> = HashMap::new();
        loop {
            while Instant::now() < end && open.len() < self.task.at_once {
                let (tag, content_bytes) = (self.sent, self.task.bytes);
                let device = tag as usize % self.crowd.uins.len();
                open.insert(tag, (Instant::now(), self.crowd.uins.len())); // the others, and the ack
                self.crowd.swarm.send(device, Message { channel: group, tag, content_bytes });
                self.sent += 1;
            }
            if open.is_empty() {
                return Ok(());
            }
            check_time(end + PATIENCE, "not all members had all messages")?;
            self.crowd.swarm.turn()?;
            while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
                check(device, event)?;
                let (Event::Acked(tag) | Event::Received(tag)) = event else { continue };
                let Some((begun, missing)) = open.get_mut(&tag) else { continue };
                *missing -= 1;
                if *missing == 0 {
                    let begun = *begun;
                    open.remove(&tag);
                    self.count(at, begun, end)?;
                }
            }
            self.crowd.swarm.wait(end + PATIENCE, Wait::Sleep)?;
        }
    }

    fn count(&mut self, at: Instant, begun: Instant, end: Instant) -> Result<(), BenchError> {
        if at >= end {
            return Ok(());
        }
        self.done += 1;
        self.took.record(at.saturating_duration_since(begun));
        progress(self.done as usize)
    }
}
