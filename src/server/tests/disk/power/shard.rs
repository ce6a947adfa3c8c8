//! B-07: a sync of one shard's log fails once, and the disk forgets what it was to keep. That
//! shard acks nothing more and says why; the others go on in the same process; and the next start
//! has everything that was acked.

use tern_core::placement::{Placement, ShardId};
use tern_protocol::Code;

use super::plug;
use crate::support::random::Random;
use crate::support::server::{ANY_PORT, Account, Server};
use crate::writer::{Book, Writer, judge};

/// Shards of a new folder.
const SHARDS: u16 = 4;

/// Users made at most until some are found that live where they should.
const USERS_MAX: u32 = 64;

/// Messages acked in each phase, of each writer.
const MESSAGES: usize = 100;

/// Answers that nothing is taken any more, after which none is expected to be taken.
const REFUSALS: u64 = 100;

/// Two users whose home is none of the failing shard's, and what was acked between them.
struct Pair {
    writer: Account,
    reader: Account,
    book: Book,
}

/// Users by where they live.
struct People {
    /// Their channel lies in the failing shard.
    struck: Pair,
    /// Theirs does not.
    spared: Pair,
    /// Lives in the failing shard.
    homeless: Account,
}

impl People {
    fn make(server: &Server, failing: ShardId) -> Self {
        let placement = Placement::new(SHARDS, 1);
        let (mut others, mut homeless) = (Vec::new(), None);
        for number in 0..USERS_MAX {
            let account = server.user(&format!("user-{number}"));
            if placement.home_of(account.uin) == failing {
                homeless = Some(account);
            } else {
                others.push(account);
            }
            let is_struck = |pair: &[Account]| {
                placement.shard_of_channel(pair[0].channel_with(&pair[1])) == failing
            };
            let mut pairs = others.chunks_exact(2).map(|pair| (is_struck(pair), pair));
            let struck = pairs.clone().find(|(is_struck, _)| *is_struck).map(Pair::of);
            let spared = pairs.find(|(is_struck, _)| !is_struck).map(Pair::of);
            if let (Some(homeless), Some(struck), Some(spared)) = (homeless, struck, spared) {
                return Self { struck, spared, homeless };
            }
        }
        panic!("{USERS_MAX} users and no such pairs");
    }
}

impl Pair {
    fn of((_, pair): (bool, &[Account])) -> Self {
        Self { writer: pair[0], reader: pair[1], book: Book::default() }
    }

    fn writer(&self, server: &Server) -> Writer {
        Writer::start(server.address, &self.writer, &self.reader)
            .unwrap_or_else(|why| panic!("{why}: {}", server.errors()))
    }

    /// Writes some messages, all of which are acked.
    fn write(&mut self, writer: &mut Writer) {
        let goal = self.book.acked.len() + MESSAGES;
        let acked = writer.write_until(&mut self.book, |_, book| book.acked.len() >= goal);
        assert!(acked, "{:?}", writer.refused);
    }

    fn judge(&self, server: &Server) {
        let verdict = judge(server.address, &self.reader, &self.writer, &self.book);
        assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
    }
}

#[test]
fn b_07_a_log_that_fails_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(mut disk) = plug("B-07", &data) else { return };
    let mut random = Random::seeded();
    let failing = ShardId(random.below(usize::from(SHARDS)) as u16);
    let options = ["--shards", "4", "--sends-per-second", "1000000"];
    let server = Server::start(&data, ANY_PORT, &options);
    let People { mut struck, mut spared, homeless } = People::make(&server, failing);
    let (mut stops, mut goes_on) = (struck.writer(&server), spared.writer(&server));
    struck.write(&mut stops);
    spared.write(&mut goes_on);

    disk.fail_sync_in(&format!("shard-{:02}", failing.0));
    assert!(stops.write_until(&mut struck.book, |writer, _| writer.stopped()), "no refusal");
    let (acked, refused) = (struck.book.acked.len(), stops.refusals(Code::ShardStopped));
    let enough = |writer: &Writer, _: &Book| {
        writer.refusals(Code::ShardStopped) >= refused + REFUSALS || writer.ended()
    };
    assert!(stops.write_until(&mut struck.book, enough), "{:?}", stops.refused);
    assert!(!stops.ended(), "a log that failed ends no connection");
    assert_eq!(struck.book.acked.len(), acked, "acked after a failed sync");
    spared.write(&mut goes_on);
    let late = Writer::start(server.address, &homeless, &spared.reader);
    assert!(late.as_ref().is_err_and(|why| why.contains("SHARD_STOPPED")), "{:?}", late.err());
    let status = server.tern(&["status"]);
    let trouble = format!("TROUBLE the log of shard {} takes no more messages", failing.0);
    assert!(status.contains(&trouble), "{status}");
    assert_eq!(server.figures().get("logs_failed_now"), 1);
    spared.judge(&server);
    struck.judge(&server);

    // The cache of the kernel had what the disk never got.
    let refused = stops.refusals(Code::ShardStopped);
    drop((stops, goes_on));
    server.kill();
    disk.restart(&mut random);
    let server = Server::start(&data, ANY_PORT, &options);
    assert_eq!(server.figures().get("logs_failed_now"), 0, "{}", server.tern(&["status"]));
    for pair in [&mut struck, &mut spared] {
        pair.judge(&server);
        pair.write(&mut pair.writer(&server));
        pair.judge(&server);
    }
    assert!(Writer::start(server.address, &homeless, &spared.reader).is_ok());
    println!(
        "TEST B-07 shard={} seed={} n={} refused={refused} lost=0 dup=0",
        failing.0,
        random.seed,
        struck.book.acked.len() + spared.book.acked.len(),
    );
    server.stop();
}
