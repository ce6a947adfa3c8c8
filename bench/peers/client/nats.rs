//! NATS with JetStream: all messages are in one stream, a subject for each device, and each device
//! has a durable consumer of its own that pushes to it and wants an answer for each message. A
//! message carries an id by which the stream drops what is sent again; what is pushed again the
//! device knows by its place in the stream.

use std::collections::HashSet;

use super::dialect::{Dialect, Tell, Window, content, tag_of};
use super::{Event, Message};

/// The name of the stream.
const STREAM: &str = "CHAT";

/// Reply subjects of the two requests that prepare a device; those of messages are their keys.
const STREAM_READY: &str = "stream";
const CONSUMER_READY: &str = "consumer";

/// One device.
pub struct Nats {
    device: usize,
    window: Window,
    /// Places in the stream of the messages that came. What was under way to a device when the
    /// server died comes again after half a minute, behind newer messages: so the newest place
    /// would not do.
    places: HashSet<u64>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Nats {
    /// The device of this number.
    pub fn new(device: usize) -> Self {
        let (window, places, inbox, outbox) = Default::default();
        Self { device, window, places, inbox, outbox }
    }

    fn request(&mut self, subject: &str, reply: &str, body: &str) {
        let (device, bytes) = (self.device, body.len());
        self.say(&format!("PUB {subject} reply.{device}.{reply} {bytes}\r\n{body}\r\n"));
    }

    fn say(&mut self, text: &str) {
        self.outbox.extend_from_slice(text.as_bytes());
    }

    fn prepare_stream(&mut self) {
        let config = format!(
            r#"{{"name":"{STREAM}","subjects":["chat.*"],"storage":"file","retention":"limits"}}"#
        );
        self.request(&format!("$JS.API.STREAM.CREATE.{STREAM}"), STREAM_READY, &config);
    }

    fn prepare_consumer(&mut self) {
        let device = self.device;
        let config = format!(
            r#"{{"stream_name":"{STREAM}","config":{{"durable_name":"device{device}","#
        ) + &format!(
            r#""deliver_subject":"push.{device}","ack_policy":"explicit","filter_subject":"chat.{device}"}}}}"#
        );
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.device{device}");
        self.request(&subject, CONSUMER_READY, &config);
    }

    fn publish(&mut self, key: u64, message: &Message) {
        let head = format!("NATS/1.0\r\nNats-Msg-Id: {:x}\r\n\r\n", message.tag);
        let content = content(message);
        let (to, device) = (message.to, self.device);
        let (head_bytes, bytes) = (head.len(), head.len() + content.len());
        self.say(&format!("HPUB chat.{to} reply.{device}.{key} {head_bytes} {bytes}\r\n{head}"));
        self.outbox.extend(content);
        self.say("\r\n");
    }

    fn fill(&mut self) {
        while let Some((key, message)) = self.window.poll() {
            self.publish(key, &message);
        }
    }

    /// `$JS.ACK.<stream>.<consumer>.<times>.<place in the stream>.…` is where the answer goes.
    fn handle_push(&mut self, reply: &str, body: &[u8], tell: Tell<'_>) -> Result<(), String> {
        self.say(&format!("PUB {reply} 4\r\n+ACK\r\n"));
        let place = reply.split('.').nth(5).and_then(|place| place.parse().ok());
        if self.places.insert(place.ok_or("a push without its place")?) {
            tell(Event::Received(tag_of(body).ok_or("a message without a tag")?));
        }
        Ok(())
    }

    fn handle_reply(&mut self, subject: &str, body: &[u8], tell: Tell<'_>) -> Result<(), String> {
        let body = String::from_utf8_lossy(body);
        if body.contains("\"error\"") {
            return Err(format!("JetStream says: {body}"));
        }
        match subject.rsplit('.').next().unwrap_or_default() {
            STREAM_READY => self.prepare_consumer(),
            CONSUMER_READY => {
                for (key, message) in self.window.open() {
                    self.publish(key, &message);
                }
                tell(Event::Online);
            }
            key => {
                let key: u64 = key.parse().map_err(|_| "an answer to nothing")?;
                let tag = self.window.answer(|own| own == key);
                tag.into_iter().for_each(|tag| tell(Event::Acked(tag)));
            }
        }
        Ok(())
    }
}

impl Dialect for Nats {
    fn begin(&mut self) {
        self.window.shut();
        self.inbox.clear();
        self.outbox.clear(); // the server speaks first
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
        cut(bytes)
    }

