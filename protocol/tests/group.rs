//! Changes of groups: which make sense, and that the ids of new groups are their own.

use std::collections::HashSet;

use proptest::prelude::*;
use tern_protocol::frames::{Change, action, role, settings};
use tern_protocol::group::{CHANGE_BYTES_MAX, ChangeView, channel_of};
use tern_protocol::limits::{CHANGE_MEMBERS_MAX, GROUP_NAME_BYTES_MAX};
use tern_protocol::{DeviceId, Epoch, SendCounter, SendKey, Uin};
use zerocopy::little_endian::U64;

struct Arguments {
    action: u8,
    role: u8,
    settings: u8,
    until: u64,
    members: Vec<u64>,
    name: &'static [u8],
}

fn plain(action: u8) -> Arguments {
    Arguments { action, role: 0, settings: 0, until: 0, members: Vec::new(), name: b"" }
}

fn is_valid(arguments: &Arguments) -> bool {
    let members: Vec<U64> = arguments.members.iter().map(|uin| U64::new(*uin)).collect();
    let head = Change {
        action: arguments.action,
        role: arguments.role,
        settings: arguments.settings,
        reserved: 0,
        members: (members.len() as u16).into(),
        name_bytes: (arguments.name.len() as u16).into(),
        until: arguments.until.into(),
    };
    let view = ChangeView { head: &head, members: &members, name: arguments.name };
    let mut buffer = vec![0; 2 * CHANGE_BYTES_MAX];
    let bytes = view.encode(&mut buffer);
    let read = ChangeView::parse(&buffer[..bytes]).expect("what was written is read");
    assert_eq!(read, view);
    assert_eq!(ChangeView::parse(&buffer[..bytes - 1]), None, "a byte is missing");
    read.is_valid()
}

#[test]
fn each_action_has_its_own_arguments() {
    let create = || Arguments { name: b"terns", members: vec![2, 3], ..plain(action::CREATE) };
    let list = |action| Arguments { members: vec![2, 3], ..plain(action) };
    let admin = || Arguments { role: role::ADMIN, ..list(action::ROLE) };
    let owner = |members| Arguments { role: role::OWNER, members, ..plain(action::ROLE) };
    let good = [
        create(),
        Arguments { members: Vec::new(), settings: settings::KNOWN, ..create() },
        Arguments { members: (1..=CHANGE_MEMBERS_MAX as u64).collect(), ..create() },
        Arguments { name: &[b'a'; GROUP_NAME_BYTES_MAX], ..create() },
        list(action::ADD),
        list(action::KICK),
        plain(action::JOIN),
        plain(action::LEAVE),
        plain(action::DISSOLVE),
        admin(),
        owner(vec![9]),
        list(action::MUTE),
        Arguments { until: 7, ..list(action::MUTE) },
        Arguments { name: b"terns", ..plain(action::RENAME) },
        plain(action::SETTINGS),
        Arguments { settings: settings::OPEN, ..plain(action::SETTINGS) },
    ];
    for (index, arguments) in good.iter().enumerate() {
        assert!(is_valid(arguments), "good {index}");
    }
    let bad = [
        plain(0),
        plain(action::DISSOLVE + 1),
        plain(action::CREATE),
        Arguments { until: 1, ..create() },
        Arguments { settings: settings::KNOWN + 1, ..create() },
        Arguments { members: vec![3, 2], ..create() },
        Arguments { members: vec![2, 2], ..create() },
        Arguments { members: vec![0, 2], ..create() },
        Arguments { members: (1..=CHANGE_MEMBERS_MAX as u64 + 1).collect(), ..create() },
        Arguments { name: &[b'a'; GROUP_NAME_BYTES_MAX + 1], ..create() },
        Arguments { name: &[0xff], ..create() },
        plain(action::ADD),
        Arguments { role: role::ADMIN, ..list(action::ADD) },
        list(action::JOIN),
        Arguments { name: b"x", ..plain(action::LEAVE) },
        list(action::ROLE),
        owner(vec![8, 9]),
        Arguments { role: role::OWNER + 1, ..list(action::ROLE) },
        plain(action::MUTE),
        plain(action::RENAME),
        Arguments { settings: 1, ..plain(action::RENAME) },
        list(action::SETTINGS),
    ];
    for (index, arguments) in bad.iter().enumerate() {
        assert!(!is_valid(arguments), "bad {index}");
    }
}

#[test]
fn nearby_keys_make_groups_far_apart() {
    let mut ids = HashSet::new();
    for uin in 1..20 {
        for device in 1..5 {
            for epoch in 1..10 {
                for counter in 1..20 {
                    let key = SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) };
                    let channel = channel_of(Uin(uin), DeviceId(device), key);
                    assert!(channel.is_group() && channel.is_valid());
                    assert!(ids.insert(channel), "{channel} twice");
                }
            }
        }
    }
}

proptest! {
    /// Any content is read or refused, and what is read is written as it was.
    #[test]
    fn any_content(content in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(view) = ChangeView::parse(&content) {
            let mut buffer = vec![0; content.len()];
            prop_assert_eq!(view.encode(&mut buffer), content.len());
            prop_assert_eq!(&buffer, &content);
            let _ = view.is_valid();
        }
    }
}
