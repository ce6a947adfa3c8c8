//! Cuts the bytes of the stream into frames by the length in each header.

use bytes::{Buf, Bytes, BytesMut};
use tern_protocol::Header;

/// Bytes of the stream that are no whole frame yet.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    rest: BytesMut,
}

impl Cutter {
    /// Takes what the stream brought and gives the whole frames, in order. A frame that lies
    /// whole in `chunk` is a slice of it; one that straddles chunks is put together.
    pub(super) fn cut(&mut self, mut chunk: Bytes, mut frame: impl FnMut(Bytes)) {
        while !self.rest.is_empty() {
            let Some(missing) = self.missing() else {
                let whole = self.rest.split().freeze();
                frame(whole);
                break;
            };
            if chunk.is_empty() {
                return;
            }
            let taken = chunk.split_to(missing.min(chunk.len()));
            self.rest.extend_from_slice(&taken);
        }
        while let Some(header) = Header::peek(&chunk)
            && header.frame_bytes() <= chunk.len()
        {
            frame(chunk.split_to(header.frame_bytes()));
        }
        self.rest.extend_from_slice(&chunk);
        chunk.advance(chunk.len());
    }

    /// Bytes that are certainly missing to the frame in `rest`; `None` if it is whole.
    fn missing(&self) -> Option<usize> {
        let needed = match Header::peek(&self.rest) {
            None => tern_protocol::header::HEADER_BYTES,
            Some(header) => header.frame_bytes(),
        };
        (self.rest.len() < needed).then(|| needed - self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        [&length.to_le_bytes()[..], &[0x13, 0], payload].concat()
    }

    proptest! {
        #[test]
        fn any_cuts_give_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(1usize..50, 1..100),
        ) {
            let frames: Vec<Vec<u8>> = payloads.iter().map(|payload| frame(payload)).collect();
            let mut stream = Bytes::from(frames.concat());
            let (mut cutter, mut got) = (Cutter::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                if stream.is_empty() {
                    break;
                }
                let chunk = stream.split_to((*cut).min(stream.len()));
                cutter.cut(chunk, |frame| got.push(frame.to_vec()));
            }
            prop_assert_eq!(got, frames);
        }
    }

    #[test]
    fn a_frame_within_a_chunk_is_not_copied() {
        let chunk = Bytes::from(frame(b"hello"));
        let start = chunk.as_ptr();
        Cutter::default().cut(chunk, |frame| assert_eq!(frame.as_ptr(), start));
    }
}
