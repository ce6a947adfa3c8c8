//! Who may do what in a group: of a message, whether its sender may post; of a change, whether
//! the sender may ask for it of those whom it names, and whether it changes anything.

use tern_protocol::frames::{action, role, settings};
use tern_protocol::group::ChangeView;
use tern_protocol::{Code, Uin, UnixMillis};

use super::{Group, Member};

/// Why not, and of whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct Refusal {
    pub(in crate::shard) code: Code,
    /// Which of the users named, from 1; 0 for none.
    pub(in crate::shard) member: u16,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, member: 0 }
    }
}

impl Group {
    /// Whether `sender` may post a message now.
    pub(super) fn may_post(&self, sender: Uin, now: UnixMillis) -> Result<(), Code> {
        let member = self.member_or_code(sender)?;
        if self.settings & settings::ADMINS_POST != 0 && member.role < role::ADMIN {
            return Err(Code::NotAllowed);
        }
        if member.muted_until > now { Err(Code::Muted) } else { Ok(()) }
    }

    /// Whether `sender` may recall something now: it takes away and adds nothing, so who is muted
    /// or may not post may do it.
    pub(super) fn may_recall(&self, sender: Uin) -> Result<(), Code> {
        self.member_or_code(sender).map(|_| ())
    }

    /// Whether `sender` is an admin, or the owner, and of a higher role than `other`, who may be
    /// a member no longer.
    pub(in crate::shard) fn stands_above(&self, sender: Uin, other: Uin) -> bool {
        let role = |uin| self.member(uin).map_or(0, |member| member.role);
        role(sender) >= role::ADMIN && role(sender) > role(other)
    }

    /// Whether `sender` may make this change; a valid one, and not CREATE.
    pub(super) fn may_change(
        &self,
        sender: Uin,
        change: &ChangeView<'_>,
        members_max: usize,
    ) -> Result<(), Refusal> {
        if change.head.action == action::JOIN {
            return self.may_join(sender, members_max);
        }
        let own = self.member_or_code(sender)?.role;
        match change.head.action {
            action::ADD => self.may_add(own, change, members_max),
            action::LEAVE if own == role::OWNER => Err(Code::OwnerStays.into()),
            action::LEAVE => Ok(()),
            action::KICK => {
                needs(own, role::ADMIN)?;
                self.each_below(own, change, |member| Some(member.is_some()))
            }
            action::ROLE => {
                needs(own, role::OWNER)?;
                self.each_below(own, change, |member| {
                    member.map(|member| member.role != change.head.role)
                })
            }
            action::MUTE => {
                needs(own, role::ADMIN)?;
                let until = UnixMillis(change.head.until.get());
                self.each_below(own, change, |member| {
                    member.map(|member| member.muted_until != until)
                })
            }
            action::RENAME => {
                needs(own, role::ADMIN)?;
                changes(self.name != change.name)
            }
            action::SETTINGS => {
                needs(own, role::OWNER)?;
                changes(self.settings != change.head.settings)
            }
            action::DISSOLVE => needs(own, role::OWNER),
            _ => Err(Code::ChangeInvalid.into()),
        }
    }

    /// The users that a change makes members and who never were, or not within memory: their home
    /// shards must know of the channel first.
    pub(super) fn newcomers(&self, sender: Uin, change: &ChangeView<'_>) -> Vec<Uin> {
        let own = match change.head.action {
            action::CREATE | action::JOIN => Some(sender),
            _ => None,
        };
        let named = match change.head.action {
            action::CREATE | action::ADD => Some(change.uins()),
            _ => None,
        };
        let all = own.into_iter().chain(named.into_iter().flatten());
        all.filter(|uin| !self.members.contains_key(uin)).collect()
    }

    fn may_join(&self, sender: Uin, members_max: usize) -> Result<(), Refusal> {
        if self.member(sender).is_some() {
            return Err(Code::ChangesNothing.into());
        }
        if self.dissolved || self.settings & settings::OPEN == 0 {
            return self.member_or_code(sender).map(|_| ()).map_err(Into::into);
        }
        if self.count < members_max { Ok(()) } else { Err(Code::GroupFull.into()) }
    }

    fn may_add(&self, own: u8, change: &ChangeView<'_>, members_max: usize) -> Result<(), Refusal> {
        if self.settings & settings::MEMBERS_ADD == 0 {
            needs(own, role::ADMIN)?;
        }
        let new = change.uins().filter(|uin| self.member(*uin).is_none()).count();
        changes(new > 0)?;
        if self.count + new > members_max { Err(Code::GroupFull.into()) } else { Ok(()) }
    }

    /// Whether everybody named is of a lower role than `own`, and is changed; `would_change` says
    /// it of a member, or of none. With nobody changed nothing is.
    fn each_below(
        &self,
        own: u8,
        change: &ChangeView<'_>,
        would_change: impl Fn(Option<&Member>) -> Option<bool>,
    ) -> Result<(), Refusal> {
        let mut any = false;
        for (index, uin) in change.uins().enumerate() {
            let (other, member) = (self.member(uin), index as u16 + 1); // fits: at most 128
            if other.is_some_and(|other| other.role >= own) {
                return Err(Refusal { code: Code::NotAllowed, member });
            }
            match would_change(other) {
                Some(changed) => any |= changed,
                None => return Err(Refusal { code: Code::NoSuchMember, member }),
            }
        }
        changes(any)
    }

    fn member_or_code(&self, sender: Uin) -> Result<&Member, Code> {
        match self.members.get(&sender) {
            Some(member)
                if self.end().is_some_and(|end| member.after(Some(end)).touched == end) =>
            {
                Err(Code::GroupDissolved)
            }
            Some(member) if member.visible.is_open() => Ok(member),
            _ => Err(Code::NotAMember),
        }
    }
}

fn needs(own: u8, role: u8) -> Result<(), Refusal> {
    if own >= role || mutant!(RolesIgnored) { Ok(()) } else { Err(Code::NotAllowed.into()) }
}

fn changes(any: bool) -> Result<(), Refusal> {
    if any { Ok(()) } else { Err(Code::ChangesNothing.into()) }
}
