//! Keys, and packets opened with them: RFC 9001 §5 and §6, on ring's primitives.

use ring::aead::quic::HeaderProtectionKey;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk, Salt};

use super::Way;

/// RFC 9001 §5.2.
const INITIAL_SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];

/// Bytes of the ciphertext that header protection is made from (RFC 9001 §5.4.2).
const SAMPLE_BYTES: usize = 16;

/// Longest packet number in bytes; the sample begins that far behind the number's start.
const NUMBER_BYTES_MAX: usize = 4;

/// Bytes of the nonce.
const NONCE_BYTES: usize = 12;

/// The cryptography that a connection has agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256.
    Aes128,
    /// TLS_AES_256_GCM_SHA384.
    Aes256,
    /// TLS_CHACHA20_POLY1305_SHA256.
    ChaCha20,
}

impl Suite {
    /// By its number in TLS; `None` for one that QUIC version 1 can't use or that is not known.
    pub fn of(number: u16) -> Option<Self> {
        match number {
            0x1301 => Some(Self::Aes128),
            0x1302 => Some(Self::Aes256),
            0x1303 => Some(Self::ChaCha20),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "AES-128-GCM",
            Self::Aes256 => "AES-256-GCM",
            Self::ChaCha20 => "ChaCha20-Poly1305",
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128 | Self::ChaCha20 => HKDF_SHA256,
            Self::Aes256 => HKDF_SHA384,
        }
    }

    fn hash_bytes(self) -> usize {
        match self {
            Self::Aes128 | Self::ChaCha20 => 32,
            Self::Aes256 => 48,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128 => &aead::AES_128_GCM,
            Self::Aes256 => &aead::AES_256_GCM,
            Self::ChaCha20 => &aead::CHACHA20_POLY1305,
        }
    }

    fn header(self) -> &'static aead::quic::Algorithm {
        match self {
            Self::Aes128 => &aead::quic::AES_128,
            Self::Aes256 => &aead::quic::AES_256,
            Self::ChaCha20 => &aead::quic::CHACHA20,
        }
    }
}

/// A packet without its protection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Its number.
    pub number: u64,
    /// Its frames.
    pub payload: Vec<u8>,
}

/// The keys of one side for one encryption level.
pub struct Keys {
    header: HeaderProtectionKey,
    packet: PacketKey,
}

impl Keys {
    /// The keys that a secret gives; `None` if its length is not that of the suite's hash.
    pub fn new(suite: Suite, secret: &[u8]) -> Option<Self> {
        Some(Self { header: header_key(suite, secret)?, packet: PacketKey::new(suite, secret)? })
    }

    /// The keys of the first flight, which anyone can derive from the id that it is sent to.
    pub fn initial(first_id: &[u8], sender: Way) -> Self {
        let label: &[u8] = match sender {
            Way::ToServer => b"client in",
            Way::ToClient => b"server in",
        };
        let prk = Salt::new(HKDF_SHA256, &INITIAL_SALT).extract(first_id);
        let secret = expand(&prk, label, Suite::Aes128.hash_bytes()).expect("32 bytes of SHA-256");
        Self::new(Suite::Aes128, &secret).expect("the secret has the hash's length")
    }

    /// Opens a packet with a long header, whose number begins at `number_at`; `None` if these are
    /// not its keys.
    pub fn open(&self, packet: &[u8], number_at: usize, largest: Option<u64>) -> Option<Opened> {
        let bare = unprotect(&self.header, packet, number_at, largest)?;
        self.packet.open(&bare)
    }
}

/// The keys of one side for packets with a short header, which it changes now and then.
pub struct ShortKeys {
    suite: Suite,
    header: HeaderProtectionKey,
    secret: Vec<u8>,
    previous: Option<PacketKey>,
    current: PacketKey,
    next: PacketKey,
    /// How often the keys were changed; its lowest bit is the phase that packets show.
    updates: u64,
}

impl ShortKeys {
    /// The first keys of a side.
    pub fn new(suite: Suite, secret: &[u8]) -> Option<Self> {
        let next_secret = next_secret(suite, secret)?;
        Some(Self {
            suite,
            header: header_key(suite, secret)?,
            previous: None,
            current: PacketKey::new(suite, secret)?,
            next: PacketKey::new(suite, &next_secret)?,
            secret: next_secret,
            updates: 0,
        })
    }

    /// How often the keys were changed.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Opens a packet; goes on to the next keys if it is the first under them.
    pub fn open(&mut self, packet: &[u8], id_bytes: usize, largest: Option<u64>) -> Option<Opened> {
        let bare = unprotect(&self.header, packet, 1 + id_bytes, largest)?;
        let phase = bare.header[0] >> 2 & 1;
        if u64::from(phase) == self.updates & 1 {
            return self.current.open(&bare);
        }
        if let Some(opened) = self.previous.as_ref().and_then(|keys| keys.open(&bare)) {
            return Some(opened); // it was under way while the keys changed
        }
        let opened = self.next.open(&bare)?;
        self.update();
        Some(opened)
    }

    fn update(&mut self) {
        let secret = next_secret(self.suite, &self.secret).expect("as long as the last one");
        let next = PacketKey::new(self.suite, &secret).expect("as long as the last one");
        let current = std::mem::replace(&mut self.next, next);
        self.previous = Some(std::mem::replace(&mut self.current, current));
        self.secret = secret;
        self.updates += 1;
    }
}

struct PacketKey {
    key: LessSafeKey,
    iv: [u8; NONCE_BYTES],
}

impl PacketKey {
    fn new(suite: Suite, secret: &[u8]) -> Option<Self> {
        let prk = prk(suite, secret)?;
        let key = expand(&prk, b"quic key", suite.aead().key_len())?;
        let key = UnboundKey::new(suite.aead(), &key).ok()?;
        let iv = expand(&prk, b"quic iv", NONCE_BYTES)?.try_into().ok()?;
        Some(Self { key: LessSafeKey::new(key), iv })
    }

