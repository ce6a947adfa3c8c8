//! A capture file, or a stream of one: pcap or pcapng, told apart by its first bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pcap_parser::pcapng::{Block, SecretsType};
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError};

use super::Stamp;

/// Bytes that are read ahead; a block that is longer makes the buffer grow.
const BUFFER_BYTES: usize = 1 << 18;

/// Longest block that is read, in bytes: beyond any packet, and far below what a made-up length
/// could ask for.
const BLOCK_BYTES_MAX: usize = 1 << 24;

/// Interfaces that a section may describe; a file that has more is made up.
const INTERFACES_MAX: usize = 1_024;

/// Units in a second, if a pcapng file does not say.
const MICROS: u64 = 1_000_000;

/// A packet as it was captured.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Its place in the capture, from 1.
    pub number: u64,
    /// When it was captured.
    pub at: Stamp,
    /// Where: a pcapng file may hold several taps.
    pub interface: u32,
    /// What its bytes begin with, by the list of tcpdump.org.
    pub link: i32,
    /// As much of it as was kept.
    pub bytes: Vec<u8>,
}

/// What a capture holds.
#[derive(Clone, Debug)]
pub enum Item {
    /// A packet.
    Packet(Packet),
    /// A TLS key log.
    Secrets(Vec<u8>),
}

/// Why a capture can't be read on.
#[derive(Debug)]
pub enum CaptureError {
    /// The file can't be opened.
    Open(PathBuf, io::Error),
    /// It is neither pcap nor pcapng.
    NotACapture,
    /// It ends inside of a block; what came before was given.
    CutOff,
    /// A block makes no sense; what came before was given.
    Damaged,
    /// The interface can't be listened to.
    Interface(String, io::Error),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NotACapture => write!(f, "this is neither a pcap nor a pcapng capture"),
            Self::CutOff => write!(f, "the capture ends inside of a packet"),
            Self::Damaged => write!(f, "the capture is damaged from here on"),
            Self::Interface(name, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "cannot listen on {name}: {error}; it takes the right CAP_NET_RAW: run wirecat \
                     as root, give the right to the program by setcap cap_net_raw+ep, or pipe a \
                     capture of a tool that has it into wirecat -"
                )
            }
            Self::Interface(name, error) => write!(f, "cannot listen on {name}: {error}"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) | Self::Interface(_, error) => Some(error),
            Self::NotACapture | Self::CutOff | Self::Damaged => None,
        }
    }
}

/// Reads a capture, item by item.
pub struct Reader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    section: Section,
}

/// What blocks say about the packets behind them.
#[derive(Default)]
struct Section {
    interfaces: Vec<Interface>,
    nanos: bool,
    packets: u64,
}

#[derive(Clone, Copy)]
struct Interface {
    link: i32,
    units_per_second: u64,
    offset_seconds: i64,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("packets", &self.section.packets).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be opened, or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|error| CaptureError::Open(path.to_owned(), error))?;
        Self::new(file)
    }

    /// Reads from anything, such as a pipe.
    ///
    /// # Errors
    /// When it is no capture.
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let source = Filling(source);
        let blocks = pcap_parser::create_reader(BUFFER_BYTES, source)
            .map_err(|_| CaptureError::NotACapture)?;
        Ok(Self { blocks, section: Section::default() })
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// When the rest can't be read: it is cut off or damaged.
    pub fn next_item(&mut self) -> Result<Option<Item>, CaptureError> {
        loop {
            let (used, item) = match self.blocks.next() {
                Ok((used, block)) => (used, self.section.take(block)),
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    self.refill()?;
                    continue;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.grow()?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(CaptureError::CutOff),
                Err(_) => return Err(CaptureError::Damaged),
            };
            if used == 0 {
                return Err(CaptureError::Damaged); // it would never end
            }
            self.blocks.consume(used);
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        if self.blocks.reader_exhausted() {
            return Err(CaptureError::CutOff);
        }
        let before = self.blocks.data().len();
        self.blocks.refill().map_err(|_| CaptureError::CutOff)?;
        if self.blocks.data().len() == before && !self.blocks.reader_exhausted() {
            return self.grow();
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), CaptureError> {
        let bytes = self.blocks.data().len().max(BUFFER_BYTES) * 2;
        if bytes > BLOCK_BYTES_MAX || !self.blocks.grow(bytes) {
            return Err(CaptureError::Damaged);
        }
        self.refill()
    }
}

impl Section {
    fn take(&mut self, block: PcapBlockOwned<'_>) -> Option<Item> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.nanos = header.is_nanosecond_precision();
                self.interfaces = vec![Interface::plain(header.network)];
                None
            }
            PcapBlockOwned::Legacy(block) => {
                let nanos = if self.nanos { 1 } else { 1_000 };
                let fraction = u64::from(block.ts_usec).saturating_mul(nanos);
                let at = Stamp(u64::from(block.ts_sec) * 1_000_000_000 + fraction);
                // A damaged length leaves padding or a neighbour in the data: keep to the first.
                let bytes = block.data.get(..block.caplen as usize).unwrap_or(block.data);
                self.packet(at, 0, bytes)
            }
            PcapBlockOwned::NG(block) => self.take_ng(&block),
        }
    }

    fn take_ng(&mut self, block: &Block<'_>) -> Option<Item> {
        match block {
            Block::SectionHeader(_) => {
                self.interfaces.clear();
                None
            }
            Block::InterfaceDescription(described) => {
                if self.interfaces.len() < INTERFACES_MAX {
                    self.interfaces.push(Interface {
                        link: described.linktype.0,
                        units_per_second: described.ts_resolution().unwrap_or(MICROS).max(1),
                        offset_seconds: described.if_tsoffset,
                    });
                }
                None
            }
            Block::EnhancedPacket(packet) => {
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let interface = self.interfaces.get(packet.if_id as usize).copied()?;
                self.packet(interface.stamp(units), packet.if_id, packet.packet_data())
            }
            Block::SimplePacket(packet) => self.packet(Stamp(0), 0, packet.packet_data()),
            Block::DecryptionSecrets(secrets) if secrets.secrets_type == SecretsType::TlsKeyLog => {
                let bytes = secrets.data.get(..secrets.secrets_len as usize);
                Some(Item::Secrets(bytes.unwrap_or(secrets.data).to_vec()))
            }
            _ => None,
        }
    }

    fn packet(&mut self, at: Stamp, interface: u32, bytes: &[u8]) -> Option<Item> {
        self.packets += 1;
        let link = self.interfaces.get(interface as usize)?.link;
        let number = self.packets;
        Some(Item::Packet(Packet { number, at, interface, link, bytes: bytes.to_vec() }))
    }
}

impl Interface {
    fn plain(link: Linktype) -> Self {
        Self { link: link.0, units_per_second: MICROS, offset_seconds: 0 }
    }

    fn stamp(&self, units: u64) -> Stamp {
        let nanos = u128::from(units) * 1_000_000_000 / u128::from(self.units_per_second);
        let offset = i128::from(self.offset_seconds) * 1_000_000_000;
        let nanos = (nanos as i128).saturating_add(offset); // fits: below 2^94
        Stamp(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

/// Reads at least a capture's file header at once, as its parser expects, though a pipe may bring
/// a few bytes only.
struct Filling<R>(R);

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        /// Bytes of the longer of the two headers, a pcapng section without options.
        const HEADER_BYTES: usize = 28;
        let mut filled = 0;
        loop {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if filled >= HEADER_BYTES.min(buffer.len()) {
                return Ok(filled);
            }
        }
    }
}
