//! A file of the log, read by calls a piece at a time, so that one that is cut meanwhile is an
//! error and never a signal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use tern_storage::{BODY_BYTES_MAX, RECORD_HEADER_BYTES};

/// Bytes of the longest record with its padding, and so what is given where the file has as much.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + BODY_BYTES_MAX;

/// Bytes read at once: many records, little memory.
const PIECE_BYTES: usize = 4 << 20;

/// Bytes of zeros that are passed over at once.
const ZEROS_BYTES: usize = 4096;

/// Zeros, as where nothing was ever written.
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// A piece of a file in memory, that moves on.
pub(super) struct Window {
    file: File,
    bytes: u64,
    piece: Vec<u8>,
    /// Where the piece begins in the file.
    from: u64,
}

impl Window {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes, piece: Vec::new(), from: 0 })
    }

    /// Bytes of the file when it was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What stands from this byte on: at least the longest record, or all up to the end.
    pub(super) fn at(&mut self, byte: u64) -> io::Result<&[u8]> {
        let wanted = RECORD_BYTES_MAX.min(self.bytes.saturating_sub(byte) as usize);
        let has = byte >= self.from && byte + wanted as u64 <= self.from + self.piece.len() as u64;
        if !has {
            self.load(byte)?;
        }
        let start = (byte - self.from) as usize; // fits: within the piece
        Ok(&self.piece[start.min(self.piece.len())..])
    }

    /// How many zeros from this byte on can be passed over at once, if any.
    pub(super) fn zeros_at(&mut self, byte: u64) -> io::Result<Option<u64>> {
        let rest = self.at(byte)?;
        let some = &rest[..rest.len().min(ZEROS_BYTES)];
        let all = !some.is_empty() && *some == ZEROS[..some.len()];
        Ok(all.then_some(some.len() as u64))
    }

    fn load(&mut self, byte: u64) -> io::Result<()> {
        let wanted = self.bytes.saturating_sub(byte).min(PIECE_BYTES as u64);
        self.piece.resize(wanted as usize, 0); // fits: at most a piece
        let mut has = 0;
        while has < self.piece.len() {
            match self.file.read_at(&mut self.piece[has..], byte + has as u64) {
                Ok(0) => break, // cut meanwhile
                Ok(more) => has += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.piece.truncate(has);
        self.bytes = if has < wanted as usize { byte + has as u64 } else { self.bytes };
        self.from = byte;
        Ok(())
    }
}
