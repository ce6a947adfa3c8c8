//! The hot path of `core`: a SEND of 100 bytes comes in as a frame, is checked, deduplicated,
//! counted, appended to a log in memory, committed, acked, told to the recipient's home shard, and
//! read for the pushes to both sides. Every sixteenth message both sides say RECEIVE_ACK, as the
//! SDK does. QUIC, the disk and the threads are not part of it. `traced` is the same with the flight
//! recorder: the difference is what that costs.

use std::hint::black_box;

use bytes::Bytes;
use tern_core::config::Config;
use tern_core::io::{Effect, Input};
use tern_core::log::Reader;
use tern_core::memory::MemoryReader;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::Send;
use tern_protocol::{ChannelId, Flags, Kind, MessageId};
use tern_storage::{Carrier, Recorder, Stamp, What};

use super::Operation;
use super::codec::{CONTENT_BYTES, send};
use super::world::{Client, World, direct};

/// Far above what is sent: the limit is not what is measured.
const SENDS: u32 = u32::MAX / 2;

/// After so many messages a device acknowledges.
const ACK_EVERY: u32 = 16;

/// Room of the recorder in bytes: the default of the server.
const RECORDER_BYTES: u64 = 8 << 20;

/// Two users on one worker with one shard.
pub struct Message {
    world: World,
    alice: Client,
    bob: Client,
    channel: ChannelId,
    counter: u32,
    recorder: Option<Recorder>,
}

impl Message {
    /// Both are online and have a channel.
    pub fn new() -> Self {
        let config = Config { sends_per_second: SENDS, sends_burst: SENDS, ..Config::default() };
        let mut world = World::over(MemoryReader::default(), 1, 1, config);
        let mut alice = world.login(0, 1, 1, &[]);
        let bob = world.login(0, 2, 1, &[]);
        let channel = direct(1, 2);
        let counter = alice.send(&mut world, channel, b"the first one opens the channel");
        let pushes = world.pushes(&bob);
        assert_eq!(pushes.len(), 1, "the channel is open");
        let mut message = Self { world, alice, bob, channel, counter, recorder: None };
        message.acknowledge();
        message
    }

    /// The same, and what happens is recorded.
    pub fn traced() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").expect("there is shared memory");
        let places = [folder.path().to_owned()];
        let opened = Recorder::open_all(&places, &[1; 16], 1, RECORDER_BYTES, 0);
        let (_, recorders) = opened.expect("there is room");
        let mut message = Self::new();
        message.world.workers[0].want_moments();
        message.recorder = recorders.into_iter().next();
        message // the file's name is gone, its memory stays as long as it is mapped
    }

    /// Takes all that leaves: pushes are read from the log as the server does. How many there were.
    fn drain(&mut self) -> u32 {
        let (worker, mut pushes) = (&mut self.world.workers[0], 0);
        worker.commit(self.world.now);
        let stamp = Stamp::default();
        if let Some(recorder) = &mut self.recorder {
            for moment in worker.drain_moments() {
                let what = What::Happened(moment.happened);
                recorder.record(stamp, moment.channel, moment.device, what);
            }
        }
        while let Some(effect) = worker.poll_effect() {
            if let Effect::Push { link, shard, at, .. } = effect {
                let read = self.world.reader.with_record(shard, at, |record| {
                    black_box(record.body.len());
                });
                read.expect("what is pushed can be read");
                if let Some(recorder) = &mut self.recorder {
                    let what = What::Pushed(MessageId(u64::from(self.counter)), Carrier::Stream);
                    recorder.record(stamp, self.channel, worker.device_of(link), what);
                }
                pushes += 1;
            }
        }
        pushes
    }

    fn acknowledge(&mut self) {
        for client in [&self.alice, &self.bob] {
            client.ack(&mut self.world, self.channel, u64::from(self.counter));
        }
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation for Message {
    fn once(&mut self) {
        self.counter += 1;
        let head = send(self.channel, self.alice.epoch, self.counter);
        let mut frame = vec![0; frame_bytes::<Send>(CONTENT_BYTES)];
        encode(Kind::Send, Flags::NONE, &head, &[7; CONTENT_BYTES], &mut frame);
        let input = Input::Frame(self.alice.link, Bytes::from(frame));
        self.world.workers[0].handle(self.world.now, input);
        let pushes = self.drain() + self.drain();
        assert_eq!(pushes, 2, "to both sides");
        if self.counter.is_multiple_of(ACK_EVERY) {
            self.acknowledge();
        }
    }
}
