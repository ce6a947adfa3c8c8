//! One frame of each kind, byte for byte. The vectors were written from SPEC.md, not by the
//! encoder; a change of one is a change of the protocol.

mod vectors;

use tern_protocol::digest::CursorDigest;
use tern_protocol::frames::{
    AskCursors, Block, BlockList, BlockPage, Blocked, Change, ChannelState, ChannelsShown, Close,
    Cursor, ErrorHead, Fetch, Gap, GroupInfo, GroupMember, GroupPage, Hello, HistoryAsk,
    HistoryEntry, HistoryPage, HistoryWanted, Identity, LoggedIn, Login, Mark, Marks, MarksAsk,
    Network, Ping, Pong, PushBody, ReadMark, Receipts, ReceiptsAsk, Resume, Send, SendAck,
    SendRefused, TokenLogin, UnreadCount, Welcome, action, block, capabilities, content_type,
    message_kind, role, settings,
};
use tern_protocol::group::{self, ChangeView};
use tern_protocol::history::{Entry, split_entry};
use tern_protocol::limits::{
    CONTENT_BYTES_DEFAULT, FRAME_BYTES_MAX, MAGIC, SECRET_BYTES, UNACKED_SENDS_MAX, VERSION,
};
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Flags, Frame, Incarnation, Kind, MessageId, SendCounter,
    SendKey, Uin,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// The server's time in the vectors, in ms since 1970 UTC.
const TIME_MS: u64 = 1_790_000_000_123;

/// The vector decodes to `frame`, and `frame` encodes to the vector.
fn same(name: &str, flags: Flags, frame: &Frame<'_>) {
    let golden = vectors::bytes(name);
    assert_eq!(Frame::parse(&golden), Ok((*frame, flags)), "decoding {name}");
    let mut buffer = [0xaa; FRAME_BYTES_MAX];
    let written = frame.encode(flags, &mut buffer);
    assert_eq!(buffer[..written], golden[..], "encoding {name}");
    assert!(buffer[written..].iter().all(|byte| *byte == 0xaa), "{name} writes behind its end");
}

fn direct() -> ChannelId {
    ChannelId::direct(Uin(10_002), Uin(10_001))
}

fn counting_from(first: u8) -> [u8; SECRET_BYTES] {
    std::array::from_fn(|index| first + index as u8)
}

#[test]
fn hello() {
    let hello = Hello {
        magic: MAGIC,
        version: VERSION.into(),
        network: Network::Cellular.to_wire(),
        reserved: 0,
        capabilities: capabilities::NONE.into(),
        digest: CursorDigest::default().to_wire().into(),
        heartbeat_ms: 28_000.into(),
        reserved_end: 0.into(),
    };
    same("hello", Flags::NONE, &Frame::Hello(&hello));
}

#[test]
fn welcome() {
    let welcome = Welcome {
        version: VERSION.into(),
        unacked_sends_max: (UNACKED_SENDS_MAX as u16).into(),
        content_bytes_max: (CONTENT_BYTES_DEFAULT as u32).into(),
        capabilities: capabilities::NONE.into(),
        server_time: TIME_MS.into(),
        reserved: 0.into(),
    };
    same("welcome", Flags::NONE, &Frame::Welcome(&welcome));
}

#[test]
fn login() {
    let secret = counting_from(0);
    let login = Login { uin: 10_001.into(), device: 1.into(), reserved: 0.into(), secret };
    same("login", Flags::NONE, &Frame::Login(&login));
}

#[test]
fn token_login() {
    let login = TokenLogin { uin: 0.into(), device: 0.into(), reserved: 0.into() };
    same("token_login", Flags::NONE, &Frame::TokenLogin(&login, b"aGk.e30.c2ln"));
}

#[test]
fn identity() {
    let identity = Identity { uin: 10_001.into(), device: 1.into(), reserved: 0.into() };
    same("identity", Flags::NONE, &Frame::Identity(&identity));
}

#[test]
fn resume() {
    let token = counting_from(0xe0);
    let resume = Resume { uin: 10_001.into(), device: 1.into(), epoch: 7.into(), token };
    same("resume", Flags::NONE, &Frame::Resume(&resume));
}

#[test]
fn logged_in() {
    let logged_in = LoggedIn {
        epoch: 7.into(),
        heartbeat_ms: 25_000.into(),
        resume_ms: 600_000.into(),
        resumed: 1,
        known: 1,
        reserved: [0; 2],
        token: counting_from(0xe0),
    };
    same("logged_in", Flags::NONE, &Frame::LoggedIn(&logged_in));
}

