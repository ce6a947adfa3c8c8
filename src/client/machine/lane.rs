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
        self.paused_until(now).is_none() && self.on_their_way < self.allowed
    }

    /// Until when nothing leaves, if that lies ahead.
    pub(crate) fn paused_until(&self, now: Mono) -> Option<Mono> {
        self.paused_until.filter(|&until| until > now)
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