    fn hear(&mut self, piece: &[u8], tell: Tell<'_>) -> Result<(), String> {
        let (line, body) = split(piece);
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["INFO", ..] => {
                let device = self.device;
                self.say(&format!(
                    "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\
                     \"no_responders\":true,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}}\r\n\
                     SUB reply.{device}.* 1\r\nSUB push.{device} 2\r\n"
                ));
                self.prepare_stream();
            }
            ["PING"] => self.say("PONG\r\n"),
            ["PONG" | "+OK"] => {}
            ["MSG", _, "2", reply, _] => self.handle_push(reply, body, tell)?,
            ["HMSG", _, "2", reply, head, _] => {
                let head: usize = head.parse().map_err(|_| "a length that is none")?;
                self.handle_push(reply, body.get(head..).unwrap_or_default(), tell)?;
            }
            ["MSG", subject, "1", ..] => self.handle_reply(subject, body, tell)?,
            // Nobody answers: JetStream is not up yet. The next connection asks again.
            ["HMSG", _, "1", ..] => return Err("JetStream does not answer yet".to_owned()),
            _ => return Err(format!("the server says: {line}")),
        }
        self.fill();
        Ok(())
    }

    fn beat(&mut self) {
        self.say("PING\r\n");
    }
}

/// A line, and behind that of a message what it announces.
fn cut(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let (line, _) = split(bytes);
    if !line.starts_with("MSG ") && !line.starts_with("HMSG ") {
        return Ok(Some(end + 2));
    }
    let body = line.rsplit(' ').next().and_then(|bytes| bytes.parse::<usize>().ok());
    let whole = end + 2 + body.ok_or("a message without its length")? + 2;
    Ok((whole <= bytes.len()).then_some(whole))
}

/// The line, and what is behind it without its end.
fn split(piece: &[u8]) -> (&str, &[u8]) {
    let end = piece.windows(2).position(|two| two == b"\r\n").unwrap_or(piece.len());
    let line = std::str::from_utf8(&piece[..end]).unwrap_or_default();
    let body = piece.get(end + 2..).unwrap_or_default();
    (line, body.strip_suffix(b"\r\n").unwrap_or(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(device: &mut Nats, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        device.take(text.as_bytes(), &mut |event| events.push(event)).expect("it is well said");
        events
    }

    fn said(device: &mut Nats) -> String {
        String::from_utf8(std::mem::take(&mut device.outbox)).expect("text")
    }

    fn online() -> Nats {
        let mut device = Nats::new(3);
        device.begin();
        hear(&mut device, "INFO {\"server_id\":\"x\"}\r\n");
        assert!(said(&mut device).contains("$JS.API.STREAM.CREATE.CHAT reply.3.stream"));
        hear(&mut device, "MSG reply.3.stream 1 2\r\n{}\r\n");
        assert!(said(&mut device).contains("DURABLE.CREATE.CHAT.device3 reply.3.consumer"));
        assert_eq!(hear(&mut device, "MSG reply.3.consumer 1 2\r\n{}\r\n"), [Event::Online]);
        device
    }

    #[test]
    fn a_message_is_published_with_its_id_and_acked() {
        let mut device = online();
        device.send(Message { to: 4, tag: 10, bytes: 16 });
        let text = said(&mut device);
        assert!(
            text.starts_with("HPUB chat.4 reply.3.1 28 44\r\nNATS/1.0\r\nNats-Msg-Id: a\r\n\r\n")
        );
        let head = text.find("NATS/1.0").expect("a head");
        assert_eq!(text.len() - head, 44 + 2, "the lengths are right");
        let answer = "MSG reply.3.1 1 25\r\n{\"stream\":\"CHAT\",\"seq\":1}\r\n";
        assert_eq!(hear(&mut device, answer), [Event::Acked(10)]);
    }

    #[test]
    fn a_push_that_comes_again_is_acked_and_not_told() {
        let mut device = online();
        let push = "MSG chat.3 2 $JS.ACK.CHAT.device3.1.7.1.99.0 16\r\n000000000000002a\r\n";
        let (first, rest) = push.split_at(20);
        assert!(hear(&mut device, first).is_empty());
        assert_eq!(hear(&mut device, rest), [Event::Received(42)]);
        assert!(hear(&mut device, push).is_empty());
        assert_eq!(said(&mut device).matches("+ACK").count(), 2);
    }

    #[test]
    fn a_refusal_ends_the_connection() {
        let mut device = online();
        let refusal = "MSG reply.3.1 1 24\r\n{\"error\":{\"code\":503 } }\r\n";
        assert!(device.take(refusal.as_bytes(), &mut |_| {}).is_err());
    }
}
