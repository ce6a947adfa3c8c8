//! The numbers that name things.

use tern_protocol::{ChannelId, Epoch, MessageId, SendCounter, SendKey, Uin};
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn a_direct_channel_is_the_same_for_both() {
    let (a, b) = (Uin(10_001), Uin(10_002));
    let channel = ChannelId::direct(a, b);
    assert_eq!(channel, ChannelId::direct(b, a));
    assert_eq!(channel.members(), Some((a, b)));
    assert_eq!(channel.peer_of(a), Some(b));
    assert_eq!(channel.peer_of(b), Some(a));
    assert_eq!(channel.peer_of(Uin(10_003)), None);
}

#[test]
fn notes_to_self_have_one_member_twice() {
    let me = Uin(10_001);
    let notes = ChannelId::direct(me, me);
    assert!(notes.is_valid());
    assert_eq!(notes.peer_of(me), Some(me));
}

#[test]
fn a_group_has_no_members_in_its_name() {
    let group = ChannelId::group(77);
    assert!(group.is_valid());
    assert_eq!((group.members(), group.peer_of(Uin(77))), (None, None));
}

#[test]
fn bytes_that_name_no_channel() {
    let channel = |low: u64, high: u64| {
        let bytes = [low.to_le_bytes(), high.to_le_bytes()].concat();
        ChannelId::read_from_bytes(&bytes).expect("16 bytes")
    };
    assert!(!channel(0, 0).is_valid());
    assert!(!channel(2, 1).is_valid());
    assert_eq!((channel(2, 1).members(), channel(2, 0).members()), (None, None));
    assert_eq!(channel(1, 2).as_bytes(), ChannelId::direct(Uin(1), Uin(2)).as_bytes());
}

#[test]
fn skip_links_reach_the_first_message_in_logarithmic_steps() {
    for id in 1..5_000 {
        let steps = std::iter::successors(Some(MessageId(id)), |id| Some(id.skip()))
            .take_while(|id| *id != MessageId(0))
            .count();
        assert!(steps <= 13, "{steps} steps from {id}"); // 5,000 has 13 bits
    }
    assert_eq!(MessageId(0).skip(), MessageId(0));
    assert_eq!(MessageId(11).skip(), MessageId(10));
}

#[test]
fn keys_are_ordered_by_epoch_then_counter() {
    let key = |epoch, counter| SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) };
    assert!(key(1, u32::MAX) < key(2, 1));
    assert!(key(2, 1) < key(2, 2));
}
