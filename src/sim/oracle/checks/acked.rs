//! No acked message is lost: whatever died, it is in the log that the next process finds.

use std::collections::BTreeMap;

use tern_protocol::ChannelId;

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// Everything that any sender was promised.
#[derive(Debug, Default)]
pub struct Acked {
    promised: BTreeMap<(ChannelId, u64), Fact>,
    count: usize,
}

impl Acked {
    /// The ack of this message leaves the server.
    pub fn promise(&mut self, fact: &Fact) {
        let promised = self.promised.entry((fact.channel, fact.id));
        promised.or_insert_with(|| {
            self.count += 1;
            fact.clone()
        });
    }

    /// Messages that were ever promised.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The server is an older copy of itself: what is not in it was lost, and clients hear of it.
    pub fn forget_lost(&mut self, truth: &Truth) {
        self.promised.retain(|(channel, id), _| truth.get(*channel, *id).is_some());
    }

    /// A process found these logs.
    pub fn check(&self, truth: &Truth) -> Verdict {
        for ((channel, id), fact) in &self.promised {
            let found = truth.get(*channel, *id).map(|(found, _)| found);
            demand(found == Some(fact), || match found {
                Some(found) => format!("acked {fact}, and now there is {found}"),
                None => format!("acked {fact}, and now it is gone"),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};

    #[test]
    fn a_lost_and_a_changed_message_are_noticed() {
        let mut acked = Acked::default();
        acked.promise(&fact(1, 1));
        acked.promise(&fact(2, 2));
        assert_eq!(acked.check(&truth(&[fact(1, 1), fact(2, 2)])), Ok(()));
        assert!(acked.check(&truth(&[fact(1, 1)])).is_err());
        assert!(acked.check(&truth(&[fact(1, 1), fact(2, 3)])).is_err());
    }
}
