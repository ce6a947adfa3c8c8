//! How clients notice a restart: a list of live connections that outlives the process, and the
//! stateless resets that its successor sends to them.
//!
//! After a crash a client's packets would be answered by a stateless reset each, but an idle
//! receiver sends none until its heartbeat. So each worker keeps a file with a slot per
//! established connection, meant for shared memory: a slot is written when the handshake
//! completes, when the client's address or the id it uses changes, and cleared at the end. At
//! the next start all files are read, and each client found is sent a packet that ends in the
//! reset token of the id it uses (RFC 9000 §10.3); the token is derived from that id with the
//! key that both processes share. What is written by `write` survives `kill -9`; after a reboot
//! the file is gone with the memory, and clients notice by their heartbeat.
//!
//! A slot may be out of date, or its reset lost: then that client too notices by its heartbeat.
//! A reset for a connection that is gone is dropped by its receiver, who knows no such token.
//!
//! ```text
//!   0       4      8         24       32          52       53       54             55  56       72
//!   | magic | port | address | own id | client id | length | family | local family | 0 | local |
//! ```

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use quinn_proto::ConnectionId;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tern_core::placement::WorkerId;

use crate::transport::steering::ID_BYTES;

/// Bytes of a slot.
const SLOT_BYTES: usize = 72;

/// First bytes of a slot in use, with the version of its layout.
const MAGIC: [u8; 4] = *b"TRN1";

/// Longest id of a client in bytes (RFC 9000 §17.2).
const CLIENT_ID_BYTES_MAX: usize = 20;

/// Bytes of a stateless reset token (RFC 9000 §10.3).
const TOKEN_BYTES: usize = 16;

/// Bytes of a reset: beyond the least of 21 by as much as makes it look like a short message
/// (RFC 9000 §10.3 wants it indistinguishable from one), with a client's longest id in it.
const RESET_BYTES: usize = 43;

/// Resets that a worker sends per millisecond: 20,000 a second, under 1 MB/s, so that the
/// reconnects that follow come as a slope and not as a cliff.
pub const RESETS_PER_MS: u32 = 20;

/// Times that each client is sent its reset, in case one is lost; the repeats find most clients
/// gone.
pub const PASSES: u32 = 3;

/// Time between two passes: longer than a round trip of a bad network, so that the second finds
/// gone who heard the first, and with all passes far below any heartbeat.
pub const PASS_GAP: Duration = Duration::from_millis(700);

/// A live connection, as the list knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// Which of the server's addresses it knows, where the server has several: a reset from
    /// another one is none to it.
    pub local_ip: Option<IpAddr>,
    /// The id of ours that it puts into its packets, and so the one whose token it knows.
    pub own_id: [u8; ID_BYTES],
    /// The id it gave itself, to which the reset is addressed.
    pub client_id: ConnectionId,
}

/// A worker's list, written as connections come and go.
pub(super) struct PeerList {
    file: File,
    free: Vec<u32>,
    slots: u32,
}

/// A place in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(u32);

impl PeerList {
    /// A new, empty list of one worker in `folder`.
    pub(super) fn create(folder: &Path, worker: WorkerId) -> io::Result<Self> {
        let path = folder.join(format!("worker-{}", worker.0));
        let file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file, free: Vec::new(), slots: 0 })
    }

    /// Lists a connection.
    pub(super) fn insert(&mut self, peer: &Peer) -> io::Result<Slot> {
        let slot = Slot(self.free.pop().unwrap_or(self.slots));
        self.slots = self.slots.max(slot.0 + 1);
        self.update(slot, peer)?;
        Ok(slot)
    }

    /// Writes anew what has changed.
    pub(super) fn update(&mut self, slot: Slot, peer: &Peer) -> io::Result<()> {
        self.write(slot, &encode(peer))
    }

    /// Unlists a connection that has ended in order.
    pub(super) fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.free.push(slot.0);
        self.write(slot, &[0; SLOT_BYTES])
    }

    fn write(&self, slot: Slot, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        self.file.write_all_at(bytes, u64::from(slot.0) * SLOT_BYTES as u64)
    }
}

fn encode(peer: &Peer) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let (ip, family) = encode_ip(Some(peer.address.ip()));
    let (local_ip, local_family) = encode_ip(peer.local_ip);
    slot[0..4].copy_from_slice(&MAGIC);
    slot[4..6].copy_from_slice(&peer.address.port().to_le_bytes());
    slot[8..24].copy_from_slice(&ip);
    slot[24..32].copy_from_slice(&peer.own_id);
    slot[32..32 + peer.client_id.len()].copy_from_slice(&peer.client_id);
    slot[52] = peer.client_id.len() as u8; // fits: at most 20
    (slot[53], slot[54]) = (family, local_family);
    slot[56..72].copy_from_slice(&local_ip);
    slot
}

