//! Ids that never come, as each install was told of them.

use std::collections::BTreeMap;

use tern_protocol::ChannelId;

/// Ranges to step over, by install and channel: their first id and their last.
#[derive(Debug, Default)]
pub struct Steps {
    ranges: BTreeMap<(u32, ChannelId), BTreeMap<u64, u64>>,
}

impl Steps {
    /// The install is told that these ids never come.
    pub fn add(&mut self, of: (u32, ChannelId), (from, to): (u64, u64)) {
        let known = self.ranges.entry(of).or_default().entry(from).or_default();
        *known = to.max(*known);
    }

    /// The history begins anew with this id: nothing is known of those from it on.
    pub fn forget_from(&mut self, of: (u32, ChannelId), at: u64) {
        let Some(ranges) = self.ranges.get_mut(&of) else { return };
        ranges.retain(|from, _| *from < at);
        ranges.values_mut().for_each(|to| *to = at.saturating_sub(1).min(*to));
    }

    /// The newest id that is behind `id` when what never comes right after it counts too.
    pub fn past(&self, of: (u32, ChannelId), id: u64) -> u64 {
        let ranges = self.ranges.get(&of).into_iter().flatten();
        ranges.fold(id, |id, (from, to)| if *from <= id + 1 { id.max(*to) } else { id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Uin;

    #[test]
    fn only_what_was_told_is_stepped_over() {
        let of = (1, ChannelId::direct(Uin(1), Uin(2)));
        let mut steps = Steps::default();
        steps.add(of, (3, 4));
        steps.add(of, (5, 5));
        assert_eq!(steps.past(of, 1), 1);
        assert_eq!(steps.past(of, 2), 5);
        assert_eq!(steps.past((2, of.1), 2), 2);
    }
}
