//! What happens when: the steps of a run, decided before it begins.

use std::collections::VecDeque;
use std::time::Duration;

use super::ledger::DeviceNo;

/// How long the server or a device stays dead before it is started again: long enough for the
/// others to have packets under way to it.
const DEAD: Duration = Duration::from_secs(1);

/// The parts of the sending time after which each bad thing happens.
mod at {
    pub(super) const FORGET_BINDING: f64 = 0.20;
    pub(super) const CHANGE_ADDRESS: f64 = 0.35;
    pub(super) const KILL_SERVER: f64 = 0.50;
    pub(super) const KILL_DEVICE: f64 = 0.75;
}

/// One thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A device sends its next message.
    Send(DeviceNo),
    /// The NAT before a device forgets its binding: the server sees another address.
    ForgetBinding(DeviceNo),
    /// A device moves to another socket by itself.
    ChangeAddress(DeviceNo),
    /// `kill -9` the server.
    KillServer,
    /// Start it again, on the same data and port.
    StartServer,
    /// `kill -9` a device's process.
    KillDevice(DeviceNo),
    /// Start it again, on the same profile.
    StartDevice(DeviceNo),
}

/// The steps of a run with their times, in order.
#[derive(Clone, Debug)]
pub struct Script(VecDeque<(Duration, Step)>);

impl Script {
    /// Two devices send `messages` each, evenly over the time `sending`; meanwhile everything
    /// bad happens once.
    pub fn new(messages: u32, sending: Duration) -> Self {
        let (first, second) = (DeviceNo(0), DeviceNo(1));
        let mut steps = vec![
            (sending.mul_f64(at::FORGET_BINDING), Step::ForgetBinding(first)),
            (sending.mul_f64(at::CHANGE_ADDRESS), Step::ChangeAddress(second)),
            (sending.mul_f64(at::KILL_SERVER), Step::KillServer),
            (sending.mul_f64(at::KILL_SERVER) + DEAD, Step::StartServer),
            (sending.mul_f64(at::KILL_DEVICE), Step::KillDevice(second)),
            (sending.mul_f64(at::KILL_DEVICE) + DEAD, Step::StartDevice(second)),
        ];
        let gap = sending / messages.max(1);
        for number in 0..messages {
            steps.push((gap * number, Step::Send(first)));
            steps.push((gap * number + gap / 2, Step::Send(second)));
        }
        steps.sort_by_key(|(at, _)| *at);
        Self(steps.into())
    }

    /// When the next step is due; `None` at the end.
    pub fn next_at(&self) -> Option<Duration> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Takes the next step.
    pub fn take(&mut self) -> Option<Step> {
        self.0.pop_front().map(|(_, step)| step)
    }

    /// Does a step once more, now: it could not be done yet.
    pub fn again(&mut self, at: Duration, step: Step) {
        self.0.push_front((at, step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(script: &Script, wanted: Step) -> Vec<Duration> {
        script.0.iter().filter(|(_, step)| *step == wanted).map(|(at, _)| *at).collect()
    }

    #[test]
    fn all_messages_leave_within_the_time_and_everything_bad_happens_once() {
        let sending = Duration::from_secs(20);
        let script = Script::new(200, sending);
        for device in [DeviceNo(0), DeviceNo(1)] {
            let sends = times(&script, Step::Send(device));
            assert_eq!(sends.len(), 200);
            assert!(sends.iter().all(|at| *at < sending));
            assert!(sends.is_sorted());
        }
        for once in [
            Step::ForgetBinding(DeviceNo(0)),
            Step::ChangeAddress(DeviceNo(1)),
            Step::KillServer,
            Step::StartServer,
            Step::KillDevice(DeviceNo(1)),
            Step::StartDevice(DeviceNo(1)),
        ] {
            assert_eq!(times(&script, once).len(), 1, "{once:?}");
        }
        assert!(script.0.iter().is_sorted_by_key(|(at, _)| *at));
    }

    #[test]
    fn who_was_killed_is_started_later() {
        for (seconds, messages) in [(3, 0), (5, 1), (40, 2_000)] {
            let script = Script::new(messages, Duration::from_secs(seconds));
            let at = |step| times(&script, step)[0];
            assert!(at(Step::KillServer) < at(Step::StartServer));
            assert!(at(Step::KillDevice(DeviceNo(1))) < at(Step::StartDevice(DeviceNo(1))));
        }
    }
}
