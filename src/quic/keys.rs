//! Keys of packets that rest folded, and are unfolded for those who talk.
//!
//! Comes in: the cipher suites of TLS. Goes out: the same suites, whose keys for QUIC take a tenth
//! of the memory.
//!
//! A key of AES-GCM has 28 bytes with its nonce, and 560 once its rounds and the tables of its tag
//! are computed, which takes 0.2 µs. A session has four of them, two behind the next key update
//! among them, and two for headers. Most sessions say something every half minute. So a key is kept
//! as TLS derived it, and each thread has room for a number of unfolded ones; a packet whose key is
//! not there unfolds it, in the place of another's.
//!
//! The keys behind an update are derived before it, as RFC 9001 §9.5 wants, so that the time of a
//! packet does not tell of one.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::LocalKey;

use ring::aead::quic::HeaderProtectionKey as HeaderCipher;
use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{Error, SupportedCipherSuite, Tls13CipherSuite};

/// Unfolded keys of each kind that a thread keeps at most: 0.6 MB for packets and 0.3 MB for
/// headers, and room for the keys of some hundred sessions that talk at the same time.
const UNFOLDED: usize = 1 << UNFOLDED_BITS;

/// The same as a number of bits.
const UNFOLDED_BITS: u32 = 10;

/// The suites served, the preferred one first: AES-128-GCM, and ChaCha20 for a phone without
/// instructions for AES. AES-256 costs more and protects nothing more here.
pub fn suites() -> Vec<SupportedCipherSuite> {
    static AES: LazyLock<Tls13CipherSuite> = LazyLock::new(|| AES_128_GCM.suite());
    static CHACHA: LazyLock<Tls13CipherSuite> = LazyLock::new(|| CHACHA20_POLY1305.suite());
    vec![SupportedCipherSuite::Tls13(&AES), SupportedCipherSuite::Tls13(&CHACHA)]
}

/// How QUIC's keys of a suite are made.
struct Folding(&'static Ciphers);

/// The ciphers of a suite, and how often a key may be used (RFC 9001 §6.6).
struct Ciphers {
    suite: &'static SupportedCipherSuite,
    packets: &'static aead::Algorithm,
    headers: &'static aead::quic::Algorithm,
    /// Packets that a key may encrypt.
    encrypts_max: u64,
    /// Packets that may fail to decrypt.
    forgeries_max: u64,
}

static AES_128_GCM: Folding = Folding(&Ciphers {
    suite: &TLS13_AES_128_GCM_SHA256,
    packets: &aead::AES_128_GCM,
    headers: &aead::quic::AES_128,
    encrypts_max: 1 << 23,
    forgeries_max: 1 << 52,
});

static CHACHA20_POLY1305: Folding = Folding(&Ciphers {
    suite: &TLS13_CHACHA20_POLY1305_SHA256,
    packets: &aead::CHACHA20_POLY1305,
    headers: &aead::quic::CHACHA20,
    encrypts_max: u64::MAX, // more than a connection has packets
    forgeries_max: 1 << 36,
});

impl Folding {
    /// The suite as rustls has it, with other keys for QUIC.
    fn suite(&'static self) -> Tls13CipherSuite {
        let whole = self.0.suite.tls13().expect("the suite is one of TLS 1.3");
        let common = &whole.common;
        Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: common.suite,
                hash_provider: common.hash_provider,
                confidentiality_limit: common.confidentiality_limit,
            },
            hkdf_provider: whole.hkdf_provider,
            aead_alg: whole.aead_alg,
            quic: Some(self),
        }
    }
}

impl Algorithm for Folding {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        Box::new(FoldedPackets { ciphers: self.0, key: Folded::new(key), iv })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(FoldedHeaders { cipher: self.0.headers, key: Folded::new(key) })
    }

    fn aead_key_len(&self) -> usize {
        self.0.packets.key_len()
    }
}

/// A key as it was derived.
struct Folded {
    /// Of all keys of this process it alone has this number.
    number: u64,
    key: AeadKey,
}

impl Folded {
    fn new(key: AeadKey) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), key }
    }

    /// Acts with the unfolded key, which is made if the thread has it not.
    fn unfolded<K, R>(
        &self,
        of_thread: &'static LocalKey<RefCell<Unfolded<K>>>,
        make: impl FnOnce(&[u8]) -> K,
        act: impl FnOnce(&K) -> R,
    ) -> R {
        of_thread.with_borrow_mut(|unfolded| act(unfolded.get(self, make)))
    }
}

/// The unfolded keys of a thread, each in the one place that its number gives it.
struct Unfolded<K>(Vec<Option<(u64, K)>>);

thread_local! {
    static PACKETS: RefCell<Unfolded<LessSafeKey>> = const { RefCell::new(Unfolded(Vec::new())) };
    static HEADERS: RefCell<Unfolded<HeaderCipher>> = const { RefCell::new(Unfolded(Vec::new())) };
}

