//! The heartbeat: says that the client is there, compares cursors, and tells when the next one is
//! due (SPEC.md §4.6).

use tern_protocol::frames::{Network, Ping, Pong};

use super::State;
use super::front::{Front, Verdict};
use crate::context::Context;
use crate::io::{Effect, LinkId, Outgoing};
use crate::log::Reader;
use crate::mail::{Address, Mail};

impl<R: Reader> Front<R> {
    pub(super) fn ping(&mut self, context: &mut Context<'_>, link: LinkId, ping: &Ping) -> Verdict {
        let from = self.session_ref(link);
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let network = Network::from_wire(ping.network);
        let before = std::mem::replace(&mut session.network, network);
        let is_other = before != network;
        self.networks[before.index()] -= 1;
        self.networks[network.index()] += 1;
        session.beat_ms = context.config.beat_ms(network, ping.heartbeat_ms.get());
        let moved = std::mem::take(&mut session.moved);
        context.counters.beats += 1;
        context.counters.beats_moved += u64::from(moved);
        let pong = Pong {
            sequence: ping.sequence,
            heartbeat_ms: session.beat_ms.into(),
            server_time: context.now.wall.into(),
            moved: u8::from(moved),
            reserved: [0; 7],
        };
        context.effect(Effect::Frame(link, Outgoing::Pong(pong)));
        if let State::Live(live) = &mut session.state {
            live.cursors.compare(context, link, &live.delivery, ping.digest.get());
            live.delivery.beat(context, link);
            live.delivery.pump(context, &mut self.reader, link);
            if is_other {
                let mail = Mail::Network { from, device: live.device, network };
                let home = Address::Shard(context.placement.home_of(live.device.uin));
                context.post.send(context.counters, home, mail);
            }
        }
        self.rearm(context, link);
        Ok(())
    }

    /// The client's packets come from another address.
    pub(crate) fn handle_moved(&mut self, link: LinkId) {
        if let Some(session) = self.sessions.get_mut(&link) {
            session.moved = true;
        }
    }
}
