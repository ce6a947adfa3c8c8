//! The driver: carries out what the [`Machine`](crate::machine::Machine) decides, over QUIC, with
//! a real clock and a real store. It decides nothing itself.
//!
//! One task runs the machine. Beside it stand one task per connection, which turns the stream
//! into frames and back, and one thread that writes the store. [`Client`] is the application's
//! hand, [`Events`] its ear.

mod asks;
mod blocks;
mod datagrams;
mod framing;
mod groups;
mod history;
mod keeper;
mod keylog;
mod link;
mod marks;
mod race;
mod task;
mod tls;
mod transport;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fmt, io};

use bytes::Bytes;
use tern_protocol::frames::Network;
use tern_protocol::{ChannelId, MessageId};
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};

use crate::machine::{
    Event, Identity, Position, Proof, SavedSend, SendId, SendOutcome, SendResult, Tuning,
};
use crate::mailbox::{KeptMessage, MailQuery};
use crate::profile::Profile;
use crate::servers::{Resolve, SystemResolver};
use crate::store::{Store, StoreError};

use asks::Ask;
pub use blocks::BlockError;
pub use datagrams::SecondCopies;
pub use groups::{Group, GroupError};
pub use link::{Problem, server_code};
pub use tls::{Trust, certificate_pin};
pub use transport::quic_settings;

/// What a client is made of.
pub struct Options {
    /// Whose it is.
    pub identity: Identity,
    /// Where the server is: `host:port`, or several of them with commas between, of which the
    /// nearest is taken.
    pub server: String,
    /// Leads from their names to addresses.
    pub resolver: Arc<dyn Resolve>,
    /// By what the server's certificate is trusted.
    pub trust: Trust,
    /// Where the outbox and the cursors are kept.
    pub store: Box<dyn Store>,
    /// The kind of network the client is on.
    pub network: Network,
    /// The local address to send from; any, if `None`.
    pub bind: Option<SocketAddr>,
    /// Sends that may be unsettled at once; further ones wait. Each costs its content and some
    /// 200 bytes of memory, and as much of disk.
    pub sends_max: usize,
    /// The machine's times and bounds.
    pub tuning: Tuning,
}

/// Default of [`Options::sends_max`]: some seconds of what the default rate lets through after a
/// burst, at most 1.5 MB of contents.
const SENDS_MAX: usize = 1_000;

impl Options {
    /// What a profile says, with everything else by default.
    ///
    /// # Errors
    /// When the profile's secret or pin is not 64 hex digits.
    pub fn from_profile(
        profile: &Profile,
        store: Box<dyn Store>,
    ) -> Result<Self, crate::hex::HexError> {
        let proof = Proof::Secret(profile.secret_bytes()?);
        Ok(Self {
            identity: Identity { uin: profile.uin(), device: profile.device(), proof },
            server: profile.server.clone(),
            resolver: Arc::new(SystemResolver),
            trust: profile.pin_bytes()?.map_or(Trust::System, Trust::Pin),
            store,
            network: Network::default(),
            bind: None,
            sends_max: SENDS_MAX,
            tuning: Tuning::default(),
        })
    }
}

/// Why a client can't be made.
#[derive(Debug)]
pub enum ConnectError {
    /// The store can't be read.
    Store(StoreError),
    /// The server is not given as `host:port`.
    Server(String),
    /// TLS can't be set up.
    Tls(rustls::Error),
    /// No certificate authority can be loaded.
    NoRoots,
    /// The system gives no thread.
    Thread(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Server(server) => {
                write!(f, "the server must be given as HOST:PORT, not as `{server}`")
            }
            Self::Tls(error) => write!(f, "TLS can't be set up: {error}"),
            Self::NoRoots => f.write_str(
                "this system has no certificate authorities to trust; pin the server's \
                 certificate instead",
            ),
            Self::Thread(error) => write!(f, "no thread for the store: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::Server(_) | Self::NoRoots => None,
        }
    }
}

/// The client is closed, or its session has ended; what was not answered is still stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client is closed; what was not answered is kept for the next start")
    }
}

impl std::error::Error for Closed {}

/// Why [`Client::send_nowait`] did not take a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotTaken {
    /// As many sends as allowed wait for their answers; try again when some are settled.
    Full,
    /// The client is closed.
    Closed,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("too many sends wait for their answers; settle some first"),
            Self::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for NotTaken {}

