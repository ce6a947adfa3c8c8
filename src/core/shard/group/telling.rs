//! What others are told of a group's members: a home shard of its own users, a member of all.
//! Both in pages, and durable changes only.

use std::ops::Bound;

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{GroupMember, GroupPage};
use tern_protocol::limits::GROUP_PAGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Code, Flags, Kind, MessageId, Uin};
use zerocopy::IntoBytes;

use super::{Group, Member};
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::{Log, Offset};
use crate::mail::{Address, Device, Mail, MemberPlace, Members, SessionRef, Visible};
use crate::placement::{Placement, ShardId};
use crate::shard::Shard;

/// Members in one page for a home shard: 12 KB of mail.
const MEMBERS_PER_PAGE: usize = 512;

/// Members that are looked at for one page: of a large group most are at home elsewhere, and 4,096
/// of them take some 100 µs.
const LOOKED_AT_MAX: usize = 4_096;

/// Before all members.
const START: MemberPlace = (MessageId(0), Uin(0));

/// A page for a member, kept until the group's newest change is durable.
pub(in crate::shard) struct PagePromise {
    at: Offset,
    to: SessionRef,
    channel: ChannelId,
    page: Result<Bytes, Code>,
}

/// A page for a home shard.
struct HomePage {
    members: Vec<(Uin, Visible)>,
    upto: MemberPlace,
    more: bool,
}

impl Group {
    /// Users of a home shard that were touched after a place, as far as `durable`. If some of
    /// them are forgotten meanwhile, the list begins anew.
    fn page_for_home(
        &self,
        placement: &Placement,
        home: ShardId,
        after: MemberPlace,
        durable: MessageId,
    ) -> HomePage {
        let forgotten = self.homes.get(&home).map_or(START, |home| home.forgotten);
        if after != START && after < forgotten {
            return HomePage { members: Vec::new(), upto: START, more: true };
        }
        let mut page = HomePage { members: Vec::new(), upto: after, more: false };
        let later = self.touched.range((Bound::Excluded(after), Bound::Unbounded));
        let later = later.map(|(place, visible)| (*place, *visible));
        let durable =
            later.chain(self.ended_after(after)).take_while(|(place, _)| place.0 <= durable);
        for (looked_at, (place, visible)) in durable.enumerate() {
            if looked_at >= LOOKED_AT_MAX || page.members.len() >= MEMBERS_PER_PAGE {
                page.more = true;
                break;
            }
            page.upto = place;
            let is_hidden = mutant!(KickUntold) && !visible.is_open();
            if placement.home_of(place.1) == home && !is_hidden {
                page.members.push((place.1, visible));
            }
        }
        page
    }

    /// Those whose membership the group's end ended, behind a place, in the order of places; it was
    /// the newest change.
    fn ended_after(&self, after: MemberPlace) -> impl Iterator<Item = (MemberPlace, Visible)> {
        let end = self.end();
        let first = match end {
            Some(end) if after.0 == end => Bound::Excluded(after.1),
            _ => Bound::Unbounded,
        };
        let members = end.map(|_| self.members.range((first, Bound::Unbounded)));
        let open = members.into_iter().flatten().filter(|(_, member)| member.visible.is_open());
        open.map(move |(uin, member)| {
            let member = member.after(end);
            ((member.touched, *uin), member.visible)
        })
    }

    /// The GROUP_PAGE of the members behind a uin.
    fn page_frame(&self, channel: ChannelId, after: Uin) -> Bytes {
        let behind = self.members.range((Bound::Excluded(after), Bound::Unbounded));
        let mut members = behind.filter(|(_, member)| member.visible.is_open()).map(to_wire);
        let page: Vec<GroupMember> = members.by_ref().take(GROUP_PAGE_MEMBERS_MAX).collect();
        let flags = if members.next().is_none() { Flags::LAST } else { Flags::NONE };
        let head = GroupPage {
            channel,
            after: after.into(),
            version: self.version.into(),
            members: (self.count as u32).into(), // fits: far fewer than 2^32 users
            settings: self.settings,
            reserved: 0,
            name_bytes: (self.name.len() as u16).into(), // fits: the change had as many
        };
        let rest = [&self.name, page.as_bytes()].concat();
        let mut frame = vec![0; frame_bytes::<GroupPage>(rest.len())];
        encode(Kind::GroupPage, flags, &head, &rest, &mut frame);
        frame.into()
    }
}

