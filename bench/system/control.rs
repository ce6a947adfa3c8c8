//! The server's control socket: a line of JSON for each request and each answer, many requests
//! under way at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use serde_json::{Value, json};
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{DeviceId, Uin};

use super::status::Status;
use crate::error::{BenchError, Tried};
use crate::load::Identity;

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests under way at once: enough that neither side waits for the other, few enough that all
/// of their answers fit the socket's buffer.
const PIPELINE: usize = 64;

/// A connection to the socket.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    /// What the names of users begin with that are added.
    names: String,
}

impl Control {
    /// Connects; users that are added get names that begin so.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path, names: &str) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), names: names.to_owned() })
    }

    /// The process that listens there.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn server_pid(&self) -> std::io::Result<u32> {
        let peer = socket_peercred(self.stream.get_ref())?;
        Ok(peer.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// How the server does.
    ///
    /// # Errors
    /// When it does not say.
    pub fn status(&mut self) -> Result<Status, BenchError> {
        self.ask(&json!("status"))?;
        let answer = self.answer()?;
        serde_json::from_value(answer["status"].clone())
            .map_err(|error| BenchError::Server(format!("its status can't be read: {error}")))
    }

    /// Adds this many users with a device each, named by their numbers.
    ///
    /// # Errors
    /// When one is refused.
    pub fn add_users(&mut self, count: usize) -> Result<Vec<Identity>, BenchError> {
        let mut identities = Vec::with_capacity(count);
        for asked in 0..count {
            self.ask(&json!({"account": {"user-add": {"name": self.name(asked)}}}))?;
            if asked + 1 - identities.len() == PIPELINE {
                identities.push(self.added()?);
            }
        }
        while identities.len() < count {
            identities.push(self.added()?);
        }
        Ok(identities)
    }

    /// Adds one more device to the user of this number among those that were added.
    ///
    /// # Errors
    /// When it is refused.
    pub fn add_device(&mut self, user: usize) -> Result<Identity, BenchError> {
        self.ask(&json!({"account": {"device-add": {"name": self.name(user), "label": null}}}))?;
        self.added()
    }

    /// The name of the user of this number.
    fn name(&self, user: usize) -> String {
        format!("{}{user}", self.names)
    }

    fn added(&mut self) -> Result<Identity, BenchError> {
        let answer = self.answer()?;
        identity(&answer["account"]["added"])
            .ok_or_else(|| BenchError::Server(format!("this names no new device: {answer}")))
    }

    fn ask(&mut self, request: &Value) -> Result<(), BenchError> {
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).tried("ask the server")
    }

    fn answer(&mut self) -> Result<Value, BenchError> {
        let mut line = String::new();
        self.stream.read_line(&mut line).tried("the server's answer")?;
        let mut answer: Value = serde_json::from_str(&line)
            .map_err(|error| BenchError::Server(format!("its answer is no JSON: {error}")))?;
        match answer.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => Err(BenchError::Server(format!("it refuses: {answer}"))),
        }
    }
}

fn identity(added: &Value) -> Option<Identity> {
    Some(Identity {
        uin: Uin(added["uin"].as_u64()?),
        device: DeviceId(added["device"].as_u64()?.try_into().ok()?),
        secret: from_hex(added["secret"].as_str()?)?,
    })
}

/// 32 bytes from their hex digits.
pub fn from_hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    if text.len() != 2 * SECRET_BYTES {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_from_the_answer() {
        let added = json!({"name": "a", "uin": 10_001, "device": 2, "secret": "0a".repeat(32)});
        let identity = identity(&added).expect("all is there");
        assert_eq!((identity.uin, identity.device), (Uin(10_001), DeviceId(2)));
        assert_eq!(identity.secret, [10; 32]);
    }

    #[test]
    fn hex_that_is_none() {
        assert!(from_hex("0a").is_none());
        assert!(from_hex(&"0g".repeat(32)).is_none());
        assert!(from_hex(&"é".repeat(32)).is_none(), "64 bytes, not 64 digits");
    }
}
