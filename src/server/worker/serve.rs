//! What happens on connections: their events, their control stream, their deadlines, their end.

use std::time::{Duration, Instant};

use quinn_proto::{Chunks, ConnectionHandle, Dir, Event, ReadError, StreamEvent, StreamId, VarInt};
use tern_core::io::{Input, Order};
use tern_core::log::Reader;
use tern_protocol::{Code, Header, Kind};
use tern_quic::free::Due;
use tern_storage::Carrier;

use super::driver::Driver;
use super::links::{Link, State, index_of};
use super::machine::Machine;
use crate::alloc::{Scope, enter};

/// Bytes read from one connection a turn, so that one who sends much does not hold up the
/// others: ten messages of the default size.
const READ_BYTES: usize = 16 << 10;

/// How a read of the control stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    /// Nothing more has come.
    Blocked,
    /// The budget of the turn is used up.
    More,
    /// The client ended the stream.
    Ended,
}

/// What to do about a link after an event.
enum Next {
    /// Nothing beyond.
    Stay,
    /// The control stream is there, maybe with its first bytes.
    Opened,
    /// Datagrams have come.
    Datagrams,
    /// The handshake is complete.
    Connected,
    /// The connection is gone.
    Lost,
    /// The client did what it may not do, or went.
    End(Code),
    /// The client has the CLOSE frame.
    Told(Code),
}

impl<M: Machine, R: Reader> Driver<M, R> {
    /// Has the link's events taken this turn.
    pub(super) fn queue_serve(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        if !std::mem::replace(&mut link.queued.serve, true) {
            self.to_serve.push_back(index);
        }
    }

    /// Has the link send what it has, and its deadline noted, this turn.
    pub(super) fn queue_send(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        if !std::mem::replace(&mut link.queued.send, true) {
            self.to_send.push_back(index);
        }
    }

    fn queue_read(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        if !std::mem::replace(&mut link.queued.read, true) {
            self.to_read.push_back(index);
        }
    }

    pub(super) fn serve_links(&mut self) {
        while let Some(index) = self.to_serve.pop_front() {
            if let Some(link) = self.links.at(index) {
                link.queued.serve = false;
                link.take_arrivals();
                self.queue_send(index);
                self.take_events(index);
                self.take_endpoint_events(index);
            }
        }
    }

