//! Recalls, edits and blocks: what leaves, through crashes and lost connections, and what comes.

use bytes::Bytes;
use tern_protocol::frames::{BlockPage as PageHead, Blocked, block, message_kind};
use tern_protocol::{Code, Flags, Frame, Kind, MessageId, Uin};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::rig::{Rig, channel, error, frame, key, push};
use crate::machine::{BlockPage, Event, Input, SendOutcome};

/// What left as a recall or an edit since the last look: kind, which message, content.
fn references(rig: &mut Rig) -> Vec<(u8, u64, Vec<u8>)> {
    let frames = std::mem::take(&mut rig.frames);
    let references = frames.iter().filter_map(|frame| match Frame::parse(frame).unwrap().0 {
        Frame::Send(head, content) => Some((head.kind, head.refers_to.get(), content.to_vec())),
        _ => None,
    });
    references.collect()
}

/// What was asked of blocks since the last look: whom, and the action; 0 for a page above.
fn asked(rig: &mut Rig) -> Vec<(u64, u8)> {
    let frames = std::mem::take(&mut rig.frames);
    let asked = frames.iter().filter_map(|frame| match Frame::parse(frame).unwrap().0 {
        Frame::Block(asked) => Some((asked.uin.get(), asked.action)),
        Frame::BlockList(asked) => Some((asked.after.get(), 0)),
        _ => None,
    });
    asked.collect()
}

fn answer(uin: u64, action: u8, code: Code, retry_after_ms: u32) -> Bytes {
    let answer = Blocked {
        uin: uin.into(),
        action,
        reserved: 0,
        code: code.0.into(),
        retry_after_ms: retry_after_ms.into(),
    };
    frame(Kind::Blocked, &answer, &[])
}

fn page(after: u64, uins: &[u64], is_last: bool) -> Bytes {
    let uins: Vec<U64> = uins.iter().map(|uin| U64::new(*uin)).collect();
    let head = PageHead { after: after.into() };
    let mut bytes = frame(Kind::BlockPage, &head, uins.as_bytes()).to_vec();
    bytes[3] = if is_last { Flags::LAST.0 } else { Flags::NONE.0 };
    bytes.into()
}

fn block(rig: &mut Rig, uin: u64, begins: bool) {
    rig.say(Input::Block { uin: Uin(uin), begins });
}

/// The answers about blocks since the last look.
fn told(rig: &mut Rig) -> Vec<Event> {
    let events = std::mem::take(&mut rig.events).into_iter();
    let is_told = |event: &Event| matches!(event, Event::Blocked { .. } | Event::BlockPage(_));
    events.filter(is_told).collect()
}

#[test]
fn a_recall_and_an_edit_keep_their_message_and_their_key_through_a_crash() {
    let mut rig = Rig::online(3);
    let (id, content) = (MessageId(7), Bytes::from_static(b"other words"));
    rig.say(Input::Recall { channel: channel(2), id, tag: 1 });
    let id = MessageId(8);
    rig.say(Input::Edit { channel: channel(2), id, content_type: 1, content, tag: 2 });
    let both =
        [(message_kind::RECALL, 7, Vec::new()), (message_kind::EDIT, 8, b"other words".to_vec())];
    assert_eq!(references(&mut rig), both);
    let mut rig = rig.restart();
    rig.log_in(4);
    assert_eq!(references(&mut rig), both, "the same under the same keys");
    rig.ack(key(3, 1), 2, 9);
    rig.refuse(key(3, 2), 2, Code::TooLate, 0);
    rig.store_all();
    let outcomes: Vec<_> = rig.take_results().into_iter().map(|result| result.outcome).collect();
    assert!(matches!(outcomes[0], SendOutcome::Acked { id: MessageId(9), .. }));
    assert_eq!(outcomes[1], SendOutcome::Refused(Code::TooLate));
}

#[test]
fn what_comes_says_which_message_it_is_about() {
    let mut rig = Rig::online(1);
    for (id, kind) in
        [(1, message_kind::CONTENT), (2, message_kind::EDIT), (3, message_kind::RECALL)]
    {
        let hello = push(channel(2), id, "hello");
        let (Frame::Push(body, content), _) = Frame::parse(&hello).unwrap() else { panic!() };
        let (mut body, content) = (*body, content.to_vec());
        (body.kind, body.refers_to) = (kind, 1.into());
        rig.say(Input::Frame(frame(Kind::Push, &body, &content)));
    }
    let of = |id| Some(MessageId(id));
    let messages = rig.messages();
    let said: Vec<_> = messages.iter().map(|m| (m.edits(), m.recalls())).collect();
    assert_eq!(said, [(None, None), (of(1), None), (None, of(1))]);
}

#[test]
fn blocks_are_asked_for_one_by_one_and_again_after_a_lost_connection() {
    let mut rig = Rig::online(1);
    block(&mut rig, 5, true);
    block(&mut rig, 6, false);
    rig.say(Input::BlockList { after: Uin(4) });
    assert_eq!(asked(&mut rig), [(5, block::BEGIN)]);
    rig.lose();
    rig.resume(1);
    assert_eq!(asked(&mut rig), [(5, block::BEGIN)], "the first one once more");
    rig.say(Input::Frame(answer(5, block::BEGIN, Code(0), 0)));
    assert_eq!(asked(&mut rig), [(6, block::END)]);
    rig.say(Input::Frame(answer(6, block::END, Code::BlockInvalid, 0)));
    assert_eq!(asked(&mut rig), [(4, 0)]);
    rig.say(Input::Frame(page(4, &[5, 9], true)));
    let uins = vec![Uin(5), Uin(9)];
    let expected = [
        Event::Blocked { uin: Uin(5), begins: true, refused: None },
        Event::Blocked { uin: Uin(6), begins: false, refused: Some(Code::BlockInvalid) },
        Event::BlockPage(Ok(BlockPage { uins, is_last: true })),
    ];
    assert_eq!(told(&mut rig), expected);
}

#[test]
fn what_the_server_can_not_do_now_is_asked_for_later() {
    let mut rig = Rig::online(1);
    block(&mut rig, 5, true);
    asked(&mut rig);
    rig.say(Input::Frame(answer(5, block::BEGIN, Code::DiskFull, 700)));
    rig.wait_ms(600);
    assert_eq!(asked(&mut rig), [], "it is too early");
    rig.wait_ms(400);
    assert_eq!(asked(&mut rig), [(5, block::BEGIN)]);
    rig.say(Input::Frame(error(Code::TooManyRequests, Kind::Block, 300)));
    rig.wait_ms(1_000);
    assert_eq!(asked(&mut rig), [(5, block::BEGIN)]);
    rig.say(Input::Frame(error(Code::UnknownKind, Kind::Block, 0)));
    let refused = Some(Code::UnknownKind);
    assert_eq!(told(&mut rig), [Event::Blocked { uin: Uin(5), begins: true, refused }]);
}

#[test]
fn an_answer_to_nothing_ends_the_connection() {
    let wrong = [
        answer(6, block::BEGIN, Code(0), 0),
        answer(5, block::END, Code(0), 0),
        page(0, &[1], true),
    ];
    for frame in wrong {
        let mut rig = Rig::online(1);
        block(&mut rig, 5, true);
        rig.say(Input::Frame(frame));
        assert_eq!(rig.disconnects, [Code::Malformed]);
    }
    let mut rig = Rig::online(1);
    rig.say(Input::BlockList { after: Uin(9) });
    rig.say(Input::Frame(page(9, &[9], false)));
    assert_eq!(rig.disconnects, [Code::Malformed], "a page that leads no further");
}
