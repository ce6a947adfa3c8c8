//! Redis Streams, as one builds a chat on them: a stream for each device, XADD to send, XREAD to
//! hear. A reader that waits blocks its connection, so a device has two. The reader keeps its
//! place by itself, which spares the server a write for each message; a message that is sent again
//! is a second one, since XADD knows no ids of the sender.

use super::dialect::{Dialect, Tell, Window, content, tag_of};
use super::{Event, Message};

/// The connection that sends.
pub struct Writer {
    window: Window,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// Answers to PING that are still to come, and the answers to messages before each.
    is_greeted: bool,
}

impl Writer {
    /// For any device: the message names its receiver.
    pub fn new() -> Self {
        let (window, inbox, outbox) = Default::default();
        Self { window, inbox, outbox, is_greeted: false }
    }

    fn add(&mut self, message: &Message) {
        let (stream, content) = (stream(message.to), content(message));
        command(&mut self.outbox, &[b"XADD", stream.as_bytes(), b"*", b"m", &content]);
    }

    fn fill(&mut self) {
        while let Some((_, message)) = self.window.poll() {
            self.add(&message);
        }
    }
}

impl Dialect for Writer {
    fn begin(&mut self) {
        self.window.shut();
        self.inbox.clear();
        self.outbox.clear();
        self.is_greeted = false;
        command(&mut self.outbox, &[b"PING"]);
    }

    fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    fn send(&mut self, message: Message) {
        self.window.push(message);
        self.fill();
    }

    fn inbox(&mut self) -> &mut Vec<u8> {
        &mut self.inbox
    }

    fn cut(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        whole(bytes)
    }

    fn hear(&mut self, piece: &[u8], tell: Tell<'_>) -> Result<(), String> {
        match piece {
            [b'-', rest @ ..] => return Err(String::from_utf8_lossy(rest).trim().to_owned()),
            // The answer to PING.
            [b'+', ..] if !std::mem::replace(&mut self.is_greeted, true) => {
                for (_, message) in self.window.open() {
                    self.add(&message);
                }
                tell(Event::Online);
            }
            [b'+', ..] => {}
            _ => {
                let tag = self.window.answer_first().ok_or("an answer to nothing")?;
                tell(Event::Acked(tag));
            }
        }
        self.fill();
        Ok(())
    }

    fn beat(&mut self) {
        command(&mut self.outbox, &[b"PING"]);
    }
}

/// The connection that hears.
pub struct Reader {
    device: usize,
    /// Id of the newest entry that came.
    newest: String,
    is_greeted: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Reader {
    /// Most entries of an answer.
    const COUNT: &str = "64";

    /// Of the device of this number.
    pub fn new(device: usize) -> Self {
        let (inbox, outbox) = Default::default();
        Self { device, newest: "0".to_owned(), is_greeted: false, inbox, outbox }
    }

    fn read(&mut self) {
        let (stream, newest) = (stream(self.device), self.newest.clone());
        let words = ["XREAD", "COUNT", Self::COUNT, "BLOCK", "0", "STREAMS", &stream, &newest];
        command(&mut self.outbox, &words.map(str::as_bytes));
    }
}

impl Dialect for Reader {
    fn begin(&mut self) {
        self.inbox.clear();
        self.outbox.clear();
        self.is_greeted = false;
        command(&mut self.outbox, &[b"PING"]);
    }

    fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    fn send(&mut self, _message: Message) {
        unreachable!("messages leave by the other connection");
    }

    fn inbox(&mut self) -> &mut Vec<u8> {
        &mut self.inbox
    }

    fn cut(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        whole(bytes)
    }

    fn hear(&mut self, piece: &[u8], tell: Tell<'_>) -> Result<(), String> {
        match piece {
            [b'-', rest @ ..] => return Err(String::from_utf8_lossy(rest).trim().to_owned()),
            [b'+', ..] if !std::mem::replace(&mut self.is_greeted, true) => tell(Event::Online),
            _ => {
                // [[stream, [[id, [field, content]], …]]]: every fourth text from the second on.
                let texts = texts(piece);
                for entry in texts.get(1..).unwrap_or_default().chunks_exact(3) {
                    self.newest = String::from_utf8_lossy(entry[0]).into_owned();
                    tell(Event::Received(tag_of(entry[2]).ok_or("an entry without a tag")?));
                }
            }
        }
        self.read();
        Ok(())
    }

