//! What the judge hears of recalls and edits.

use tern_core::config::Config;

use super::Oracle;
use super::checks::recalls::{Hours, Known};
use super::sends::Asked;
use crate::disk::Disk;

impl Oracle {
    /// For how long messages can be recalled and edited.
    pub fn limit_hours(&mut self, config: &Config) {
        let (recall_ms_max, edit_ms_max) = (config.recall_ms_max, config.edit_ms_max);
        self.hours = Hours { recall_ms_max, edit_ms_max };
    }

    /// What is known of the message that a recall or an edit is about.
    pub(super) fn known_of(&self, disk: &Disk, asked: &Asked, wall_ms: u64) -> Known {
        let at = (asked.channel, asked.refers_to);
        let stands = self.truth.get(at.0, at.1);
        let (is_damaged, is_expired) =
            stands.map_or((false, false), |(_, (shard, index))| disk.is_gone(*shard, *index));
        let is_behind = self.lives.restarted_at(at.0).any(|end| at.1 >= end);
        // The way to what is past its retention may end at a damaged one before it gets there.
        let is_cut_off = is_expired
            && (at.1..=self.truth.newest(at.0)).any(|id| {
                let place = self.truth.get(at.0, id).map(|(_, place)| *place);
                place.is_some_and(|(shard, index)| disk.is_gone(shard, index).0)
            });
        let may_be_gone = is_damaged || is_cut_off || is_behind || self.lives.was_gone(at);
        Known { wall_ms, may_be_gone, is_expired }
    }
}
