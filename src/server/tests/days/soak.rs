//! D-09: everything at once, for as long as `TERN_SOAK` says, each unit of it some seconds: a
//! lossy link with a NAT that forgets, a server that is killed, stopped and set to other times,
//! devices that move and come and go with what they have on their disks. In the end nothing is
//! lost, and the slopes of memory and descriptors are told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tern_badlink::{Captures, Plan, Protocol, Relay, Sharing};
use tern_client::profile::Profile;
use tern_client::store::DiskStore;
use tern_netmodel::{Conditions, Profile as Link};
use tern_protocol::ChannelId;
use tern_protocol::frames::Network;

use crate::clock::{Clock, Wish};
use crate::device::{Device, Heard, judge};
use crate::support::random::Random;
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Server};

/// Kinds of faults.
const FAULT_KINDS: usize = 8;

/// Faults of one unit of the soak; an hour is about 450 units.
const FAULTS: u32 = 20;

/// Time between two faults.
const PAUSE: Duration = Duration::from_millis(400);

/// Time between two messages of each side.
const INTERVAL: Duration = Duration::from_millis(25);

/// Files beside its segments that a server may have open more at its end than at its start.
const DESCRIPTORS_MORE_MAX: u64 = 16;

/// One device through all its lives.
struct Life {
    who: &'static str,
    store: PathBuf,
    server: SocketAddr,
    device: Option<Device>,
    heard: Heard,
    sent: u64,
}

impl Life {
    fn new(who: &'static str, folder: &Path, server: SocketAddr) -> Self {
        let store = folder.join(format!("{who}.redb"));
        Self { who, store, server, device: None, heard: Heard::default(), sent: 0 }
    }

    fn open(&mut self, data: &Path) {
        let profile = Profile::load(&Profile::path(data, self.who)).unwrap();
        let store = DiskStore::open(&self.store, profile.uin(), profile.device()).unwrap();
        self.device = Some(Device::start_as(&profile, self.server, Box::new(store), |_| {}));
    }

    /// Ends its process in order; what it heard stays.
    async fn close(&mut self) {
        let heard = self.device.take().expect("it is open").close().await;
        self.heard.shown.extend(heard.shown);
        self.heard.refused.extend(heard.refused);
        self.heard.gaps += heard.gaps;
    }

    fn device(&self) -> &Device {
        self.device.as_ref().expect("it is open")
    }

    /// How many messages it has shown in all its lives.
    fn shown(&self) -> usize {
        self.heard.shown.len() + self.device().heard().shown.len()
    }
}

/// What the server's process holds, as samples over time.
#[derive(Default)]
struct Slopes {
    samples: Vec<(f64, f64, f64)>,
}

impl Slopes {
    /// A segment keeps its file open for as long as it is kept, so those are not counted.
    fn take(&mut self, start: Instant, server: &Server) {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
        let is_segment = |file: &std::fs::DirEntry| {
            let to = std::fs::read_link(file.path()).unwrap_or_default();
            to.extension().is_some_and(|extension| extension == "seg")
        };
        let files = open.filter(|file| !is_segment(file)).count();
        let sample = (start.elapsed().as_secs_f64() / 3_600.0, server.rss_kib() as f64);
        self.samples.push((sample.0, sample.1, files as f64));
    }

    /// Least squares: by how much one of them grows an hour.
    fn per_hour(&self, of: impl Fn(&(f64, f64, f64)) -> f64) -> f64 {
        let n = self.samples.len() as f64;
        let mean =
            |of: &dyn Fn(&(f64, f64, f64)) -> f64| self.samples.iter().map(of).sum::<f64>() / n;
        let (at, height) = (mean(&|sample| sample.0), mean(&|sample| of(sample)));
        let (mut over, mut under) = (0.0, 0.0);
        for sample in &self.samples {
            over += (sample.0 - at) * (of(sample) - height);
            under += (sample.0 - at) * (sample.0 - at);
        }
        if under == 0.0 { 0.0 } else { over / under }
    }

    fn files_grown(&self) -> u64 {
        let (first, last) = (self.samples.first().unwrap(), self.samples.last().unwrap());
        (last.2 - first.2).max(0.0) as u64
    }
}

async fn link(server: SocketAddr, seed: u64) -> Relay {
    let conditions = Conditions {
        loss_percent: 5.0,
        delay_ms: 15,
        jitter_ms: 10,
        duplicate_percent: 1.0,
        late_percent: 2.0,
        late_ms: 60,
        ..Conditions::default()
    };
    let (protocol, sharing) = (Protocol::Udp, Sharing::One);
    let (listen, captures) = (([127, 0, 0, 1], 0).into(), Captures::default());
    let profile = Link::symmetric(conditions);
    Relay::start(Plan { listen, server, profile, seed, protocol, sharing, captures }).await.unwrap()
}

/// Everything that is troubled and watched.
struct Soak {
    /// Always there but in the moment between two lives of it.
    server: Option<Server>,
    clock: Clock,
    link: Relay,
    data: PathBuf,
    channel: ChannelId,
    /// Two that talk, and one that listens.
    lives: [Life; 3],
    begun: Instant,
    slopes: Slopes,
    faults: [u32; FAULT_KINDS],
}

fn serve(clock: &Clock, data: &Path, listen: &str) -> Server {
    let before = clock.before();
    let by: Vec<&str> = before.iter().map(String::as_str).collect();
    let options = ["--segment-bytes", "270336", "--checkpoint-bytes", "1"];
    Server::try_start(&by, data, listen, 2, &options).unwrap()
}

