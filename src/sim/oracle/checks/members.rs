//! Only members write to a channel, and only members get what is in it: of a group what it was
//! meant to show them. Who may write to a group, its rules say.

use tern_core::mail::Device;

use super::{Verdict, demand};
use crate::oracle::fact::Fact;
use crate::oracle::truth::Truth;

/// A message is appended.
pub fn by_member(fact: &Fact) -> Verdict {
    let is_member = fact.channel.is_group() || fact.channel.peer_of(fact.sender.uin).is_some();
    demand(is_member, || format!("{fact} is appended, and its sender is no member"))
}

/// A push of a message leaves for this device.
pub fn to_member(truth: &Truth, fact: &Fact, device: Device) -> Verdict {
    let is_for = match truth.group(fact.channel) {
        Some(group) => group.was_shown(device.uin.0, fact.id),
        None => fact.channel.peer_of(device.uin).is_some(),
    };
    demand(is_for, || {
        format!("{fact} is pushed to {}.{}, who may not read it", device.uin, device.device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{SENDER, fact};
    use tern_protocol::Uin;

    #[test]
    fn a_stranger_is_noticed() {
        let stranger = Device { uin: Uin(3), ..SENDER };
        assert_eq!(to_member(&Truth::default(), &fact(1, 1), SENDER), Ok(()));
        assert!(to_member(&Truth::default(), &fact(1, 1), stranger).is_err());
        assert_eq!(by_member(&fact(1, 1)), Ok(()));
        assert!(by_member(&Fact { sender: stranger, ..fact(1, 1) }).is_err());
    }
}
