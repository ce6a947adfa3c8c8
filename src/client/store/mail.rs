//! The mailbox in the device's store.
//!
//! Tables: `mail` (channel and id, so that a channel's rows sort by their ids → [`Row`] and
//! content), `mail_order` (number of arrival → the key of its row), `mail_placed` (sends that are
//! answered and stand in `mail`), `mail_sums` (`count`, `bytes`, `arrivals`). All of it changes in the transaction of the changes that come with it.

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, DeviceId, MessageId, Uin, UnixMillis};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::StoreError;
use super::disk::{READS, SENDS, broken, decode};
use crate::machine::{Message, SavedSend, SendId};
use crate::mailbox::{KeptMessage, Mail, MailLimits, MailQuery, MailState};

/// Length of a key: a channel and an id.
const KEY_BYTES: usize = 24;

type Key = [u8; KEY_BYTES];

/// Whose store it is.
pub(super) type Owner = (Uin, DeviceId);

const MAIL: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("mail");
const ORDER: TableDefinition<'_, u64, Key> = TableDefinition::new("mail_order");
const PLACED: TableDefinition<'_, u64, ()> = TableDefinition::new("mail_placed");
const SUMS: TableDefinition<'_, &str, u64> = TableDefinition::new("mail_sums");

/// The fixed part of a row; the content follows.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Row {
    /// When it came, among all of this store.
    arrival: U64,
    /// 1 if it was taken back.
    recalled: u8,
    reserved: [u8; 7],
    body: PushBody,
}

/// How many there are.
struct Sums {
    count: u64,
    bytes: u64,
    arrivals: u64,
}

fn key(channel: ChannelId, id: MessageId) -> Key {
    let mut key = [0; KEY_BYTES];
    let channel: [u8; 16] = zerocopy::transmute!(channel);
    key[..16].copy_from_slice(&channel);
    key[16..].copy_from_slice(&id.0.to_be_bytes());
    key
}

/// Makes these changes, and lets the oldest arrivals go while there are too many.
pub(super) fn apply(
    transaction: &WriteTransaction,
    owner: Owner,
    mail: &[Mail],
    limits: MailLimits,
) -> Result<(), StoreError> {
    let mut sums = load_sums(transaction)?;
    for change in mail {
        match change {
            Mail::Received(message) => receive(transaction, &mut sums, message)?,
            Mail::Acked { send, id, server_time } => {
                place(transaction, &mut sums, owner, *send, (*id, *server_time))?;
            }
            Mail::Void { channel, at } => {
                let range = key(*channel, *at)..=key(*channel, MessageId(u64::MAX));
                remove(transaction, &mut sums, range)?;
            }
        }
    }
    evict(transaction, &mut sums, limits)?;
    let mut table = transaction.open_table(SUMS).map_err(broken)?;
    for (name, sum) in [("count", sums.count), ("bytes", sums.bytes), ("arrivals", sums.arrivals)] {
        table.insert(name, sum).map_err(broken)?;
    }
    Ok(())
}

/// A send of this device stands in its channel.
fn place(
    transaction: &WriteTransaction,
    sums: &mut Sums,
    (uin, device): Owner,
    id: SendId,
    (place, server_time): (MessageId, UnixMillis),
) -> Result<(), StoreError> {
    let sends = transaction.open_table(SENDS).map_err(broken)?;
    let row = sends.get(id.0).map_err(broken)?;
    let send = row.map(|row| decode(id, row.value())).transpose()?;
    let Some(SavedSend { key: Some(key), channel, content_type, kind, refers_to, content, .. }) =
        send
    else {
        return Ok(()); // it was forgotten before: then it comes as others' messages do
    };
    let body = PushBody {
        channel,
        id: place.into(),
        sender: uin.into(),
        device: device.into(),
        epoch: key.epoch.into(),
        counter: key.counter.into(),
        content_type: content_type.into(),
        kind,
        version: 1,
        server_time: server_time.into(),
        refers_to: refers_to.into(),
    };
    insert(transaction, sums, &body, &content)?;
    transaction.open_table(PLACED).map_err(broken)?.insert(id.0, ()).map_err(broken)?;
    Ok(())
}

/// The application knows what became of a send.
pub(super) fn forget(transaction: &WriteTransaction, send: SendId) -> Result<(), StoreError> {
    transaction.open_table(PLACED).map_err(broken)?.remove(send.0).map_err(broken)?;
    Ok(())
}

fn load_sums(transaction: &WriteTransaction) -> Result<Sums, StoreError> {
    let table = transaction.open_table(SUMS).map_err(broken)?;
    let sum = |name| Ok(table.get(name).map_err(broken)?.map_or(0, |sum| sum.value()));
    Ok(Sums { count: sum("count")?, bytes: sum("bytes")?, arrivals: sum("arrivals")? })
}

