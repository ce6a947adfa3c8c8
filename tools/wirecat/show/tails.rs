//! What stands behind the fixed part of a frame, taken apart where it has a form of its own: marks,
//! pages of groups, of blocks and of history, changes of groups, text. What does not fit its form
//! stays bytes.

use tern_protocol::Kind;
use tern_protocol::frames::{
    Change, Field, GroupMember, Mark, PushBody, content_type, message_kind,
};
use tern_protocol::group::ChangeView;
use tern_protocol::history::{Entry, split_entry};
use zerocopy::IntoBytes as _;

use super::fields::{Named, Value, fixed};

/// The tail of this name of a frame whose fixed part is `head`.
pub fn tail(kind: Kind, name: &'static str, head: &[Named], bytes: &[u8]) -> Vec<Named> {
    let value = match kind {
        Kind::Marks => table(Mark::FIELDS, size_of::<Mark>(), bytes).map(Value::List),
        Kind::BlockPage => uins(bytes).map(Value::List),
        Kind::History => history(bytes).map(Value::List),
        Kind::GroupPage => return group_page(name, head, bytes),
        Kind::Send | Kind::Push if says(head, "kind", message_kind::CHANGE.into()) => change(bytes),
        _ => None,
    };
    vec![(name, value.unwrap_or_else(|| text(name, head, bytes)))]
}

/// Text where it is said to be, else bytes.
fn text(name: &str, head: &[Named], bytes: &[u8]) -> Value {
    let says_text = says(head, "content_type", content_type::TEXT.into());
    match std::str::from_utf8(bytes) {
        Ok(text) if says_text || name == "text" => Value::Text(text.to_owned()),
        _ => Value::Bytes(bytes.to_vec()),
    }
}

/// Whether a field has this value.
fn says(head: &[Named], name: &str, wanted: u64) -> bool {
    head.iter().any(|(field, value)| *field == name && *value == Value::Small(wanted))
}

/// Entries of one length; `None` if the bytes are something else.
fn table(fields: &[Field], length: usize, bytes: &[u8]) -> Option<Vec<Vec<Named>>> {
    let is_whole = bytes.len().is_multiple_of(length);
    is_whole.then(|| bytes.chunks_exact(length).map(|one| fixed(fields, one, false)).collect())
}

fn uins(bytes: &[u8]) -> Option<Vec<Vec<Named>>> {
    let (all, rest) = bytes.as_chunks::<{ size_of::<u64>() }>();
    let one = |bytes: &[u8; 8]| vec![("uin", Value::Large(u64::from_le_bytes(*bytes)))];
    rest.is_empty().then(|| all.iter().map(one).collect())
}

fn history(bytes: &[u8]) -> Option<Vec<Vec<Named>>> {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (entry, behind) = split_entry(rest)?;
        entries.push(match entry {
            Entry::Message(body, content) => {
                let mut named = fixed(PushBody::FIELDS, body.as_bytes(), false);
                named.extend(tail(Kind::Push, "content", &named, content));
                named
            }
            Entry::Gap { ids, code } => {
                vec![("ids", Value::Small(ids.into())), ("code", Value::Name(code.to_string()))]
            }
        });
        rest = behind;
    }
    Some(entries)
}

fn group_page(name: &'static str, head: &[Named], bytes: &[u8]) -> Vec<Named> {
    let name_bytes = head.iter().find_map(|(field, value)| match value {
        Value::Small(bytes) if *field == "name_bytes" => usize::try_from(*bytes).ok(),
        _ => None,
    });
    let parts = name_bytes.and_then(|length| {
        let (called, members) = bytes.split_at_checked(length)?;
        let called = std::str::from_utf8(called).ok()?;
        Some((called, table(GroupMember::FIELDS, size_of::<GroupMember>(), members)?))
    });
    match parts {
        Some((called, members)) => {
            vec![("name", Value::Text(called.to_owned())), ("of them", Value::List(members))]
        }
        None => vec![(name, Value::Bytes(bytes.to_vec()))],
    }
}