fn to_wire((uin, member): (&Uin, &Member)) -> GroupMember {
    GroupMember {
        uin: (*uin).into(),
        muted_until: member.muted_until.into(),
        role: member.role,
        reserved: [0; 7],
    }
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A member asks who is in a group.
    pub(in crate::shard) fn handle_group_info(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        device: Device,
        channel: ChannelId,
        after: Uin,
    ) {
        let group = self.groups.get(&channel);
        let at = group.map_or(Offset::NONE, |group| group.changed_at);
        let page = match group.filter(|group| group.member(device.uin).is_some()) {
            _ if self.stopped => Err(Code::ShardStopped),
            Some(group) => Ok(group.page_frame(channel, after)),
            None => Err(Code::NotAMember),
        };
        if self.is_proven(at) || self.stopped {
            return send_page(context, to, channel, page);
        }
        self.page_promises.push(PagePromise { at, to, channel, page });
    }

    /// Sends the pages that the newest proof covers.
    pub(in crate::shard) fn settle_pages(&mut self, context: &mut Context<'_>) {
        let proof = self.proof;
        for promise in self.page_promises.extract_if(.., |promise| proof.covers(promise.at)) {
            send_page(context, promise.to, promise.channel, promise.page);
        }
    }

    /// The log failed: what is not durable is told to nobody.
    pub(in crate::shard) fn refuse_pages(&mut self, context: &mut Context<'_>) {
        for promise in std::mem::take(&mut self.page_promises) {
            send_page(context, promise.to, promise.channel, Err(Code::ShardStopped));
        }
    }

    /// A home shard asks who of its users is in a group.
    pub(in crate::shard) fn handle_ask_members(
        &mut self,
        context: &mut Context<'_>,
        home: ShardId,
        channel: ChannelId,
        after: MemberPlace,
    ) {
        let Some(group) = self.groups.get(&channel) else { return };
        let state = self.channels.get(&channel).expect("a group has a channel");
        let Some(grant) = state.grant(self.proof, self.incarnation) else { return };
        let HomePage { members: page, upto, more } =
            group.page_for_home(context.placement, home, after, grant.newest);
        let version = group.version_for(home);
        let members = Members { to: home, channel, after, page, upto, more, version, grant };
        let mail = Mail::Members(Box::new(members));
        context.post.send(context.counters, Address::Shard(home), mail);
    }
}

