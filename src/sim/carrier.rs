//! How frames travel between a client and the server.

use std::collections::VecDeque;

use bytes::Bytes;
use tern_protocol::Code;

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// What travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parcel {
    /// A whole frame.
    Frame(Bytes),
    /// The connection's end, with the code of whoever closed it.
    End(Option<Code>),
}

/// One connection's transport, both ways.
pub trait Carrier {
    /// Takes a parcel that would need `delay_ms` on a free path. Returns when to ask
    /// [`deliver`](Self::deliver), or `None` if it is lost.
    fn offer(&mut self, way: Way, parcel: Parcel, now: u64, delay_ms: u64) -> Option<u64>;

    /// The next parcel that has arrived.
    fn deliver(&mut self, way: Way, now: u64) -> Option<Parcel>;

    /// Nothing of this direction arrives before `until`. Returns when to ask for each parcel that
    /// is under way.
    fn stall(&mut self, way: Way, until: u64) -> Vec<u64>;

    /// What is under way never arrives, nor does what is offered from now on.
    fn cut(&mut self, way: Way);
}

/// An ordered and reliable stream each way: what a lossy path costs is time.
#[derive(Debug, Default)]
pub struct StreamCarrier {
    to_server: Pipe,
    to_client: Pipe,
}

#[derive(Debug, Default)]
struct Pipe {
    /// Parcels under way, with the moment at which each arrives; in order of both.
    parcels: VecDeque<(u64, Parcel)>,
    /// Nothing arrives before.
    not_before: u64,
    is_cut: bool,
}

impl StreamCarrier {
    fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }
}

impl Carrier for StreamCarrier {
    fn offer(&mut self, way: Way, parcel: Parcel, now: u64, delay_ms: u64) -> Option<u64> {
        let pipe = self.pipe(way);
        if pipe.is_cut {
            return None;
        }
        pipe.not_before = pipe.not_before.max(now + delay_ms);
        pipe.parcels.push_back((pipe.not_before, parcel));
        Some(pipe.not_before)
    }

    fn deliver(&mut self, way: Way, now: u64) -> Option<Parcel> {
        let arrived = self.pipe(way).parcels.pop_front_if(|(when, _)| *when <= now);
        arrived.map(|(_, parcel)| parcel)
    }

    fn stall(&mut self, way: Way, until: u64) -> Vec<u64> {
        let pipe = self.pipe(way);
        pipe.not_before = pipe.not_before.max(until);
        for (when, _) in &mut pipe.parcels {
            *when = (*when).max(until);
        }
        pipe.parcels.iter().map(|(when, _)| *when).collect()
    }

    fn cut(&mut self, way: Way) {
        let pipe = self.pipe(way);
        pipe.parcels.clear();
        pipe.is_cut = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> Parcel {
        Parcel::Frame(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn order_holds_whatever_the_delays() {
        let mut carrier = StreamCarrier::default();
        assert_eq!(carrier.offer(Way::ToServer, frame("slow"), 0, 50), Some(50));
        assert_eq!(carrier.offer(Way::ToServer, frame("fast"), 10, 1), Some(50));
        assert_eq!(carrier.deliver(Way::ToServer, 49), None);
        assert_eq!(carrier.stall(Way::ToServer, 80), [80, 80]);
        assert_eq!(carrier.deliver(Way::ToServer, 80), Some(frame("slow")));
        carrier.cut(Way::ToServer);
        assert_eq!(carrier.deliver(Way::ToServer, 90), None);
        assert_eq!(carrier.offer(Way::ToServer, frame("late"), 90, 1), None);
        assert_eq!(carrier.offer(Way::ToClient, frame("back"), 90, 1), Some(91));
    }
}
