//! Carries out what the machine wants done.
//!
//! A close is said twice. First as a CLOSE frame, the last on the control stream, with the time
//! to come back; then, once the client has acknowledged it (or a second has passed), as a QUIC
//! close with the same code and, for people, the code's sentence as the reason. So a client
//! reads the frame where it can, and otherwise has the code from QUIC. Where no frame can come
//! through (no stream, a client that does not read), only the QUIC close is sent.

use bytes::Bytes;
use tern_core::io::{ComeBack, Effect, Input, LinkId, Order, Outgoing};
use tern_core::log::{ReadError, Reader};
use tern_protocol::frame::{encode, frame_bytes, header};
use tern_protocol::frames::{Close, ErrorHead, LoggedIn};
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::limits::ERROR_TEXT_BYTES_MAX;
use tern_protocol::{Code, Flags, Kind};
use tern_storage::Carrier;
use zerocopy::IntoBytes as _;

use super::driver::Driver;
use super::links::{LogPlace as Place, State, index_of};
use super::machine::Machine;
use super::moments::{Named, named};

/// Bytes of the longest frame that stands in an effect: an error with its text.
const FRAME_BYTES: usize = frame_bytes::<ErrorHead>(ERROR_TEXT_BYTES_MAX);

impl<M: Machine, R: Reader> Driver<M, R> {
    /// Tells the machine something and does all that it wants done.
    pub(super) fn handle(&mut self, input: Input) {
        self.machine.handle(self.now_core, input);
        self.carry_out_all();
        self.tell_lost();
    }

    /// Ends the machine's turn.
    pub(super) fn commit(&mut self) {
        self.machine.commit(self.now_core);
        self.carry_out_all();
        self.tell_lost();
    }

    /// Tells the machine of links that the driver closed by itself.
    pub(super) fn tell_lost(&mut self) {
        while let Some(link) = self.lost.pop_front() {
            self.machine.handle(self.now_core, Input::LinkClosed(link));
            self.carry_out_all();
        }
    }

    fn carry_out_all(&mut self) {
        self.record_moments();
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Frame(link, frame) => self.send_frame(link, &frame),
                Effect::Whole(link, frame) => self.write(link, frame),
                Effect::Push { link, shard, at, order } => {
                    self.push(link, (shard, at), order, Carrier::Stream);
                }
                Effect::Close { link, code, come_back } => {
                    self.close_link(link, code, come_back);
                }
                Effect::Directory(query) => self.queries.waiting.push_back(query),
                Effect::Warm { record, waiter } => self.warms.waiting.push_back((record, waiter)),
            }
        }
    }

    fn send_frame(&mut self, link: LinkId, frame: &Outgoing) {
        if matches!(frame, Outgoing::LoggedIn(_))
            && let Some(link) = self.links.get(link)
        {
            link.queued.is_guest = false;
        }
        let mut buffer = [0; FRAME_BYTES];
        let bytes = encode_frame(frame, &mut buffer);
        let bytes = self.pool.join([&buffer[..bytes], &[]]);
        self.write(link, bytes);
    }

    /// Copies a record's body from the mapped log, behind a header, into what quinn-proto
    /// encrypts from. `by_stream` says what it is called if it does not leave by datagram.
    pub(super) fn push(&mut self, link: LinkId, place: Place, order: Order, by_stream: Carrier) {
        match self.read_push(place) {
            Ok((bytes, named)) => {
                let carrier = match order {
                    Order::Free => self.write_free(link, bytes, place),
                    Order::Kept => {
                        self.write(link, bytes);
                        by_stream
                    }
                };
                self.record_push(link, named, carrier);
            }
            // The machine read the same record just before, so this is a segment that retention
            // or the kernel took in between. The connection ends: with the next one the machine
            // reads again, and asks for it or says that it is lost.
            Err(_) => {
                self.counts.pushes_unreadable += 1;
                self.close_and_tell(link, Code::Internal);
            }
        }
    }

    fn read_push(&mut self, (shard, at): Place) -> Result<(Bytes, Option<Named>), ReadError> {
        let pool = &mut self.pool;
        self.reader.with_record(shard, at, |record| {
            let header = header(Kind::Push, Flags::NONE, record.body.len());
            (pool.join([header.as_bytes(), record.body]), named(record.body))
        })
    }

    /// The second copy of a push that left by datagram. Where it can't be had, the first may have
    /// come; if not, it is repaired.
    pub(super) fn push_copy(&mut self, id: LinkId, place: Place) {
        let Ok((bytes, named)) = self.read_push(place) else { return };
        if self.links.get(id).is_some_and(|link| link.write_copy(bytes, place)) {
            self.counts.pushes_doubled += 1;
            self.queue_send(index_of(id));
            self.record_push(id, named, Carrier::Copy);
        }
    }

    /// A push that went by stream and is not acknowledged goes by datagram. Where that can't be, the
    /// stream brings it.
    pub(super) fn push_again(&mut self, id: LinkId, place: Place) {
        let Ok((bytes, named)) = self.read_push(place) else { return };
        if self.links.get(id).is_some_and(|link| link.repeat(bytes)) {
            self.counts.pushes_repeated += 1;
            self.queue_send(index_of(id));
            self.record_push(id, named, Carrier::Copy);
        }
    }

    /// Writes a push whose order need not be kept; says how it left.
    fn write_free(&mut self, id: LinkId, bytes: Bytes, place: Place) -> Carrier {
        let Some(link) = self.links.get(id).filter(|link| link.state == State::Open) else {
            return Carrier::Stream; // it did not; see `write`
        };
        match link.write_free(bytes, place, self.settings.free_pushes) {
            Ok(()) => {
                self.counts.pushes_free += 1;
                self.queue_send(index_of(id));
                Carrier::Datagram
            }
            Err(bytes) => {
                self.write(id, bytes);
                Carrier::Stream
            }
        }
    }

    fn write(&mut self, id: LinkId, bytes: Bytes) {
        let Some(link) = self.links.get(id).filter(|link| link.state == State::Open) else {
            return; // closed by the driver; the machine is about to be told
        };
        match link.write(bytes, self.spill_max) {
            Ok(spilled) => {
                self.counts.spilled_bytes += spilled as u64;
                self.queue_send(index_of(id));
            }
            Err(_) => {
                self.counts.slow_readers += 1;
                self.close_and_tell(id, Code::SlowReader);
            }
        }
    }

    /// Closes on the driver's own account, from within an effect: the machine is told when it has
    /// no effect left.
    fn close_and_tell(&mut self, id: LinkId, code: Code) {
        let Some(link) = self.links.get(id).filter(|link| link.state == State::Open) else {
            return;
        };
        link.close(self.now, code);
        self.lost.push_back(id);
        self.queue_send(index_of(id));
        self.after_end(index_of(id), State::Open);
    }

    fn close_link(&mut self, id: LinkId, code: Code, come_back: ComeBack) {
        let now = self.now;
        let Some(link) = self.links.get(id).filter(|link| link.state == State::Open) else {
            // Closed by the driver a moment ago: as the machine closes it too, it is not told.
            self.lost.retain(|lost| *lost != id);
            return;
        };
        let stream = link.stream;
        let mut told = false;
        if let Some(stream) = stream {
            link.stop_reading(stream, code);
            let bytes = self.pool.join([&close_frame(code, come_back), code.sentence().as_bytes()]);
            told = link.write(bytes, self.spill_max).is_ok();
        }
        if told {
            link.linger(code, now);
            link.flush();
            self.counts.links_closed += 1;
        } else {
            link.close(now, code);
            self.after_end(index_of(id), State::Open);
        }
        self.queue_send(index_of(id));
    }
}

