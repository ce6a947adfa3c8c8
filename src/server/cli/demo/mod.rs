//! `tern demo`: everything at once for a newcomer, without any set-up.
//!
//! It starts a server as a process of its own on a temporary data folder, and two devices, each a
//! process too, behind links that lose, delay, reorder and duplicate packets. While both send,
//! their addresses change, and the server and one device are killed and started again. Then it
//! waits until everything has come, and tells from a [`ledger`] which promises held.
//!
//! Reading order: [`stage`] is the run, [`script`] what happens when, [`ledger`] the judge; the bad
//! network is that of `badlink`. The devices' side is [`actor`].

pub(crate) mod actor;
mod words;

mod children;
mod device;

mod script;
mod stage;

mod ledger;

mod report;
mod screen;
mod story;

use std::path::Path;
use std::time::Duration;

use super::{Exit, fail};
use ledger::Verdict;
use report::Findings;
use screen::Screen;
use stage::{End, NAMES, Plan, Stage};
use tern_netmodel::Conditions;

/// Of 100 packets that come out, how many come out twice.
const DUPLICATES_PERCENT: f64 = 1.5;

/// A packet takes up to this much less or more than the delay, in ms: packets of one flight
/// overtake each other often, and no round trip overtakes another.
const JITTER_MS_MAX: u64 = 20;

/// The command line of `tern demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Decides which packets are lost, late or doubled
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Messages that each of the two devices sends
    #[arg(long, value_name = "MESSAGES", default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    messages: u32,
    /// Time over which they are sent, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(4..=30))]
    seconds: u64,
    /// Of 100 packets, how many are lost, in each direction
    #[arg(long, value_name = "PERCENT", default_value_t = 20,
        value_parser = clap::value_parser!(u8).range(0..=50))]
    loss: u8,
    /// Time that a packet takes, in ms
    #[arg(long, value_name = "MS", default_value_t = 50,
        value_parser = clap::value_parser!(u64).range(0..=500))]
    delay: u64,
    /// Let all messages travel by stream, none by QUIC datagram
    #[arg(long)]
    streams: bool,
    /// Write what passes both ends of both links into captures, with the TLS secrets beside them,
    /// for wirecat and Wireshark; keeps the folder
    #[arg(long)]
    capture: bool,
    /// Keep the data folder and the logs of all processes
    #[arg(long)]
    keep: bool,
}

impl Args {
    fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            datagrams: !self.streams,
            capture: self.capture,
            messages: self.messages,
            sending: Duration::from_secs(self.seconds),
            weather: Conditions {
                loss_percent: f64::from(self.loss),
                duplicate_percent: DUPLICATES_PERCENT,
                delay_ms: self.delay,
                jitter_ms: self.delay.min(JITTER_MS_MAX),
                ..Conditions::default()
            },
        }
    }
}

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Exit {
    let folder = match tempfile::Builder::new().prefix("tern-demo-").tempdir() {
        Ok(folder) => folder,
        Err(error) => return fail(Exit::Failed, format!("no temporary folder: {error}")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (exit, is_telling) = match runtime {
        Ok(runtime) => runtime.block_on(play(args, folder.path())),
        Err(error) => (fail(Exit::Failed, error), false),
    };
    if is_telling || args.keep || args.capture {
        let kept = folder.keep();
        return fail(exit, format!("data and logs are kept in {}", kept.display()));
    }
    exit
}

/// How it ended, and whether the folder tells why it went wrong.
async fn play(args: &Args, folder: &Path) -> (Exit, bool) {
    let mut screen = Screen::new();
    screen.text(&introduction(args));
    let mut stage = match Stage::new(args.plan(), folder, screen) {
        Ok(stage) => stage,
        Err(error) => return (fail(Exit::Failed, error), false),
    };
    let end = stage.run().await;
    let (verdict, counts) = (stage.verdict(), stage.counts());
    let findings = Findings { seed: args.seed, names: &NAMES, verdict: &verdict, counts };
    stage.screen().text(&findings.table());
    let exit = judge(&end, &verdict);
    if exit == Exit::Ok {
        stage.screen().text("\n  Every promise held.\n\n");
    }
    stage.screen().text(&findings.line());
    (exit, exit != Exit::Ok && !matches!(end, End::Interrupted))
}

fn introduction(args: &Args) -> String {
    format!(
        "Tern on a bad day: two devices, each behind a link of its own that loses {} % of all\n\
         packets in both directions, delays them by {} ms, and reorders and doubles some.\n\n",
        args.loss, args.delay
    )
}

/// How the command ends, and why if not well.
fn judge(end: &End, verdict: &Verdict) -> Exit {
    let broken = verdict.anomalies.len();
    match end {
        End::Settled if broken == 0 => Exit::Ok,
        End::Settled => fail(Exit::Failed, format!("{broken} times a promise was broken")),
        End::TimedOut => {
            fail(Exit::Timeout, format!("time is up, and {broken} things are missing or wrong"))
        }
        End::Interrupted => fail(Exit::Failed, "interrupted before everything had come"),
        End::Trouble(trouble) => fail(Exit::Failed, trouble),
    }
}