/// A change of a group: its arguments, then each user that it names.
fn change(bytes: &[u8]) -> Option<Value> {
    let view = ChangeView::parse(bytes)?;
    let mut head = fixed(Change::FIELDS, view.head.as_bytes(), false);
    if let Ok(name) = std::str::from_utf8(view.name)
        && !name.is_empty()
    {
        head.push(("name", Value::Text(name.to_owned())));
    }
    let users = view.uins().map(|uin| vec![("uin", Value::Large(uin.0))]);
    Some(Value::List(std::iter::once(head).chain(users).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::fields::parts;
    use crate::show::text;
    use tern_protocol::frame::encode;
    use tern_protocol::frames::{
        BlockPage, GroupPage, HistoryEntry, HistoryPage, Marks, Send, action,
    };
    use tern_protocol::{ChannelId, Code, Flags, Uin};
    use zerocopy::Immutable;
    use zerocopy::IntoBytes;

    fn told<T: IntoBytes + Immutable>(kind: Kind, head: &T, tail: &[u8]) -> String {
        let mut bytes = vec![0; 512];
        let length = encode(kind, Flags::NONE, head, tail, &mut bytes);
        assert!(!parts(&bytes[..length], false).is_malformed);
        text::frame(&bytes[..length], false)
    }

    fn mark() -> Mark {
        Mark {
            channel: ChannelId::direct(Uin(1), Uin(2)),
            uin: 2.into(),
            delivered: 9.into(),
            read: 8.into(),
            incarnation: 1.into(),
            reserved: 0.into(),
        }
    }

    fn body() -> PushBody {
        PushBody {
            channel: ChannelId::direct(Uin(1), Uin(2)),
            id: 3.into(),
            sender: 1.into(),
            device: 1.into(),
            epoch: 1.into(),
            counter: 1.into(),
            content_type: content_type::TEXT.into(),
            kind: message_kind::CONTENT,
            version: 1,
            server_time: 0.into(),
            refers_to: 0.into(),
        }
    }

    #[test]
    fn lists_behind_a_fixed_part_are_read() {
        let marks = Marks { life: 0.into(), as_of: 0.into() };
        let text = told(Kind::Marks, &marks, [mark(), mark()].as_bytes());
        let one = "[channel=1-2 uin=2 delivered=9 read=8 incarnation=1]";
        assert!(text.ends_with(&format!("marks=2 entries {one} {one}")), "{text}");
        let cut = told(Kind::Marks, &marks, &mark().as_bytes()[1..]);
        assert!(cut.contains("marks=<47 bytes>"), "{cut}");
        let page = BlockPage { after: 5.into() };
        let text = told(Kind::BlockPage, &page, [6_u64, 7].map(u64::to_le_bytes).as_flattened());
        assert!(text.ends_with("uins=2 entries [uin=6] [uin=7]"), "{text}");
    }

    #[test]
    fn pages_of_groups_and_their_changes_are_read() {
        let channel = ChannelId::group(4);
        let head = GroupPage {
            channel,
            after: 0.into(),
            version: 1.into(),
            members: 1.into(),
            settings: 0,
            reserved: 0,
            name_bytes: 4.into(),
        };
        let member =
            GroupMember { uin: 7.into(), muted_until: 0.into(), role: 3, reserved: [0; 7] };
        let text = told(Kind::GroupPage, &head, &[b"crew", member.as_bytes()].concat());
        assert!(text.contains("name=\"crew\"") && text.contains("[uin=7 "), "{text}");
        let change = Change {
            action: action::ADD,
            role: 0,
            settings: 0,
            reserved: 0,
            members: 1.into(),
            name_bytes: 0.into(),
            until: 0.into(),
        };
        let send = Send {
            channel,
            epoch: 1.into(),
            counter: 1.into(),
            predecessor: 0.into(),
            content_type: 0.into(),
            kind: message_kind::CHANGE,
            version: 1,
            refers_to: 0.into(),
        };
        let text = told(Kind::Send, &send, &[change.as_bytes(), &8_u64.to_le_bytes()].concat());
        assert!(
            text.contains("content=2 entries [action=2 ") && text.ends_with("[uin=8]"),
            "{text}"
        );
    }

    #[test]
    fn history_is_read_message_by_message() {
        let head = HistoryPage {
            channel: ChannelId::direct(Uin(1), Uin(2)),
            before: 0.into(),
            from: 1.into(),
            to: 3.into(),
            oldest: 1.into(),
            newest: 3.into(),
            incarnation: 1.into(),
            code: 0.into(),
            reserved: 0.into(),
        };
        let length = u16::try_from(size_of::<PushBody>() + 2).expect("it is short");
        let lost = HistoryEntry { ids: 2.into(), bytes: 0.into(), code: Code::Lost.0.into() };
        let one = HistoryEntry { ids: 1.into(), bytes: length.into(), code: 0.into() };
        let entries = [lost.as_bytes(), one.as_bytes(), body().as_bytes(), b"hi"].concat();
        let text = told(Kind::History, &head, &entries);
        assert!(text.contains("[ids=2 code=LOST] [channel=1-2 id=3 "), "{text}");
        assert!(text.ends_with("content=\"hi\"]"), "{text}");
    }
}
