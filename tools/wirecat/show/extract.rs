//! What clients said, as a file that can be said again: a JSON object a line for each frame of a
//! client, in the order in which they were whole in the capture. SEND_ACKs of the server stand
//! among them: they tell which id a message got, by which edits and recalls name it.
//!
//! Secrets are what a reader must not get by the way: of LOGIN, TOKEN_LOGIN and RESUME the bytes
//! are left out unless asked for. Whoever says the frames again needs credentials of its own then.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tern_protocol::{Frame, Kind};

use crate::capture::Stamp;
use crate::event::{Carrier, ConnectionId, Event, What};
use crate::quic::Way;

/// Turns events into lines.
#[derive(Default)]
pub struct Extract {
    /// The first event of the capture: times are counted from it.
    begun: Option<Stamp>,
    /// The epoch that each connection's login was answered with.
    epochs: BTreeMap<ConnectionId, u32>,
    with_secrets: bool,
}

impl Extract {
    /// With the bytes of logins, or without.
    pub fn new(with_secrets: bool) -> Self {
        Self { with_secrets, ..Self::default() }
    }

    /// The line of an event, if it is a frame of a client or a SEND_ACK. All events of the capture must come
    /// by, in their order.
    pub fn line(&mut self, event: &Event) -> Option<Json> {
        let begun = *self.begun.get_or_insert(event.at);
        let What::Frame { way, carrier, is_again, bytes } = &event.what else { return None };
        let frame = Frame::parse(bytes).ok().map(|(frame, _)| frame);
        if let (Way::ToClient, Some(Frame::LoggedIn(logged_in))) = (way, &frame) {
            self.epochs.insert(event.connection, logged_in.epoch.get());
        }
        if *way == Way::ToClient && !matches!(frame, Some(Frame::SendAck(_))) {
            return None;
        }
        // What can't be taken apart is said again as it was.
        let kind = frame.as_ref().map_or(Kind(bytes.get(2).copied()?), Frame::kind);
        let is_secret = matches!(kind, Kind::Login | Kind::TokenLogin | Kind::Resume);
        let mut line = json!({
            "at_us": (event.at.since(begun) / 1_000).to_string(),
            "connection": event.connection.0,
            "kind": kind.to_string(),
            "by": if *carrier == Carrier::Datagram { "datagram" } else { "stream" },
            "again": is_again,
        });
        if let Some(who) = event.who {
            line["uin"] = who.uin.0.to_string().into();
            line["device"] = who.device.0.into();
        }
        if let Some(epoch) = self.epochs.get(&event.connection) {
            line["epoch"] = (*epoch).into();
        }
        if is_secret && !self.with_secrets {
            line["secret_bytes"] = bytes.len().into();
        } else {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            line["hex"] = hex.into();
        }
        Some(line)
    }
}
