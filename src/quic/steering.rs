//! The steering rule: the first byte of a datagram's destination connection id, modulo the number
//! of workers, names the worker.
//!
//! The kernel applies it to each datagram (the server's `reuseport`); [`worker_of`] is the same rule
//! in Rust, by which a worker recognises a stray; [`WorkerIds`] makes connection ids that obey
//! it. So a connection stays with its worker when its client's address changes. An id that the
//! client chose (its first Initial) is steered by the same rule, so its retransmits stay put too.
//!
//! What the byte reveals: an observer learns the worker's number, modulo nothing else; the byte
//! is random among those of its worker and all other bytes are random.

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::rand::{SecureRandom, SystemRandom};
use tern_core::placement::WorkerId;

/// Bytes of every connection id this server issues: 7 random bytes beside the steering byte make
/// a guess hopeless, and the id stands in each packet that a client sends.
pub const ID_BYTES: usize = 8;

/// Datagrams shorter than this go to worker 0: no QUIC packet is that short, and the byte at
/// [`LONG_ID_OFFSET`] must exist.
pub const STEERED_BYTES_MIN: usize = LONG_ID_OFFSET + 1;

/// Where the id begins in a long header: after the first byte, four of version, one of length
/// (RFC 9000 §17.2).
pub const LONG_ID_OFFSET: usize = 6;

/// Where the id begins in a short header: after the first byte (RFC 9000 §17.3.1).
pub const SHORT_ID_OFFSET: usize = 1;

/// The bit of the first byte that is set in long headers (RFC 9000 §17.2).
pub const LONG_HEADER: u8 = 0x80;

/// The most workers that one byte can name.
pub const WORKERS_MAX: u16 = 256;

/// The worker that a datagram is for.
pub fn worker_of(datagram: &[u8], workers: u16) -> WorkerId {
    if datagram.len() < STEERED_BYTES_MIN {
        return WorkerId(0);
    }
    let long = datagram[0] & LONG_HEADER != 0;
    let offset = if long { LONG_ID_OFFSET } else { SHORT_ID_OFFSET };
    WorkerId(u16::from(datagram[offset]) % workers)
}

/// The id of ours that a datagram is for: from a short header, or from a long one whose id has
/// the length of ours.
pub fn own_id_of(datagram: &[u8]) -> Option<[u8; ID_BYTES]> {
    let first = *datagram.first()?;
    let start = if first & LONG_HEADER == 0 {
        SHORT_ID_OFFSET
    } else if usize::from(*datagram.get(LONG_ID_OFFSET - 1)?) == ID_BYTES {
        LONG_ID_OFFSET
    } else {
        return None;
    };
    datagram.get(start..start + ID_BYTES)?.try_into().ok()
}

/// The source connection id of a long header: the one by which the client wants to be addressed.
pub fn client_id_of(datagram: &[u8]) -> Option<ConnectionId> {
    /// Longest connection id of QUIC v1 in bytes (RFC 9000 §17.2).
    const LONGEST: usize = 20;
    let own_bytes = usize::from(*datagram.get(LONG_ID_OFFSET - 1)?);
    let length_at = LONG_ID_OFFSET + own_bytes;
    let bytes = usize::from(*datagram.get(length_at)?);
    let id = datagram.get(length_at + 1..length_at + 1 + bytes)?;
    (bytes <= LONGEST).then(|| ConnectionId::new(id))
}

/// Where the random bytes of connection ids come from.
pub type IdSource = Box<dyn FnMut(&mut [u8; ID_BYTES]) + Send + Sync>;

/// Makes the connection ids of one worker.
pub struct WorkerIds {
    worker: WorkerId,
    workers: u16,
    source: IdSource,
}

impl WorkerIds {
    /// Ids of random bytes from the system.
    ///
    /// # Panics
    /// If one byte can't name that many workers, or the worker is none of them.
    pub fn new(worker: WorkerId, workers: u16) -> Self {
        let random = SystemRandom::new();
        let fill = move |id: &mut [u8; ID_BYTES]| {
            random.fill(id).expect("the system's random source does not fail once it works");
        };
        Self::with_source(worker, workers, Box::new(fill))
    }

