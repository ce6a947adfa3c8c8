//! Where a device is in its channels: its cursors, its acks, and what it asks for again.

use tern_protocol::frames::{Cursor, Fetch};
use tern_protocol::limits::FETCH_IDS_MAX;
use tern_protocol::{ChannelId, Code, Flags, Kind, MessageId};

use super::front::{Front, Verdict, error};
use super::{Live, State};
use crate::context::Context;
use crate::io::LinkId;
use crate::log::Reader;
use crate::mail::{Address, Grant, Mail, SessionRef};
use crate::moments::Happened;
use crate::shard::CHANNELS_PER_PAGE;

impl<R: Reader> Front<R> {
    /// The client's own list of cursors, which is authoritative.
    pub(super) fn cursors(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        list: &[Cursor],
        last: bool,
    ) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        if live.cursors.take(context, link, &mut live.delivery, (list, last))? {
            let mail = Mail::Subscribe { from, device: live.device, after: None };
            let home = Address::Shard(context.placement.home_of(live.device.uin));
            context.post.send(context.counters, home, mail);
            if mutant!(ShownEarly) {
                self.all_shown(context, link);
            }
        } else if live.cursors.have_come() {
            live.delivery.pump(context, &mut self.reader, link);
        }
        Ok(())
    }

    /// A page of the user's channels; each is delivered from the device's cursor on.
    pub(super) fn channels(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        page: Vec<(ChannelId, Grant)>,
    ) {
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        let (count, after) = (page.len(), page.last().map(|(channel, _)| *channel));
        let all: Vec<ChannelId> = page.iter().map(|(channel, _)| *channel).collect();
        let wanted = live.looking.newest_wanted();
        for granted in page {
            let (channel, upto) = (granted.0, granted.1.to);
            live.delivery.granted(context, to.link, granted, wanted);
            live.note_granted(context, channel, upto);
        }
        live.tell_all_delivered(context, &all);
        let is_last = count < CHANNELS_PER_PAGE;
        if !is_last {
            let mail = Mail::Subscribe { from: to, device: live.device, after };
            let home = Address::Shard(context.placement.home_of(live.device.uin));
            context.post.send(context.counters, home, mail);
        } else {
            live.delivery.all_granted();
        }
        live.delivery.pump(context, &mut self.reader, to.link);
        if is_last {
            self.all_shown(context, to.link);
        }
    }

    /// A channel has more to read.
    pub(super) fn deliver(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        channel: ChannelId,
        grant: Grant,
    ) {
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        let wanted = live.looking.newest_wanted();
        let upto = grant.to;
        live.delivery.granted(context, to.link, (channel, grant), wanted);
        live.note_granted(context, channel, upto);
        live.delivery.pump(context, &mut self.reader, to.link);
    }

    /// The device has consumed each channel up to an id. One error answers all entries of the
    /// frame that were never shown.
    pub(super) fn receive_ack(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        list: &[Cursor],
    ) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let before = context.counters.receive_acks;
        for cursor in list {
            let acked = live.delivery.acked(
                context,
                cursor.channel,
                cursor.id.into(),
                cursor.incarnation.into(),
            );
            context.counters.receive_acks += u64::from(acked.is_ok());
            if acked == Ok(true) {
                let happened = Happened::Acked(cursor.id.into());
                context.moments.note(cursor.channel, live.device, happened);
                live.tell_delivered(context, cursor.channel);
            }
        }
        if context.counters.receive_acks - before < list.len() as u64 {
            context.counters.frames_refused += 1;
            error(context, link, Code::NotGranted, Kind::ReceiveAck, Flags::NONE);
        }
        live.delivery.pump(context, &mut self.reader, link);
        Ok(())
    }

    /// The device asks for a range again.
    pub(super) fn fetch(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        fetch: &Fetch,
    ) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let (from, to) = (MessageId::from(fetch.from), MessageId::from(fetch.to));
        let refused = if from.0 == 0 || to < from {
            Some(Code::NotGranted)
        } else if to.0 - from.0 >= FETCH_IDS_MAX {
            Some(Code::RangeTooLong)
        } else {
            live.delivery.go_back(context, link, fetch.channel, (from, to)).err()
        };
        if let Some(code) = refused {
            context.counters.frames_refused += 1;
            error(context, link, code, Kind::Fetch, Flags::NONE);
            return Ok(());
        }
        live.delivery.pump(context, &mut self.reader, link);
        Ok(())
    }

    /// Records that a delivery waited for are in memory.
    pub(crate) fn handle_warmed(&mut self, context: &mut Context<'_>, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let State::Live(live) = &mut session.state else { return };
        live.delivery.warmed();
        live.delivery.pump(context, &mut self.reader, link);
    }
}

impl Live {
    /// Notes that more may be read, if it is news to the device.
    fn note_granted(&self, context: &mut Context<'_>, channel: ChannelId, to: MessageId) {
        let is_news = || self.delivery.acked_to(channel).is_some_and(|acked| acked < to);
        if context.moments.are_wanted() && is_news() {
            context.moments.note(channel, self.device, Happened::Granted(to));
        }
    }
}
