//! Load from processes of their own: each is this program again, gets its [`Order`] as a line of
//! JSON on standard input, logs its devices in, says so, waits for the word to start, and tells
//! what it saw. So the load can use more cores than one, and the kernel's books keep it apart.
//!
//! A process that loses its parent ends.

mod back;
mod crowd;
mod day;
mod fan_out;
mod fleet;
mod login;
mod replay;
mod slow;
mod talk;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::frames::Network;
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{DeviceId, Uin};

use crate::error::{BenchError, Tried};
use crate::load::{Approach, Crowd, Datagrams, Identity, Swarm, Tickets, Weather};

pub use back::ComeBack;
pub use crowd::{Kind, Storm};
pub use day::Day;
pub use fan_out::FanOut;
pub use fleet::{Fleet, SUBCOMMAND};
pub use login::LogIn;
pub use replay::Replay;
pub use slow::Slow;
pub use talk::Talk;

/// What one process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Where the server is.
    pub server: SocketAddr,
    /// SHA-256 of its certificate.
    pub pin: [u8; 32],
    /// Addresses that its devices come from.
    pub sources: Vec<SocketAddr>,
    /// Its devices: uin, device, secret.
    pub devices: Vec<(u64, u32, [u8; SECRET_BYTES])>,
    /// The path's weather, if it is bad.
    pub weather: Option<Weather>,
    /// How single messages travel.
    pub datagrams: Datagrams,
    /// For all that is random in this process.
    pub seed: u64,
    /// What the devices do.
    pub task: Task,
}

/// What devices do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// They talk in pairs.
    Talk(Talk),
    /// They log in, go away, and come back.
    LogIn(LogIn),
    /// Their server dies, and they come back.
    ComeBack(ComeBack),
    /// They live through a day.
    Day(Day),
    /// They talk in one group.
    FanOut(FanOut),
    /// They talk in groups, and some do not keep up.
    Slow(Slow),
    /// They are a crowd that comes at once, or talks in a group that is as large as it may be.
    Storm(Storm),
    /// They say what others said in a capture.
    Replay(Replay),
}

impl Task {
    /// Whether a process with this task leaves its core to every other one that wants it: a crowd's
    /// phones take no time from those of others.
    fn gives_way(&self) -> bool {
        matches!(self, Self::Storm(_))
    }
}

/// What a process says, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    /// How much of its present work is done.
    Progress(usize),
    /// It is ready for the next stretch.
    Ready,
    /// It is done.
    Done(Done),
    /// It can't go on.
    Failed(String),
}

/// What a process saw.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What was sent.
    pub sent: u64,
    /// Of it, what was acked.
    pub acked: u64,
    /// Of it, what the other side received.
    pub received: u64,
    /// Acks that came within the measured stretch.
    pub acked_within: u64,
    /// Sessions that were resumed.
    pub resumed: u64,
    /// Share of packets that the bad path lost.
    pub lost: Option<f64>,
    /// What was counted beside these: group, name, and how often.
    #[serde(default)]
    pub counts: Vec<(String, String, u64)>,
    /// The histograms, as a log.
    pub log: String,
}

/// Does what the order on standard input says.
///
/// # Errors
/// When it was given none; what goes wrong later is told on standard output.
pub fn serve() -> Result<(), BenchError> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).tried("read the order")?;
    let order: Order = serde_json::from_str(&line).tried("read the order")?;
    let word = match obey(order) {
        Ok(done) => Word::Done(done),
        Err(BenchError::Load(why)) => Word::Failed(why),
        Err(error) => Word::Failed(error.to_string()),
    };
    say(&word)
}

fn obey(order: Order) -> Result<Done, BenchError> {
    let conductor = Conductor::listen();
    let Order { server, pin, sources, devices, weather, datagrams, seed, task } = order;
    let tickets = match task {
        Task::LogIn(_) | Task::Day(_) => Tickets::OnePerDevice(devices.len()),
        Task::Storm(ref storm) if storm.kind.has_tickets() => Tickets::OnePerDevice(devices.len()),
        _ => Tickets::None,
    };
    let returns = matches!(task, Task::ComeBack(_));
    let approach = Approach { server, pin, sources, weather, datagrams, returns, tickets, seed };
    let identities = devices.into_iter().map(|(uin, device, secret)| Identity {
        uin: Uin(uin),
        device: DeviceId(device),
        secret,
    });
    let identities = identities.collect();
    if let Task::Replay(task) = task {
        return task.run(approach, identities, &conductor);
    }
    let swarm = Swarm::new(approach)?;
    match task {
        Task::LogIn(task) => task.run(swarm, identities, &conductor),
        Task::Talk(talk) => {
            let mut crowd = Crowd::log_in(swarm, identities, Network::Wired, progress)?;
            conductor.wait(&mut crowd)?;
            talk.run(crowd)
        }
        Task::Day(day) => {
            let mut crowd = Crowd::log_in(swarm, identities, Network::Wifi, progress)?;
            conductor.wait(&mut crowd)?;
            day.run(crowd)
        }
        Task::FanOut(task) => {
            let (mut crowd, group) = task.gather(swarm, identities)?;
            conductor.wait(&mut crowd)?;
            task.run(crowd, group)
        }
        Task::Slow(task) => {
            let crowd = Crowd::log_in(swarm, identities, Network::Wired, progress)?;
            task.run(crowd, &conductor)
        }
        Task::Storm(task) => {
            let crowd = Crowd::log_in(swarm, identities, Network::Wifi, progress)?;
            task.run(crowd, &conductor)
        }
        Task::ComeBack(task) => {
            let crowd = Crowd::log_in(swarm, identities, Network::Cellular, progress)?;
            task.run(crowd, &conductor)
        }
        Task::Replay(_) => unreachable!("it was taken above"),
    }
}

/// Says how much is done, but not each time: lines cost time.
fn progress(done: usize) -> Result<(), BenchError> {
    /// Between two lines.
    const STEP: usize = 100;
    if done.is_multiple_of(STEP) { say(&Word::Progress(done)) } else { Ok(()) }
}

fn say(word: &Word) -> Result<(), BenchError> {
    let text = serde_json::to_string(word).tried("words as JSON")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).tried("tell the parent")
}

/// The parent, as a process of the load knows it.
struct Conductor {
    is_given: Arc<AtomicBool>,
}

impl Conductor {
    /// Between two looks whether the word was given: no message is due meanwhile.
    const LOOK: Duration = Duration::from_millis(2);

    fn listen() -> Self {
        let is_given = Arc::new(AtomicBool::new(false));
        let give = Arc::clone(&is_given);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if line.is_err() {
                    break;
                }
                give.store(true, Ordering::Release);
            }
            std::process::exit(1); // nobody is left to tell
        });
        Self { is_given }
    }

    /// Says that all is ready, and waits until the word comes; nobody lives meanwhile.
    fn wait_alone(&self) -> Result<(), BenchError> {
        say(&Word::Ready)?;
        while !self.is_given.swap(false, Ordering::Acquire) {
            std::thread::sleep(Self::LOOK);
        }
        Ok(())
    }

    /// Says that all is ready, and lets the devices live until the word comes.
    fn wait(&self, crowd: &mut Crowd) -> Result<(), BenchError> {
        say(&Word::Ready)?;
        while !self.is_given.swap(false, Ordering::Acquire) {
            crowd.rest(Instant::now() + Self::LOOK, |_| {})?;
        }
        Ok(())
    }
}
