//! Pushes that need not keep their order, carried as by a worker's driver: by the very code of the
//! server, which here remembers each push by its frame. And what is due to come: the network knows
//! both ends, so it sees a push that neither came nor is waited for.

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, Transmit};
use tern_quic::free::{Due, Free};
use tern_quic::settings::FreePushes;

use super::host::{Host, State};

/// The pushes of one connection.
pub(super) struct Pushes {
    free: Free<Bytes>,
    /// Those that left by datagram alone and have not reached the client's end.
    owed: Vec<Bytes>,
}

impl Pushes {
    pub(super) fn new(how: FreePushes) -> Self {
        Self { free: Free::new(how), owed: Vec::new() }
    }

    /// The connection is on another path.
    pub(super) fn moved(&mut self, connection: &Connection) {
        self.free.moved(connection);
    }

    /// The next packet of the connection.
    pub(super) fn poll_transmit(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.free.poll_transmit(connection, now, 1, buffer)
    }

    /// Forgets those of whose arrival the server has heard.
    pub(super) fn take_arrivals(&mut self) {
        self.free.take_arrivals();
    }

    /// When something is to be done.
    pub(super) fn deadline(&self, connection: &Connection) -> Option<Instant> {
        self.free.deadline(connection)
    }

    /// A frame has reached the client's end.
    pub(super) fn arrived(&mut self, frame: &Bytes) {
        self.owed.retain(|push| push != frame);
    }

    /// A push that the client's end has not got and for which nothing is waited.
    pub(super) fn forgotten(&self) -> Option<&Bytes> {
        self.owed.first().filter(|_| self.free.is_empty())
    }
}

impl Host {
    /// Says a frame that may overtake others, by whatever carries such.
    pub fn write_free(&mut self, index: usize, frame: Bytes, now: Instant) {
        let Some(link) = self.open_link(index) else { return };
        let pushes = &mut link.pushes;
        match pushes.free.send(&mut link.connection, frame.clone(), frame.clone()) {
            Ok(()) => {
                pushes.owed.push(frame);
                self.counts.pushes_free += 1;
            }
            Err(frame) => self.write(index, frame, now),
        }
    }

    /// Says once more what leaves by two datagrams, and what may be lost.
    pub(super) fn push_due(&mut self, index: usize, now: Instant) {
        let mut lost = 0;
        while let Some(link) = self.open_link(index)
            && let Some(due) = link.pushes.free.take_due(&link.connection, now)
        {
            let (free, connection) = (&mut link.pushes.free, &mut link.connection);
            match due {
                Due::Copy(frame) => {
                    let is_given = free.send_copy(connection, frame.clone(), frame);
                    self.counts.pushes_doubled += u64::from(is_given);
                }
                Due::Late(frame) => {
                    self.counts.pushes_repeated += u64::from(free.repeat(connection, frame));
                }
                Due::Lost(frame) => {
                    lost += 1;
                    self.repair(index, frame, lost, now);
                }
            }
        }
    }

    /// A push that counts as lost goes by stream; `number` counts those of this moment.
    fn repair(&mut self, index: usize, frame: Bytes, number: u64, now: Instant) {
        if self.forgets_lost && number.is_multiple_of(2) {
            return;
        }
        self.counts.pushes_repaired += 1;
        if let Some(link) = self.links.get_mut(&index) {
            link.pushes.arrived(&frame); // the stream's concern now
        }
        self.write(index, frame, now);
    }

    /// A frame has reached the client's end of a connection.
    pub fn reached_client(&mut self, index: usize, frame: &Bytes) {
        if let Some(link) = self.links.get_mut(&index) {
            link.pushes.arrived(frame);
        }
    }

