//! What systems over TCP have in common on the client's side, without IO: bytes of a connection
//! come in, bytes to say and events go out.

use std::collections::VecDeque;

use super::{Event, Message};

/// Messages that a device may have unanswered, as with Tern.
const UNANSWERED_MAX: usize = 64;

/// Digits of a tag at the start of a content.
const TAG_DIGITS: usize = 16;

/// Hears events.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// One connection of a device, as its system speaks.
pub trait Dialect {
    /// A new connection stands: greets, and forgets what was half said on the one before.
    fn begin(&mut self);

    /// Bytes to write; the caller takes them.
    fn outbox(&mut self) -> &mut Vec<u8>;

    /// Sends a message, at once or when it can.
    fn send(&mut self, message: Message);

    /// Bytes that came and are no whole piece yet.
    fn inbox(&mut self) -> &mut Vec<u8>;

    /// How long the first whole piece of what came is, if there is one.
    ///
    /// # Errors
    /// When there never will be.
    fn cut(&self, bytes: &[u8]) -> Result<Option<usize>, String>;

    /// Takes a whole piece.
    ///
    /// # Errors
    /// When the connection is of no use any more; says why.
    fn hear(&mut self, piece: &[u8], tell: Tell<'_>) -> Result<(), String>;

    /// Takes bytes that came.
    ///
    /// # Errors
    /// When the connection is of no use any more; says why.
    fn take(&mut self, bytes: &[u8], tell: Tell<'_>) -> Result<(), String> {
        let mut inbox = std::mem::take(self.inbox());
        inbox.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(bytes) = self.cut(&inbox[at..])? {
            self.hear(&inbox[at..at + bytes], tell)?;
            at += bytes;
        }
        inbox.drain(..at);
        *self.inbox() = inbox;
        Ok(())
    }

    /// Says that it is there; called every half minute.
    fn beat(&mut self);
}

/// A message's content: its tag in hex, and filler.
pub fn content(message: &Message) -> Vec<u8> {
    let mut content = format!("{:0TAG_DIGITS$x}", message.tag).into_bytes();
    content.resize(message.bytes.max(TAG_DIGITS), b'x');
    content
}

/// The tag of a content.
pub fn tag_of(content: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(content.get(..TAG_DIGITS)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

/// What a device has sent without an answer, and what waits for room. Keys count from 1.
#[derive(Default, Debug)]
pub struct Window {
    is_open: bool,
    newest: u64,
    waiting: VecDeque<Message>,
    unanswered: VecDeque<(u64, Message)>,
}

impl Window {
    /// Adds a message at the end.
    pub fn push(&mut self, message: Message) {
        self.waiting.push_back(message);
    }

    /// The next message that may leave now, with its key.
    pub fn poll(&mut self) -> Option<(u64, Message)> {
        if !self.is_open || self.unanswered.len() == UNANSWERED_MAX {
            return None;
        }
        let message = self.waiting.pop_front()?;
        self.newest += 1;
        self.unanswered.push_back((self.newest, message));
        Some((self.newest, message))
    }

    /// Nothing leaves until it is opened again.
    pub fn shut(&mut self) {
        self.is_open = false;
    }

    /// Messages leave from now on; those that were never answered, to be said again first.
    pub fn open(&mut self) -> Vec<(u64, Message)> {
        self.is_open = true;
        self.unanswered.iter().copied().collect()
    }

    /// The tag of the message of this key, which is answered now.
    pub fn answer(&mut self, is_it: impl Fn(u64) -> bool) -> Option<u64> {
        let place = self.unanswered.iter().position(|(key, _)| is_it(*key))?;
        self.unanswered.remove(place).map(|(_, message)| message.tag)
    }

    /// The tag of the oldest unanswered message, which is answered now.
    pub fn answer_first(&mut self) -> Option<u64> {
        self.unanswered.pop_front().map(|(_, message)| message.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u64) -> Message {
        Message { to: 1, tag, bytes: 20 }
    }

    #[test]
    fn a_content_carries_its_tag() {
        let content = content(&message(0xfeed));
        assert_eq!((content.len(), tag_of(&content)), (20, Some(0xfeed)));
        assert_eq!(tag_of(b"short"), None);
        assert_eq!(tag_of(b"this is no number"), None);
    }

    #[test]
    fn a_window_says_again_what_was_not_answered() {
        let mut window = Window::default();
        (0..100).for_each(|tag| window.push(message(tag)));
        assert_eq!(window.poll(), None, "it is shut");
        assert!(window.open().is_empty());
        let keys: Vec<u64> = std::iter::from_fn(|| window.poll()).map(|(key, _)| key).collect();
        assert_eq!(keys, (1..=64).collect::<Vec<_>>());
        assert_eq!(window.answer(|key| key == 3), Some(2));
        assert_eq!(window.answer(|key| key == 3), None, "once");
        assert_eq!(window.answer_first(), Some(0));
        window.shut();
        assert_eq!(window.poll(), None);
        let again: Vec<u64> = window.open().into_iter().map(|(key, _)| key).collect();
        assert_eq!((again.len(), again[0], again[1]), (62, 2, 4));
        assert_eq!(window.poll().map(|(key, message)| (key, message.tag)), Some((65, 64)));
    }

    /// Pieces end with a dot.
    #[derive(Default)]
    struct Dots {
        inbox: Vec<u8>,
        outbox: Vec<u8>,
        seen: Vec<Vec<u8>>,
    }

    impl Dialect for Dots {
        fn begin(&mut self) {}

        fn outbox(&mut self) -> &mut Vec<u8> {
            &mut self.outbox
        }

        fn send(&mut self, _message: Message) {}

        fn inbox(&mut self) -> &mut Vec<u8> {
            &mut self.inbox
        }

        fn cut(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
            Ok(bytes.iter().position(|byte| *byte == b'.').map(|at| at + 1))
        }

        fn hear(&mut self, piece: &[u8], _tell: Tell<'_>) -> Result<(), String> {
            self.seen.push(piece.to_vec());
            Ok(())
        }

        fn beat(&mut self) {}
    }

    #[test]
    fn pieces_wait_for_their_end() {
        let mut dots = Dots::default();
        assert_eq!(dots.take(b"ab.c.d", &mut |_| {}), Ok(()));
        assert_eq!(dots.inbox, b"d");
        assert_eq!(dots.take(b"e.", &mut |_| {}), Ok(()));
        assert_eq!(dots.seen, [&b"ab."[..], b"c.", b"de."]);
        assert!(dots.inbox.is_empty());
    }
}