fn receive(
    transaction: &WriteTransaction,
    sums: &mut Sums,
    message: &Message,
) -> Result<(), StoreError> {
    let body = PushBody {
        channel: message.position.channel,
        id: message.position.id.into(),
        sender: message.sender.into(),
        device: message.device.into(),
        epoch: message.key.epoch.into(),
        counter: message.key.counter.into(),
        content_type: message.content_type.into(),
        kind: message.kind,
        version: 1,
        server_time: message.server_time.into(),
        refers_to: message.refers_to.into(),
    };
    insert(transaction, sums, &body, &message.content)?;
    match message.recalls() {
        Some(original) => empty(transaction, sums, key(message.position.channel, original)),
        None => Ok(()),
    }
}

/// A message that is there already stays as it is: it came by its ack before it came back, or
/// once more after a crash.
fn insert(
    transaction: &WriteTransaction,
    sums: &mut Sums,
    body: &PushBody,
    content: &[u8],
) -> Result<(), StoreError> {
    let key = key(body.channel, body.id.into());
    let mut table = transaction.open_table(MAIL).map_err(broken)?;
    if table.get(key).map_err(broken)?.is_some() {
        return Ok(());
    }
    sums.arrivals += 1;
    let arrival = sums.arrivals.into();
    let row = Row { arrival, recalled: 0, reserved: [0; 7], body: *body };
    let bytes = [row.as_bytes(), content].concat();
    table.insert(key, &*bytes).map_err(broken)?;
    transaction.open_table(ORDER).map_err(broken)?.insert(sums.arrivals, key).map_err(broken)?;
    sums.count += 1;
    sums.bytes += bytes.len() as u64;
    Ok(())
}

/// Takes the content out of a message that was taken back.
fn empty(transaction: &WriteTransaction, sums: &mut Sums, key: Key) -> Result<(), StoreError> {
    let mut table = transaction.open_table(MAIL).map_err(broken)?;
    let Some(old) = table.get(key).map_err(broken)?.map(|row| row.value().to_vec()) else {
        return Ok(());
    };
    let (row, content) = Row::read_from_prefix(&old).map_err(|_| damaged(&key))?;
    table.insert(key, Row { recalled: 1, ..row }.as_bytes()).map_err(broken)?;
    sums.bytes -= content.len() as u64;
    Ok(())
}

fn remove(
    transaction: &WriteTransaction,
    sums: &mut Sums,
    range: std::ops::RangeInclusive<Key>,
) -> Result<(), StoreError> {
    let mut order = transaction.open_table(ORDER).map_err(broken)?;
    let mut table = transaction.open_table(MAIL).map_err(broken)?;
    for row in table.extract_from_if(range, |_, _| true).map_err(broken)? {
        let (key, row) = row.map_err(broken)?;
        let (head, _) = Row::read_from_prefix(row.value()).map_err(|_| damaged(&key.value()))?;
        order.remove(head.arrival.get()).map_err(broken)?;
        sums.count -= 1;
        sums.bytes -= row.value().len() as u64;
    }
    Ok(())
}

fn evict(
    transaction: &WriteTransaction,
    sums: &mut Sums,
    limits: MailLimits,
) -> Result<(), StoreError> {
    let mut order = transaction.open_table(ORDER).map_err(broken)?;
    let mut table = transaction.open_table(MAIL).map_err(broken)?;
    while sums.count > limits.messages_max || sums.bytes > limits.bytes_max {
        let Some((_, oldest)) = order.pop_first().map_err(broken)? else { return Ok(()) };
        if let Some(row) = table.remove(oldest.value()).map_err(broken)? {
            sums.count -= 1;
            sums.bytes -= row.value().len() as u64;
        }
    }
    Ok(())
}

fn damaged(key: &Key) -> StoreError {
    let (channel, id) = key.split_at(KEY_BYTES - size_of::<u64>());
    let channel = ChannelId::read_from_bytes(channel).expect("a channel is its 16 bytes");
    let id = u64::from_be_bytes(id.try_into().expect("the rest has the length of an id"));
    StoreError::Damaged(format!("message {id} of {channel}"))
}

/// A page of a channel, the newest first: what has no place yet, then what has one.
pub(super) fn query(
    transaction: &ReadTransaction,
    (owner, query): (Owner, &MailQuery),
) -> Result<Vec<KeptMessage>, StoreError> {
    let mut page = match query.before {
        None => unsettled(transaction, (owner, query))?,
        Some(_) => Vec::new(),
    };
    let table = match transaction.open_table(MAIL) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(page),
        table => table.map_err(broken)?,
    };
    let end = query.before.unwrap_or(MessageId(u64::MAX));
    let range = key(query.channel, MessageId(0))..key(query.channel, end);
    let read_to = read_to(transaction, query.channel)?;
    for row in table.range(range).map_err(broken)?.rev() {
        if page.len() >= query.limit {
            break;
        }
        let (key, row) = row.map_err(broken)?;
        let (head, content) =
            Row::read_from_prefix(row.value()).map_err(|_| damaged(&key.value()))?;
        page.push(kept(&head, content, owner.0, read_to));
    }
    Ok(page)
}

