//! A trace for people: what the log says, what happened when, and what each device has.

use std::fmt::Write as _;

use tern_core::moments::Happened;
use tern_protocol::frames::message_kind;
use tern_storage::{Carrier, What};

use super::Told;
use crate::cli::output::{columns, time, time_us};
use crate::trace::{DeviceStory, Fate, Logged, Mention, Moment, Proof, Recorded};

/// Everything.
pub(super) fn whole(told: &Told) -> String {
    let trace = &told.trace;
    let mut text = format!("message {} of {}\n\n", trace.id, trace.channel);
    text += &log(told);
    match &trace.recorded {
        Ok(recorded) => {
            text += &timeline(told, recorded);
            text += &devices(told, recorded);
            text += &bounds(recorded);
        }
        Err(error) => _ = writeln!(text, "\nrecorder  {error}"),
    }
    text
}

fn log(told: &Told) -> String {
    let log = &told.trace.log;
    let mut text = match &log.fate {
        Fate::Found(found) => standing(told, found),
        Fate::NotYet { newest: None } => {
            format!("log       shard {} has no message of this channel\n", log.shard.0)
        }
        Fate::NotYet { newest: Some(newest) } => format!(
            "log       shard {} has no such message yet: the newest of this channel is {newest}\n",
            log.shard.0
        ),
        Fate::Expired { oldest } => format!(
            "log       it is past its retention: the oldest of this channel in shard {} is \
             {oldest}\n",
            log.shard.0
        ),
        Fate::Lost => format!(
            "log       LOST: it was in shard {}, between others that are there, and its bytes are \
             damaged\n",
            log.shard.0
        ),
    };
    for mention in &log.mentions {
        text += &about(told, mention);
    }
    if log.mentions_all > log.mentions.len() as u64 {
        _ = writeln!(text, "          and {} more", log.mentions_all - log.mentions.len() as u64);
    }
    for damage in &log.damage {
        let (from, to, path) = (damage.from, damage.to, damage.path.display());
        _ = writeln!(text, "          damaged: offsets {from} to {to} in {path}");
    }
    if log.damage_all > log.damage.len() as u64 {
        let more = log.damage_all - log.damage.len() as u64;
        _ = writeln!(text, "          and {more} more damaged places");
    }
    text
}

fn standing(told: &Told, found: &Logged) -> String {
    let sender = told.device(found.sender, found.device.0);
    let kind = match found.kind {
        message_kind::CONTENT => "a message".to_owned(),
        message_kind::CHANGE => "a change of the group".to_owned(),
        message_kind::RECALL => format!("a recall of message {}", found.refers_to),
        message_kind::EDIT => format!("an edit of message {}", found.refers_to),
        other => format!("of kind {other}"),
    };
    let batch = found.batch.map_or("unknown".to_owned(), |at| format!("at offset {at}"));
    let proof = match found.proof {
        Proof::Mark(at) => format!("durable, proven by the mark at offset {at}"),
        Proof::LaterSegment => "durable, proven by a later segment".to_owned(),
        Proof::None if told.trace.is_committed() => {
            "durable, as the recorder says; the log itself proves it with its next batch".to_owned()
        }
        Proof::None => {
            "not proven by the log yet: the newest batch, acked a moment ago or never".to_owned()
        }
    };
    format!(
        "from      {sender}, key {}\n\
         what      {kind}, {} bytes of content\n\
         accepted  {}\n\
         log       shard {}, segment {}, offset {}\n          byte {} of {}\n          \
         batch {batch}; {proof}\n",
        found.key,
        found.content_bytes,
        time_us(found.server_ms.saturating_mul(1_000)),
        told.trace.log.shard.0,
        found.segment,
        found.at,
        found.byte,
        found.path.display(),
    )
}

fn about(told: &Told, mention: &Mention) -> String {
    let done = if mention.recalls { "RECALLED" } else { "edited" };
    let (id, who) = (mention.id, told.user(mention.sender));
    format!("          {done} by message {id} of {who}, {}\n", time(mention.server_ms))
}