    fn open(&self, bare: &Bare<'_>) -> Option<Opened> {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().rev().zip(bare.number.to_le_bytes()) {
            *byte ^= number;
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut payload = bare.sealed.to_vec();
        let aad = Aad::from(bare.header.as_slice());
        let bytes = self.key.open_in_place(nonce, aad, &mut payload).ok()?.len();
        payload.truncate(bytes);
        Some(Opened { number: bare.number, payload })
    }
}

/// A packet without header protection.
struct Bare<'a> {
    header: Vec<u8>,
    number: u64,
    sealed: &'a [u8],
}

fn unprotect<'a>(
    key: &HeaderProtectionKey,
    packet: &'a [u8],
    number_at: usize,
    largest: Option<u64>,
) -> Option<Bare<'a>> {
    let sample_at = number_at.checked_add(NUMBER_BYTES_MAX)?;
    let sample = packet.get(sample_at..sample_at + SAMPLE_BYTES)?;
    let mask = key.new_mask(sample).ok()?;
    let hidden = if packet[0] & 0x80 != 0 { 0x0f } else { 0x1f };
    let first = packet[0] ^ (mask[0] & hidden);
    let number_bytes = usize::from(first & 3) + 1;
    let mut header = packet[..number_at + number_bytes].to_vec();
    header[0] = first;
    let mut short = 0;
    for (byte, mask) in header[number_at..].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
        short = short << 8 | u64::from(*byte);
    }
    let number = whole_number(short, number_bytes, largest);
    Some(Bare { header, number, sealed: &packet[number_at + number_bytes..] })
}

/// The packet number whose last bytes were sent: the one nearest to the next that is expected
/// (RFC 9000 §A.3).
fn whole_number(short: u64, bytes: usize, largest: Option<u64>) -> u64 {
    let window = 1_u64 << (8 * bytes);
    let expected = largest.map_or(0, |largest| largest.saturating_add(1));
    let candidate = (expected & !(window - 1)) | short;
    if candidate.saturating_add(window / 2) <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected.saturating_add(window / 2) && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

fn prk(suite: Suite, secret: &[u8]) -> Option<Prk> {
    let fits = secret.len() == suite.hash_bytes();
    fits.then(|| Prk::new_less_safe(suite.hash(), secret))
}

fn header_key(suite: Suite, secret: &[u8]) -> Option<HeaderProtectionKey> {
    let key = expand(&prk(suite, secret)?, b"quic hp", suite.header().key_len())?;
    HeaderProtectionKey::new(suite.header(), &key).ok()
}

fn next_secret(suite: Suite, secret: &[u8]) -> Option<Vec<u8>> {
    expand(&prk(suite, secret)?, b"quic ku", suite.hash_bytes())
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
fn expand(prk: &Prk, label: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let total = (bytes as u16).to_be_bytes();
    let label_bytes = [6 + label.len() as u8];
    let info = [&total[..], &label_bytes, b"tls13 ", label, &[0]];
    let mut out = vec![0; bytes];
    prk.expand(&info, Length(bytes)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// RFC 9001 §A.1.
    #[test]
    fn the_initial_keys_are_those_of_the_standard() {
        let prk = Salt::new(HKDF_SHA256, &INITIAL_SALT).extract(&hex("8394c8f03e515708"));
        let client = expand(&prk, b"client in", 32).unwrap();
        assert_eq!(client, hex("c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea"));
        let client = super::prk(Suite::Aes128, &client).unwrap();
        assert_eq!(
            expand(&client, b"quic key", 16).unwrap(),
            hex("1f369613dd76d5467730efcbe3b1a22d")
        );
        assert_eq!(expand(&client, b"quic iv", 12).unwrap(), hex("fa044b2f42a3fd3b46fb255c"));
        assert_eq!(
            expand(&client, b"quic hp", 16).unwrap(),
            hex("9f50449e04a0e810283a1e9933adedd2")
        );
    }

    /// RFC 9001 §A.5.
    #[test]
    fn the_chacha_packet_of_the_standard_opens() {
        let secret = hex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b");
        let mut keys = ShortKeys::new(Suite::ChaCha20, &secret).unwrap();
        let packet = hex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb");
        let opened = keys.open(&packet, 0, Some(654_360_563)).unwrap();
        assert_eq!(opened, Opened { number: 654_360_564, payload: vec![1] });
        for at in 0..packet.len() {
            let mut wrong = packet.clone();
            wrong[at] ^= 0x10;
            assert_eq!(keys.open(&wrong, 0, Some(654_360_563)), None, "byte {at}");
        }
        assert_eq!(keys.updates(), 0);
    }

    /// RFC 9000 §A.3, and the ends of the range.
    #[test]
    fn packet_numbers_are_completed() {
        assert_eq!(whole_number(0x9b32, 2, Some(0xa82f_30ea)), 0xa82f_9b32);
        assert_eq!(whole_number(0xff, 1, Some(0x1_0000)), 0xffff);
        assert_eq!(whole_number(2, 1, Some(0xfd)), 0x102);
        assert_eq!(whole_number(7, 1, None), 7);
        whole_number(u64::from(u32::MAX), 4, Some(u64::MAX));
    }

    #[test]
    fn a_secret_of_the_wrong_length_gives_no_keys() {
        assert!(Keys::new(Suite::Aes256, &[0; 32]).is_none());
        assert!(ShortKeys::new(Suite::Aes128, &[0; 48]).is_none());
        assert!(Keys::new(Suite::Aes256, &[0; 48]).is_some());
    }
}
