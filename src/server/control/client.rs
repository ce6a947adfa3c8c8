//! The commands' side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::protocol::{RESPONSE_BYTES_MAX, Reply, Request, Response};
use super::socket::SocketPath;
use crate::folder::DataFolder;

/// How long a command waits for the server's word, in seconds: far above any request's time.
const ANSWER_SECONDS_MAX: u64 = 30;

/// A connection to the server of a data folder.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why a request was not done.
#[derive(Debug)]
pub enum ClientError {
    /// The server says why.
    Refused(String),
    /// The connection broke; whether it was done is not known.
    Broken(io::Error),
    /// The server speaks another version.
    Strange(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
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
        Ok(Some(Self { stream: BufReader::new(stream) }))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request).expect("a request is always JSON");
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Broken)?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(RESPONSE_BYTES_MAX);
        limited.read_until(b'\n', &mut answer).map_err(ClientError::Broken)?;
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