/// Each moment, from the receipt of the send on.
fn timeline(told: &Told, recorded: &Recorded) -> String {
    let Some(origin) = recorded.origin() else { return String::new() };
    let from = match origin.entry.what {
        What::Happened(Happened::Received(_)) => "from the receipt of the send",
        _ => "from the first moment that is recorded",
    };
    let at = time_us(origin.entry.stamp.wall_us);
    let head = ["ms", "what", "device", "worker"].map(str::to_owned).to_vec();
    let rows = recorded.moments.iter().map(|moment| {
        let device = moment.entry.device;
        vec![
            after(origin, moment),
            what(moment.entry.what),
            device.map_or(String::new(), |one| told.device(one.uin, one.device.0)),
            moment.worker.to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let more = match recorded.left_out {
        0 => String::new(),
        more => format!("and {more} moments more\n"),
    };
    format!("\ntimeline, {from}, {at}\n{}{more}", columns(&rows))
}

fn what(what: What) -> String {
    match what {
        What::Happened(Happened::Received(key)) => format!("received under key {key}"),
        What::Happened(Happened::Refused(_, code)) => format!("refused: {code}"),
        What::Happened(Happened::Repeated(_)) => "repeat answered by the first ack".to_owned(),
        What::Happened(Happened::Appended(_)) => "appended".to_owned(),
        What::Happened(Happened::Committed(_)) => "durable: the ack may leave".to_owned(),
        What::Happened(Happened::Granted(upto)) => format!("may be read, up to {upto}"),
        What::Pushed(_, carrier) => format!("pushed {}", by(carrier)),
        What::Happened(Happened::Acked(upto)) => format!("acked, up to {upto}"),
    }
}

pub(super) fn by(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Stream => "by stream",
        Carrier::Datagram => "by datagram",
        Carrier::Repair => "by stream, after a lost datagram",
        Carrier::Copy => "by a second datagram",
    }
}

/// Milliseconds from the origin on, with their sign.
fn after(origin: &Moment, moment: &Moment) -> String {
    let us = Recorded::between_us(origin, moment);
    let sign = if us < 0 { '-' } else { '+' };
    format!("{sign}{}.{:03}", us.unsigned_abs() / 1_000, us.unsigned_abs() % 1_000)
}

/// What each device has.
fn devices(told: &Told, recorded: &Recorded) -> String {
    let head = ["device", "may read", "pushed", "acked", ""].map(str::to_owned).to_vec();
    let seen = recorded.devices().into_iter().map(|story| row(told, recorded, &story));
    let silent = told.silent().into_iter().map(|one| {
        let device = told.device(tern_protocol::Uin(one.uin), one.device);
        let none = || "-".to_owned();
        vec![device, none(), none(), none(), "nothing recorded: not connected since".to_owned()]
    });
    let rows: Vec<_> = std::iter::once(head).chain(seen).chain(silent).collect();
    match rows.len() {
        1 => "\nno device has it, as far as is recorded\n".to_owned(),
        _ => format!("\n{}", columns(&rows)),
    }
}

fn row(told: &Told, recorded: &Recorded, story: &DeviceStory) -> Vec<String> {
    let ms = |moment: Option<Moment>| match (recorded.origin(), moment) {
        (Some(origin), Some(moment)) => after(origin, &moment),
        _ => "-".to_owned(),
    };
    let how = match (story.carrier, story.pushes) {
        (Some(carrier), 1) => by(carrier).to_owned(),
        (Some(carrier), pushes) => format!("{pushes} times, the last time {}", by(carrier)),
        (None, _) if story.acked.is_some() => "it had it by other ways, or before".to_owned(),
        (None, _) => String::new(),
    };
    vec![
        told.device(story.device.uin, story.device.device.0),
        ms(story.granted),
        ms(story.pushed),
        ms(story.acked),
        how,
    ]
}

/// How far back all this goes.
fn bounds(recorded: &Recorded) -> String {
    let rings = &recorded.recording.rings;
    let overwritten: u64 = rings.iter().map(|ring| ring.overwritten).sum();
    let unreadable: u64 = rings.iter().map(|ring| ring.unreadable).sum();
    let from = time_us(recorded.recording.whole_from_us());
    let mut text = match overwritten {
        0 => format!("\nThe recorder begins at {from}; nothing was overwritten."),
        _ => format!("\nThe recorder goes back to {from}; older moments were overwritten."),
    };
    if unreadable > 0 {
        _ = write!(text, " {unreadable} entries can't be read: overwritten just now, or torn.");
    }
    text + "\n"
}
