//! A device that writes numbered messages as fast as it may, sends again what is refused, and
//! knows what was acked; and the judge that reads everything back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tern_protocol::{ChannelId, Code, Frame, Kind};

use crate::support::dial::Dial;
use crate::support::peer::{PATIENCE, Peer};
use crate::support::server::Account;
use crate::support::words;

/// Messages under way at once: half of what the deduplication window has.
const OPEN_MAX: usize = 32;

/// Time after which a refused message is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// Bytes of each message.
const CONTENT_BYTES: usize = 1400;

/// What is known of the messages of a channel, over all lives of server and writer.
#[derive(Default, Debug)]
pub struct Book {
    /// Ids by the numbers of the messages.
    pub acked: BTreeMap<u64, u64>,
    /// The number of the next message.
    next: u64,
}

/// The writing device.
pub struct Writer {
    peer: Peer,
    channel: ChannelId,
    epoch: u32,
    counter: u32,
    /// Messages without an answer: their numbers by their counters.
    open: BTreeMap<u32, u64>,
    /// Refused ones, and when they are sent again.
    again: Vec<(Instant, u32)>,
    /// Answers by their codes.
    pub refused: BTreeMap<u16, u64>,
}

impl Writer {
    /// Logs in; why not, if the server does not let it.
    pub fn start(server: SocketAddr, account: &Account, other: &Account) -> Result<Self, String> {
        let mut peer = Peer::connect(server, &Dial::default());
        peer.say(&[words::hello(), words::login(account)].concat());
        let start = Instant::now();
        let epoch = loop {
            peer.turn(Duration::from_millis(20));
            match peer.try_next().as_ref().map(|said| (said.kind(), said.frame())) {
                Some((_, Frame::LoggedIn(answer))) => break answer.epoch.get(),
                Some((Kind::Error, said)) => return Err(format!("{said:?}")),
                _ => {}
            }
            if peer.end().is_some() || start.elapsed() > PATIENCE {
                return Err(format!("ended: {:?}", peer.end()));
            }
        };
        peer.say(&words::cursors(&[], true));
        Ok(Self {
            peer,
            channel: account.channel_with(other),
            epoch,
            counter: 0,
            open: BTreeMap::new(),
            again: Vec::new(),
            refused: BTreeMap::new(),
        })
    }

    /// Answers of a kind so far.
    pub fn refusals(&self, code: Code) -> u64 {
        self.refused.get(&code.0).copied().unwrap_or(0)
    }

    /// Whether a message was refused since its shard takes none any more.
    pub fn stopped(&self) -> bool {
        self.refusals(Code::ShardStopped) > 0
    }

    /// Whether the server ended the connection.
    pub fn ended(&self) -> bool {
        self.peer.end().is_some()
    }

    /// Writes until `done`; false if that did not come in time.
    pub fn write_until(
        &mut self,
        book: &mut Book,
        mut done: impl FnMut(&Self, &Book) -> bool,
    ) -> bool {
        let start = Instant::now();
        while !done(self, book) {
            if start.elapsed() > PATIENCE {
                return false;
            }
            self.turn(book);
        }
        true
    }

    fn turn(&mut self, book: &mut Book) {
        let oldest = self.open.keys().next().copied().unwrap_or(self.counter + 1);
        while self.open.len() < OPEN_MAX && self.counter + 1 < oldest + OPEN_MAX as u32 {
            self.counter += 1;
            self.open.insert(self.counter, book.next);
            book.next += 1;
            self.say(self.counter);
        }
        self.send_again();
        self.peer.turn(Duration::from_millis(5));
        self.hear(book);
    }

    fn say(&mut self, counter: u32) {
        let content = content(self.open[&counter]);
        self.peer.say(&words::send(self.channel, self.epoch, counter, &content));
    }

    fn send_again(&mut self) {
        let now = Instant::now();
        let (due, later) = self.again.drain(..).partition(|(at, _)| *at <= now);
        self.again = later;
        let due: Vec<(Instant, u32)> = due;
        due.into_iter().for_each(|(_, counter)| self.say(counter));
    }

    fn hear(&mut self, book: &mut Book) {
        while let Some(said) = self.peer.try_next() {
            match said.frame() {
                Frame::SendAck(ack) => {
                    if let Some(number) = self.open.remove(&ack.counter.get()) {
                        book.acked.insert(number, ack.id.get());
                    }
                }
                Frame::SendRefused(refused) => {
                    *self.refused.entry(refused.code.get()).or_default() += 1;
                    self.again.push((Instant::now() + AGAIN, refused.counter.get()));
                }
                Frame::Push(push, _) => {
                    self.peer.say(&words::receive_ack(self.channel, push.id.get()));
                }
                _ => {}
            }
        }
    }
}

/// A message that says its number all over.
fn content(number: u64) -> Vec<u8> {
    let mut content = vec![number as u8; CONTENT_BYTES];
    content[..8].copy_from_slice(&number.to_le_bytes());
    content
}

/// What came back.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
}

/// Reads the channel from its beginning on another account's device, which must hold every acked
/// message under its id, and no message twice.
pub fn judge(server: SocketAddr, reader: &Account, writer: &Account, book: &Book) -> Verdict {
    let newest = book.acked.values().copied().max().unwrap_or(0);
    let reaches = |read: &Read| read.messages.last_key_value().is_some_and(|it| *it.0 >= newest);
    let all = |read: &Read| newest == 0 || reaches(read);
    verdict(book, read_back(server, reader, writer, all))
}

/// What came.
#[derive(Default)]
pub struct Read {
    /// Numbers of messages by their ids.
    pub messages: BTreeMap<u64, u64>,
    /// The newest id that was told to be gone since messages are not kept for ever; 0: none.
    pub expired: u64,
}

/// What comes on the reader's device from the channel's beginning on, until `done` or until
/// nothing comes any more.
pub fn read_back(
    server: SocketAddr,
    reader: &Account,
    writer: &Account,
    done: impl Fn(&Read) -> bool,
) -> Read {
    let channel = reader.channel_with(writer);
    let (mut peer, _) = Peer::device(server, &Dial::default(), reader);
    let mut read = Read::default();
    let mut last = Instant::now();
    while !done(&read) && last.elapsed() < PATIENCE {
        peer.turn(Duration::from_millis(20));
        while let Some(said) = peer.try_next() {
            match said.frame() {
                Frame::Push(push, content) => {
                    last = Instant::now();
                    let number = u64::from_le_bytes(content[..8].try_into().unwrap());
                    assert_eq!(content, self::content(number), "a torn message");
                    let before = read.messages.insert(push.id.get(), number);
                    assert!(before.is_none_or(|before| before == number), "an id given twice");
                    peer.say(&words::receive_ack(channel, push.id.get()));
                }
                Frame::Gap(gap) if gap.code.get() == Code::Expired.0 => {
                    read.expired = read.expired.max(gap.to.get());
                    peer.say(&words::receive_ack(channel, gap.to.get()));
                }
                _ => {}
            }
        }
    }
    read
}

/// Compares what was read with what was acked.
pub fn verdict(book: &Book, read: Read) -> Verdict {
    let held = |(number, id): &(&u64, &u64)| read.messages.get(id) != Some(number);
    let lost = book.acked.iter().filter(held).count() as u64;
    let mut numbers: Vec<u64> = read.messages.into_values().collect();
    let delivered = numbers.len() as u64;
    numbers.sort_unstable();
    numbers.dedup();
    Verdict { delivered, lost, duplicated: delivered - numbers.len() as u64 }
}
