//! The task that runs the machine: brings it what happens, carries out what it decides.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::mpsc as blocking;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ring::rand::SecureRandom;
use tern_protocol::frames::Network;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::asks::Asks;
use super::keeper::{self, Keep, Kept};
use super::link::{Link, LinkEvent, Tell};
use super::race::Target;
use super::transport::{self, local_address};
use super::{Command, ConnectError, Options, Problem, Shared, Trust};
use crate::machine::{Effect, Event, Input, Machine, Mono, SendOutcome, SendResult, State};
use crate::mailbox::Mail;
use crate::servers::{self, KnownServer, Resolve, parse_servers};
use crate::store::{Store, StoreError};

/// Events that the application has not taken, beyond which nothing more is read. The server's
/// window of unacked messages is far below; this is for one that does not keep to it.
const EVENTS_UNTAKEN_MAX: usize = 4_096;

/// How often it is looked whether an application that is behind has taken some.
const BEHIND: Duration = Duration::from_millis(10);

/// Every kind of network there is.
const NETWORKS: [Network; 4] = [Network::Unknown, Network::Wired, Network::Wifi, Network::Cellular];

/// Everything the task owns.
struct Task {
    machine: Machine,
    start: Instant,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    shared: Arc<Shared>,
    asks: Asks,
    /// Sends that were unsettled when last looked at.
    unsettled: usize,
    ended: bool,

    keep: Option<blocking::Sender<Keep>>,
    kept: mpsc::UnboundedReceiver<Kept>,
    /// Whether the store keeps mail, and what of it goes with the next batch. Each message of it
    /// is consumed in the turn behind its event, so that batch has its cursor, or an earlier one.
    keeps_mail: bool,
    mail: Vec<Mail>,

    target: TargetOptions,
    link: Option<Link>,
    links: u64,
    link_sender: Tell,
    link_events: mpsc::Receiver<(u64, LinkEvent)>,
    closing: Vec<JoinHandle<()>>,
}

/// What every connection is made of.
struct TargetOptions {
    servers: Vec<String>,
    /// Addresses at which the device logged in, the last one first.
    known: Vec<KnownServer>,
    resolver: Arc<dyn Resolve>,
    trust: Trust,
    bind: Option<SocketAddr>,
    network: Network,
    /// The last round-trip time in ms of each kind of network.
    rtts_ms: HashMap<u8, u32>,
}

/// What woke the task.
enum Wake {
    Command(Option<Command>),
    Link(u64, LinkEvent),
    Kept(Option<Kept>),
    Deadline,
}

/// Starts the task.
pub(super) fn spawn(
    options: Options,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    shared: Arc<Shared>,
) -> Result<(), ConnectError> {
    let Options { identity, server, resolver, trust, mut store, network, bind, sends_max, tuning } =
        options;
    let servers = parse_servers(&server).map_err(ConnectError::Server)?;
    transport::client_config(&trust, None)?;
    let saved = store.load().map_err(ConnectError::Store)?;
    shared.earlier.get_or_init(|| saved.sends.clone());
    let keeps_mail = store.keeps_mail();
    let known = store.servers().map_err(ConnectError::Store)?;
    let rtts_ms = load_rtts(&mut *store).map_err(ConnectError::Store)?;
    let (keep, kept) = keeper::spawn(store).map_err(ConnectError::Thread)?;
    let machine = Machine::new(Mono(0), identity, network, tuning, seed(), saved);
    let (admitted, queued) = machine.unsettled();
    let unsettled = admitted + queued;
    shared.room.add_permits(sends_max.saturating_sub(unsettled));
    let (link_sender, link_events) = Link::channel();
    let task = Task {
        machine,
        start: Instant::now(),
        commands,
        events,
        shared,
        asks: Asks::default(),
        unsettled,
        ended: false,
        keep: Some(keep),
        kept,
        keeps_mail,
        mail: Vec::new(),
        target: TargetOptions { servers, known, resolver, trust, bind, network, rtts_ms },
        link: None,
        links: 0,
        link_sender,
        link_events,
        closing: Vec::new(),
    };
    tokio::spawn(task.run());
    Ok(())
}

fn load_rtts(store: &mut dyn Store) -> Result<HashMap<u8, u32>, StoreError> {
    let mut rtts_ms = HashMap::new();
    for network in NETWORKS {
        if let Some(rtt_ms) = store.rtt_ms(network)? {
            rtts_ms.insert(network.to_wire(), rtt_ms);
        }
    }
    Ok(rtts_ms)
}

/// A seed for jitter.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("a system without randomness has no TLS either");
    u64::from_le_bytes(bytes)
}

