//! The depth with packets: what the world tells the network of packets, and what it tells the
//! world. At the other depth everything here does nothing, and says so.

use bytes::Bytes;
use tern_core::config::Config;
use tern_netmodel::carrier::Way;
use tern_netmodel::nat::NatRules;
use tern_quic::settings::{FreePushes, TransportSettings};

use super::{Happening, World};
use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::parcel::{Parcel, at};
use crate::quic::{Sleeper, Told, Wire};
use crate::random::Stream;
use crate::server::Shown;

/// Seeds in a hundred in which every client has to prove its address first.
const RETRY_PERCENT: u64 = 20;

/// Seeds in a hundred in which a NAT forgets a connection that is silent.
const NAT_FORGETS_PERCENT: u64 = 40;

/// Seeds in a hundred in which pushes by datagram leave once each, and in which pushes go by stream
/// and past it. In all others they are carried as by a server of which nothing else is asked.
const SINGLE_PERCENT: u64 = 20;
const REPEATED_PERCENT: u64 = 20;

/// Times in a hundred that a phone notices its change of network itself.
const NOTICES_PERCENT: u64 = 50;

/// The longest time for which a phone says nothing, in ms: its heartbeat.
const SILENCE_MS_MAX: u64 = 30_000;

/// The network of packets of a seed.
pub(super) fn wire(seed: u64, config: &Config, mutant: Option<Mutant>) -> Box<Wire> {
    let mut stream = Stream::of(seed, "wire");
    let mut settings = TransportSettings {
        heartbeat_ms_max: config.longest_heartbeat_ms(),
        window_bytes: config.window_bytes,
        handshake_ms_max: config.login_ms_max,
        datagrams: config.datagrams,
        free_pushes: free_pushes(&mut Stream::of(seed, "free pushes")),
        ..TransportSettings::default()
    };
    if stream.percent(RETRY_PERCENT) {
        settings.retry_threshold = 0;
    }
    let forgets = stream.percent(NAT_FORGETS_PERCENT);
    let idle_ms = forgets.then(|| stream.between(8_000, 40_000));
    let rules = NatRules { idle_ms, rebind_every_ms: None };
    Box::new(Wire::new(seed, settings, rules, mutant))
}

fn free_pushes(stream: &mut Stream) -> FreePushes {
    match stream.below(100) {
        0..SINGLE_PERCENT => FreePushes::Single,
        percent if percent < SINGLE_PERCENT + REPEATED_PERCENT => FreePushes::Repeated,
        _ => TransportSettings::default().free_pushes,
    }
}

