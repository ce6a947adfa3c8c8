//! What is said to a group: a message of a member, or a change.
//!
//! A change that makes new members is kept until their home shards know of the channel
//! (`entering`); then it is judged once more and appended like any message.

use tern_protocol::frames::{action, message_kind};
use tern_protocol::group::ChangeView;
use tern_protocol::{ChannelId, Code, MessageId, Uin};

use super::{Group, Refusal};
use crate::context::Context;
use crate::dedup::{DedupEntry, DedupTable};
use crate::log::{Log, Offset};
use crate::shard::Shard;
use crate::shard::channel::Channel;
use crate::shard::chat::Offer;
use crate::shard::recall::refers;

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A message or a change under a new key, whose predecessor is there.
    pub(in crate::shard) fn offer_to_group(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        entry: Option<&DedupEntry>,
    ) {
        if let Err(refusal) = self.judge_for_group(context, &offer) {
            let group = self.groups.get(&offer.channel());
            let last = group.map_or(Offset::NONE, |group| group.changed_at);
            return self.refuse_when_durable(context, offer, last, refusal);
        }
        let (head, _) = offer.view();
        if refers(head) {
            return self.offer_reference(context, offer, entry);
        }
        if head.kind != message_kind::CHANGE {
            return self.append(context, &offer, entry);
        }
        let newcomers = self.newcomers(&offer);
        if newcomers.is_empty() || offer.entered {
            self.append(context, &offer, entry);
        } else {
            self.enter_all(context, offer, newcomers);
        }
    }

    fn judge_for_group(&self, context: &Context<'_>, offer: &Offer) -> Result<(), Refusal> {
        let (head, content) = offer.view();
        let (sender, group) = (offer.device.uin, self.groups.get(&head.channel));
        let members_max = context.config.group_members_max;
        if head.kind != message_kind::CHANGE {
            let group = group.ok_or(Code::NotAMember)?;
            if head.kind == message_kind::RECALL {
                return Ok(group.may_recall(sender)?);
            }
            return Ok(group.may_post(sender, context.now.wall)?);
        }
        let change = view(content);
        match group {
            Some(_) if change.head.action == action::CREATE => Err(Code::GroupExists.into()),
            Some(group) => group.may_change(sender, &change, members_max),
            None if change.head.action != action::CREATE => Err(Code::NotAMember.into()),
            None if change.uins().any(|uin| uin == sender) => Err(Code::ChangeInvalid.into()),
            None if change.members.len() >= members_max => Err(Code::GroupFull.into()),
            None => Ok(()),
        }
    }

    fn newcomers(&self, offer: &Offer) -> Vec<Uin> {
        let change = view(offer.view().1);
        let sender = offer.device.uin;
        match self.groups.get(&offer.channel()) {
            Some(group) => group.newcomers(sender, &change),
            None => Group::default().newcomers(sender, &change),
        }
    }

    /// A group that is about to be made has a channel.
    pub(in crate::shard) fn open_group(&mut self, channel: ChannelId) {
        let incarnation = self.incarnation;
        self.channels.entry(channel).or_insert_with(|| Channel::new(incarnation));
    }

    /// The change in this offer is in the log, as the message `id` at `at`.
    pub(in crate::shard) fn change_appended(
        &mut self,
        context: &Context<'_>,
        offer: &Offer,
        id: MessageId,
        at: Offset,
    ) {
        let group = self.groups.entry(offer.channel()).or_default();
        let change = view(offer.view().1);
        group.appended(context.placement, (id, at), offer.device.uin, &change);
    }
}

fn view(content: &[u8]) -> ChangeView<'_> {
    ChangeView::parse(content).expect("the session lets only changes pass that make sense")
}
