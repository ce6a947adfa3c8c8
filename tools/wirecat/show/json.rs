//! A JSON object for each event, one on a line. Numbers of eight bytes are strings, since many
//! readers keep numbers as floats.

use serde_json::{Map, Value as Json, json};

use super::fields::{self, Named, Value};
use super::text::side;
use crate::event::{Carrier, Event, What};

/// The object; `secrets` shows the secrets too.
pub fn object(event: &Event, secrets: bool) -> Json {
    let mut object = Map::new();
    object.insert("at_ns".into(), event.at.0.to_string().into());
    object.insert("packet".into(), event.packet.into());
    object.insert("connection".into(), event.connection.0.into());
    if let Some(who) = event.who {
        object.insert("uin".into(), who.uin.0.to_string().into());
        object.insert("device".into(), who.device.0.into());
    }
    let (name, more) = what(&event.what, secrets);
    object.insert("event".into(), name.into());
    if let Json::Object(more) = more {
        object.extend(more);
    }
    Json::Object(object)
}

fn what(what: &What, secrets: bool) -> (&'static str, Json) {
    match what {
        What::Opened { client, server } => {
            ("opened", json!({ "client": client.to_string(), "server": server.to_string() }))
        }
        What::Frame { way, carrier, is_again, bytes } => {
            let carrier = if *carrier == Carrier::Datagram { "datagram" } else { "stream" };
            let head = json!({ "from": side(*way), "carrier": carrier, "again": is_again });
            let Json::Object(mut head) = head else { unreachable!("it is an object") };
            head.extend(frame(bytes, secrets));
            ("frame", Json::Object(head))
        }
        What::Moved { way, from, to } => {
            ("moved", json!({ "side": side(*way), "old": from.to_string(), "new": to.to_string() }))
        }
        What::KeysUpdated { way } => ("keys_updated", json!({ "side": side(*way) })),
        What::Sealed => ("sealed", json!({})),
        What::Foreign { protocols } => ("foreign", json!({ "protocols": protocols })),
        What::StreamReset { way, stream, code } => {
            ("stream_reset", json!({ "side": side(*way), "stream": stream, "code": code }))
        }
        What::Closed { way, code, by_application, reason } => (
            "closed",
            json!({ "side": side(*way), "code": code, "by_application": by_application,
                    "reason": reason }),
        ),
        What::StatelessReset => ("stateless_reset", json!({})),
    }
}

fn frame(bytes: &[u8], secrets: bool) -> Map<String, Json> {
    let parts = fields::parts(bytes, secrets);
    let mut object = Map::new();
    object.insert("kind".into(), parts.kind.to_string().into());
    object.insert("flags".into(), parts.flags.into());
    if parts.is_malformed {
        object.insert("malformed".into(), true.into());
    }
    let mut entries = parts.entries.iter().map(|entry| named(entry));
    if parts.is_list {
        object.insert("entries".into(), entries.collect());
    } else if let Some(fields) = entries.next() {
        object.insert("fields".into(), fields);
    }
    object
}

fn named(entry: &[Named]) -> Json {
    Json::Object(entry.iter().map(|(name, value)| ((*name).into(), plain(value))).collect())
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Small(number) => (*number).into(),
        Value::Large(number) => number.to_string().into(),
        Value::Channel(channel) => channel.to_string().into(),
        Value::Name(text) | Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
        Value::Secret(bytes) => json!({ "secret_bytes": bytes }),
        Value::List(entries) => entries.iter().map(|entry| named(entry)).collect(),
    }
}
