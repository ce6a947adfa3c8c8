//! Pairs of devices talk in turns at a fixed rate, on an open loop: messages are due by a schedule
//! that no answer can delay, and each latency counts from the moment a message was due. The same
//! account is kept for every system.

use std::time::{Duration, Instant};

use tern_bench::error::BenchError;
use tern_bench::load::{Arrivals, Schedule};
use tern_bench::measure::curves::Curves;
use tern_bench::measure::latency::Latency;

use super::check;
use super::ledger::{Ledger, Receipt};
use crate::client::{Event, Load, Message};

/// Who talks, and when.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Pairs of devices.
    pub pairs: usize,
    /// Messages a second, of all.
    pub rate: f64,
    /// Bytes of content of each.
    pub bytes: usize,
    /// When the measured stretch begins, since the start.
    pub from: Duration,
    /// When it ends; messages go on a little longer, so that the last meet the same load.
    pub to: Duration,
    /// How long answers may take after the last message.
    pub patience: Duration,
    /// One seed gives one schedule.
    pub seed: u64,
}

/// Messages go on for this share of the measured stretch behind it.
const TAIL: f64 = 0.05;

/// What came of it.
pub struct Talked {
    /// The account.
    pub ledger: Ledger,
    /// From the due time to the ack.
    pub to_ack: Latency,
    /// From the due time until the other has it.
    pub to_receive: Latency,
    /// How late the load sent.
    pub lateness: Latency,
    /// Acks that came within the measured stretch.
    pub acked_within: u64,
    /// Messages received within it.
    pub received_within: u64,
    /// Of each device, when it had received a message first that had been due after `mark`.
    pub back: Vec<Option<Instant>>,
    start: Instant,
}

impl Talk {
    /// When the last message is due.
    fn end(&self) -> Duration {
        self.to + (self.to - self.from).mul_f64(TAIL)
    }

    /// Has connected devices talk from `start` on. `mark` is a moment that returns count from.
    ///
    /// # Errors
    /// When something goes wrong; not when messages are missing: that is told.
    pub fn run(
        &self,
        load: &mut dyn Load,
        start: Instant,
        mark: impl Fn() -> Option<Instant>,
    ) -> Result<Talked, BenchError> {
        let mut talked = Talked::new(2 * self.pairs, start);
        let mut schedule = Schedule::new(Arrivals::Poisson, self.rate, self.seed);
        while start.elapsed() < self.end() {
            self.send_due(load, &mut schedule, &mut talked);
            load.turn()?;
            talked.hear(load, self, &mark)?;
            load.wait(start + schedule.due().min(self.end()))?;
        }
        // What was due while the load itself stood still is sent all the same, and counts as late.
        self.send_due(load, &mut schedule, &mut talked);
        let deadline = Instant::now() + self.patience;
        while !talked.ledger.is_settled() && Instant::now() < deadline {
            load.turn()?;
            talked.hear(load, self, &mark)?;
            load.wait(deadline.min(Instant::now() + STEP))?;
        }
        Ok(talked)
    }

    fn send_due(&self, load: &mut dyn Load, schedule: &mut Schedule, talked: &mut Talked) {
        let now = talked.start.elapsed();
        while schedule.due() <= now.min(self.end()) {
            let due = schedule.due();
            if self.is_measured(due) {
                talked.lateness.record(talked.start.elapsed() - due);
            }
            let sent = talked.ledger.sent() as usize;
            let from = 2 * (sent % self.pairs) + sent / self.pairs % 2;
            let tag = talked.ledger.send(from, due);
            load.send(from, Message { to: from ^ 1, tag, bytes: self.bytes });
            schedule.advance();
        }
    }

    fn is_measured(&self, due: Duration) -> bool {
        (self.from..self.to).contains(&due)
    }
}

/// Between two looks whether all is settled.
const STEP: Duration = Duration::from_millis(50);

