//! What senders are told when their own messages are damaged or expired, what a log that takes
//! nothing leaves of its shard, and what is forgotten for good.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{Client, World, acks, closes, cursor, direct, refusals};
use tern_core::config::Config;
use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::io::Input;
use tern_core::log::{Offset, RecordKind};
use tern_core::memory::{MemoryReader, MemoryTable};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::time::{Mono, Now};
use tern_core::{Recovery, Worker};
use tern_protocol::frames::PushBody;
use tern_protocol::{Code, DeviceId, Uin, UnixMillis};
use zerocopy::FromBytes;

const SHARD: ShardId = ShardId(0);

/// Places of the messages in a shard's log.
fn messages(reader: &MemoryReader, shard: ShardId) -> Vec<Offset> {
    let mut places = Vec::new();
    reader.replay_with_losses(shard, |at, _, found| {
        let is_message = |body: &[u8]| PushBody::ref_from_prefix(body).is_ok();
        if found.is_ok_and(|r| r.kind == RecordKind::Message && is_message(r.body)) {
            places.push(at);
        }
    });
    places
}

/// A world of one shard in which Alice has sent `count` messages to Bob, from counter 1 on.
fn sent(count: u32) -> (World, MemoryReader, Client) {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    for counter in 1..=count {
        alice.send(&mut world, direct(1, 2), &counter.to_le_bytes());
    }
    world.take(&alice);
    (world, reader, alice)
}

/// Says once more what [`sent`] said, under the epoch of then.
fn repeat(world: &mut World, client: &Client, epoch: u32, counter: u32) {
    client.send_as(world, direct(1, 2), epoch, counter, 0, &counter.to_le_bytes());
}

#[test]
fn a_lost_message_in_a_chain_makes_what_is_not_found_unknown() {
    for whole in [true, false] {
        let (mut world, reader, alice) = sent(5);
        reader.damage(SHARD, messages(&reader, SHARD)[2], whole);
        for counter in [1, 2, 3, 4, 5] {
            repeat(&mut world, &alice, alice.epoch, counter);
        }
        let got = world.take(&alice);
        if whole {
            assert_eq!(acks(&got), [(1, 1), (2, 2), (4, 4), (5, 5)], "found before and behind it");
            assert_eq!(refusals(&got), [(3, Code::KeyUnknown)]);
        } else {
            assert_eq!(acks(&got), [(4, 4), (5, 5)]);
            let unknown = [1, 2, 3].map(|counter| (counter, Code::KeyUnknown));
            assert_eq!(refusals(&got), unknown, "its links are gone, and with them the chain");
        }
    }
}

#[test]
fn a_key_behind_a_loss_is_never_called_not_accepted() {
    let (mut world, reader, first) = sent(3);
    let mut alice = world.login(0, 1, 1, &[cursor(direct(1, 2), 3, 1)]);
    alice.send(&mut world, direct(1, 2), b"closes the first epoch");
    world.take(&alice);
    repeat(&mut world, &alice, first.epoch, 9);
    assert_eq!(refusals(&world.take(&alice)), [(9, Code::KeyClosed)], "the chain is whole");
    reader.damage(SHARD, messages(&reader, SHARD)[2], true);
    repeat(&mut world, &alice, first.epoch, 9);
    repeat(&mut world, &alice, first.epoch, 2);
    let got = world.take(&alice);
    assert_eq!(refusals(&got), [(9, Code::KeyUnknown)]);
    assert_eq!(acks(&got), [(2, 2)]);
}

#[test]
fn a_key_behind_an_expired_message_is_unknown() {
    let (mut world, reader, alice) = sent(5);
    let places = messages(&reader, SHARD);
    reader.expire(SHARD, places[3]);
    world.run();
    repeat(&mut world, &alice, alice.epoch, 2);
    repeat(&mut world, &alice, alice.epoch, 4);
    let got = world.take(&alice);
    assert_eq!((refusals(&got), acks(&got)), (vec![(2, Code::KeyUnknown)], vec![(4, 4)]));
}

#[test]
fn a_lost_message_is_not_appended_again_after_a_restart() {
    for (lost, whole) in (1..=4u32).flat_map(|lost| [(lost, true), (lost, false)]) {
        let (_, reader, old) = sent(4);
        reader.damage(SHARD, messages(&reader, SHARD)[lost as usize - 1], whole);
        let mut world = World::over(reader.clone(), 1, 1, Config::default());
        let mut alice = world.login(0, 1, 1, &[cursor(direct(1, 2), 4, 1)]);
        world.take(&alice);
        repeat(&mut world, &alice, old.epoch, lost);
        let got = world.take(&alice);
        assert_eq!(refusals(&got), [(lost, Code::KeyUnknown)], "the key of a lost message");
        alice.send(&mut world, direct(1, 2), b"new");
        let is_told_by_none = lost == 4 && !whole; // then the storage raises the incarnation
        let id = if is_told_by_none { 4 } else { 5 };
        assert_eq!(acks(&world.take(&alice)), [(1, id)], "its id is not given again");
        assert_eq!(messages(&reader, SHARD).len(), 4);
    }
}

