//! What applications send, and the limits of a seed.

use tern_client::machine::{Input, Tuning};
use tern_core::config::Config;
use tern_protocol::limits::CONTENT_BYTES_DEFAULT;
use tern_protocol::{ChannelId, Code, Uin};

use super::{Happening, World};
use crate::fault::Fault;
use crate::oracle::checks::Due;
use crate::plan::Draw;
use crate::random::Stream;

/// A user who does not exist.
pub(super) const NOBODY: Uin = Uin(9_999);

/// Most sends of one application at once.
const BURST_MAX: u64 = 8;

/// Sends in a hundred to a user who does not exist.
const TO_NOBODY_PERCENT: u64 = 1;

/// Sends in a hundred with a content that is too long.
const TOO_LONG_PERCENT: u64 = 1;

/// For how long a message can be recalled and edited under tight limits, in ms.
const RECALL_MS: (u64, u64) = (5_000, 240_000);

/// Requests to a worker under tight limits. A send whose predecessor was lost holds one for up to
/// two seconds, so with fewer than the least of these a device would get through a message in that
/// time, and would not be done when all must have come to rest.
const REQUESTS_MAX: (u64, u64) = (4, 16);

/// The limits of server and clients in this seed.
pub(super) fn limits(draw: &Draw, stream: &mut Stream) -> (Config, Tuning) {
    let (mut config, mut tuning) = (Config::default(), Tuning::default());
    config.datagrams = draw.faults.contains(&Fault::Datagrams);
    if draw.faults.contains(&Fault::TightLimits) {
        config.window_messages = stream.between(4, 16) as u32;
        config.window_messages_max = stream.between(4, 64) as u32;
        config.requests_max = stream.between(REQUESTS_MAX.0, REQUESTS_MAX.1) as usize;
        config.sends_per_second = stream.between(3, 50) as u32;
        config.sends_burst = stream.between(4, 40) as u32;
        config.resume_ms = stream.between(1_000, 120_000) as u32;
        config.group_members_max = stream.between(2, 5) as usize;
        config.recall_ms_max = stream.between(RECALL_MS.0, RECALL_MS.1);
        config.edit_ms_max = stream.between(RECALL_MS.0, RECALL_MS.1);
        tuning.unsettled_sends_max = stream.between(1, 64) as u32;
        tuning.counter_max = stream.between(40, 200) as u32;
    }
    (config, tuning)
}

impl World {
    /// Some application sends a few messages; then the next one, until none are left.
    pub(super) fn send_something(&mut self) {
        if self.sends_left == 0 || self.healed_at.is_some() {
            return;
        }
        let able: Vec<usize> =
            (0..self.installs.len()).filter(|index| self.installs[*index].can_send()).collect();
        if let Some(install) = self.work.pick(&able) {
            let burst = self.work.between(1, BURST_MAX).min(self.sends_left);
            for _ in 0..burst {
                self.send_one(install);
            }
        }
        let left_ms = self.ends_at.saturating_sub(self.now);
        let gap_ms = left_ms * BURST_MAX / 2 / self.sends_left.max(1);
        // Where nobody can send, time goes on all the same.
        let wait_ms = self.work.between(0, gap_ms).max(u64::from(able.is_empty()));
        self.agenda.add(self.now + wait_ms, Happening::Send);
    }

    pub(super) fn send_one(&mut self, install: usize) {
        self.sends_left = self.sends_left.saturating_sub(1);
        self.wish_of_blocks(install);
        self.ask_of_marks(install);
        self.look_back_sometimes(install);
        if self.send_about(install) || self.send_to_group(install) {
            return;
        }
        let own = self.installs[install].device.uin;
        let peer = Uin(self.work.between(1, self.draw.users));
        let is_healed = self.healed_at.is_some();
        let to_nobody = !is_healed && self.work.percent(TO_NOBODY_PERCENT);
        let channel = ChannelId::direct(own, if to_nobody { NOBODY } else { peer });
        let due = match to_nobody {
            true => Due::Refusal(Code::NoSuchUser),
            false if self.draw.blocks_percent > 0 => Due::ByRules, // the peer may block this user
            false => Due::Ack,
        };
        self.send_text(install, channel, due);
    }

    pub(super) fn send_text(&mut self, install: usize, channel: ChannelId, due: Due) {
        let too_long = self.healed_at.is_none() && self.work.percent(TOO_LONG_PERCENT);
        let bytes = if too_long {
            CONTENT_BYTES_DEFAULT + 1
        } else {
            self.work.between(0, self.plan.content_bytes_max) as usize
        };
        let due = if too_long { Due::Refusal(Code::ContentTooLong) } else { due };
        let label = self.installs[install].next_label();
        self.installs[install].posted.insert(label, due);
        let (tag, content) = (label.to_tag(), label.content(bytes).into());
        self.trace.note(
            self.now,
            &[1, install as u64, tag],
            &[],
            format_args!("install {install} sends {label} to {channel}"),
        );
        self.device_input(install, Input::Send { channel, content_type: 1, content, tag });
    }
}