impl Soak {
    async fn begin(folder: &Path, seed: u64) -> Self {
        let (data, clock) = (folder.join("data"), Clock::new());
        let server = serve(&clock, &data, ANY_PORT);
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        server.device("bob", "tablet");
        let address = server.address;
        let link = link(address, seed).await;
        let mut lives = [("ann", link.address()), ("bob", address), ("bob.tablet", address)]
            .map(|(who, server)| Life::new(who, folder, server));
        lives.iter_mut().for_each(|life| life.open(&data));
        let (channel, begun) = (ann.channel_with(&bob), Instant::now());
        let (slopes, faults) = (Slopes::default(), [0; FAULT_KINDS]);
        let server = Some(server);
        Self { server, clock, link, data, channel, lives, begun, slopes, faults }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it lives")
    }

    /// Notes what the server's process holds.
    fn sample(&mut self) {
        let server = self.server.as_ref().expect("it lives");
        self.slopes.take(self.begun, server);
    }

    /// Says a message of each side at each tick, for a while.
    async fn talk(&mut self, time: Duration) {
        let (end, mut tick) = (Instant::now() + time, tokio::time::interval(INTERVAL));
        while Instant::now() < end {
            tick.tick().await;
            for life in &mut self.lives[..2] {
                life.sent += 1;
                let text = format!("{} {}", life.who, life.sent);
                life.device().say(self.channel, life.sent, text).await;
            }
        }
    }

    async fn fault(&mut self, fault: usize, random: &mut Random) {
        self.faults[fault] += 1;
        match fault {
            0 => {
                let server = self.server.take().expect("it lives");
                let address = server.address.to_string();
                server.kill();
                self.server = Some(serve(&self.clock, &self.data, &address));
            }
            1 => {
                self.server().signal(Signal::STOP);
                self.talk(PAUSE / 2).await;
                self.server().signal(Signal::CONT);
            }
            2 => self.link.rebind(),
            // Without a connection there is nothing to move.
            3 => drop(self.lives[0].device().client.rebind().await),
            4 => self.lives[0].device().client.network_changed(Network::Wifi),
            5 => self.clock.set(Wish::Years(random.below(21) as i64 - 10)),
            6 => self.clock.set([Wish::True, Wish::Frozen][random.below(2)]),
            _ => {
                let life = &mut self.lives[random.below(3)];
                life.close().await;
                life.open(&self.data);
            }
        }
    }

    /// Waits until everybody has everything, and closes all; by name what was sent.
    async fn end(&mut self) -> Vec<(&'static str, u64)> {
        self.clock.set(Wish::True);
        let sent: Vec<_> = self.lives[..2].iter().map(|life| (life.who, life.sent)).collect();
        let all: u64 = sent.iter().map(|(_, count)| count).sum();
        for life in &self.lives {
            let earlier = life.heard.shown.len();
            let has_all = |heard: &Heard| earlier + heard.shown.len() >= all as usize;
            life.device().until("the rest", has_all).await;
            assert_eq!(life.shown() as u64, all, "{}", life.who);
        }
        self.sample();
        for life in &mut self.lives {
            life.close().await;
        }
        sent
    }

    fn tell(&self, seed: u64, n: u64, (lost, again, disordered): (u64, u64, u64)) {
        let [kills, stops, rebinds, moves, networks, years, freezes, lives] = self.faults;
        println!(
            "TEST D-09 seed={seed} n={n} devices=3 seconds={:.0} lost={lost} dup={again} \
             reorder={disordered} kills={kills} stops={stops} rebinds={rebinds} moves={moves} \
             networks={networks} clocks={} lives={lives} rss_kib={:.0} \
             rss_slope_kib_per_h={:.0} fd_slope_per_h={:.1} fds_grown={}",
            self.begun.elapsed().as_secs_f64(),
            years + freezes,
            self.slopes.samples.last().unwrap().1,
            self.slopes.per_hour(|sample| sample.1),
            self.slopes.per_hour(|sample| sample.2),
            self.slopes.files_grown(),
        );
    }
}

#[tokio::test]
async fn d_09_a_soak_in_all_faults_at_once_loses_and_leaks_nothing() {
    let (mut random, folder) = (Random::seeded(), tempfile::tempdir().unwrap());
    let mut soak = Soak::begin(folder.path(), random.seed).await;
    let mut to_come = Vec::new();
    for _ in 0..scaled(FAULTS) {
        soak.talk(PAUSE).await;
        soak.sample();
        if to_come.is_empty() {
            to_come.extend(0..FAULT_KINDS); // each of them before one comes again
        }
        let fault = to_come.swap_remove(random.below(to_come.len()));
        soak.fault(fault, &mut random).await;
    }
    let sent = soak.end().await;
    let judged = soak.lives.each_ref().map(|life| judge(&life.heard.texts(), &sent));
    let total = judged.iter().fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    soak.tell(random.seed, sent.iter().map(|(_, count)| count).sum(), total);
    assert_eq!(total, (0, 0, 0));
    let lives = &soak.lives;
    assert!(lives.windows(2).all(|two| two[0].heard.shown == two[1].heard.shown), "one order");
    assert!(lives.iter().all(|life| life.heard.refused.is_empty() && life.heard.gaps == 0));
    assert!(soak.slopes.files_grown() <= DESCRIPTORS_MORE_MAX, "{:?}", soak.slopes.samples);
    soak.server.take().expect("it lives").stop();
}