impl<K> Unfolded<K> {
    fn get(&mut self, folded: &Folded, make: impl FnOnce(&[u8]) -> K) -> &K {
        /// 2^64 by the golden ratio: numbers that follow each other get places far apart.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        if self.0.is_empty() {
            self.0.resize_with(UNFOLDED, || None);
        }
        let place = folded.number.wrapping_mul(SPREAD) >> (u64::BITS - UNFOLDED_BITS);
        let place = &mut self.0[place as usize];
        let held = place.as_ref().is_some_and(|(number, _)| *number == folded.number);
        if !held {
            *place = None;
        }
        &place.get_or_insert_with(|| (folded.number, make(folded.key.as_ref()))).1
    }
}

/// Encrypts and decrypts packets.
struct FoldedPackets {
    ciphers: &'static Ciphers,
    key: Folded,
    iv: Iv,
}

impl FoldedPackets {
    fn with_cipher<R>(&self, packet: u64, act: impl FnOnce(&LessSafeKey, aead::Nonce) -> R) -> R {
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, packet).0);
        let make = |key: &[u8]| {
            let key = UnboundKey::new(self.ciphers.packets, key);
            LessSafeKey::new(key.expect("TLS derives a key of the cipher's length"))
        };
        self.key.unfolded(&PACKETS, make, |cipher| act(cipher, nonce))
    }
}

impl PacketKey for FoldedPackets {
    fn encrypt_in_place(&self, packet: u64, head: &[u8], text: &mut [u8]) -> Result<Tag, Error> {
        let seal = |cipher: &LessSafeKey, nonce| {
            cipher.seal_in_place_separate_tag(nonce, Aad::from(head), text)
        };
        let tag = self.with_cipher(packet, seal).map_err(|_| Error::EncryptError)?;
        Ok(Tag::from(tag.as_ref()))
    }

    fn decrypt_in_place<'a>(
        &self,
        packet: u64,
        head: &[u8],
        text: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let open = |cipher: &LessSafeKey, nonce| match cipher.open_in_place(
            nonce,
            Aad::from(head),
            text,
        ) {
            Ok(plain) => Ok(plain.len()),
            Err(_) => Err(Error::DecryptError),
        };
        let bytes = self.with_cipher(packet, open)?;
        Ok(&text[..bytes])
    }

    fn tag_len(&self) -> usize {
        self.ciphers.packets.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.ciphers.encrypts_max
    }

    fn integrity_limit(&self) -> u64 {
        self.ciphers.forgeries_max
    }
}

/// Hides and shows the numbers of packets (RFC 9001 §5.4.1).
struct FoldedHeaders {
    cipher: &'static aead::quic::Algorithm,
    key: Folded,
}

impl FoldedHeaders {
    /// The mask of a packet, of which this is a sample.
    fn mask(&self, sample: &[u8]) -> Result<[u8; 5], Error> {
        let make = |key: &[u8]| {
            let cipher = HeaderCipher::new(self.cipher, key);
            cipher.expect("TLS derives a key of the cipher's length")
        };
        let mask = self.key.unfolded(&HEADERS, make, |cipher| cipher.new_mask(sample));
        mask.map_err(|_| Error::General("a sample of another length".to_owned()))
    }
}

/// Bits of a first byte that the mask covers: fewer in a long header.
fn masked_bits(first: u8) -> u8 {
    const LONG_HEADER: u8 = 0x80;
    if first & LONG_HEADER == LONG_HEADER { 0x0f } else { 0x1f }
}

/// Covers or uncovers a packet's number, whose length `plain` tells: its first byte, uncovered.
fn cover(plain: u8, mask: [u8; 5], number: &mut [u8]) -> Result<(), Error> {
    let [_, mask @ ..] = mask;
    if number.len() > mask.len() {
        return Err(Error::General("a packet's number of more than four bytes".to_owned()));
    }
    let bytes = usize::from(plain & 0x03) + 1;
    number.iter_mut().zip(mask).take(bytes).for_each(|(byte, mask)| *byte ^= mask);
    Ok(())
}

impl HeaderProtectionKey for FoldedHeaders {
    fn encrypt_in_place(
        &self,
        sample: &[u8],
        first: &mut u8,
        number: &mut [u8],
    ) -> Result<(), Error> {
        let mask = self.mask(sample)?;
        cover(*first, mask, number)?;
        *first ^= mask[0] & masked_bits(*first);
        Ok(())
    }

    fn decrypt_in_place(
        &self,
        sample: &[u8],
        first: &mut u8,
        number: &mut [u8],
    ) -> Result<(), Error> {
        let mask = self.mask(sample)?;
        let plain = *first ^ (mask[0] & masked_bits(*first));
        cover(plain, mask, number)?;
        *first = plain;
        Ok(())
    }

    fn sample_len(&self) -> usize {
        self.cipher.sample_len()
    }
}

