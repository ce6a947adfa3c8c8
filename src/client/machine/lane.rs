//! How fast a channel's sends leave: all at once, until the server asks to wait; then with few on
//! their way, and one more with each ack, so that a limit is met without a storm of refusals.

use tern_protocol::limits::UNACKED_SENDS_MAX;

use super::time::Mono;

/// The flow of sends in one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lane {
    on_their_way: u32,
    allowed: u32,
    paused_until: Option<Mono>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { on_their_way: 0, allowed: UNACKED_SENDS_MAX, paused_until: None }
    }
}

impl Lane {
    /// Whether one more may leave now.
    pub(crate) fn flows(&self, now: Mono) -> bool {
        self.paused_until.is_none_or(|until| until <= now) && self.on_their_way < self.allowed
    }

    /// When what waits can leave after a pause, also if that moment has passed; `None` if no pause
    /// is what it waits for.
    pub(crate) fn flows_again(&self, now: Mono) -> Option<Mono> {
        let has_room = self.on_their_way < self.allowed;
        self.paused_until.filter(|&until| until > now || has_room)
    }

    /// One leaves; so a pause is over.
    pub(crate) fn left(&mut self) {
        self.on_their_way += 1;
        self.paused_until = None;
    }

    pub(crate) fn acked(&mut self) {
        self.came_back();
        self.allowed = UNACKED_SENDS_MAX.min(self.allowed + 1);
    }

    /// One is no longer on its way, and was not acked.
    pub(crate) fn came_back(&mut self) {
        self.on_their_way = self.on_their_way.checked_sub(1).expect("each leaves before it comes");
    }

    /// The server asks to wait; `slower` if that answers what left since the last such answer.
    pub(crate) fn pause(&mut self, until: Mono, slower: bool) {
        self.paused_until = self.paused_until.max(Some(until));
        if slower {
            self.allowed = (self.allowed / 2).max(1);
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.on_their_way = 0;
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_idle(&self) -> bool {
        self.on_their_way == 0 && self.allowed == UNACKED_SENDS_MAX && self.paused_until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked after the moment, the lane still says it: else its machine would sleep on.
    #[test]
    fn a_pause_that_has_just_ended_is_not_forgotten() {
        let mut lane = Lane::default();
        lane.left();
        lane.came_back();
        lane.pause(Mono(100), true);
        for now in [50, 100, 150] {
            assert_eq!(lane.flows_again(Mono(now)), Some(Mono(100)), "at {now}");
        }
        (0..lane.allowed).for_each(|_| lane.left());
        lane.pause(Mono(200), false);
        assert_eq!(lane.flows_again(Mono(250)), None, "it waits for an answer, not for a time");
    }
}
