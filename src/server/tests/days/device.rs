//! A device by the client library, with all that it showed and how its connection went.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tern_client::machine::{Event, SendOutcome, State};
use tern_client::profile::Profile;
use tern_client::store::Store;
use tern_client::{Client, Events, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, Code, Uin};
use tokio::sync::Notify;

/// How long anything may take before a test gives up: far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A device at work.
pub struct Device {
    pub client: Client,
    ear: Arc<Ear>,
    listener: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    news: Notify,
}

/// What a device heard, in order.
#[derive(Clone, Default, Debug)]
pub struct Heard {
    /// Messages: channel, id, text.
    pub shown: Vec<(ChannelId, u64, String)>,
    /// Its states, and when it was heard of them.
    pub states: Vec<(Instant, State)>,
    /// Answers to sends: their tags and ids.
    pub acked: BTreeMap<u64, u64>,
    /// Sends that were refused for good.
    pub refused: Vec<(u64, Code)>,
    /// Who it is, if the server told.
    pub uin: Option<Uin>,
    /// Ranges that never come.
    pub gaps: usize,
}

impl Heard {
    /// The texts, in order.
    pub fn texts(&self) -> Vec<String> {
        self.shown.iter().map(|(.., text)| text.clone()).collect()
    }

    /// Whether it is logged in.
    pub fn is_online(&self) -> bool {
        matches!(self.states.last(), Some((_, State::Online { .. })))
    }

    /// How often it logged in, and in how many of them its session went on.
    pub fn logins(&self) -> (usize, usize) {
        let online = self.states.iter().filter_map(|(_, state)| match state {
            State::Online { resumed, .. } => Some(*resumed),
            _ => None,
        });
        online.fold((0, 0), |(all, resumed), one| (all + 1, resumed + usize::from(one)))
    }

    /// How long each spell without a session was, the longest last.
    pub fn spells(&self) -> Vec<Duration> {
        let mut lost = None;
        let mut spells = Vec::new();
        for (at, state) in &self.states {
            match state {
                State::Offline { .. } => lost = lost.or(Some(*at)),
                State::Online { .. } => spells.extend(lost.take().map(|since| *at - since)),
                State::Connecting | State::Ended(_) => {}
            }
        }
        spells.sort_unstable();
        spells
    }
}

impl Device {
    /// Starts the device of a profile of this data folder, at this address.
    pub fn start(data: &Path, who: &str, server: SocketAddr, store: Box<dyn Store>) -> Self {
        let profile = Profile::load(&Profile::path(data, who)).unwrap();
        Self::start_as(&profile, server, store, |_| {})
    }

    /// The same with other options.
    pub fn start_as(
        profile: &Profile,
        server: SocketAddr,
        store: Box<dyn Store>,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let mut options = Options::from_profile(profile, store).unwrap();
        options.server = server.to_string();
        change(&mut options);
        let (client, events) = Client::connect(options).unwrap();
        let ear = Arc::new(Ear::default());
        let listener = tokio::spawn(listen(Arc::clone(&ear), client.clone(), events));
        Self { client, ear, listener }
    }

    /// What it heard so far.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.ear.heard.lock().unwrap()
    }

    /// Sends a text whose answer comes under this tag.
    pub async fn say(&self, to: ChannelId, tag: u64, text: String) {
        self.client.post(to, content_type::TEXT, text, tag).await.unwrap();
    }

    /// Waits until that is so.
    pub async fn until(&self, what: &str, mut done: impl FnMut(&Heard) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let news = self.ear.news.notified();
            if done(&self.heard()) {
                return;
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                let heard = self.heard();
                let last = heard.states.last();
                panic!(
                    "{what} did not come: {} shown, {} acked, refused {:?}, {last:?}, {:?}",
                    heard.shown.len(),
                    heard.acked.len(),
                    heard.refused,
                    self.client.problem()
                );
            }
        }
    }

    /// Closes it, with all on the disk; what it heard.
    pub async fn close(self) -> Heard {
        self.client.close().await;
        self.listener.await.unwrap();
        self.ear.heard.lock().unwrap().clone()
    }
}

/// Closes all of them at once; what they heard, in their order.
pub async fn close_all(devices: Vec<Device>) -> Vec<Heard> {
    let closing: Vec<_> = devices.into_iter().map(|one| tokio::spawn(one.close())).collect();
    let mut heard = Vec::with_capacity(closing.len());
    for one in closing {
        heard.push(one.await.unwrap());
    }
    heard
}

async fn listen(ear: Arc<Ear>, client: Client, mut events: Events) {
    while let Some(event) = events.next().await {
        client.confirm(&event);
        let mut heard = ear.heard.lock().unwrap();
        match event {
            Event::Message(message) => {
                let text = String::from_utf8_lossy(&message.content).into_owned();
                heard.shown.push((message.position.channel, message.position.id.0, text));
            }
            Event::Result(result) => match result.outcome {
                SendOutcome::Acked { id, .. } => {
                    let before = heard.acked.insert(result.tag, id.0);
                    assert_eq!(before, None, "one answer for each message");
                }
                SendOutcome::Refused(code) => heard.refused.push((result.tag, code)),
                SendOutcome::Unknown => heard.refused.push((result.tag, Code::KeyUnknown)),
            },
            Event::Gap { .. } | Event::HistoryRestarted { .. } => heard.gaps += 1,
            Event::Identity { uin, .. } => heard.uin = Some(uin),
            Event::State(state) => heard.states.push((Instant::now(), state)),
            _ => {}
        }
        drop(heard);
        // Every waiter looks again; one that comes between its look and its wait is not lost,
        // since it was made to listen before the look.
        ear.news.notify_waiters();
    }
}

/// What is wrong with what a device showed of one channel: messages lost, shown twice, and out of
/// their order, where each of these senders sent texts `NAME 1` to `NAME n`.
pub fn judge(shown: &[String], senders: &[(&str, u64)]) -> (u64, u64, u64) {
    let (mut lost, mut again, mut disordered) = (0, 0, 0);
    for (name, count) in senders {
        let numbers: Vec<u64> = shown
            .iter()
            .filter_map(|text| text.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .collect();
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        lost += count - distinct.len() as u64;
        again += (numbers.len() - distinct.len()) as u64;
        disordered += numbers.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
    }
    (lost, again, disordered)
}
