//! When a shard's log is committed: at the end of each turn that appended something which somebody
//! waits for, and at most once in a while for what can wait.
//!
//! A record that comes while a commit is under way waits for that one to end and for its own. So a
//! crowd of logins, each of which appends its epoch, would keep the disk busy all the time, and every
//! message would wait twice as long. Their commits are paced: a few are at once, those behind them
//! gather, and whatever else is committed takes them along.

use tern_protocol::{ChannelId, MessageId};

use crate::limiter::{Limiter, Rate};
use crate::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Record, RecordKind,
};
use crate::time::Mono;

/// Time between two commits of nothing but what can wait, in ms. A sync takes some 0.3 ms, so of a
/// hundred messages three meet one; a login takes longer by no more than this.
const PACE_MS: u64 = 10;

/// Such commits that are made at once after a pause: who comes alone waits for nothing.
const BURST: u32 = 32;

/// A shard's log, and what of it was not handed to the commit yet.
pub(super) struct Paced<L> {
    log: L,
    uncommitted: Uncommitted,
    /// What was used of the pace, and when there is more of it, if that was asked.
    limiter: Limiter,
    free: Mono,
}

/// What was appended since the last commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Uncommitted {
    Nothing,
    CanWait,
    Hurries,
}

impl<L: Log> Paced<L> {
    pub(super) fn new(log: L) -> Self {
        let (limiter, free) = (Limiter::default(), Mono(0));
        Self { log, uncommitted: Uncommitted::Nothing, limiter, free }
    }

    /// See [`Log::append`].
    pub(super) fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        let at = self.log.append(kind, links, body)?;
        self.uncommitted = self.uncommitted.max(Uncommitted::of(kind));
        Ok(at)
    }

    /// Ends a turn: starts to make what was appended durable, if its time has come.
    pub(super) fn commit(&mut self, now: Mono) {
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        if self.uncommitted == Uncommitted::CanWait
            && let Err(wait_ms) = self.limiter.take(now, Rate::new(1, PACE_MS, BURST))
        {
            self.free = now.after_ms(wait_ms.into());
            return;
        }
        self.uncommitted = Uncommitted::Nothing;
        self.log.commit();
    }

    /// When [`commit`](Self::commit) has something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.uncommitted {
            Uncommitted::Nothing => None,
            Uncommitted::CanWait => Some(self.free),
            Uncommitted::Hurries => Some(Mono(0)),
        }
    }

    /// See [`Log::durable`].
    pub(super) fn durable(&mut self) -> Result<Durable, LogFailed> {
        self.log.durable()
    }

    /// See [`Log::tail`].
    pub(super) fn tail(&self) -> Offset {
        self.log.tail()
    }

    /// See [`Log::poll_expired`].
    pub(super) fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        self.log.poll_expired()
    }

    /// See [`Log::with_record`].
    pub(super) fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        self.log.with_record(at, read)
    }
}

impl Uncommitted {
    /// A login and a marker of what was read can wait.
    fn of(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Epoch | RecordKind::Read => Self::CanWait,
            _ => Self::Hurries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryReader;
    use crate::placement::ShardId;

    /// A log that syncs when it is committed.
    fn paced() -> Paced<crate::memory::MemoryLog> {
        Paced::new(MemoryReader::default().log(ShardId(0), true))
    }

    fn append(log: &mut Paced<crate::memory::MemoryLog>, kind: RecordKind) -> Offset {
        log.append(kind, Links::default(), &[b"body"]).expect("there is room")
    }

    fn is_durable(log: &mut Paced<crate::memory::MemoryLog>, at: Offset) -> bool {
        log.durable().expect("it does not fail").covers(at)
    }

    #[test]
    fn logins_are_committed_at_once_and_then_at_a_pace() {
        let mut log = paced();
        let (mut commits, mut newest) = (0, Offset::NONE);
        for ms in 0..1_000 {
            newest = append(&mut log, RecordKind::Epoch);
            log.commit(Mono(1_000 + ms));
            let is_durable = is_durable(&mut log, newest);
            assert!(is_durable || ms >= BURST.into(), "the first ones at once");
            commits += u64::from(is_durable);
        }
        println!("TEST pace n=1000 commits={commits}");
        assert!(commits.abs_diff(u64::from(BURST) + 1_000 / PACE_MS) <= 1, "{commits}");
        let due = log.deadline().expect("the newest is not committed");
        assert!(due <= Mono(1_999 + PACE_MS));
        log.commit(due);
        assert!(is_durable(&mut log, newest), "also without another one behind it");
        assert_eq!(log.deadline(), None);
    }

    #[test]
    fn a_message_waits_for_nothing_and_takes_the_logins_along() {
        let mut log = paced();
        for ms in 0..200 {
            let login = append(&mut log, RecordKind::Epoch);
            let message = append(&mut log, RecordKind::Message);
            let other = append(&mut log, RecordKind::Epoch);
            log.commit(Mono(ms));
            for at in [login, message, other] {
                assert!(is_durable(&mut log, at), "in ms {ms}");
            }
        }
    }
}
