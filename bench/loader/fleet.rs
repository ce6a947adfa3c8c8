//! The processes of a load, as their parent has them.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::{Done, Order, Word};
use crate::error::{BenchError, Tried};
use crate::measure::curves::Curves;
use crate::progress::Progress;

/// How long processes may take until they are ready: a million logins take minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Words that may wait to be heard.
const WORDS: usize = 1_024;

/// The name of the subcommand that a process of the load is started with.
pub const SUBCOMMAND: &str = "load";

/// Some processes with one task each.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    words: Receiver<(usize, Word)>,
    progress: Progress,
    total: usize,
}

#[derive(Debug)]
struct Member {
    child: Child,
    input: ChildStdin,
    done: usize,
    is_ready: bool,
    result: Option<Done>,
}

impl Fleet {
    /// Starts a process for each order and waits until all are ready. `total` is how much work
    /// there is until then, for signs of life.
    ///
    /// # Errors
    /// When one of them can't.
    pub fn prepare(orders: &[Order], what: &'static str, total: usize) -> Result<Self, BenchError> {
        let (speak, words) = sync_channel(WORDS);
        let members = orders.iter().enumerate();
        let members = members.map(|(index, order)| Member::start(index, order, speak.clone()));
        let members = members.collect::<Result<_, _>>()?;
        let mut fleet = Self { members, words, progress: Progress::new(what), total };
        fleet.wait_until_ready()?;
        Ok(fleet)
    }

    /// Their numbers, for the kernel's books.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.child.id()).collect()
    }

    /// Has all of them start the next stretch.
    ///
    /// # Errors
    /// When one is gone.
    pub fn start(&mut self, what: &'static str, total: usize) -> Result<Instant, BenchError> {
        (self.progress, self.total) = (Progress::new(what), total);
        for member in &mut self.members {
            (member.is_ready, member.done) = (false, 0);
            member.input.write_all(b"start\n").tried("start the load")?;
        }
        Ok(Instant::now())
    }

    /// Hears them until all are ready for the next stretch.
    ///
    /// # Errors
    /// When one fails, or takes too long.
    pub fn wait_until_ready(&mut self) -> Result<(), BenchError> {
        self.wait_until_ready_within(PATIENCE)
    }

    /// The same, with another patience.
    ///
    /// # Errors
    /// When one fails, or takes too long.
    pub fn wait_until_ready_within(&mut self, patience: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + patience;
        while !self.members.iter().all(|member| member.is_ready) {
            if !self.hear(deadline)? {
                return Err(BenchError::Load("the load does not get ready".to_owned()));
            }
        }
        Ok(())
    }

    /// Hears them until this moment.
    ///
    /// # Errors
    /// When one fails.
    pub fn wait_until(&mut self, until: Instant) -> Result<(), BenchError> {
        while self.hear(until)? {}
        Ok(())
    }

    /// Waits until all are done: what they saw together, and each of its histograms by name.
    ///
    /// # Errors
    /// When one fails, or takes too long.
    pub fn finish(mut self, patience: Duration) -> Result<(Done, Curves), BenchError> {
        let deadline = Instant::now() + patience;
        while self.members.iter().any(|member| member.result.is_none()) {
            if !self.hear(deadline)? {
                return Err(BenchError::Load("the load does not end".to_owned()));
            }
        }
        let (mut all, mut curves) = (Done::default(), Curves::default());
        let count = self.members.len() as f64;
        for done in self.members.iter_mut().filter_map(|member| member.result.take()) {
            curves.merge(&Curves::parse(&done.log)?);
            all.sent += done.sent;
            all.acked += done.acked;
            all.received += done.received;
            all.resumed += done.resumed;
            all.acked_within += done.acked_within;
            all.counts.extend(done.counts);
            let lost = done.lost.map(|lost| lost / count);
            all.lost = lost.map(|lost| lost + all.lost.unwrap_or(0.0));
        }
        Ok((all, curves))
    }

    /// Hears one word; whether there was one in time.
    fn hear(&mut self, until: Instant) -> Result<bool, BenchError> {
        let rest = until.saturating_duration_since(Instant::now());
        let (index, word) = match self.words.recv_timeout(rest) {
            Ok(word) => word,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(BenchError::Load("the load ended before its time".to_owned()));
            }
        };
        let member = &mut self.members[index];
        match word {
            Word::Progress(done) => member.done = done,
            Word::Ready => member.is_ready = true,
            Word::Done(done) => member.result = Some(done),
            Word::Failed(why) => return Err(BenchError::Load(why)),
        }
        let done = self.members.iter().map(|member| member.done).sum();
        self.progress.show(done, self.total);
        Ok(true)
    }
}

impl Member {
    fn start(
        index: usize,
        order: &Order,
        speak: SyncSender<(usize, Word)>,
    ) -> Result<Self, BenchError> {
        let program = std::env::current_exe().tried("this program")?;
        let mut command = command(program, order.task.gives_way());
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().tried(format!("start a process of the load by {name}"))?;
        let mut input = child.stdin.take().expect("it was asked for");
        let output = child.stdout.take().expect("it was asked for");
        let mut line = serde_json::to_string(order).tried("an order as JSON")?;
        line.push('\n');
        input.write_all(line.as_bytes()).tried("order the load")?;
        std::thread::spawn(move || {
            let mut is_done = false;
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let word = serde_json::from_str(&line);
                let word = word.unwrap_or_else(|_| Word::Failed(format!("it said: {line}")));
                is_done |= matches!(word, Word::Done(_) | Word::Failed(_));
                if speak.send((index, word)).is_err() {
                    return;
                }
            }
            if !is_done {
                let _ = speak.send((index, Word::Failed("a process of the load died".to_owned())));
            }
        });
        Ok(Self { child, input, done: 0, is_ready: false, result: None })
    }
}

/// This program, or the one of util-linux that makes it run only where nobody else wants to: a
/// process that merely is nice may still run to the end of its slice of time while others wait.
fn command(program: PathBuf, gives_way: bool) -> Command {
    if !gives_way {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(program);
    command
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail if it has ended, and then nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
