//! The run itself: a server, two devices on bad links, and the steps of the script; everything
//! that is seen goes into the ledger.
//!
//! One loop waits for whatever comes first: a process says something, a step is due, time is up.
//! Nothing else changes the state.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tern_badlink::{Captures, Plan as LinkPlan, Protocol, Relay, Sharing};
use tern_client::profile::Profile;
use tern_netmodel::{Conditions, Counts, Profile as LinkProfile};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::children::{Happening, Name, Nursery, Process, Said};
use super::device::Device;
use super::ledger::{DeviceNo, Ledger, Mark, Showing, Verdict};
use super::screen::Screen;
use super::script::{Script, Step};
use super::story::Story;
use super::words::Report;

/// What the users are called.
pub const NAMES: [&str; 2] = ["ann", "bob"];

/// No run takes longer, whatever goes wrong.
const RUN_MAX: Duration = Duration::from_secs(58);

/// After the last missing message this long is listened for one too many.
const LINGER: Duration = Duration::from_secs(1);

/// How often the progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A step that can't be done yet is tried again after this.
const STEP_AGAIN: Duration = Duration::from_millis(20);

/// Lines of processes that wait to be read; a process that finds it full waits.
const HAPPENINGS_MAX: usize = 1_024;

/// Messages that a device may show again after it was killed: as many as the server pushes
/// without an ack by default, and an ack leaves only for what is stored.
const AGAIN_MAX: u64 = 64;

/// The server among the processes; the devices are counted after it.
const SERVER: usize = 0;

/// What the ready line of `tern serve` starts with; the address follows.
const READY: &str = "tern: ready on ";

/// How a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What decides about packets.
    pub seed: u64,
    /// Messages that each device sends.
    pub messages: u32,
    /// The time over which they are sent.
    pub sending: Duration,
    /// How bad the links are.
    pub weather: Conditions,
    /// Whether single messages travel by datagram.
    pub datagrams: bool,
    /// Whether the links write captures, and the server its TLS secrets.
    pub capture: bool,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// Everything has come.
    Settled,
    /// Time is up.
    TimedOut,
    /// A person wants it to end.
    Interrupted,
    /// It can't go on.
    Trouble(Trouble),
}

/// Why a run can't go on.
#[derive(Debug)]
pub enum Trouble {
    /// The system refuses something.
    System(&'static str, io::Error),
    /// A process ended that was not killed; its log.
    Died(String, PathBuf),
    /// A device can't go on, in its own words.
    Device(&'static str, String),
    /// A process said what is not understood.
    Strange(String, String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Died(who, log) => write!(f, "{who} ended by itself; see {}", log.display()),
            Self::Device(who, why) => write!(f, "{who} can't go on: {why}"),
            Self::Strange(who, line) => write!(f, "{who} said what is not understood: {line}"),
        }
    }
}

/// A run in its course.
pub struct Stage {
    plan: Plan,
    start: Instant,
    folder: PathBuf,
    data: PathBuf,
    nursery: Nursery,
    happenings: mpsc::Receiver<Happening>,
    server: Server,
    devices: Vec<Device>,
    /// The script, and when it began; `None` until both devices are online.
    script: Script,
    began_at: Option<Duration>,
    last_showing_at: Duration,
    ledger: Ledger,
    story: Story,
    screen: Screen,
}

/// The server's process, and where it listens once it is known.
#[derive(Default)]
struct Server {
    process: Option<Process>,
    lives: u32,
    address: Option<SocketAddr>,
}

impl Stage {
    /// An empty stage; everything it writes goes below `folder`.
    ///
    /// # Errors
    /// When the folder or this program can't be used.
    pub fn new(plan: Plan, folder: &Path, screen: Screen) -> io::Result<Self> {
        let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
        Ok(Self {
            script: Script::new(plan.messages, plan.sending),
            plan,
            start: Instant::now(),
            folder: folder.to_owned(),
            data: folder.join("data"),
            nursery: Nursery::new(folder, sender)?,
            happenings,
            server: Server::default(),
            devices: Vec::new(),
            began_at: None,
            last_showing_at: Duration::ZERO,
            ledger: Ledger::new(NAMES.len(), AGAIN_MAX),
            story: Story::new(NAMES.len()),
            screen,
        })
    }

