//! Two honest devices, one writing to the other all the while: whatever else happens to the
//! server, they must not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tern_protocol::{ChannelId, Frame};

use super::dial::Dial;
use super::peer::{PATIENCE, Peer};
use super::server::{Account, Server};
use super::words;

/// Time between two messages: what the server allows a device over time.
const INTERVAL: Duration = Duration::from_millis(20);

/// The pair at work.
pub struct Honest {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
    reader: JoinHandle<Vec<Duration>>,
}

/// What the two threads tell each other.
struct Shared {
    channel: ChannelId,
    start: Instant,
    stop: AtomicBool,
    sent: AtomicU32,
    delivered: AtomicU32,
}

/// What became of the pair.
#[derive(Debug)]
pub struct Report {
    pub messages: u32,
    pub p50: Duration,
    pub p99: Duration,
}

impl Honest {
    /// Starts the pair, a device on each of two workers; some messages have come when it returns.
    pub fn start(server: &Server) -> Self {
        Self::start_as(server, "honest")
    }

    /// The same as users of their own.
    pub fn start_as(server: &Server, name: &str) -> Self {
        let user = |who| server.user(&format!("{name}-{who}"));
        let (ann, bob) = (user("ann"), user("bob"));
        let shared = Arc::new(Shared {
            channel: ann.channel_with(&bob),
            start: Instant::now(),
            stop: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            delivered: AtomicU32::new(0),
        });
        let address = server.address;
        let reader = spawn(&shared, move |shared| read(shared, address, &bob));
        let writer = spawn(&shared, move |shared| write(shared, address, &ann));
        let honest = Self { shared, writer, reader };
        honest.wait_for(5);
        honest
    }

    /// Waits until this many more messages have come.
    pub fn wait_for(&self, more: u32) {
        let (start, goal) = (Instant::now(), self.delivered() + more);
        while self.delivered() < goal {
            let alive = !self.writer.is_finished() && !self.reader.is_finished();
            assert!(alive && start.elapsed() < PATIENCE, "the honest pair is stuck");
            std::thread::sleep(INTERVAL);
        }
    }

    fn delivered(&self) -> u32 {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// Ends the pair: all its messages must have been acked, and have come, once and in order,
    /// over the connection and the login that it began with.
    pub fn finish(self) -> Report {
        self.wait_for(5);
        self.shared.stop.store(true, Ordering::Release);
        self.writer.join().expect("the writer saw nothing wrong");
        let mut delays = self.reader.join().expect("the reader saw nothing wrong");
        delays.sort_unstable();
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
        Report { messages: delays.len() as u32, p50: at(0.5), p99: at(0.99) }
    }
}

fn spawn<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> JoinHandle<T> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || work(&shared))
}

/// Writes a message each interval; each content is the time at which it was written.
fn write(shared: &Shared, server: SocketAddr, account: &Account) {
    let dial = Dial { worker: Some(0), ..Dial::default() };
    let (mut peer, logged_in) = Peer::device(server, &dial, account);
    let (mut counter, mut acked) = (0, 0);
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::Acquire) || acked < counter {
        if !shared.stop.load(Ordering::Acquire) && due <= Instant::now() && counter - acked < 64 {
            counter += 1;
            shared.sent.store(counter, Ordering::Release);
            let now = shared.start.elapsed().as_nanos() as u64;
            let epoch = logged_in.epoch.get();
            let mut head = words::send_head(shared.channel, epoch, counter);
            head.predecessor = (counter - 1).into();
            peer.say(&words::send_of(head, &now.to_le_bytes()));
            due += INTERVAL;
        }
        peer.turn(due.saturating_duration_since(Instant::now()).min(INTERVAL));
        while let Some(said) = peer.try_next() {
            match said.frame() {
                Frame::SendAck(ack) => {
                    assert_eq!(
                        (ack.counter.get(), ack.id.get()),
                        (acked + 1, u64::from(acked) + 1)
                    );
                    acked += 1;
                }
                Frame::SendRefused(refused) => panic!("an honest message was refused: {refused:?}"),
                Frame::Push(push, _) => {
                    peer.say(&words::receive_ack(shared.channel, push.id.get()));
                }
                _ => {}
            }
        }
        assert_eq!(peer.end(), None, "the honest writer lost its connection");
    }
}

/// Reads until all that was written has come; how long each was under way.
fn read(shared: &Shared, server: SocketAddr, account: &Account) -> Vec<Duration> {
    let dial = Dial { worker: Some(1), ..Dial::default() };
    let (mut peer, _) = Peer::device(server, &dial, account);
    let (mut delays, mut pinged) = (Vec::new(), Instant::now());
    let all = |delays: &Vec<_>| delays.len() as u32 == shared.sent.load(Ordering::Acquire);
    while !shared.stop.load(Ordering::Acquire) || !all(&delays) {
        peer.turn(INTERVAL);
        while let Some(said) = peer.try_next() {
            if let Frame::Push(push, content) = said.frame() {
                assert_eq!(push.id.get(), delays.len() as u64 + 1, "in order, each once");
                let written = u64::from_le_bytes(content.try_into().expect("eight bytes"));
                let delay = shared.start.elapsed() - Duration::from_nanos(written);
                delays.push(delay);
                peer.say(&words::receive_ack(shared.channel, push.id.get()));
                shared.delivered.store(delays.len() as u32, Ordering::Release);
            }
        }
        if pinged.elapsed() > Duration::from_secs(1) {
            pinged = Instant::now();
            peer.say(&words::ping(1));
        }
        assert_eq!(peer.end(), None, "the honest reader lost its connection");
    }
    delays
}