#[test]
fn cursors() {
    let group = ChannelId::group(77);
    let list = [
        Cursor { channel: direct(), id: 41.into(), incarnation: 2.into(), reserved: 0.into() },
        Cursor { channel: group, id: 0.into(), incarnation: 0.into(), reserved: 0.into() },
    ];
    same("cursors", Flags::LAST, &Frame::Cursors(&list));
}

#[test]
fn send() {
    let send = Send {
        channel: direct(),
        epoch: 7.into(),
        counter: 9.into(),
        predecessor: 8.into(),
        content_type: content_type::TEXT.into(),
        kind: message_kind::CONTENT,
        version: 1,
        refers_to: 40.into(),
    };
    same("send", Flags::NONE, &Frame::Send(&send, b"tern"));
    assert_eq!(send.key().to_string(), "7.9");
}

#[test]
fn send_ack() {
    let ack = SendAck {
        channel: direct(),
        epoch: 7.into(),
        counter: 9.into(),
        id: 42.into(),
        server_time: TIME_MS.into(),
    };
    same("send_ack", Flags::NONE, &Frame::SendAck(&ack));
}

#[test]
fn send_refused() {
    let refused = SendRefused {
        channel: direct(),
        epoch: 7.into(),
        counter: 9.into(),
        code: Code::RateLimited.0.into(),
        member: 0.into(),
        retry_after_ms: 1_500.into(),
    };
    same("send_refused", Flags::NONE, &Frame::SendRefused(&refused));
}

fn message() -> PushBody {
    PushBody {
        channel: direct(),
        id: 42.into(),
        sender: 10_001.into(),
        device: 1.into(),
        epoch: 7.into(),
        counter: 9.into(),
        content_type: content_type::TEXT.into(),
        kind: message_kind::CONTENT,
        version: 1,
        server_time: TIME_MS.into(),
        refers_to: 40.into(),
    }
}

#[test]
fn push() {
    same("push", Flags::NONE, &Frame::Push(&message(), b"tern"));
}

#[test]
fn history_ask() {
    let (before, limit) = (43.into(), 20.into());
    let ask = HistoryAsk { channel: direct(), before, limit, reserved: 0.into() };
    same("history_ask", Flags::NONE, &Frame::HistoryAsk(&ask));
}

#[test]
fn history() {
    let page = HistoryPage {
        channel: direct(),
        before: 43.into(),
        from: 39.into(),
        to: 42.into(),
        oldest: 39.into(),
        newest: 256.into(),
        incarnation: 2.into(),
        code: Code::Expired.0.into(),
        reserved: 0.into(),
    };
    let (body, content) = (message(), &b"tern"[..]);
    let bytes = (size_of::<PushBody>() + content.len()) as u16;
    let gap = HistoryEntry { ids: 3.into(), bytes: 0.into(), code: Code::Lost.0.into() };
    let head = HistoryEntry { ids: 1.into(), bytes: bytes.into(), code: 0.into() };
    let entries = [gap.as_bytes(), head.as_bytes(), body.as_bytes(), content].concat();
    same("history", Flags::LAST, &Frame::History(&page, &entries));

    let (first, rest) = split_entry(&entries).expect("a gap");
    assert_eq!(first, Entry::Gap { ids: 3, code: Code::Lost });
    assert_eq!(split_entry(rest), Some((Entry::Message(&body, content), &[][..])));
    for cut in 1..rest.len() {
        assert_eq!(split_entry(&rest[..cut]), None, "{cut} bytes of an entry");
    }
}

#[test]
fn history_wanted() {
    let wanted = HistoryWanted { newest: 50.into(), reserved: 0.into() };
    same("history_wanted", Flags::NONE, &Frame::HistoryWanted(&wanted));
}

#[test]
fn channels_shown() {
    let shown = ChannelsShown { channels: 300.into(), reserved: 0.into() };
    same("channels_shown", Flags::NONE, &Frame::ChannelsShown(&shown));
}

#[test]
fn receive_ack() {
    let (id, incarnation) = (42.into(), 2.into());
    let list = [Cursor { channel: direct(), id, incarnation, reserved: 0.into() }];
    same("receive_ack", Flags::NONE, &Frame::ReceiveAck(&list));
}

#[test]
fn fetch() {
    let fetch = Fetch { channel: direct(), from: 38.into(), to: 41.into() };
    same("fetch", Flags::NONE, &Frame::Fetch(&fetch));
}

#[test]
fn channel() {
    let state = ChannelState {
        channel: direct(),
        incarnation: 3.into(),
        reserved: 0.into(),
        oldest: 5.into(),
        newest: 40.into(),
        restarted_at: 36.into(),
    };
    same("channel", Flags::NONE, &Frame::Channel(&state));
}