    /// Carries events between the connection and its endpoint. The link is gone after the last.
    pub(super) fn take_endpoint_events(&mut self, index: u32) {
        let handle = ConnectionHandle(index as usize);
        while let Some(link) = self.links.at(index) {
            let quic = enter(Scope::Quic);
            let Some(event) = link.connection.poll_endpoint_events() else { return };
            let drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                link.connection.handle_event(event);
                if !std::mem::replace(&mut link.queued.send, true) {
                    self.to_send.push_back(index);
                }
            }
            drop(quic);
            if drained {
                // Mostly known as lost by its events; sending may find a connection at its end.
                self.on_lost(index);
                self.forget(index);
            }
        }
    }

    fn take_events(&mut self, index: u32) {
        loop {
            let Some(link) = self.links.at(index) else { return };
            let event = {
                let _quic = enter(Scope::Quic);
                link.connection.poll()
            };
            match event {
                None => return,
                Some(Event::Stream(StreamEvent::Readable { id })) if Some(id) == link.stream => {
                    self.queue_read(index);
                }
                Some(event) => {
                    let next = link.take_event(event);
                    self.go_on(index, next);
                }
            }
        }
    }

    fn go_on(&mut self, index: u32, next: Next) {
        match next {
            Next::Stay => {}
            Next::Opened | Next::Datagrams => self.queue_read(index),
            Next::Connected => self.on_connected(index),
            Next::Lost => self.on_lost(index),
            Next::End(code) => {
                self.counts.streams_forbidden += u64::from(code == Code::StreamNotAllowed);
                self.end(index, code);
            }
            Next::Told(code) => {
                if let Some(link) = self.links.at(index) {
                    let before = link.state;
                    link.close(self.now, code);
                    self.after_end(index, before);
                }
            }
        }
    }

    fn on_connected(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        let State::Handshaking { unproven, begun, .. } = link.state else { return };
        link.state = State::Open;
        let id = link.id;
        self.handshakes -= 1;
        self.unproven -= usize::from(unproven);
        self.counts.handshakes += 1;
        self.counts.links_opened += 1;
        self.list(index);
        self.handle(Input::LinkOpened(id, begun));
        self.queue_read(index);
    }

    fn on_lost(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        let (before, id) = (link.state, link.id);
        link.state = State::Ended;
        self.after_end(index, before);
        if before == State::Open {
            self.handle(Input::LinkClosed(id));
        }
    }

    /// Closes a connection on the driver's own account; the machine is told if it knows it.
    pub(super) fn end(&mut self, index: u32, code: Code) {
        let Some(link) = self.links.at(index) else { return };
        let (before, id) = (link.state, link.id);
        if before == State::Ended {
            return;
        }
        link.close(self.now, code);
        self.queue_send(index);
        self.after_end(index, before);
        if before == State::Open {
            self.lost.push_back(id);
            self.tell_lost();
        }
    }

    /// Counts and unlists what was in `before` and is [`State::Ended`] now.
    pub(super) fn after_end(&mut self, index: u32, before: State) {
        match before {
            State::Handshaking { unproven, .. } => {
                self.handshakes -= 1;
                self.unproven -= usize::from(unproven);
                self.counts.handshakes_failed += 1;
            }
            State::Open | State::Lingering { .. } => self.unlist(index),
            State::Ended => return,
        }
        self.live -= 1;
        self.counts.links_closed += u64::from(before == State::Open);
    }

    /// The last of a link.
    fn forget(&mut self, index: u32) {
        self.timers.remove(index);
        if let Some(link) = self.links.remove(index) {
            assert_eq!(link.state, State::Ended, "a connection drains after it was lost");
        }
    }

    pub(super) fn read_links(&mut self) {
        for _ in 0..self.to_read.len() {
            let Some(index) = self.to_read.pop_front() else { break };
            if let Some(link) = self.links.at(index) {
                link.queued.read = false;
                self.read_link(index);
            }
        }
    }

    fn read_link(&mut self, index: u32) {
        let mut chunks = std::mem::take(&mut self.chunks);
        let Some(link) = self.links.at(index) else { return };
        let (rest, credit) = link.read(&mut chunks);
        for chunk in &mut chunks {
            self.cut(index, chunk);
        }
        chunks.clear();
        self.chunks = chunks;
        if credit {
            self.queue_send(index);
        }
        match rest {
            Rest::Blocked => {}
            Rest::More => self.queue_read(index),
            Rest::Ended => self.stream_ended(index),
        }
        self.read_datagrams(index);
    }

    /// Takes what has come by datagram, within the budget: each is one whole SEND.
    fn read_datagrams(&mut self, index: u32) {
        let mut budget = READ_BYTES;
        while let Some(link) = self.links.at(index).filter(|link| link.state == State::Open) {
            if budget == 0 {
                return self.queue_read(index);
            }
            let frame = {
                let _quic = enter(Scope::Quic);
                link.connection.datagrams().recv()
            };
            let (Some(frame), id) = (frame, link.id) else { return };
            let is_send = Header::peek(&frame).is_some_and(|header| {
                header.frame_bytes() == frame.len() && Kind(header.kind) == Kind::Send
            });
            if !is_send {
                self.counts.datagrams_bad += 1;
                return self.end(index, Code::Malformed);
            }
            budget = budget.saturating_sub(frame.len());
            self.counts.frames_free += 1;
            self.handle(Input::Frame(id, frame));
        }
    }

    /// Hands the frames in a chunk to the machine, as long as it wants any of this link.
    fn cut(&mut self, index: u32, chunk: &mut bytes::Bytes) {
        while let Some(link) = self.links.at(index).filter(|link| link.state == State::Open) {
            let Some(frame) = link.cutter.next(chunk) else { return };
            let id = link.id;
            self.counts.frames += 1;
            self.handle(Input::Frame(id, frame));
        }
    }

    /// The client has said its last: inside a frame that is malformed, else it ended its session.
    fn stream_ended(&mut self, index: u32) {
        let Some(link) = self.links.at(index).filter(|link| link.state == State::Open) else {
            return;
        };
        let code = if link.cutter.is_inside() { Code::Malformed } else { Code::LoggedOut };
        self.counts.streams_cut += u64::from(code == Code::Malformed);
        self.end(index, code);
    }

    /// A deadline of QUIC or of the driver has come, or an earlier one had been noted.
    pub(super) fn fire_timer(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        {
            let _quic = enter(Scope::Quic);
            link.connection.handle_timeout(self.now);
        }
        match link.state {
            State::Handshaking { until, .. } if until <= self.now => {
                self.counts.handshakes_slow += 1;
                self.drop_handshake(index);
            }
            State::Lingering { until, code } if until <= self.now => {
                self.go_on(index, Next::Told(code));
            }
            State::Open => self.push_due(index),
            _ => {}
        }
        self.queue_serve(index);
    }

    /// Pushes once more what leaves by two datagrams, and what may be lost.
    fn push_due(&mut self, index: u32) {
        while let Some(link) = self.links.at(index)
            && let Some(due) = link.take_due(self.now)
        {
            let id = link.id;
            match due {
                Due::Copy(place) => self.push_copy(id, place),
                Due::Late(place) => self.push_again(id, place),
                Due::Lost(place) => {
                    self.counts.pushes_repaired += 1;
                    self.push(id, place, Order::Kept, Carrier::Repair);
                    self.tell_lost();
                }
            }
        }
    }

    /// Drops every handshake under way; their clients try again.
    pub(super) fn drop_handshakes(&mut self) {
        let is_one = |link: &&Link| matches!(link.state, State::Handshaking { .. });
        let handshakes: Vec<u32> =
            self.links.iter().filter(is_one).map(|link| index_of(link.id)).collect();
        handshakes.into_iter().for_each(|index| self.drop_handshake(index));
    }

    /// Drops a handshake without a word: its address may be a victim's.
    fn drop_handshake(&mut self, index: u32) {
        let Some(link) = self.links.at(index) else { return };
        let before = std::mem::replace(&mut link.state, State::Ended);
        self.after_end(index, before);
        let handle = ConnectionHandle(index as usize);
        self.endpoint.handle_event(handle, quinn_proto::EndpointEvent::drained());
        self.forget(index);
    }

    /// Notes a link in the list of live connections; without a list, or room for it, its client
    /// notices a crash later.
    fn list(&mut self, index: u32) {
        let (Some(list), Some(link)) = (&mut self.peer_list, self.links.at(index)) else { return };
        match list.insert(&link.peer) {
            Ok(slot) => link.slot = Some(slot),
            Err(error) => tracing::warn!(%error, "the list of live connections was not written"),
        }
    }

    pub(super) fn relist(&mut self, index: u32) {
        let (Some(list), Some(link)) = (&mut self.peer_list, self.links.at(index)) else { return };
        let Some(slot) = link.slot else { return };
        if let Err(error) = list.update(slot, &link.peer) {
            tracing::warn!(%error, "the list of live connections was not written");
        }
    }

    pub(super) fn unlist(&mut self, index: u32) {
        let (Some(list), Some(link)) = (&mut self.peer_list, self.links.at(index)) else { return };
        let Some(slot) = link.slot.take() else { return };
        if let Err(error) = list.remove(slot) {
            tracing::warn!(%error, "the list of live connections was not written");
        }
    }
}

