//! A group as its channel's shard keeps it: name, settings, members, and what of them each home
//! shard must still be told.
//!
//! Comes in: changes, in the order of the channel, live or from the log; the id up to which they
//! are durable. Goes out: whether a change or a message is allowed (`rules`), who may read from
//! where to where. Worth naming: a change leads to the same members whenever it is applied, so
//! replay needs no rules; home shards are told of durable changes only; the end of a group is noted
//! once, not at each member, and what it means for one is said where it is asked for.

mod change;
mod entering;
mod rules;
mod telling;

pub(super) use entering::Entering;
pub(super) use rules::Refusal;
pub(super) use telling::PagePromise;

use std::collections::{BTreeMap, VecDeque};

use tern_protocol::frames::{action, role, settings};
use tern_protocol::group::ChangeView;
use tern_protocol::{ChannelId, MessageId, Uin, UnixMillis};

use super::state::{GroupRow, MemberRow};
use crate::log::Offset;
use crate::mail::{MemberPlace, Visible};
use crate::placement::{Placement, ShardId};

/// A group that was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    name: Vec<u8>,
    settings: u8,
    /// Whether the newest change ended it.
    dissolved: bool,
    /// The newest change, durable or not.
    version: MessageId,
    /// Where it is, if it was appended since the start.
    changed_at: Offset,
    /// Members, and who was one and can still read something.
    members: BTreeMap<Uin, Member>,
    /// What they may read, by the change that touched each last: what home shards ask for. With
    /// it stays what an earlier change left, until the later one is durable: nobody may be told
    /// of that before, but of the earlier one.
    touched: BTreeMap<(MessageId, Uin), Visible>,
    /// Places that go once a later change of that user is durable, by that change.
    overtaken: VecDeque<(MessageId, (MessageId, Uin))>,
    /// How many are members now.
    count: usize,
    homes: BTreeMap<ShardId, HomeOf>,
    /// Changes that are not durable yet, oldest first.
    unproven: VecDeque<MessageId>,
}

/// A user who is or was in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    /// See [`role`].
    role: u8,
    visible: Visible,
    /// Kept for who leaves, so that leaving ends no mute.
    muted_until: UnixMillis,
    /// The newest change that touched this member.
    touched: MessageId,
}

/// What a home shard has to do with a group.
#[derive(Clone, Debug, Default)]
struct HomeOf {
    /// Members at home there.
    count: usize,
    /// The newest durable change that touched users at home there.
    version: MessageId,
    /// Later ones, oldest first.
    unproven: VecDeque<MessageId>,
    /// The newest place of a user at home there who was forgotten: who knows the members only up
    /// to an earlier one was perhaps never told that he left.
    forgotten: MemberPlace,
}

impl Group {
    /// Applies a change, which the rules allowed once: the message `id` of `sender`.
    pub(super) fn apply(
        &mut self,
        placement: &Placement,
        id: MessageId,
        sender: Uin,
        change: &ChangeView<'_>,
    ) {
        match change.head.action {
            action::CREATE => {
                self.enter(placement, id, sender);
                self.set_role(sender, role::OWNER);
                change.uins().for_each(|uin| self.enter(placement, id, uin));
                (self.settings, self.name) = (change.head.settings, change.name.to_vec());
            }
            action::ADD => change.uins().for_each(|uin| self.enter(placement, id, uin)),
            action::JOIN => self.enter(placement, id, sender),
            action::LEAVE => self.leave(placement, id, sender),
            action::KICK => change.uins().for_each(|uin| self.leave(placement, id, uin)),
            action::ROLE => self.give_role(change),
            action::MUTE => {
                for uin in change.uins() {
                    if let Some(member) = self.members.get_mut(&uin) {
                        member.muted_until = UnixMillis(change.head.until.get());
                    }
                }
            }
            action::RENAME => self.name = change.name.to_vec(),
            action::SETTINGS => self.settings = change.head.settings,
            _ => self.dissolve(id), // the one that is left: a change is checked before
        }
        self.version = id;
    }

    /// As [`apply`](Self::apply), of a record at `at` that is not durable yet.
    fn appended(
        &mut self,
        placement: &Placement,
        (id, at): (MessageId, Offset),
        sender: Uin,
        change: &ChangeView<'_>,
    ) {
        self.apply(placement, id, sender, change);
        self.changed_at = at;
        self.unproven.push_back(id);
    }

