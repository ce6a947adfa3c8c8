//! Bytes of a stream that come in pieces, twice and out of order.

use std::collections::BTreeMap;

/// How far behind the next byte a piece may lie: four times the windows that Tern grants, so that
/// a made-up offset costs no memory.
const SPAN_BYTES_MAX: u64 = 1 << 20;

/// What waits to be put in order.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    /// Pieces by their offset; they do not overlap.
    pieces: BTreeMap<u64, Vec<u8>>,
    /// The offset of the next byte to give.
    next: u64,
}

/// What a piece brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Brought {
    /// Bytes not seen before.
    pub new: u64,
    /// Bytes seen before: the sender said them again.
    pub again: u64,
}

impl Assembler {
    /// Takes a piece; `None` if it lies too far ahead.
    pub fn insert(&mut self, offset: u64, bytes: &[u8]) -> Option<Brought> {
        let end = offset.checked_add(bytes.len() as u64)?;
        if end > self.next.saturating_add(SPAN_BYTES_MAX) {
            return None;
        }
        let mut brought = Brought::default();
        let mut at = offset.max(self.next);
        while at < end {
            let covered = self.covered_until(at);
            if let Some(until) = covered {
                at = until;
                continue;
            }
            let hole_end = self.pieces.range(at..).next().map_or(end, |(from, _)| *from).min(end);
            let piece = &bytes[(at - offset) as usize..(hole_end - offset) as usize];
            self.pieces.insert(at, piece.to_vec());
            brought.new += piece.len() as u64;
            at = hole_end;
        }
        brought.again = bytes.len() as u64 - brought.new;
        Some(brought)
    }

    /// The bytes that follow those given before, if any came.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.pieces.remove(&self.next)?;
        self.next += bytes.len() as u64;
        while let Some(more) = self.pieces.remove(&self.next) {
            self.next += more.len() as u64;
            bytes.extend(more);
        }
        Some(bytes)
    }

    /// Bytes that came and wait for one before them.
    pub fn waiting(&self) -> u64 {
        self.pieces.values().map(|piece| piece.len() as u64).sum()
    }

    fn covered_until(&self, at: u64) -> Option<u64> {
        let (from, piece) = self.pieces.range(..=at).next_back()?;
        let until = from + piece.len() as u64;
        (until > at).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte has the value of its offset: whatever the order and the overlaps, that is read.
    #[test]
    fn pieces_come_out_in_order_and_once() {
        let whole: Vec<u8> = (0..200).collect();
        let mut state: u64 = 7;
        for _ in 0..2_000 {
            let (mut assembler, mut out, mut new) = (Assembler::default(), Vec::new(), 0);
            while out.len() < whole.len() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let from = (state >> 33) as usize % whole.len();
                let to = (from + 1 + (state >> 50) as usize % 60).min(whole.len());
                let brought = assembler.insert(from as u64, &whole[from..to]);
                let brought = brought.expect("it lies near");
                assert_eq!(brought.new + brought.again, (to - from) as u64);
                new += brought.new;
                out.extend(assembler.read().unwrap_or_default());
            }
            assert_eq!((&out, new, assembler.waiting()), (&whole, 200, 0));
        }
    }

    #[test]
    fn what_lies_too_far_ahead_is_not_kept() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.insert(SPAN_BYTES_MAX, &[1]), None);
        assert_eq!(assembler.insert(u64::MAX, &[1]), None);
        assert!(assembler.insert(SPAN_BYTES_MAX - 1, &[1]).is_some());
        assert_eq!(assembler.read(), None);
    }
}