#[test]
fn gap() {
    let (channel, code) = (direct(), Code::Lost.0.into());
    let gap = Gap { channel, from: 12.into(), to: 13.into(), code, reserved: [0; 6] };
    same("gap", Flags::NONE, &Frame::Gap(&gap));
}

#[test]
fn group_info() {
    let info = GroupInfo { channel: ChannelId::group(77), after: 10_001.into() };
    same("group_info", Flags::NONE, &Frame::GroupInfo(&info));
}

#[test]
fn group_page() {
    let page = GroupPage {
        channel: ChannelId::group(77),
        after: 10_001.into(),
        version: 5.into(),
        members: 3.into(),
        settings: settings::MEMBERS_ADD | settings::OPEN,
        reserved: 0,
        name_bytes: 4.into(),
    };
    let member = |uin: u64, role, muted_until: u64| GroupMember {
        uin: uin.into(),
        muted_until: muted_until.into(),
        role,
        reserved: [0; 7],
    };
    let members = [member(10_002, role::MEMBER, TIME_MS), member(10_003, role::ADMIN, 0)];
    let rest = [b"tern", members.as_bytes()].concat();
    same("group_page", Flags::LAST, &Frame::GroupPage(&page, &rest));
    assert_eq!(group::page_parts(&page, &rest), Some((&b"tern"[..], &members[..])));
    assert_eq!(group::page_parts(&page, &rest[..rest.len() - 1]), None);
}

#[test]
fn change() {
    let key = SendKey { epoch: Epoch(7), counter: SendCounter(9) };
    let send = Send {
        channel: group::channel_of(Uin(10_001), DeviceId(1), key),
        epoch: 7.into(),
        counter: 9.into(),
        predecessor: 8.into(),
        content_type: content_type::OPAQUE.into(),
        kind: message_kind::CHANGE,
        version: 1,
        refers_to: 0.into(),
    };
    let change = Change {
        action: action::CREATE,
        role: 0,
        settings: settings::HISTORY_ALL | settings::MEMBERS_ADD,
        reserved: 0,
        members: 3.into(),
        name_bytes: 8.into(),
        until: 0.into(),
    };
    let members = [10_002.into(), 10_003.into(), 10_004.into()];
    let view = ChangeView { head: &change, members: &members, name: b"colonies" };
    let mut content = [0; group::CHANGE_BYTES_MAX];
    let bytes = view.encode(&mut content);
    same("change", Flags::NONE, &Frame::Send(&send, &content[..bytes]));
    assert_eq!(ChangeView::parse(&content[..bytes]), Some(view));
    assert!(view.is_valid());
}

#[test]
fn a_block_and_its_answer() {
    let asked = Block { uin: 10_002.into(), action: block::BEGIN, reserved: [0; 7] };
    same("block", Flags::NONE, &Frame::Block(&asked));
    let answer = Blocked {
        uin: 10_002.into(),
        action: block::BEGIN,
        reserved: 0,
        code: Code::DiskFull.0.into(),
        retry_after_ms: 5_000.into(),
    };
    same("blocked", Flags::NONE, &Frame::Blocked(&answer));
}

#[test]
fn a_page_of_blocks() {
    let after = 10_001.into();
    same("block_list", Flags::NONE, &Frame::BlockList(&BlockList { after }));
    let uins: [U64; 2] = [10_002.into(), 10_003.into()];
    let page = Frame::BlockPage(&BlockPage { after }, uins.as_bytes());
    same("block_page", Flags::LAST, &page);
}

#[test]
fn ping() {
    let mut digest = CursorDigest::default();
    digest.add(ChannelId::group(77), MessageId(4), Incarnation(1));
    digest.add(direct(), MessageId(41), Incarnation(2));
    digest.add(direct(), MessageId(0), Incarnation(2));
    digest.remove(ChannelId::group(77), MessageId(4), Incarnation(1));
    let ping = Ping {
        sequence: 3.into(),
        network: Network::Wifi.to_wire(),
        reserved: [0; 3],
        digest: digest.to_wire().into(),
        heartbeat_ms: 30_000.into(),
        reserved_end: 0.into(),
    };
    same("ping", Flags::NONE, &Frame::Ping(&ping));
}

#[test]
fn pong() {
    let (sequence, heartbeat_ms) = (3.into(), 30_000.into());
    let server_time = TIME_MS.into();
    let pong = Pong { sequence, heartbeat_ms, server_time, moved: 1, reserved: [0; 7] };
    same("pong", Flags::NONE, &Frame::Pong(&pong));
}

