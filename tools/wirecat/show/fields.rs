//! What a frame says, field by field, by the layouts of the registry: a kind that is added there
//! is read here without a change.

use tern_protocol::frames::{Field, Tail, layout};
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::{ChannelId, Code, Header, Kind};
use zerocopy::FromBytes as _;

use super::tails::tail;

/// A value of a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number of at most four bytes.
    Small(u64),
    /// A number of eight bytes.
    Large(u64),
    /// A channel.
    Channel(ChannelId),
    /// A code, or a kind, by its name.
    Name(String),
    /// Text.
    Text(String),
    /// Bytes without further meaning.
    Bytes(Vec<u8>),
    /// A secret, of which only the length is told.
    Secret(usize),
    /// Entries with fields of their own.
    List(Vec<Vec<Named>>),
}

/// A field with its value.
pub type Named = (&'static str, Value);

/// A frame, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// What it is.
    pub kind: Kind,
    /// The flags of its header.
    pub flags: u8,
    /// Its fields; for a list, those of each entry.
    pub entries: Vec<Vec<Named>>,
    /// Whether it is a list.
    pub is_list: bool,
    /// Whether the bytes do not fit the kind; they are then the one entry's one field.
    pub is_malformed: bool,
}

impl Parts {
    /// The entries, each followed by those within it.
    pub fn all(&self) -> Vec<&[Named]> {
        let each = |entry| std::iter::once(entry).chain(within(entry));
        self.entries.iter().map(Vec::as_slice).flat_map(each).collect()
    }
}

/// The entries within an entry.
fn within(entry: &[Named]) -> impl Iterator<Item = &[Named]> {
    let lists = entry.iter().filter_map(|(_, value)| match value {
        Value::List(entries) => Some(entries),
        _ => None,
    });
    lists.flatten().map(Vec::as_slice)
}

/// Takes a frame apart, header included. `secrets` shows the secrets too.
pub fn parts(bytes: &[u8], secrets: bool) -> Parts {
    let header = Header::peek(bytes);
    let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let (kind, flags) = header.map_or((Kind(0), 0), |header| (Kind(header.kind), header.flags));
    let whole = header.is_some_and(|header| header.frame_bytes() == bytes.len());
    let mut parts = Parts { kind, flags, entries: Vec::new(), is_list: false, is_malformed: false };
    match layout(kind).filter(|layout| whole && layout.fits(payload.len())) {
        Some(layout) if layout.tail == Tail::Repeat => {
            parts.is_list = true;
            let entries = payload.chunks_exact(layout.fixed_bytes());
            parts.entries = entries.map(|entry| fixed(layout.fields, entry, secrets)).collect();
        }
        Some(layout) => {
            let (head, rest) = payload.split_at(layout.fixed_bytes());
            let mut entry = fixed(layout.fields, head, secrets);
            if let Tail::Bytes(name) = layout.tail {
                entry.extend(tail(kind, name, &entry, rest));
            }
            parts.entries.push(entry);
        }
        None => {
            parts.is_malformed = layout(kind).is_some() || !whole;
            parts.entries.push(vec![("payload", Value::Bytes(payload.to_vec()))]);
        }
    }
    parts
}

/// The fields of a fixed part.
pub(super) fn fixed(fields: &[Field], bytes: &[u8], secrets: bool) -> Vec<Named> {
    let told = fields.iter().filter(|field| field.name != "reserved");
    told.map(|field| (field.name, value(field, &bytes[field.at..field.at + field.bytes], secrets)))
        .collect()
}

fn value(field: &Field, bytes: &[u8], secrets: bool) -> Value {
    let number = || bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    match (field.name, field.bytes) {
        ("channel", 16) => {
            let id = ChannelId::read_from_bytes(bytes);
            id.map_or_else(|_| Value::Bytes(bytes.to_vec()), Value::Channel)
        }
        ("secret" | "token", _) if !secrets => Value::Secret(bytes.len()),
        ("code", 2) => Value::Name(Code(number() as u16).to_string()), // fits: two bytes
        ("magic", _) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        (_, 8) => Value::Large(number()),
        (_, 1 | 2 | 4) => Value::Small(number()),
        _ => Value::Bytes(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Flags;
    use tern_protocol::frame::encode;
    use tern_protocol::frames::{Close, Login};

    #[test]
    fn every_kind_of_the_registry_is_taken_apart() {
        for row in Kind::ALL {
            let fixed = layout(row.kind).expect("a kind has a layout").fixed_bytes();
            let mut bytes = vec![fixed as u8, 0, row.kind.0, 0];
            bytes.resize(4 + fixed, 1);
            let parts = parts(&bytes, false);
            assert!(!parts.is_malformed && parts.entries.len() == 1, "{parts:?}");
            let cut = super::parts(&bytes[..3 + fixed], false);
            assert!(cut.is_malformed, "{cut:?}");
        }
        let unknown = parts(&[2, 0, 0x77, 0, 5, 6], false);
        assert!(!unknown.is_malformed);
        assert_eq!(unknown.entries[0], [("payload", Value::Bytes(vec![5, 6]))]);
        assert!(parts(&[], false).is_malformed);
    }

    #[test]
    fn secrets_are_kept_and_codes_have_names() {
        let mut buffer = [0; 64];
        let login = Login { uin: 7.into(), device: 1.into(), reserved: 0.into(), secret: [3; 32] };
        let bytes = encode(Kind::Login, Flags::NONE, &login, &[], &mut buffer);
        let hidden = parts(&buffer[..bytes], false);
        assert_eq!(hidden.entries[0].last(), Some(&("secret", Value::Secret(32))));
        let shown = parts(&buffer[..bytes], true);
        assert_eq!(shown.entries[0].last(), Some(&("secret", Value::Bytes(vec![3; 32]))));
        let close =
            Close { code: Code::Fenced.0.into(), slot_tenths: 0.into(), come_back_ms: 0.into() };
        let bytes = encode(Kind::Close, Flags::NONE, &close, b"bye", &mut buffer);
        let parts = parts(&buffer[..bytes], false);
        assert_eq!(parts.entries[0][0], ("code", Value::Name("FENCED".into())));
        assert_eq!(parts.entries[0].last(), Some(&("text", Value::Text("bye".into()))));
    }
}
