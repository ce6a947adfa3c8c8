//! Which sent packets have arrived. QUIC repeats what it lost of a stream, but says nothing of a
//! datagram's fate; only the congestion controller hears of every acknowledgement. So ours is the
//! usual one with an ear: it notes when the packets were sent that have arrived.
//!
//! The worker tells packets apart by that moment, which it chooses itself.

use std::any::Any;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::{Connection, RttEstimator};

/// Arrivals that are kept at most until somebody asks: many times the packets of one turn. Of
/// those beyond it is not known that they came.
const ARRIVALS_MAX: usize = 1_024;

/// What has arrived on one path since it was last asked. Only the thread of the connection ever
/// has it, so the lock, which Rust asks for, is never waited for.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Whether anybody wants to know.
    watched: bool,
    sent: Vec<Instant>,
}

impl Arrivals {
    /// Those of the path that a connection is on now; `None` if its controller is not ours.
    pub fn of(connection: &Connection) -> Option<Arc<Self>> {
        let controller = connection.congestion_state().clone_box().into_any();
        controller.downcast::<Listening>().ok().map(|listening| listening.arrivals)
    }

    /// Begins or ends to note.
    pub fn watch(&self, watched: bool) {
        self.with(|noted| *noted = Noted { watched, sent: Vec::new() });
    }

    /// Gives for each packet that has arrived since the last call when it was sent.
    pub fn take(&self, each: impl FnMut(Instant)) {
        self.with(|noted| noted.sent.drain(..).for_each(each));
    }

    fn note(&self, sent: Instant) {
        self.with(|noted| {
            if noted.watched && noted.sent.len() < ARRIVALS_MAX {
                noted.sent.push(sent);
            }
        });
    }

    fn with(&self, act: impl FnOnce(&mut Noted)) {
        match self.0.try_lock() {
            Ok(mut noted) => act(&mut noted),
            Err(TryLockError::Poisoned(poisoned)) => act(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => unreachable!("one thread has it"),
        }
    }
}

/// Makes the usual controller with an ear.
#[derive(Debug, Default)]
pub struct ListeningConfig(Arc<CubicConfig>);

impl ControllerFactory for ListeningConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Listening { inner, arrivals: Arc::default() })
    }
}

/// A controller that notes arrivals and leaves the rest to another.
struct Listening {
    inner: Box<dyn Controller>,
    arrivals: Arc<Arrivals>,
}

impl Controller for Listening {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.arrivals.note(sent);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    /// The copy tells of the same path.
    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), arrivals: Arc::clone(&self.arrivals) })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
