//! One segment's file: its header, believed as far as it proves right, and its bytes by calls.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tern_storage::inspect::Decoder;
use tern_storage::{BODY_BYTES_MAX, SEGMENT_HEADER_BYTES};

/// Bytes read at once.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that are given up together where the disk can't give them.
const PIECE_BYTES: usize = 4096;

/// Bytes behind a place that are there to be judged: more than the longest record.
const AHEAD_BYTES: usize = BODY_BYTES_MAX + PIECE_BYTES;

/// Highest offset and capacity that a damaged header is believed: far above what a disk holds,
/// and low enough that sums of them fit.
const BELIEVED_MAX: u64 = 1 << 56;

/// The file of a segment.
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    /// By its name.
    pub(crate) number: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Decodes it, if the header can be used.
    pub(crate) decoder: Option<Decoder>,
    /// What is wrong with the header.
    pub(crate) complaint: Option<String>,
    /// Whether one of the two copies of the header is damaged.
    pub(crate) is_half: bool,
    file: File,
}

impl SegmentFile {
    /// Opens a file to read it. `base` is where the segment before it ends, if that is known.
    pub(crate) fn open(path: &Path, number: u64, base: Option<u64>) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let path = path.to_owned();
        let mut segment =
            Self { path, number, bytes, decoder: None, complaint: None, is_half: false, file };
        let page = segment.window().at(0)[..].to_vec();
        match Decoder::new(&segment.path, &page[..page.len().min(SEGMENT_HEADER_BYTES)]) {
            Ok(decoder) => {
                segment.is_half = !decoder.is_whole(&page);
                segment.decoder = Some(decoder);
            }
            Err(error) => {
                segment.decoder = salvage(&page, number, bytes, base);
                segment.complaint = Some(error.to_string());
            }
        }
        Ok(segment)
    }

    /// Reads it from the start on.
    pub(crate) fn window(&self) -> Window<'_> {
        Window { segment: self, start: 0, buffer: Vec::new(), unreadable: Vec::new() }
    }
}

/// A decoder from a damaged header, if the first record proves that salt and base are right.
fn salvage(page: &[u8], number: u64, bytes: u64, base: Option<u64>) -> Option<Decoder> {
    let mut believed = Decoder::believing(page)?;
    believed.header.number = number;
    if !(SEGMENT_HEADER_BYTES as u64..BELIEVED_MAX).contains(&believed.header.capacity) {
        believed.header.capacity = bytes;
    }
    let bases = [Some(believed.header.base), base];
    let records = page.get(SEGMENT_HEADER_BYTES..)?;
    bases.into_iter().flatten().filter(|base| *base < BELIEVED_MAX).find_map(|base| {
        let decoder = believed.at_base(base);
        decoder.record(decoder.header.first(), records).is_ok().then_some(decoder)
    })
}

/// Some bytes of a file at a time, so that a large one needs no more memory than a small one.
pub(crate) struct Window<'a> {
    segment: &'a SegmentFile,
    start: u64,
    buffer: Vec<u8>,
    /// Places in the file that the disk did not give; they read as zeros.
    pub(crate) unreadable: Vec<Range<u64>>,
}

impl Window<'_> {
    /// The bytes from a place on: at least those of the longest record, or all that there are.
    pub(crate) fn at(&mut self, place: u64) -> &[u8] {
        let end = self.start + self.buffer.len() as u64;
        let wanted = (place + AHEAD_BYTES as u64).min(self.segment.bytes);
        if place < self.start || wanted > end {
            self.read(place);
        }
        let from = (place - self.start) as usize; // fits: less than a window
        self.buffer.get(from..).unwrap_or_default()
    }

    fn read(&mut self, place: u64) {
        let len = self.segment.bytes.saturating_sub(place).min(WINDOW_BYTES as u64) as usize;
        self.start = place;
        self.buffer.clear();
        self.buffer.resize(len, 0);
        let file = &self.segment.file;
        if file.read_exact_at(&mut self.buffer, place).is_ok() {
            return;
        }
        for (index, piece) in self.buffer.chunks_mut(PIECE_BYTES).enumerate() {
            let from = place + (index * PIECE_BYTES) as u64;
            let range = from..from + piece.len() as u64;
            if file.read_exact_at(piece, from).is_err() {
                piece.fill(0);
                self.unreadable.push(range);
            }
        }
    }

    /// Whether the disk did not give a place.
    pub(crate) fn is_unreadable(&self, place: u64) -> bool {
        self.unreadable.iter().any(|range| range.contains(&place))
    }
}