    /// Of an open connection, by its number in the world: a push that has not come and never will.
    pub fn forgotten(&self, index: usize) -> Option<(u64, Bytes)> {
        let link = self.links.get(&index).filter(|link| link.state == State::Open)?;
        Some((link.number, link.pushes.forgotten()?.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use quinn_proto::DatagramEvent;
    use tern_protocol::frame::header;
    use tern_protocol::{Flags, Kind};
    use tern_quic::settings::{TransportKeys, TransportSettings};
    use zerocopy::IntoBytes as _;

    use super::super::client::{self, ClientEnd};
    use super::super::host::Setup;
    use super::*;

    /// Where the client is.
    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4_000);

    /// How long a packet travels.
    const DELAY: Duration = Duration::from_millis(25);

    /// Longer than a repair takes, with the client's delay of acknowledgements.
    const ROUNDS: usize = 8;

    /// Both ends of a connection, on a path of its own.
    struct Pair {
        host: Host,
        client: ClientEnd,
        now: Instant,
        /// What is on its way to the server and to the client.
        up: Vec<Vec<u8>>,
        down: Vec<Vec<u8>>,
    }

    /// A frame with a number in it, so that no two are alike.
    fn frame(kind: Kind, number: u64) -> Bytes {
        let body = number.to_le_bytes();
        [header(kind, Flags::NONE, body.len()).as_bytes(), &body].concat().into()
    }

    impl Pair {
        fn new(free_pushes: FreePushes) -> Self {
            let now = Instant::now();
            let settings = TransportSettings { free_pushes, ..TransportSettings::default() };
            let keys = TransportKeys { token: [1; 64], reset: [2; 32] };
            let setup = Setup { keys, settings, seed: 1, base: now, forgets_lost: false };
            let (host, client) = (Host::new(&setup, 0, 1), ClientEnd::dial(1, now));
            let mut pair = Self { host, client, now, up: Vec::new(), down: Vec::new() };
            (0..ROUNDS).for_each(|_| pair.round(true));
            pair.client.write(frame(Kind::Ping, 0)); // opens the stream
            (0..ROUNDS).for_each(|_| pair.round(true));
            assert!(pair.index() == 0 && pair.client.is_open());
            pair
        }

        fn index(&self) -> usize {
            self.host.index_of(1).expect("it is connected")
        }

        /// Something there, something back; what the server says in it is lost if not `arrives`.
        fn round(&mut self, arrives: bool) {
            self.collect();
            self.now += DELAY;
            self.land_at_server();
            self.host.handle_timeout(0, self.now);
            self.collect();
            self.now += DELAY;
            let down = std::mem::take(&mut self.down);
            for packet in down.iter().filter(|_| arrives) {
                self.client.handle_datagram(packet, self.now);
            }
            self.client.handle_timeout(self.now);
        }

        fn land_at_server(&mut self) {
            for packet in self.up.split_off(0) {
                self.host.handle_datagram((ADDRESS, 1), &packet, self.now, &mut Vec::new());
            }
        }

        fn collect(&mut self) {
            let mut buffer = Vec::new();
            while self.client.poll_transmit(self.now, &mut buffer) {
                self.up.push(buffer.clone());
            }
            self.host.follow(0, self.now);
            while self.host.poll_transmit(0, self.now, &mut buffer).is_some() {
                self.down.push(buffer.clone());
            }
        }

        fn push(&mut self, count: u64) -> Vec<Bytes> {
            let pushes: Vec<Bytes> = (1..=count).map(|number| frame(Kind::Push, number)).collect();
            for push in &pushes {
                self.host.write_free(self.index(), push.clone(), self.now);
            }
            pushes
        }

        /// What the client has got, each once, in order of the numbers.
        fn got(&mut self) -> Vec<Bytes> {
            let told = std::iter::from_fn(|| self.client.poll_told());
            let frames = told.filter_map(|told| match told {
                client::Told::Frame(frame) => Some(frame),
                client::Told::Ready | client::Told::Lost(_) => None,
            });
            let mut frames: Vec<Bytes> = frames.collect();
            frames.sort();
            frames.dedup();
            frames
        }
    }

    #[test]
    fn each_of_many_that_are_lost_at_once_comes() {
        for how in [FreePushes::Doubled, FreePushes::Single, FreePushes::Repeated] {
            let mut pair = Pair::new(how);
            let pushes = pair.push(5);
            pair.round(false);
            (0..ROUNDS).for_each(|_| pair.round(true));
            assert_eq!(pair.got(), pushes, "{how:?}: {:?}", pair.host.counts());
        }
    }

    #[test]
    fn each_carrier_says_again_what_may_be_lost() {
        let counts = |how| {
            let mut pair = Pair::new(how);
            pair.push(5);
            (0..3).for_each(|_| pair.round(false));
            let counts = pair.host.counts();
            (
                counts.pushes_free,
                counts.pushes_doubled,
                counts.pushes_repaired,
                counts.pushes_repeated,
            )
        };
        assert_eq!(counts(FreePushes::Single), (5, 0, 5, 0));
        assert_eq!(counts(FreePushes::Repeated), (0, 0, 0, 5));
        assert_eq!(counts(FreePushes::Doubled).1, 5);
    }

    #[test]
    fn what_is_lost_is_owed_until_the_stream_has_it() {
        let mut pair = Pair::new(FreePushes::Single);
        let pushes = pair.push(2);
        pair.host.reached_client(0, &pushes[0]);
        pair.host.forgets_lost = true;
        (0..ROUNDS).for_each(|_| pair.round(false));
        assert_eq!(pair.host.counts().pushes_repaired, 1);
        assert_eq!(pair.host.forgotten(0), Some((1, pushes[1].clone())));
    }

    /// A worker takes in a turn first the packets, then the deadlines, and then what packets led to.
    #[test]
    fn what_is_acknowledged_in_the_turn_of_its_deadline_is_not_lost() {
        let mut pair = Pair::new(FreePushes::Single);
        pair.push(3);
        pair.round(true);
        pair.now += 2 * DELAY; // by then the client has said that they came
        pair.client.handle_timeout(pair.now);
        pair.collect();
        pair.now += Duration::from_secs(1);
        assert!(!pair.up.is_empty());
        for packet in pair.up.split_off(0) {
            let host = &mut pair.host;
            let bytes = packet.as_slice().into();
            let event = host.endpoint.handle(pair.now, ADDRESS, None, None, bytes, &mut Vec::new());
            let Some(DatagramEvent::ConnectionEvent(_, event)) = event else { continue };
            host.links.get_mut(&0).expect("it is there").connection.handle_event(event);
        }
        pair.host.push_due(0, pair.now);
        assert_eq!(pair.host.counts().pushes_repaired, 0);
    }
}