    /// Ids of bytes from elsewhere, which must be as hard to guess where strangers can send.
    ///
    /// # Panics
    /// If one byte can't name that many workers, or the worker is none of them.
    pub fn with_source(worker: WorkerId, workers: u16, source: IdSource) -> Self {
        assert!(workers <= WORKERS_MAX && worker.0 < workers, "worker {worker:?} of {workers}");
        Self { worker, workers, source }
    }

    /// The steering byte nearest below or at `byte`, wrapped so that each of the worker's bytes
    /// stays about as likely as the others.
    fn steer(&self, byte: u8) -> u8 {
        let (workers, worker) = (self.workers, self.worker.0);
        let choices = (WORKERS_MAX - worker).div_ceil(workers); // bytes b with b % workers == worker
        let choice = u16::from(byte) % choices;
        (choice * workers + worker) as u8 // fits: the last choice is at most 255
    }
}

impl ConnectionIdGenerator for WorkerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        (self.source)(&mut id);
        id[0] = self.steer(id[0]);
        ConnectionId::new(&id)
    }

    /// An id of another worker gets no stateless reset from this one: it may be alive there.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let ours = id.len() == ID_BYTES && u16::from(id[0]) % self.workers == self.worker.0;
        if ours { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    /// None: an id is only replaced when the client moves, and then by the client.
    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_worker_and_no_other() {
        for workers in [1, 2, 3, 7, 255, 256] {
            for worker in [0, workers / 2, workers - 1] {
                let mut ids = WorkerIds::new(WorkerId(worker), workers);
                for _ in 0..300 {
                    let id = ids.generate_cid();
                    assert_eq!(u16::from(id[0]) % workers, worker);
                    assert!(ids.validate(&id).is_ok());
                }
                for byte in 0..=255 {
                    let id = ConnectionId::new(&[byte, 0, 0, 0, 0, 0, 0, 0]);
                    assert_eq!(ids.validate(&id).is_ok(), u16::from(byte) % workers == worker);
                }
            }
        }
        assert!(WorkerIds::new(WorkerId(0), 1).validate(&ConnectionId::new(&[0; 7])).is_err());
    }

    #[test]
    fn every_steering_byte_is_used() {
        let ids = WorkerIds::new(WorkerId(1), 3);
        let mut seen = std::collections::BTreeSet::new();
        seen.extend((0..=255).map(|byte| ids.steer(byte)));
        let all: std::collections::BTreeSet<u8> = (0..=255).filter(|b| b % 3 == 1).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn the_rule_reads_the_id_of_both_headers() {
        let mut long = [0_u8; 30];
        (long[0], long[5], long[6], long[1]) = (0xc0, 8, 5, 9);
        long[14] = 3;
        long[15..18].copy_from_slice(b"abc");
        assert_eq!(worker_of(&long, 4), WorkerId(1), "5 modulo 4, not 9");
        assert_eq!(own_id_of(&long), Some([5, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(client_id_of(&long), Some(ConnectionId::new(b"abc")));

        let mut short = [0_u8; 30];
        (short[0], short[1], short[6]) = (0x40, 7, 2);
        assert_eq!(worker_of(&short, 4), WorkerId(3));
        assert_eq!(own_id_of(&short), Some([7, 0, 0, 0, 0, 2, 0, 0]));
    }

    #[test]
    fn short_bytes_are_never_read_beyond() {
        for bytes in 0..40 {
            for first in [0x00, 0x40, 0xc0, 0xff] {
                let mut datagram = vec![0xff; bytes];
                if let Some(byte) = datagram.first_mut() {
                    *byte = first;
                }
                let worker = worker_of(&datagram, 2);
                assert_eq!(worker, WorkerId(u16::from(bytes >= STEERED_BYTES_MIN)));
                let _ = (own_id_of(&datagram), client_id_of(&datagram));
            }
        }
    }
}
