//! Connections: opened by clients, carried with delays, lost by both sides at different times.

use tern_client::machine::Input as ClientInput;
use tern_core::io::{Input, LinkId};
use tern_netmodel::Conditions;
use tern_netmodel::carrier::{Carrier, Class, Way};
use tern_protocol::{Code, Flags, Frame};

use super::{Happening, World};
use crate::fault::Fault;
use crate::parcel::{Parcel, Weather, at, conditions, ms};
use crate::server::Shown;

/// After this long without a packet a server forgets a connection, in ms.
const IDLE_MS_MAX: u64 = 90_000;

/// Bytes of a packet that opens a connection.
const OPENING_BYTES: usize = 1_200;

/// Datagrams in a hundred that are lost beside what the link loses.
const FREE_LOST_PERCENT: u64 = 10;

/// Lost pushes in a hundred that the server's transport takes for delivered.
const UNREPAIRED_PERCENT: u64 = 5;

/// Pushes in a hundred that it repeats although they come.
const REPEATED_PERCENT: u64 = 10;

/// After this time in ms it repeats what was not acknowledged.
const REPAIR_MS: u64 = 250;

/// A connection.
pub(super) struct Conn {
    pub(super) install: usize,
    /// The server's process and worker that it reached.
    pub(super) seat: Option<(u64, usize)>,
    /// The client's process still has it.
    pub(super) client_open: bool,
    /// The server still has it.
    pub(super) server_open: bool,
    /// It is lost, and the server does not learn of it.
    is_half_lost: bool,
    carrier: Carrier<Parcel>,
}

impl World {
    /// The client wants a connection.
    pub(super) fn open_link(&mut self, install: usize) {
        let link = self.next_link;
        self.next_link += 1;
        let carrier = Carrier::new(self.net.draw(), at(self.now));
        let conn = Conn {
            install,
            seat: None,
            client_open: true,
            server_open: false,
            is_half_lost: false,
            carrier,
        };
        self.links.insert(link, conn);
        if let Some(process) = self.installs[install].process.as_mut() {
            process.link = Some(link);
        }
        if self.dial(link, install) {
            return;
        }
        let when = self.crossing(link, Way::ToServer).max(self.installs[install].cut_off_until);
        if self.server.is_none() && self.net.percent(50) {
            self.agenda.add(when, Happening::ClientNotices(link));
        } else {
            self.agenda.add(when, Happening::LinkArrives(link));
        }
    }

    /// The conditions on the path of an install at this moment.
    pub(super) fn conditions(&mut self, install: usize) -> Conditions {
        let is_slow = self.struck(Fault::SlowNetwork);
        let is_lossy = self.is_on(Fault::LossyNetwork);
        let has_bursts = self.struck(Fault::Bursts);
        let is_reordered = self.struck(Fault::Reordered);
        let is_narrow = self.struck(Fault::NarrowLine);
        let weather = Weather { is_slow, is_lossy, has_bursts, is_reordered, is_narrow };
        conditions(self.installs[install].path, weather)
    }

    /// Sets the conditions of a direction of a connection as they are now.
    fn weather_of(&mut self, link: u64, way: Way) {
        let Some(install) = self.links.get(&link).map(|conn| conn.install) else { return };
        let conditions = self.conditions(install);
        if let Some(conn) = self.links.get_mut(&link) {
            conn.carrier.set(way, conditions, at(self.now));
        }
    }

    /// When something that must get through reaches the other side.
    fn crossing(&mut self, link: u64, way: Way) -> u64 {
        self.weather_of(link, way);
        let now = self.now;
        let Some(conn) = self.links.get_mut(&link) else { return now };
        let lost = conn.carrier.counts(way).lost;
        let when = ms(conn.carrier.crossing(way, OPENING_BYTES, at(now)));
        self.note_losses(link, way, lost);
        when
    }

    fn note_losses(&mut self, link: u64, way: Way, before: u64) {
        let lost = self.links.get(&link).map_or(0, |conn| conn.carrier.counts(way).lost);
        (before..lost).for_each(|_| self.tally.hit(Fault::LossyNetwork));
    }

    /// Gives a parcel to the transport.
    pub(super) fn offer(&mut self, link: u64, way: Way, parcel: Parcel) {
        let Some(parcel) = self.say_parcel(link, way, parcel) else { return };
        self.weather_of(link, way);
        let now = at(self.now);
        let Some(conn) = self.links.get_mut(&link) else { return };
        let lost = conn.carrier.counts(way).lost;
        let moments = conn.carrier.offer(way, Class::Ordered, (parcel.bytes(), parcel), now);
        for when in moments {
            self.agenda.add(ms(when), Happening::Flight(link, way));
        }
        self.note_losses(link, way, lost);
    }