impl Link {
    fn take_event(&mut self, event: Event) -> Next {
        match event {
            Event::Connected => Next::Connected,
            Event::ConnectionLost { .. } => Next::Lost,
            Event::Stream(StreamEvent::Opened { dir }) => self.accept_streams(dir),
            Event::Stream(StreamEvent::Writable { id }) if Some(id) == self.stream => {
                self.flush();
                Next::Stay
            }
            Event::Stream(StreamEvent::Finished { id }) if Some(id) == self.stream => self.told(),
            Event::Stream(StreamEvent::Stopped { id, .. }) if Some(id) == self.stream => {
                match self.state {
                    State::Lingering { .. } => self.told(),
                    _ => Next::End(Code::LoggedOut),
                }
            }
            Event::DatagramReceived => Next::Datagrams,
            Event::Stream(_) | Event::HandshakeDataReady | Event::DatagramsUnblocked => Next::Stay,
        }
    }

    fn told(&self) -> Next {
        match self.state {
            State::Lingering { code, .. } => Next::Told(code),
            _ => Next::Stay,
        }
    }

    /// The first bidirectional stream is the control stream; no other is allowed.
    fn accept_streams(&mut self, dir: Dir) -> Next {
        let _quic = enter(Scope::Quic);
        while let Some(id) = self.connection.streams().accept(dir) {
            if dir == Dir::Uni || self.stream.is_some() {
                return Next::End(Code::StreamNotAllowed);
            }
            self.stream = Some(id);
        }
        self.flush();
        Next::Opened
    }

    /// Takes what has come on the control stream, within the budget. Also says whether the
    /// client must be told of new credit.
    fn read(&mut self, into: &mut Vec<bytes::Bytes>) -> (Rest, bool) {
        let Some(stream) = self.stream.filter(|_| self.state == State::Open) else {
            return (Rest::Blocked, false);
        };
        let _quic = enter(Scope::Quic);
        let mut receiver = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else {
            return (Rest::Ended, false); // read to its end before
        };
        let rest = read_chunks(&mut chunks, into);
        (rest, chunks.finalize().should_transmit())
    }

    /// Lets nothing more in on the control stream.
    pub(super) fn stop_reading(&mut self, stream: StreamId, code: Code) {
        let _quic = enter(Scope::Quic);
        // An error says that the client has ended the stream already.
        let _ = self.connection.recv_stream(stream).stop(VarInt::from_u32(code.0.into()));
    }

    /// Waits no longer than this for the client to have the CLOSE frame.
    pub(super) fn linger(&mut self, code: Code, now: Instant) {
        /// A few round trips of a bad network.
        const LINGER: Duration = Duration::from_secs(1);
        self.state = State::Lingering { code, until: now + LINGER };
    }
}

fn read_chunks(chunks: &mut Chunks<'_>, into: &mut Vec<bytes::Bytes>) -> Rest {
    let mut budget = READ_BYTES;
    while budget > 0 {
        match chunks.next(budget) {
            Ok(Some(chunk)) => {
                budget -= chunk.bytes.len();
                into.push(chunk.bytes);
            }
            Ok(None) | Err(ReadError::Reset(_)) => return Rest::Ended,
            Err(ReadError::Blocked) => return Rest::Blocked,
        }
    }
    Rest::More
}
