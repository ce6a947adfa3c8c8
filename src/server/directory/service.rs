//! The workers' questions, answered away from them.
//!
//! A worker puts a [`Query`] into a bounded queue and goes on; the control thread asks the
//! accounts and hands the [`Answer`] to whoever carries it back to the worker. A full queue is
//! answered at once, with "not now".
//!
//! The signatures of tokens are checked on the control thread itself, some 50 to 100 µs each: one
//! thread bounds what a storm of bad tokens can cost the workers.

use std::sync::Arc;

use tern_core::io::{Answer, Query};
use tern_core::placement::{Placement, WorkerId};
use tern_protocol::Code;
use tokio::sync::{Semaphore, mpsc};

use super::{Accounts, Directory, Secret};
use crate::folder::random;

/// Questions that may wait, of all workers together: a storm of logins beyond them is told to
/// come back rather than kept. 16,384 of about 80 bytes, or with a token of 4 KB at most.
pub const QUERIES_MAX: usize = 16_384;

/// Questions worked on at the same time; more gain nothing over the store's few connections.
const AT_ONCE_MAX: usize = 64;

/// Carries an answer to a worker, without waiting for it.
pub type Reply = Arc<dyn Fn(WorkerId, Answer) + Send + Sync>;

/// Where workers ask.
#[derive(Clone, Debug)]
pub struct Asker {
    queue: mpsc::Sender<Query>,
}

impl Asker {
    /// Asks; the answer comes by the service's [`Reply`]. If the queue is full, the answer comes
    /// back at once: not now.
    pub fn ask(&self, query: Query) -> Option<Answer> {
        self.queue.try_send(query).err().map(|error| not_now(&error.into_inner()))
    }
}

/// What answers them; run by [`Service::run`] on the control thread.
#[derive(Debug)]
pub struct Service {
    queue: mpsc::Receiver<Query>,
}

/// A queue of `queries_max` questions: where to ask, and what answers.
pub fn service(queries_max: usize) -> (Asker, Service) {
    let (sender, receiver) = mpsc::channel(queries_max);
    (Asker { queue: sender }, Service { queue: receiver })
}

impl Service {
    /// Answers until every [`Asker`] is gone.
    pub async fn run<D: Directory>(
        mut self,
        accounts: Arc<Accounts<D>>,
        placement: Placement,
        reply: Reply,
    ) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
        while let Some(query) = self.queue.recv().await {
            let permit = Arc::clone(&at_once).acquire_owned().await;
            let permit = permit.expect("this semaphore is never closed");
            let (accounts, reply) = (Arc::clone(&accounts), Arc::clone(&reply));
            tokio::spawn(async move {
                let to = asker_of(&query, placement);
                reply(to, answer(&accounts, query).await);
                drop(permit);
            });
        }
    }
}

fn asker_of(query: &Query, placement: Placement) -> WorkerId {
    match query {
        Query::Authenticate { session, .. } | Query::Identify { session, .. } => session.worker,
        Query::UserExists { shard, .. } => placement.worker_of(*shard),
    }
}

async fn answer<D: Directory>(accounts: &Accounts<D>, query: Query) -> Answer {
    match query {
        Query::Authenticate { session, device, secret } => {
            let checked = accounts.authenticate(device, &Secret(secret)).await;
            Answer::Authenticated { session, result: checked.map(|()| random()) }
        }
        Query::Identify { session, claimed, token } => {
            let device = accounts.identify(claimed, &token).await;
            Answer::Identified { session, result: device.map(|device| (device, random())) }
        }
        Query::UserExists { shard, channel, uin } => {
            Answer::UserExists { shard, channel, uin, exists: accounts.exists(uin).await }
        }
    }
}

fn not_now(query: &Query) -> Answer {
    match *query {
        Query::Authenticate { session, .. } => {
            Answer::Authenticated { session, result: Err(Code::Busy) }
        }
        Query::Identify { session, .. } => Answer::Identified { session, result: Err(Code::Busy) },
        Query::UserExists { shard, channel, uin } => {
            Answer::UserExists { shard, channel, uin, exists: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Sqlite};
    use super::*;
    use tern_core::io::LinkId;
    use tern_core::mail::SessionRef;
    use tern_core::placement::ShardId;
    use tern_protocol::{ChannelId, Uin};

    #[tokio::test]
    async fn answers_go_to_who_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(&folder.path().join("d")).await.expect("opened");
        let accounts = Arc::new(Accounts::new(store, Limits::default()));
        let ann = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added");
        let (asker, service) = service(8);
        let (answers, mut answered) = mpsc::channel(8);
        let reply: Reply = Arc::new(move |to, answer| {
            answers.try_send((to, answer)).expect("the test waits");
        });
        let placement = Placement::new(4, 3);
        let running = tokio::spawn(service.run(accounts, placement, reply));

        let session = SessionRef { worker: WorkerId(2), link: LinkId(7) };
        let secret = ann.secret.0;
        assert!(asker.ask(Query::Authenticate { session, device: ann.device, secret }).is_none());
        let (to, Answer::Authenticated { session: whose, result: Ok(token) }) =
            answered.recv().await.expect("an answer")
        else {
            panic!("the secret is right");
        };
        assert_eq!((to, whose), (WorkerId(2), session));
        assert_ne!(token, [0; 32]);

        let (shard, uin) = (ShardId(1), Uin(5));
        let channel = ChannelId::direct(uin, ann.device.uin);
        assert!(asker.ask(Query::UserExists { shard, channel, uin }).is_none());
        let expected = Answer::UserExists { shard, channel, uin, exists: Some(false) };
        assert_eq!(answered.recv().await, Some((placement.worker_of(shard), expected)));
        drop(asker);
        running.await.expect("it ends with the last asker");
    }

    #[test]
    fn a_full_queue_answers_not_now() {
        let (asker, _service) = service(1);
        let (shard, uin) = (ShardId(1), Uin(5));
        let query = Query::UserExists { shard, channel: ChannelId::group(1), uin };
        assert!(asker.ask(query.clone()).is_none());
        let expected =
            Answer::UserExists { shard, channel: ChannelId::group(1), uin, exists: None };
        assert_eq!(asker.ask(query), Some(expected));
    }
}
