//! A correct device is treated as one: it is refused for good only what it must be, hears no
//! error, and nobody ends its session but itself or a copy of it.

use std::collections::BTreeMap;

use tern_client::machine::{End, SendOutcome, SendResult};
use tern_protocol::{ChannelId, Code, Kind};

use super::{Verdict, demand};
use crate::oracle::fact::{Fact, Label};
use crate::oracle::lives::Lives;
use crate::oracle::truth::Truth;

/// What a send must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// It is acked.
    Ack,
    /// It is refused by this code.
    Refusal(Code),
    /// What the rules of its group say; another check judges each refusal by them.
    ByRules,
}

/// The results that applications were told.
#[derive(Debug, Default)]
pub struct Honesty {
    told: BTreeMap<(u32, Label), SendOutcome>,
}

impl Honesty {
    /// The application is told a result; `due` is what the send had to come to, and `said` what the
    /// server refused it by, if it did. A store that was `copied` may send a message once more under another key; where messages
    /// are damaged or deleted, which is to be `hurt`, an answer may be unknown, also one that was
    /// known before a client died.
    pub fn told(
        &mut self,
        (truth, lives): (&Truth, &Lives),
        install: u32,
        result: &SendResult,
        (due, said): (Due, Option<Code>),
        copied: bool,
        hurt: bool,
    ) -> Verdict {
        let label = Label::from_tag(result.tag);
        let before = *self.told.entry((install, label)).or_insert(result.outcome);
        let unknowable = hurt && result.outcome == SendOutcome::Unknown;
        let was_lost = lives.lost_label(label);
        demand(copied || unknowable || was_lost || before == result.outcome, || {
            format!("install {install} is told {:?} of {label}, before {before:?}", result.outcome)
        })?;
        match result.outcome {
            SendOutcome::Acked { id, .. } => {
                let stood = lives.ever_stood(truth, (result.channel, id.0), label);
                demand(stood && !matches!(due, Due::Refusal(_)), || {
                    format!("{label} is acked as {}#{id}; it stands elsewhere", result.channel)
                })
            }
            SendOutcome::Refused(code) if due == Due::Refusal(code) => Ok(()),
            SendOutcome::Refused(code) if due == Due::ByRules && said == Some(code) => Ok(()),
            SendOutcome::Refused(Code::KeyClosed) | SendOutcome::Unknown if copied => Ok(()),
            SendOutcome::Unknown if hurt => Ok(()),
            outcome => Err(format!("install {install} is told {outcome:?} of {label}")),
        }
    }

    /// Whether the application was told of a send.
    pub fn was_told(&self, install: u32, label: Label) -> bool {
        self.told.contains_key(&(install, label))
    }

    /// Sends whose result applications were told.
    pub fn told_count(&self) -> usize {
        self.told.len()
    }

    /// The machine ended; only a `copied` device may be fenced, by its copy. A login of the device
    /// itself that comes late, by a connection it gave up, must not end its newer session.
    pub fn ended(install: u32, end: End, copied: bool) -> Verdict {
        let fenced = copied && end == End::Refused(Code::Fenced);
        demand(fenced || !matches!(end, End::Refused(_)), || {
            format!("install {install} was ended: {end:?}")
        })
    }

    /// The server did not act on a frame of the machine.
    pub fn error(install: u32, code: Code, kind: Kind) -> Verdict {
        Err(format!("install {install} hears {code} about {kind}"))
    }

    /// An id that never comes: only of what is `damaged` or `expired`. What expired in the very
    /// moment in which it is read may be told as lost.
    pub fn gap(install: u32, what: &Fact, code: Code, (damaged, expired): (bool, bool)) -> Verdict {
        let is_so = match code {
            Code::Lost => damaged || expired,
            Code::Expired => expired,
            _ => false,
        };
        demand(is_so, || format!("install {install} is told {code} instead of {what}"))
    }

    /// A history that restarts: where the first life that ended left off, if one did. Messages
    /// that `is_damaged` right before may count as part of what came after: nobody can tell. What
    /// an earlier life said may come late.
    pub fn restarted(
        lives: &Lives,
        install: u32,
        (channel, at): (ChannelId, u64),
        is_damaged: impl Fn(u64) -> bool,
    ) -> Verdict {
        let mut ends = lives.restarted_at(channel);
        let is_so = ends.any(|end| at <= end && (at.max(1)..end).all(&is_damaged));
        demand(is_so, || {
            format!("install {install} is told that {channel} restarted at #{at}; it did not")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};
    use tern_client::machine::SendId;
    use tern_protocol::{MessageId, UnixMillis};

    fn result(serial: u32, outcome: SendOutcome) -> SendResult {
        let tag = Label { install: 1, serial }.to_tag();
        SendResult {
            send: SendId(0),
            tag,
            channel: fact(1, 1).channel,
            key: None,
            outcome,
            member: None,
        }
    }

    #[test]
    fn false_acks_and_undeserved_refusals_are_noticed() {
        let truth = truth(&[fact(1, 1)]);
        let acked = |id| SendOutcome::Acked { id: MessageId(id), server_time: UnixMillis(0) };
        let mut honesty = Honesty::default();
        let lives = Lives::default();
        let mut told =
            |result| honesty.told((&truth, &lives), 1, &result, (Due::Ack, None), false, false);
        assert_eq!(told(result(1, acked(1))), Ok(()));
        assert!(told(result(1, acked(2))).is_err(), "another answer");
        assert!(told(result(2, acked(1))).is_err(), "another message stands there");
        assert!(told(result(3, SendOutcome::Unknown)).is_err());
        assert!(told(result(4, SendOutcome::Refused(Code::KeyClosed))).is_err());
    }

    #[test]
    fn only_a_copy_may_be_fenced() {
        assert!(Honesty::ended(1, End::Refused(Code::Fenced), false).is_err());
        assert_eq!(Honesty::ended(1, End::Refused(Code::Fenced), true), Ok(()));
        assert!(Honesty::ended(1, End::Refused(Code::KeyClosed), true).is_err());
        assert_eq!(Honesty::ended(1, End::LoggedOut, false), Ok(()));
    }
}
