//! One connection: opened, read into frames, written, closed. A task of its own; the machine's
//! task hears of it by [`LinkEvent`]s and speaks to it through a [`Link`].

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tern_protocol::Code;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::datagrams::Datagrams;
use super::framing::Cutter;
use super::race::{self, Opened, Target, Via};

/// Frames that are read ahead of the machine; beyond, QUIC's flow control holds the server back.
const FRAMES_AHEAD: usize = 256;

/// Most bytes taken from the stream at once: what a packet train brings.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Frames written at once.
const WRITES_MAX: usize = 64;

/// Time in ms that a closing connection gets to bring its last frames across.
const FLUSH_MS_MAX: u64 = 500;

/// What the application error code is when a client only goes to sleep.
const ASLEEP: VarInt = VarInt::from_u32(0);

/// Why a connection failed or was lost, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The host's name leads nowhere, or no socket can be had: what the system says.
    Address(String),
    /// The server's certificate is not trusted, or TLS failed otherwise. It will not get better
    /// by itself.
    Tls(String),
    /// Anything else that ended or prevented a connection.
    Connection(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) => write!(f, "no way to the server: {text}"),
            Self::Tls(text) => write!(
                f,
                "the server's certificate is not the one this profile trusts, or TLS failed \
                 ({text}); compare --pin with what `tern serve` prints"
            ),
            Self::Connection(text) => write!(f, "no connection to the server: {text}"),
        }
    }
}

impl From<ConnectionError> for Problem {
    fn from(error: ConnectionError) -> Self {
        /// RFC 9001 §4.8: a TLS alert is a transport error of this much and its number.
        const ALERTS: std::ops::Range<u64> = 0x100..0x200;
        let text = error.to_string();
        match error {
            ConnectionError::TransportError(error) if ALERTS.contains(&error.code.into()) => {
                Self::Tls(text)
            }
            ConnectionError::ConnectionClosed(close)
                if ALERTS.contains(&close.error_code.into()) =>
            {
                Self::Tls(text)
            }
            _ => Self::Connection(text),
        }
    }
}

/// What a connection tells, each with the number that it was opened under.
pub(super) enum LinkEvent {
    /// It is there.
    Opened { via: Via, endpoint: Endpoint, connection: Connection },
    /// A frame came.
    Frame(Bytes),
    /// It is gone, or never came; with the server's code, if it gave a known one.
    Closed { code: Option<Code>, problem: Problem },
}

/// Where connections tell what happens, each with its number.
pub(super) type Tell = mpsc::Sender<(u64, LinkEvent)>;

/// What a connection is asked.
enum Write {
    Frame(Bytes),
    /// May travel by datagram.
    Free(Bytes),
    Close(VarInt),
}

/// The hand on a connection, from the first attempt to open it.
pub(super) struct Link {
    pub(super) number: u64,
    writes: mpsc::UnboundedSender<Write>,
    task: JoinHandle<()>,
    /// Set once it is open.
    pub(super) open: Option<(Endpoint, Connection)>,
    /// Where it leads, once it is open.
    pub(super) via: Option<Via>,
}

impl Link {
    /// Opens a connection; what comes of it is told as `number`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a machine has 64 sends, and the acks of one window, on their way at most"
    )]
    pub(super) fn open(number: u64, target: Target, events: Tell) -> Self {
        let (writes, to_write) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(number, target, events, to_write));
        Self { number, writes, task, open: None, via: None }
    }

    /// The channel on which connections tell what happens.
    pub(super) fn channel() -> (Tell, mpsc::Receiver<(u64, LinkEvent)>) {
        mpsc::channel(FRAMES_AHEAD)
    }

    /// Sends a frame behind all others. One that is lost with the connection was not promised.
    pub(super) fn transmit(&self, frame: Bytes) {
        let _ = self.writes.send(Write::Frame(frame));
    }

    /// Sends a frame by datagram, or behind all others if it fits none.
    pub(super) fn transmit_free(&self, frame: Bytes) {
        let _ = self.writes.send(Write::Free(frame));
    }

    /// Brings what was to be sent across, for a short while, and closes with this code; without
    /// one, only the connection goes and the session stays. The task that is returned does it.
    pub(super) fn close(self, code: Option<Code>) -> JoinHandle<()> {
        let code = code.map_or(ASLEEP, |code| VarInt::from_u32(u32::from(code.0)));
        // Its task may have ended by itself.
        let _ = self.writes.send(Write::Close(code));
        self.task
    }
}