/// What the application asks of the task.
pub(crate) enum Command {
    Send {
        channel: ChannelId,
        content_type: u16,
        content: Bytes,
        tag: u64,
        reply: Option<oneshot::Sender<SendResult>>,
    },
    Ask(Ask),
    Read {
        channel: ChannelId,
        id: MessageId,
    },
    Settled(SendId),
    Delivered(Position),
    Mail(MailQuery, oneshot::Sender<Vec<KeptMessage>>),
    Remembered(oneshot::Sender<()>),
    Prove(Proof),
    NetworkChanged(Network),
    Rebind(oneshot::Sender<io::Result<()>>),
    Close {
        logout: bool,
        reply: oneshot::Sender<()>,
    },
}

/// What the task and the application's handles share.
struct Shared {
    /// Sends that may still be taken.
    room: Semaphore,
    /// Events that the application has not taken.
    untaken: AtomicUsize,
    /// Where the client logged in last.
    address: Mutex<Option<SocketAddr>>,
    /// Why the last connection failed or was lost.
    problem: Mutex<Option<Problem>>,
    /// What was unsettled when the client started.
    earlier: OnceLock<Vec<SavedSend>>,
}

/// A device's connection to its server; clones are the same client. When the last one is dropped
/// the client closes.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client. It connects, and connects again whenever it must, by itself; sends made
    /// before are kept and leave as soon as it is online.
    ///
    /// Must be called within a tokio runtime that has time and IO.
    ///
    /// # Errors
    /// When the store or TLS can't be set up.
    #[expect(
        clippy::disallowed_methods,
        reason = "commands: sends are bounded by `sends_max`, confirmations by what was given; \
                  events: nothing more is read while too many are not taken"
    )]
    pub fn connect(options: Options) -> Result<(Self, Events), ConnectError> {
        let (commands, to_task) = mpsc::unbounded_channel();
        let (tell, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            room: Semaphore::new(0),
            untaken: AtomicUsize::new(0),
            address: Mutex::new(None),
            problem: Mutex::new(None),
            earlier: OnceLock::new(),
        });
        task::spawn(options, to_task, tell, Arc::clone(&shared))?;
        Ok((Self { commands, shared: Arc::clone(&shared) }, Events { receiver, shared }))
    }

    /// Sends a message and waits for its final answer, through any number of reconnects. If the
    /// future is dropped, the message is still sent, and its result comes as an event.
    ///
    /// # Errors
    /// When the client is closed first; the message is stored, and sent at the next start.
    pub async fn send(
        &self,
        channel: ChannelId,
        content_type: u16,
        content: impl Into<Bytes>,
    ) -> Result<SendOutcome, Closed> {
        let (reply, result) = oneshot::channel();
        self.shared.room.acquire().await.map_err(|_| Closed)?.forget();
        self.say(Command::Send {
            channel,
            content_type,
            content: content.into(),
            tag: 0,
            reply: Some(reply),
        })?;
        Ok(result.await.map_err(|_| Closed)?.outcome)
    }

    /// Sends a message whose result comes as an event, with `tag`. Waits while too many others
    /// are unsettled.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn post(
        &self,
        channel: ChannelId,
        content_type: u16,
        content: impl Into<Bytes>,
        tag: u64,
    ) -> Result<(), Closed> {
        self.shared.room.acquire().await.map_err(|_| Closed)?.forget();
        let content = content.into();
        self.say(Command::Send { channel, content_type, content, tag, reply: None })
    }

    /// As [`post`](Self::post), but never waits.
    ///
    /// # Errors
    /// When it would have to wait, or the client is closed.
    pub fn send_nowait(
        &self,
        channel: ChannelId,
        content_type: u16,
        content: impl Into<Bytes>,
        tag: u64,
    ) -> Result<(), NotTaken> {
        match self.shared.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits) => return Err(NotTaken::Full),
            Err(TryAcquireError::Closed) => return Err(NotTaken::Closed),
        }
        let content = content.into();
        self.say(Command::Send { channel, content_type, content, tag, reply: None })
            .map_err(|Closed| NotTaken::Closed)
    }

    /// The application has dealt with this event: a message is consumed, a result is known. What
    /// is not confirmed comes again after a crash.
    pub fn confirm(&self, event: &Event) {
        match event {
            Event::Message(message) => self.delivered(message.position),
            Event::Result(result) => self.settled(result.send),
            Event::Gap { .. }
            | Event::HistoryRestarted { .. }
            | Event::GroupPage(_)
            | Event::GroupRefused { .. }
            | Event::Blocked { .. }
            | Event::BlockPage(_)
            | Event::Read(_)
            | Event::Receipt(_)
            | Event::GroupReceipts(_)
            | Event::History(_)
            | Event::Unread(_)
            | Event::Identity { .. }
            | Event::State(_)
            | Event::ServerError { .. } => {}
        }
    }

    /// The application has consumed everything of the channel up to this position.
    pub fn delivered(&self, position: Position) {
        // A closed client remembers nothing: the message comes again at the next start.
        let _ = self.say(Command::Delivered(position));
    }

    /// The application knows the result of this send.
    pub fn settled(&self, send: SendId) {
        // A closed client remembers nothing: the result comes again at the next start.
        let _ = self.say(Command::Settled(send));
    }

    /// A page of the device's own mailbox, the newest first, without asking the server: what the
    /// store keeps of a channel, with the device's own messages from the call that sends them on.
    /// Empty where the store keeps no mail. The next page is asked for with the last id of this
    /// one as [`MailQuery::before`].
    ///
    /// With a store that keeps mail, a message is consumed when it stands in the mailbox, not when
    /// its event is confirmed.
    ///
    /// # Errors
    /// When the store failed, or the client is closed.
    pub async fn mail(&self, query: MailQuery) -> Result<Vec<KeptMessage>, Closed> {
        let (reply, page) = oneshot::channel();
        self.say(Command::Mail(query, reply))?;
        page.await.map_err(|_| Closed)
    }

    /// Waits until everything that was confirmed before is on the disk. An application that shows
    /// nothing more before that shows again, after a crash, only what it had shown since.
    ///
    /// # Errors
    /// When the store failed, or the client is closed.
    pub async fn remembered(&self) -> Result<(), Closed> {
        let (reply, remembered) = oneshot::channel();
        self.say(Command::Remembered(reply))?;
        remembered.await.map_err(|_| Closed)
    }

    /// The device is on another network now: asks at once whether the connection still lives, or
    /// connects at once.
    pub fn network_changed(&self, network: Network) {
        // To a closed client its network does not matter.
        let _ = self.say(Command::NetworkChanged(network));
    }

    /// From the next full login on the device is proved by this: an application whose token
    /// expires says the next one in time.
    pub fn prove(&self, proof: Proof) {
        // A closed client logs in no more.
        let _ = self.say(Command::Prove(proof));
    }

    /// Moves the connection to a new socket, so to a new port or address; the session goes on.
    ///
    /// # Errors
    /// When there is no connection, or no socket can be had.
    pub async fn rebind(&self) -> io::Result<()> {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, Closed);
        let (reply, done) = oneshot::channel();
        self.say(Command::Rebind(reply)).map_err(|_| closed())?;
        done.await.map_err(|_| closed())?
    }

    /// The sends that earlier processes left unsettled, in order. They are sent again by
    /// themselves, under their old keys, and their results come as events.
    pub fn earlier(&self) -> &[SavedSend] {
        self.shared.earlier.get().map_or(&[], Vec::as_slice)
    }

    /// Why the last connection failed or was lost, for people; `None` while there is one.
    pub fn problem(&self) -> Option<Problem> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The address at which the client logged in last; `None` if it has not yet.
    pub fn server_address(&self) -> Option<SocketAddr> {
        *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session on the server and closes; other devices see this one go offline.
    pub async fn logout(self) {
        self.end(true).await;
    }

    /// Closes: everything that was asked for before is on the disk when this returns. The session
    /// on the server waits for a while.
    pub async fn close(self) {
        self.end(false).await;
    }

    async fn end(self, logout: bool) {
        let (reply, done) = oneshot::channel();
        if self.say(Command::Close { logout, reply }).is_ok() {
            // An answer or its absence: both mean that the task is at its end.
            let _ = done.await;
        }
    }

    fn say(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).map_err(|_| Closed)
    }
}

/// What happens to a client, in order.
pub struct Events {
    receiver: mpsc::UnboundedReceiver<Event>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// The next event; `None` after the client is closed.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await?;
        self.shared.untaken.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }

    /// The next event, and those behind it that are there already, at most `most` of them; none
    /// after the client is closed.
    pub async fn next_many(&mut self, most: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let count = self.receiver.recv_many(&mut events, most).await;
        self.shared.untaken.fetch_sub(count, Ordering::Relaxed);
        events
    }
}
