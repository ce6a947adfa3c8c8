//! Which events are wanted: by user, channel, message id and kind; what is named several times
//! must all fit.

use std::collections::HashMap;
use std::fmt;

use tern_protocol::{ChannelId, Frame, Header, Kind, Uin};

use crate::event::{ConnectionId, Event, What, Who};
use crate::show::fields::{self, Value};

/// What is wanted; the default wants all.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Frames of this user's devices, and of channels that it is in.
    pub uin: Option<Uin>,
    /// Frames that name this channel.
    pub channel: Option<ChannelId>,
    /// Frames that name this message, or a range that it is in.
    pub id: Option<u64>,
    /// Frames of these kinds; empty: of all.
    pub kinds: Vec<Kind>,
}

/// Looks for what is wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    wanted: Wanted,
    /// Which message a send became, as far as acks were seen.
    acked: HashMap<(Who, u32, u32), (ChannelId, u64)>,
}

/// Text that is no channel or kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// Reads a channel: `7-9` between two users, `g3` for a group.
///
/// # Errors
/// Says how channels are written.
pub fn channel(text: &str) -> Result<ChannelId, Unreadable> {
    let group = text.strip_prefix('g').and_then(|id| id.parse().ok()).map(ChannelId::group);
    let direct = || {
        let (a, b) = text.split_once('-')?;
        let (a, b): (u64, u64) = (a.parse().ok()?, b.parse().ok()?);
        (a != 0 && b != 0).then(|| ChannelId::direct(Uin(a), Uin(b)))
    };
    let wrong = || {
        Unreadable(format!(
            "{text} is no channel; write 7-9 for the one between users 7 and 9, g3 for group 3"
        ))
    };
    group.or_else(direct).filter(ChannelId::is_valid).ok_or_else(wrong)
}

/// Reads a kind by its name in the registry, in any case.
///
/// # Errors
/// Names the kinds.
pub fn kind(text: &str) -> Result<Kind, Unreadable> {
    let found = Kind::ALL.iter().find(|row| row.label.eq_ignore_ascii_case(text));
    found.map(|row| row.kind).ok_or_else(|| {
        let names: Vec<&str> = Kind::ALL.iter().map(|row| row.label).collect();
        Unreadable(format!("no frame is called {text}; there are {}", names.join(", ")))
    })
}

impl Filter {
    /// Looks for this.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, acked: HashMap::new() }
    }

    /// Takes note of an event before any is asked for: an ack tells which message its send is.
    pub fn learn(&mut self, event: &Event) {
        let (Some(who), What::Frame { bytes, .. }) = (event.who, &event.what) else { return };
        if let Ok((Frame::SendAck(ack), _)) = Frame::parse(bytes) {
            let key = (who, ack.epoch.get(), ack.counter.get());
            self.acked.insert(key, (ack.channel, ack.id.get()));
        }
    }

    /// Whether an event is wanted. What is no frame is wanted unless channel, message or kind are
    /// asked for.
    pub fn wants(&self, event: &Event) -> bool {
        let Wanted { uin, channel, id, kinds } = &self.wanted;
        let What::Frame { bytes, .. } = &event.what else {
            let is_mine = uin.is_none_or(|uin| event.who.is_some_and(|who| who.uin == uin));
            return is_mine && channel.is_none() && id.is_none() && kinds.is_empty();
        };
        let kind = Header::peek(bytes).map(|header| Kind(header.kind));
        let is_kind = kinds.is_empty() || kind.is_some_and(|kind| kinds.contains(&kind));
        is_kind && self.names(event, bytes)
    }

    fn names(&self, event: &Event, bytes: &[u8]) -> bool {
        let parts = fields::parts(bytes, false);
        let entries = parts.all();
        let Wanted { uin, channel, id, .. } = &self.wanted;
        let is_one = |named: ChannelId| channel.is_none_or(|wanted| wanted == named);
        if channel.is_some() || id.is_some() {
            let any = entries.iter().any(|entry| {
                let channel = entry.iter().find_map(|(_, value)| match value {
                    Value::Channel(channel) => Some(*channel),
                    _ => None,
                });
                channel.is_some_and(is_one) && self.names_id(event, entry)
            });
            if !any {
                return false;
            }
        }
        uin.is_none_or(|uin| {
            let is_own = event.who.is_some_and(|who| who.uin == uin);
            is_own || entries.iter().copied().flatten().any(|(name, value)| is_of(uin, name, value))
        })
    }

    fn names_id(&self, event: &Event, entry: &[fields::Named]) -> bool {
        let Some(wanted) = self.wanted.id else { return true };
        let number = |name: &str| {
            entry.iter().find(|(field, _)| *field == name).and_then(|(_, value)| match value {
                Value::Small(number) | Value::Large(number) => Some(*number),
                _ => None,
            })
        };
        let in_range = |from, to| (from..=to).contains(&wanted);
        let by_range =
            number("from").zip(number("to")).is_some_and(|(from, to)| in_range(from, to));
        let by_key = event.who.zip(number("epoch")).zip(number("counter"));
        let by_key = by_key.is_some_and(|((who, epoch), counter)| {
            let key = (who, epoch as u32, counter as u32); // fit: four bytes on the wire
            self.acked.get(&key).is_some_and(|(_, id)| *id == wanted)
        });
        number("id") == Some(wanted) || by_range || (number("id").is_none() && by_key)
    }
}

