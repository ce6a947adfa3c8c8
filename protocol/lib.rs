//! What is said on the wire: ids, limits, the registry of frames and codes, and the frames.
//!
//! A frame is borrowed from the bytes it came in ([`frame::Frame::parse`]) and never copied to be
//! read; it is written into a caller's buffer ([`frame::encode`]). This crate does no IO, reads
//! no clock and allocates nothing (it is `no_std` without `alloc`). The prose of the same facts is
//! `SPEC.md`; `testdata/` holds the bytes of one frame of each kind.
//!
//! Reading order: [`ids`], [`limits`], [`registry`], [`header`], [`frames`], [`frame`],
//! [`group`], [`history`], [`digest`], [`doubling`].
#![forbid(unsafe_code)]
#![no_std]

pub mod ids;
pub mod limits;
pub mod registry;

pub mod header;

pub mod frames;

pub mod digest;
pub mod doubling;
pub mod frame;
pub mod group;
pub mod history;

pub use frame::{DecodeError, Frame};
pub use header::{Flags, Header};
pub use ids::{
    ChannelId, DeviceId, Epoch, Incarnation, MessageId, SendCounter, SendKey, Uin, UnixMillis,
};
pub use registry::{Class, Code, Kind};
