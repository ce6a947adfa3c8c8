//! What the judge hears of looking back.

use tern_client::history::HistoryPage as Told;
use tern_core::mail::Device;
use tern_protocol::frames::{HistoryAsk, HistoryPage};
use tern_protocol::{ChannelId, Class, Code};

use super::Oracle;
use super::checks::histories::{self, Part};
use super::checks::{demand, is_durable, to_member};
use crate::disk::Disk;

impl Oracle {
    /// A question arrives at the server.
    pub fn history_arrives(&mut self, link: u64, ask: &HistoryAsk) {
        let question = (ask.channel, ask.before.get(), ask.limit.get());
        self.histories.arrives(link, question);
    }

    /// A page leaves the server, for this install's device.
    pub fn history_leaves(
        &mut self,
        disk: &Disk,
        (install, device, link): (u32, Device, u64),
        (head, entries): (&HistoryPage, &[u8]),
        is_last: bool,
    ) {
        let parts = match self.histories.page(link, head, entries, is_last) {
            Ok(parts) => parts,
            Err(wrong) => return self.judge("history", Err(wrong)),
        };
        let (channel, newest) = (head.channel, head.newest.get());
        let most = self.truth.newest(channel);
        let wrong = || format!("{device:?} is told of {channel}#{newest}, the newest is #{most}");
        self.judge("history", demand(newest <= most, wrong));
        // What knows so much of a channel knows what was recalled of it.
        self.recalls.told(link, device.uin, channel, newest);
        let who = (install, device);
        for part in parts {
            match part {
                Part::Message(fact) => self.told_of(disk, (device, link), fact),
                Part::Gap { from, to, code } => {
                    let mut ids = from..=to;
                    let verdict =
                        ids.try_for_each(|id| self.may_step_over(disk, who, (channel, id), code));
                    self.judge("history", verdict);
                }
            }
        }
        if let Some(before) = head.oldest.get().checked_sub(1).filter(|id| *id > 0) {
            let verdict = self.may_step_over(disk, who, (channel, before), Code(head.code.get()));
            self.judge("history", verdict);
        }
    }

    /// A message leaves in a page: it stands there so, this device may read it, and it was not
    /// recalled.
    fn told_of(&mut self, disk: &Disk, (device, link): (Device, u64), fact: super::fact::Fact) {
        let fact = self.sends.labelled(fact);
        let Some((_, place)) = self.truth.get(fact.channel, fact.id).filter(|(at, _)| *at == fact)
        else {
            let wrong = format!("{device:?} is told of {fact}, which does not stand there");
            return self.judge("history", Err(wrong));
        };
        let place = *place;
        self.judge("history", to_member(&self.truth, &fact, device));
        self.judge("durable", is_durable(disk, place, &format!("a page with {fact}")));
        let verdict = self.recalls.pushed(&self.truth, &fact, (device.uin, link));
        self.judge("history", verdict);
        let verdict = self.ids.shown(&fact);
        self.judge("ids", verdict);
    }

    /// An application looks back, in a world `at_rest` or not.
    pub fn history_asked(&mut self, install: u32, question: histories::Question, at_rest: bool) {
        let at_rest = at_rest.then(|| self.truth.messages());
        self.histories.ask(install, question, at_rest);
    }

    /// It is told.
    pub fn history_told(
        &mut self,
        disk: &Disk,
        (install, device): (u32, Device),
        told: &Result<Told, Code>,
    ) {
        let messages = self.truth.messages();
        let Some((question, is_exact)) = self.histories.answered(install, messages) else {
            let wrong = format!("install {install} did not look back, and is told {told:?}");
            return self.judge("history", Err(wrong));
        };
        let verdict = match told {
            Ok(page) if page.channel != question.0 => {
                Err(format!("install {install} asked {question:?}, and is told {page:?}"))
            }
            Ok(page) if is_exact => self.is_all(disk, (install, device), page),
            Ok(_) => Ok(()), // judged when it left the server
            Err(code) if code.class() == Class::Retry => Ok(()),
            Err(code) => {
                let channel = question.0;
                // Of a group only what he may read now counts: he may have come back into it.
                let (first, _) = self.due(disk, device, channel).unwrap_or((u64::MAX, 0));
                let has_some = self.delivery.newest_shown(install, channel) >= first;
                let is_of_one_life = self.lives.restarted_at(channel).next().is_none();
                histories::refused(*code, has_some && is_of_one_life)
            }
        };
        self.judge("history", verdict);
    }

    /// A page of the newest, when nothing moved: it leaves out nothing that its user may read.
    fn is_all(&self, disk: &Disk, who: (u32, Device), page: &Told) -> super::checks::Verdict {
        let (channel, oldest) = (page.channel, page.oldest.0);
        let Some((first, last)) = self.due(disk, who.1, channel) else { return Ok(()) };
        demand(page.newest.0 == last && first <= oldest, || {
            format!("{:?} may read {channel}#{first} to #{last}, and is told {page:?}", who.1)
        })?;
        let mut left_out = first..oldest;
        left_out.try_for_each(|id| self.may_step_over(disk, who, (channel, id), Code::Expired))
    }

    /// Whether an application waits for a page.
    pub fn looks_back(&self, install: u32) -> bool {
        self.histories.is_asking(install)
    }

    /// Whether it was told the newest of a channel, when nothing moved any more.
    pub fn knows_history(&self, install: u32, channel: ChannelId) -> bool {
        self.histories.knows(install, channel)
    }
}
