//! D-06: what phones do to a device's own numbers. Its clock goes back and forth, its uptime
//! begins again, and its whole image is copied: then two processes believe to be one device.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use rustix::process::Signal;
use tern_protocol::{Code, Frame};

use crate::clock::Clock;
use crate::support::commands::Talking;
use crate::support::dial::Dial;
use crate::support::peer::{PATIENCE, Peer};
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Server, tern, tern_by};
use crate::support::words;

/// Rounds in which both copies send, one after the other and then at once.
const ROUNDS: u32 = 4;

/// What an old key gets, asked again by the same device under a newer epoch.
#[derive(Debug, PartialEq)]
enum Said {
    Acked(u64),
    Refused(Code),
}

fn ask(peer: &mut Peer, frame: &[u8], counter: u32) -> Said {
    peer.say(frame);
    loop {
        match peer.next().frame() {
            Frame::SendAck(ack) if ack.counter.get() == counter => {
                return Said::Acked(ack.id.get());
            }
            Frame::SendRefused(no) if no.counter.get() == counter => {
                return Said::Refused(Code(no.code.get()));
            }
            _ => {}
        }
    }
}

#[test]
fn d_06_an_old_key_gets_its_first_ack_and_never_a_second_message() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), ANY_PORT, &[]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let channel = ann.channel_with(&bob);
    let (mut first, before) = Peer::device(server.address, &Dial::default(), &ann);
    for counter in 1..=5 {
        let id = first.send(channel, before.epoch.get(), counter, b"from the image");
        assert_eq!(id, u64::from(counter));
    }
    drop(first);
    let (mut copy, after) = Peer::device(server.address, &Dial::default(), &ann);
    let (old, new) = (before.epoch.get(), after.epoch.get());
    assert!(new > old);
    assert_eq!(copy.send(channel, new, 1, b"from the copy"), 6);
    let mut cases = 0;
    for counter in 1..=5 {
        let again = words::send(channel, old, counter, b"from the image");
        assert_eq!(ask(&mut copy, &again, counter), Said::Acked(counter.into()), "its first ack");
        let other = words::send(channel, old, counter, b"something else");
        assert_eq!(ask(&mut copy, &other, counter), Said::Refused(Code::KeyConflict));
        cases += 2;
    }
    let late = words::send(channel, old, 6, b"never sent before");
    assert_eq!(ask(&mut copy, &late, 6), Said::Refused(Code::KeyClosed), "and for good");
    let ahead = words::send(channel, new + 1, 1, b"from tomorrow");
    assert_eq!(ask(&mut copy, &ahead, 1), Said::Refused(Code::KeyAhead));
    assert_eq!(copy.send(channel, new, 2, b"and on"), 7, "nothing of this took an id");
    println!("TEST D-06 keys cases={} n=7 lost=0 dup=0", cases + 2);
    server.stop();
}

/// A device's folder as a restored backup has it.
fn copy_profiles(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("profiles")).unwrap();
    for file in std::fs::read_dir(from.join("profiles")).unwrap().flatten() {
        std::fs::copy(file.path(), to.join("profiles").join(file.file_name())).unwrap();
    }
}

/// One of the copies: a folder of its own, and clocks of its own.
struct Copy {
    folder: PathBuf,
    clock: Clock,
    server: String,
}

impl Copy {
    /// Sends `first`, is acked, and sends `then`, which is on its disk and gets no answer.
    fn is_copied_in_mid_send(&self, server: &Server, first: &str, then: &str) {
        let arguments = ["send", "--as", "ann", "--to", "bob", "--server", &self.server, "--stdin"];
        let (ear, heard) = sync_channel(8);
        let mut send = Talking::start(&self.folder, &arguments, (), ear);
        assert!(send.say(first));
        let ((), ack) = heard.recv().unwrap();
        assert!(ack.is_some_and(|line| line.starts_with("acked 1 ")));
        server.signal(Signal::STOP);
        assert!(send.say(then));
        let (store, start) = (self.folder.join("profiles/ann.redb"), Instant::now());
        let is_there = |bytes: Vec<u8>| bytes.windows(then.len()).any(|at| at == then.as_bytes());
        while !is_there(std::fs::read(&store).unwrap()) {
            assert!(start.elapsed() < PATIENCE, "it is not written down");
            std::thread::yield_now();
        }
        send.kill();
        server.signal(Signal::CONT);
    }

