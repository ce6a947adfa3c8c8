//! What every room of a worker is handed with a call.

use std::collections::VecDeque;

use crate::config::Config;
use crate::counters::Counters;
use crate::io::Effect;
use crate::moments::Moments;
use crate::placement::Placement;
use crate::post::Post;
use crate::time::Now;

/// The moment, the settings, and the ways out.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) placement: &'a Placement,
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a mut Counters,
    pub(crate) post: &'a mut Post,
    pub(crate) effects: &'a mut VecDeque<Effect>,
    pub(crate) moments: &'a mut Moments,
}

impl Context<'_> {
    /// Leaves an effect for the driver.
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }
}
