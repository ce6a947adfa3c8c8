//! What an application asks of messages that stand already, and of users that it wants to hear no
//! more, as calls that wait for their answers.

use bytes::Bytes;
use tern_protocol::{ChannelId, Code, MessageId, Uin};
use tokio::sync::oneshot;

use super::{Ask, Client, Closed, Command};
use crate::machine::{BlockPage, SendOutcome};

/// Why a block could not be changed or listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// The server refuses.
    Refused(Code),
    /// The client is closed.
    Closed,
}

impl std::fmt::Display for BlockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "{code}: {}", code.sentence()),
            Self::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for BlockError {}

impl Client {
    /// Takes a message back, and waits for the final answer through any number of reconnects.
    /// Devices that have the message are told; others never get it.
    ///
    /// # Errors
    /// When the client is closed first; the recall is stored, and sent at the next start.
    pub async fn recall(&self, channel: ChannelId, id: MessageId) -> Result<SendOutcome, Closed> {
        let (reply, result) = oneshot::channel();
        self.shared.room.acquire().await.map_err(|_| Closed)?.forget();
        self.say(Command::Ask(Ask::Recall { channel, id, reply }))?;
        Ok(result.await.map_err(|_| Closed)?.outcome)
    }

    /// Puts another content in the place of a message's, and waits for the final answer as
    /// [`send`](Self::send) does. `id` is that of the original, also for a second edit.
    ///
    /// # Errors
    /// When the client is closed first; the edit is stored, and sent at the next start.
    pub async fn edit(
        &self,
        channel: ChannelId,
        id: MessageId,
        content_type: u16,
        content: impl Into<Bytes>,
    ) -> Result<SendOutcome, Closed> {
        let (reply, result) = oneshot::channel();
        self.shared.room.acquire().await.map_err(|_| Closed)?.forget();
        let content = content.into();
        self.say(Command::Ask(Ask::Edit { channel, id, content_type, content, reply }))?;
        Ok(result.await.map_err(|_| Closed)?.outcome)
    }

    /// Takes no more messages from a user in the direct channel with this one; durable on the
    /// server when it returns.
    ///
    /// # Errors
    /// When the server refuses, or the client is closed; a wish without an answer is not stored.
    pub async fn block(&self, uin: Uin) -> Result<(), BlockError> {
        self.set_block(uin, true).await
    }

    /// Takes messages from a user again.
    ///
    /// # Errors
    /// As for [`block`](Self::block).
    pub async fn unblock(&self, uin: Uin) -> Result<(), BlockError> {
        self.set_block(uin, false).await
    }

    async fn set_block(&self, uin: Uin, begins: bool) -> Result<(), BlockError> {
        let (reply, done) = oneshot::channel();
        self.say(Command::Ask(Ask::Block { uin, begins, reply }))
            .map_err(|Closed| BlockError::Closed)?;
        done.await.map_err(|_| BlockError::Closed)?.map_err(BlockError::Refused)
    }

    /// Whom this device's user has blocked, in the order of their uins.
    ///
    /// # Errors
    /// When the server refuses, or the client is closed.
    pub async fn blocked(&self) -> Result<Vec<Uin>, BlockError> {
        let (mut all, mut after) = (Vec::new(), Uin(0));
        loop {
            let (reply, page) = oneshot::channel();
            self.say(Command::Ask(Ask::BlockList { after, reply }))
                .map_err(|Closed| BlockError::Closed)?;
            let page = page.await.map_err(|_| BlockError::Closed)?;
            let BlockPage { uins, is_last } = page.map_err(BlockError::Refused)?;
            after = uins.last().copied().unwrap_or(after);
            all.extend(uins);
            if is_last {
                return Ok(all);
            }
        }
    }
}
