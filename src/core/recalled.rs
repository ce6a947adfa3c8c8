//! Which messages of a channel were recalled: a set of ids that its shard keeps and hands to
//! whoever reads, with each grant.
//!
//! The set is in blocks, and a copy of it shares all of them. So a grant costs a pointer, and one
//! more recall a copy of the list of blocks and of one block, however many there were before. It
//! is bounded by what the channel keeps: an id is forgotten with the message that recalled it.

use std::sync::Arc;

use tern_protocol::MessageId;

/// Ids in one block: 128 bytes, and 16 more in the list of blocks.
const BLOCK_IDS: u64 = 1_024;

/// Words of a block.
const BLOCK_WORDS: usize = (BLOCK_IDS / u64::BITS as u64) as usize; // 16

/// A set of message ids of one channel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recalled {
    /// The number of each block, ascending, and a bit for each id in it.
    blocks: Vec<(u64, Arc<[u64; BLOCK_WORDS]>)>,
}

impl Recalled {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether this message was recalled.
    pub fn contains(&self, id: MessageId) -> bool {
        let (block, word, bit) = place(id);
        let found = self.blocks.binary_search_by_key(&block, |(number, _)| *number);
        found.is_ok_and(|index| self.blocks[index].1[word] >> bit & 1 == 1)
    }

    /// This message is recalled.
    pub fn insert(&mut self, id: MessageId) {
        let (block, word, bit) = place(id);
        self.block(block)[word] |= 1 << bit;
    }

    /// This message can't be read any more, nor anything that is about it.
    pub fn remove(&mut self, id: MessageId) {
        let (block, word, bit) = place(id);
        let found = self.blocks.binary_search_by_key(&block, |(number, _)| *number);
        let Ok(index) = found else { return };
        let words = Arc::make_mut(&mut self.blocks[index].1);
        words[word] &= !(1 << bit);
        if words.iter().all(|word| *word == 0) {
            self.blocks.remove(index);
        }
    }

    /// The ids as words that hold any: the first id of each, a multiple of 64, and a bit for each
    /// of the 64 from there on.
    pub fn words(&self) -> impl Iterator<Item = (MessageId, u64)> {
        self.blocks.iter().flat_map(|(number, words)| {
            let first = number * BLOCK_IDS;
            let words = words.iter().enumerate().filter(|(_, bits)| **bits != 0);
            words.map(move |(index, bits)| {
                (MessageId(first + index as u64 * u64::from(u64::BITS)), *bits)
            })
        })
    }

    /// Adds such a word; `None` if it is none.
    pub fn insert_word(&mut self, first: MessageId, bits: u64) -> Option<()> {
        let (block, word, bit) = place(first);
        (bit == 0 && bits != 0).then_some(())?;
        self.block(block)[word] |= bits;
        Some(())
    }

    fn block(&mut self, number: u64) -> &mut [u64; BLOCK_WORDS] {
        let found = self.blocks.binary_search_by_key(&number, |(number, _)| *number);
        let index = found.unwrap_or_else(|index| {
            self.blocks.insert(index, (number, Arc::default()));
            index
        });
        Arc::make_mut(&mut self.blocks[index].1)
    }
}

/// Block, word and bit of an id.
fn place(id: MessageId) -> (u64, usize, u32) {
    let within = id.0 % BLOCK_IDS;
    let bits = u64::from(u64::BITS);
    (id.0 / BLOCK_IDS, (within / bits) as usize, (within % bits) as u32) // fit: less than 1,024
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Some ids, also at the borders of words and blocks.
    fn ids() -> BTreeSet<u64> {
        let scattered = (1..400u64).map(|n| n * n % 7_919 + 1);
        scattered.chain([1, 63, 64, 127, 1_023, 1_024, 1_025, 2_047, 2_048, 1 << 40]).collect()
    }

    fn of(ids: &BTreeSet<u64>) -> Recalled {
        let mut recalled = Recalled::default();
        ids.iter().for_each(|id| recalled.insert(MessageId(*id)));
        recalled
    }

    fn check(recalled: &Recalled, ids: &BTreeSet<u64>) {
        for id in (1..9_000).chain([(1 << 40) - 1, 1 << 40, (1 << 40) + 1]) {
            assert_eq!(recalled.contains(MessageId(id)), ids.contains(&id), "{id}");
        }
        assert_eq!(recalled.is_empty(), ids.is_empty());
    }

    #[test]
    fn it_holds_what_was_recalled_and_nothing_else() {
        check(&Recalled::default(), &BTreeSet::new());
        let ids = ids();
        check(&of(&ids), &ids);
    }

    #[test]
    fn what_is_forgotten_is_no_more_and_leaves_no_empty_block() {
        let (mut recalled, mut left) = (of(&ids()), ids());
        for id in ids().into_iter().filter(|id| id % 3 != 0).chain([4, 5_000]) {
            recalled.remove(MessageId(id));
            left.remove(&id);
        }
        check(&recalled, &left);
        assert_eq!(recalled, of(&left));
        left.iter().for_each(|id| recalled.remove(MessageId(*id)));
        assert_eq!(recalled, Recalled::default());
    }

    #[test]
    fn its_words_make_it_again() {
        let (first, mut second) = (of(&ids()), Recalled::default());
        for (at, bits) in first.words() {
            second.insert_word(at, bits).expect("a word that was given");
        }
        assert_eq!(first, second);
        assert_eq!(second.insert_word(MessageId(63), 1), None, "no place of a word");
        assert_eq!(second.insert_word(MessageId(64), 0), None, "a word without ids");
    }

    #[test]
    fn who_holds_a_copy_sees_no_later_recall() {
        let mut recalled = of(&ids());
        let copy = recalled.clone();
        recalled.insert(MessageId(8_500));
        assert!(recalled.contains(MessageId(8_500)) && !copy.contains(MessageId(8_500)));
    }
}
