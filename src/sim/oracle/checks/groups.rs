//! Groups are as their rules say: what is refused deserves it, what is stepped over is not for that
//! member, and what a member is told of the others is what the changes make of them.
//!
//! The rules are those of `tern-groupmodel`, which shares nothing with the server.

use tern_client::group::{GroupPage, GroupSettings, Role};
use tern_core::mail::Device;
use tern_groupmodel::{Asked as Question, Group, Refusal, Rest, Said};
use tern_protocol::frames::{role, settings};
use tern_protocol::{ChannelId, Code};

use super::{Verdict, demand};
use crate::oracle::sends::Asked;
use crate::oracle::truth::{Place, Truth};

/// Codes by which the rules of groups refuse; they depend on how the group is at that moment.
const BY_RULES: [Code; 10] = [
    Code::NotAMember,
    Code::NotAllowed,
    Code::Muted,
    Code::GroupDissolved,
    Code::GroupExists,
    Code::GroupFull,
    Code::ChangesNothing,
    Code::NoSuchMember,
    Code::OwnerStays,
    Code::NoSuchUser,
];

/// Whether the rules of groups give this code for something asked of this channel.
pub fn is_by_rules(channel: ChannelId, code: Code) -> bool {
    channel.is_group() && BY_RULES.contains(&code)
}

/// A refusal by the rules leaves: since this was asked for there was a moment in which they say
/// just that, by what `is_durable`.
pub fn deserved(
    truth: &Truth,
    (device, asked): (Device, &Asked),
    refusal: Refusal,
    rest: Rest,
    is_durable: impl Fn(Place) -> bool,
) -> Verdict {
    let said =
        Said { sender: device.uin.0, kind: asked.kind, time: asked.time, content: &asked.content };
    let facts = truth.channel(asked.channel);
    let is_reason = |group: &Group| {
        let no = group.refusal(Question { said, rest });
        let change = group.version.checked_sub(1).map(|index| facts[index as usize].1);
        let rests_on_it = refusal.code != Code::NoSuchUser; // but on the directory
        no.is_some_and(|no| says(no, refusal)) && (!rests_on_it || change.is_none_or(&is_durable))
    };
    let mut group = Group::default();
    let mut holds = asked.since == 0 && is_reason(&group);
    for (fact, _) in facts {
        if holds {
            break;
        }
        group.take(fact.said())?;
        holds = group.newest >= asked.since && is_reason(&group);
    }
    let Refusal { code, member } = refusal;
    demand(holds, || {
        let now = group.refusal(Question { said, rest });
        format!(
            "{} of {device:?} in {} is refused by {code} for {member}, and not since #{} was \
                 that so; now {now:?}",
            asked.label, asked.channel, asked.since
        )
    })
}

/// Whether the server says what the rules do. Who was in a group that was dissolved may be
/// forgotten with its last messages.
fn says(rules: Refusal, server: Refusal) -> bool {
    let is_forgotten = rules.code == Code::GroupDissolved && server.code == Code::NotAMember;
    rules == server || is_forgotten
}

/// A message is told as not visible: by some of these histories of its group it was not for this
/// user at some time.
pub fn hidden<'a>(
    mut histories: impl Iterator<Item = &'a Group>,
    device: Device,
    (channel, id): (ChannelId, u64),
) -> Verdict {
    let uin = device.uin.0;
    let is_so =
        histories.any(|group| !group.ranges(uin).is_empty() && !group.was_always_shown(uin, id));
    demand(is_so, || format!("{device:?} is told that {channel}#{id} is not visible, and it is"))
}

/// A member is told who is in a group.
pub fn page(truth: &Truth, device: Device, page: &GroupPage) -> Verdict {
    let group = truth.group_at(page.channel, page.version.0)?;
    let told: Vec<(u64, u8, u64)> = page
        .members
        .iter()
        .map(|member| (member.uin.0, number_of(member.role), member.muted_until.0))
        .collect();
    let muted = |uin: &u64| group.muted.get(uin).copied().unwrap_or(0);
    let is: Vec<(u64, u8, u64)> =
        group.members.iter().map(|(uin, role)| (*uin, *role, muted(uin))).collect();
    let same = told == is
        && (page.is_last, page.count as usize) == (true, is.len())
        && page.name.as_bytes() == group.name
        && bits_of(page.settings) == group.settings;
    demand(same, || format!("{device:?} is told {page:?}, and there is {group:?}"))?;
    demand(group.members.contains_key(&device.uin.0), || {
        format!("{device:?} is told who is in {}, and is not in it", page.channel)
    })
}

fn number_of(role: Role) -> u8 {
    match role {
        Role::Member => role::MEMBER,
        Role::Admin => role::ADMIN,
        Role::Owner => role::OWNER,
    }
}

fn bits_of(told: GroupSettings) -> u8 {
    let bits = [
        (told.history_all, settings::HISTORY_ALL),
        (told.members_add, settings::MEMBERS_ADD),
        (told.admins_post, settings::ADMINS_POST),
        (told.open, settings::OPEN),
    ];
    bits.into_iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
}
