//! The store on disk: one redb file beside the profile.
//!
//! Tables: `about` (format, user, device, how far a new device is), `sends` (number → row, see [`Row`]), `cursors`
//! (channel → id, incarnation), `reads` (the same), `rtts` and `intervals` (kind of network → ms),
//! `servers` (rank, the last good one first → address, round trip in ms, kind of network, name). A batch is one transaction, and a
//! transaction is durable when `apply` returns; a crash leaves either all of it or nothing.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tern_protocol::frames::{Network, message_kind};
use tern_protocol::{ChannelId, Code, DeviceId, Incarnation, MessageId, SendKey, Uin};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Store, StoreError, mail};
use crate::history::Newcomer;
use crate::machine::{Change, Position, Saved, SavedSend, SendId};
use crate::mailbox::{KeptMessage, Mail, MailLimits, MailQuery};
use crate::servers::KnownServer;

/// Number of this format; raised when an older client could not read it. Before 2 each send was
/// content, before 3 none referred to another message.
const FORMAT: u64 = 3;

/// The oldest format that is read as this one; the number in the file is raised then.
const FORMAT_OLDEST: u64 = 1;

/// Cache of the database in bytes: an outbox and some thousand cursors fit; redb's default of
/// 1 GiB is for servers.
const CACHE_BYTES: usize = 1024 * 1024;

/// Name of [`Newcomer`] in `about`: 0 for settled, else one more than what is wanted.
const NEWCOMER: &str = "newcomer";

const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
pub(super) const SENDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sends");
pub(super) type Positions = TableDefinition<'static, [u8; 16], (u64, u32)>;
const CURSORS: Positions = TableDefinition::new("cursors");
pub(super) const READS: Positions = TableDefinition::new("reads");
const INTERVALS: TableDefinition<'_, u8, u32> = TableDefinition::new("intervals");
/// Address as text, round trip in ms, kind of network, name.
type ServerRow = (&'static str, u32, u8, &'static str);
const SERVERS: TableDefinition<'_, u32, ServerRow> = TableDefinition::new("servers");
const RTTS: TableDefinition<'_, u8, u32> = TableDefinition::new("rtts");

/// The fixed part of a send's row; the content follows, behind the 8 bytes of the message's id to
/// which it refers if it is a recall or an edit.
///
/// ```text
///   0        8       12       16      18      20               36     38   39   40
///   +--------+--------+--------+-------+-------+----------------+------+----+----+
///   |  tag   | epoch  |counter |refused|  set  |    channel     | type |kind| by |
///   +--------+--------+--------+-------+-------+----------------+------+----+----+
/// ```
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Row {
    tag: U64,
    epoch: U32,
    counter: U32,
    /// The code of the final refusal, if `set` says that there is one.
    refused: U16,
    /// Bit 0: the key is set. Bit 1: it was refused.
    set: U16,
    channel: ChannelId,
    content_type: U16,
    /// The kind of the message; 0, from before there were others, is content.
    kind: u8,
    /// Which user named by a change was the reason of the refusal, from 1.
    by: u8,
}

const _: () = assert!(size_of::<Row>() == 40);

/// Bit of [`Row::set`]: there is a key.
const HAS_KEY: u16 = 1;
/// Bit of [`Row::set`]: there is a final refusal.
const IS_REFUSED: u16 = 2;

/// A device's store in a file.
#[derive(Debug)]
pub struct DiskStore {
    database: Database,
    owner: (Uin, DeviceId),
    /// How much mail it keeps; none, if `None`.
    mail: Option<MailLimits>,
}

