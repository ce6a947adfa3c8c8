//! Every bound of the wire: what it bounds, its unit, what it costs, and its neighbours.

use core::mem::size_of;

use crate::frames::{
    Cursor, GroupMember, GroupPage, HistoryEntry, HistoryPage, Mark, Marks, PushBody, TokenLogin,
};
use crate::group::CHANGE_BYTES_MAX;
use crate::header::HEADER_BYTES;

/// ALPN protocol name of this version of the protocol.
pub const ALPN: &[u8] = b"tern/1";

/// The UDP port a server listens on unless told otherwise.
pub const PORT: u16 = 5190;

/// Version of the frames, said in HELLO and WELCOME. A server answers another one with
/// `VERSION`.
pub const VERSION: u16 = 1;

/// First bytes of a HELLO, so that a stray protocol is told from a damaged frame.
pub const MAGIC: [u8; 4] = *b"TERN";

/// Largest payload of a frame in bytes: what the header's `u16` can say.
pub const PAYLOAD_BYTES_MAX: usize = u16::MAX as usize;

/// Largest frame in bytes: what a reader must be able to hold to make progress.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// Default limit of a message's content in bytes: what one Ethernet frame carries, a screenful of
/// text. As a PUSH it fills two datagrams of 1,200 bytes, the size that every QUIC path carries.
pub const CONTENT_BYTES_DEFAULT: usize = 1_440;

/// The most that the content limit can be set to, in bytes: a push must fit a frame.
pub const CONTENT_BYTES_MAX: usize = 60_000;

/// A device's oldest unanswered and newest sent counter differ by less than this, so that each
/// retry falls into the 64-bit window of deduplication.
pub const UNACKED_SENDS_MAX: u32 = 64;

/// Most cursors that a client puts into one CURSORS or RECEIVE_ACK frame: 1,000 of them are
/// 32 KB. A server takes as many as a frame has room for.
pub const CURSORS_PER_FRAME_MAX: usize = 1_000;

/// Most ids that one FETCH may ask for; a longer range is asked for in pieces.
pub const FETCH_IDS_MAX: u64 = 1_000;

/// Most users that one change of a group may name: with the longest name it still fits the default
/// limit of a message's content.
pub const CHANGE_MEMBERS_MAX: usize = 128;

/// Longest name of a group in bytes of UTF-8: some 40 characters of any script.
pub const GROUP_NAME_BYTES_MAX: usize = 128;

/// Most ids in one HISTORY, if they fit a frame: a screenful. A longer question is answered so far.
pub const HISTORY_IDS_MAX: u32 = 32;

/// Most members in one GROUP_PAGE: 256 of them are 6 KB.
pub const GROUP_PAGE_MEMBERS_MAX: usize = 256;

/// Most uins in one BLOCK_PAGE: 512 of them are 4 KB.
pub const BLOCK_PAGE_UINS_MAX: usize = 512;

/// Most marks in one MARKS: 256 of them are 12 KB.
pub const MARKS_PER_FRAME_MAX: usize = 256;

/// Most channels that one UNREAD_ASK may ask for: a screenful of them, several times over.
pub const UNREAD_CHANNELS_MAX: usize = 128;

/// Unread messages of a channel beyond which nobody counts: people are shown "100+".
pub const UNREAD_COUNT_MAX: u16 = 100;

/// Longest text in an ERROR or CLOSE in bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 256;

/// Bytes of a device's secret and of a resume token: 256 random bits.
pub const SECRET_BYTES: usize = 32;

/// Longest token of a TOKEN_LOGIN in bytes: a signature of 4,096 bits and some 2 KB of claims.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// Missed heartbeats after which a device counts as offline.
pub const MISSED_BEATS_MAX: u32 = 3;

const _: () = {
    assert!(CONTENT_BYTES_DEFAULT <= CONTENT_BYTES_MAX);
    assert!(size_of::<PushBody>() + CONTENT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
    assert!(
        size_of::<HistoryPage>()
            + size_of::<HistoryEntry>()
            + size_of::<PushBody>()
            + CONTENT_BYTES_MAX
            <= PAYLOAD_BYTES_MAX
    );
    assert!(CURSORS_PER_FRAME_MAX * size_of::<Cursor>() <= PAYLOAD_BYTES_MAX);
    assert!(CHANGE_BYTES_MAX <= CONTENT_BYTES_DEFAULT);
    assert!(
        size_of::<GroupPage>()
            + GROUP_NAME_BYTES_MAX
            + GROUP_PAGE_MEMBERS_MAX * size_of::<GroupMember>()
            <= PAYLOAD_BYTES_MAX
    );
    assert!(size_of::<Marks>() + MARKS_PER_FRAME_MAX * size_of::<Mark>() <= PAYLOAD_BYTES_MAX);
    assert!(size_of::<TokenLogin>() + TOKEN_BYTES_MAX <= PAYLOAD_BYTES_MAX);
    assert!(UNACKED_SENDS_MAX as usize <= u64::BITS as usize);
};