    /// Messages up to `id` are durable. Says whether changes became so.
    pub(super) fn proven(&mut self, id: MessageId) -> bool {
        let before = self.unproven.len();
        while self.unproven.front().is_some_and(|change| *change <= id) {
            self.unproven.pop_front();
        }
        if self.unproven.len() == before {
            return false;
        }
        self.forget_overtaken(id);
        self.homes.values_mut().for_each(|home| home.proven(id));
        true
    }

    /// All that was replayed is durable.
    pub(super) fn all_proven(&mut self) {
        let version = self.version;
        self.forget_overtaken(version);
        self.homes.values_mut().for_each(|home| home.proven(version));
    }

    /// Messages before `oldest` can't be read any more, so who could read only those is forgotten;
    /// but not that somebody was muted, or it would depend on the log's age whether leaving ends it.
    pub(super) fn expire(&mut self, placement: &Placement, oldest: MessageId) {
        let end = self.end();
        let gone = |member: &Member| {
            let until = member.after(end).visible.until;
            until < oldest && member.muted_until == UnixMillis(0)
        };
        let (touched, homes) = (&mut self.touched, &mut self.homes);
        self.members.retain(|uin, member| {
            if gone(member) {
                touched.remove(&(member.touched, *uin));
                let home = homes.entry(placement.home_of(*uin)).or_default();
                home.forgotten = home.forgotten.max((member.after(end).touched, *uin));
            }
            !gone(member)
        });
    }

    /// The home shards to tell of a new message; or of `everything`, also to those whose users
    /// only were members.
    pub(super) fn homes(&self, everything: bool) -> impl Iterator<Item = ShardId> {
        let told = move |home: &HomeOf| everything || home.count > 0;
        self.homes.iter().filter(move |(_, home)| told(home)).map(|(id, _)| *id)
    }

    /// The newest durable change that touched users of this home shard.
    pub(super) fn version_for(&self, home: ShardId) -> MessageId {
        self.homes.get(&home).map_or(MessageId(0), |home| home.version)
    }

    /// Whether a member may read this message, as far as it is there.
    pub(super) fn shows(&self, uin: Uin, id: MessageId) -> bool {
        self.member(uin).is_some_and(|member| member.visible.from <= id)
    }

    /// Where the newest change is, if it was appended since the start.
    pub(super) fn changed_at(&self) -> Offset {
        self.changed_at
    }

    /// What a member may read, and how many members there are besides; `None` for who is none.
    pub(super) fn seen_by(&self, uin: Uin) -> Option<(Visible, u32)> {
        let others = self.count.saturating_sub(1);
        Some((self.member(uin)?.visible, others as u32)) // fits: far fewer than 2^32 users
    }

    fn member(&self, uin: Uin) -> Option<&Member> {
        self.members.get(&uin).filter(|member| member.visible.is_open() && !self.dissolved)
    }

    /// The change that ended the group, if one did.
    fn end(&self) -> Option<MessageId> {
        self.dissolved.then_some(self.version)
    }

    fn enter(&mut self, placement: &Placement, id: MessageId, uin: Uin) {
        if self.member(uin).is_some() {
            return;
        }
        let all = self.settings & settings::HISTORY_ALL != 0 || mutant!(HistoryShown);
        let from = if all { MessageId(1) } else { id };
        let before = self.members.get(&uin);
        let from = before.filter(|_| mutant!(AbsenceShown)).map_or(from, |old| old.visible.from);
        let muted_until = before.map_or(UnixMillis(0), |before| before.muted_until);
        let (visible, touched) = (Visible::since(from), id);
        let member = Member { role: role::MEMBER, visible, muted_until, touched };
        self.put(placement, uin, member);
        self.count += 1;
        self.homes.entry(placement.home_of(uin)).or_default().count += 1;
    }

    fn leave(&mut self, placement: &Placement, id: MessageId, uin: Uin) {
        let Some(member) = self.member(uin).copied() else { return };
        let visible = Visible { until: id, ..member.visible };
        self.put(placement, uin, Member { role: role::MEMBER, visible, touched: id, ..member });
        self.count -= 1;
        self.homes.entry(placement.home_of(uin)).or_default().count -= 1;
    }

    fn give_role(&mut self, change: &ChangeView<'_>) {
        if change.head.role == role::OWNER {
            let is_owner = |member: &&mut Member| member.role == role::OWNER;
            self.members.values_mut().filter(is_owner).for_each(|owner| owner.role = role::ADMIN);
        }
        for uin in change.uins() {
            self.set_role(uin, change.head.role);
        }
    }

    fn set_role(&mut self, uin: Uin, role: u8) {
        if let Some(member) = self.members.get_mut(&uin).filter(|m| m.visible.is_open()) {
            member.role = role;
        }
    }

