//! The thread that writes the store: a disk must not stop the task that runs the machine. While
//! one batch is being written the next ones gather.

use std::io;
use std::sync::mpsc as blocking;

use tern_protocol::frames::Network;
use tokio::sync::{mpsc, oneshot};

use crate::machine::{Change, Ticket};
use crate::mailbox::{KeptMessage, Mail, MailQuery};
use crate::servers::KnownServer;
use crate::store::{Store, StoreError};

/// What is to be kept.
pub(super) enum Keep {
    /// A batch of changes.
    Batch(Vec<Change>, Vec<Mail>, Ticket),
    /// Answer a question about the mailbox, as it is behind all that came before.
    Mail(MailQuery, oneshot::Sender<Vec<KeptMessage>>),
    /// The round-trip time of a kind of network in ms.
    Rtt(Network, u32),
    /// The addresses that worked, the last one first.
    Servers(Vec<KnownServer>),
    /// Tell when everything before this is kept.
    Tell(oneshot::Sender<()>),
}

/// What became of it: everything up to a batch is on the disk, or the store failed for good.
pub(super) type Kept = Result<Ticket, StoreError>;

/// Starts the thread. It ends when the sender is dropped and everything is written; then the
/// receiver ends.
#[expect(
    clippy::disallowed_methods,
    reason = "changes are of sends and cursors: as many as sends were taken and messages given"
)]
pub(super) fn spawn(
    store: Box<dyn Store>,
) -> io::Result<(blocking::Sender<Keep>, mpsc::UnboundedReceiver<Kept>)> {
    let (sender, jobs) = blocking::channel();
    let (kept, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("tern-store".to_owned())
        .spawn(move || run(store, &jobs, &kept))?;
    Ok((sender, receiver))
}

fn run(
    mut store: Box<dyn Store>,
    jobs: &blocking::Receiver<Keep>,
    kept: &mpsc::UnboundedSender<Kept>,
) {
    while let Ok(first) = jobs.recv() {
        let all = std::iter::once(first).chain(jobs.try_iter());
        let done = write(&mut *store, all);
        let failed = done.is_err();
        if let Some(done) = done.transpose()
            && kept.send(done).is_err()
        {
            return;
        }
        if failed {
            return;
        }
    }
}

fn write(
    store: &mut dyn Store,
    jobs: impl Iterator<Item = Keep>,
) -> Result<Option<Ticket>, StoreError> {
    let (mut changes, mut mail, mut newest) = (Vec::new(), Vec::new(), None);
    let (mut waiting, mut asked) = (Vec::new(), Vec::new());
    for job in jobs {
        match job {
            Keep::Batch(batch, came, ticket) => {
                changes.extend(batch);
                mail.extend(came);
                newest = Some(ticket);
            }
            Keep::Rtt(network, rtt_ms) => store.set_rtt_ms(network, rtt_ms)?,
            Keep::Servers(known) => store.set_servers(&known)?,
            Keep::Mail(query, reply) => asked.push((query, reply)),
            Keep::Tell(reply) => waiting.push(reply),
        }
    }
    if newest.is_some() {
        store.apply_mail(&changes, &mail)?;
    }
    for (query, reply) in asked {
        // Who asked may have gone.
        let _ = reply.send(store.mail(&query)?);
    }
    for reply in waiting {
        // Who waited may have gone.
        let _ = reply.send(());
    }
    Ok(newest)
}
