//! The cursors of devices that left, for as long as their sessions may be resumed: a device that
//! comes back with the same digest need not say its list again (SPEC.md §4.10).
//!
//! Comes in: what a session knew when its connection went. Goes out: the list, once. Worth naming:
//! nothing rests on it; what is not here any more, the client says.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tern_protocol::digest::{CursorDigest, UNSAID};
use tern_protocol::frames::Cursor;

use crate::mail::Device;
use crate::time::Mono;

/// Cursors that one shard keeps for those who left: 32 MB. The oldest go first.
const CURSORS_MAX: usize = 1 << 20;

/// All that one shard keeps.
#[derive(Default)]
pub(super) struct Left {
    devices: FxHashMap<Device, Kept>,
    /// In the order of leaving; what was taken or left again since is passed over.
    order: VecDeque<(Mono, Device)>,
    cursors: usize,
}

struct Kept {
    since: Mono,
    digest: u64,
    list: Vec<Cursor>,
}

impl Left {
    /// A device left, and its session may be resumed for `resume_ms`.
    pub(super) fn keep(&mut self, now: Mono, resume_ms: u32, device: Device, list: Vec<Cursor>) {
        self.forget(device);
        self.expire(now, resume_ms);
        if list.is_empty() || list.len() > CURSORS_MAX {
            return;
        }
        while self.cursors + list.len() > CURSORS_MAX {
            let Some((since, oldest)) = self.order.pop_front() else { break };
            self.forget_since(oldest, since);
        }
        self.cursors += list.len();
        self.devices.insert(device, Kept { since: now, digest: digest_of(&list), list });
        self.order.push_back((now, device));
    }

    /// The cursors of a device that comes back, if they are those of its digest.
    pub(super) fn take(
        &mut self,
        now: Mono,
        resume_ms: u32,
        device: Device,
        digest: u64,
    ) -> Option<Vec<Cursor>> {
        self.expire(now, resume_ms);
        let kept = self.remove(device);
        if digest == UNSAID {
            return None;
        }
        if digest == CursorDigest::default().to_wire() {
            return Some(Vec::new());
        }
        kept.filter(|kept| kept.digest == digest).map(|kept| kept.list)
    }

    /// The device's session can't be resumed.
    pub(super) fn forget(&mut self, device: Device) {
        self.remove(device);
    }

    fn remove(&mut self, device: Device) -> Option<Kept> {
        let kept = self.devices.remove(&device)?;
        self.cursors -= kept.list.len();
        Some(kept)
    }

    fn forget_since(&mut self, device: Device, since: Mono) {
        if self.devices.get(&device).is_some_and(|kept| kept.since == since) {
            self.forget(device);
        }
    }

    fn expire(&mut self, now: Mono, resume_ms: u32) {
        while let Some((since, device)) =
            self.order.pop_front_if(|(since, _)| now.since_ms(*since) > u64::from(resume_ms))
        {
            self.forget_since(device, since);
        }
    }
}

fn digest_of(list: &[Cursor]) -> u64 {
    let mut digest = CursorDigest::default();
    for cursor in list {
        digest.add(cursor.channel, cursor.id.into(), cursor.incarnation.into());
    }
    digest.to_wire()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::{ChannelId, DeviceId, Uin};

    fn device(number: u32) -> Device {
        Device { uin: Uin(1), device: DeviceId(number) }
    }

    fn list(count: u64) -> Vec<Cursor> {
        let cursor = |n: u64| Cursor {
            channel: ChannelId::direct(Uin(1), Uin(n + 1)),
            id: n.into(),
            incarnation: 1.into(),
            reserved: 0.into(),
        };
        (1..=count).map(cursor).collect()
    }

    #[test]
    fn a_list_is_given_once_to_its_own_digest_while_the_session_may_go_on() {
        let (mut left, digest) = (Left::default(), digest_of(&list(3)));
        for (digest, at, expected) in [
            (digest, 1_100, Some(list(3))),
            (digest, 1_101, None),
            (digest ^ 1, 1_000, None),
            (UNSAID, 1_000, None),
            (1, 1_000, Some(Vec::new())),
        ] {
            left.keep(Mono(1_000), 100, device(1), list(3));
            assert_eq!(left.take(Mono(at), 100, device(1), digest), expected, "{digest} {at}");
            assert_eq!(left.take(Mono(at), 100, device(1), digest).unwrap_or_default(), []);
        }
        assert_eq!((left.cursors, left.devices.len()), (0, 0));
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut left = Left::default();
        for number in 1..=5 {
            left.keep(Mono(u64::from(number)), 1_000, device(number), list(1 << 18));
        }
        assert!(left.cursors <= CURSORS_MAX);
        let digest = digest_of(&list(1 << 18));
        assert_eq!(left.take(Mono(6), 1_000, device(1), digest), None, "the first has gone");
        assert!(left.take(Mono(6), 1_000, device(5), digest).is_some());
    }

    #[test]
    fn who_comes_and_goes_leaves_nothing_behind() {
        let mut left = Left::default();
        for at in 0..1_000 {
            left.keep(Mono(at), 100, device(1), list(2));
        }
        assert!(left.order.len() <= 102, "{}", left.order.len());
        assert_eq!(left.cursors, 2);
    }
}
