//! What a connection is pushed has no holes: each channel goes on where the client's cursor is, id
//! by id, message or gap, and nothing of a channel comes before what the client must know of it.
//!
//! Worth naming: a hole would heal, seconds later, by the client's asking; so nothing else notices.

use std::collections::BTreeMap;

use tern_protocol::frames::{ChannelState, Cursor};
use tern_protocol::{ChannelId, Incarnation};

use super::{Verdict, demand};

/// All connections whose client has said its cursors.
#[derive(Debug, Default)]
pub struct Flow {
    by_link: BTreeMap<u64, Link>,
}

#[derive(Debug, Default)]
struct Link {
    /// The server went on with cursors that it knew: where they are shows the first push.
    is_known: bool,
    channels: BTreeMap<ChannelId, Place>,
}

/// Where a channel goes on.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// No id behind this one may come next.
    next: u64,
    /// The life of the history that the client knows; 0 if none.
    life: Incarnation,
}

impl Place {
    const START: Self = Self { next: 1, life: Incarnation(0) };
}

impl Flow {
    /// A connection goes on with the cursors that the server knows.
    pub fn known(&mut self, link: u64) {
        self.by_link.entry(link).or_default().is_known = true;
    }

    /// Cursors arrive, for the first time or once more.
    pub fn cursors_arrive(&mut self, link: u64, list: &[Cursor]) {
        let link = self.by_link.entry(link).or_default();
        for cursor in list {
            let life = Incarnation::from(cursor.incarnation);
            let next = cursor.id.get().saturating_add(1);
            let place = link.channels.entry(cursor.channel).or_insert(Place { next, life });
            *place = Place { next: place.next.max(next), life };
        }
    }

    /// A client is told of the state of a channel.
    pub fn told(&mut self, link: u64, state: &ChannelState) {
        let Some(link) = self.by_link.get_mut(&link) else { return };
        if link.is_known && !link.channels.contains_key(&state.channel) {
            return;
        }
        let place = link.channels.entry(state.channel).or_insert(Place::START);
        let life = Incarnation::from(state.incarnation);
        if place.life != life && place.life.0 != 0 {
            place.next = place.next.min(state.restarted_at.get());
        }
        place.next = place.next.min(state.newest.get().saturating_add(1));
        place.life = life;
    }

    /// Ids leave for a client: a message, or a range that never comes.
    pub fn leaves(&mut self, link: u64, channel: ChannelId, (from, to): (u64, u64)) -> Verdict {
        let number = link;
        let Some(link) = self.by_link.get_mut(&link) else { return Ok(()) };
        let start = match link.is_known {
            true => Place { next: to + 1, ..Place::START },
            false => Place::START,
        };
        let place = link.channels.entry(channel).or_insert(start);
        let before = place.next;
        place.next = before.max(to + 1);
        demand(from <= before, || {
            format!("connection {number} gets {channel}#{from} to #{to}, and #{before} never left")
        })?;
        demand(place.life.0 != 0 || link.is_known, || {
            format!("connection {number} gets {channel}#{from}, and does not know of which life")
        })
    }

    /// The connection is gone.
    pub fn closed(&mut self, link: u64) {
        self.by_link.remove(&link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Uin;

    fn channel() -> ChannelId {
        ChannelId::direct(Uin(1), Uin(2))
    }

    fn cursor(id: u64, life: u32) -> Cursor {
        let (channel, id, incarnation) = (channel(), id.into(), life.into());
        Cursor { channel, id, incarnation, reserved: 0.into() }
    }

    fn state(newest: u64, (life, restarted_at): (u32, u64)) -> ChannelState {
        ChannelState {
            channel: channel(),
            incarnation: life.into(),
            reserved: 0.into(),
            oldest: 1.into(),
            newest: newest.into(),
            restarted_at: restarted_at.into(),
        }
    }

    /// A client with this cursor, if any.
    fn flow(list: &[Cursor]) -> Flow {
        let mut flow = Flow::default();
        flow.cursors_arrive(7, list);
        flow
    }

    #[test]
    fn a_hole_is_noticed_and_a_repeat_is_none() {
        let leaves = |flow: &mut Flow, range| flow.leaves(7, channel(), range);
        let mut here = flow(&[cursor(4, 1)]);
        assert!(leaves(&mut here, (5, 5)).is_ok() && leaves(&mut here, (6, 9)).is_ok());
        assert!(leaves(&mut here, (5, 5)).is_ok() && leaves(&mut here, (10, 10)).is_ok());
        assert!(leaves(&mut here, (12, 12)).is_err());
        assert!(leaves(&mut flow(&[cursor(4, 1)]), (6, 6)).is_err());
        // A life that begins lower, and one that goes less far.
        let mut restarted = flow(&[cursor(9, 1)]);
        restarted.told(7, &state(12, (2, 6)));
        assert!(leaves(&mut restarted, (7, 7)).is_err());
        let mut shorter = flow(&[cursor(9, 1)]);
        shorter.told(7, &state(3, (1, 1)));
        assert!(leaves(&mut shorter, (5, 5)).is_err());
        let mut known = Flow::default();
        known.known(7);
        assert!(leaves(&mut known, (5, 5)).is_ok() && leaves(&mut known, (7, 7)).is_err());
        assert!(leaves(&mut Flow::default(), (5, 5)).is_ok(), "nothing is known of it");
    }

    #[test]
    fn a_channel_of_which_nothing_was_told_is_noticed() {
        assert!(flow(&[]).leaves(7, channel(), (1, 1)).is_err());
        let mut told = flow(&[]);
        told.told(7, &state(3, (1, 1)));
        assert_eq!(told.leaves(7, channel(), (1, 1)), Ok(()));
        told.closed(7);
        assert_eq!(told.leaves(7, channel(), (9, 9)), Ok(()));
    }
}
