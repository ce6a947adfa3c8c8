//! Many devices over TCP and TLS 1.3 on one thread: each connection speaks its [`Dialect`], and all
//! share one loop. A lost connection comes back after a random time, by the same rule as Tern's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ClientConnection, RootCertStore};
use tern_bench::error::{BenchError, Tried};
use tern_bench::load::{punctual, return_within, wait_for};
use tern_random::Stream;

use super::dialect::Dialect;
use super::{Event, Load, Message};

/// The name in the servers' certificate.
pub const SERVER_NAME: &str = "localhost";

/// Time between two signs of life of a connection: the heartbeat that Tern begins with.
const BEAT: Duration = Duration::from_secs(25);

/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Makes the connections of a device: messages leave by the first.
pub type Speak = Box<dyn Fn(usize) -> Vec<Box<dyn Dialect>>>;

/// Many devices.
pub struct Tcp {
    server: SocketAddr,
    config: Arc<ClientConfig>,
    speak: Speak,
    poll: Poll,
    ready: Events,
    lines: Vec<Line>,
    devices: Vec<Device>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    events: VecDeque<(usize, Instant, Event)>,
    random: Stream,
}

/// A device: its connections, and how many of them stand.
struct Device {
    first: usize,
    lines: usize,
    online: usize,
}

struct Line {
    device: usize,
    dialect: Box<dyn Dialect>,
    link: Option<(TcpStream, ClientConnection)>,
    is_online: bool,
    /// Connections since the last that came online.
    attempts: u32,
    return_at: Option<Instant>,
    beat_at: Instant,
}

impl Tcp {
    /// No device yet. `certificate` is what the server shows.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(
        server: SocketAddr,
        certificate: &CertificateDer<'static>,
        speak: Speak,
        seed: u64,
    ) -> Result<Self, BenchError> {
        punctual()?;
        Ok(Self {
            server,
            config: Arc::new(config(certificate)?),
            speak,
            poll: Poll::new().tried("the load's sockets")?,
            ready: Events::with_capacity(EVENTS),
            lines: Vec::new(),
            devices: Vec::new(),
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            random: Stream::of(seed, "tcp"),
        })
    }

    /// A new connection for a line.
    fn open(&mut self, index: usize) -> Result<(), BenchError> {
        let mut stream = TcpStream::connect(self.server).tried("connect to the server")?;
        stream.set_nodelay(true).tried("a socket's options")?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), both).tried("watch a socket")?;
        let name = ServerName::try_from(SERVER_NAME).expect("it is a name");
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|error| BenchError::Load(format!("TLS: {error}")))?;
        tls.set_buffer_limit(None); // the window bounds what a device has to say
        let line = &mut self.lines[index];
        line.link = Some((stream, tls));
        line.attempts += 1;
        line.return_at = None;
        line.dialect.begin();
        Ok(())
    }

    /// Reads and writes all that can be.
    fn serve(&mut self, now: Instant, index: usize) {
        let line = &mut self.lines[index];
        let mut told = Vec::new();
        let served = line.serve(&mut |event| told.push(event));
        for event in told {
            self.tell(now, index, event);
        }
        if let Err(why) = served {
            self.lose(now, index, &why);
        }
    }

    fn tell(&mut self, now: Instant, index: usize, event: Event) {
        let line = &mut self.lines[index];
        let device = &mut self.devices[line.device];
        if event != Event::Online {
            return self.events.push_back((line.device, now, event));
        }
        (line.is_online, line.attempts) = (true, 0);
        device.online += 1;
        if device.online == device.lines {
            self.events.push_back((line.device, now, Event::Online));
        }
    }

    /// A connection is gone, or of no use: the next one comes after a random time.
    fn lose(&mut self, now: Instant, index: usize, why: &str) {
        let line = &mut self.lines[index];
        let Some((mut stream, _)) = line.link.take() else { return };
        // One that fails is closed all the same when it is dropped.
        let _ = self.poll.registry().deregister(&mut stream);
        if std::mem::replace(&mut line.is_online, false) {
            let device = &mut self.devices[line.device];
            if device.online == device.lines {
                self.events.push_back((line.device, now, Event::Lost));
            }
            device.online -= 1;
        } else if line.attempts > ATTEMPTS_MAX {
            let what = format!("it can't connect: {why}");
            return self.events.push_back((line.device, now, Event::Failed(what)));
        }
        let at = now + return_within(line.attempts).mul_f64(self.random.fraction());
        line.return_at = Some(at);
        self.timers.push(Reverse((at, index)));
    }

    fn fire(&mut self, now: Instant, index: usize) -> Result<(), BenchError> {
        let line = &mut self.lines[index];
        if line.return_at.is_some_and(|at| at <= now) {
            return self.open(index);
        }
        if line.beat_at <= now {
            line.beat_at = now + BEAT;
            self.timers.push(Reverse((line.beat_at, index)));
            if line.is_online {
                line.dialect.beat();
                self.serve(now, index);
            }
        }
        Ok(())
    }
}