/// Any of redb's errors, boxed: which one it is decides nothing here.
pub(super) fn broken(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

impl DiskStore {
    /// Opens the store of a device, and makes it if there is none.
    ///
    /// # Errors
    /// When the file is in use, damaged, of another version or of another device.
    pub fn open(path: &Path, uin: Uin, device: DeviceId) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Self::of(builder.create(path).map_err(broken)?, uin, device)
    }

    /// The store of a device in a database that is open.
    pub(super) fn of(database: Database, uin: Uin, device: DeviceId) -> Result<Self, StoreError> {
        let store = Self { database, owner: (uin, device), mail: None };
        store.check_owner(uin, device)?;
        Ok(store)
    }

    /// The same, and it keeps the device's messages too.
    #[must_use]
    pub fn with_mail(self, limits: MailLimits) -> Self {
        Self { mail: Some(limits), ..self }
    }

    fn check_owner(&self, uin: Uin, device: DeviceId) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(broken)?;
        {
            let mut about = transaction.open_table(ABOUT).map_err(broken)?;
            let mut fixed = |name, value| -> Result<u64, StoreError> {
                let found = about.get(name).map_err(broken)?.map(|found| found.value());
                if found.is_none() {
                    about.insert(name, value).map_err(broken)?;
                }
                Ok(found.unwrap_or(value))
            };
            let format = fixed("format", FORMAT)?;
            if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
                return Err(StoreError::Format(u32::try_from(format).unwrap_or(u32::MAX)));
            }
            let found = (fixed("uin", uin.0)?, fixed("device", u64::from(device.0))?);
            if found != (uin.0, u64::from(device.0)) {
                let found = (found.0, u32::try_from(found.1).unwrap_or(u32::MAX));
                return Err(StoreError::OtherDevice { wanted: (uin.0, device.0), found });
            }
            about.insert("format", FORMAT).map_err(broken)?;
        }
        transaction.commit().map_err(broken)
    }

    fn load_sends(&self) -> Result<Vec<SavedSend>, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let table = match transaction.open_table(SENDS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.map_err(broken)?,
        };
        let rows = table.iter().map_err(broken)?;
        rows.map(|row| {
            let (id, row) = row.map_err(broken)?;
            decode(SendId(id.value()), row.value())
        })
        .collect()
    }

    fn load_positions(&self, table: Positions) -> Result<Vec<Position>, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let table = match transaction.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.map_err(broken)?,
        };
        let rows = table.iter().map_err(broken)?;
        rows.map(|row| {
            let (channel, row) = row.map_err(broken)?;
            let channel = ChannelId::read_from_bytes(&channel.value())
                .expect("a channel is its 16 bytes, whatever they are");
            let (id, incarnation) = row.value();
            Ok(Position { channel, id: MessageId(id), incarnation: Incarnation(incarnation) })
        })
        .collect()
    }

    fn load_newcomer(&self) -> Result<Newcomer, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let about = transaction.open_table(ABOUT).map_err(broken)?;
        let stored = about.get(NEWCOMER).map_err(broken)?.map(|stored| stored.value());
        Ok(match stored {
            None => Newcomer::Unknown,
            Some(0) => Newcomer::Settled,
            Some(wants) => Newcomer::Wants(u32::try_from(wants - 1).unwrap_or(u32::MAX)),
        })
    }

    fn load_intervals(&self) -> Result<Vec<(Network, u32)>, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let table = match transaction.open_table(INTERVALS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.map_err(broken)?,
        };
        let rows = table.iter().map_err(broken)?;
        rows.map(|row| {
            let (network, ms) = row.map_err(broken)?;
            Ok((Network::from_wire(network.value()), ms.value()))
        })
        .collect()
    }
}

impl Store for DiskStore {
    fn load(&mut self) -> Result<Saved, StoreError> {
        let (cursors, reads) = (self.load_positions(CURSORS)?, self.load_positions(READS)?);
        let intervals = self.load_intervals()?;
        let newcomer = self.load_newcomer()?;
        Ok(Saved { sends: self.load_sends()?, cursors, reads, intervals, newcomer })
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.apply_mail(changes, &[])
    }

    fn keeps_mail(&self) -> bool {
        self.mail.is_some()
    }

