//! Devices on their way in: how many are online, and that it does not take for ever. Only a login
//! counts as a step: devices that are online already beat, and those that are sent away come back
//! by themselves, for as long as one lets them.

use std::time::{Duration, Instant};

use super::device::Event;
use crate::error::BenchError;

/// How long no further device may come online before the run ends: a server gives a login 5 s by
/// default, and many under way wait for each other.
pub const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Devices on their way in.
#[derive(Debug)]
pub struct Muster {
    total: usize,
    online: usize,
    last: Instant,
}

impl Muster {
    /// So many are to come, from now on.
    pub fn new(now: Instant, total: usize) -> Self {
        Self { total, online: 0, last: now }
    }

    /// Takes an event that came at this moment; whether one more device is online.
    pub fn hear(&mut self, at: Instant, event: Event) -> bool {
        let is_one = matches!(event, Event::Online { .. });
        if is_one {
            self.online += 1;
            self.last = at;
        }
        is_one
    }

    /// How many have come.
    pub fn online(&self) -> usize {
        self.online
    }

    /// Whether all are there.
    pub fn is_over(&self) -> bool {
        self.online >= self.total
    }

    /// When the next one must have come.
    pub fn deadline(&self) -> Instant {
        self.last + LOGIN_PATIENCE
    }

    /// That it still gets on.
    ///
    /// # Errors
    /// When nobody came for [`LOGIN_PATIENCE`].
    pub fn check(&self, now: Instant) -> Result<(), BenchError> {
        if self.is_over() || now < self.deadline() {
            return Ok(());
        }
        let Self { total, online, .. } = self;
        Err(BenchError::Load(format!(
            "{online} of {total} devices are logged in, and no further one in {} s: ask for fewer \
             devices, or find out from the server's words and `tern status` whom it sends away",
            LOGIN_PATIENCE.as_secs()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::{Code, Kind};

    const ONLINE: Event = Event::Online { resumed: false };

    #[test]
    fn only_a_login_is_a_step() {
        let start = Instant::now();
        let mut muster = Muster::new(start, 2);
        let late = start + LOGIN_PATIENCE - Duration::from_millis(1);
        assert!(muster.hear(late, ONLINE));
        for event in [Event::Lost, Event::Beat, Event::Acked(1), Event::Received(1)] {
            assert!(!muster.hear(late + LOGIN_PATIENCE / 2, event));
        }
        muster.check(late + LOGIN_PATIENCE / 2).expect("there is time left");
        let said = muster.check(late + LOGIN_PATIENCE).expect_err("the second never comes");
        assert!(said.to_string().contains("1 of 2 devices"), "{said}");
        println!("TEST muster n=2 online={} said={said}", muster.online());
    }

    #[test]
    fn nobody_waits_for_who_is_there() {
        let start = Instant::now();
        let mut muster = Muster::new(start, 1);
        assert!(!muster.hear(start, Event::Failed(Kind::Close, Code::Offline)));
        assert!(!muster.is_over());
        assert!(muster.hear(start, ONLINE));
        assert!(muster.is_over());
        muster.check(start + 2 * LOGIN_PATIENCE).expect("all are there");
    }
}