/// In IPv6's form, with the family that tells which it was; 0 for none.
fn encode_ip(ip: Option<IpAddr>) -> ([u8; 16], u8) {
    match ip {
        None => ([0; 16], 0),
        Some(IpAddr::V4(ip)) => (ip.to_ipv6_mapped().octets(), 4),
        Some(IpAddr::V6(ip)) => (ip.octets(), 6),
    }
}

fn decode_ip(octets: &[u8], family: u8) -> Option<IpAddr> {
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?);
    match family {
        4 => ip.to_ipv4_mapped().map(IpAddr::V4),
        6 => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

/// `None` for a free slot, and for one that makes no sense.
fn decode(slot: &[u8; SLOT_BYTES]) -> Option<Peer> {
    let client_id = slot[32..52].get(..usize::from(slot[52]))?;
    let ip = decode_ip(&slot[8..24], slot[53])?;
    let port = u16::from_le_bytes([slot[4], slot[5]]);
    (slot[0..4] == MAGIC && port != 0).then_some(Peer {
        address: SocketAddr::new(ip, port),
        local_ip: decode_ip(&slot[56..72], slot[54]),
        own_id: slot[24..32].try_into().ok()?,
        client_id: ConnectionId::new(client_id),
    })
}

/// Reads what a process before this one left in `folder`, and removes it. An empty list after an
/// orderly end, or where there is nothing.
///
/// # Errors
/// When the folder can't be made or read.
pub fn take_peers(folder: &Path) -> io::Result<Vec<Peer>> {
    fs::create_dir_all(folder)?;
    let mut peers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("worker-")) {
            let bytes = fs::read(&path)?;
            peers.extend(bytes.as_chunks().0.iter().filter_map(decode));
            fs::remove_file(&path)?;
        }
    }
    Ok(peers)
}

/// Writes the reset for a client into `packet`.
fn write_reset(peer: &Peer, key: &hmac::Key, random: &SystemRandom, packet: &mut Vec<u8>) {
    /// The fixed bit of a short header (RFC 9000 §17.3.1).
    const SHORT_HEADER: u8 = 0x40;
    packet.resize(RESET_BYTES, 0);
    random.fill(packet).expect("the system's random source does not fail once it works");
    packet[0] = SHORT_HEADER | packet[0] >> 2;
    packet[1..=peer.client_id.len()].copy_from_slice(&peer.client_id);
    let token = hmac::sign(key, &peer.own_id);
    packet[RESET_BYTES - TOKEN_BYTES..].copy_from_slice(&token.as_ref()[..TOKEN_BYTES]);
}

/// Sends resets to the clients of the process before, at a pace.
pub(super) struct ResetSender {
    peers: VecDeque<Peer>,
    /// Those of this pass that were sent, and are sent again in the next.
    sent: VecDeque<Peer>,
    passes_left: u32,
    /// When the next reset may leave.
    next: Instant,
    key: hmac::Key,
    random: SystemRandom,
    packet: Vec<u8>,
}

impl ResetSender {
    pub(super) fn new(peers: Vec<Peer>, key: hmac::Key, now: Instant) -> Self {
        let passes_left = if peers.is_empty() { 0 } else { PASSES };
        Self {
            peers: peers.into(),
            sent: VecDeque::new(),
            passes_left,
            next: now,
            key,
            random: SystemRandom::new(),
            packet: Vec::with_capacity(RESET_BYTES),
        }
    }

    /// When there is something to send.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (self.passes_left > 0).then_some(self.next)
    }

    /// The next reset that is due and its receiver.
    pub(super) fn poll_reset(&mut self, now: Instant) -> Option<(Peer, &[u8])> {
        if self.passes_left == 0 || self.next > now {
            return None;
        }
        let peer = self.peers.pop_front()?;
        self.sent.push_back(peer);
        self.next += Duration::from_millis(1) / RESETS_PER_MS;
        // A worker that was held up sends a millisecond's worth at once, not all it missed.
        self.next = self.next.max(now.checked_sub(Duration::from_millis(1)).unwrap_or(now));
        if self.peers.is_empty() {
            self.passes_left -= 1;
            std::mem::swap(&mut self.peers, &mut self.sent);
            self.next = now + PASS_GAP;
        }
        write_reset(&peer, &self.key, &self.random, &mut self.packet);
        Some((peer, &self.packet))
    }
}