    fn mail(&mut self, query: &MailQuery) -> Result<Vec<KeptMessage>, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        mail::query(&transaction, (self.owner, query))
    }

    fn apply_mail(&mut self, changes: &[Change], mail: &[Mail]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(broken)?;
        // First: a send that was answered may be forgotten in the same batch.
        if let Some(limits) = self.mail.filter(|_| !mail.is_empty()) {
            mail::apply(&transaction, self.owner, mail, limits)?;
        }
        {
            let mut sends = transaction.open_table(SENDS).map_err(broken)?;
            let mut cursors = transaction.open_table(CURSORS).map_err(broken)?;
            let mut reads = transaction.open_table(READS).map_err(broken)?;
            let mut intervals = transaction.open_table(INTERVALS).map_err(broken)?;
            for change in changes {
                match change {
                    Change::Send(send) => {
                        sends.insert(send.id.0, encode(send).as_slice()).map_err(broken)?;
                    }
                    Change::Forget(send) => {
                        sends.remove(send.0).map_err(broken)?;
                        if self.mail.is_some() {
                            mail::forget(&transaction, *send)?;
                        }
                    }
                    Change::Cursor(at) => {
                        let channel: [u8; 16] = zerocopy::transmute!(at.channel);
                        cursors.insert(channel, (at.id.0, at.incarnation.0)).map_err(broken)?;
                    }
                    Change::Read(at) => {
                        let channel: [u8; 16] = zerocopy::transmute!(at.channel);
                        reads.insert(channel, (at.id.0, at.incarnation.0)).map_err(broken)?;
                    }
                    Change::Newcomer(newcomer) => {
                        let stored = match newcomer {
                            Newcomer::Unknown => continue,
                            Newcomer::Settled => 0,
                            Newcomer::Wants(newest) => u64::from(*newest) + 1,
                        };
                        let mut about = transaction.open_table(ABOUT).map_err(broken)?;
                        about.insert(NEWCOMER, stored).map_err(broken)?;
                    }
                    Change::Interval { network, ms } => {
                        intervals.insert(network.to_wire(), *ms).map_err(broken)?;
                    }
                }
            }
        }
        transaction.commit().map_err(broken)
    }

    fn rtt_ms(&mut self, network: Network) -> Result<Option<u32>, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        match transaction.open_table(RTTS) {
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            table => {
                let rtts = table.map_err(broken)?;
                let rtt = rtts.get(network.to_wire()).map_err(broken)?;
                Ok(rtt.map(|rtt| rtt.value()))
            }
        }
    }

    fn set_rtt_ms(&mut self, network: Network, rtt_ms: u32) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write().map_err(broken)?;
        transaction.set_durability(Durability::None).map_err(broken)?;
        transaction
            .open_table(RTTS)
            .map_err(broken)?
            .insert(network.to_wire(), rtt_ms)
            .map_err(broken)?;
        transaction.commit().map_err(broken)
    }

    fn servers(&mut self) -> Result<Vec<KnownServer>, StoreError> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let table = match transaction.open_table(SERVERS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.map_err(broken)?,
        };
        let rows = table.iter().map_err(broken)?;
        rows.map(|row| {
            let (rank, row) = row.map_err(broken)?;
            let (address, rtt_ms, network, name) = row.value();
            let damaged = |_| StoreError::Damaged(format!("server {}", rank.value()));
            let (address, network) =
                (address.parse().map_err(damaged)?, Network::from_wire(network));
            Ok(KnownServer { name: name.to_owned(), address, network, rtt_ms })
        })
        .collect()
    }

    fn set_servers(&mut self, known: &[KnownServer]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(broken)?;
        {
            let mut table = transaction.open_table(SERVERS).map_err(broken)?;
            table.retain(|_, _| false).map_err(broken)?;
            for (rank, known) in (0..).zip(known) {
                let address = known.address.to_string();
                let row = (&*address, known.rtt_ms, known.network.to_wire(), &*known.name);
                table.insert(rank, row).map_err(broken)?;
            }
        }
        transaction.commit().map_err(broken)
    }
}

fn encode(send: &SavedSend) -> Vec<u8> {
    let key = send.key.unwrap_or_default();
    let has_key = if send.key.is_some() { HAS_KEY } else { 0 };
    let is_refused = if send.refused.is_some() { IS_REFUSED } else { 0 };
    let row = Row {
        tag: send.tag.into(),
        epoch: key.epoch.into(),
        counter: key.counter.into(),
        refused: send.refused.map_or(0, |code| code.0).into(),
        set: (has_key | is_refused).into(),
        channel: send.channel,
        content_type: send.content_type.into(),
        kind: send.kind,
        by: send.refused_member,
    };
    let refers_to = U64::from(send.refers_to);
    let refers_to = if refers(send.kind) { refers_to.as_bytes() } else { &[] };
    [row.as_bytes(), refers_to, &send.content].concat()
}

/// Whether a message of this kind refers to another.
fn refers(kind: u8) -> bool {
    matches!(kind, message_kind::RECALL | message_kind::EDIT)
}