#[test]
fn read() {
    let (id, incarnation) = (41.into(), 2.into());
    let loud = ReadMark { channel: direct(), id, incarnation, quiet: 0, reserved: [0; 3] };
    let (channel, id, incarnation) = (ChannelId::group(77), 7.into(), 1.into());
    let quiet = ReadMark { channel, id, incarnation, quiet: 1, reserved: [0; 3] };
    same("read", Flags::NONE, &Frame::Read(&[loud, quiet]));
}

#[test]
fn marks_ask() {
    let ask = MarksAsk { life: TIME_MS.into(), since: 5.into() };
    same("marks_ask", Flags::NONE, &Frame::MarksAsk(&ask));
}

#[test]
fn marks() {
    let head = Marks { life: TIME_MS.into(), as_of: 6.into() };
    let mark = Mark {
        channel: direct(),
        uin: 10_002.into(),
        delivered: 42.into(),
        read: 41.into(),
        incarnation: 2.into(),
        reserved: 0.into(),
    };
    same("marks", Flags::LAST, &Frame::Marks(&head, mark.as_bytes()));
}

#[test]
fn receipts_ask() {
    let ask = ReceiptsAsk { channel: ChannelId::group(77), id: 9.into() };
    same("receipts_ask", Flags::NONE, &Frame::ReceiptsAsk(&ask));
}

#[test]
fn receipts() {
    let receipts = Receipts {
        channel: ChannelId::group(77),
        id: 9.into(),
        members: 80.into(),
        delivered: 60.into(),
        read: 30.into(),
        reserved: 0.into(),
    };
    same("receipts", Flags::NONE, &Frame::Receipts(&receipts));
}

#[test]
fn unread_ask() {
    let (id, incarnation) = (41.into(), 2.into());
    let list = [Cursor { channel: direct(), id, incarnation, reserved: 0.into() }];
    same("unread_ask", Flags::NONE, &Frame::UnreadAsk(&list));
}

#[test]
fn unread() {
    let count = UnreadCount {
        channel: direct(),
        after: 41.into(),
        newest: 256.into(),
        count: 100.into(),
        code: 0.into(),
        more: 1,
        reserved: [0; 3],
    };
    same("unread", Flags::LAST, &Frame::Unread(&[count]));
}

#[test]
fn ask_cursors() {
    let digest = CursorDigest::default().to_wire().into();
    let ask = AskCursors { digest, sequence: 1.into(), reserved: 0.into() };
    same("ask_cursors", Flags::NONE, &Frame::AskCursors(&ask));
}

#[test]
fn error() {
    let code = Code::UnknownKind.0.into();
    let head = ErrorHead { code, kind: 0x7f, flags: 0x80, retry_after_ms: 0.into() };
    same("error", Flags::NONE, &Frame::Error(&head, b"kind?"));
}

#[test]
fn close() {
    let code = Code::Draining.0.into();
    let close = Close { code, slot_tenths: 0.into(), come_back_ms: 1_000.into() };
    same("close", Flags::NONE, &Frame::Close(&close, b"soon"));
}

/// A newer peer's kind and flags come through, and print as numbers.
#[test]
fn what_is_unknown_survives() {
    let (kind, flags) = (Kind(0x7f), Flags(0x81));
    same("unknown", flags, &Frame::Unknown(kind, &[1, 2, 3]));
    assert_eq!(kind.to_string(), "kind 0x7f");
    assert!(flags.has(Flags::LAST) && flags.has_unknown());
    assert!(!Flags::LAST.has_unknown());
    assert_eq!(Code(0x7777).to_string(), "code 0x7777");
}

#[test]
fn each_vector_is_of_the_kind_it_is_named_after() {
    for row in Kind::ALL {
        let golden = vectors::bytes(&row.label.to_lowercase());
        let (frame, _) = Frame::parse(&golden).expect("a vector decodes");
        assert_eq!(frame.kind(), row.kind);
    }
    let files = std::fs::read_dir(vectors::folder()).expect("the folder of the vectors");
    assert_eq!(files.count(), vectors::all().len(), "a file in testdata/ that no kind is named by");
}

/// Several frames stand behind each other in the stream; the header alone cuts them apart.
#[test]
fn a_stream_is_cut_by_the_headers() {
    let golden = vectors::all();
    let stream: Vec<u8> = golden.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let mut rest = &stream[..];
    for (name, bytes) in &golden {
        let header = tern_protocol::Header::peek(rest).expect("four bytes");
        let (frame, behind) = rest.split_at(header.frame_bytes());
        assert_eq!(frame, bytes, "{name}");
        rest = behind;
    }
    assert!(rest.is_empty());
}
