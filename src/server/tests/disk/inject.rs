//! B-05, B-07 on the real binary: strace makes single system calls fail. A failed sync or write is
//! final, is told, and nothing is acked after it; a call that was only interrupted is made again;
//! want of room passes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;
use tern_protocol::Code;

use crate::full::OPTIONS;
use crate::support::peer::PATIENCE;
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Account, Server};
use crate::writer::{Book, Writer, judge};

/// Acked messages after which a run that meets no fault ends.
const ENOUGH: usize = 200;

/// The n-th calls that fail, each in a run of its own; `TERN_SOAK` makes them denser.
const EVERY: [u32; 5] = [1, 2, 4, 7, 12];

/// Two users of a folder, and what was acked in it.
struct Stage {
    data: PathBuf,
    ann: Account,
    bob: Account,
    book: Book,
    _folder: TempDir,
}

/// How a run under strace ended.
#[derive(PartialEq, Eq, Debug)]
enum Outcome {
    /// The server did not start, and said why.
    Refused,
    /// The device could not log in.
    NoLogin,
    /// The log stopped, as `tern status` tells.
    Stopped,
    /// All went well.
    Unharmed,
}

impl Stage {
    /// Why not, where strace is not here or may not trace.
    fn new(id: &str) -> Option<Self> {
        let tried = Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).output();
        let why = match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            println!("SKIPPED {id}: strace can't trace: {why}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let server = Server::start(&data, ANY_PORT, &OPTIONS);
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        server.stop();
        Some(Self { data, ann, bob, book: Book::default(), _folder: folder })
    }

    /// A run in which calls fail as `inject` says.
    fn run(&mut self, inject: &str) -> (Outcome, u64) {
        let call = inject.split(':').next().expect("a call comes first");
        let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
        let by = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let server = match Server::try_start(&by, &self.data, ANY_PORT, 1, &OPTIONS) {
            Ok(server) => server,
            Err(said) => {
                assert!(said.contains("exit status"), "it ended by itself: {said}");
                return (Outcome::Refused, 0);
            }
        };
        let mut writer = match self.log_in(&server) {
            Ok(writer) => writer,
            Err(_) => return (self.told(server), 0),
        };
        let goal = self.book.acked.len() + ENOUGH;
        let ended = writer.write_until(&mut self.book, |writer, book| {
            writer.refusals(Code::ShardStopped) > 0 || book.acked.len() >= goal
        });
        assert!(ended, "{inject}: neither acked nor refused: {:?}", writer.refused);
        let full = writer.refusals(Code::DiskFull);
        if writer.refusals(Code::ShardStopped) == 0 {
            server.kill();
            return (Outcome::Unharmed, full);
        }
        // Nothing is acked any more, however often it is asked for.
        let (acked, stopped) = (self.book.acked.len(), writer.refusals(Code::ShardStopped));
        writer.write_until(&mut self.book, |writer, _| {
            writer.refusals(Code::ShardStopped) > stopped + 100
        });
        assert_eq!(self.book.acked.len(), acked, "{inject}: acked after a failed sync");
        assert_eq!(self.told(server), Outcome::NoLogin);
        (Outcome::Stopped, full)
    }

    /// Logs in; want of room passes.
    fn log_in(&self, server: &Server) -> Result<Writer, String> {
        let start = Instant::now();
        loop {
            match Writer::start(server.address, &self.ann, &self.bob) {
                Err(why) if why.contains("DISK_FULL") && start.elapsed() < PATIENCE => {}
                result => return result,
            }
        }
    }

    /// A server that refuses says why.
    fn told(&self, server: Server) -> Outcome {
        let status = server.tern(&["status"]);
        let told = ["takes no more messages", "no room"].iter().any(|text| status.contains(text));
        assert!(told, "nothing is told: {status}");
        server.kill();
        Outcome::NoLogin
    }

    /// A start without faults, which must have all that was acked.
    fn judge(&self) -> u64 {
        let server = Server::start(&self.data, ANY_PORT, &OPTIONS);
        let verdict = judge(server.address, &self.bob, &self.ann, &self.book);
        assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
        server.stop();
        verdict.lost
    }
}

fn every() -> Vec<u32> {
    if scaled(1) == 1 { EVERY.to_vec() } else { (1..=4 * scaled(1)).collect() }
}

/// Runs with each fault in turn on one folder.
fn faults(id: &str, call: &str, error: &str, may: &[Outcome]) {
    let Some(mut stage) = Stage::new(id) else { return };
    let mut seen = Vec::new();
    for n in every() {
        let (outcome, _) = stage.run(&format!("{call}:error={error}:when={n}"));
        assert!(may.contains(&outcome), "{call} {error} {n}: {outcome:?}");
        stage.judge();
        seen.push(outcome);
    }
    let count = |wanted| seen.iter().filter(|outcome| **outcome == wanted).count();
    println!(
        "TEST {id} call={call} error={error} n={} refused={} no_login={} stopped={} unharmed={} \
         acked={} lost=0",
        seen.len(),
        count(Outcome::Refused),
        count(Outcome::NoLogin),
        count(Outcome::Stopped),
        count(Outcome::Unharmed),
        stage.book.acked.len(),
    );
    assert!(count(Outcome::Stopped) > 0, "no run met the fault while it served");
}

#[test]
fn b_07_failed_syncs() {
    use Outcome::{NoLogin, Refused, Stopped};
    faults("B-07", "fdatasync", "EIO", &[Refused, NoLogin, Stopped]);
}

#[test]
fn b_05_failed_writes() {
    use Outcome::{NoLogin, Refused, Stopped, Unharmed};
    faults("B-05", "pwrite64", "EIO", &[Refused, NoLogin, Stopped, Unharmed]);
}

#[test]
fn b_05_interrupted_calls_are_made_again() {
    for call in ["pwrite64", "fdatasync", "fallocate"] {
        let Some(mut stage) = Stage::new("B-05") else { return };
        let (outcome, full) = stage.run(&format!("{call}:error=EINTR:when=1+3"));
        assert_eq!((outcome, full), (Outcome::Unharmed, 0), "{call}");
        stage.judge();
        let acked = stage.book.acked.len();
        println!("TEST B-05 call={call} error=EINTR n={acked} refused=0 lost=0");
    }
}

#[test]
fn b_05_want_of_room_passes() {
    let Some(mut stage) = Stage::new("B-05") else { return };
    // The spare segment is missing three times, or batches find no room; then there is some.
    for inject in ["fallocate:error=ENOSPC:when=2..4", "pwrite64:error=ENOSPC:when=9..12"] {
        let (outcome, full) = stage.run(inject);
        assert_eq!(outcome, Outcome::Unharmed, "{inject}");
        stage.judge();
        let acked = stage.book.acked.len();
        println!("TEST B-05 inject={inject} n={acked} full={full} lost=0");
    }
}
