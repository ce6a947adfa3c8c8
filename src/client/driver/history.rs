//! What an application asks of the past of a channel.

use tern_protocol::limits::HISTORY_IDS_MAX;
use tern_protocol::{ChannelId, MessageId};
use tokio::sync::oneshot;

use super::groups::GroupError;
use super::{Ask, Client, Command};
use crate::history::HistoryPage;

impl Client {
    /// The newest messages of a channel below `before`, or of all: at most `limit` ids, in as many
    /// pages as the server makes of them. Nothing is consumed by that, and a device may be given
    /// what it looks at as an event too.
    ///
    /// # Errors
    /// When this device's user is not in the channel, or the client is closed.
    pub async fn history(
        &self,
        channel: ChannelId,
        before: Option<MessageId>,
        limit: u64,
    ) -> Result<HistoryPage, GroupError> {
        let page = |left: u64| u32::try_from(left).unwrap_or(u32::MAX).min(HISTORY_IDS_MAX);
        let end = before.unwrap_or(MessageId(0));
        let mut all = self.history_page(channel, end, page(limit)).await?;
        let newest = before.map_or(all.newest.next(), |before| before.min(all.newest.next()));
        loop {
            let told = newest.0.saturating_sub(all.from.0);
            if all.is_last || told >= limit {
                return Ok(all);
            }
            let older = self.history_page(channel, all.from, page(limit - told)).await?;
            if older.incarnation != all.incarnation || older.from >= all.from {
                return Ok(all); // history restarted in between, or nothing comes any more
            }
            (all.from, all.is_last, all.oldest, all.cut) =
                (older.from, older.is_last, older.oldest, older.cut);
            all.items.splice(0..0, older.items);
        }
    }

    /// One page of at most [`HISTORY_IDS_MAX`] ids below `before`; 0 for the newest.
    ///
    /// # Errors
    /// As for [`history`](Self::history).
    pub async fn history_page(
        &self,
        channel: ChannelId,
        before: MessageId,
        limit: u32,
    ) -> Result<HistoryPage, GroupError> {
        let (reply, page) = oneshot::channel();
        self.say(Command::Ask(Ask::History { channel, before, limit, reply }))?;
        let page = page.await.map_err(|_| GroupError::Closed)?;
        page.map_err(|code| GroupError::Refused { code, member: None })
    }
}