    fn send(&self, text: &str, timeout: &str) -> Output {
        let to = ["send", "--as", "ann", "--to", "bob", "--server", &self.server];
        let arguments = [&to[..], &["--timeout", timeout, text]].concat();
        let before = self.clock.before();
        let by: Vec<&str> = before.iter().map(String::as_str).collect();
        tern_by(&by, &self.folder, &arguments).output().unwrap()
    }

    /// Whether it was acked; if not, it waits in this copy's outbox.
    fn sends(&self, text: &str) -> bool {
        self.send(text, "20s").status.success()
    }
}

#[test]
fn d_06_two_copies_of_a_device_with_clocks_gone_wrong_lose_and_repeat_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &[]);
    server.user("ann");
    server.user("bob");
    let listen = server.address.to_string();
    let one = Copy { folder: folder.path().join("one"), clock: Clock::new(), server: listen };
    let two =
        Copy { folder: folder.path().join("two"), clock: Clock::new(), server: one.server.clone() };
    copy_profiles(&data, &one.folder);
    // What was acked, and what was not before its copy was fenced: it may be refused for good.
    let (mut acked, mut fenced) = (vec!["first".to_owned()], Vec::new());
    // The image is taken while a message that has its key waits for its answer: both copies will
    // send it again. (One that was never given a key is each copy's own.)
    acked.push("in the image".to_owned());
    one.is_copied_in_mid_send(&server, "first", "in the image");
    copy_profiles(&one.folder, &two.folder);
    for round in 0..scaled(ROUNDS) {
        let years = [0, 10, -10, 3][round as usize % 4];
        for (name, copy) in [("one", &one), ("two", &two)] {
            copy.clock.boot(if name == "one" { years } else { -years });
            acked.push(format!("{name} {round}"));
            let sent = copy.sends(&acked[acked.len() - 1]);
            assert!(sent, "alone it is not disturbed: {}", server.errors());
        }
    }
    for round in 0..scaled(ROUNDS) {
        let both = ["one", "two"].map(|name| format!("{name} at once {round}"));
        let done = std::thread::scope(|scope| {
            let other = scope.spawn(|| two.sends(&both[1]));
            [one.sends(&both[0]), other.join().unwrap()]
        });
        for (text, sent) in both.into_iter().zip(done) {
            if sent { acked.push(text) } else { fenced.push(text) }
        }
    }
    for (name, copy) in [("one", &one), ("two", &two)] {
        acked.push(format!("{name} last"));
        assert!(copy.sends(&acked[acked.len() - 1]), "with all that still waited");
    }
    let appended = server.figures().get("sends_appended") as usize;
    let count = appended.to_string();
    let bob = ["recv", "--as", "bob", "--server", &one.server, "--count", &count];
    let shown = tern(&data, &[&bob[..], &["--timeout", "60s"]].concat()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let got: Vec<&str> = shown.lines().map(|line| line.splitn(7, ' ').nth(6).unwrap()).collect();
    let times = |text: &String| got.iter().filter(|got| *got == text).count();
    let lost = acked.iter().filter(|text| times(text) == 0).count();
    let again = acked.iter().chain(&fenced).filter(|text| times(text) > 1).count();
    let later = fenced.iter().filter(|text| times(text) == 1).count();
    println!(
        "TEST D-06 copies n={appended} acked={} lost={lost} dup={again} fenced={} \
         of_these_sent_later={later} repeats={}",
        acked.len(),
        fenced.len(),
        server.figures().get("sends_duplicate"),
    );
    assert_eq!((lost, again), (0, 0), "{got:?}");
    assert_eq!(got.len(), acked.len() + later, "and nothing else is in the log");
    server.stop();
}