fn kept(row: &Row, content: &[u8], owner: Uin, read_to: MessageId) -> KeptMessage {
    let body = &row.body;
    let id = MessageId::from(body.id);
    let state = match (row.recalled, Uin::from(body.sender) == owner) {
        (0, true) => MailState::Acked,
        (0, false) if id <= read_to => MailState::Read,
        (0, false) => MailState::Received,
        _ => MailState::Recalled,
    };
    KeptMessage {
        state,
        id,
        sender: body.sender.into(),
        device: body.device.into(),
        key: Some(body.key()),
        server_time: body.server_time.into(),
        kind: body.kind,
        content_type: body.content_type.get(),
        refers_to: body.refers_to.into(),
        content: Bytes::copy_from_slice(content),
    }
}

fn read_to(transaction: &ReadTransaction, channel: ChannelId) -> Result<MessageId, StoreError> {
    let table = match transaction.open_table(READS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(MessageId(0)),
        table => table.map_err(broken)?,
    };
    let channel: [u8; 16] = zerocopy::transmute!(channel);
    let read = table.get(channel).map_err(broken)?;
    Ok(MessageId(read.map_or(0, |read| read.value().0)))
}

/// Sends of the channel without a place, the newest first.
fn unsettled(
    transaction: &ReadTransaction,
    (owner, query): (Owner, &MailQuery),
) -> Result<Vec<KeptMessage>, StoreError> {
    let table = match transaction.open_table(SENDS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table.map_err(broken)?,
    };
    let mut page = Vec::new();
    let placed = match transaction.open_table(PLACED) {
        Err(TableError::TableDoesNotExist(_)) => None,
        table => Some(table.map_err(broken)?),
    };
    for row in table.iter().map_err(broken)?.rev() {
        let (id, row) = row.map_err(broken)?;
        let send = decode(SendId(id.value()), row.value())?;
        let is_placed = match &placed {
            Some(placed) => placed.get(send.id.0).map_err(broken)?.is_some(),
            None => false,
        };
        if send.channel == query.channel && !is_placed && page.len() < query.limit {
            page.push(waiting(owner, send));
        }
    }
    Ok(page)
}

