//! What happens to messages goes into the flight recorder: the machine's moments, and the pushes,
//! of which only the worker knows how they leave. All of a turn has the turn's time.

use tern_core::io::LinkId;
use tern_core::log::Reader;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId};
use tern_storage::{Carrier, What};
use zerocopy::FromBytes as _;

use super::driver::Driver;
use super::links::State;
use super::machine::Machine;

/// The name of a message: its channel and its place there.
pub(super) type Named = (ChannelId, MessageId);

/// The name of the message whose record this is the body of.
pub(super) fn named(body: &[u8]) -> Option<Named> {
    let (push, _) = PushBody::ref_from_prefix(body).ok()?;
    Some((push.channel, push.id.into()))
}

impl<M: Machine, R: Reader> Driver<M, R> {
    /// Records what the machine has to tell.
    pub(super) fn record_moments(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        for moment in self.machine.drain_moments() {
            let what = What::Happened(moment.happened);
            recorder.record(self.stamp, moment.channel, moment.device, what);
        }
    }

    /// Records that a message was written to a connection.
    pub(super) fn record_push(&mut self, id: LinkId, named: Option<Named>, carrier: Carrier) {
        let (Some(recorder), Some((channel, message))) = (&mut self.recorder, named) else {
            return;
        };
        let Some(link) = self.links.get(id).filter(|link| link.state == State::Open) else {
            return; // it was not written
        };
        if link.device.is_none() {
            link.device = self.machine.device_of(id);
        }
        recorder.record(self.stamp, channel, link.device, What::Pushed(message, carrier));
    }
}