async fn run(
    number: u64,
    target: Target,
    events: Tell,
    mut writes: mpsc::UnboundedReceiver<Write>,
) {
    // Before it is open nothing but a close is said to it.
    let opened = tokio::select! {
        opened = race::open(&target) => opened,
        _ = writes.recv() => return,
    };
    let Opened { via, endpoint, connection, send, receive } = match opened {
        Ok(opened) => opened,
        Err((code, problem)) => {
            // Without a machine nobody needs to know.
            let _ = events.send((number, LinkEvent::Closed { code, problem })).await;
            return;
        }
    };
    let opened =
        LinkEvent::Opened { via, endpoint: endpoint.clone(), connection: connection.clone() };
    if events.send((number, opened)).await.is_err() {
        return;
    }
    let closed = tokio::select! {
        closed = read(number, receive, &connection, &events) => Some(closed),
        () = write(send, &connection, &mut writes) => None,
    };
    if let Some(closed) = closed {
        // Without a machine nobody needs to know.
        let _ = events.send((number, closed)).await;
    }
    // The close itself is sent by the endpoint, once; if it is lost the server notices silence.
    let _ = tokio::time::timeout(Duration::from_millis(FLUSH_MS_MAX), endpoint.wait_idle()).await;
}

/// The code with which the server closed a connection, if it is one of the registry.
pub fn server_code(error: &ConnectionError) -> Option<Code> {
    match error {
        ConnectionError::ApplicationClosed(close) => u16::try_from(close.error_code.into_inner())
            .ok()
            .map(Code)
            .filter(|code| code.row().is_some()),
        _ => None,
    }
}

async fn read(
    number: u64,
    mut receive: RecvStream,
    connection: &Connection,
    events: &Tell,
) -> LinkEvent {
    let (mut cutter, mut frames) = (Cutter::default(), Vec::new());
    loop {
        tokio::select! {
            biased; // what the stream has is read before the end of the connection is noticed
            chunk = receive.read_chunk(READ_BYTES_MAX, true) => match chunk {
                Ok(Some(chunk)) => cutter.cut(chunk.bytes, |frame| frames.push(frame)),
                Ok(None) | Err(_) => break,
            },
            datagram = connection.read_datagram() => match datagram {
                Ok(frame) => frames.push(frame),
                Err(_) => break,
            },
        }
        for frame in frames.drain(..) {
            if events.send((number, LinkEvent::Frame(frame))).await.is_err() {
                break;
            }
        }
    }
    let error = connection.closed().await;
    LinkEvent::Closed { code: server_code(&error), problem: error.into() }
}

/// Writes until it is told to close. A lost connection is noticed by who reads.
async fn write(
    mut send: SendStream,
    connection: &Connection,
    writes: &mut mpsc::UnboundedReceiver<Write>,
) {
    let mut datagrams = Datagrams::new(connection);
    let mut batch = Vec::with_capacity(WRITES_MAX);
    let code = loop {
        let taken = tokio::select! {
            taken = writes.recv_many(&mut batch, WRITES_MAX) => taken,
            () = datagrams.copy_due() => {
                datagrams.send_copies();
                continue;
            }
        };
        if taken == 0 {
            break ASLEEP;
        }
        let (mut frames, mut close) = (Vec::with_capacity(batch.len()), None);
        for write in batch.drain(..) {
            match write {
                Write::Frame(frame) => frames.push(frame),
                Write::Free(frame) => frames.extend(datagrams.send(frame).err()),
                Write::Close(code) => close = Some(code),
            }
        }
        let written = send.write_all_chunks(&mut frames).await;
        if let Some(code) = close {
            break code;
        }
        if written.is_err() {
            std::future::pending::<()>().await;
        }
    };
    if send.finish().is_ok() {
        let across = tokio::time::timeout(Duration::from_millis(FLUSH_MS_MAX), send.stopped());
        // Across or not: the connection is closed now.
        let _ = across.await;
    }
    connection.close(code, &[]);
}
