//! A frame as a view of received bytes, and the writing of one.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frames::{
    AskCursors, Block, BlockList, BlockPage, Blocked, ChannelState, ChannelsShown, Close, Cursor,
    ErrorHead, Fetch, Gap, GroupInfo, GroupPage, Hello, HistoryAsk, HistoryPage, HistoryWanted,
    Identity, LoggedIn, Login, Marks, MarksAsk, Ping, Pong, PushBody, ReadMark, Receipts,
    ReceiptsAsk, Resume, Send, SendAck, SendRefused, TokenLogin, UnreadCount, Welcome,
};
use crate::header::{Flags, HEADER_BYTES, Header};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::registry::Kind;

/// A frame, borrowed from the bytes it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// See [`Kind::Hello`].
    Hello(&'a Hello),
    /// See [`Kind::Welcome`].
    Welcome(&'a Welcome),
    /// See [`Kind::Login`].
    Login(&'a Login),
    /// See [`Kind::TokenLogin`]; with the token.
    TokenLogin(&'a TokenLogin, &'a [u8]),
    /// See [`Kind::Identity`].
    Identity(&'a Identity),
    /// See [`Kind::Resume`].
    Resume(&'a Resume),
    /// See [`Kind::LoggedIn`].
    LoggedIn(&'a LoggedIn),
    /// See [`Kind::Cursors`].
    Cursors(&'a [Cursor]),
    /// See [`Kind::Send`]; with the content.
    Send(&'a Send, &'a [u8]),
    /// See [`Kind::SendAck`].
    SendAck(&'a SendAck),
    /// See [`Kind::SendRefused`].
    SendRefused(&'a SendRefused),
    /// See [`Kind::Push`]; with the content.
    Push(&'a PushBody, &'a [u8]),
    /// See [`Kind::ReceiveAck`].
    ReceiveAck(&'a [Cursor]),
    /// See [`Kind::Fetch`].
    Fetch(&'a Fetch),
    /// See [`Kind::Channel`].
    Channel(&'a ChannelState),
    /// See [`Kind::Gap`].
    Gap(&'a Gap),
    /// See [`Kind::GroupInfo`].
    GroupInfo(&'a GroupInfo),
    /// See [`Kind::GroupPage`]; with the name and the members, see [`crate::group::page_parts`].
    GroupPage(&'a GroupPage, &'a [u8]),
    /// See [`Kind::Ping`].
    Ping(&'a Ping),
    /// See [`Kind::Pong`].
    Pong(&'a Pong),
    /// See [`Kind::AskCursors`].
    AskCursors(&'a AskCursors),
    /// See [`Kind::Block`].
    Block(&'a Block),
    /// See [`Kind::Blocked`].
    Blocked(&'a Blocked),
    /// See [`Kind::BlockList`].
    BlockList(&'a BlockList),
    /// See [`Kind::BlockPage`]; with the uins.
    BlockPage(&'a BlockPage, &'a [u8]),
    /// See [`Kind::HistoryAsk`].
    HistoryAsk(&'a HistoryAsk),
    /// See [`Kind::History`]; with the entries, see [`crate::history::split_entry`].
    History(&'a HistoryPage, &'a [u8]),
    /// See [`Kind::HistoryWanted`].
    HistoryWanted(&'a HistoryWanted),
    /// See [`Kind::ChannelsShown`].
    ChannelsShown(&'a ChannelsShown),
    /// See [`Kind::Read`].
    Read(&'a [ReadMark]),
    /// See [`Kind::MarksAsk`].
    MarksAsk(&'a MarksAsk),
    /// See [`Kind::Marks`]; with the marks.
    Marks(&'a Marks, &'a [u8]),
    /// See [`Kind::ReceiptsAsk`].
    ReceiptsAsk(&'a ReceiptsAsk),
    /// See [`Kind::Receipts`].
    Receipts(&'a Receipts),
    /// See [`Kind::UnreadAsk`]; what comes behind the `id` of each is counted.
    UnreadAsk(&'a [Cursor]),
    /// See [`Kind::Unread`].
    Unread(&'a [UnreadCount]),
    /// See [`Kind::Error`]; with its text.
    Error(&'a ErrorHead, &'a [u8]),
    /// See [`Kind::Close`]; with its text.
    Close(&'a Close, &'a [u8]),
    /// A kind that this version does not know.
    Unknown(Kind, &'a [u8]),
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The payload's length does not fit the kind.
    Length {
        /// The kind in the header.
        kind: Kind,
        /// Bytes of payload that came.
        bytes: usize,
    },
    /// Fewer bytes than the header says, or more.
    Bounds {
        /// What the header says, header included.
        expected: usize,
        /// What came.
        bytes: usize,
    },
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length { kind, bytes } => {
                write!(f, "a payload of {bytes} bytes does not fit {kind}")
            }
            Self::Bounds { expected, bytes } => {
                write!(f, "the header speaks of {expected} bytes, {bytes} came")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

impl<'a> Frame<'a> {
    /// Reads the one frame that `bytes` are: header and payload, neither more nor less.
    ///
    /// # Errors
    /// When the lengths do not fit. Values inside are not judged here.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, Flags), DecodeError> {
        let header = Header::peek(bytes)
            .ok_or(DecodeError::Bounds { expected: HEADER_BYTES, bytes: bytes.len() })?;
        if header.frame_bytes() != bytes.len() {
            return Err(DecodeError::Bounds { expected: header.frame_bytes(), bytes: bytes.len() });
        }
        let frame = Self::parse_payload(Kind(header.kind), &bytes[HEADER_BYTES..])?;
        Ok((frame, Flags(header.flags)))
    }

    fn parse_payload(kind: Kind, payload: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            Kind::Hello => Self::Hello(whole(kind, payload)?),
            Kind::Welcome => Self::Welcome(whole(kind, payload)?),
            Kind::Login => Self::Login(whole(kind, payload)?),
            Kind::TokenLogin => {
                headed(kind, payload).map(|(head, rest)| Self::TokenLogin(head, rest))?
            }
            Kind::Identity => Self::Identity(whole(kind, payload)?),
            Kind::Resume => Self::Resume(whole(kind, payload)?),
            Kind::LoggedIn => Self::LoggedIn(whole(kind, payload)?),
            Kind::Cursors => Self::Cursors(list(kind, payload)?),
            Kind::Send => headed(kind, payload).map(|(head, rest)| Self::Send(head, rest))?,
            Kind::SendAck => Self::SendAck(whole(kind, payload)?),
            Kind::SendRefused => Self::SendRefused(whole(kind, payload)?),
            Kind::Push => headed(kind, payload).map(|(head, rest)| Self::Push(head, rest))?,
            Kind::ReceiveAck => Self::ReceiveAck(list(kind, payload)?),
            Kind::Fetch => Self::Fetch(whole(kind, payload)?),
            Kind::Channel => Self::Channel(whole(kind, payload)?),
            Kind::Gap => Self::Gap(whole(kind, payload)?),
            Kind::GroupInfo => Self::GroupInfo(whole(kind, payload)?),
            Kind::GroupPage => {
                headed(kind, payload).map(|(head, rest)| Self::GroupPage(head, rest))?
            }
            Kind::Ping => Self::Ping(whole(kind, payload)?),
            Kind::Pong => Self::Pong(whole(kind, payload)?),
            Kind::AskCursors => Self::AskCursors(whole(kind, payload)?),
            Kind::Block => Self::Block(whole(kind, payload)?),
            Kind::Blocked => Self::Blocked(whole(kind, payload)?),
            Kind::BlockList => Self::BlockList(whole(kind, payload)?),
            Kind::BlockPage => {
                headed(kind, payload).map(|(head, rest)| Self::BlockPage(head, rest))?
            }
            Kind::HistoryAsk => Self::HistoryAsk(whole(kind, payload)?),
            Kind::History => headed(kind, payload).map(|(head, rest)| Self::History(head, rest))?,
            Kind::HistoryWanted => Self::HistoryWanted(whole(kind, payload)?),
            Kind::ChannelsShown => Self::ChannelsShown(whole(kind, payload)?),
            Kind::Read => Self::Read(list(kind, payload)?),
            Kind::MarksAsk => Self::MarksAsk(whole(kind, payload)?),
            Kind::Marks => headed(kind, payload).map(|(head, rest)| Self::Marks(head, rest))?,
            Kind::ReceiptsAsk => Self::ReceiptsAsk(whole(kind, payload)?),
            Kind::Receipts => Self::Receipts(whole(kind, payload)?),
            Kind::UnreadAsk => Self::UnreadAsk(list(kind, payload)?),
            Kind::Unread => Self::Unread(list(kind, payload)?),
            Kind::Error => headed(kind, payload).map(|(head, rest)| Self::Error(head, rest))?,
            Kind::Close => headed(kind, payload).map(|(head, rest)| Self::Close(head, rest))?,
            other => Self::Unknown(other, payload),
        })
    }

    /// Writes the frame to the start of `buffer` and returns its length in bytes: the way back
    /// of [`parse`](Self::parse).
    ///
    /// # Panics
    /// If `buffer` is too short, or the payload longer than a frame holds.
    pub fn encode(&self, flags: Flags, buffer: &mut [u8]) -> usize {
        let (fixed, tail) = self.payload();
        write(self.kind(), flags, fixed, tail, buffer)
    }

    /// The bytes of the payload: the fixed part, and what stands behind it.
    pub fn payload(&self) -> (&'a [u8], &'a [u8]) {
        match *self {
            Self::Hello(fixed) => (fixed.as_bytes(), &[]),
            Self::Welcome(fixed) => (fixed.as_bytes(), &[]),
            Self::Login(fixed) => (fixed.as_bytes(), &[]),
            Self::TokenLogin(fixed, token) => (fixed.as_bytes(), token),
            Self::Identity(fixed) => (fixed.as_bytes(), &[]),
            Self::Resume(fixed) => (fixed.as_bytes(), &[]),
            Self::LoggedIn(fixed) => (fixed.as_bytes(), &[]),
            Self::Cursors(list) | Self::ReceiveAck(list) | Self::UnreadAsk(list) => {
                (&[], list.as_bytes())
            }
            Self::Send(fixed, content) => (fixed.as_bytes(), content),
            Self::SendAck(fixed) => (fixed.as_bytes(), &[]),
            Self::SendRefused(fixed) => (fixed.as_bytes(), &[]),
            Self::Push(fixed, content) => (fixed.as_bytes(), content),
            Self::Fetch(fixed) => (fixed.as_bytes(), &[]),
            Self::Channel(fixed) => (fixed.as_bytes(), &[]),
            Self::Gap(fixed) => (fixed.as_bytes(), &[]),
            Self::GroupInfo(fixed) => (fixed.as_bytes(), &[]),
            Self::GroupPage(fixed, rest) => (fixed.as_bytes(), rest),
            Self::Ping(fixed) => (fixed.as_bytes(), &[]),
            Self::Pong(fixed) => (fixed.as_bytes(), &[]),
            Self::AskCursors(fixed) => (fixed.as_bytes(), &[]),
            Self::Block(fixed) => (fixed.as_bytes(), &[]),
            Self::Blocked(fixed) => (fixed.as_bytes(), &[]),
            Self::BlockList(fixed) => (fixed.as_bytes(), &[]),
            Self::BlockPage(fixed, uins) => (fixed.as_bytes(), uins),
            Self::HistoryAsk(fixed) => (fixed.as_bytes(), &[]),
            Self::History(fixed, entries) => (fixed.as_bytes(), entries),
            Self::HistoryWanted(fixed) => (fixed.as_bytes(), &[]),
            Self::ChannelsShown(fixed) => (fixed.as_bytes(), &[]),
            Self::Read(list) => (&[], list.as_bytes()),
            Self::MarksAsk(fixed) => (fixed.as_bytes(), &[]),
            Self::Marks(fixed, marks) => (fixed.as_bytes(), marks),
            Self::ReceiptsAsk(fixed) => (fixed.as_bytes(), &[]),
            Self::Receipts(fixed) => (fixed.as_bytes(), &[]),
            Self::Unread(list) => (&[], list.as_bytes()),
            Self::Error(fixed, text) => (fixed.as_bytes(), text),
            Self::Close(fixed, text) => (fixed.as_bytes(), text),
            Self::Unknown(_, payload) => (&[], payload),
        }
    }

    /// The kind of the frame.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Login(_) => Kind::Login,
            Self::TokenLogin(..) => Kind::TokenLogin,
            Self::Identity(_) => Kind::Identity,
            Self::Resume(_) => Kind::Resume,
            Self::LoggedIn(_) => Kind::LoggedIn,
            Self::Cursors(_) => Kind::Cursors,
            Self::Send(..) => Kind::Send,
            Self::SendAck(_) => Kind::SendAck,
            Self::SendRefused(_) => Kind::SendRefused,
            Self::Push(..) => Kind::Push,
            Self::ReceiveAck(_) => Kind::ReceiveAck,
            Self::Fetch(_) => Kind::Fetch,
            Self::Channel(_) => Kind::Channel,
            Self::Gap(_) => Kind::Gap,
            Self::GroupInfo(_) => Kind::GroupInfo,
            Self::GroupPage(..) => Kind::GroupPage,
            Self::Ping(_) => Kind::Ping,
            Self::Pong(_) => Kind::Pong,
            Self::AskCursors(_) => Kind::AskCursors,
            Self::Block(_) => Kind::Block,
            Self::Blocked(_) => Kind::Blocked,
            Self::BlockList(_) => Kind::BlockList,
            Self::BlockPage(..) => Kind::BlockPage,
            Self::HistoryAsk(_) => Kind::HistoryAsk,
            Self::History(..) => Kind::History,
            Self::HistoryWanted(_) => Kind::HistoryWanted,
            Self::ChannelsShown(_) => Kind::ChannelsShown,
            Self::Read(_) => Kind::Read,
            Self::MarksAsk(_) => Kind::MarksAsk,
            Self::Marks(..) => Kind::Marks,
            Self::ReceiptsAsk(_) => Kind::ReceiptsAsk,
            Self::Receipts(_) => Kind::Receipts,
            Self::UnreadAsk(_) => Kind::UnreadAsk,
            Self::Unread(_) => Kind::Unread,
            Self::Error(..) => Kind::Error,
            Self::Close(..) => Kind::Close,
            Self::Unknown(kind, _) => *kind,
        }
    }
}

fn whole<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    kind: Kind,
    payload: &[u8],
) -> Result<&T, DecodeError> {
    T::ref_from_bytes(payload).map_err(|_| DecodeError::Length { kind, bytes: payload.len() })
}

fn headed<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    kind: Kind,
    payload: &[u8],
) -> Result<(&T, &[u8]), DecodeError> {
    T::ref_from_prefix(payload).map_err(|_| DecodeError::Length { kind, bytes: payload.len() })
}

fn list<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    kind: Kind,
    payload: &[u8],
) -> Result<&[T], DecodeError> {
    <[T]>::ref_from_bytes(payload).map_err(|_| DecodeError::Length { kind, bytes: payload.len() })
}

/// Bytes of a frame with this fixed part and this much behind it.
pub const fn frame_bytes<T>(variable_bytes: usize) -> usize {
    HEADER_BYTES + size_of::<T>() + variable_bytes
}

/// The header of a frame whose payload has `payload_bytes`.
///
/// # Panics
/// If the payload does not fit a frame: whoever builds one holds the limits.
pub fn header(kind: Kind, flags: Flags, payload_bytes: usize) -> Header {
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "a payload of {payload_bytes} bytes");
    let bytes = payload_bytes as u16; // fits: asserted above
    Header { payload_bytes: bytes.into(), kind: kind.0, flags: flags.0 }
}

/// Writes a frame to the start of `buffer` and returns its length in bytes.
///
/// # Panics
/// If `buffer` is shorter than [`frame_bytes`] says.
pub fn encode<T: IntoBytes + Immutable>(
    kind: Kind,
    flags: Flags,
    head: &T,
    variable: &[u8],
    buffer: &mut [u8],
) -> usize {
    write(kind, flags, head.as_bytes(), variable, buffer)
}

fn write(kind: Kind, flags: Flags, fixed: &[u8], tail: &[u8], buffer: &mut [u8]) -> usize {
    let payload_bytes = fixed.len() + tail.len();
    let header = header(kind, flags, payload_bytes);
    let (fixed_end, end) = (HEADER_BYTES + fixed.len(), HEADER_BYTES + payload_bytes);
    buffer[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    buffer[HEADER_BYTES..fixed_end].copy_from_slice(fixed);
    buffer[fixed_end..end].copy_from_slice(tail);
    end
}
