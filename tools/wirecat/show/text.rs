//! A line of text for each event.

use std::fmt::Write as _;

use tern_protocol::{Code, Flags};

use super::fields::{self, Named, Value};
use crate::event::{Carrier, Event, What};
use crate::quic::Way;

/// Entries of a list that are shown.
const ENTRIES_SHOWN: usize = 8;

/// Characters of a content that are shown.
const CONTENT_CHARS: usize = 60;

/// The line; `secrets` shows the secrets too.
pub fn line(event: &Event, secrets: bool) -> String {
    let (at, connection) = (event.at.time_of_day(), event.connection.0);
    let who = event.who.map_or_else(String::new, |who| format!("{}.{}", who.uin, who.device));
    format!("{at} {:>6} #{connection:<3} {who:<9} {}", event.packet, what(&event.what, secrets))
}

fn what(what: &What, secrets: bool) -> String {
    match what {
        What::Opened { client, server } => format!("--  opened {client} to {server}"),
        What::Frame { way, carrier, is_again, bytes } => {
            let carrier = if *carrier == Carrier::Datagram { " by datagram" } else { "" };
            let again = if *is_again { " again" } else { "" };
            format!("{} {}{carrier}{again}", arrow(*way), frame(bytes, secrets))
        }
        What::Moved { way, from, to } => format!("--  {} moved from {from} to {to}", side(*way)),
        What::KeysUpdated { way } => format!("--  {} changed its keys", side(*way)),
        What::Sealed => "--  the key log has no secrets of this connection".to_owned(),
        What::Foreign { protocols } => {
            format!("--  speaks another protocol: {}", protocols.join(", "))
        }
        What::StreamReset { way, stream, code } => {
            format!("--  {} gave up stream {stream}: {}", side(*way), code_of(*code))
        }
        What::Closed { way, code, by_application, reason } => {
            let code = if *by_application { code_of(*code) } else { format!("QUIC {code:#x}") };
            format!("--  {} closed the connection: {code} {reason:?}", side(*way))
        }
        What::StatelessReset => "--  the server does not know the connection (reset)".to_owned(),
    }
}

/// A frame with its fields.
pub fn frame(bytes: &[u8], secrets: bool) -> String {
    let parts = fields::parts(bytes, secrets);
    let mut text = parts.kind.to_string();
    if parts.is_malformed {
        text += " MALFORMED";
    }
    if parts.flags & Flags::LAST.0 != 0 {
        text += " LAST";
    }
    if parts.flags & !Flags::KNOWN.0 != 0 {
        // Writing to a string does not fail.
        let _ = write!(text, " flags={:#04x}", parts.flags);
    }
    match parts.entries.first() {
        Some(entry) if !parts.is_list => text + " " + &named(entry),
        _ => text + " " + &list(&parts.entries),
    }
}

/// The first entries of a list.
fn list(entries: &[Vec<Named>]) -> String {
    let mut text = format!("{} entries", entries.len());
    for entry in entries.iter().take(ENTRIES_SHOWN) {
        // Writing to a string does not fail.
        let _ = write!(text, " [{}]", named(entry));
    }
    if entries.len() > ENTRIES_SHOWN {
        text += " …";
    }
    text
}

fn named(entry: &[Named]) -> String {
    let fields: Vec<String> =
        entry.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    fields.join(" ")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Small(number) | Value::Large(number) => number.to_string(),
        Value::Channel(channel) => channel.to_string(),
        Value::Name(name) => name.clone(),
        Value::Text(text) => {
            let cut: String = text.chars().take(CONTENT_CHARS).collect();
            let more = if cut.len() < text.len() { "…" } else { "" };
            format!("{cut:?}{more}")
        }
        Value::Bytes(bytes) => {
            let cut: String =
                bytes.iter().take(CONTENT_CHARS / 2).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > CONTENT_CHARS / 2 { "…" } else { "" };
            format!("<{} bytes>{cut}{more}", bytes.len())
        }
        Value::Secret(bytes) => format!("<{bytes} bytes kept secret>"),
        Value::List(entries) => list(entries),
    }
}

/// Which way, as a picture.
fn arrow(way: Way) -> &'static str {
    match way {
        Way::ToServer => "->",
        Way::ToClient => "<-",
    }
}

/// Who sends this way.
pub fn side(way: Way) -> &'static str {
    match way {
        Way::ToServer => "client",
        Way::ToClient => "server",
    }
}

/// An application's error code, by the registry.
fn code_of(code: u64) -> String {
    u16::try_from(code).map_or_else(|_| format!("code {code:#x}"), |code| Code(code).to_string())
}
