//! Frames that no honest server sends: the machine survives them all, and never asks for what it
//! can't have.

use bytes::Bytes;
use proptest::prelude::*;
use tern_protocol::frames::{
    ChannelState, Close, ErrorHead, Gap, LoggedIn, Pong, PushBody, SendAck, SendRefused, Welcome,
};
use tern_protocol::{ChannelId, Kind, Uin};

use super::rig::Rig;
use crate::machine::Input;

/// Kinds that a server says, with the bytes of their fixed parts.
const KINDS: [(Kind, usize); 10] = [
    (Kind::Welcome, size_of::<Welcome>()),
    (Kind::LoggedIn, size_of::<LoggedIn>()),
    (Kind::SendAck, size_of::<SendAck>()),
    (Kind::SendRefused, size_of::<SendRefused>()),
    (Kind::Push, size_of::<PushBody>()),
    (Kind::Channel, size_of::<ChannelState>()),
    (Kind::Gap, size_of::<Gap>()),
    (Kind::Pong, size_of::<Pong>()),
    (Kind::Error, size_of::<ErrorHead>()),
    (Kind::Close, size_of::<Close>()),
];

/// Bytes of which many are at the edges of what a number can be.
fn payload(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(0u64),
        Just(1),
        Just(2),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(u64::from(u32::MAX)),
        Just(1 << 32 | 1),
        any::<u64>(),
    ];
    prop::collection::vec(word, bytes.div_ceil(8)).prop_map(move |words| {
        words.iter().flat_map(|word| word.to_le_bytes()).take(bytes).collect()
    })
}

fn frame() -> impl Strategy<Value = Bytes> {
    let known = prop::sample::select(&KINDS[..]).prop_flat_map(|(kind, bytes)| {
        (payload(bytes), any::<bool>()).prop_map(move |(mut payload, ours)| {
            // Half of all frames speak of a channel that the device has sent to.
            if ours && payload.len() >= size_of::<ChannelId>() {
                let channel: [u8; 16] = zerocopy::transmute!(ChannelId::direct(Uin(1), Uin(2)));
                payload[..channel.len()].copy_from_slice(&channel);
            }
            (kind.0, payload)
        })
    });
    let unknown = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..80));
    prop_oneof![9 => known, 1 => unknown].prop_map(|(kind, payload)| {
        let length = u16::try_from(payload.len()).unwrap().to_le_bytes();
        [&length[..], &[kind, 0], &payload].concat().into()
    })
}

proptest! {
    #![proptest_config(super::rig::cases(500))]

    #[test]
    fn no_frame_breaks_the_machine(frames in prop::collection::vec(frame(), 1..60)) {
        let mut rig = Rig::online(1);
        for (turn, frame) in frames.into_iter().enumerate() {
            rig.send(2, "x");
            rig.say(Input::Frame(frame));
            rig.results();
            if turn % 7 == 0 {
                rig.wait_ms(2_500);
            }
            if rig.opening {
                rig.log_in(turn as u32 + 2);
            }
        }
        for message in rig.messages() {
            rig.say(Input::Delivered(message.position));
        }
    }

    #[test]
    fn no_bytes_break_the_machine(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        greeted in any::<bool>(),
    ) {
        let mut rig = if greeted { Rig::online(1) } else { Rig::new() };
        rig.say(Input::Connected);
        rig.say(Input::Frame(bytes.into()));
        rig.wait_ms(60_000);
    }
}