#[test]
fn a_lost_message_that_overtook_a_later_key_is_not_appended_again() {
    let (mut world, reader, old) = sent(1);
    old.send_as(&mut world, direct(1, 2), old.epoch, 3, 0, &3u32.to_le_bytes());
    old.send_as(&mut world, direct(1, 2), old.epoch, 2, 0, b"late");
    for more in [false, true] {
        if more {
            old.send_as(&mut world, direct(1, 2), old.epoch, 4, 0, b"later");
        } else {
            reader.damage(SHARD, messages(&reader, SHARD)[1], true);
        }
        let mut world = World::over(reader.clone(), 1, 1, Config::default());
        let alice = world.login(0, 1, 1, &[cursor(direct(1, 2), 3, 1)]);
        world.take(&alice);
        repeat(&mut world, &alice, old.epoch, 3);
        assert_eq!(refusals(&world.take(&alice)), [(3, Code::KeyUnknown)]);
    }
}

#[test]
fn a_lost_message_that_the_chain_passes_is_never_called_not_accepted() {
    for count in [1, 2u32] {
        let (_, reader, old) = sent(count);
        reader.damage(SHARD, messages(&reader, SHARD)[count as usize - 1], true);
        for life in 0..3u64 {
            let mut world = World::over(reader.clone(), 1, 1, Config::default());
            let newest = u64::from(count) + life;
            let mut alice = world.login(0, 1, 1, &[cursor(direct(1, 2), newest, 1)]);
            alice.send(&mut world, direct(1, 2), b"links past what is lost");
            world.take(&alice);
            (1..=count).for_each(|counter| repeat(&mut world, &alice, old.epoch, counter));
            let got = world.take(&alice);
            assert_eq!(refusals(&got), [(count, Code::KeyUnknown)]);
            assert_eq!(acks(&got).len(), count as usize - 1, "those before it are found");
            repeat(&mut world, &alice, alice.epoch - 1, 9);
            let code = if life == 0 { Code::KeyUnknown } else { Code::KeyClosed };
            let why = "a login after the loss has closed what was lost";
            assert_eq!(refusals(&world.take(&alice)), [(9, code)], "{why}");
        }
    }
}

#[test]
fn the_key_of_a_device_that_lost_nothing_is_taken_after_a_restart() {
    let (mut world, reader, _) = sent(2);
    let mut bob = world.login(0, 2, 1, &[cursor(direct(1, 2), 2, 1)]);
    bob.send(&mut world, direct(1, 2), b"an answer");
    reader.damage(SHARD, messages(&reader, SHARD)[1], true);
    let mut world = World::over(reader, 1, 1, Config::default());
    let again = world.login(0, 2, 1, &[cursor(direct(1, 2), 3, 1)]);
    world.take(&again);
    again.send_as(&mut world, direct(1, 2), bob.epoch, 2, 1, b"was on its way");
    assert_eq!(acks(&world.take(&again)), [(2, 4)]);
}

#[test]
fn a_raised_incarnation_grants_no_epoch_again() {
    let (mut world, reader, first) = sent(1);
    let second = world.login(0, 1, 1, &[]);
    assert_eq!((first.epoch, second.epoch), (1, 2));
    for (incarnation, expected) in [(2, 1 << 20 | 1), (2, 1 << 20 | 2), (4, 3 << 20 | 1)] {
        let mut world = World::restarted(reader.clone(), 1, 1, Config::default(), incarnation);
        assert_eq!(world.login(0, 1, 1, &[]).epoch, expected);
    }
    let mut world = World::restarted(reader, 1, 1, Config::default(), u32::MAX);
    assert_eq!(world.login(0, 1, 1, &[]).epoch, 4_095 << 20 | 1, "as far as it goes");
}

/// Users whose home is, and is not, a given shard.
fn users(placement: &Placement, shard: ShardId) -> (Vec<u64>, Vec<u64>) {
    (1..100).partition(|uin| placement.home_of(Uin(*uin)) == shard)
}

