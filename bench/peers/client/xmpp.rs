//! XMPP over TLS from the first byte: SASL PLAIN, a chat message to another account's name, and
//! stream management (XEP-0198) for the answers, asked for behind each message and given for each
//! that comes. An account is made by its device itself, in-band (XEP-0077).

use std::fmt::Write as _;

use super::dialect::{Dialect, Tell, Window, content, tag_of};
use super::{Event, Message};

/// The host that the server serves.
pub const HOST: &str = "localhost";

/// Namespace of stream management.
const SM: &str = "urn:xmpp:sm:3";

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It waits for the features of the server, to register its account.
    Registering,
    /// It waits to be authenticated.
    Authenticating,
    /// It waits for the features behind that, to bind a resource.
    Binding,
    /// It waits for stream management.
    Enabling,
    /// Messages go.
    Online,
}

/// One device.
pub struct Xmpp {
    device: usize,
    stage: Stage,
    is_registered: bool,
    window: Window,
    /// Stanzas of this connection that the server has answered.
    answered: u64,
    /// Stanzas that came over this connection.
    received: u64,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Xmpp {
    /// The device of this number.
    pub fn new(device: usize) -> Self {
        let (window, inbox, outbox) = Default::default();
        let stage = Stage::Registering;
        let (is_registered, answered, received) = (false, 0, 0);
        Self { device, stage, is_registered, window, answered, received, inbox, outbox }
    }

    fn say(&mut self, text: &str) {
        self.outbox.extend_from_slice(text.as_bytes());
    }

    fn open_stream(&mut self) {
        self.say(&format!(
            "<?xml version='1.0'?><stream:stream to='{HOST}' version='1.0' \
             xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        ));
    }

    fn register(&mut self) {
        let name = name(self.device);
        self.say(&format!(
            "<iq type='set' id='register'><query xmlns='jabber:iq:register'>\
             <username>{name}</username><password>{name}</password></query></iq>"
        ));
    }

    fn authenticate(&mut self) {
        self.stage = Stage::Authenticating;
        let name = name(self.device);
        let secret = base64(format!("\0{name}\0{name}").as_bytes());
        self.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
        ));
    }

    fn message(&mut self, message: &Message) {
        let (to, tag) = (name(message.to), message.tag);
        let body = String::from_utf8_lossy(&content(message)).into_owned();
        self.say(&format!(
            "<message to='{to}@{HOST}' type='chat' id='{tag:x}'><body>{body}</body></message>\
             <r xmlns='{SM}'/>"
        ));
    }

    fn fill(&mut self) {
        while let Some((_, message)) = self.window.poll() {
            self.message(&message);
        }
    }

    fn hear_element(&mut self, element: &str, tell: Tell<'_>) -> Result<(), String> {
        let end = element.find([' ', '>', '/', '\t', '\n']).unwrap_or(element.len());
        match (&element[1..end.max(1)], self.stage) {
            ("?xml" | "stream:stream", _) => {}
            ("stream:features", Stage::Registering) if self.is_registered => self.authenticate(),
            ("stream:features", Stage::Registering) => self.register(),
            // A result, or the account is there already.
            ("iq", Stage::Registering) if is_there(element) => {
                self.is_registered = true;
                self.authenticate();
            }
            ("success", Stage::Authenticating) => {
                self.stage = Stage::Binding;
                self.open_stream();
            }
            ("stream:features", Stage::Binding) => self.say(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <resource>phone</resource></bind></iq>",
            ),
            ("iq", Stage::Binding) if element.contains("id='bind'") => {
                self.stage = Stage::Enabling;
                self.say(&format!("<enable xmlns='{SM}'/>"));
            }
            ("enabled", Stage::Enabling) => self.go_online(tell),
            ("a", Stage::Online) => self.handle_answer(element, tell)?,
            ("r", Stage::Online) => {
                let received = self.received;
                self.say(&format!("<a xmlns='{SM}' h='{received}'/>"));
            }
            ("message", Stage::Online) => self.handle_message(element, tell)?,
            ("presence" | "iq", Stage::Online) => self.received += 1,
            _ => return Err(format!("the server says, {:?}: {element}", self.stage)),
        }
        self.fill();
        Ok(())
    }

    fn go_online(&mut self, tell: Tell<'_>) {
        self.stage = Stage::Online;
        (self.answered, self.received) = (0, 0);
        self.say("<presence/>");
        for (_, message) in self.window.open() {
            self.message(&message);
        }
        tell(Event::Online);
    }

    /// `h` counts all stanzas of this connection; the first one is the presence.
    fn handle_answer(&mut self, element: &str, tell: Tell<'_>) -> Result<(), String> {
        let count = attribute(element, "h").and_then(|count| count.parse::<u64>().ok());
        let count = count.ok_or("an answer without a number")?;
        while self.answered < count {
            self.answered += 1;
            let tag = (self.answered > 1).then(|| self.window.answer_first()).flatten();
            tag.into_iter().for_each(|tag| tell(Event::Acked(tag)));
        }
        Ok(())
    }

    fn handle_message(&mut self, element: &str, tell: Tell<'_>) -> Result<(), String> {
        self.received += 1;
        let is_refused = attribute(element, "type") == Some("error");
        let body = element.split_once("<body>").and_then(|(_, rest)| rest.split_once("</body>"));
        match body {
            _ if is_refused => Err(format!("refused: {element}")),
            Some((body, _)) => {
                tell(Event::Received(tag_of(body.as_bytes()).ok_or("a body without a tag")?));
                Ok(())
            }
            None => Ok(()), // a notice of the server
        }
    }
}

impl Dialect for Xmpp {
    fn begin(&mut self) {
        self.window.shut();
        self.inbox.clear();
        self.outbox.clear();
        self.stage = Stage::Registering;
        self.open_stream();
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
        element(bytes)
    }