impl World {
    /// Lets the network of packets run as far as this moment, and plans the next look at it.
    pub(super) fn run_wire(&mut self) {
        let Some(wire) = self.wire.as_mut() else { return };
        let before = wire.hash();
        wire.run(self.now);
        while let Some(told) = self.wire.as_mut().and_then(|wire| wire.poll_told()) {
            self.hear(told);
            if let Some(wire) = self.wire.as_mut() {
                wire.run(self.now);
            }
        }
        let Some(wire) = self.wire.as_mut() else { return };
        if wire.hash() != before {
            let hash = wire.hash();
            self.trace.note(self.now, &[17, hash], &[], format_args!("packets: {hash:016x}"));
        }
        let Some(due) = wire.poll_timeout().map(|due| due.max(self.now)) else { return };
        if self.wire_at.is_none_or(|planned| due < planned || planned <= self.now) {
            self.wire_at = Some(due);
            self.agenda.add(due, Happening::Wire);
        }
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Arrived(link, worker, begun) => self.arrive(link, worker, begun),
            Told::AtServer(link, frame) => {
                if self.links.get(&link).is_some_and(|conn| conn.server_open) {
                    self.frame_reaches_server(link, frame);
                }
            }
            Told::LostAtServer(link) => self.server_notices(link),
            Told::Ready(link) => self.link_ready(link),
            Told::AtClient(link, frame) => {
                let open = self.links.get(&link).filter(|conn| conn.client_open);
                if let Some(install) = open.map(|conn| conn.install) {
                    self.frame_arrives(install, frame);
                }
            }
            Told::LostAtClient(link, code) => self.client_notices(link, code),
            Told::Forgotten(link, frame) => {
                let push = Shown(&frame);
                let wrong = format!("nobody repairs what connection {link} was pushed: {push}");
                self.oracle.judge("pushes", Err(wrong));
            }
        }
    }

    /// Has the client dial; whether there are packets.
    pub(super) fn dial(&mut self, link: u64, install: usize) -> bool {
        let Some(wire) = self.wire.as_mut() else { return false };
        wire.dial(link, install);
        self.set_path(install);
        true
    }

    /// Says a parcel; gives it back if there are no packets.
    pub(super) fn say_parcel(&mut self, link: u64, way: Way, parcel: Parcel) -> Option<Parcel> {
        let Some(wire) = self.wire.as_mut() else { return Some(parcel) };
        match (way, parcel) {
            (Way::ToServer, Parcel::Frame(frame)) => wire.say_to_server(link, frame),
            (Way::ToClient, Parcel::Frame(frame)) => wire.say_to_client(link, frame),
            (Way::ToServer, Parcel::End(code)) => {
                wire.end_by_client(link, code.unwrap_or(tern_protocol::Code(0)));
            }
            (Way::ToClient, Parcel::End(code)) => {
                wire.end_by_server(link, code.unwrap_or(tern_protocol::Code(0)));
            }
        }
        None
    }

    /// Says a frame that may overtake others; gives it back if there are no packets.
    pub(super) fn say_free(&mut self, link: u64, way: Way, frame: Bytes) -> Option<Bytes> {
        let Some(wire) = self.wire.as_mut() else { return Some(frame) };
        match way {
            Way::ToServer => wire.say_free_to_server(link, frame),
            Way::ToClient => wire.say_free_to_client(link, frame),
        }
        None
    }

    /// The client's end is gone; whether there are packets.
    pub(super) fn vanish(&mut self, link: u64) -> bool {
        self.wire.as_mut().map(|wire| wire.vanish(link)).is_some()
    }

    /// Loses a connection's packets for good; whether there are packets.
    pub(super) fn darken(&mut self, link: u64, half: bool) -> bool {
        self.wire.as_mut().map(|wire| wire.net().darken(link, !half)).is_some()
    }

    /// Lets nothing through in one direction; whether there are packets.
    pub(super) fn black_out(&mut self, link: u64, way: Way, until: u64) -> bool {
        let install = self.links.get(&link).map(|conn| conn.install);
        let Some(wire) = self.wire.as_mut() else { return false };
        if let Some(install) = install {
            wire.net().black_out(install, way, at(until));
        }
        true
    }

    /// The phone has another address.
    pub(super) fn move_install(&mut self, install: usize) {
        let knows = self.net.percent(NOTICES_PERCENT);
        self.set_path(install);
        if let Some(wire) = self.wire.as_mut() {
            wire.rebind(install, knows);
        }
    }

    /// The NAT before a phone forgets its connections. Without packets nothing comes from the
    /// server for a while: until the phone would have said something.
    pub(super) fn forget_nat(&mut self, install: usize) {
        if let Some(wire) = self.wire.as_mut() {
            return wire.rebind(install, false);
        }
        let until = self.now + self.net.between(0, SILENCE_MS_MAX);
        let own = self.links.iter().filter(|(_, conn)| conn.install == install);
        for link in own.map(|(link, _)| *link).collect::<Vec<u64>>() {
            self.stall_link(link, Way::ToClient, until);
        }
    }

    /// Somebody stands still.
    pub(super) fn sleep(&mut self, who: Sleeper, until: u64) {
        if let Some(wire) = self.wire.as_mut() {
            wire.sleep(who, until);
        }
    }

    /// Sets the conditions on all paths as they are now.
    pub(super) fn set_net_weather(&mut self) {
        if self.wire.is_some() {
            (0..self.installs.len()).for_each(|install| self.set_path(install));
        }
    }

    fn set_path(&mut self, install: usize) {
        if self.wire.is_none() {
            return;
        }
        let conditions = self.conditions(install);
        if conditions.loss_percent > 0.0 {
            self.tally.hit(Fault::LossyNetwork);
        }
        if let Some(wire) = self.wire.as_mut() {
            wire.set_conditions(install, &conditions);
        }
    }

    /// The end of everything that goes wrong on the network.
    pub(super) fn wake_wire(&mut self) {
        if let Some(wire) = self.wire.as_mut() {
            wire.wake_all();
            wire.net().light_up();
        }
    }

    /// A process of the server starts.
    pub(super) fn start_wire(&mut self) {
        if let Some(wire) = self.wire.as_mut() {
            wire.start_server(self.workers);
        }
    }

    /// The server's process is gone.
    pub(super) fn kill_wire(&mut self) {
        if let Some(wire) = self.wire.as_mut() {
            wire.kill_server();
        }
    }
}
