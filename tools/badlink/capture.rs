//! What passes the link, as pcap files that Wireshark, tcpdump and wirecat read.
//!
//! A link has two ends, and what a capture holds depends on the end: at the client's, all that the
//! client sent and what came through to it; at the server's, all that the server sent and what came
//! through to it, by the outer addresses.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etherparse::PacketBuilder;

/// A pcap file with nanoseconds, as written by this machine.
const MAGIC: u32 = 0xa1b2_3c4d;

/// The format's version.
const VERSION: [u16; 2] = [2, 4];

/// Packets begin with their IP header (LINKTYPE_RAW).
const LINK: u32 = 101;

/// Longest packet that is kept, in bytes: the longest that there is.
const PACKET_BYTES_MAX: u32 = 65_535;

/// The hop limit that packets are shown with; they have none of their own here.
const HOPS: u8 = 64;

/// Where captures are written.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    /// What passes the client's end.
    pub client: Option<PathBuf>,
    /// What passes the server's end.
    pub server: Option<PathBuf>,
}

/// The end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Client,
    Server,
}

/// The captures of a relay. A capture that can't be written on ends; the relay does not.
#[derive(Debug, Default)]
pub(super) struct Taps {
    client: Option<Writer>,
    server: Option<Writer>,
    /// Packets that could not be written.
    failed: u64,
}

impl Taps {
    /// Makes the files.
    pub(super) fn create(captures: &Captures) -> io::Result<Self> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Writer::create).transpose();
        Ok(Self { client: open(&captures.client)?, server: open(&captures.server)?, failed: 0 })
    }

    /// A packet passes an end.
    pub(super) fn passes(&mut self, end: End, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let tap = match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        };
        if let Some(writer) = tap {
            self.failed += u64::from(writer.write(from, to, payload).is_err());
        }
    }

    /// The same for an IP packet as it is.
    pub(super) fn passes_whole(&mut self, end: End, packet: &[u8]) {
        let tap = match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        };
        if let Some(writer) = tap {
            self.failed += u64::from(writer.record(packet).is_err());
        }
    }

    /// Gives the system what was written.
    pub(super) fn flush(&mut self) {
        for writer in [&mut self.client, &mut self.server].into_iter().flatten() {
            self.failed += u64::from(writer.file.flush().is_err());
        }
    }

    /// Packets that are in no capture for want of room.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        self.flush();
    }
}

#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    packet: Vec<u8>,
}

impl Writer {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&MAGIC.to_ne_bytes())?;
        for part in VERSION {
            file.write_all(&part.to_ne_bytes())?;
        }
        for part in [0, 0, PACKET_BYTES_MAX, LINK] {
            file.write_all(&u32::to_ne_bytes(part))?;
        }
        file.flush()?;
        Ok(Self { file, packet: Vec::new() })
    }

    fn write(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.packet.clear();
        let builder = match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), HOPS)
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), HOPS)
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let builder = builder.udp(from.port(), to.port());
        builder.write(&mut self.packet, payload).map_err(io::Error::other)?;
        let packet = std::mem::take(&mut self.packet);
        let done = self.record(&packet);
        self.packet = packet;
        done
    }

    fn record(&mut self, packet: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let bytes = packet.len() as u32; // fits: an IP packet
        let seconds = now.as_secs() as u32; // until 2106, as the format wants
        for part in [seconds, now.subsec_nanos(), bytes, bytes] {
            self.file.write_all(&part.to_ne_bytes())?;
        }
        self.file.write_all(packet)
    }
}
