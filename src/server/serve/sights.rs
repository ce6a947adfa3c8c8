//! Looks at users' devices: first their home shards' workers, then the workers of their sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tern_core::io::LinkId;
use tern_core::placement::WorkerId;
use tern_core::sight::{DeviceSight, Place, SessionSight};
use tern_protocol::Uin;
use tokio::sync::oneshot;

use crate::control::presence::Presence;
use crate::worker::{Doors, Look, LookAt, Seen};

/// How long a worker is waited for: a turn of its loop takes a thousandth of it.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The devices of these users as the workers know them; `None` if a worker has no time for it.
pub(super) async fn presences(doors: &Arc<Doors>, uins: Vec<Uin>) -> Option<Vec<Presence>> {
    let placement = doors.placement();
    let mut homes: BTreeMap<u16, Vec<Uin>> = BTreeMap::new();
    for uin in uins {
        homes.entry(placement.worker_of(placement.home_of(uin)).0).or_default().push(uin);
    }
    let mut devices = Vec::new();
    for (worker, uins) in homes {
        let Seen::Users(seen) = look(doors, worker, LookAt::Users(uins)).await? else {
            return None;
        };
        devices.extend(seen);
    }
    let mut links: BTreeMap<u16, Vec<LinkId>> = BTreeMap::new();
    for (_, device) in &devices {
        if let Place::Online(session) = device.place {
            links.entry(session.worker.0).or_default().push(session.link);
        }
    }
    let mut sessions = HashMap::new();
    for (worker, links) in links {
        let at = LookAt::Sessions(links);
        let Seen::Sessions(seen) = look(doors, worker, at).await? else { return None };
        sessions.extend(seen.into_iter().map(|(link, sight)| ((worker, link), sight)));
    }
    let session_of = |device: &DeviceSight| match device.place {
        Place::Online(session) => sessions.get(&(session.worker.0, session.link)).copied(),
        Place::Away { .. } => None,
    };
    Some(devices.iter().map(|(uin, device)| show(*uin, device, session_of(device))).collect())
}

async fn look(doors: &Doors, worker: u16, at: LookAt) -> Option<Seen> {
    let (answer, seen) = oneshot::channel();
    // Who asked may have given up meanwhile.
    let reply = Box::new(|seen| drop(answer.send(seen)));
    if !doors.look(WorkerId(worker), Look { at, reply }) {
        return None;
    }
    tokio::time::timeout(ANSWER_MAX, seen).await.ok()?.ok()
}

fn show(uin: Uin, device: &DeviceSight, session: Option<SessionSight>) -> Presence {
    let (away_ms, resumable) = match device.place {
        Place::Online(_) => (None, false),
        Place::Away { for_ms, resumable } => (for_ms, resumable),
    };
    let logins = device.logins.iter().map(|login| login.0).filter(|login| *login > 0);
    Presence {
        uin: uin.0,
        device: device.device.0,
        online: matches!(device.place, Place::Online(_)),
        network: device.network.into(),
        online_ms: session.map(|session| session.online_ms),
        silent_ms: session.map(|session| session.silent_ms),
        beat_ms: session.map(|session| session.beat_ms),
        away_ms,
        resumable,
        logins_ms: logins.collect(),
    }
}