    /// A frame leaves by datagram. A lost push is repeated in order by the server's transport, as a
    /// rule; a lost send by the client's machine.
    pub(super) fn offer_free(&mut self, link: u64, way: Way, frame: bytes::Bytes) {
        self.tally.hit(Fault::Datagrams);
        let Some(frame) = self.say_free(link, way, frame) else { return };
        self.weather_of(link, way);
        let is_lost = self.net.percent(FREE_LOST_PERCENT);
        let now = at(self.now);
        let Some(conn) = self.links.get_mut(&link) else { return };
        let parcel = Parcel::Frame(frame.clone());
        let mut moments = Vec::new();
        if !is_lost {
            moments = conn.carrier.offer(way, Class::Loose, (parcel.bytes(), parcel), now);
        }
        let percent = if moments.is_empty() { 100 - UNREPAIRED_PERCENT } else { REPEATED_PERCENT };
        if way == Way::ToClient && self.net.percent(percent) {
            self.agenda.add(self.now + REPAIR_MS, Happening::Repair(link, frame));
        }
        for when in moments {
            self.agenda.add(ms(when), Happening::Flight(link, way));
        }
    }

    /// The connection is there for the server.
    pub(super) fn link_arrives(&mut self, link: u64) {
        let Some(server) = self.server.as_mut() else {
            if self.links.get(&link).is_some_and(|conn| !conn.client_open) {
                self.links.remove(&link);
            }
            return;
        };
        let worker = self.net.below(server.seats.len() as u64) as usize;
        self.arrive(link, worker, self.now);
        let when = self.crossing(link, Way::ToClient);
        self.agenda.add(when, Happening::LinkReady(link));
    }

    /// The connection is there for this worker; it began at this moment.
    pub(super) fn arrive(&mut self, link: u64, worker: usize, begun: u64) {
        let Some(server) = self.server.as_ref() else { return };
        let (generation, begun) = (server.generation, server.mono(begun));
        let Some(conn) = self.links.get_mut(&link) else { return };
        (conn.seat, conn.server_open) = (Some((generation, worker)), true);
        let install = conn.install;
        self.trace.note(
            self.now,
            &[6, link, worker as u64],
            &[],
            format_args!("connection {link} of install {install} reaches worker {worker}"),
        );
        self.oracle.link_opened(link);
        self.worker_input(worker, Input::LinkOpened(LinkId(link), begun));
    }

    /// The connection is there for the client.
    pub(super) fn link_ready(&mut self, link: u64) {
        let Some(conn) = self.links.get(&link).filter(|conn| conn.client_open) else { return };
        let install = conn.install;
        if let Some(until) = self.asleep(install) {
            return self.agenda.add(until, Happening::LinkReady(link));
        }
        self.device_input(install, ClientInput::Connected);
    }

    /// The client notices that a connection is gone.
    pub(super) fn client_notices(&mut self, link: u64, code: Option<Code>) {
        let Some(conn) = self.links.get_mut(&link).filter(|conn| conn.client_open) else { return };
        conn.client_open = false;
        conn.carrier.cut(Way::ToClient);
        let install = conn.install;
        self.vanish(link);
        self.trace.note(
            self.now,
            &[7, link],
            &[],
            format_args!("install {install} notices that connection {link} is gone"),
        );
        if let Some(process) = self.installs[install].process.as_mut() {
            process.link = None;
        }
        self.device_input(install, ClientInput::Disconnected { code });
        self.forget(link);
    }

    /// The server notices that a connection is gone.
    pub(super) fn server_notices(&mut self, link: u64) {
        let Some(conn) = self.links.get_mut(&link).filter(|conn| conn.server_open) else { return };
        conn.server_open = false;
        conn.carrier.cut(Way::ToServer);
        let seat = conn.seat;
        self.trace.note(
            self.now,
            &[8, link],
            &[],
            format_args!("the server notices that connection {link} is gone"),
        );
        if let Some((_, worker)) = seat {
            self.worker_input(worker, Input::LinkClosed(LinkId(link)));
        }
        self.forget(link);
    }

    /// The client closes its connection; what it said before still arrives.
    pub(super) fn close_by_client(&mut self, link: u64, code: Code) {
        let Some(conn) = self.links.get_mut(&link) else { return };
        conn.client_open = false;
        conn.carrier.cut(Way::ToClient);
        if !conn.is_half_lost {
            self.offer(link, Way::ToServer, Parcel::End(Some(code)));
        }
        self.forget(link);
    }

    /// The client's process is gone and says nothing more.
    pub(super) fn abandon(&mut self, link: u64) {
        if let Some(conn) = self.links.get_mut(&link) {
            conn.client_open = false;
            conn.carrier.cut(Way::ToClient);
            let is_half_lost = conn.is_half_lost;
            // With packets, the server notices by itself.
            if !self.vanish(link) && !is_half_lost {
                let when = self.now + self.net.between(0, IDLE_MS_MAX);
                self.agenda.add(when, Happening::ServerNotices(link));
            }
            self.forget(link);
        }
    }

    /// The server closes a connection.
    pub(super) fn close_by_server(&mut self, link: u64, frame: bytes::Bytes, code: Code) {
        self.offer(link, Way::ToClient, Parcel::Frame(frame));
        self.offer(link, Way::ToClient, Parcel::End(Some(code)));
        if let Some(conn) = self.links.get_mut(&link) {
            conn.server_open = false;
            conn.carrier.cut(Way::ToServer);
        }
        self.oracle.link_closed(link);
        self.forget(link);
    }

