//! A TLS key log, in the format of NSS: what rustls, browsers and OpenSSL write.
//!
//! A line is `LABEL CLIENT_RANDOM SECRET`, the last two in hex. A file is read again when a
//! connection is met whose secrets are not known yet, so that it may grow while a capture runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// The random number that names a connection in the log.
pub type ClientRandom = [u8; 32];

/// Connections whose secrets are kept: beyond any capture that a person looks at, and half a
/// gigabyte of memory at most.
const CONNECTIONS_MAX: usize = 1 << 20;

/// The secrets of one connection, as far as they stand in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// `CLIENT_EARLY_TRAFFIC_SECRET`: what the client sends as 0-RTT.
    pub client_early: Option<Vec<u8>>,
    /// `CLIENT_HANDSHAKE_TRAFFIC_SECRET`.
    pub client_handshake: Option<Vec<u8>>,
    /// `SERVER_HANDSHAKE_TRAFFIC_SECRET`.
    pub server_handshake: Option<Vec<u8>>,
    /// `CLIENT_TRAFFIC_SECRET_0`.
    pub client: Option<Vec<u8>>,
    /// `SERVER_TRAFFIC_SECRET_0`.
    pub server: Option<Vec<u8>>,
}

/// All secrets that are known.
#[derive(Debug, Default)]
pub struct KeyLog {
    known: HashMap<ClientRandom, Secrets>,
    files: Vec<Growing>,
}

/// A file that is read as it grows.
#[derive(Debug)]
struct Growing {
    path: PathBuf,
    read_bytes: u64,
    /// A line whose end has not been written yet.
    rest: Vec<u8>,
}

impl KeyLog {
    /// Secrets from a file, read now and whenever one is missing.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn follow(&mut self, path: PathBuf) -> io::Result<()> {
        let mut file = Growing { path, read_bytes: 0, rest: Vec::new() };
        let text = file.read()?;
        self.add(&text);
        self.files.push(file);
        Ok(())
    }

    /// Secrets from text; lines that are none are stepped over.
    pub fn add(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            if let Some((random, label, secret)) = parse(line) {
                self.put(random, label, secret);
            }
        }
    }

    /// The secrets of a connection.
    pub fn get(&mut self, random: &ClientRandom) -> Option<&Secrets> {
        let is_whole = |secrets: &Secrets| secrets.client.is_some() && secrets.server.is_some();
        if !self.known.get(random).is_some_and(is_whole) {
            self.refresh();
        }
        self.known.get(random)
    }

    /// Reads what the files have grown by.
    pub fn refresh(&mut self) {
        let mut files = std::mem::take(&mut self.files);
        for file in &mut files {
            // A file that is gone for now may be there again at the next look.
            if let Ok(text) = file.read() {
                self.add(&text);
            }
        }
        self.files = files;
    }

    /// Connections with at least one secret.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn put(&mut self, random: ClientRandom, label: &str, secret: Vec<u8>) {
        if self.known.len() >= CONNECTIONS_MAX && !self.known.contains_key(&random) {
            return;
        }
        let secrets = self.known.entry(random).or_default();
        let place = match label {
            "CLIENT_EARLY_TRAFFIC_SECRET" => &mut secrets.client_early,
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => &mut secrets.client_handshake,
            "SERVER_HANDSHAKE_TRAFFIC_SECRET" => &mut secrets.server_handshake,
            "CLIENT_TRAFFIC_SECRET_0" => &mut secrets.client,
            "SERVER_TRAFFIC_SECRET_0" => &mut secrets.server,
            _ => return,
        };
        *place = Some(secret);
    }
}

impl Growing {
    /// The whole lines that were not read before.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.read_bytes {
            self.read_bytes = 0; // made anew
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut text = std::mem::take(&mut self.rest);
        self.read_bytes += file.read_to_end(&mut text)? as u64;
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(end);
        Ok(text)
    }
}

fn parse(line: &[u8]) -> Option<(ClientRandom, &str, Vec<u8>)> {
    let line = std::str::from_utf8(line).ok()?.trim();
    let mut words = line.split_ascii_whitespace();
    let (label, random, secret) = (words.next()?, words.next()?, words.next()?);
    let secret = unhex(secret)?;
    // The hashes of TLS 1.3 have 32 or 48 bytes.
    if !matches!(secret.len(), 32 | 48) {
        return None;
    }
    Some((unhex(random)?.try_into().ok()?, label, secret))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_that_are_none_are_stepped_over() {
        let mut log = KeyLog::default();
        let random = "ab".repeat(32);
        let text = format!(
            "# a comment\nCLIENT_TRAFFIC_SECRET_0 {random} {}\nSERVER_TRAFFIC_SECRET_0 {random} 00\n\
             NONSENSE {random} {}\nCLIENT_RANDOM zz yy\n\u{fffd}\n",
            "01".repeat(32),
            "02".repeat(32)
        );
        log.add(text.as_bytes());
        let secrets = log.get(&[0xab; 32]).unwrap();
        assert_eq!(secrets.client, Some(vec![1; 32]));
        assert_eq!(secrets.server, None, "of a length that no hash has");
    }

    #[test]
    fn a_file_is_read_as_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let mut file = File::create(&path).unwrap();
        let mut log = KeyLog::default();
        log.follow(path).unwrap();
        assert!(log.get(&[1; 32]).is_none());
        write!(file, "CLIENT_TRAFFIC_SECRET_0 {} ", "01".repeat(32)).unwrap();
        assert!(log.get(&[1; 32]).is_none());
        writeln!(file, "{}", "03".repeat(48)).unwrap();
        assert_eq!(log.get(&[1; 32]).unwrap().client, Some(vec![3; 48]));
    }
}