/// The header and fixed part of CLOSE; the code's sentence follows.
fn close_frame(code: Code, come_back: ComeBack) -> [u8; frame_bytes::<Close>(0)] {
    let (slot_tenths, come_back_ms) = (come_back.slot_tenths.into(), come_back.ms.into());
    let head = Close { code: code.0.into(), slot_tenths, come_back_ms };
    let payload = size_of::<Close>() + code.sentence().len();
    let mut frame = [0; frame_bytes::<Close>(0)];
    frame[..HEADER_BYTES].copy_from_slice(header(Kind::Close, Flags::NONE, payload).as_bytes());
    frame[HEADER_BYTES..].copy_from_slice(head.as_bytes());
    frame
}

/// Writes a frame to the start of `buffer`; its length in bytes.
fn encode_frame(frame: &Outgoing, buffer: &mut [u8; FRAME_BYTES]) -> usize {
    let none = Flags::NONE;
    match frame {
        Outgoing::Welcome(head) => encode(Kind::Welcome, none, head, &[], buffer),
        Outgoing::Identity(head) => encode(Kind::Identity, none, head, &[], buffer),
        Outgoing::LoggedIn(head) => encode(Kind::LoggedIn, none, head, &[], buffer),
        Outgoing::SendAck(head) => encode(Kind::SendAck, none, head, &[], buffer),
        Outgoing::SendRefused(head) => encode(Kind::SendRefused, none, head, &[], buffer),
        Outgoing::Channel(head) => encode(Kind::Channel, none, head, &[], buffer),
        Outgoing::Gap(head) => encode(Kind::Gap, none, head, &[], buffer),
        Outgoing::Blocked(head) => encode(Kind::Blocked, none, head, &[], buffer),
        Outgoing::Pong(head) => encode(Kind::Pong, none, head, &[], buffer),
        Outgoing::AskCursors(head) => encode(Kind::AskCursors, none, head, &[], buffer),
        Outgoing::Error { code, kind, flags, retry_after_ms } => {
            let head = ErrorHead {
                code: code.0.into(),
                kind: kind.0,
                flags: flags.0,
                retry_after_ms: (*retry_after_ms).into(),
            };
            let text = code.sentence().as_bytes();
            let text = &text[..text.len().min(ERROR_TEXT_BYTES_MAX)];
            encode(Kind::Error, none, &head, text, buffer)
        }
    }
}

const _: () = assert!(frame_bytes::<LoggedIn>(0) <= FRAME_BYTES);