const _: () = {
    // First byte, the client's id, and at least five bytes that look random before the token.
    assert!(RESET_BYTES > CLIENT_ID_BYTES_MAX + 5 + TOKEN_BYTES);
    assert!(32 + CLIENT_ID_BYTES_MAX == 52 && SLOT_BYTES.is_multiple_of(8));
};

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Peer {
        let ip = if number.is_multiple_of(2) { "192.0.2.1" } else { "2001:db8::7" };
        Peer {
            address: SocketAddr::new(ip.parse().expect("an address"), 1_000 + u16::from(number)),
            local_ip: (number > 9).then(|| IpAddr::from([127, 0, 0, number])),
            own_id: [number; ID_BYTES],
            client_id: ConnectionId::new(&vec![number; usize::from(number % 21)]),
        }
    }

    fn sender(peers: u8, now: Instant) -> ResetSender {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        ResetSender::new((0..peers).map(peer).collect(), key, now)
    }

    #[test]
    fn the_list_outlives_its_writer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().join("made");
        assert_eq!(take_peers(&folder).expect("made"), []);
        let mut lists = [0, 1].map(|w| PeerList::create(&folder, WorkerId(w)).expect("a file"));
        let slots: Vec<_> =
            (0..40).map(|n| lists[usize::from(n % 2)].insert(&peer(n)).expect("room")).collect();
        lists[0].remove(slots[4]).expect("written");
        lists[1].update(slots[7], &peer(107)).expect("written");
        assert_eq!(lists[0].insert(&peer(90)).expect("room"), slots[4], "used again");
        lists[1].remove(slots[39]).expect("written");
        drop(lists);

        let mut found = take_peers(&folder).expect("read");
        found.sort_by_key(|peer| peer.own_id);
        let left = (0..39).filter(|n| ![4, 7].contains(n)).chain([90, 107]);
        assert_eq!(found, left.map(peer).collect::<Vec<_>>());
        assert_eq!(take_peers(&folder).expect("read"), [], "once only");
    }

    #[test]
    fn slots_that_make_no_sense_are_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut bytes = encode(&peer(3)).to_vec();
        let (mut family, mut length) = (encode(&peer(5)), encode(&peer(6)));
        (family[53], length[52]) = (9, 21);
        bytes.extend(family.into_iter().chain(length).chain([0xff; SLOT_BYTES]));
        bytes.extend(&encode(&peer(8))[..SLOT_BYTES - 1]);
        fs::write(folder.path().join("worker-0"), bytes).expect("written");
        fs::write(folder.path().join("other"), b"stays").expect("written");
        assert_eq!(take_peers(folder.path()).expect("read"), [peer(3)]);
        assert!(folder.path().join("other").exists());
    }

    #[test]
    fn resets_are_paced_and_sent_in_passes() {
        let start = Instant::now();
        let mut sender = sender(250, start);
        let mut per_pass = [0; PASSES as usize];
        let (mut now, mut pass, mut last) = (start, 0, 0);
        while let Some(at) = sender.poll_timeout() {
            if at > now + PASS_GAP / 2 {
                assert_eq!(per_pass[pass], 250);
                pass += 1;
            }
            now = at.max(now + Duration::from_millis(1));
            let mut burst = 0;
            while sender.poll_reset(now).is_some() {
                burst += 1;
            }
            per_pass[pass] += burst;
            assert!(burst <= 2 * RESETS_PER_MS, "{burst} in a millisecond");
            last = burst;
        }
        assert!(last > 0 && per_pass == [250; PASSES as usize], "{per_pass:?}");
    }

    #[test]
    fn a_worker_held_up_does_not_burst() {
        let start = Instant::now();
        let mut sender = sender(250, start);
        let late = start + Duration::from_secs(1);
        let burst = std::iter::from_fn(|| sender.poll_reset(late).map(drop)).count();
        assert!(burst as u32 <= RESETS_PER_MS + 2, "{burst} at once");
    }

    #[test]
    fn a_reset_ends_in_the_token_of_our_id() {
        let mut sender = sender(1, Instant::now());
        let (to, packet) = sender.poll_reset(Instant::now()).expect("due");
        assert_eq!(to, peer(0));
        assert_eq!((packet.len(), packet[0] & 0xc0), (RESET_BYTES, 0x40));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        assert_eq!(packet[RESET_BYTES - 16..], hmac::sign(&key, &[0; 8]).as_ref()[..16]);
    }
}
