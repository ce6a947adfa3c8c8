//! MQTT 3.1.1 at QoS 1: a device publishes to the topic of another, whose session the server keeps
//! while it is away. PUBACK is the answer, in both directions.

use super::dialect::{Dialect, Tell, Window, content, tag_of};
use super::{Event, Message};

/// Seconds of silence after which the server may hang up.
const KEEP_ALIVE_S: u16 = 60;

/// Kinds of packets, with the flags that each must have.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH_QOS1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;

/// The flag of a packet that may have come before.
const DUP: u8 = 0x08;

/// The packet that subscribes; those of messages follow.
const SUBSCRIPTION: u16 = u16::MAX;

/// One device.
pub struct Mqtt {
    device: usize,
    window: Window,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Mqtt {
    /// The device of this number.
    pub fn new(device: usize) -> Self {
        Self { device, window: Window::default(), inbox: Vec::new(), outbox: Vec::new() }
    }

    fn publish(&mut self, flags: u8, key: u64, message: &Message) {
        let mut body = text(&topic(message.to));
        body.extend(packet_id(key).to_be_bytes());
        body.extend(content(message));
        packet(&mut self.outbox, PUBLISH_QOS1 | flags, &body);
    }

    fn fill(&mut self) {
        while let Some((key, message)) = self.window.poll() {
            self.publish(0, key, &message);
        }
    }

    fn hear_packet(&mut self, kind: u8, body: &[u8], tell: Tell<'_>) -> Result<(), String> {
        match kind & 0xf0 {
            CONNACK if body.get(1) == Some(&0) => {
                let mut subscribe = SUBSCRIPTION.to_be_bytes().to_vec();
                subscribe.extend(text(&topic(self.device)));
                subscribe.push(1); // QoS
                packet(&mut self.outbox, SUBSCRIBE, &subscribe);
            }
            CONNACK => return Err(format!("the server refuses: {body:?}")),
            SUBACK => {
                for (key, message) in self.window.open() {
                    self.publish(DUP, key, &message);
                }
                tell(Event::Online);
            }
            PUBACK => {
                let id = body.first_chunk().map(|id| u16::from_be_bytes(*id));
                let tag = self.window.answer(|key| Some(packet_id(key)) == id);
                tag.into_iter().for_each(|tag| tell(Event::Acked(tag)));
            }
            kind if kind == PUBLISH_QOS1 & 0xf0 => {
                let topic = body.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
                let rest = body.get(2 + usize::from(topic)..).unwrap_or_default();
                let (id, content) = rest.split_at_checked(2).ok_or("a cut PUBLISH")?;
                packet(&mut self.outbox, PUBACK, id);
                let tag = tag_of(content).ok_or("a message without a tag")?;
                tell(Event::Received(tag));
            }
            PINGRESP => {}
            kind => return Err(format!("a packet of kind {kind:#x}")),
        }
        self.fill();
        Ok(())
    }
}

impl Dialect for Mqtt {
    fn begin(&mut self) {
        self.window.shut();
        self.inbox.clear();
        self.outbox.clear();
        let mut body = text("MQTT");
        body.extend([4, 0]); // version 3.1.1, a session that stays
        body.extend(KEEP_ALIVE_S.to_be_bytes());
        body.extend(text(&format!("device{}", self.device)));
        packet(&mut self.outbox, CONNECT, &body);
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
        Ok(length(bytes)?.map(|(head, body)| head + body))
    }

    fn hear(&mut self, piece: &[u8], tell: Tell<'_>) -> Result<(), String> {
        let (head, _) = length(piece)?.ok_or("a cut packet")?;
        self.hear_packet(piece[0], &piece[head..], tell)
    }

    fn beat(&mut self) {
        packet(&mut self.outbox, PINGREQ, &[]);
    }
}

fn topic(device: usize) -> String {
    format!("to/{device}")
}

/// 1 to 65,534, in turns: the window is far smaller.
fn packet_id(key: u64) -> u16 {
    ((key - 1) % u64::from(SUBSCRIPTION - 1)) as u16 + 1
}

/// Text with its length in front.
fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec(); // names here are short
    bytes.extend(text.bytes());
    bytes
}

fn packet(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let mut rest = body.len();
    loop {
        let more = if rest >= 0x80 { 0x80 } else { 0 };
        out.push((rest & 0x7f) as u8 | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

/// Lengths of the header and of what follows it, once all of it is there.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0_usize;
    for index in 1..=4 {
        let Some(byte) = bytes.get(index) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (index - 1));
        if byte & 0x80 == 0 {
            let is_whole = bytes.len() >= index + 1 + length;
            return Ok(is_whole.then_some((index + 1, length)));
        }
    }
    Err("a length of more than four bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(device: &mut Mqtt, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        device.take(bytes, &mut |event| events.push(event)).expect("it is well said");
        events
    }

    #[test]
    fn lengths_have_as_many_bytes_as_they_need() {
        for bytes in [0, 1, 127, 128, 16_383, 16_384] {
            let mut out = Vec::new();
            packet(&mut out, PUBACK, &vec![7; bytes]);
            let (head, body) = length(&out).expect("a length").expect("all is there");
            assert_eq!((body, head + body), (bytes, out.len()));
            assert_eq!(length(&out[..out.len() - 1]), Ok(None));
        }
        assert!(length(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }

    #[test]
    fn a_message_is_sent_acked_and_sent_again_after_a_loss() {
        let mut device = Mqtt::new(3);
        device.begin();
        assert_eq!(device.outbox[0], CONNECT);
        device.send(Message { to: 4, tag: 9, bytes: 32 });
        assert!(hear(&mut device, &[CONNACK, 2, 0, 0]).is_empty());
        device.outbox.clear();
        assert_eq!(hear(&mut device, &[SUBACK, 3, 0xff, 0xff, 1]), [Event::Online]);
        assert_eq!(device.outbox[0], PUBLISH_QOS1);
        device.begin();
        hear(&mut device, &[CONNACK, 2, 1, 0]);
        device.outbox.clear();
        hear(&mut device, &[SUBACK, 3, 0xff, 0xff, 1]);
        assert_eq!(device.outbox[0], PUBLISH_QOS1 | DUP);
        assert_eq!(hear(&mut device, &[PUBACK, 2, 0, 1]), [Event::Acked(9)]);
    }

    #[test]
    fn what_comes_is_told_and_answered() {
        let (mut sender, mut receiver) = (Mqtt::new(0), Mqtt::new(1));
        sender.publish(0, 5, &Message { to: 1, tag: 77, bytes: 100 });
        let said = std::mem::take(&mut sender.outbox);
        let (first, rest) = said.split_at(10);
        assert!(hear(&mut receiver, first).is_empty());
        assert_eq!(hear(&mut receiver, rest), [Event::Received(77)]);
        assert_eq!(receiver.outbox, [PUBACK, 2, 0, 5]);
    }
}