impl Task {
    async fn run(mut self) {
        let reply = loop {
            self.carry_out();
            match self.wake().await {
                Wake::Command(None) => break None,
                Wake::Command(Some(Command::Close { logout, reply })) => {
                    if logout {
                        self.say(Input::Logout);
                        self.carry_out();
                    }
                    break Some(reply);
                }
                Wake::Command(Some(command)) => self.handle_command(command),
                Wake::Link(number, event) => self.handle_link(number, event),
                Wake::Kept(kept) => self.handle_kept(kept),
                Wake::Deadline => self.say(Input::Tick),
            }
        };
        self.end().await;
        if let Some(reply) = reply {
            // Who asked may have gone.
            let _ = reply.send(());
        }
    }

    /// Waits for whatever comes first.
    async fn wake(&mut self) -> Wake {
        let deadline = self.machine.poll_timeout(self.now()).map(|(when, why)| {
            tracing::trace!(why, at_ms = when.0, "next deadline");
            self.start + Duration::from_millis(when.0)
        });
        let has_room = self.shared.untaken.load(Ordering::Relaxed) < EVENTS_UNTAKEN_MAX;
        tokio::select! {
            command = self.commands.recv() => Wake::Command(command),
            kept = self.kept.recv(), if self.keep.is_some() => Wake::Kept(kept),
            Some((number, event)) = self.link_events.recv(), if has_room => {
                Wake::Link(number, event)
            }
            () = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => pending().await,
                }
            } => Wake::Deadline,
            // While the application is behind, its progress is looked for again and again.
            () = tokio::time::sleep(BEHIND), if !has_room => Wake::Deadline,
        }
    }

    fn now(&self) -> Mono {
        Mono(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn say(&mut self, input: Input) {
        if let Some((_, connection)) = self.link.as_ref().and_then(|link| link.open.as_ref()) {
            let rtt_ms = u64::try_from(connection.rtt().as_millis()).unwrap_or(u64::MAX);
            self.machine.set_rtt_ms(rtt_ms);
        }
        self.machine.handle(self.now(), input);
        let (admitted, queued) = self.machine.unsettled();
        let unsettled = admitted + queued;
        self.shared.room.add_permits(self.unsettled.saturating_sub(unsettled));
        self.unsettled = unsettled;
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Send { channel, content_type, content, tag, reply } => {
                if let Some(reply) = reply.filter(|_| !self.ended) {
                    self.asks.await_send(self.machine.next_send(), reply);
                }
                self.say(Input::Send { channel, content_type, content, tag });
            }
            // Who asks later hears that it is over by the loss of the way to answer.
            Command::Ask(ask) if !self.ended => {
                let asked = self.asks.ask(ask, self.machine.next_send());
                self.say(asked);
            }
            Command::Ask(_) => {}
            Command::Read { channel, id } => self.say(Input::Read { channel, id }),
            Command::Settled(send) => self.say(Input::Settled(send)),
            Command::Delivered(position) => self.say(Input::Delivered(position)),
            // The keeper works in order, and without one the way to answer is lost.
            Command::Mail(query, reply) => self.keep(Keep::Mail(query, reply)),
            Command::Remembered(reply) => self.keep(Keep::Tell(reply)),
            Command::Prove(proof) => self.say(Input::Prove(proof)),
            Command::NetworkChanged(network) => {
                self.remember_rtt();
                self.target.network = network;
                self.say(Input::NetworkChanged(network));
            }
            Command::Rebind(reply) => {
                let done = self.rebind();
                if done.is_ok() {
                    self.say(Input::NetworkChanged(self.target.network));
                }
                // Who asked may have gone.
                let _ = reply.send(done);
            }
            Command::Close { .. } => unreachable!("a close ends the loop before it comes here"),
        }
    }

    fn rebind(&self) -> io::Result<()> {
        let open = self.link.as_ref().and_then(|link| link.open.as_ref());
        let Some((endpoint, connection)) = open else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut local = local_address(self.target.bind, connection.remote_address());
        local.set_port(0);
        endpoint.rebind(UdpSocket::bind(local)?)
    }

    fn handle_link(&mut self, number: u64, event: LinkEvent) {
        let Some(link) = self.link.as_mut().filter(|link| link.number == number) else { return };
        match event {
            LinkEvent::Opened { via, endpoint, connection } => {
                link.via = Some(via);
                link.open = Some((endpoint, connection));
                self.set_problem(None);
                self.say(Input::Connected);
            }
            LinkEvent::Frame(frame) => self.say(Input::Frame(frame)),
            LinkEvent::Closed { code, problem } => {
                tracing::debug!(%problem, ?code, "the connection is gone");
                self.remember_rtt();
                self.link = None;
                self.set_problem(Some(problem));
                self.say(Input::Disconnected { code });
            }
        }
    }

    fn set_problem(&self, problem: Option<Problem>) {
        *self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn handle_kept(&mut self, kept: Option<Kept>) {
        match kept {
            Some(Ok(ticket)) => self.say(Input::Stored(ticket)),
            Some(Err(error)) => {
                tracing::error!(%error, "the store failed; the session ends");
                self.keep = None;
                self.say(Input::StoreFailed);
            }
            None => {
                self.keep = None;
                self.say(Input::StoreFailed);
            }
        }
    }

    /// Does everything that the machine has decided.
    fn carry_out(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Transmit(frame) => {
                    if let Some(link) = &self.link {
                        link.transmit(frame);
                    }
                }
                Effect::TransmitFree(frame) => {
                    if let Some(link) = &self.link {
                        link.transmit_free(frame);
                    }
                }
                Effect::Persist { changes, ticket } => {
                    let mail = std::mem::take(&mut self.mail);
                    self.keep(Keep::Batch(changes, mail, ticket));
                }
                Effect::Connect => self.open(),
                Effect::Disconnect { code } => {
                    self.remember_rtt();
                    let closed = self.link.take().map(|link| link.close(Some(code)));
                    self.closing.retain(|task| !task.is_finished());
                    self.closing.extend(closed);
                }
                Effect::Tell(event) => self.tell(event),
            }
        }
    }

    fn keep(&self, keep: Keep) {
        if let Some(keeper) = &self.keep {
            // A keeper that has ended has said why, or says so by its silence.
            let _ = keeper.send(keep);
        }
    }

    fn open(&mut self) {
        let TargetOptions { servers, known, resolver, trust, bind, network, rtts_ms } =
            &self.target;
        let rtt_ms = rtts_ms.get(&network.to_wire()).copied();
        let config =
            transport::client_config(trust, rtt_ms).expect("the same was made at the start");
        let target = Target {
            servers: servers.clone(),
            known: known.clone(),
            network: *network,
            resolver: Arc::clone(resolver),
            config,
            bind: *bind,
        };
        self.links += 1;
        self.link = Some(Link::open(self.links, target, self.link_sender.clone()));
    }

    /// The device is logged in: here it finds its server the next time.
    fn remember_server(&mut self) {
        let Some(link) = &self.link else { return };
        let (Some((_, connection)), Some(via)) = (&link.open, &link.via) else { return };
        let rtt_ms = u32::try_from(connection.rtt().as_millis()).unwrap_or(u32::MAX);
        let (name, address, network) = (via.name.clone(), via.address, self.target.network);
        servers::remember(&mut self.target.known, KnownServer { name, address, network, rtt_ms });
        self.keep(Keep::Servers(self.target.known.clone()));
        *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    fn remember_rtt(&mut self) {
        let open = self.link.as_ref().and_then(|link| link.open.as_ref());
        let Some((_, connection)) = open else { return };
        let rtt_ms = u32::try_from(connection.rtt().as_millis()).unwrap_or(u32::MAX);
        let network = self.target.network;
        if self.target.rtts_ms.insert(network.to_wire(), rtt_ms) != Some(rtt_ms) {
            self.keep(Keep::Rtt(network, rtt_ms));
        }
    }

    /// What changes in the mailbox by an event. What it holds is consumed.
    fn keep_mail(&mut self, event: &Event) {
        match event {
            Event::Message(message) => {
                self.mail.push(Mail::Received(message.clone()));
                self.say(Input::Delivered(message.position));
            }
            Event::Result(SendResult {
                send,
                outcome: SendOutcome::Acked { id, server_time },
                ..
            }) => {
                let (send, id, server_time) = (*send, *id, *server_time);
                self.mail.push(Mail::Acked { send, id, server_time });
            }
            Event::HistoryRestarted { channel, at } => {
                self.mail.push(Mail::Void { channel: *channel, at: *at });
            }
            _ => {}
        }
    }

    fn tell(&mut self, event: Event) {
        if self.keeps_mail {
            self.keep_mail(&event);
        }
        let event = match self.asks.answer(event) {
            Ok(settled) => {
                return settled.into_iter().for_each(|send| self.say(Input::Settled(send)));
            }
            Err(event) => event,
        };
        if let Event::State(State::Online { .. }) = event {
            self.remember_server();
        }
        if let Event::State(State::Ended(_)) = event {
            self.ended = true;
            self.asks = Asks::default();
        }
        self.shared.untaken.fetch_add(1, Ordering::Relaxed);
        if self.events.send(event).is_err() {
            // Nobody listens any more, which is the application's choice.
            self.shared.untaken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Brings what was said across and what was changed to the disk.
    async fn end(mut self) {
        self.remember_rtt();
        self.shared.room.close();
        self.asks = Asks::default();
        let closed = self.link.take().map(|link| link.close(None));
        self.closing.extend(closed);
        drop(self.link_events); // so that no connection waits to be heard
        for task in self.closing {
            // A task that panicked has nothing left to bring across.
            let _ = task.await;
        }
        self.keep = None;
        while let Some(kept) = self.kept.recv().await {
            if let Err(error) = kept {
                tracing::error!(%error, "the store failed");
            }
        }
    }
}