fn send_page(
    context: &mut Context<'_>,
    to: SessionRef,
    channel: ChannelId,
    page: Result<Bytes, Code>,
) {
    let mail = Mail::GroupPage { to, channel, page };
    context.post.send(context.counters, Address::Front(to.worker), mail);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Who left and comes back before that is durable is named with the end of what he could
    /// read, and only behind the proof with what he can read now.
    #[test]
    fn a_return_that_is_not_durable_hides_no_leave() {
        let (placement, uin) = (Placement::new(1, 1), Uin(3));
        let mut group = Group::default();
        let page = |group: &Group, after: MemberPlace, durable| {
            group.page_for_home(&placement, ShardId(0), after, MessageId(durable)).members
        };
        group.enter(&placement, MessageId(2), uin);
        group.all_proven();
        assert_eq!(page(&group, START, 5), [(uin, Visible::since(MessageId(2)))]);
        for (id, leaves) in [(6, true), (9, false)] {
            match leaves {
                true => group.leave(&placement, MessageId(id), uin),
                false => group.enter(&placement, MessageId(id), uin),
            }
            group.unproven.push_back(MessageId(id));
        }
        assert!(group.proven(MessageId(8)));
        let until = Visible { until: MessageId(6), ..Visible::since(MessageId(2)) };
        assert_eq!(page(&group, START, 8), [(uin, until)]);
        assert!(group.proven(MessageId(9)));
        assert_eq!(page(&group, START, 9), [(uin, Visible::since(MessageId(9)))]);
        assert_eq!((group.touched.len(), group.overtaken.len()), (1, 0));
    }

    /// A home shard that has not heard of a leave before it expired asks for all once more.
    #[test]
    fn a_leave_that_is_forgotten_makes_the_list_begin_anew() {
        let placement = Placement::new(1, 1);
        let mut group = Group::default();
        for uin in [3, 4] {
            group.enter(&placement, MessageId(2), Uin(uin));
        }
        group.leave(&placement, MessageId(5), Uin(3));
        group.unproven.push_back(MessageId(5));
        assert!(group.proven(MessageId(5)));
        group.expire(&placement, MessageId(6));
        let page = |after| {
            let page = group.page_for_home(&placement, ShardId(0), after, MessageId(9));
            (page.members.len(), page.upto, page.more)
        };
        assert_eq!(page((MessageId(2), Uin(4))), (0, START, true), "it knew of him");
        assert_eq!(page(START), (1, (MessageId(2), Uin(4)), false));
        assert_eq!(page((MessageId(5), Uin(3))), (0, (MessageId(5), Uin(3)), false), "it was told");
    }

    /// The end of a group writes nothing to its members, is told to home shards in pages, and is
    /// kept by a checkpoint as if each had left.
    #[test]
    fn an_end_is_told_of_everybody_and_written_to_nobody() {
        const MEMBERS: u64 = 3_000;
        let (placement, channel) = (Placement::new(2, 1), ChannelId::group(7));
        let mut group = Group::default();
        (1..=MEMBERS).for_each(|n| group.enter(&placement, MessageId(n), Uin(n)));
        group.leave(&placement, MessageId(4_000), Uin(5));
        group.version = MessageId(4_000);
        group.all_proven();
        let (end, before) = (MessageId(5_000), group.touched.len());
        group.dissolve(end);
        group.version = end;
        assert_eq!((group.touched.len(), group.overtaken.len(), group.count), (before, 0, 0));
        let told = |group: &Group, home, durable| {
            let (mut after, mut told) = ((MessageId(0), Uin(0)), BTreeMap::new());
            loop {
                let page = group.page_for_home(&placement, home, after, durable);
                assert!(page.members.len() <= MEMBERS_PER_PAGE);
                told.extend(page.members);
                after = page.upto;
                if !page.more {
                    return told;
                }
            }
        };
        let open = |told: &BTreeMap<Uin, Visible>| told.values().filter(|v| v.is_open()).count();
        let homes = [ShardId(0), ShardId(1)];
        let all = |group: &Group, durable| homes.map(|home| told(group, home, durable));
        assert_eq!(all(&group, MessageId(4_999)).iter().map(open).sum::<usize>(), 2_999);
        group.all_proven();
        assert!(homes.iter().all(|home| group.version_for(*home) == end));
        let ended = all(&group, end);
        assert_eq!(ended.iter().map(open).sum::<usize>(), 0);
        assert_eq!(ended.iter().map(BTreeMap::len).sum::<usize>(), MEMBERS as usize);
        let mut kept = Group { version: end, dissolved: true, ..Group::default() };
        let restored = group.member_rows(channel).map(|row| kept.restore(&placement, &row));
        assert_eq!(restored.map(Option::unwrap).count(), MEMBERS as usize);
        assert_eq!(all(&kept, end), ended);
        assert!(group.member_rows(channel).eq(kept.member_rows(channel)));
        let code = |group: &Group, uin| group.may_recall(Uin(uin)).unwrap_err();
        for group in [&group, &kept] {
            assert_eq!((code(group, 5), code(group, 6)), (Code::NotAMember, Code::GroupDissolved));
        }
        group.expire(&placement, MessageId(5_001));
        assert_eq!((group.members.len(), group.touched.len()), (0, 0));
    }
}