    /// A blocked connection says nothing; the server has no time limit by default.
    fn beat(&mut self) {}
}

fn stream(device: usize) -> String {
    format!("to:{device}")
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend_from_slice(word);
        out.extend(b"\r\n");
    }
}

/// The length of the first value, once all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let number = || {
        let digits = std::str::from_utf8(&bytes[1..end]).unwrap_or_default();
        digits.parse::<i64>().map_err(|_| format!("{digits} is no length"))
    };
    let mut length = end + 2;
    match bytes[0] {
        b'+' | b'-' | b':' => {}
        b'$' => {
            if let Ok(text) = usize::try_from(number()?) {
                length += text + 2;
            }
        }
        b'*' => {
            for _ in 0..number()? {
                match whole(bytes.get(length..).unwrap_or_default())? {
                    Some(part) => length += part,
                    None => return Ok(None),
                }
            }
        }
        other => return Err(format!("a value of kind {other:#x}")),
    }
    Ok((length <= bytes.len()).then_some(length))
}

/// All texts within a value, in their order.
fn texts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut texts = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
        bytes = rest;
        if let [b'$', digits @ ..] = line {
            let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            let Some((text, behind)) = length.and_then(|length| rest.split_at_checked(length))
            else {
                break;
            };
            texts.push(text);
            bytes = behind.get(2..).unwrap_or_default();
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(connection: &mut dyn Dialect, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        connection.take(text.as_bytes(), &mut |event| events.push(event)).expect("well said");
        events
    }

    #[test]
    fn values_wait_for_their_end() {
        let answer = b"*2\r\n$3\r\nabc\r\n*1\r\n:7\r\n";
        assert_eq!(whole(answer), Ok(Some(answer.len())));
        assert!((0..answer.len()).all(|cut| whole(&answer[..cut]) == Ok(None)));
        assert_eq!(whole(b"$-1\r\n"), Ok(Some(5)));
        assert!(whole(b"?\r\n").is_err());
    }

    #[test]
    fn what_was_not_answered_is_added_again() {
        let mut writer = Writer::new();
        writer.begin();
        assert_eq!(hear(&mut writer, "+PONG\r\n"), [Event::Online]);
        writer.outbox.clear();
        writer.send(Message { to: 5, tag: 1, bytes: 16 });
        writer.send(Message { to: 5, tag: 2, bytes: 16 });
        assert_eq!(hear(&mut writer, "$3\r\n1-0\r\n"), [Event::Acked(1)]);
        writer.begin();
        writer.outbox.clear();
        hear(&mut writer, "+PONG\r\n");
        let said = String::from_utf8(writer.outbox.clone()).expect("text");
        assert!(said.contains("XADD\r\n$4\r\nto:5") && said.contains("0002\r\n"), "{said}");
        assert_eq!(said.matches("XADD").count(), 1);
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let mut reader = Reader::new(5);
        reader.begin();
        assert_eq!(hear(&mut reader, "+PONG\r\n"), [Event::Online]);
        let entry = |id: &str, tag: &str| {
            format!("*2\r\n$3\r\n{id}\r\n*2\r\n$1\r\nm\r\n$16\r\n00000000000000{tag}\r\n")
        };
        let answer =
            format!("*1\r\n*2\r\n$4\r\nto:5\r\n*2\r\n{}{}", entry("1-0", "0a"), entry("1-1", "0b"));
        assert_eq!(hear(&mut reader, &answer), [Event::Received(10), Event::Received(11)]);
        let said = String::from_utf8(reader.outbox.clone()).expect("text");
        assert!(said.ends_with("to:5\r\n$3\r\n1-1\r\n"), "{said}");
        assert!(reader.take(b"-LOADING the data\r\n", &mut |_| {}).is_err());
    }
}