#[test]
fn a_shard_that_takes_nothing_still_lets_read() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 4, 2, Config::default());
    let placement = world.placement;
    let (inside, outside) = users(&placement, ShardId(1));
    let a = outside[0];
    let peer = |stopped: bool| {
        let is_in =
            |uin: &&u64| (placement.shard_of_channel(direct(a, **uin)) == ShardId(1)) == stopped;
        outside[1..].iter().find(is_in).copied().expect("some user")
    };
    let (b, c) = (peer(true), peer(false));
    let mut first = world.login(0, a, 1, &[]);
    first.send(&mut world, direct(a, b), b"before");

    let config = Config::default();
    let mut world = World::opened(reader, (4, 2), config, 1, &[ShardId(1)]);
    let mut alice = world.login(1, a, 1, &[cursor(direct(a, b), 1, 1)]);
    let bob = world.login(0, b, 1, &[]);
    assert_eq!(world.pushes(&bob), [(1, b"before".to_vec())], "all shards were exchanged with");
    world.take(&alice);
    alice.send(&mut world, direct(a, b), b"refused");
    alice.send_as(&mut world, direct(a, b), first.epoch, 1, 0, b"before");
    alice.send(&mut world, direct(a, c), b"elsewhere");
    let got = world.take(&alice);
    assert_eq!(refusals(&got), [(1, Code::ShardStopped)]);
    assert_eq!(acks(&got), [(1, 1), (2, 1)], "a repeat has its ack, and others go on");
    let carol = world.login(0, c, 1, &[]);
    assert_eq!(world.pushes(&carol), [(1, b"elsewhere".to_vec())]);

    let homeless = world.login(0, inside[0], 1, &[]);
    assert_eq!(closes(&world.take(&homeless)), [Code::ShardStopped]);
    alice.send(&mut world, direct(a, inside[0]), b"whose home takes no entry");
    assert_eq!(refusals(&world.take(&alice)), [(3, Code::ShardStopped)]);
    world.pass(60_000);
    let repeated = world.workers.iter().map(|w| w.counters().notifies_repeated).sum::<u64>();
    assert_eq!(repeated, 0, "every exchange was confirmed");
}

/// A table that the test can look into.
#[derive(Clone, Default)]
struct OpenTable(Rc<RefCell<MemoryTable>>);

impl DedupTable for OpenTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        self.0.borrow().get(uin, device)
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        self.0.borrow_mut().reserve()
    }

    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, applied: Offset) {
        self.0.borrow_mut().put(uin, device, entry, applied);
    }

    fn remove(&mut self, uin: Uin, device: DeviceId) {
        self.0.borrow_mut().remove(uin, device);
    }
}

#[test]
fn only_a_revoked_device_is_forgotten() {
    let (_, reader, _) = sent(3);
    let (table, placement) = (OpenTable::default(), Placement::new(1, 1));
    let mut recovery = Recovery::new(SHARD, placement, table.clone(), Offset::NONE);
    reader.replay(SHARD, |at, end, record| {
        recovery.replay(at, end, record).expect("the log makes sense");
    });
    let shards = vec![recovery.finish(reader.log(SHARD, true))];
    let mut worker = Worker::new(WorkerId(0), placement, Config::default(), reader, shards);
    let now = Now { mono: Mono(1), wall: UnixMillis(1) };
    let (uin, device) = (Uin(1), DeviceId(1));
    for (chosen, code, kept) in [
        (Some(device), Code::UserDisabled, true),
        (None, Code::UserDisabled, true),
        (Some(DeviceId(2)), Code::DeviceRevoked, true),
        (Some(device), Code::DeviceRevoked, false),
        (Some(device), Code::DeviceRevoked, false),
    ] {
        worker.handle(now, Input::Kick { uin, device: chosen, code });
        assert_eq!(table.get(uin, device).is_some(), kept, "{chosen:?} {code}");
    }
}

#[test]
fn what_a_revoked_device_sent_before_is_not_appended_after() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 2, 2, Config::default());
    let placement = world.placement;
    let far = |uin: &u64| placement.worker_of(placement.shard_of_channel(direct(1, *uin))).0 == 1;
    let peer = (2..100).find(far).expect("some user");
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, peer), b"first");
    let shard = placement.shard_of_channel(direct(1, peer));
    assert_eq!(messages(&reader, shard).len(), 1);
    world.take(&alice);

    world.by_steps = true;
    alice.send_as(&mut world, direct(1, peer), alice.epoch, 1, 0, b"first");
    alice.send(&mut world, direct(1, peer), b"second");
    let (device, code) = (Some(DeviceId(1)), Code::DeviceRevoked);
    world.input(1, Input::Kick { uin: Uin(1), device, code });
    world.by_steps = false;
    world.run();
    assert_eq!(messages(&reader, shard).len(), 1, "its mail came after the order");
    let got = world.take(&alice);
    assert_eq!((acks(&got), closes(&got)), (vec![], vec![Code::DeviceRevoked]));
}
