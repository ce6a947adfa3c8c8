//! A device is away while many messages pass in some channels, and comes back: how fast it
//! catches up, whether the newest channels come first, what that takes of the server, and whether
//! a pair that talks meanwhile notices.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_protocol::ChannelId;
use tern_protocol::frames::Network;

use super::books::Books;
use super::parse_seconds;
use super::talking::{LIMITLESS, sources};
use crate::error::BenchError;
use crate::load::{
    Approach, Arrivals, CONTENT_BYTES_MIN, Crowd, Datagrams, Event, Message, Schedule, Swarm,
    Tickets, Wait, check,
};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;
use crate::report::{Figure, Run};
use crate::system::Server;

/// The device that is away.
const AWAY: usize = 0;

/// The pair that talks all the while.
const PAIR: [usize; 2] = [1, 2];

/// The first of those that write to the one who is away.
const WRITERS: usize = 3;

/// How long nothing may come before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between the last messages of two channels: the server orders channels by seconds.
const APART: Duration = Duration::from_millis(1_100);

/// Counts of the server that say what a catch-up takes.
const COUNTS: [&str; 7] = [
    "pushes",
    "pushes_free",
    "records_read",
    "reads_cold",
    "major_faults",
    "datagrams_out",
    "transmits",
];

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Catchup {
    /// Messages that pass meanwhile
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    messages: u64,
    /// Channels that they are divided among
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    channels: u64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Messages a second of the pair that talks meanwhile
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// How long the pair is watched before the device comes back
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Bytes of a file of the log: short ones, so that many pass
    #[arg(long, default_value_t = 1 << 20)]
    segment_bytes: u32,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    durability: String,
}

/// The devices, and what they heard.
struct Scene {
    crowd: Crowd,
    pair: ChannelId,
    begun: Instant,
    schedule: Schedule,
    talk: Latency,
    /// Messages of the pair that are under way.
    talking: u64,
    acked: u64,
    /// What came to the one who was away; and which channels, in the order of their first message.
    caught: u64,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
    order: Vec<usize>,
}

impl Catchup {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if self.bytes < CONTENT_BYTES_MIN || self.rate <= 0.0 {
            let what = format!("--bytes: {CONTENT_BYTES_MIN} at least; --rate: above 0");
            return Err(BenchError::Usage(what));
        }
        Ok(())
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let bytes = self.segment_bytes.to_string();
        let mut options = vec![
            ("durability", self.durability.as_str()),
            ("segment-bytes", &bytes),
            ("segment-bytes-max", &bytes),
        ];
        options.extend(LIMITLESS);
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let mut scene = self.scene(server)?;
        scene.crowd.swarm.disconnect(AWAY);
        eprintln!("  {} messages pass", self.messages);
        self.write(&mut scene)?;
        eprintln!("  the pair alone, and then with the one who comes back");
        let start = Books::read(server, &[])?;
        let until = Instant::now() + Duration::from_secs_f64(self.seconds);
        scene.talk = Latency::default();
        scene.live(|scene| scene.talking == 0 && Instant::now() > until, Some(until))?;
        let alone = std::mem::take(&mut scene.talk);
        let before = Books::read(server, &[])?;
        let back = Instant::now();
        scene.crowd.swarm.reconnect(AWAY, false)?;
        scene.live(|scene| scene.caught == self.messages, None)?;
        let after = Books::read(server, &[])?;
        let mut curves = Curves::default();
        curves.add("pair alone: send to receive", alone);
        curves.add("pair meanwhile: send to receive", std::mem::take(&mut scene.talk));
        let mut figures = self.rates(&scene, back)?;
        figures.extend(self.server(&before, &after));
        for (name, latency) in curves.iter() {
            figures.extend(latency.figures(&name.replace('-', " ")));
        }
        figures.extend(after.disturbance_since(&start));
        Ok(Run { figures, curves })
    }

    fn scene(&self, server: &Server) -> Result<Scene, BenchError> {
        let identities = server.add_users(WRITERS + self.channels as usize)?;
        let swarm = Swarm::new(Approach {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), 0, 1),
            weather: None,
            datagrams: Datagrams::Doubled,
            returns: false,
            tickets: Tickets::None,
            seed: 1,
        })?;
        let crowd = Crowd::log_in(swarm, identities, Network::Wired, |_| Ok(()))?;
        Ok(Scene {
            pair: ChannelId::direct(crowd.uins[PAIR[0]], crowd.uins[PAIR[1]]),
            crowd,
            begun: Instant::now(),
            schedule: Schedule::new(Arrivals::Even, self.rate, 0),
            talk: Latency::default(),
            talking: 0,
            acked: 0,
            caught: 0,
            first_at: None,
            last_at: None,
            order: Vec::new(),
        })
    }

    /// All channels together, and in the end a message to each, one after the other.
    fn write(&self, scene: &mut Scene) -> Result<(), BenchError> {
        let channels = self.channels;
        let together = self.messages - channels;
        for number in 0..together {
            self.write_one(scene, number % channels);
        }
        scene.live(|scene| scene.acked == together, None)?;
        for channel in 0..channels {
            self.write_one(scene, channel);
            scene.live(|scene| scene.acked == together + channel + 1, None)?;
            let until = Instant::now() + APART;
            scene.live(|_| Instant::now() >= until, Some(until))?;
        }
        Ok(())
    }

    fn write_one(&self, scene: &mut Scene, channel: u64) {
        let writer = WRITERS + channel as usize;
        let uins = &scene.crowd.uins;
        let (tag, to) = (channel, ChannelId::direct(uins[AWAY], uins[writer]));
        let message = Message { channel: to, tag, content_bytes: self.bytes };
        scene.crowd.swarm.send(writer, message);
    }

    /// How fast all came, and in which order of the channels.
    fn rates(&self, scene: &Scene, back: Instant) -> Result<Vec<Figure>, BenchError> {
        const GROUP: &str = "catching up";
        let (Some(first), Some(last)) = (scene.first_at, scene.last_at) else {
            return Err(BenchError::Load("nothing came".to_owned()));
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let seconds = (last - back).as_secs_f64();
        // The newest channel is the last that was written to.
        let newest_first = (0..self.channels as usize).rev();
        let in_turn = scene.order.iter().copied().zip(newest_first).filter(|(a, b)| a == b);
        let in_turn = in_turn.count();
        Ok(vec![
            Figure::new(GROUP, "messages that were missed", "", scene.caught as f64),
            Figure::new(GROUP, "return to first message", "ms", ms(first - back)),
            Figure::new(GROUP, "return to last message", "ms", ms(last - back)),
            Figure::new(GROUP, "rate", "messages per s", scene.caught as f64 / seconds),
            Figure::new(GROUP, "channels", "", scene.order.len() as f64),
            Figure::new(GROUP, "of them begun in their turn, newest first", "", in_turn as f64),
        ])
    }

    fn server(&self, before: &Books, after: &Books) -> Vec<Figure> {
        const GROUP: &str = "server meanwhile";
        let messages = self.messages as f64;
        let threads = after.threads_since(before);
        let cpu: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
        let us = cpu as f64 / 1e3;
        let seconds = after.seconds_since(before);
        let mib = |books: &Books| books.server.memory.anonymous as f64 / f64::from(1 << 20);
        let mut figures = vec![
            Figure::new(GROUP, "CPU time", "µs per message", us / messages),
            Figure::new(GROUP, "of a core", "%", us / 1e4 / seconds),
            Figure::new(GROUP, "private memory grew", "MiB", mib(after) - mib(before)),
        ];
        for name in ["turn_us_p99", "turn_us_p999", "turn_us_max"] {
            for (when, books) in [("before", before), ("after", after)] {
                let value = books.status.figure(name);
                let what = format!("{name} since its start, {when}");
                figures.extend(value.map(|us| Figure::new(GROUP, what, "µs", us as f64)));
            }
        }
        let grown = after.status.since(&before.status);
        for name in COUNTS {
            let growth = grown.get(name).map(|growth| growth.by as f64 / messages);
            figures.extend(growth.map(|by| Figure::new(GROUP, name, "per message", by)));
        }
        figures
    }
}

