//! A trace for programs: one object. Numbers of 64 bits are strings, as many readers of JSON round
//! large ones.

use serde_json::{Value, json};
use tern_core::moments::Happened;
use tern_storage::{Carrier, What};

use super::Told;
use crate::trace::{Fate, Logged, Moment, Proof, Recorded};

/// Everything.
pub(super) fn whole(told: &Told) -> String {
    let trace = &told.trace;
    let object = json!({
        "channel": trace.channel.to_string(),
        "id": trace.id.to_string(),
        "log": log(told),
        "recorder": match &trace.recorded {
            Ok(recorded) => recorder(told, recorded),
            Err(error) => json!({ "missing": error.to_string() }),
        },
    });
    format!("{object}\n")
}

fn log(told: &Told) -> Value {
    let log = &told.trace.log;
    let mut object = match &log.fate {
        Fate::Found(found) => standing(found),
        Fate::NotYet { newest } => {
            json!({ "state": "not-yet", "newest": newest.map(|id| id.to_string()) })
        }
        Fate::Expired { oldest } => json!({ "state": "expired", "oldest": oldest.to_string() }),
        Fate::Lost => json!({ "state": "lost" }),
    };
    object["shard"] = log.shard.0.into();
    object["mentions"] = log
        .mentions
        .iter()
        .map(|mention| {
            json!({
                "id": mention.id.to_string(),
                "what": if mention.recalls { "recalled" } else { "edited" },
                "by": mention.sender.to_string(),
                "at_ms": mention.server_ms.to_string(),
            })
        })
        .collect();
    object["mentions_all"] = log.mentions_all.to_string().into();
    object["damage"] = log
        .damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.path.display().to_string(),
                "from": damage.from.to_string(),
                "to": damage.to.to_string(),
            })
        })
        .collect();
    object["damage_all"] = log.damage_all.to_string().into();
    object
}

fn standing(found: &Logged) -> Value {
    let proof = match found.proof {
        Proof::Mark(at) => json!({ "mark": at.to_string() }),
        Proof::LaterSegment => json!("later-segment"),
        Proof::None => Value::Null,
    };
    json!({
        "state": "found",
        "file": found.path.display().to_string(),
        "segment": found.segment.to_string(),
        "offset": found.at.to_string(),
        "byte": found.byte.to_string(),
        "batch": found.batch.map(|at| at.to_string()),
        "proof": proof,
        "sender": found.sender.to_string(),
        "device": found.device.0,
        "key": found.key.to_string(),
        "accepted_ms": found.server_ms.to_string(),
        "kind": found.kind,
        "refers_to": found.refers_to.to_string(),
        "content_bytes": found.content_bytes,
    })
}

fn recorder(told: &Told, recorded: &Recorded) -> Value {
    let rings = &recorded.recording.rings;
    let sum = |of: fn(&tern_storage::RingFacts) -> u64| rings.iter().map(of).sum::<u64>();
    let moments = recorded.moments.iter().map(|moment| one(recorded, moment));
    let silent = told
        .silent()
        .into_iter()
        .map(|one| json!({ "uin": one.uin.to_string(), "device": one.device, "label": one.label }));
    json!({
        "whole_from_us": recorded.recording.whole_from_us().to_string(),
        "overwritten": sum(|ring| ring.overwritten).to_string(),
        "unreadable": sum(|ring| ring.unreadable).to_string(),
        "left_out": recorded.left_out.to_string(),
        "moments": moments.collect::<Vec<_>>(),
        "devices": recorded.devices().iter().map(|story| {
            let at = |moment: Option<Moment>| moment.map(|moment| after(recorded, &moment));
            json!({
                "uin": story.device.uin.to_string(),
                "device": story.device.device.0,
                "granted": at(story.granted),
                "pushed": at(story.pushed),
                "pushes": story.pushes.to_string(),
                "carrier": story.carrier.map(carrier),
                "acked": at(story.acked),
            })
        }).collect::<Vec<_>>(),
        "silent": silent.collect::<Vec<_>>(),
    })
}

/// Microseconds from the origin on.
fn after(recorded: &Recorded, moment: &Moment) -> i64 {
    recorded.origin().map_or(0, |origin| Recorded::between_us(origin, moment))
}

fn one(recorded: &Recorded, moment: &Moment) -> Value {
    let (what, upto) = match moment.entry.what {
        What::Happened(Happened::Received(_)) => ("received", None),
        What::Happened(Happened::Refused(..)) => ("refused", None),
        What::Happened(Happened::Repeated(_)) => ("repeated", None),
        What::Happened(Happened::Appended(_)) => ("appended", None),
        What::Happened(Happened::Committed(_)) => ("committed", None),
        What::Happened(Happened::Granted(upto)) => ("granted", Some(upto)),
        What::Pushed(..) => ("pushed", None),
        What::Happened(Happened::Acked(upto)) => ("acked", Some(upto)),
    };
    let mut object = json!({
        "what": what,
        "after_us": after(recorded, moment),
        "at_us": moment.entry.stamp.wall_us.to_string(),
        "run": moment.entry.run,
        "worker": moment.worker,
    });
    if let Some(device) = moment.entry.device {
        object["uin"] = device.uin.to_string().into();
        object["device"] = device.device.0.into();
    }
    if let Some(upto) = upto {
        object["upto"] = upto.to_string().into();
    }
    match moment.entry.what {
        What::Happened(Happened::Refused(_, code)) => object["code"] = code.to_string().into(),
        What::Pushed(_, by) => object["carrier"] = carrier(by).into(),
        What::Happened(_) => {}
    }
    object
}

fn carrier(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Stream => "stream",
        Carrier::Datagram => "datagram",
        Carrier::Repair => "repair",
        Carrier::Copy => "copy",
    }
}
