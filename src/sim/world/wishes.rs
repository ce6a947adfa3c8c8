//! What applications do about messages that they have, and about people: they take messages back,
//! edit them, block somebody for a while and ask whom they block.

use tern_client::machine::{BlockPage, Input};
use tern_protocol::{ChannelId, Code, MessageId, Uin};

use super::World;
use crate::device::Act;
use crate::oracle::checks::Due;

/// Recalls and edits in a hundred that are about something which the user wrote himself.
const OWN_PERCENT: u64 = 70;

/// Of these, recalls; the others are edits.
const RECALL_PERCENT: u64 = 45;

/// Of all of these, those that are about one of the newest messages.
const NEW_PERCENT: u64 = 70;

/// So many are the newest.
const NEWEST: usize = 6;

/// How long somebody is blocked, in ms.
const BLOCK_MS: (u64, u64) = (500, 20_000);

/// Wishes about blocks in a hundred that end one which may not be.
const END_PERCENT: u64 = 20;

/// Wishes about blocks in a hundred that are questions.
const QUESTION_PERCENT: u64 = 25;

impl World {
    /// Whether this send speaks of an older message, and was sent.
    pub(super) fn send_about(&mut self, install: usize) -> bool {
        if !self.work.percent(self.draw.recalls_percent) {
            return false;
        }
        let own = self.installs[install].device.uin;
        let is_own = self.work.percent(OWN_PERCENT);
        let mut known = self.oracle.logs.contents(install as u32);
        known.retain(|(_, _, sender)| (sender.uin == own) == is_own);
        let old = known.len().saturating_sub(NEWEST);
        let known = if self.work.percent(NEW_PERCENT) { &known[old..] } else { &known[..] };
        let Some((channel, id, _)) = self.work.pick(known) else { return false };
        self.speak_of(install, channel, MessageId(id));
        true
    }

    fn speak_of(&mut self, install: usize, channel: ChannelId, id: MessageId) {
        let label = self.installs[install].next_label();
        self.installs[install].posted.insert(label, Due::ByRules);
        let tag = label.to_tag();
        let is_recall = self.work.percent(RECALL_PERCENT);
        self.trace.note(
            self.now,
            &[20, install as u64, tag, id.0, u64::from(is_recall)],
            &[],
            format_args!("install {install} asks {label} of {channel}#{id}: recall {is_recall}"),
        );
        let input = if is_recall {
            Input::Recall { channel, id, tag }
        } else {
            let bytes = self.work.between(0, self.plan.content_bytes_max) as usize;
            let content = label.content(bytes).into();
            Input::Edit { channel, id, content_type: 1, content, tag }
        };
        self.device_input(install, input);
    }

    /// Now and then an application wishes something about blocks.
    pub(super) fn wish_of_blocks(&mut self, install: usize) {
        if !self.work.percent(self.draw.blocks_percent) {
            return;
        }
        if self.work.percent(QUESTION_PERCENT) {
            return self.ask_blocks(install);
        }
        let own = self.installs[install].device.uin;
        let others: Vec<Uin> = (1..=self.draw.users).map(Uin).filter(|uin| *uin != own).collect();
        let Some(uin) = self.work.pick(&others) else { return };
        let begins = self.healed_at.is_none() && !self.work.percent(END_PERCENT);
        self.block(install, uin, begins);
    }

    /// An application blocks somebody, or does so no more.
    pub(super) fn block(&mut self, install: usize, uin: Uin, begins: bool) {
        self.trace.note(
            self.now,
            &[21, install as u64, uin.0, u64::from(begins)],
            &[],
            format_args!("install {install} blocks {uin}: {begins}"),
        );
        self.device_input(install, Input::Block { uin, begins });
    }

    /// A block has begun: it ends some time later, if the application still runs then.
    pub(super) fn blocked(&mut self, install: usize, uin: Uin) {
        let delay = self.work.between(BLOCK_MS.0, BLOCK_MS.1);
        self.plan_act(install, delay, Act::Unblock(uin));
    }

    fn ask_blocks(&mut self, install: usize) {
        let uin = self.installs[install].device.uin;
        self.oracle.block_page_asked(install as u32, uin);
        self.device_input(install, Input::BlockList { after: Uin(0) });
    }

    /// An application is told whom its user blocks, or why not.
    pub(super) fn note_page(&mut self, install: usize, page: &Result<BlockPage, Code>) {
        let told = page.as_ref().map(|page| page.uins.len() as u64).unwrap_or(u64::MAX);
        self.trace.note(
            self.now,
            &[22, install as u64, told],
            &[],
            format_args!("install {install} is told whom it blocks: {page:?}"),
        );
    }

    /// What keeps the living devices from knowing whom their users block; they ask for it.
    pub(super) fn missing_of_blocks(&mut self) -> Option<String> {
        let installs: Vec<usize> = self.core().collect();
        let mut missing = None;
        for install in installs {
            let number = install as u32;
            if self.oracle.blocks.knows(number) {
                continue;
            }
            if !self.oracle.blocks.asks_page(number) {
                self.ask_blocks(install);
            }
            missing = Some(format!("install {install} does not know whom it blocks"));
        }
        missing
    }
}