impl Scene {
    /// Lets all live until it is enough. The pair talks; `until` ends that earlier.
    fn live(
        &mut self,
        is_enough: impl Fn(&Self) -> bool,
        until: Option<Instant>,
    ) -> Result<(), BenchError> {
        let (mut heard, mut seen) = (Instant::now(), (self.acked, self.caught));
        while !is_enough(self) {
            if heard.elapsed() > PATIENCE {
                let (acked, caught) = seen;
                let what = format!("nothing comes any more: {acked} acked, {caught} caught up");
                return Err(BenchError::Load(what));
            }
            let now = self.begun.elapsed();
            while self.schedule.due() <= now {
                if until.is_none_or(|until| Instant::now() < until) {
                    self.say(self.schedule.due());
                }
                self.schedule.advance();
            }
            self.crowd.swarm.turn()?;
            self.hear()?;
            if seen != (self.acked, self.caught) || until.is_some() {
                (heard, seen) = (Instant::now(), (self.acked, self.caught));
            }
            let next = self.begun + self.schedule.due();
            self.crowd.swarm.wait(next, Wait::Sleep)?;
        }
        Ok(())
    }

    fn say(&mut self, due: Duration) {
        let tag = due.as_nanos() as u64; // fits for centuries
        let message = Message { channel: self.pair, tag, content_bytes: CONTENT_BYTES_MIN };
        self.crowd.swarm.send(PAIR[0], message);
        self.talking += 1;
    }

    fn hear(&mut self) -> Result<(), BenchError> {
        while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
            check(device, event)?;
            match event {
                Event::Acked(_) if device >= WRITERS => self.acked += 1,
                Event::Received(due) if device == PAIR[1] => {
                    let due = self.begun + Duration::from_nanos(due);
                    self.talk.record(at.saturating_duration_since(due));
                    self.talking -= 1;
                }
                Event::Received(channel) if device == AWAY => {
                    self.caught += 1;
                    self.first_at.get_or_insert(at);
                    self.last_at = Some(at);
                    let channel = channel as usize;
                    if !self.order.contains(&channel) {
                        self.order.push(channel);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
