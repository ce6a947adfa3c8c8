//! Numbered lines from one device to others through whatever happens to the server: `tern send
//! --stdin` is fed with them, each `tern recv` is heard, and the ledger judges: every line stands
//! exactly once, in order, in what each receiver printed.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::ledger::{DeviceNo, Ledger, Mark, Showing, Verdict};
use crate::support::commands::{Heard, Talking};

/// Lines fed beyond those that are acked: as many as the server takes unanswered from a device.
const LINES_AHEAD: u64 = 64;

/// Messages that a receiver may print again after it was killed: a batch that was printed and whose
/// cursors were not stored yet.
const AGAIN_MAX: u64 = 64;

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks through all lines.
const LOOK: Duration = Duration::from_millis(50);

/// Lines that are heard and not yet looked at: more than a kill can leave behind.
const HEARD_MAX: usize = 65_536;

/// Which process said something, and in which life.
type Who = (Role, u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Send,
    Recv(usize),
}

/// The processes that talk, and what they said.
pub struct Lines {
    data: PathBuf,
    from: &'static str,
    to: &'static str,
    send: Option<Talking>,
    /// Devices of the receiving user, and their processes.
    receivers: Vec<(&'static str, Option<Talking>)>,
    lives: u32,
    ear: SyncSender<(Who, Heard)>,
    heard: Receiver<(Who, Heard)>,
    /// The number of the newest line that was fed in this life of `send`.
    fed: u64,
    /// That of any life: what a killed one took may still be sent.
    fed_ever: u64,
    /// The number of the newest line that was acked; all before it are too.
    pub acked: u64,
    /// No more lines: this is the last one.
    last: Option<u64>,
    /// Messages that receivers printed, repeats included.
    pub shown: u64,
    send_ended: bool,
    pub ledger: Ledger,
    start: Instant,
}

impl Lines {
    /// Nobody talks yet. The receivers are devices of the user `to`.
    pub fn new(
        data: &Path,
        from: &'static str,
        to: &'static str,
        receivers: &[&'static str],
    ) -> Self {
        let (ear, heard) = sync_channel(HEARD_MAX);
        Self {
            data: data.to_owned(),
            from,
            to,
            send: None,
            receivers: receivers.iter().map(|name| (*name, None)).collect(),
            lives: 0,
            ear,
            heard,
            fed: 0,
            fed_ever: 0,
            acked: 0,
            last: None,
            shown: 0,
            send_ended: false,
            ledger: Ledger::new(receivers.len(), AGAIN_MAX),
            start: Instant::now(),
        }
    }

    /// The device that sends; those before it receive.
    fn sender(&self) -> DeviceNo {
        DeviceNo(self.receivers.len())
    }

    pub fn start_send(&mut self) {
        let next = (self.acked + 1).to_string();
        let arguments = ["send", "--as", self.from, "--to", self.to, "--stdin", "--from", &next];
        self.fed = self.acked;
        self.send_ended = false;
        self.send = Some(self.talk(Role::Send, &arguments));
    }

    pub fn start_recv(&mut self, receiver: usize) {
        let name = self.receivers[receiver].0;
        let talking = self.talk(Role::Recv(receiver), &["recv", "--as", name, "--json"]);
        self.receivers[receiver].1 = Some(talking);
    }

    fn talk(&mut self, role: Role, arguments: &[&str]) -> Talking {
        self.lives += 1;
        Talking::start(&self.data, arguments, (role, self.lives), self.ear.clone())
    }

    /// Kills the sender; it starts again behind what was acked.
    pub fn kill_send(&mut self) {
        self.send.take().expect("it is started after each kill").kill();
        self.hear_all();
        self.start_send();
    }

    /// Kills a receiver, and starts it again.
    pub fn kill_recv(&mut self, receiver: usize) {
        self.receivers[receiver].1.take().expect("it is started after each kill").kill();
        self.hear_all();
        self.start_recv(receiver);
    }

    /// Feeds and listens until `done`; false if that did not come in time.
    #[must_use]
    pub fn live_until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            self.feed();
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((who, heard)) = self.heard.recv_timeout(left) else { return false };
            self.handle(who, heard);
        }
        true
    }

