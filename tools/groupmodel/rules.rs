//! Who may ask for what, in the order in which SPEC.md §13.4 says that it is looked at.

use tern_protocol::Code;
use tern_protocol::frames::{action, message_kind, role, settings};
use tern_protocol::group::ChangeView;

use super::{Group, Said};

/// What is asked, and what the answer depends on beside the group.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What is asked to become a message.
    pub said: Said<'a>,
    /// Room and users.
    pub rest: Rest,
}

/// What the rules need to know beside the group itself; by default there is room, and everybody
/// exists.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Most members of a group.
    pub members_max: usize,
    /// Users up to this uin exist.
    pub uin_max: u64,
}

impl Default for Rest {
    fn default() -> Self {
        Self { members_max: usize::MAX, uin_max: u64::MAX }
    }
}

/// Why not, and which of the users named is the reason, from 1; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The user.
    pub member: u16,
}

type Verdict = Result<(), Refusal>;

fn no(code: Code) -> Verdict {
    Err(Refusal { code, member: 0 })
}

fn demand(holds: bool, code: Code) -> Verdict {
    if holds { Ok(()) } else { no(code) }
}

impl Group {
    /// What must be answered to who asks for this now; `None` if it is to be appended.
    pub fn refusal(&self, asked: Asked<'_>) -> Option<Refusal> {
        let Said { sender, kind, time, content } = asked.said;
        if kind == message_kind::RECALL {
            return self.role_of(sender).err(); // it only takes away
        }
        if kind != message_kind::CHANGE {
            return self.may_post(sender, time).err();
        }
        match ChangeView::parse(content).filter(ChangeView::is_valid) {
            Some(change) => self.may_change(sender, &change, asked.rest).err(),
            None => no(Code::ChangeInvalid).err(),
        }
    }

    fn may_post(&self, sender: u64, time: u64) -> Verdict {
        let own = self.role_of(sender)?;
        demand(!self.has(settings::ADMINS_POST) || own >= role::ADMIN, Code::NotAllowed)?;
        let muted = self.muted.get(&sender).copied().unwrap_or(0);
        demand(muted <= time, Code::Muted)
    }

    fn role_of(&self, sender: u64) -> Result<u8, Refusal> {
        let was_there = self.dissolved.as_ref().is_some_and(|members| members.contains(&sender));
        let code = if was_there { Code::GroupDissolved } else { Code::NotAMember };
        self.members.get(&sender).copied().ok_or(Refusal { code, member: 0 })
    }

    fn may_change(&self, sender: u64, change: &ChangeView<'_>, rest: Rest) -> Verdict {
        let head = change.head;
        let uins: Vec<u64> = change.uins().map(|uin| uin.0).collect();
        let own = match head.action {
            action::CREATE => {
                demand(self.newest == 0, Code::GroupExists)?;
                demand(!uins.contains(&sender), Code::ChangeInvalid)?;
                demand(uins.len() < rest.members_max, Code::GroupFull)?;
                return exist(&uins, rest);
            }
            action::JOIN => return self.may_join(sender, rest),
            _ => self.role_of(sender)?,
        };
        match head.action {
            action::ADD => self.may_add(own, &uins, rest),
            action::LEAVE => demand(own < role::OWNER, Code::OwnerStays),
            action::KICK => {
                demand(own >= role::ADMIN, Code::NotAllowed)?;
                self.all_below(own, &uins, false)?;
                let any = uins.iter().any(|uin| self.members.contains_key(uin));
                demand(any, Code::ChangesNothing)
            }
            action::ROLE => {
                demand(own == role::OWNER, Code::NotAllowed)?;
                self.all_below(own, &uins, true)?;
                let any = uins.iter().any(|uin| self.members[uin] != head.role);
                demand(any, Code::ChangesNothing)
            }
            action::MUTE => {
                demand(own >= role::ADMIN, Code::NotAllowed)?;
                self.all_below(own, &uins, true)?;
                let muted = |uin| self.muted.get(uin).copied().unwrap_or(0);
                let any = uins.iter().any(|uin| muted(uin) != head.until.get());
                demand(any, Code::ChangesNothing)
            }
            action::RENAME => {
                demand(own >= role::ADMIN, Code::NotAllowed)?;
                demand(self.name != change.name, Code::ChangesNothing)
            }
            action::SETTINGS => {
                demand(own == role::OWNER, Code::NotAllowed)?;
                demand(self.settings != head.settings, Code::ChangesNothing)
            }
            _ => demand(own == role::OWNER, Code::NotAllowed), // DISSOLVE
        }
    }

    fn may_join(&self, sender: u64, rest: Rest) -> Verdict {
        demand(!self.members.contains_key(&sender), Code::ChangesNothing)?;
        if self.dissolved.is_some() || !self.has(settings::OPEN) {
            self.role_of(sender)?;
        }
        demand(self.members.len() < rest.members_max, Code::GroupFull)
    }

    fn may_add(&self, own: u8, uins: &[u64], rest: Rest) -> Verdict {
        demand(own >= role::ADMIN || self.has(settings::MEMBERS_ADD), Code::NotAllowed)?;
        let new = uins.iter().filter(|uin| !self.members.contains_key(uin)).count();
        demand(new > 0, Code::ChangesNothing)?;
        demand(self.members.len() + new <= rest.members_max, Code::GroupFull)?;
        exist(uins, rest)
    }

    /// Everybody named is of a lower role, and a member if they have to be.
    fn all_below(&self, own: u8, uins: &[u64], must_be_members: bool) -> Verdict {
        for (place, uin) in (1..).zip(uins) {
            let code = match self.members.get(uin) {
                Some(role) if *role >= own => Code::NotAllowed,
                None if must_be_members => Code::NoSuchMember,
                _ => continue,
            };
            return Err(Refusal { code, member: place });
        }
        Ok(())
    }
}

fn exist(uins: &[u64], rest: Rest) -> Verdict {
    match (1..).zip(uins).find(|(_, uin)| **uin > rest.uin_max) {
        Some((member, _)) => Err(Refusal { code: Code::NoSuchUser, member }),
        None => Ok(()),
    }
}
