//! What the control plane does by itself: it reads the keys of tokens again, and notes logins.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::directory::token::Tokens;
use crate::directory::{Accounts, Directory};

/// How often the file of the tokens' keys is looked at, in seconds: a key that was withdrawn is
/// taken for no longer than that.
const KEYS_LOOK_SECONDS: u64 = 2;

/// How often logins are noted in the directory, in seconds: a server that is killed forgets the
/// logins of that time, and a sync of the disk is nothing so rarely.
const NOTE_LOGINS_SECONDS: u64 = 60;

/// Reads the keys of tokens again on each SIGHUP, and when their file has changed.
pub(super) async fn keep_keys(tokens: Arc<Tokens>, mut hangup: Signal) {
    let mut look = tokio::time::interval(Duration::from_secs(KEYS_LOOK_SECONDS));
    loop {
        let read = tokio::select! {
            _ = hangup.recv() => Some(tokens.reload()),
            _ = look.tick() => tokens.reload_if_changed(),
        };
        match read {
            Some(Ok(keys)) => tracing::info!(keys, "the keys of tokens were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys of tokens stay as they were"),
            None => {}
        }
    }
}

/// Notes logins in the directory from time to time; what is left at the end is the caller's.
pub(super) async fn note_logins<D: Directory>(accounts: Arc<Accounts<D>>) {
    let mut time = tokio::time::interval(Duration::from_secs(NOTE_LOGINS_SECONDS));
    loop {
        time.tick().await;
        if let Err(error) = accounts.note_logins().await {
            tracing::warn!(%error, "some logins are not noted");
        }
    }
}
