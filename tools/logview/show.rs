//! Records, problems and tables in words and in JSON.

use serde_json::{Value, json};
use tern_core::log::{Record, RecordKind};
use tern_core::shard::records::{BlockBody, EntryBody, EpochBody, MarkEntry, MarksHead};
use tern_protocol::frames::{PushBody, block, content_type, message_kind};
use zerocopy::FromBytes;

use crate::change::{change_json, change_line};
use crate::output::{hex, time};
use crate::shard::{Problem, ProblemKind, Shard};

/// Characters of a text that a line shows.
const TEXT_CHARS_MAX: usize = 60;

/// A message, from a record's body; `None` if it is none.
pub(crate) fn message<'a>(record: &Record<'a>) -> Option<(&'a PushBody, &'a [u8])> {
    let body = record.kind.is_in_channel().then_some(record.body)?;
    PushBody::ref_from_prefix(body).ok()
}

/// A message as `tern recv --json` prints it, and what else it says.
pub(crate) fn message_json(push: &PushBody, content: &[u8]) -> Value {
    let mut object = json!({
        "channel": push.channel.to_string(),
        "id": push.id.to_string(),
        "sender": push.sender.to_string(),
        "device": push.device.get(),
        "key": push.key().to_string(),
        "server_time_ms": push.server_time.to_string(),
        "content_type": push.content_type.get(),
        "kind": push.kind,
    });
    if push.refers_to.get() != 0 {
        object["refers_to"] = push.refers_to.to_string().into();
    }
    match (text(push, content), change(push, content)) {
        (Some(text), _) => object["text"] = text.into(),
        (_, Some(content)) => object["change"] = change_json(content).into(),
        _ => object["content_hex"] = hex(content).into(),
    }
    object
}

/// A message's content, if it is text.
fn text<'a>(push: &PushBody, content: &'a [u8]) -> Option<&'a str> {
    let is_text = push.content_type.get() == content_type::TEXT;
    std::str::from_utf8(content).ok().filter(|_| is_text)
}

/// A message's content, if it is a change of a group.
fn change<'a>(push: &PushBody, content: &'a [u8]) -> Option<&'a [u8]> {
    let is_change = push.kind == message_kind::CHANGE && change_json(content).is_some();
    is_change.then_some(content)
}

/// A message in one line, without its channel.
pub(crate) fn message_line(push: &PushBody, content: &[u8]) -> String {
    let (id, sender, device, key) = (push.id, push.sender, push.device, push.key());
    let what = match text(push, content) {
        _ if push.kind == message_kind::RECALL => format!("recalls {}", push.refers_to),
        Some(text) => {
            let short: String = text.chars().take(TEXT_CHARS_MAX).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            let is_edit = push.kind == message_kind::EDIT;
            let what = if is_edit { format!("edits {}: ", push.refers_to) } else { String::new() };
            format!("{what}{short:?}{more}")
        }
        None if let Some(line) = change(push, content).and_then(change_line) => line,
        None => {
            let kind = push.content_type;
            format!("{} bytes of type {kind}", content.len())
        }
    };
    let at = time(push.server_time.get());
    format!("{id:>6}  {at}  {sender}/{device} key {key}  {what}")
}

/// What a record says, in JSON.
pub(crate) fn record_json(record: &Record<'_>) -> Value {
    match record.kind {
        RecordKind::Message | RecordKind::Change | RecordKind::Recall => {
            message(record).map(|(push, body)| message_json(push, body))
        }
        RecordKind::Epoch => EpochBody::ref_from_bytes(record.body).ok().map(|body| {
            json!({"uin": body.uin.to_string(), "device": body.device.get(),
                   "epoch": body.epoch.get(), "server_time_ms": body.server_time.to_string()})
        }),
        RecordKind::Entry => EntryBody::ref_from_bytes(record.body).ok().map(|body| {
            json!({"uin": body.uin.to_string(), "channel": body.channel.to_string(),
                   "server_time_ms": body.server_time.to_string()})
        }),
        RecordKind::Block => BlockBody::ref_from_bytes(record.body).ok().map(|body| {
            json!({"blocker": body.blocker.to_string(), "blocked": body.blocked.to_string(),
                   "begins": begins(body), "server_time_ms": body.server_time.to_string()})
        }),
        RecordKind::Read => marks(record).map(|(head, entries)| {
            let marks: Vec<Value> = entries.iter().map(mark_json).collect();
            json!({"uin": head.uin.to_string(), "marks": marks})
        }),
    }
    .unwrap_or_else(|| json!({"body_hex": hex(record.body)}))
}