    fn dissolve(&mut self, id: MessageId) {
        (self.dissolved, self.count) = (true, 0);
        for home in self.homes.values_mut().filter(|home| home.count > 0) {
            home.count = 0;
            home.unproven.push_back(id);
        }
    }

    /// A member whose visible range changed with `member.touched`.
    fn put(&mut self, placement: &Placement, uin: Uin, member: Member) {
        if let Some(before) = self.members.insert(uin, member) {
            self.overtaken.push_back((member.touched, (before.touched, uin)));
        }
        self.touched.insert((member.touched, uin), member.visible);
        let home = self.homes.entry(placement.home_of(uin)).or_default();
        if home.unproven.back() != Some(&member.touched) {
            home.unproven.push_back(member.touched);
        }
    }

    /// Changes up to `id` are durable: what they left behind is asked for by nobody.
    fn forget_overtaken(&mut self, id: MessageId) {
        while let Some((_, place)) = self.overtaken.pop_front_if(|(later, _)| *later <= id) {
            // Not if a log says that one change touched a user twice.
            if self.members.get(&place.1).is_none_or(|member| member.touched != place.0) {
                self.touched.remove(&place);
            }
        }
    }

    /// As a row of a checkpoint; the name follows it.
    pub(super) fn to_row(&self, channel: ChannelId) -> (GroupRow, &[u8]) {
        let row = GroupRow {
            channel,
            version: self.version.into(),
            settings: self.settings,
            dissolved: u8::from(self.dissolved),
            name_bytes: (self.name.len() as u16).into(), // fits: the change had as many
            reserved: 0.into(),
        };
        (row, &self.name)
    }

    /// Its members, as rows of a checkpoint in their order.
    pub(super) fn member_rows(&self, channel: ChannelId) -> impl Iterator<Item = MemberRow> {
        let end = self.end();
        let members = self.members.iter().map(move |(uin, member)| (uin, member.after(end)));
        members.map(move |(uin, member)| MemberRow {
            channel,
            uin: (*uin).into(),
            from: member.visible.from.into(),
            until: member.visible.until.into(),
            muted_until: member.muted_until_kept().into(),
            touched: member.touched.into(),
            role: u32::from(member.role).into(),
            reserved: 0.into(),
        })
    }

    /// From such a row; `None` if it contradicts itself. Its members come behind it.
    pub(super) fn from_row(row: &GroupRow, name: &[u8]) -> Option<Self> {
        (name.len() == usize::from(row.name_bytes.get()) && row.dissolved <= 1).then_some(())?;
        Some(Self {
            name: name.to_vec(),
            settings: row.settings,
            dissolved: row.dissolved == 1,
            version: row.version.into(),
            ..Self::default()
        })
    }

    /// Takes a row of a member; `None` if it contradicts itself or the group.
    pub(super) fn restore(&mut self, placement: &Placement, row: &MemberRow) -> Option<()> {
        let visible = Visible { from: row.from.into(), until: row.until.into() };
        let role = u8::try_from(row.role.get()).ok()?;
        (role::MEMBER..=role::OWNER).contains(&role).then_some(())?;
        let touched = MessageId::from(row.touched);
        (touched <= self.version && row.uin.get() != 0).then_some(())?;
        let member = Member { role, visible, muted_until: row.muted_until.into(), touched };
        let uin = Uin::from(row.uin);
        if self.members.insert(uin, member).is_some() {
            return None;
        }
        self.touched.insert((touched, uin), visible);
        let home = self.homes.entry(placement.home_of(uin)).or_default();
        home.version = home.version.max(touched);
        if visible.is_open() {
            home.count += 1;
            self.count += 1;
        }
        Some(())
    }
}

impl Member {
    /// As the end of the group leaves it, if there was one.
    fn after(self, end: Option<MessageId>) -> Self {
        match end {
            Some(end) if self.visible.is_open() => {
                let visible = Visible { until: end, ..self.visible };
                Self { role: role::MEMBER, visible, touched: end, ..self }
            }
            _ => self,
        }
    }

    /// As a checkpoint keeps it.
    fn muted_until_kept(&self) -> UnixMillis {
        if mutant!(MuteForgotten) { UnixMillis(0) } else { self.muted_until }
    }
}

impl HomeOf {
    fn proven(&mut self, id: MessageId) {
        while let Some(change) = self.unproven.front().copied().filter(|change| *change <= id) {
            self.version = change;
            self.unproven.pop_front();
        }
    }
}