/// Attempts in a row after which something is wrong: minutes, by the rule above.
const ATTEMPTS_MAX: u32 = 12;

impl Line {
    fn serve(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), String> {
        let Some((stream, tls)) = &mut self.link else { return Ok(()) };
        let mut scratch = [0; READ_BYTES];
        loop {
            let read = match tls.read_tls(stream) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(_) => true,
                Err(error) if is_for_later(&error) => false,
                Err(error) => return Err(error.to_string()),
            };
            tls.process_new_packets().map_err(|error| error.to_string())?;
            loop {
                match tls.reader().read(&mut scratch) {
                    Ok(0) => return Err("the server ended the conversation".to_owned()),
                    Ok(bytes) => self.dialect.take(&scratch[..bytes], tell)?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.to_string()),
                }
            }
            if !read {
                break;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some((stream, tls)) = &mut self.link else { return Ok(()) };
        let said = std::mem::take(self.dialect.outbox());
        tls.writer().write_all(&said).map_err(|error| error.to_string())?;
        while tls.wants_write() {
            match tls.write_tls(stream) {
                Ok(_) => {}
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// Whether the socket only has nothing to give or no room now, or still connects.
fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

impl Load for Tcp {
    fn connect(&mut self) -> Result<(), BenchError> {
        let (device, first) = (self.devices.len(), self.lines.len());
        let dialects = (self.speak)(device);
        self.devices.push(Device { first, lines: dialects.len(), online: 0 });
        for dialect in dialects {
            let beat_at = Instant::now() + BEAT.mul_f64(self.random.fraction());
            let index = self.lines.len();
            self.timers.push(Reverse((beat_at, index)));
            let (link, is_online, attempts, return_at) = (None, false, 0, None);
            let line = Line { device, dialect, link, is_online, attempts, return_at, beat_at };
            self.lines.push(line);
            self.open(index)?;
        }
        Ok(())
    }

    fn send(&mut self, from: usize, message: Message) {
        let index = self.devices[from].first;
        self.lines[index].dialect.send(message);
        if let Err(why) = self.lines[index].flush() {
            self.lose(Instant::now(), index, &why);
        }
    }

    fn turn(&mut self) -> Result<(), BenchError> {
        let poll = self.poll.poll(&mut self.ready, Some(Duration::ZERO));
        if let Err(error) = poll
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error).tried("the load's sockets");
        }
        let ready: Vec<usize> = self.ready.iter().map(|event| event.token().0).collect();
        for index in ready {
            self.serve(Instant::now(), index);
        }
        let now = Instant::now();
        while let Some(&Reverse((at, index))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            self.fire(now, index)?;
        }
        Ok(())
    }

    fn poll_event(&mut self) -> Option<(usize, Instant, Event)> {
        self.events.pop_front()
    }

    fn wait(&mut self, until: Instant) -> Result<(), BenchError> {
        let timer = self.timers.peek().map_or(until, |Reverse((at, _))| *at);
        wait_for(&[self.poll.registry().as_fd()], until.min(timer))
    }
}

/// TLS 1.3 and a server that shows exactly this certificate's key.
fn config(certificate: &CertificateDer<'static>) -> Result<ClientConfig, BenchError> {
    let wrong = |error: rustls::Error| BenchError::Load(format!("TLS: {error}"));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(wrong)?;
    let mut provider = rustls::crypto::ring::default_provider();
    // The suite that Tern's clients offer, so that none encrypts at another price.
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(wrong)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
