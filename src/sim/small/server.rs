//! The server of the small world: one worker with one shard, and a directory that knows everybody.

use bytes::Bytes;
use tern_core::config::Config;
use tern_core::io::{Answer, Effect, Input, LinkId, Outgoing, Query};
use tern_core::log::Record;
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::time::{Mono, Now};
use tern_core::{Recovery, Worker};
use tern_protocol::{Code, Frame, UnixMillis};

use super::SmallWorld;
use crate::disk::door::{AnyLog, AnyReader, AnyTable};
use crate::disk::{DiskLog, DiskReader, DiskTable};
use crate::server::{encode, encode_close, encode_push};

/// The only shard.
const SHARD: ShardId = ShardId(0);

/// The wall clock at the beginning, in ms since 1970.
const WALL_AT_START: u64 = 1_700_000_000_000;

impl SmallWorld {
    pub(super) fn mono(&self) -> Mono {
        Mono(self.now)
    }

    pub(super) fn start_server(&mut self) {
        self.oracle.recovered(&self.disk.borrow(), 1);
        let placement = Placement::new(1, 1);
        let applied = self.disk.borrow_mut().open(SHARD);
        let table = AnyTable::Simulated(DiskTable::new(SHARD, &self.disk));
        let mut recovery = Recovery::new(SHARD, placement, table, applied);
        let records = self.disk.borrow().records(SHARD);
        for index in 0..records {
            let disk = self.disk.borrow();
            let copy = disk.record(SHARD, index).map(|(at, end, record)| {
                (at, end, record.kind, record.links, record.body.to_vec())
            });
            drop(disk); // the table is on it
            let Some((at, end, kind, links, body)) = copy else { break };
            if let Err(wrong) = recovery.replay(at, end, Record { kind, links, body: &body }) {
                return self.oracle.judge("acked", Err(format!("recovery fails: {wrong}")));
            }
        }
        let shard = recovery.finish(AnyLog::Simulated(DiskLog::open(SHARD, &self.disk)));
        let reader = AnyReader::Simulated(DiskReader::new(&self.disk));
        let config = Config { datagrams: false, ..Config::default() };
        self.worker = Some(Worker::new(WorkerId(0), placement, config, reader, vec![shard]));
        self.tell_worker(Input::Tick);
    }

    pub(super) fn server_deadline(&self) -> Option<u64> {
        Some(self.worker.as_ref()?.poll_timeout()?.0.0)
    }

    /// One turn of the worker.
    pub(super) fn tell_worker(&mut self, input: Input) {
        let now = Now { mono: self.mono(), wall: UnixMillis(WALL_AT_START + self.now) };
        let Some(worker) = self.worker.as_mut() else { return };
        worker.handle(now, input);
        self.carry_out_effects();
        if let Some(worker) = self.worker.as_mut() {
            worker.commit(now);
        }
        self.carry_out_effects();
        self.syncing |= !self.disk.borrow_mut().take_syncs().is_empty();
    }

    pub(super) fn end_sync(&mut self) {
        self.disk.borrow_mut().end_sync(SHARD, true);
        self.syncing = !self.disk.borrow_mut().take_syncs().is_empty();
        self.tell_worker(Input::Durable(SHARD));
    }

    pub(super) fn reach_server(&mut self, device: usize, twice: bool) {
        let Some(number) = self.devices[device].line else { return };
        let frame = self.lines.get_mut(&number).and_then(|line| line.up.pop_front());
        let Some(frame) = frame else { return };
        let uin = self.devices[device].device.uin;
        match Frame::parse(&frame) {
            Ok((Frame::ReceiveAck(list) | Frame::Cursors(list), _)) => {
                for cursor in list {
                    self.oracle.cursor_arrives((uin, number), cursor.channel, cursor.id.get());
                }
            }
            Ok((Frame::Fetch(_), _)) => self.oracle.fetch_arrives(number),
            _ => {}
        }
        let is_send = matches!(Frame::parse(&frame), Ok((Frame::Send(..), _)));
        self.tell_worker(Input::Frame(LinkId(number), frame.clone()));
        if twice && is_send {
            self.tell_worker(Input::Frame(LinkId(number), frame));
        }
    }

    fn carry_out_effects(&mut self) {
        self.oracle.appended(&mut self.disk.borrow_mut(), self.now);
        while let Some(effect) = self.worker.as_mut().and_then(Worker::poll_effect) {
            match effect {
                Effect::Frame(LinkId(link), frame) => self.frame_leaves(link, &frame),
                Effect::Push { link: LinkId(link), shard, at, .. } => {
                    let index = self.disk.borrow().index_of(shard, at);
                    let disk = self.disk.borrow();
                    let body = disk.record(shard, index).map(|(_, _, record)| record.body.to_vec());
                    drop(disk);
                    let body = body.unwrap_or_default();
                    if let Some(device) = self.device_on(link) {
                        let (to, place) = ((device, link), (shard, index));
                        let most = Config::default().longest_window();
                        self.oracle.push_leaves(
                            &self.disk.borrow(),
                            to,
                            place,
                            &body,
                            (most, true),
                        );
                    }
                    self.give(link, encode_push(&body));
                }
                Effect::Close { link: LinkId(link), code, come_back } => {
                    self.give(link, encode_close(code, come_back));
                    self.oracle.link_closed(link);
                    if let Some(line) = self.lines.get_mut(&link) {
                        line.closed = Some(code);
                    }
                }
                Effect::Whole(LinkId(link), frame) => self.give(link, frame),
                Effect::Directory(query) => self.answers.push_back(answer(query)),
                Effect::Warm { waiter, .. } => self.tell_worker(Input::Warmed(waiter)),
            }
        }
    }

    fn frame_leaves(&mut self, link: u64, frame: &Outgoing) {
        if let Some(device) = self.device_on(link) {
            match frame {
                Outgoing::SendAck(ack) => self.oracle.ack_leaves(&self.disk.borrow(), device, ack),
                Outgoing::SendRefused(no) => {
                    self.oracle.refusal_leaves(&self.disk.borrow(), device, no, (self.now, 0));
                }
                Outgoing::LoggedIn(head) => {
                    let (epoch, resumed) = (head.epoch.into(), head.resumed != 0);
                    let on = (link, self.now);
                    if head.known != 0 {
                        self.oracle.cursors_known(link);
                    }
                    self.oracle.login_leaves(&self.disk.borrow(), device, (epoch, resumed), on);
                }
                _ => {}
            }
        }
        self.give(link, encode(frame));
    }

    fn device_on(&self, link: u64) -> Option<tern_core::mail::Device> {
        self.devices.iter().find(|one| one.line == Some(link)).map(|one| one.device)
    }

    fn give(&mut self, link: u64, frame: Bytes) {
        if let Some(line) = self.lines.get_mut(&link) {
            line.down.push_back(frame);
        }
    }
}

/// The directory knows everybody.
fn answer(query: Query) -> Answer {
    match query {
        Query::Authenticate { session, .. } => {
            let mut token = [9; 32];
            token[..8].copy_from_slice(&session.link.0.to_le_bytes());
            Answer::Authenticated { session, result: Ok(token) }
        }
        Query::Identify { session, .. } => {
            Answer::Identified { session, result: Err(Code::TokensNotTaken) }
        }
        Query::UserExists { shard, channel, uin } => {
            Answer::UserExists { shard, channel, uin, exists: Some(true) }
        }
    }
}
