//! The commands' side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::protocol::{RESPONSE_BYTES_MAX, Reply, Request, Response};
use super::socket::SocketPath;
use crate::folder::DataFolder;

/// How long a command waits for the server's word, in seconds: far above any request's time.
const ANSWER_SECONDS_MAX: u64 = 10;

/// A connection to the server of a data folder.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// The server's process, if the system tells.
    pid: Option<i32>,
}

/// Why a request was not done.
#[derive(Debug)]
pub enum ClientError {
    /// The server says why.
    Refused(String),
    /// The server, of this process, took the connection and says nothing; whether the request was
    /// done is not known.
    Silent(Option<i32>),
    /// The connection broke; whether it was done is not known.
    Broken(io::Error),
    /// The server speaks another version.
    Strange(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::Silent(pid) => {
                let pid = pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
                write!(
                    f,
                    "the server, process {pid}, says nothing for {ANSWER_SECONDS_MAX} s, and may \
                     or may not have done it: it is stopped (`kill -CONT {pid}` lets it go on), or \
                     its machine is too busy (look at it by `top -p {pid}`)"
                )
            }
            Self::Broken(error) => write!(
                f,
                "the server did not answer ({error}), and may or may not have done it; look, then \
                 try again"
            ),
            Self::Strange(what) => write!(
                f,
                "the server answers what this version does not know ({what}); use the `tern` that \
                 the server runs"
            ),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects; `None` if no server listens there.
    ///
    /// # Errors
    /// When it is there and can't be reached.
    pub fn connect(folder: &DataFolder) -> io::Result<Option<Self>> {
        let connected = SocketPath::new(&folder.control_socket())
            .and_then(|path| UnixStream::connect(path.path()));
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let patience = Some(Duration::from_secs(ANSWER_SECONDS_MAX));
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream);
        let pid = peer.ok().map(|peer| peer.pid.as_raw_nonzero().get());
        Ok(Some(Self { stream: BufReader::new(stream), pid }))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request).expect("a request is always JSON");
        line.push(b'\n');
        let pid = self.pid;
        let failed = |error: io::Error| match error.kind() {
            // What a read or write says when its time is over.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent(pid),
            _ => ClientError::Broken(error),
        };
        self.stream.get_mut().write_all(&line).map_err(failed)?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(RESPONSE_BYTES_MAX);
        limited.read_until(b'\n', &mut answer).map_err(failed)?;
        if answer.last() != Some(&b'\n') {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&answer) {
            Ok(Response::Ok(reply)) => Ok(reply),
            Ok(Response::Refused(reason)) => Err(ClientError::Refused(reason)),
            Err(error) => Err(ClientError::Strange(error.to_string())),
        }
    }
}
