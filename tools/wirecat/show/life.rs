//! The life of one message: every frame on the wire that tells of it, as a sequence between the
//! devices and the server.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tern_protocol::{ChannelId, Frame, MessageId};

use crate::capture::Stamp;
use crate::event::{Carrier, Event, What, Who};
use crate::quic::Way;

/// A step: a frame between a device and the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// When it passed the tap.
    pub at: Stamp,
    /// The device.
    pub who: Who,
    /// Which way.
    pub way: Way,
    /// What it was, in a few words.
    pub label: String,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its channel.
    pub channel: ChannelId,
    /// Its id.
    pub id: MessageId,
    /// The devices, the sender first.
    pub devices: Vec<Who>,
    /// What was seen, in order.
    pub steps: Vec<Step>,
}

/// The sender of a message, and its key.
type Origin = (Who, (u32, u32));

impl Life {
    /// Finds all that these events tell of a message; `None` if nothing.
    pub fn of(channel: ChannelId, id: MessageId, events: &[Event]) -> Option<Self> {
        let origin = events.iter().find_map(|event| origin(event, channel, id));
        let mut consumed = BTreeSet::new();
        let mut steps: Vec<Step> = events
            .iter()
            .filter_map(|event| {
                let (who, What::Frame { way, carrier, is_again, bytes }) =
                    (event.who?, &event.what)
                else {
                    return None;
                };
                let (frame, _) = Frame::parse(bytes).ok()?;
                let mut label = label(&frame, who, channel, id, origin, &mut consumed)?;
                if *carrier == Carrier::Datagram {
                    label += " by datagram";
                }
                if *is_again {
                    label += " again";
                }
                Some(Step { at: event.at, who, way: *way, label })
            })
            .collect();
        steps.sort_by_key(|step| step.at);
        let mut devices: Vec<Who> = origin.map(|(who, _)| who).into_iter().collect();
        for step in &steps {
            if !devices.contains(&step.who) {
                devices.push(step.who);
            }
        }
        (!steps.is_empty()).then_some(Self { channel, id, devices, steps })
    }

    /// Milliseconds from the first step to one.
    pub fn after(&self, step: &Step) -> f64 {
        let first = self.steps.first().map_or(step.at, |first| first.at);
        step.at.since(first) as f64 / 1e6
    }

    /// The sequence as text: a column for the sender, one for the server, one for each receiver.
    pub fn text(&self) -> String {
        let mut text = format!("message {} of channel {}\n", self.id, self.channel);
        for step in &self.steps {
            let device = format!("{}.{}", step.who.uin, step.who.device);
            let is_sender = self.devices.first() == Some(&step.who);
            let (left, right) = match (is_sender, step.way) {
                (true, Way::ToServer) => (format!("{device} --> server"), String::new()),
                (true, Way::ToClient) => (format!("{device} <-- server"), String::new()),
                (false, Way::ToServer) => (String::new(), format!("server <-- {device}")),
                (false, Way::ToClient) => (String::new(), format!("server --> {device}")),
            };
            // Writing to a string does not fail.
            let after = self.after(step);
            let _ = writeln!(text, "{after:>10.3} ms  {left:<22} {right:<24} {}", step.label);
        }
        text
    }
}

/// Who sent the message, if this event tells.
fn origin(event: &Event, channel: ChannelId, id: MessageId) -> Option<Origin> {
    let What::Frame { bytes, .. } = &event.what else { return None };
    match Frame::parse(bytes).ok()?.0 {
        Frame::SendAck(ack) if ack.channel == channel && ack.id.get() == id.0 => {
            Some((event.who?, (ack.epoch.get(), ack.counter.get())))
        }
        Frame::Push(push, _) if push.channel == channel && push.id.get() == id.0 => {
            let who = Who { uin: push.sender.into(), device: push.device.into() };
            Some((who, (push.epoch.get(), push.counter.get())))
        }
        _ => None,
    }
}

/// What the frame tells of the message, if anything. `consumed` holds the devices that have
/// acknowledged it: later cursors tell nothing new.
fn label(
    frame: &Frame<'_>,
    who: Who,
    channel: ChannelId,
    id: MessageId,
    origin: Option<Origin>,
    consumed: &mut BTreeSet<Who>,
) -> Option<String> {
    let is_it = |other: ChannelId, number: u64| other == channel && number == id.0;
    let is_key = |other: ChannelId, epoch: u32, counter: u32| {
        other == channel && origin == Some((who, (epoch, counter)))
    };
    let within =
        |other: ChannelId, from: u64, to: u64| other == channel && (from..=to).contains(&id.0);
    match frame {
        Frame::Send(send, content)
            if is_key(send.channel, send.epoch.get(), send.counter.get()) =>
        {
            Some(format!("SEND {} ({} bytes)", send.key(), content.len()))
        }
        Frame::SendAck(ack) if is_it(ack.channel, ack.id.get()) => {
            Some(format!("SEND_ACK {} is message {id}", ack.key()))
        }
        Frame::SendRefused(refused)
            if is_key(refused.channel, refused.epoch.get(), refused.counter.get()) =>
        {
            let code = tern_protocol::Code(refused.code.get());
            Some(format!("SEND_REFUSED {} {code}", refused.key()))
        }
        Frame::Push(push, _) if is_it(push.channel, push.id.get()) => Some(format!("PUSH {id}")),
        Frame::ReceiveAck(cursors) => {
            let reached = cursors.iter().find(|c| c.channel == channel && c.id.get() >= id.0)?;
            consumed.insert(who).then(|| format!("RECEIVE_ACK up to {}", reached.id.get()))
        }
        Frame::Fetch(fetch) if within(fetch.channel, fetch.from.get(), fetch.to.get()) => {
            Some(format!("FETCH {} to {}", fetch.from.get(), fetch.to.get()))
        }
        Frame::Gap(gap) if within(gap.channel, gap.from.get(), gap.to.get()) => {
            let code = tern_protocol::Code(gap.code.get());
            Some(format!("GAP {} to {}: {code}", gap.from.get(), gap.to.get()))
        }
        _ => None,
    }
}
