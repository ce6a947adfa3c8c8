//! Cuts the control stream into frames by their headers.
//!
//! A frame that lies whole inside one received chunk is sliced out of it, without a copy. One
//! that straddles chunks is put together in a buffer of its own, which is given away with the
//! frame, so an idle connection holds none. The header's `u16` bounds it to 64 KiB.

use bytes::Bytes;
use tern_protocol::Header;
use tern_protocol::header::HEADER_BYTES;

/// What came of a frame that is not whole yet.
#[derive(Default, Debug)]
pub struct Cutter {
    partial: Vec<u8>,
}

impl Cutter {
    /// The next whole frame at the start of `chunk`, header included; `None` when the chunk is
    /// used up.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Bytes> {
        if self.partial.is_empty() {
            let whole = Header::peek(chunk).map(|header| header.frame_bytes());
            if let Some(bytes) = whole.filter(|&bytes| bytes <= chunk.len()) {
                return Some(chunk.split_to(bytes));
            }
        }
        if !self.fill(chunk, HEADER_BYTES) {
            return None;
        }
        let header = Header::peek(&self.partial).expect("its bytes are there");
        self.fill(chunk, header.frame_bytes())
            .then(|| Bytes::from(std::mem::take(&mut self.partial)))
    }

    /// Whether the start of a frame has come and its end has not.
    pub fn is_inside(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Moves bytes over until `bytes` are there; whether they are.
    fn fill(&mut self, chunk: &mut Bytes, bytes: usize) -> bool {
        let take = bytes.saturating_sub(self.partial.len()).min(chunk.len());
        self.partial.extend_from_slice(&chunk.split_to(take));
        self.partial.len() >= bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: usize, kind: u8) -> Vec<u8> {
        let mut frame = (payload as u16).to_le_bytes().to_vec();
        frame.extend([kind, 0]);
        frame.extend(std::iter::repeat_n(kind, payload));
        frame
    }

    #[test]
    fn every_way_to_cut_the_stream_gives_the_same_frames() {
        let frames = [frame(0, 1), frame(3, 2), frame(65_535, 3), frame(1, 4)];
        let stream = Bytes::from(frames.concat());
        for step in [1, 2, 3, 4, 5, 7, 8, 1_000, 65_539, 1 << 20] {
            let (mut cutter, mut rest, mut got) = (Cutter::default(), stream.clone(), Vec::new());
            while !rest.is_empty() {
                let mut chunk = rest.split_to(step.min(rest.len()));
                while let Some(frame) = cutter.next(&mut chunk) {
                    got.push(frame);
                }
                assert!(chunk.is_empty());
            }
            assert_eq!(got, frames, "in steps of {step}");
            assert!(!cutter.is_inside());
            assert_eq!(cutter.partial.capacity(), 0, "an idle connection holds no buffer");
        }
    }

    #[test]
    fn a_whole_frame_is_not_copied() {
        let mut chunk = Bytes::from([frame(5, 1), frame(6, 2)].concat());
        let start = chunk.as_ptr();
        let mut cutter = Cutter::default();
        let first = cutter.next(&mut chunk).expect("whole");
        assert_eq!((first.as_ptr(), first.len()), (start, 9));
        assert_eq!(cutter.next(&mut chunk).expect("whole").len(), 10);
        assert_eq!(cutter.next(&mut chunk), None);
    }

    #[test]
    fn an_unfinished_frame_is_known() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.next(&mut Bytes::from(frame(9, 1)).slice(..6)), None);
        assert!(cutter.is_inside());
    }
}