    /// Feeds and listens for this long.
    pub fn live_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        loop {
            self.feed();
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((who, heard)) => self.handle(who, heard),
                Err(_) => return,
            }
        }
    }

    /// Lives until every receiver has every acked line; false if that did not come in time.
    #[must_use]
    pub fn settle(&mut self) -> bool {
        let (mut shown, mut last) = (self.shown, Instant::now());
        // Not after each line: the look goes through all of them.
        while self.ledger.open().unseen > 0 {
            self.live_for(LOOK);
            if self.shown > shown {
                (shown, last) = (self.shown, Instant::now());
            }
            if last.elapsed() > PATIENCE {
                return false;
            }
        }
        true
    }

    /// Sends what was fed and no more, and ends the sender; false if that did not come in time.
    #[must_use]
    pub fn finish_sending(&mut self) -> bool {
        self.last = Some(self.fed_ever);
        if !self.live_until(|lines| lines.send_ended) {
            return false;
        }
        let status = self.send.take().expect("it was not killed").end();
        assert!(status.success(), "{status}: {}", self.progress());
        true
    }

    /// Lines that were fed in all.
    pub fn count(&self) -> u64 {
        self.fed_ever
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The judgement, which names whatever is wrong.
    pub fn verdict(&self) -> (Verdict, Vec<String>) {
        let names: Vec<&str> =
            self.receivers.iter().map(|(name, _)| *name).chain([self.from]).collect();
        let verdict = self.ledger.verdict();
        let told = verdict.anomalies.iter().map(|it| it.describe(&names).to_string()).collect();
        (verdict, told)
    }

    /// Takes in what was said before now.
    fn hear_all(&mut self) {
        while let Ok((who, heard)) = self.heard.try_recv() {
            self.handle(who, heard);
        }
    }

    fn feed(&mut self) {
        let by = self.sender();
        let Some(send) = &mut self.send else { return };
        let most = self.last.unwrap_or(u64::MAX).min(self.acked + LINES_AHEAD);
        while self.fed < most {
            self.fed += 1;
            self.fed_ever = self.fed.max(self.fed_ever);
            let mark = Mark { by, number: self.fed };
            self.ledger.sent(self.start.elapsed(), mark);
            assert!(send.say(&text(self.fed)), "`tern send` ended by itself");
        }
        if self.last == Some(self.fed) {
            send.close();
        }
    }

    fn handle(&mut self, (role, life): Who, heard: Heard) {
        match (role, heard) {
            (Role::Send, Some(line)) => self.handle_answer(&line),
            (Role::Recv(receiver), Some(line)) => self.handle_message(receiver, life, &line),
            // Who was killed is taken out before its end is heard.
            (Role::Send, None) if self.send.is_some() => {
                assert!(self.last.is_some(), "`tern send` ended by itself: {}", self.progress());
                self.send_ended = true;
            }
            (Role::Send, None) => {}
            (Role::Recv(receiver), None) => {
                let is_killed = self.receivers[receiver].1.is_none();
                assert!(is_killed, "`tern recv` ended by itself: {}", self.progress());
            }
        }
    }

    fn handle_answer(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["acked", number, _, id] = words[..] else { panic!("not an ack: {line}") };
        let (number, id) = (number.parse().unwrap(), id.parse().unwrap());
        assert_eq!(number, self.acked + 1, "answers come in order");
        self.acked = number;
        let mark = Mark { by: self.sender(), number };
        self.ledger.acked(self.start.elapsed(), mark, id);
    }

    fn handle_message(&mut self, receiver: usize, life: u32, line: &str) {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = message["id"].as_str().unwrap().parse().unwrap();
        let number = message["text"].as_str().and_then(|text| text.strip_prefix("line "));
        let by = self.sender();
        let mark = number.map(|number| Mark { by, number: number.parse().unwrap() });
        self.shown += 1;
        let showing = Showing { device: DeviceNo(receiver), life, id, mark };
        self.ledger.showed(self.start.elapsed(), showing);
    }

    /// How far it is.
    pub fn progress(&self) -> String {
        let Self { fed, acked, shown, .. } = self;
        format!("fed {fed}, acked {acked}, shown {shown}")
    }
}

fn text(number: u64) -> String {
    format!("line {number}")
}