/// A send as it waits.
fn waiting((uin, device): (Uin, DeviceId), send: SavedSend) -> KeptMessage {
    let state = match (send.refused, send.key) {
        (Some(code), _) => MailState::Refused(code),
        (None, Some(_)) => MailState::Sending,
        (None, None) => MailState::Unsent,
    };
    KeptMessage {
        state,
        id: MessageId(0),
        sender: uin,
        device,
        key: send.key,
        server_time: UnixMillis(0),
        kind: send.kind,
        content_type: send.content_type,
        refers_to: send.refers_to,
        content: send.content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Change, Position, SavedSend};
    use crate::store::{DiskStore, Store};
    use tern_protocol::frames::message_kind;
    use tern_protocol::{Code, Epoch, Incarnation, SendCounter, SendKey};

    const ME: Uin = Uin(1);

    fn channel(peer: u64) -> ChannelId {
        ChannelId::direct(ME, Uin(peer))
    }

    fn open(folder: &tempfile::TempDir, limits: MailLimits) -> DiskStore {
        let path = folder.path().join("d.redb");
        DiskStore::open(&path, ME, DeviceId(1)).unwrap().with_mail(limits)
    }

    fn at(peer: u64, id: u64) -> Position {
        Position { channel: channel(peer), id: MessageId(id), incarnation: Incarnation(1) }
    }

    fn message(peer: u64, id: u64) -> Message {
        Message {
            position: at(peer, id),
            sender: Uin(peer),
            device: DeviceId(1),
            key: SendKey { epoch: Epoch(1), counter: SendCounter(id as u32) },
            server_time: UnixMillis(id),
            kind: message_kind::CONTENT,
            content_type: 1,
            refers_to: MessageId(0),
            content: Bytes::from(format!("{id} of {peer}")),
        }
    }

    fn send(id: u64, counter: Option<u32>) -> SavedSend {
        let key = |counter| SendKey { epoch: Epoch(1), counter: SendCounter(counter) };
        SavedSend {
            id: SendId(id),
            tag: 0,
            key: counter.map(key),
            refused: None,
            refused_member: 0,
            kind: message_kind::CONTENT,
            channel: channel(2),
            content_type: 1,
            refers_to: MessageId(0),
            content: Bytes::from_static(b"mine"),
        }
    }

    fn receive(store: &mut DiskStore, messages: &[Message]) {
        let cursors: Vec<Change> =
            messages.iter().map(|message| Change::Cursor(message.position)).collect();
        let mail: Vec<Mail> = messages.iter().cloned().map(Mail::Received).collect();
        store.apply_mail(&cursors, &mail).unwrap();
    }

    fn page(store: &mut DiskStore, peer: u64, before: Option<u64>) -> Vec<(u64, MailState)> {
        let before = before.map(MessageId);
        let query = MailQuery { channel: channel(peer), before, limit: 4 };
        store.mail(&query).unwrap().iter().map(|kept| (kept.id.0, kept.state)).collect()
    }

    #[test]
    fn pages_go_back_from_the_newest_and_channels_stay_apart() {
        use MailState::{Read, Received};
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder, MailLimits::default());
        for id in 1..=300 {
            receive(&mut store, &[message(2, id), message(3, id)]);
        }
        receive(&mut store, &[message(2, 300)]);
        store.apply(&[Change::Read(at(2, 298))]).unwrap();
        drop(store);
        let mut store = open(&folder, MailLimits::default());
        let newest = [(300, Received), (299, Received), (298, Read), (297, Read)];
        assert_eq!(page(&mut store, 2, None), newest);
        let older = [(256, Read), (255, Read), (254, Read), (253, Read)];
        assert_eq!(page(&mut store, 2, Some(257)), older);
        assert_eq!(page(&mut store, 3, Some(3)), [(2, Received), (1, Received)]);
        assert_eq!(page(&mut store, 4, None), []);
        assert_eq!(store.load().unwrap().cursors.len(), 2);
    }

    #[test]
    fn own_messages_stand_in_it_from_the_call_on_and_once() {
        use MailState::{Acked, Refused, Sending, Unsent};
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder, MailLimits::default());
        let refused = SavedSend { refused: Some(Code::TooLate), ..send(2, Some(2)) };
        let sends = [send(1, Some(1)), refused, send(3, None)].map(Change::Send);
        store.apply(&sends).unwrap();
        let waiting = [(0, Unsent), (0, Refused(Code::TooLate)), (0, Sending)];
        assert_eq!(page(&mut store, 2, None), waiting);
        let acked = Mail::Acked { send: SendId(1), id: MessageId(7), server_time: UnixMillis(9) };
        store.apply_mail(&[], std::slice::from_ref(&acked)).unwrap();
        let placed = [(0, Unsent), (0, Refused(Code::TooLate)), (7, Acked)];
        assert_eq!(page(&mut store, 2, None), placed);
        // Forgotten, with the answer said once more; and then it comes back as a message.
        store.apply_mail(&[Change::Forget(SendId(1))], &[acked]).unwrap();
        let echo = Message { sender: ME, ..message(2, 7) };
        receive(&mut store, &[echo]);
        assert_eq!(page(&mut store, 2, None), placed);
        let query = MailQuery { channel: channel(2), before: None, limit: 9 };
        assert_eq!(store.mail(&query).unwrap()[2].content, "mine");
    }

    #[test]
    fn what_is_taken_back_or_void_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder, MailLimits::default());
        (1..=3).for_each(|id| receive(&mut store, &[message(2, id)]));
        let recall = Message {
            kind: message_kind::RECALL,
            refers_to: MessageId(2),
            content: Bytes::new(),
            ..message(2, 4)
        };
        receive(&mut store, &[recall]);
        let states = page(&mut store, 2, None);
        assert_eq!(states[2], (2, MailState::Recalled));
        let query = MailQuery { channel: channel(2), before: Some(MessageId(3)), limit: 1 };
        assert_eq!(store.mail(&query).unwrap()[0].content, "");
        let void = Mail::Void { channel: channel(2), at: MessageId(3) };
        store.apply_mail(&[Change::Cursor(at(2, 2))], &[void]).unwrap();
        let ids: Vec<u64> = page(&mut store, 2, None).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [2, 1]);
    }

    #[test]
    fn the_oldest_arrivals_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let limits = MailLimits { messages_max: 5, ..MailLimits::default() };
        let mut store = open(&folder, limits);
        for id in 1..=4 {
            receive(&mut store, &[message(2, id), message(3, id)]);
        }
        let ids = |store: &mut DiskStore, peer| -> Vec<u64> {
            page(store, peer, None).into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!((ids(&mut store, 2), ids(&mut store, 3)), (vec![4, 3], vec![4, 3, 2]));
        drop(store);
        // Less room in bytes: each row here has some 90.
        let mut store = open(&folder, MailLimits { bytes_max: 300, ..limits });
        receive(&mut store, &[message(2, 5)]);
        assert_eq!((ids(&mut store, 2), ids(&mut store, 3)), (vec![5, 4], vec![4]));
    }
}