const _: () = {
    assert!(size_of::<FoldedPackets>() <= 72);
    assert!(size_of::<FoldedHeaders>() <= 56);
    assert!(UNFOLDED * size_of::<Option<(u64, LessSafeKey)>>() <= 640 << 10);
    assert!(UNFOLDED * size_of::<Option<(u64, HeaderCipher)>>() <= 320 << 10);
};

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::Side;
    use rustls::crypto::ring::default_provider;
    use rustls::quic::{Keys, Suite, Version};

    /// The keys of both ends' first packets, by our suite and by rustls' own.
    fn pair(number: usize, id: u64) -> [Keys; 2] {
        let ours = suites()[number];
        let theirs = default_provider().cipher_suites;
        let theirs = theirs.into_iter().find(|it| it.suite() == ours.suite()).expect("has it");
        [(ours, Side::Server), (theirs, Side::Client)].map(|(suite, side)| {
            let suite = suite.tls13().expect("1.3").quic_suite().expect("of QUIC");
            let Suite { suite, quic } = suite;
            Keys::initial(Version::V1, suite, quic, &id.to_be_bytes(), side)
        })
    }

    fn check_packet(seals: &dyn PacketKey, opens: &dyn PacketKey, packet: u64) {
        let (head, plain) = (packet.to_be_bytes(), [packet as u8; 77]);
        let mut text = plain.to_vec();
        let tag = seals.encrypt_in_place(packet, &head, &mut text).expect("short");
        text.extend_from_slice(tag.as_ref());
        assert_ne!(text[..plain.len()], plain);
        let mut damaged = text.clone();
        damaged[(packet % 90) as usize] ^= 1;
        assert!(opens.decrypt_in_place(packet, &head, &mut damaged).is_err());
        assert_eq!(opens.decrypt_in_place(packet, &head, &mut text).expect("whole"), plain);
    }

    fn check_header(
        covers: &dyn HeaderProtectionKey,
        uncovers: &dyn HeaderProtectionKey,
        sample: [u8; 16],
    ) {
        for plain in [0x40, 0x41, 0x42, 0x43, 0xc0, 0xc3] {
            let (mut first, mut number) = (plain, [1, 2, 3, 4]);
            covers.encrypt_in_place(&sample, &mut first, &mut number).expect("fits");
            let hidden = usize::from(plain & 3) + 1;
            assert_eq!(number[hidden..], [1, 2, 3, 4][hidden..]);
            uncovers.decrypt_in_place(&sample, &mut first, &mut number).expect("fits");
            assert_eq!((first, number), (plain, [1, 2, 3, 4]));
        }
        let mut first = 0x40;
        assert!(covers.encrypt_in_place(&sample[1..], &mut first, &mut [0; 4]).is_err());
        assert!(covers.encrypt_in_place(&sample, &mut first, &mut [0; 5]).is_err());
        assert!(uncovers.decrypt_in_place(&sample, &mut first, &mut [0; 5]).is_err());
        assert_eq!(first, 0x40);
    }

    /// More sessions than a thread has room for, each in turn, twice.
    #[test]
    fn folded_keys_are_those_of_rustls() {
        for suite in 0..suites().len() {
            let all: Vec<_> = (0..UNFOLDED as u64).map(|id| pair(suite, id)).collect();
            for packet in 0..2 {
                for (id, [ours, theirs]) in (0_u64..).zip(&all) {
                    let packet = packet << 20 | id;
                    check_packet(&*ours.local.packet, &*theirs.remote.packet, packet);
                    check_packet(&*theirs.local.packet, &*ours.remote.packet, packet);
                    let sample = ring::digest::digest(&ring::digest::SHA256, &packet.to_be_bytes());
                    let sample = sample.as_ref()[..16].try_into().expect("of 32");
                    check_header(&*ours.local.header, &*theirs.remote.header, sample);
                    check_header(&*theirs.local.header, &*ours.remote.header, sample);
                }
            }
        }
    }

    #[test]
    fn limits_and_lengths_are_those_of_rustls() {
        for suite in 0..suites().len() {
            let [ours, theirs] = pair(suite, 1).map(|keys| keys.local);
            assert_eq!(ours.packet.tag_len(), theirs.packet.tag_len());
            assert_eq!(ours.packet.integrity_limit(), theirs.packet.integrity_limit());
            assert_eq!(ours.packet.confidentiality_limit(), theirs.packet.confidentiality_limit());
            assert_eq!(ours.header.sample_len(), theirs.header.sample_len());
        }
    }

    #[test]
    fn a_key_in_the_place_of_another_is_made_anew() {
        let mut unfolded = Unfolded::<Vec<u8>>(Vec::new());
        let keys: Vec<_> =
            (0..3 * UNFOLDED).map(|n| Folded::new(AeadKey::from([n as u8; 32]))).collect();
        let mut made = 0;
        for _ in 0..2 {
            for (n, key) in keys.iter().enumerate() {
                for _ in 0..2 {
                    let found = unfolded.get(key, |bytes| {
                        made += 1;
                        bytes.to_vec()
                    });
                    assert_eq!(*found, [n as u8; 32]);
                }
            }
        }
        assert!((4 * UNFOLDED..=6 * UNFOLDED).contains(&made), "{made} made");
    }
}