impl Talked {
    fn new(devices: usize, start: Instant) -> Self {
        Self {
            ledger: Ledger::new(devices),
            to_ack: Latency::default(),
            to_receive: Latency::default(),
            lateness: Latency::default(),
            acked_within: 0,
            received_within: 0,
            back: vec![None; devices],
            start,
        }
    }

    fn hear(
        &mut self,
        load: &mut dyn Load,
        talk: &Talk,
        mark: &impl Fn() -> Option<Instant>,
    ) -> Result<(), BenchError> {
        while let Some((device, at, event)) = load.poll_event() {
            check(device, &event)?;
            let since_start = at.saturating_duration_since(self.start);
            match event {
                Event::Acked(tag) => {
                    self.acked_within += u64::from(talk.is_measured(since_start));
                    if let Some(due) = self.ledger.ack(tag).filter(|due| talk.is_measured(*due)) {
                        self.to_ack.record(since_start.saturating_sub(due));
                    }
                }
                Event::Received(tag) => match self.ledger.receive(tag) {
                    Some(Receipt::First(due)) => {
                        self.received_within += u64::from(talk.is_measured(since_start));
                        if talk.is_measured(due) {
                            self.to_receive.record(since_start.saturating_sub(due));
                        }
                        let is_after = mark().is_some_and(|mark| self.start + due >= mark);
                        if is_after {
                            self.back[device].get_or_insert(at);
                        }
                    }
                    Some(Receipt::Again) => {}
                    None => {
                        let what = format!("device {device} got message {tag}, which nobody sent");
                        return Err(BenchError::Load(what));
                    }
                },
                Event::Online | Event::Lost | Event::Failed(_) => {}
            }
        }
        Ok(())
    }

    /// The latencies, as they are kept and drawn: names of one kind share a plot.
    pub fn curves(&self, kind: &str) -> Curves {
        let mut curves = Curves::default();
        curves.add(&format!("{kind}: send to ack"), self.to_ack.clone());
        curves.add(&format!("{kind}: send to receive"), self.to_receive.clone());
        curves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Answers at once and delivers, but every tenth message twice and every hundredth never.
    #[derive(Default)]
    struct Echo(VecDeque<(usize, Instant, Event)>);

    impl Load for Echo {
        fn connect(&mut self) -> Result<(), BenchError> {
            Ok(())
        }

        fn send(&mut self, from: usize, message: Message) {
            let Message { to, tag, .. } = message;
            let mut tell = |device, event| self.0.push_back((device, Instant::now(), event));
            tell(from, Event::Acked(tag));
            if tag % 100 != 99 {
                tell(to, Event::Received(tag));
            }
            if tag % 10 == 0 {
                tell(to, Event::Received(tag));
            }
        }

        fn turn(&mut self) -> Result<(), BenchError> {
            Ok(())
        }

        fn poll_event(&mut self) -> Option<(usize, Instant, Event)> {
            self.0.pop_front()
        }

        fn wait(&mut self, _until: Instant) -> Result<(), BenchError> {
            std::thread::yield_now();
            Ok(())
        }
    }

    #[test]
    fn what_is_lost_and_doubled_is_told() {
        let talk = Talk {
            pairs: 3,
            rate: 2_000.0,
            bytes: 100,
            from: Duration::from_millis(100),
            to: Duration::from_millis(300),
            patience: Duration::from_millis(10),
            seed: 1,
        };
        let start = Instant::now();
        let talked = talk.run(&mut Echo::default(), start, || Some(start)).expect("it talks");
        let sent = talked.ledger.sent();
        assert!(sent > 200, "{sent}");
        assert_eq!(talked.ledger.lost(), sent / 100);
        let doubled = talked.ledger.figures().iter().find(|f| f.name == "doubled").unwrap().value;
        assert_eq!(doubled as u64, sent.div_ceil(10));
        assert!(talked.to_ack.count() > 0 && talked.to_ack.count() < sent);
        assert!(talked.back.iter().all(Option::is_some));
    }
}