    /// A connection that neither side has is forgotten.
    fn forget(&mut self, link: u64) {
        if self.links.get(&link).is_some_and(|conn| !conn.client_open && !conn.server_open) {
            let waits = self.links[&link].seat.is_none();
            if !waits {
                self.links.remove(&link);
                self.oracle.link_closed(link);
            }
        }
    }

    /// Something may have arrived.
    pub(super) fn flight(&mut self, link: u64, way: Way) {
        let Some(install) = self.links.get(&link).map(|conn| conn.install) else { return };
        if way == Way::ToClient
            && let Some(until) = self.asleep(install)
        {
            return self.agenda.add(until, Happening::Flight(link, way));
        }
        let now = at(self.now);
        let Some(conn) = self.links.get_mut(&link) else { return };
        let Some(parcel) = conn.carrier.deliver(way, now) else { return };
        let (client_open, server_open) = (conn.client_open, conn.server_open);
        match (way, parcel) {
            (Way::ToClient, Parcel::Frame(frame)) if client_open => {
                self.frame_arrives(install, frame);
            }
            (Way::ToClient, Parcel::End(code)) => self.client_notices(link, code),
            (Way::ToServer, Parcel::Frame(frame)) if server_open => {
                self.frame_reaches_server(link, frame);
            }
            (Way::ToServer, Parcel::End(_)) => self.server_notices(link),
            _ => {}
        }
    }

    pub(super) fn frame_reaches_server(&mut self, link: u64, frame: bytes::Bytes) {
        let Some((_, worker)) = self.links.get(&link).and_then(|conn| conn.seat) else { return };
        let install = self.links[&link].install;
        let uin = self.installs[install].device.uin;
        self.trace.note(
            self.now,
            &[9, link],
            &frame,
            format_args!("install {install} said  {} on connection {link}", Shown(&frame)),
        );
        match Frame::parse(&frame) {
            Ok((frame @ (Frame::ReceiveAck(list) | Frame::Cursors(list)), flags)) => {
                if let Frame::Cursors(list) = frame {
                    self.oracle.cursors_arrive(link, list, flags.has(Flags::LAST));
                }
                for cursor in list {
                    self.oracle.cursor_arrives((uin, link), cursor.channel, cursor.id.get());
                }
            }
            Ok((Frame::HistoryWanted(wish), _)) => {
                self.oracle.newcomers.wish_arrives(link, uin, wish.newest.get());
            }
            Ok((Frame::Fetch(_), _)) => self.oracle.fetch_arrives(link),
            Ok((Frame::Read(list), _)) => self.oracle.read_arrives(uin, list),
            Ok((Frame::MarksAsk(_), _)) => self.oracle.marks.asked(link, uin),
            Ok((Frame::HistoryAsk(ask), _)) => self.oracle.history_arrives(link, ask),
            Ok((Frame::Block(wish), _)) => self.oracle.block_arrives(link, uin, wish.uin.into()),
            _ => {}
        }
        self.worker_input(worker, Input::Frame(LinkId(link), frame));
    }

    /// The server's process is gone, and its connections with it. Some clients learn of it soon
    /// after the next one is up, others by silence.
    pub(super) fn drop_links(&mut self, notice_from: u64) {
        let open: Vec<u64> =
            self.links.iter().filter(|(_, conn)| conn.server_open).map(|(link, _)| *link).collect();
        for link in open {
            let Some(conn) = self.links.get_mut(&link) else { continue };
            conn.server_open = false;
            conn.carrier.cut(Way::ToServer);
            if self.wire.is_none() && self.net.percent(60) {
                let when = notice_from + self.net.between(0, 2_000);
                self.agenda.add(when, Happening::ClientNotices(link));
            }
            self.forget(link);
        }
    }

    /// A connection is lost. `half`: the server never notices, and what was under way to it comes
    /// late.
    pub(super) fn lose_link(&mut self, link: u64, half: bool) {
        let now = self.now;
        let late = now + self.net.between(100, 20_000);
        let has_wire = self.darken(link, half);
        let Some(conn) = self.links.get_mut(&link) else { return };
        if has_wire {
            conn.is_half_lost = half;
        } else if half {
            conn.is_half_lost = true;
            let flights = conn.carrier.stall(Way::ToServer, at(late));
            for when in flights {
                self.agenda.add(ms(when), Happening::Flight(link, Way::ToServer));
            }
        } else {
            conn.carrier.cut(Way::ToServer);
            conn.carrier.cut(Way::ToClient);
            let when = now + self.net.between(0, 30_000);
            self.agenda.add(when, Happening::ServerNotices(link));
        }
        if self.net.percent(80) {
            let when = now + self.net.between(0, 3_000);
            self.agenda.add(when, Happening::ClientNotices(link));
        }
    }

    /// One direction of a connection stands still.
    pub(super) fn stall_link(&mut self, link: u64, way: Way, until: u64) {
        if self.black_out(link, way, until) {
            return;
        }
        let Some(conn) = self.links.get_mut(&link) else { return };
        for when in conn.carrier.stall(way, at(until)) {
            self.agenda.add(ms(when), Happening::Flight(link, way));
        }
    }
}