pub(super) fn decode(id: SendId, bytes: &[u8]) -> Result<SavedSend, StoreError> {
    let damaged = || StoreError::Damaged(format!("send {}", id.0));
    let (row, rest) = Row::ref_from_prefix(bytes).map_err(|_| damaged())?;
    let (refers_to, content) = match refers(row.kind) {
        true => U64::read_from_prefix(rest).map_err(|_| damaged())?,
        false => (U64::ZERO, rest),
    };
    let set = row.set.get();
    let key = SendKey { epoch: row.epoch.into(), counter: row.counter.into() };
    Ok(SavedSend {
        id,
        tag: row.tag.get(),
        key: (set & HAS_KEY != 0).then_some(key),
        refused: (set & IS_REFUSED != 0).then_some(Code(row.refused.get())),
        refused_member: row.by,
        kind: if row.kind == 0 { message_kind::CONTENT } else { row.kind },
        channel: row.channel,
        content_type: row.content_type.get(),
        refers_to: refers_to.into(),
        content: Bytes::copy_from_slice(content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::{Epoch, SendCounter};

    fn send(id: u64, content: &'static str) -> SavedSend {
        SavedSend {
            id: SendId(id),
            tag: id + 100,
            key: None,
            refused: None,
            refused_member: 0,
            kind: message_kind::CONTENT,
            channel: ChannelId::direct(Uin(1), Uin(2)),
            content_type: 1,
            refers_to: MessageId(0),
            content: Bytes::from_static(content.as_bytes()),
        }
    }

    fn cursor(peer: u64, id: u64) -> Position {
        Position {
            channel: ChannelId::direct(Uin(1), Uin(peer)),
            id: MessageId(id),
            incarnation: Incarnation(3),
        }
    }

    fn open(folder: &tempfile::TempDir) -> DiskStore {
        DiskStore::open(&folder.path().join("d.redb"), Uin(1), DeviceId(1)).unwrap()
    }

    #[test]
    fn servers_are_remembered_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let server = |port: u16| KnownServer {
            name: format!("chat.example:{port}"),
            address: ([0, 0, 0, 0, 0, 0, 0, 1], port).into(),
            network: Network::Wifi,
            rtt_ms: 7,
        };
        open(&folder).set_servers(&[server(3), server(1), server(2)]).unwrap();
        open(&folder).set_servers(&[server(2), server(1)]).unwrap();
        assert_eq!(open(&folder).servers().unwrap(), [server(2), server(1)]);
    }

    #[test]
    fn what_was_applied_is_there_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let key = SendKey { epoch: Epoch(2), counter: SendCounter(7) };
        let keyed = SavedSend { key: Some(key), ..send(1, "one") };
        let refused = SavedSend { refused: Some(Code::NotAMember), ..keyed.clone() };
        let mut store = open(&folder);
        assert_eq!(store.load().unwrap(), Saved::default());
        store
            .apply(&[
                Change::Send(send(300, "")),
                Change::Send(send(1, "one")),
                Change::Send(send(2, "two")),
                Change::Cursor(cursor(2, 5)),
                Change::Read(cursor(2, 4)),
            ])
            .unwrap();
        store.apply(&[Change::Send(keyed), Change::Forget(SendId(2))]).unwrap();
        store.apply(&[Change::Cursor(cursor(2, 6)), Change::Cursor(cursor(3, 1))]).unwrap();
        store.apply(&[Change::Send(refused.clone())]).unwrap();
        let learned = Change::Interval { network: Network::Wifi, ms: 28_000 };
        store.apply(&[learned]).unwrap();
        // The file as a crash leaves it: copied while the database is open, closed by nobody.
        let crashed = folder.path().join("crashed.redb");
        std::fs::copy(folder.path().join("d.redb"), &crashed).unwrap();
        let mut store = DiskStore::open(&crashed, Uin(1), DeviceId(1)).unwrap();
        let saved = store.load().unwrap();
        assert_eq!(saved.sends, [refused, send(300, "")]);
        assert_eq!(saved.cursors, [cursor(2, 6), cursor(3, 1)]);
        assert_eq!(saved.reads, [cursor(2, 4)]);
        assert_eq!(saved.intervals, [(Network::Wifi, 28_000)]);
    }

    #[test]
    fn a_recall_and_an_edit_keep_what_they_refer_to() {
        let folder = tempfile::tempdir().unwrap();
        let refers_to = MessageId(1 << 40);
        let recall = SavedSend { kind: message_kind::RECALL, refers_to, ..send(1, "") };
        let edit = SavedSend { kind: message_kind::EDIT, refers_to, ..send(2, "other words") };
        let mut store = open(&folder);
        store.apply(&[Change::Send(recall.clone()), Change::Send(edit.clone())]).unwrap();
        drop(store);
        assert_eq!(open(&folder).load().unwrap().sends, [recall, edit]);
    }

    #[test]
    fn a_store_of_another_device_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(&folder));
        let path = folder.path().join("d.redb");
        let error = DiskStore::open(&path, Uin(1), DeviceId(2)).unwrap_err();
        assert!(matches!(error, StoreError::OtherDevice { wanted: (1, 2), found: (1, 1) }));
    }

    #[test]
    fn the_round_trip_time_of_each_network() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder);
        assert_eq!(store.rtt_ms(Network::Wifi).unwrap(), None);
        store.set_rtt_ms(Network::Wifi, 31).unwrap();
        store.set_rtt_ms(Network::Cellular, 90).unwrap();
        assert_eq!(store.rtt_ms(Network::Wifi).unwrap(), Some(31));
        drop(store);
        assert_eq!(open(&folder).rtt_ms(Network::Cellular).unwrap(), Some(90));
    }
}