/// What a record says, in words.
pub(crate) fn record_line(record: &Record<'_>) -> String {
    match record.kind {
        RecordKind::Message | RecordKind::Change | RecordKind::Recall => message(record)
            .map(|(push, body)| format!("{} {}", push.channel, message_line(push, body))),
        RecordKind::Epoch => EpochBody::ref_from_bytes(record.body)
            .ok()
            .map(|body| format!("{}/{} got epoch {}", body.uin, body.device, body.epoch)),
        RecordKind::Entry => EntryBody::ref_from_bytes(record.body)
            .ok()
            .map(|body| format!("{} entered {}", body.uin, body.channel)),
        RecordKind::Block => BlockBody::ref_from_bytes(record.body).ok().map(|body| {
            let blocks = if begins(body) { "blocks" } else { "blocks no more" };
            format!("{} {blocks} {}", body.blocker, body.blocked)
        }),
        RecordKind::Read => marks(record).map(|(head, entries)| {
            let marks: Vec<String> =
                entries.iter().map(|mark| format!("{} to {}", mark.channel, mark.read)).collect();
            format!("{} has read {}", head.uin, marks.join(", "))
        }),
    }
    .unwrap_or_else(|| format!("{} bytes that are no such body", record.body.len()))
}

fn begins(body: &BlockBody) -> bool {
    body.action.get() == u32::from(block::BEGIN)
}

fn marks<'a>(record: &Record<'a>) -> Option<(&'a MarksHead, &'a [MarkEntry])> {
    let (head, entries) = MarksHead::ref_from_prefix(record.body).ok()?;
    Some((head, <[MarkEntry]>::ref_from_bytes(entries).ok()?))
}

fn mark_json(mark: &MarkEntry) -> Value {
    json!({"channel": mark.channel.to_string(), "delivered": mark.delivered.to_string(),
           "read": mark.read.to_string(), "shown": mark.shown.to_string(),
           "incarnation": mark.incarnation.get()})
}

/// A kind's name.
pub(crate) fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Message => "message",
        RecordKind::Epoch => "epoch",
        RecordKind::Entry => "entry",
        RecordKind::Change => "change",
        RecordKind::Recall => "recall",
        RecordKind::Block => "block",
        RecordKind::Read => "read",
    }
}

/// A problem in words.
pub(crate) fn problem_line(shard: &Shard, problem: &Problem) -> String {
    let segment = problem.segment;
    let (word, gap) = match &problem.kind {
        ProblemKind::File(what) => return format!("DAMAGED  segment {segment}: {what}"),
        ProblemKind::Damage(gap) => ("DAMAGED", gap),
        ProblemKind::Torn(gap) => ("torn", gap),
    };
    let base = shard.segment_at(gap.at).and_then(|segment| segment.file.decoder);
    let place = base.map_or(0, |decoder| gap.at - decoder.header.base);
    let goes_on = match gap.to {
        Some(to) => format!("good records go on at offset {to}"),
        None => "no good record follows in this segment".into(),
    };
    let meaning = match problem.kind {
        ProblemKind::Torn(_) => "; nothing proves it was durable: a start cuts it off here",
        _ => "; it was durable",
    };
    let looks = gap.looks.text();
    format!(
        "{word}  segment {segment}, offset {} (byte {place} of the file): {looks}; {goes_on}{meaning}",
        gap.at
    )
}

/// A problem in JSON.
pub(crate) fn problem_json(shard: &Shard, problem: &Problem) -> Value {
    let (segment, shard) = (problem.segment.to_string(), shard.id.0);
    let (what, gap) = match &problem.kind {
        ProblemKind::File(why) => {
            return json!({"what": "problem", "shard": shard, "segment": segment,
                          "damage": true, "why": why});
        }
        ProblemKind::Damage(gap) => (true, gap),
        ProblemKind::Torn(gap) => (false, gap),
    };
    json!({
        "what": "problem", "shard": shard, "segment": segment, "damage": what,
        "at": gap.at.to_string(), "good_from": gap.to.map(|to| to.to_string()),
        "why": gap.looks.text(),
    })
}
