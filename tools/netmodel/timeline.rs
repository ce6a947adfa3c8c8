//! What happens on a link in time: other conditions, blackouts, new addresses.

use std::time::Duration;

use serde::Deserialize;

use crate::conditions::Conditions;
use crate::nat::NatRules;

/// Something that happens at a moment. What is left out stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// When, in ms from the beginning.
    pub at_ms: u64,
    /// A few words for people.
    pub about: String,
    /// From then on the link is like this profile.
    pub like: Option<String>,
    /// The new conditions from the client to the server.
    pub up: Option<Conditions>,
    /// The new conditions from the server to the client.
    pub down: Option<Conditions>,
    /// The new rules of the NAT.
    pub nat: Option<NatRules>,
    /// Nothing comes through for this long, in ms.
    pub blackout_ms: Option<u64>,
    /// All clients have another address from then on.
    pub rebind: bool,
}

/// The steps of a link as time passes.
#[derive(Clone, Debug)]
pub struct Timeline {
    steps: Vec<Step>,
    repeat: Option<Duration>,
    next: usize,
    /// When the steps began, or began again.
    begun: Duration,
}

impl Timeline {
    /// Steps that were checked, from now on.
    pub fn new(steps: Vec<Step>, repeat_ms: Option<u64>, now: Duration) -> Self {
        Self { steps, repeat: repeat_ms.map(Duration::from_millis), next: 0, begun: now }
    }

    /// When the next step is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let step = self.steps.get(self.next)?;
        Some(self.begun + Duration::from_millis(step.at_ms))
    }

    /// The next step that is due by now.
    pub fn poll(&mut self, now: Duration) -> Option<Step> {
        if self.poll_timeout()? > now {
            return None;
        }
        let step = self.steps[self.next].clone();
        self.next += 1;
        if let (true, Some(repeat)) = (self.next == self.steps.len(), self.repeat) {
            self.next = 0;
            self.begun += repeat;
        }
        Some(step)
    }
}

/// Whether these steps can happen.
pub(crate) fn check(steps: &[Step], repeat_ms: Option<u64>) -> Result<(), String> {
    for (index, step) in steps.iter().enumerate() {
        let named = |wrong: String| format!("steps, number {}: {wrong}", index + 1);
        step.up.as_ref().map_or(Ok(()), Conditions::check).map_err(named)?;
        step.down.as_ref().map_or(Ok(()), Conditions::check).map_err(named)?;
        step.nat.as_ref().map_or(Ok(()), NatRules::check).map_err(named)?;
    }
    if let Some(pair) = steps.windows(2).find(|pair| pair[0].at_ms > pair[1].at_ms) {
        return Err(format!("a step at {} ms stands behind a later one", pair[1].at_ms));
    }
    let last = steps.last().map_or(0, |step| step.at_ms);
    match repeat_ms {
        Some(repeat) if repeat <= last => {
            Err(format!("repeat_ms is {repeat}; it must lie behind the last step, at {last} ms"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_ms: u64) -> Step {
        Step { at_ms, ..Step::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn steps_come_when_they_are_due_and_again() {
        let mut timeline = Timeline::new(vec![at(10), at(10), at(30)], Some(100), ms(5));
        assert_eq!((timeline.poll_timeout(), timeline.poll(ms(14))), (Some(ms(15)), None));
        assert_eq!(timeline.poll(ms(15)), Some(at(10)));
        assert_eq!(timeline.poll(ms(15)), Some(at(10)));
        assert_eq!(timeline.poll(ms(15)), None);
        assert_eq!(timeline.poll(ms(900)), Some(at(30)));
        assert_eq!(timeline.poll_timeout(), Some(ms(115)));
        let mut once = Timeline::new(vec![at(0)], None, ms(0));
        assert!(once.poll(ms(0)).is_some() && once.poll(ms(9)).is_none());
        assert_eq!(once.poll_timeout(), None);
    }

    #[test]
    fn steps_out_of_order_are_refused() {
        assert!(check(&[at(5), at(4)], None).unwrap_err().contains("at 4 ms"));
        assert!(check(&[at(5)], Some(5)).unwrap_err().contains("repeat_ms is 5"));
        let nat = Some(NatRules { idle_ms: Some(0), rebind_every_ms: None });
        assert!(check(&[Step { nat, ..at(1) }], None).unwrap_err().contains("number 1"));
    }
}
