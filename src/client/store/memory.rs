//! A store that forgets with its process: for tests, simulation and programs that only listen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_protocol::frames::Network;
use tern_protocol::{ChannelId, Incarnation, MessageId};

use crate::servers::KnownServer;

use super::{Store, StoreError};
use crate::history::Newcomer;
use crate::machine::{Change, Position, Saved, SavedSend, SendId};

/// Keeps everything in memory; a clone is the same store, so that it outlives the client that
/// uses it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
}

#[derive(Debug, Default)]
struct Rows {
    sends: BTreeMap<SendId, SavedSend>,
    cursors: BTreeMap<ChannelId, (MessageId, Incarnation)>,
    reads: BTreeMap<ChannelId, (MessageId, Incarnation)>,
    rtts: BTreeMap<u8, u32>,
    intervals: BTreeMap<u8, u32>,
    newcomer: Newcomer,
    servers: Vec<KnownServer>,
}

impl MemoryStore {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Saved, StoreError> {
        let rows = self.rows();
        let positions = |table: &BTreeMap<ChannelId, (MessageId, Incarnation)>| {
            let rows = table.iter();
            rows.map(|(&channel, &(id, incarnation))| Position { channel, id, incarnation })
                .collect()
        };
        let intervals = rows.intervals.iter();
        Ok(Saved {
            sends: rows.sends.values().cloned().collect(),
            cursors: positions(&rows.cursors),
            reads: positions(&rows.reads),
            intervals: intervals.map(|(network, ms)| (Network::from_wire(*network), *ms)).collect(),
            newcomer: rows.newcomer,
        })
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for change in changes {
            match change {
                Change::Send(send) => {
                    rows.sends.insert(send.id, send.clone());
                }
                Change::Forget(send) => {
                    rows.sends.remove(send);
                }
                Change::Cursor(at) => {
                    rows.cursors.insert(at.channel, (at.id, at.incarnation));
                }
                Change::Read(at) => {
                    rows.reads.insert(at.channel, (at.id, at.incarnation));
                }
                Change::Newcomer(newcomer) => rows.newcomer = *newcomer,
                Change::Interval { network, ms } => {
                    rows.intervals.insert(network.to_wire(), *ms);
                }
            }
        }
        Ok(())
    }

    fn rtt_ms(&mut self, network: Network) -> Result<Option<u32>, StoreError> {
        Ok(self.rows().rtts.get(&network.to_wire()).copied())
    }

    fn set_rtt_ms(&mut self, network: Network, rtt_ms: u32) -> Result<(), StoreError> {
        self.rows().rtts.insert(network.to_wire(), rtt_ms);
        Ok(())
    }

    fn servers(&mut self) -> Result<Vec<KnownServer>, StoreError> {
        Ok(self.rows().servers.clone())
    }

    fn set_servers(&mut self, known: &[KnownServer]) -> Result<(), StoreError> {
        self.rows().servers = known.to_vec();
        Ok(())
    }
}
