//! What the judge hears of blocks.

use tern_client::machine::BlockPage;
use tern_protocol::frames::{Blocked, block};
use tern_protocol::{Class, Code, Uin};

use super::Oracle;
use super::checks::{demand, survives};
use crate::disk::Disk;

impl Oracle {
    /// A wish of this user arrives at the server.
    pub fn block_arrives(&mut self, link: u64, uin: Uin, blocked: Uin) {
        self.blocks.wished(&self.truth, link, (uin, blocked));
    }

    /// The server answers it.
    pub fn blocked_leaves(&mut self, disk: &Disk, (uin, link): (Uin, u64), answer: &Blocked) {
        if answer.code.get() != 0 {
            return; // the client's application hears of it if it is final
        }
        let begins = answer.action == block::BEGIN;
        let of = (uin, Uin::from(answer.uin), begins);
        let verdict = self.blocks.done(&self.truth, link, of, |place| survives(disk, place));
        self.judge("blocks", verdict);
    }

    /// An application asks whom its user has blocked.
    pub fn block_page_asked(&mut self, install: u32, uin: Uin) {
        self.blocks.page_asked(&self.truth, install, uin);
    }

    /// It is told.
    pub(super) fn block_page_told(
        &mut self,
        install: u32,
        uin: Uin,
        page: &Result<BlockPage, Code>,
    ) {
        let verdict = match page {
            Ok(page) => {
                let told = self.blocks.page_told(&self.truth, install, uin, &page.uins);
                told.and(demand(page.is_last, || format!("{page:?} is not all that {uin} blocks")))
            }
            Err(code) => {
                self.blocks.page_refused(install);
                let wrong = || format!("{uin} may not know whom it blocks: {code}");
                demand(code.class() == Class::Retry, wrong)
            }
        };
        self.judge("blocks", verdict);
    }
}
