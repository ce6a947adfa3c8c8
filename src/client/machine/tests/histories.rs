//! Looking back: questions that are answered, refused, or lost on the way. And new devices that
//! want less than everything.

use bytes::Bytes;
use tern_protocol::frames::{
    ChannelsShown, HistoryEntry, HistoryPage, PushBody, capabilities, message_kind,
};
use tern_protocol::{Code, Frame, Kind, MessageId};
use zerocopy::IntoBytes;

use super::rig::{Rig, channel, error, frame, logged_in, welcome, welcome_of};
use crate::history::{HistoryItem, Newcomer};
use crate::machine::{Event, Input, Tuning};
use crate::store::{MemoryStore, Store};

fn log_in(rig: &mut Rig, resumed: bool) {
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome_of(capabilities::HISTORY)));
    rig.say(Input::Frame(logged_in(1, resumed)));
}

fn ask(rig: &mut Rig, before: u64) {
    rig.say(Input::History { channel: channel(2), before: MessageId(before), limit: 9 });
}

/// Messages `from` to `to` of Bob, of which the first is lost.
fn page(before: u64, from: u64, to: u64) -> Bytes {
    let head = HistoryPage {
        channel: channel(2),
        before: before.into(),
        from: from.into(),
        to: to.into(),
        oldest: 1.into(),
        newest: 99.into(),
        incarnation: 6.into(),
        code: 0.into(),
        reserved: 0.into(),
    };
    let gap = HistoryEntry { ids: 1.into(), bytes: 0.into(), code: Code::Lost.0.into() };
    let bytes = (size_of::<PushBody>() as u16).into();
    let of_message = HistoryEntry { ids: 1.into(), bytes, code: 0.into() };
    let body = |id: u64| PushBody {
        channel: channel(2),
        id: id.into(),
        sender: 2.into(),
        device: 1.into(),
        epoch: 1.into(),
        counter: 1.into(),
        content_type: 1.into(),
        kind: message_kind::CONTENT,
        version: 1,
        server_time: 1.into(),
        refers_to: 0.into(),
    };
    let mut entries = gap.as_bytes().to_vec();
    for id in from + 1..=to {
        entries.extend_from_slice(of_message.as_bytes());
        entries.extend_from_slice(body(id).as_bytes());
    }
    frame(Kind::History, &head, &entries)
}

/// The ids of the pages that were told, gaps as 0, and refusals.
fn told(rig: &mut Rig) -> Vec<Result<Vec<u64>, Code>> {
    let id = |item: &HistoryItem| match item {
        HistoryItem::Message(message) => message.position.id.0,
        HistoryItem::Gap { .. } => 0,
    };
    let told = std::mem::take(&mut rig.events).into_iter().filter_map(|event| match event {
        Event::History(page) => Some(page.map(|page| page.items.iter().map(id).collect())),
        _ => None,
    });
    told.collect()
}

#[test]
fn pages_are_asked_for_one_by_one_and_again_after_a_lost_connection() {
    let mut rig = Rig::new();
    ask(&mut rig, 0);
    ask(&mut rig, 40);
    log_in(&mut rig, false);
    assert_eq!(rig.kinds().last(), Some(&Kind::HistoryAsk));
    rig.say(Input::Frame(page(0, 50, 52)));
    assert_eq!(told(&mut rig), [Ok(vec![0, 51, 52])]);
    assert_eq!(rig.kinds(), [Kind::HistoryAsk], "the next one");
    rig.lose();
    rig.until_opening();
    log_in(&mut rig, true);
    assert_eq!(rig.kinds().last(), Some(&Kind::HistoryAsk), "asked for again");
    rig.say(Input::Frame(error(Code::TooManyRequests, Kind::HistoryAsk, 100)));
    assert_eq!(rig.kinds(), []);
    assert_eq!(rig.tick(), "a page of history is asked for again");
    assert_eq!(rig.kinds(), [Kind::HistoryAsk]);
    rig.say(Input::Frame(error(Code::NotGranted, Kind::HistoryAsk, 0)));
    assert_eq!(told(&mut rig), [Err(Code::NotGranted)]);
    assert_eq!(rig.machine.counters().bad_frames, 0);
}

#[test]
fn a_page_that_was_not_asked_for_or_does_not_fit_ends_the_connection() {
    for bad in [page(0, 50, 52), page(7, 0, 3), page(7, 5, 4)] {
        let mut rig = Rig::new();
        log_in(&mut rig, false);
        ask(&mut rig, 7);
        rig.say(Input::Frame(bad));
        assert_eq!(rig.machine.counters().bad_frames, 1);
        assert_eq!(told(&mut rig), []);
    }
}

#[test]
fn a_server_that_can_not_tell_is_not_asked() {
    let mut rig = Rig::new();
    ask(&mut rig, 0);
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome()));
    rig.say(Input::Frame(logged_in(1, false)));
    assert!(!rig.kinds().contains(&Kind::HistoryAsk));
    assert_eq!(told(&mut rig), [Err(Code::UnknownKind)]);
}

/// What a connection of a device with this store says up to its cursors.
fn first_words(store: &MemoryStore, newest_wanted: Option<u32>) -> (Rig, Vec<Kind>, u64) {
    let mut rig = Rig::on(store.clone(), Tuning { newest_wanted, ..Tuning::default() }, 1);
    log_in(&mut rig, false);
    let hello = Frame::parse(&rig.frames[0]).unwrap().0;
    let Frame::Hello(hello) = hello else { panic!("{hello:?}") };
    let digest = hello.digest.get();
    let kinds = rig.kinds();
    (rig, kinds, digest)
}

#[test]
fn a_new_device_says_what_it_wants_until_it_was_shown_all() {
    let store = MemoryStore::default();
    for _ in 0..2 {
        let (mut rig, kinds, digest) = first_words(&store, Some(5));
        let wanted = kinds.iter().position(|kind| *kind == Kind::HistoryWanted);
        let cursors = kinds.iter().position(|kind| *kind == Kind::Cursors);
        assert!(wanted.is_some() && wanted < cursors, "{kinds:?}");
        assert_eq!(digest, 0, "or the server would not ask for cursors");
        rig.history(2, 1, 9, 10);
        rig.gap(2, 1, 4);
        rig.store_all();
        assert_eq!(store.clone().load().unwrap().newcomer, Newcomer::Wants(5));
    }
    let (mut rig, ..) = first_words(&store, None);
    let shown = ChannelsShown { channels: 1.into(), reserved: 0.into() };
    rig.say(Input::Frame(frame(Kind::ChannelsShown, &shown, &[])));
    rig.store_all();
    let saved = store.clone().load().unwrap();
    assert_eq!((saved.newcomer, saved.cursors.len()), (Newcomer::Settled, 1));
    let (_, kinds, digest) = first_words(&store, Some(5));
    assert!(!kinds.contains(&Kind::HistoryWanted) && digest != 0, "{kinds:?}");
}

#[test]
fn a_device_with_cursors_is_not_new() {
    let store = MemoryStore::default();
    let (mut rig, kinds, _) = first_words(&store, None);
    assert!(!kinds.contains(&Kind::HistoryWanted));
    rig.history(2, 1, 9, 10);
    rig.push(2, 1);
    rig.consume(2, 1, 1);
    rig.store_all();
    let (_, kinds, _) = first_words(&store, Some(0));
    assert!(!kinds.contains(&Kind::HistoryWanted), "{kinds:?}");
}