    fn hear(&mut self, piece: &[u8], tell: Tell<'_>) -> Result<(), String> {
        let text = std::str::from_utf8(piece).map_err(|_| "no UTF-8")?;
        self.hear_element(text.trim_start(), tell)
    }

    fn beat(&mut self) {
        self.say(" ");
    }
}

fn name(device: usize) -> String {
    format!("device{device}")
}

fn is_there(answer: &str) -> bool {
    attribute(answer, "type") == Some("result") || answer.contains("<conflict")
}

/// The value of an attribute of the first tag.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let tag = element.split('>').next()?;
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let quote = rest.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    rest[1..].split(quote).next()
}

/// The length of the first element, once all of it is there; the stream's own opening tag, which is
/// closed at the end only, and the XML declaration stand for themselves.
fn element(bytes: &[u8]) -> Result<Option<usize>, String> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        let Some(open) = bytes[at..].iter().position(|byte| *byte == b'<') else {
            return Ok(None);
        };
        let open = at + open;
        let Some(close) = tag_end(&bytes[open..]) else { return Ok(None) };
        let tag = &bytes[open..open + close];
        at = open + close;
        if tag.starts_with(b"</stream:stream") {
            return Err("the server ends the stream".to_owned());
        }
        if depth == 0 && (tag.starts_with(b"<?") || tag.starts_with(b"<stream:stream")) {
            return Ok(Some(at));
        }
        if tag.starts_with(b"</") {
            depth = depth.checked_sub(1).ok_or("an end without a beginning")?;
        } else if !tag.ends_with(b"/>") {
            depth += 1;
        }
        if depth == 0 {
            return Ok(Some(at));
        }
    }
}

/// The length of a tag, `>` within a quoted value left aside.
fn tag_end(tag: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (index, byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (None, b'\'' | b'"') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            (None, b'>') => return Some(index + 1),
            _ => {}
        }
    }
    None
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63] as char;
            let _ = text.write_char(if place <= three.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_wait_for_their_end() {
        let text = "<a b='>'><c/><d>x</d></a>";
        assert_eq!(element(text.as_bytes()), Ok(Some(text.len())));
        assert!((0..text.len()).all(|cut| element(&text.as_bytes()[..cut]) == Ok(None)));
        assert_eq!(element(b"<stream:stream to='x'><a/>"), Ok(Some(22)));
        assert!(element(b"</stream:stream>").is_err());
    }

    #[test]
    fn base64_is_padded() {
        assert_eq!(base64(b"\0a\0b"), "AGEAYg==");
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b"ab"), "YWI=");
    }

    fn hear(device: &mut Xmpp, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        device.take(text.as_bytes(), &mut |event| events.push(event)).expect("well said");
        events
    }

    fn said(device: &mut Xmpp) -> String {
        String::from_utf8(std::mem::take(&mut device.outbox)).expect("text")
    }

    #[test]
    fn a_device_comes_online_and_talks() {
        let mut device = Xmpp::new(2);
        device.begin();
        hear(&mut device, "<?xml version='1.0'?><stream:stream id='1'><stream:features/>");
        assert!(said(&mut device).contains("jabber:iq:register"));
        hear(&mut device, "<iq type='result' id='register'/>");
        assert!(said(&mut device).contains("AGRldmljZTIAZGV2aWNlMg=="));
        hear(&mut device, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        hear(&mut device, "<stream:stream id='2'><stream:features><bind/></stream:features>");
        hear(&mut device, "<iq type='result' id='bind'><bind><jid>x</jid></bind></iq>");
        assert_eq!(hear(&mut device, "<enabled xmlns='urn:xmpp:sm:3'/>"), [Event::Online]);
        said(&mut device);
        device.send(Message { to: 3, tag: 255, bytes: 16 });
        assert!(said(&mut device).contains("<message to='device3@localhost' type='chat' id='ff'>"));
        assert!(hear(&mut device, "<a xmlns='urn:xmpp:sm:3' h='1'/>").is_empty(), "the presence");
        assert_eq!(hear(&mut device, "<a xmlns='urn:xmpp:sm:3' h='2'/>"), [Event::Acked(255)]);
        let push = "<message from='x' type='chat'><body>0000000000000009</body></message>";
        let heard = hear(&mut device, &format!("{push}<r xmlns='urn:xmpp:sm:3'/>"));
        assert_eq!(heard, [Event::Received(9)]);
        assert!(said(&mut device).contains("h='1'"));
    }
}
