//! What a device said of its cursors: the list that a session leaves to the next one, and the list
//! that is asked for when the digests of both sides differ (SPEC.md §4.10).

use rustc_hash::FxHashMap;
use tern_protocol::digest::UNSAID;
use tern_protocol::frames::{AskCursors, Cursor};
use tern_protocol::{ChannelId, Code};

use super::delivery::Delivery;
use crate::context::Context;
use crate::io::{Effect, LinkId, Outgoing};

/// Channels that one session may have cursors in: some 150 bytes each.
pub(super) const CHANNELS_PER_SESSION_MAX: usize = 32_768;

/// The list as far as the client has said it once more; boxed, since hardly a session has one.
#[derive(Default)]
struct Again(Vec<Cursor>);

/// The cursors of one session, and what is done when they differ from the client's.
#[derive(Default)]
pub(super) struct Cursors {
    /// What the client has said since it was asked for all of them again.
    again: Option<Box<Again>>,
    /// How often it was.
    asked: u32,
    /// Whether the client has said all of them, and delivery began.
    have_come: bool,
}

impl Cursors {
    /// Whether delivery began.
    pub(super) fn have_come(&self) -> bool {
        self.have_come
    }

    /// A part of the client's list; whether it was the last one of the first list, and delivery
    /// begins.
    ///
    /// # Errors
    /// If the client may not say it now, or says too much.
    pub(super) fn take(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        delivery: &mut Delivery,
        (list, last): (&[Cursor], bool),
    ) -> Result<bool, Code> {
        if list.iter().any(|cursor| !cursor.channel.is_valid()) {
            return Err(Code::Malformed);
        }
        if self.have_come && self.again.is_none() {
            return Err(Code::WrongState);
        }
        let known = self.again.as_ref().map_or_else(|| delivery.channels(), |said| said.0.len());
        if known + list.len() > CHANNELS_PER_SESSION_MAX {
            return Err(Code::RangeTooLong);
        }
        let Some(said) = &mut self.again else {
            delivery.set_cursors(list);
            self.have_come = last;
            return Ok(last);
        };
        said.0.extend_from_slice(list);
        if last && let Some(all) = self.again.take() {
            delivery.say_again(context, link, &all.0);
        }
        Ok(false)
    }

    /// A heartbeat with the client's digest: asks for the list if it is not the server's.
    pub(super) fn compare(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        delivery: &Delivery,
        digest: u64,
    ) {
        let own = delivery.digest();
        let is_asked = !self.have_come || self.again.is_some();
        if digest == UNSAID || digest == own || is_asked {
            return;
        }
        context.counters.cursors_asked += 1;
        self.asked = self.asked.wrapping_add(1);
        self.again = Some(Box::default());
        let (digest, sequence) = (own.into(), self.asked.into());
        let ask = AskCursors { digest, sequence, reserved: 0.into() };
        context.effect(Effect::Frame(link, Outgoing::AskCursors(ask)));
    }
}

/// The list by channel; the last word on a channel counts.
pub(super) fn by_channel(list: &[Cursor]) -> FxHashMap<ChannelId, Cursor> {
    list.iter().map(|cursor| (cursor.channel, *cursor)).collect()
}
