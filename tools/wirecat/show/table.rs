//! The statistics of connections, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::quic::tracker::Strays;
use crate::stats::{Side, Stats};

/// One of a side's counts, with its name.
type Count = (&'static str, fn(&Side) -> u64);

/// What is shown of a side.
const COUNTS: [Count; 16] = [
    ("datagrams", |side| side.datagrams),
    ("bytes", |side| side.bytes),
    ("packets", |side| side.packets),
    ("packets_doubled", |side| side.doubled),
    ("packets_unopened", |side| side.unopened),
    ("packets_broken", |side| side.broken),
    ("lost_before_the_tap", |side| side.missing),
    ("lost_behind_the_tap", |side| side.unacknowledged),
    ("stream_bytes", |side| side.stream_bytes),
    ("stream_bytes_again", |side| side.repeated_bytes),
    ("stream_bytes_waiting", |side| side.waiting_bytes),
    ("frames", |side| side.frames),
    ("frames_by_datagram", |side| side.frames_by_datagram),
    ("messages_again", |side| side.frames_again),
    ("key_updates", |side| side.key_updates),
    ("round_trips", |side| side.round_trips.count()),
];

/// The summaries of round trips.
const SUMMARY: [&str; 4] = ["least", "p50", "p99", "most"];

/// A connection's statistics for people.
pub fn text(stats: &Stats) -> String {
    let who = stats.who.map_or_else(
        || "nobody logged in".to_owned(),
        |who| format!("user {} device {}", who.uin, who.device),
    );
    let mut text = format!(
        "connection #{} {} to {}, {who}, {}, {:.3} s, moved {} times",
        stats.connection.0,
        stats.client,
        stats.server,
        stats.suite.unwrap_or("not decrypted"),
        stats.lasted as f64 / 1e9,
        stats.moves,
    );
    // Writing to a string does not fail.
    if stats.held > 0 {
        let _ = write!(text, ", {} packets never opened for want of keys", stats.held);
    }
    let _ = writeln!(text, "\n  {:<22} {:>12} {:>12}", "", "client", "server");
    let [client, server] = &stats.sides;
    for (name, count) in COUNTS {
        let name = name.replace('_', " ");
        let _ = writeln!(text, "  {name:<22} {:>12} {:>12}", count(client), count(server));
    }
    let trips = [client, server].map(|side| side.round_trips.summary());
    for (at, name) in SUMMARY.iter().enumerate() {
        let ms = trips.map(|summary| {
            summary.map_or_else(|| "-".to_owned(), |all| format!("{:.1}", all[at] as f64 / 1e3))
        });
        let name = format!("round trip {name} ms");
        let _ = writeln!(text, "  {name:<22} {:>12} {:>12}", ms[0], ms[1]);
    }
    text
}

/// The same for programs.
pub fn object(stats: &Stats) -> Json {
    let side = |side: &Side| {
        let mut object: serde_json::Map<String, Json> =
            COUNTS.iter().map(|(name, count)| ((*name).to_owned(), count(side).into())).collect();
        if let Some(summary) = side.round_trips.summary() {
            for (name, micros) in SUMMARY.iter().zip(summary) {
                object.insert(format!("round_trip_us_{name}"), micros.into());
            }
        }
        Json::Object(object)
    };
    json!({
        "event": "statistics",
        "connection": stats.connection.0,
        "uin": stats.who.map(|who| who.uin.0.to_string()),
        "device": stats.who.map(|who| who.device.0),
        "client": stats.client.to_string(),
        "server": stats.server.to_string(),
        "suite": stats.suite,
        "lasted_ns": stats.lasted.to_string(),
        "moves": stats.moves,
        "held": stats.held,
        "from_client": side(&stats.sides[0]),
        "from_server": side(&stats.sides[1]),
    })
}

/// What belongs to no connection, in a sentence; empty if there is nothing.
pub fn strays(strays: Strays, (packets, skipped): (u64, u64)) -> String {
    let mut text = format!("{packets} packets, {skipped} of them no UDP datagrams");
    let parts = [
        (strays.foreign, "datagrams are not QUIC version 1"),
        (strays.unknown, "belong to connections whose beginning is not in the capture"),
        (strays.too_many, "connections too many to follow"),
    ];
    for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "; {count} {what}");
    }
    text
}