fn is_of(uin: Uin, name: &str, value: &Value) -> bool {
    match value {
        Value::Channel(channel) => channel.peer_of(uin).is_some(),
        Value::Large(number) => matches!(name, "uin" | "sender") && *number == uin.0,
        _ => false,
    }
}

/// Events of one connection only.
pub fn is_on(event: &Event, connection: Option<ConnectionId>) -> bool {
    connection.is_none_or(|wanted| wanted == event.connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Stamp;
    use crate::event::Carrier;
    use crate::quic::Way;
    use tern_protocol::frame::encode;
    use tern_protocol::frames::{Cursor, Gap, Send, SendAck};
    use tern_protocol::{Code, DeviceId, Flags};
    use zerocopy::FromBytes as _;

    fn event<T: zerocopy::IntoBytes + zerocopy::Immutable>(kind: Kind, head: &T) -> Event {
        let mut bytes = vec![0; 4 + size_of::<T>()];
        encode(kind, Flags::NONE, head, &[], &mut bytes);
        let what =
            What::Frame { way: Way::ToServer, carrier: Carrier::Stream, is_again: false, bytes };
        let who = Some(Who { uin: Uin(7), device: DeviceId(1) });
        Event { packet: 1, at: Stamp(0), connection: ConnectionId(1), who, what }
    }

    #[test]
    fn a_message_is_found_in_all_its_frames() {
        let channel = channel("9-7").unwrap();
        let mut send = Send::read_from_bytes(&[0; 40]).unwrap();
        (send.channel, send.epoch, send.counter) = (channel, 1.into(), 5.into());
        let mut ack = SendAck::read_from_bytes(&[0; 40]).unwrap();
        (ack.channel, ack.epoch, ack.counter, ack.id) = (channel, 1.into(), 5.into(), 12.into());
        let cursor = Cursor { channel, id: 12.into(), incarnation: 1.into(), reserved: 0.into() };
        let gap = Gap {
            channel,
            from: 10.into(),
            to: 12.into(),
            code: Code::Lost.0.into(),
            reserved: [0; 6],
        };
        let events = [
            event(Kind::Send, &send),
            event(Kind::SendAck, &ack),
            event(Kind::ReceiveAck, &cursor),
            event(Kind::Gap, &gap),
        ];
        for (id, expected) in [(12, [true; 4]), (11, [false, false, false, true])] {
            let (id, channel) = (Some(id), Some(channel));
            let mut filter = Filter::new(Wanted { id, channel, ..Wanted::default() });
            events.iter().for_each(|event| filter.learn(event));
            assert_eq!([0, 1, 2, 3].map(|at| filter.wants(&events[at])), expected);
        }
    }

    #[test]
    fn a_user_is_found_as_speaker_and_as_member() {
        let cursor = Cursor {
            channel: channel("8-9").unwrap(),
            id: 1.into(),
            incarnation: 1.into(),
            reserved: 0.into(),
        };
        let event = event(Kind::ReceiveAck, &cursor);
        for (uin, wanted) in [(7, true), (8, true), (9, true), (10, false)] {
            let filter = Filter::new(Wanted { uin: Some(Uin(uin)), ..Wanted::default() });
            assert_eq!(filter.wants(&event), wanted, "{uin}");
        }
        assert!(channel("0-4").is_err() && channel("g0").is_err() && channel("x").is_err());
        assert!(kind("push").unwrap() == Kind::Push && kind("pusch").is_err());
    }
}