    /// Plays the whole run; every process is gone when it returns.
    pub async fn run(&mut self) -> End {
        let deadline = self.start + RUN_MAX;
        let end = tokio::select! {
            // First: a signal from the terminal reaches the other processes too.
            biased;
            () = interrupted() => End::Interrupted,
            () = sleep_until(deadline) => End::TimedOut,
            played = self.perform() => match played {
                Ok(()) => End::Settled,
                Err(trouble) => End::Trouble(trouble),
            },
        };
        self.tear_down().await;
        end
    }

    /// What the ledger says.
    pub fn verdict(&self) -> Verdict {
        self.ledger.verdict()
    }

    /// What happened to the packets of all links.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for device in &self.devices {
            let figures = device.relay.figures();
            counts += figures.up;
            counts += figures.down;
        }
        counts
    }

    /// Where a person sees it.
    pub fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    async fn perform(&mut self) -> Result<(), Trouble> {
        self.set_up().await?;
        self.play().await
    }

    async fn set_up(&mut self) -> Result<(), Trouble> {
        self.start_server()?;
        while self.server.address.is_none() {
            self.wait().await?;
        }
        for name in NAMES {
            let data = self.data.as_os_str();
            let add = ["user", "add", name, "--data"].map(AsRef::as_ref).into_iter().chain([data]);
            let added = self.nursery.run("user-add", add).await;
            added.map_err(|error| Trouble::System("a user can't be added", error))?;
        }
        self.add_devices().await
    }

    /// The link of one device: the same in all of its lives, whatever address it has.
    fn link(&self, server: SocketAddr, device: u64) -> LinkPlan {
        LinkPlan {
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            server,
            profile: LinkProfile::symmetric(self.plan.weather.clone()),
            // Far apart, since neighbouring seeds are those of other runs.
            seed: self.plan.seed ^ device << 32,
            protocol: Protocol::Udp,
            sharing: Sharing::One,
            captures: if self.plan.capture { self.captures(device) } else { Captures::default() },
        }
    }

    fn captures(&self, device: u64) -> Captures {
        let file = |end: &str| Some(self.folder.join(format!("link-{device}-{end}.pcap")));
        Captures { client: file("client"), server: file("server") }
    }

    async fn add_devices(&mut self) -> Result<(), Trouble> {
        let server = self.server.address.expect("set up waits for it");
        let mut profiles = Vec::new();
        for name in NAMES {
            let path = Profile::path(&self.data, name);
            let uin = Profile::load(&path)
                .map_err(|error| Trouble::System("a profile", io::Error::other(error)))?
                .uin;
            profiles.push((path, uin));
        }
        for (index, name) in NAMES.into_iter().enumerate() {
            let relay = Relay::start(self.link(server, index as u64)).await;
            let relay = relay.map_err(|error| Trouble::System("a relay can't start", error))?;
            let (profile, uin) = profiles[index].clone();
            let to = profiles[1 - index].1;
            self.devices.push(Device::new(DeviceNo(index), name, (profile, uin), to, relay));
            self.start_device(DeviceNo(index))?;
        }
        Ok(())
    }

    async fn play(&mut self) -> Result<(), Trouble> {
        let mut progress = interval(PROGRESS_EVERY);
        progress.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.is_settled() {
            let step_at = self.next_step_at();
            tokio::select! {
                biased;
                Some(happening) = self.happenings.recv() => self.handle(happening).await?,
                () = sleep_until(step_at.unwrap_or(self.start)), if step_at.is_some() => {
                    self.step().await?;
                }
                _ = progress.tick() => self.show_progress(),
            }
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Trouble> {
        match self.happenings.recv().await {
            Some(happening) => self.handle(happening).await,
            None => Ok(()),
        }
    }

    /// Nothing is awaited, and nothing came for a while.
    fn is_settled(&self) -> bool {
        self.began_at.is_some()
            && self.script.next_at().is_none()
            && self.devices.iter().all(Device::is_ready)
            && self.ledger.open().is_settled()
            && self.now() > self.last_showing_at + LINGER
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn next_step_at(&self) -> Option<Instant> {
        Some(self.start + self.began_at? + self.script.next_at()?)
    }

    async fn step(&mut self) -> Result<(), Trouble> {
        let Some(step) = self.script.take() else { return Ok(()) };
        match step {
            Step::Send(no) => self.send(no).await,
            Step::ForgetBinding(no) => {
                self.devices[no.0].relay.rebind();
                let name = NAMES[no.0];
                self.event(&format!("the NAT before {name} forgets its binding: a new address"));
            }
            Step::ChangeAddress(no) => {
                self.devices[no.0].change_address().await;
                self.event(&format!("{} moves to another socket", NAMES[no.0]));
            }
            Step::KillServer => self.kill_server().await?,
            Step::StartServer => self.start_server()?,
            Step::KillDevice(no) => self.kill_device(no).await?,
            Step::StartDevice(no) if self.devices[no.0].has_ended() => self.start_device(no)?,
            Step::StartDevice(_) => {
                let began_at = self.began_at.unwrap_or_default();
                self.script.again(self.now().saturating_sub(began_at) + STEP_AGAIN, step);
            }
        }
        Ok(())
    }

    async fn send(&mut self, no: DeviceNo) {
        let now = self.now();
        if let Some(mark) = self.devices[no.0].send_next().await {
            self.ledger.sent(now, mark);
        }
    }

    fn start_server(&mut self) -> Result<(), Trouble> {
        self.server.lives += 1;
        let listen = match self.server.address {
            Some(address) => address.to_string(),
            None => "127.0.0.1:0".to_owned(),
        };
        let keys = self.folder.join("keys");
        let arguments = [
            "serve".as_ref(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--data".as_ref(),
            self.data.as_os_str(),
            // Not in the system's shared memory: that would stay behind after the last kill.
            "--shared-memory".as_ref(),
            self.folder.as_os_str(),
            "--datagrams".as_ref(),
            if self.plan.datagrams { "on" } else { "off" }.as_ref(),
            "--keylog".as_ref(),
            if self.plan.capture { keys.as_os_str() } else { "".as_ref() },
        ];
        let who = Name { role: SERVER, life: self.server.lives };
        let process = self.nursery.start(who, "server", arguments);
        let process = process.map_err(|error| Trouble::System("the server can't start", error))?;
        self.server.process = Some(process);
        Ok(())
    }

    async fn kill_server(&mut self) -> Result<(), Trouble> {
        if let Some(process) = self.server.process.take() {
            let killed = process.kill().await;
            killed.map_err(|error| Trouble::System("the server can't be killed", error))?;
        }
        self.story.server_killed(self.now());
        self.event("kill -9 of the server");
        Ok(())
    }

    fn start_device(&mut self, no: DeviceNo) -> Result<(), Trouble> {
        let role = SERVER + 1 + no.0;
        self.devices[no.0]
            .start(&self.nursery, role)
            .map_err(|error| Trouble::System("a device can't start", error))
    }

    async fn kill_device(&mut self, no: DeviceNo) -> Result<(), Trouble> {
        let killed = self.devices[no.0].kill().await;
        killed.map_err(|error| Trouble::System("a device can't be killed", error))?;
        self.story.device_killed(no);
        self.event(&format!("kill -9 of {}'s client", NAMES[no.0]));
        Ok(())
    }

    async fn handle(&mut self, happening: Happening) -> Result<(), Trouble> {
        let Happening { who, said } = happening;
        if who.role == SERVER {
            return self.handle_server(who.life, &said);
        }
        let no = DeviceNo(who.role - SERVER - 1);
        match said {
            Said::Line(line) => match serde_json::from_str(&line) {
                Ok(report) => self.handle_report(no, who.life, report).await,
                Err(_) => Err(Trouble::Strange(NAMES[no.0].to_owned(), line)),
            },
            Said::Ended if self.devices[no.0].ended(who.life) => Ok(()),
            Said::Ended => {
                let name = NAMES[no.0].to_owned();
                Err(Trouble::Died(name, self.nursery.log(NAMES[no.0])))
            }
        }
    }

    fn handle_server(&mut self, life: u32, said: &Said) -> Result<(), Trouble> {
        let is_current = self.server.process.as_ref().is_some_and(|process| process.life() == life);
        match said {
            Said::Line(line) => match line.strip_prefix(READY) {
                Some(address) => self.server_ready(address, line),
                None => Ok(()),
            },
            Said::Ended if is_current => {
                Err(Trouble::Died("the server".to_owned(), self.nursery.log("server")))
            }
            Said::Ended => Ok(()),
        }
    }

    fn server_ready(&mut self, address: &str, line: &str) -> Result<(), Trouble> {
        let strange = |_| Trouble::Strange("the server".to_owned(), line.to_owned());
        let address = address.trim().parse().map_err(strange)?;
        if self.server.address.replace(address).is_some() {
            self.story.server_back(self.now());
            self.event("the server is back");
        } else {
            self.event(&format!("a server is ready on {address}"));
        }
        Ok(())
    }

    async fn handle_report(
        &mut self,
        no: DeviceNo,
        life: u32,
        report: Report,
    ) -> Result<(), Trouble> {
        let (now, name) = (self.now(), NAMES[no.0]);
        match report {
            Report::Started { kept } => self.handle_started(no, &kept).await,
            Report::Online { resumed } => self.handle_online(no, resumed),
            Report::Offline { why } => {
                let told = self.story.offline(no, now, why.as_deref());
                self.event(&format!("{name} {told}"));
            }
            Report::Acked { number, id } => self.ledger.acked(now, Mark { by: no, number }, id),
            Report::Refused { number, why } => self.ledger.refused(Mark { by: no, number }, why),
            Report::Showed { id, sender, text } => {
                self.last_showing_at = now;
                let mark = self.mark(sender, &text);
                self.ledger.showed(now, Showing { device: no, life, id, mark });
            }
            Report::HistoryLost { what } => self.ledger.history_lost(no, what),
            Report::Failed { why } => return Err(Trouble::Device(name, why)),
        }
        Ok(())
    }

    /// A device is up: it gets what its last life did not keep, and what waited meanwhile.
    async fn handle_started(&mut self, no: DeviceNo, kept: &[u64]) {
        let unanswered: Vec<Mark> = self.ledger.unanswered(no).collect();
        let device = &mut self.devices[no.0];
        let again = unanswered.into_iter().filter(|mark| !kept.contains(&mark.number));
        let waiting = device.came_up(again).await;
        for _ in 0..waiting {
            self.send(no).await;
        }
    }

    fn handle_online(&mut self, no: DeviceNo, resumed: bool) {
        let now = self.now();
        let told = self.story.online(no, now, resumed);
        self.event(&format!("{} {told}", NAMES[no.0]));
        if self.began_at.is_none() && self.story.all_online() {
            self.began_at = Some(now);
            let Plan { messages, sending, .. } = self.plan;
            self.event(&format!("both send {messages} messages in {} s", sending.as_secs()));
        }
    }

    /// The message that a text is, if it is one that its sender sends.
    fn mark(&self, sender: u64, text: &str) -> Option<Mark> {
        self.devices.iter().find(|device| device.uin() == sender)?.mark_of(text)
    }

    fn event(&mut self, text: &str) {
        let now = self.now();
        self.screen.event(now, text);
    }

    fn show_progress(&mut self) {
        let (now, ledger, all) = (self.now(), &self.ledger, 2 * self.plan.messages);
        self.screen.progress(now, || {
            let [ann, bob] = [0, 1].map(|no| ledger.sum(DeviceNo(no)));
            format!(
                "sent {} of {all}, acked {}; ann has {}, bob has {}",
                ann.sent + bob.sent,
                ann.acked + bob.acked,
                ann.delivered,
                bob.delivered
            )
        });
    }

    /// Ends every process. One that the system does not let us kill is killed when dropped.
    async fn tear_down(&mut self) {
        for device in &mut self.devices {
            let _ = device.kill().await;
        }
        if let Some(process) = self.server.process.take() {
            let _ = process.kill().await;
        }
    }
}

/// Waits for a signal that wants the run to end. Without a way to wait, the signal itself ends
/// this process.
async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
