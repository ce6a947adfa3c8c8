//! What the log deletes for its age or for want of room, told to those who may still ask for it:
//! each channel's oldest id moves, and with it the grants of its members.

use super::Shard;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;

/// Channels of which the log may say in one turn what expired: some microseconds each. A whole
/// segment that goes may speak of thousands.
const EXPIRED_PER_TURN: usize = 128;

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Takes from the log what expired, a turn's worth.
    pub(super) fn drain_expired(&mut self, context: &mut Context<'_>) {
        self.expiry_goes_on = true;
        let before = context.counters.channels_expired;
        for _ in 0..EXPIRED_PER_TURN {
            let Some((id, up_to)) = self.log.poll_expired() else {
                self.expiry_goes_on = false;
                break;
            };
            if let Some(channel) = self.channels.get_mut(&id)
                && channel.expire(up_to)
            {
                context.counters.channels_expired += 1;
                let oldest = channel.oldest();
                self.mark_changed(context, id, true);
                if let Some(group) = self.groups.get_mut(&id) {
                    group.expire(context.placement, oldest);
                }
            }
        }
        if context.counters.channels_expired > before {
            self.notify(context);
        }
    }
}
