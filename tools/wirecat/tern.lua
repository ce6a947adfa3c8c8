-- Tern's frames in Wireshark and tshark. Written from the registry by `wirecat --lua`.
--
--   tshark -X lua_script:tern.lua -o tls.keylog_file:keys.txt -r talk.pcap -Y tern

local KINDS = {
    [0x01] = "HELLO",
    [0x02] = "WELCOME",
    [0x03] = "LOGIN",
    [0x04] = "RESUME",
    [0x05] = "LOGGED_IN",
    [0x06] = "CURSORS",
    [0x07] = "TOKEN_LOGIN",
    [0x08] = "IDENTITY",
    [0x10] = "SEND",
    [0x11] = "SEND_ACK",
    [0x12] = "SEND_REFUSED",
    [0x13] = "PUSH",
    [0x14] = "RECEIVE_ACK",
    [0x15] = "FETCH",
    [0x16] = "CHANNEL",
    [0x17] = "GAP",
    [0x18] = "GROUP_INFO",
    [0x19] = "GROUP_PAGE",
    [0x20] = "PING",
    [0x21] = "PONG",
    [0x22] = "ASK_CURSORS",
    [0x24] = "HISTORY_ASK",
    [0x25] = "HISTORY",
    [0x26] = "HISTORY_WANTED",
    [0x27] = "CHANNELS_SHOWN",
    [0x28] = "READ",
    [0x29] = "MARKS_ASK",
    [0x2a] = "MARKS",
    [0x2b] = "RECEIPTS_ASK",
    [0x2c] = "RECEIPTS",
    [0x2d] = "UNREAD_ASK",
    [0x2e] = "UNREAD",
    [0x30] = "BLOCK",
    [0x31] = "BLOCKED",
    [0x32] = "BLOCK_LIST",
    [0x33] = "BLOCK_PAGE",
    [0x3e] = "ERROR",
    [0x3f] = "CLOSE",
}

local CODES = {
    [0x0001] = "MALFORMED",
    [0x0002] = "UNKNOWN_KIND",
    [0x0003] = "UNKNOWN_FLAG",
    [0x0004] = "WRONG_STATE",
    [0x0005] = "WRONG_DIRECTION",
    [0x0006] = "VERSION",
    [0x0007] = "STREAM_NOT_ALLOWED",
    [0x0008] = "TOO_SLOW",
    [0x0009] = "SLOW_READER",
    [0x0010] = "BAD_CREDENTIALS",
    [0x0011] = "USER_DISABLED",
    [0x0012] = "DEVICE_REVOKED",
    [0x0013] = "RESUME_UNKNOWN",
    [0x0014] = "FENCED",
    [0x0015] = "TOKEN_INVALID",
    [0x0016] = "TOKEN_EXPIRED",
    [0x0017] = "TOKEN_EARLY",
    [0x0018] = "TOKEN_KEY_UNKNOWN",
    [0x0019] = "TOKENS_NOT_TAKEN",
    [0x001a] = "SECRET_CHANGED",
    [0x0020] = "NOT_A_MEMBER",
    [0x0021] = "NO_SUCH_USER",
    [0x0022] = "CONTENT_TOO_LONG",
    [0x0023] = "KEY_CONFLICT",
    [0x0024] = "KEY_CLOSED",
    [0x0025] = "KEY_UNKNOWN",
    [0x0026] = "KEY_AHEAD",
    [0x0027] = "KEY_INVALID",
    [0x0028] = "TOO_MANY_CHANNELS",
    [0x0029] = "RATE_LIMITED",
    [0x002a] = "BUSY",
    [0x002b] = "PREDECESSOR",
    [0x002c] = "DISK_FULL",
    [0x002d] = "SHARD_STOPPED",
    [0x002e] = "KIND_UNKNOWN",
    [0x002f] = "CHANNELS_FULL",
    [0x0030] = "GROUP_EXISTS",
    [0x0031] = "GROUP_DISSOLVED",
    [0x0032] = "GROUP_FULL",
    [0x0033] = "CHANGE_INVALID",
    [0x0034] = "CHANGES_NOTHING",
    [0x0035] = "NOT_ALLOWED",
    [0x0036] = "MUTED",
    [0x0037] = "NO_SUCH_MEMBER",
    [0x0038] = "OWNER_STAYS",
    [0x0040] = "NOT_GRANTED",
    [0x0041] = "RANGE_TOO_LONG",
    [0x0042] = "LOST",
    [0x0043] = "EXPIRED",
    [0x0044] = "NOT_VISIBLE",
    [0x0045] = "RECALLED",
    [0x0046] = "SKIPPED",
    [0x0050] = "LOGGED_OUT",
    [0x0051] = "DRAINING",
    [0x0052] = "OFFLINE",
    [0x0053] = "INTERNAL",
    [0x0060] = "USER_RATE_LIMITED",
    [0x0061] = "TOO_MANY_REQUESTS",
    [0x0062] = "TOO_MANY_SESSIONS",
    [0x0063] = "TOO_MANY_DEVICES",
    [0x0070] = "NO_SUCH_MESSAGE",
    [0x0071] = "NOT_YOURS",
    [0x0072] = "TOO_LATE",
    [0x0073] = "NOT_CONTENT",
    [0x0074] = "ALREADY_RECALLED",
    [0x0075] = "REFERENCE_INVALID",
    [0x0076] = "BLOCKS_FULL",
    [0x0077] = "BLOCK_INVALID",
}

local tern = Proto("tern", "Tern instant messaging")

local f = {
    length = ProtoField.uint16("tern.length", "Payload bytes", base.DEC),
    kind = ProtoField.uint8("tern.kind", "Kind", base.HEX, KINDS),
    flags = ProtoField.uint8("tern.flags", "Flags", base.HEX),
    last = ProtoField.bool("tern.flags.last", "Last of a list", 8, nil, 1),
    payload = ProtoField.bytes("tern.payload", "Payload"),
    hello_magic = ProtoField.bytes("tern.hello.magic", "magic"),
    hello_version = ProtoField.uint16("tern.hello.version", "version", base.DEC),
    hello_network = ProtoField.uint8("tern.hello.network", "network", base.DEC),
    hello_capabilities = ProtoField.uint64("tern.hello.capabilities", "capabilities", base.DEC),
    hello_digest = ProtoField.uint64("tern.hello.digest", "digest", base.DEC),
    hello_heartbeat_ms = ProtoField.uint32("tern.hello.heartbeat_ms", "heartbeat_ms", base.DEC),
    hello_reserved_end = ProtoField.uint32("tern.hello.reserved_end", "reserved_end", base.DEC),
    welcome_version = ProtoField.uint16("tern.welcome.version", "version", base.DEC),
    welcome_unacked_sends_max = ProtoField.uint16("tern.welcome.unacked_sends_max", "unacked_sends_max", base.DEC),
    welcome_content_bytes_max = ProtoField.uint32("tern.welcome.content_bytes_max", "content_bytes_max", base.DEC),
    welcome_capabilities = ProtoField.uint64("tern.welcome.capabilities", "capabilities", base.DEC),
    welcome_server_time = ProtoField.uint64("tern.welcome.server_time", "server_time", base.DEC),
    login_uin = ProtoField.uint64("tern.login.uin", "uin", base.DEC),
    login_device = ProtoField.uint32("tern.login.device", "device", base.DEC),
    login_secret = ProtoField.bytes("tern.login.secret", "secret"),
    resume_uin = ProtoField.uint64("tern.resume.uin", "uin", base.DEC),
    resume_device = ProtoField.uint32("tern.resume.device", "device", base.DEC),
    resume_epoch = ProtoField.uint32("tern.resume.epoch", "epoch", base.DEC),
    resume_token = ProtoField.bytes("tern.resume.token", "token"),
    logged_in_epoch = ProtoField.uint32("tern.logged_in.epoch", "epoch", base.DEC),
    logged_in_heartbeat_ms = ProtoField.uint32("tern.logged_in.heartbeat_ms", "heartbeat_ms", base.DEC),
    logged_in_resume_ms = ProtoField.uint32("tern.logged_in.resume_ms", "resume_ms", base.DEC),
    logged_in_resumed = ProtoField.uint8("tern.logged_in.resumed", "resumed", base.DEC),
    logged_in_known = ProtoField.uint8("tern.logged_in.known", "known", base.DEC),
    logged_in_token = ProtoField.bytes("tern.logged_in.token", "token"),
    cursors_channel = ProtoField.string("tern.cursors.channel", "channel"),
    cursors_id = ProtoField.uint64("tern.cursors.id", "id", base.DEC),
    cursors_incarnation = ProtoField.uint32("tern.cursors.incarnation", "incarnation", base.DEC),
    token_login_uin = ProtoField.uint64("tern.token_login.uin", "uin", base.DEC),
    token_login_device = ProtoField.uint32("tern.token_login.device", "device", base.DEC),
    token_login_token = ProtoField.bytes("tern.token_login.token", "token"),
    identity_uin = ProtoField.uint64("tern.identity.uin", "uin", base.DEC),
    identity_device = ProtoField.uint32("tern.identity.device", "device", base.DEC),
    send_channel = ProtoField.string("tern.send.channel", "channel"),
    send_epoch = ProtoField.uint32("tern.send.epoch", "epoch", base.DEC),
    send_counter = ProtoField.uint32("tern.send.counter", "counter", base.DEC),
    send_predecessor = ProtoField.uint32("tern.send.predecessor", "predecessor", base.DEC),
    send_content_type = ProtoField.uint16("tern.send.content_type", "content_type", base.DEC),
    send_kind = ProtoField.uint8("tern.send.kind", "kind", base.DEC),
    send_version = ProtoField.uint8("tern.send.version", "version", base.DEC),
    send_refers_to = ProtoField.uint64("tern.send.refers_to", "refers_to", base.DEC),
    send_content = ProtoField.bytes("tern.send.content", "content"),
    send_ack_channel = ProtoField.string("tern.send_ack.channel", "channel"),
    send_ack_epoch = ProtoField.uint32("tern.send_ack.epoch", "epoch", base.DEC),
    send_ack_counter = ProtoField.uint32("tern.send_ack.counter", "counter", base.DEC),
    send_ack_id = ProtoField.uint64("tern.send_ack.id", "id", base.DEC),
    send_ack_server_time = ProtoField.uint64("tern.send_ack.server_time", "server_time", base.DEC),
    send_refused_channel = ProtoField.string("tern.send_refused.channel", "channel"),
    send_refused_epoch = ProtoField.uint32("tern.send_refused.epoch", "epoch", base.DEC),
    send_refused_counter = ProtoField.uint32("tern.send_refused.counter", "counter", base.DEC),
    send_refused_code = ProtoField.uint16("tern.send_refused.code", "code", base.HEX, CODES),
    send_refused_member = ProtoField.uint16("tern.send_refused.member", "member", base.DEC),
    send_refused_retry_after_ms = ProtoField.uint32("tern.send_refused.retry_after_ms", "retry_after_ms", base.DEC),
    push_channel = ProtoField.string("tern.push.channel", "channel"),
    push_id = ProtoField.uint64("tern.push.id", "id", base.DEC),
    push_sender = ProtoField.uint64("tern.push.sender", "sender", base.DEC),
    push_device = ProtoField.uint32("tern.push.device", "device", base.DEC),
    push_epoch = ProtoField.uint32("tern.push.epoch", "epoch", base.DEC),
    push_counter = ProtoField.uint32("tern.push.counter", "counter", base.DEC),
    push_content_type = ProtoField.uint16("tern.push.content_type", "content_type", base.DEC),
    push_kind = ProtoField.uint8("tern.push.kind", "kind", base.DEC),
    push_version = ProtoField.uint8("tern.push.version", "version", base.DEC),
    push_server_time = ProtoField.uint64("tern.push.server_time", "server_time", base.DEC),
    push_refers_to = ProtoField.uint64("tern.push.refers_to", "refers_to", base.DEC),
    push_content = ProtoField.bytes("tern.push.content", "content"),
    receive_ack_channel = ProtoField.string("tern.receive_ack.channel", "channel"),
    receive_ack_id = ProtoField.uint64("tern.receive_ack.id", "id", base.DEC),
    receive_ack_incarnation = ProtoField.uint32("tern.receive_ack.incarnation", "incarnation", base.DEC),
    fetch_channel = ProtoField.string("tern.fetch.channel", "channel"),
    fetch_from = ProtoField.uint64("tern.fetch.from", "from", base.DEC),
    fetch_to = ProtoField.uint64("tern.fetch.to", "to", base.DEC),
    channel_channel = ProtoField.string("tern.channel.channel", "channel"),
    channel_incarnation = ProtoField.uint32("tern.channel.incarnation", "incarnation", base.DEC),
    channel_oldest = ProtoField.uint64("tern.channel.oldest", "oldest", base.DEC),
    channel_newest = ProtoField.uint64("tern.channel.newest", "newest", base.DEC),
    channel_restarted_at = ProtoField.uint64("tern.channel.restarted_at", "restarted_at", base.DEC),
    gap_channel = ProtoField.string("tern.gap.channel", "channel"),
    gap_from = ProtoField.uint64("tern.gap.from", "from", base.DEC),
    gap_to = ProtoField.uint64("tern.gap.to", "to", base.DEC),
    gap_code = ProtoField.uint16("tern.gap.code", "code", base.HEX, CODES),
    group_info_channel = ProtoField.string("tern.group_info.channel", "channel"),
    group_info_after = ProtoField.uint64("tern.group_info.after", "after", base.DEC),
    group_page_channel = ProtoField.string("tern.group_page.channel", "channel"),
    group_page_after = ProtoField.uint64("tern.group_page.after", "after", base.DEC),
    group_page_version = ProtoField.uint64("tern.group_page.version", "version", base.DEC),
    group_page_members = ProtoField.uint32("tern.group_page.members", "members", base.DEC),
    group_page_settings = ProtoField.uint8("tern.group_page.settings", "settings", base.DEC),
    group_page_name_bytes = ProtoField.uint16("tern.group_page.name_bytes", "name_bytes", base.DEC),
    group_page_name_and_members = ProtoField.bytes("tern.group_page.name_and_members", "name and members"),
    ping_sequence = ProtoField.uint32("tern.ping.sequence", "sequence", base.DEC),
    ping_network = ProtoField.uint8("tern.ping.network", "network", base.DEC),
    ping_digest = ProtoField.uint64("tern.ping.digest", "digest", base.DEC),
    ping_heartbeat_ms = ProtoField.uint32("tern.ping.heartbeat_ms", "heartbeat_ms", base.DEC),
    ping_reserved_end = ProtoField.uint32("tern.ping.reserved_end", "reserved_end", base.DEC),
    pong_sequence = ProtoField.uint32("tern.pong.sequence", "sequence", base.DEC),
    pong_heartbeat_ms = ProtoField.uint32("tern.pong.heartbeat_ms", "heartbeat_ms", base.DEC),
    pong_server_time = ProtoField.uint64("tern.pong.server_time", "server_time", base.DEC),
    pong_moved = ProtoField.uint8("tern.pong.moved", "moved", base.DEC),
    ask_cursors_digest = ProtoField.uint64("tern.ask_cursors.digest", "digest", base.DEC),
    ask_cursors_sequence = ProtoField.uint32("tern.ask_cursors.sequence", "sequence", base.DEC),
    history_ask_channel = ProtoField.string("tern.history_ask.channel", "channel"),
    history_ask_before = ProtoField.uint64("tern.history_ask.before", "before", base.DEC),
    history_ask_limit = ProtoField.uint32("tern.history_ask.limit", "limit", base.DEC),
    history_channel = ProtoField.string("tern.history.channel", "channel"),
    history_before = ProtoField.uint64("tern.history.before", "before", base.DEC),
    history_from = ProtoField.uint64("tern.history.from", "from", base.DEC),
    history_to = ProtoField.uint64("tern.history.to", "to", base.DEC),
    history_oldest = ProtoField.uint64("tern.history.oldest", "oldest", base.DEC),
    history_newest = ProtoField.uint64("tern.history.newest", "newest", base.DEC),
    history_incarnation = ProtoField.uint32("tern.history.incarnation", "incarnation", base.DEC),
    history_code = ProtoField.uint16("tern.history.code", "code", base.HEX, CODES),
    history_entries = ProtoField.bytes("tern.history.entries", "entries"),
    history_wanted_newest = ProtoField.uint32("tern.history_wanted.newest", "newest", base.DEC),
    channels_shown_channels = ProtoField.uint32("tern.channels_shown.channels", "channels", base.DEC),
    read_channel = ProtoField.string("tern.read.channel", "channel"),
    read_id = ProtoField.uint64("tern.read.id", "id", base.DEC),
    read_incarnation = ProtoField.uint32("tern.read.incarnation", "incarnation", base.DEC),
    read_quiet = ProtoField.uint8("tern.read.quiet", "quiet", base.DEC),
    marks_ask_life = ProtoField.uint64("tern.marks_ask.life", "life", base.DEC),
    marks_ask_since = ProtoField.uint64("tern.marks_ask.since", "since", base.DEC),
    marks_life = ProtoField.uint64("tern.marks.life", "life", base.DEC),
    marks_as_of = ProtoField.uint64("tern.marks.as_of", "as_of", base.DEC),
    marks_marks = ProtoField.bytes("tern.marks.marks", "marks"),
    receipts_ask_channel = ProtoField.string("tern.receipts_ask.channel", "channel"),
    receipts_ask_id = ProtoField.uint64("tern.receipts_ask.id", "id", base.DEC),
    receipts_channel = ProtoField.string("tern.receipts.channel", "channel"),
    receipts_id = ProtoField.uint64("tern.receipts.id", "id", base.DEC),
    receipts_members = ProtoField.uint32("tern.receipts.members", "members", base.DEC),
    receipts_delivered = ProtoField.uint32("tern.receipts.delivered", "delivered", base.DEC),
    receipts_read = ProtoField.uint32("tern.receipts.read", "read", base.DEC),
    unread_ask_channel = ProtoField.string("tern.unread_ask.channel", "channel"),
    unread_ask_id = ProtoField.uint64("tern.unread_ask.id", "id", base.DEC),
    unread_ask_incarnation = ProtoField.uint32("tern.unread_ask.incarnation", "incarnation", base.DEC),
    unread_channel = ProtoField.string("tern.unread.channel", "channel"),
    unread_after = ProtoField.uint64("tern.unread.after", "after", base.DEC),
    unread_newest = ProtoField.uint64("tern.unread.newest", "newest", base.DEC),
    unread_count = ProtoField.uint16("tern.unread.count", "count", base.DEC),
    unread_code = ProtoField.uint16("tern.unread.code", "code", base.HEX, CODES),
    unread_more = ProtoField.uint8("tern.unread.more", "more", base.DEC),
    block_uin = ProtoField.uint64("tern.block.uin", "uin", base.DEC),
    block_action = ProtoField.uint8("tern.block.action", "action", base.DEC),
    blocked_uin = ProtoField.uint64("tern.blocked.uin", "uin", base.DEC),
    blocked_action = ProtoField.uint8("tern.blocked.action", "action", base.DEC),
    blocked_code = ProtoField.uint16("tern.blocked.code", "code", base.HEX, CODES),
    blocked_retry_after_ms = ProtoField.uint32("tern.blocked.retry_after_ms", "retry_after_ms", base.DEC),
    block_list_after = ProtoField.uint64("tern.block_list.after", "after", base.DEC),
    block_page_after = ProtoField.uint64("tern.block_page.after", "after", base.DEC),
    block_page_uins = ProtoField.bytes("tern.block_page.uins", "uins"),
    error_code = ProtoField.uint16("tern.error.code", "code", base.HEX, CODES),
    error_kind = ProtoField.uint8("tern.error.kind", "kind", base.HEX, KINDS),
    error_flags = ProtoField.uint8("tern.error.flags", "flags", base.DEC),
    error_retry_after_ms = ProtoField.uint32("tern.error.retry_after_ms", "retry_after_ms", base.DEC),
    error_text = ProtoField.string("tern.error.text", "text"),
    close_code = ProtoField.uint16("tern.close.code", "code", base.HEX, CODES),
    close_slot_tenths = ProtoField.uint16("tern.close.slot_tenths", "slot_tenths", base.DEC),
    close_come_back_ms = ProtoField.uint32("tern.close.come_back_ms", "come_back_ms", base.DEC),
    close_text = ProtoField.string("tern.close.text", "text"),
}
tern.fields = f

local LAYOUTS = {
    [0x01] = { fixed = 32, tail = "none", fields = {
        { "hello_magic", 0, 4, "bytes" },
        { "hello_version", 4, 2, "number" },
        { "hello_network", 6, 1, "number" },
        { "hello_capabilities", 8, 8, "number" },
        { "hello_digest", 16, 8, "number" },
        { "hello_heartbeat_ms", 24, 4, "number" },
        { "hello_reserved_end", 28, 4, "number" },
    } },
    [0x02] = { fixed = 32, tail = "none", fields = {
        { "welcome_version", 0, 2, "number" },
        { "welcome_unacked_sends_max", 2, 2, "number" },
        { "welcome_content_bytes_max", 4, 4, "number" },
        { "welcome_capabilities", 8, 8, "number" },
        { "welcome_server_time", 16, 8, "number" },
    } },
    [0x03] = { fixed = 48, tail = "none", fields = {
        { "login_uin", 0, 8, "number" },
        { "login_device", 8, 4, "number" },
        { "login_secret", 16, 32, "bytes" },
    } },
    [0x04] = { fixed = 48, tail = "none", fields = {
        { "resume_uin", 0, 8, "number" },
        { "resume_device", 8, 4, "number" },
        { "resume_epoch", 12, 4, "number" },
        { "resume_token", 16, 32, "bytes" },
    } },
    [0x05] = { fixed = 48, tail = "none", fields = {
        { "logged_in_epoch", 0, 4, "number" },
        { "logged_in_heartbeat_ms", 4, 4, "number" },
        { "logged_in_resume_ms", 8, 4, "number" },
        { "logged_in_resumed", 12, 1, "number" },
        { "logged_in_known", 13, 1, "number" },
        { "logged_in_token", 16, 32, "bytes" },
    } },
    [0x06] = { fixed = 32, tail = "repeat", fields = {
        { "cursors_channel", 0, 16, "channel" },
        { "cursors_id", 16, 8, "number" },
        { "cursors_incarnation", 24, 4, "number" },
    } },
    [0x07] = { fixed = 16, tail = "token_login_token", fields = {
        { "token_login_uin", 0, 8, "number" },
        { "token_login_device", 8, 4, "number" },
    } },
    [0x08] = { fixed = 16, tail = "none", fields = {
        { "identity_uin", 0, 8, "number" },
        { "identity_device", 8, 4, "number" },
    } },
    [0x10] = { fixed = 40, tail = "send_content", fields = {
        { "send_channel", 0, 16, "channel" },
        { "send_epoch", 16, 4, "number" },
        { "send_counter", 20, 4, "number" },
        { "send_predecessor", 24, 4, "number" },
        { "send_content_type", 28, 2, "number" },
        { "send_kind", 30, 1, "number" },
        { "send_version", 31, 1, "number" },
        { "send_refers_to", 32, 8, "number" },
    } },
    [0x11] = { fixed = 40, tail = "none", fields = {
        { "send_ack_channel", 0, 16, "channel" },
        { "send_ack_epoch", 16, 4, "number" },
        { "send_ack_counter", 20, 4, "number" },
        { "send_ack_id", 24, 8, "number" },
        { "send_ack_server_time", 32, 8, "number" },
    } },
    [0x12] = { fixed = 32, tail = "none", fields = {
        { "send_refused_channel", 0, 16, "channel" },
        { "send_refused_epoch", 16, 4, "number" },
        { "send_refused_counter", 20, 4, "number" },
        { "send_refused_code", 24, 2, "number" },
        { "send_refused_member", 26, 2, "number" },
        { "send_refused_retry_after_ms", 28, 4, "number" },
    } },
    [0x13] = { fixed = 64, tail = "push_content", fields = {
        { "push_channel", 0, 16, "channel" },
        { "push_id", 16, 8, "number" },
        { "push_sender", 24, 8, "number" },
        { "push_device", 32, 4, "number" },
        { "push_epoch", 36, 4, "number" },
        { "push_counter", 40, 4, "number" },
        { "push_content_type", 44, 2, "number" },
        { "push_kind", 46, 1, "number" },
        { "push_version", 47, 1, "number" },
        { "push_server_time", 48, 8, "number" },
        { "push_refers_to", 56, 8, "number" },
    } },
    [0x14] = { fixed = 32, tail = "repeat", fields = {
        { "receive_ack_channel", 0, 16, "channel" },
        { "receive_ack_id", 16, 8, "number" },
        { "receive_ack_incarnation", 24, 4, "number" },
    } },
    [0x15] = { fixed = 32, tail = "none", fields = {
        { "fetch_channel", 0, 16, "channel" },
        { "fetch_from", 16, 8, "number" },
        { "fetch_to", 24, 8, "number" },
    } },
    [0x16] = { fixed = 48, tail = "none", fields = {
        { "channel_channel", 0, 16, "channel" },
        { "channel_incarnation", 16, 4, "number" },
        { "channel_oldest", 24, 8, "number" },
        { "channel_newest", 32, 8, "number" },
        { "channel_restarted_at", 40, 8, "number" },
    } },
    [0x17] = { fixed = 40, tail = "none", fields = {
        { "gap_channel", 0, 16, "channel" },
        { "gap_from", 16, 8, "number" },
        { "gap_to", 24, 8, "number" },
        { "gap_code", 32, 2, "number" },
    } },
    [0x18] = { fixed = 24, tail = "none", fields = {
        { "group_info_channel", 0, 16, "channel" },
        { "group_info_after", 16, 8, "number" },
    } },
    [0x19] = { fixed = 40, tail = "group_page_name_and_members", fields = {
        { "group_page_channel", 0, 16, "channel" },
        { "group_page_after", 16, 8, "number" },
        { "group_page_version", 24, 8, "number" },
        { "group_page_members", 32, 4, "number" },
        { "group_page_settings", 36, 1, "number" },
        { "group_page_name_bytes", 38, 2, "number" },
    } },
    [0x20] = { fixed = 24, tail = "none", fields = {
        { "ping_sequence", 0, 4, "number" },
        { "ping_network", 4, 1, "number" },
        { "ping_digest", 8, 8, "number" },
        { "ping_heartbeat_ms", 16, 4, "number" },
        { "ping_reserved_end", 20, 4, "number" },
    } },
    [0x21] = { fixed = 24, tail = "none", fields = {
        { "pong_sequence", 0, 4, "number" },
        { "pong_heartbeat_ms", 4, 4, "number" },
        { "pong_server_time", 8, 8, "number" },
        { "pong_moved", 16, 1, "number" },
    } },
    [0x22] = { fixed = 16, tail = "none", fields = {
        { "ask_cursors_digest", 0, 8, "number" },
        { "ask_cursors_sequence", 8, 4, "number" },
    } },
    [0x24] = { fixed = 32, tail = "none", fields = {
        { "history_ask_channel", 0, 16, "channel" },
        { "history_ask_before", 16, 8, "number" },
        { "history_ask_limit", 24, 4, "number" },
    } },
    [0x25] = { fixed = 64, tail = "history_entries", fields = {
        { "history_channel", 0, 16, "channel" },
        { "history_before", 16, 8, "number" },
        { "history_from", 24, 8, "number" },
        { "history_to", 32, 8, "number" },
        { "history_oldest", 40, 8, "number" },
        { "history_newest", 48, 8, "number" },
        { "history_incarnation", 56, 4, "number" },
        { "history_code", 60, 2, "number" },
    } },
    [0x26] = { fixed = 8, tail = "none", fields = {
        { "history_wanted_newest", 0, 4, "number" },
    } },
    [0x27] = { fixed = 8, tail = "none", fields = {
        { "channels_shown_channels", 0, 4, "number" },
    } },
    [0x28] = { fixed = 32, tail = "repeat", fields = {
        { "read_channel", 0, 16, "channel" },
        { "read_id", 16, 8, "number" },
        { "read_incarnation", 24, 4, "number" },
        { "read_quiet", 28, 1, "number" },
    } },
    [0x29] = { fixed = 16, tail = "none", fields = {
        { "marks_ask_life", 0, 8, "number" },
        { "marks_ask_since", 8, 8, "number" },
    } },
    [0x2a] = { fixed = 16, tail = "marks_marks", fields = {
        { "marks_life", 0, 8, "number" },
        { "marks_as_of", 8, 8, "number" },
    } },
    [0x2b] = { fixed = 24, tail = "none", fields = {
        { "receipts_ask_channel", 0, 16, "channel" },
        { "receipts_ask_id", 16, 8, "number" },
    } },
    [0x2c] = { fixed = 40, tail = "none", fields = {
        { "receipts_channel", 0, 16, "channel" },
        { "receipts_id", 16, 8, "number" },
        { "receipts_members", 24, 4, "number" },
        { "receipts_delivered", 28, 4, "number" },
        { "receipts_read", 32, 4, "number" },
    } },
    [0x2d] = { fixed = 32, tail = "repeat", fields = {
        { "unread_ask_channel", 0, 16, "channel" },
        { "unread_ask_id", 16, 8, "number" },
        { "unread_ask_incarnation", 24, 4, "number" },
    } },
    [0x2e] = { fixed = 40, tail = "repeat", fields = {
        { "unread_channel", 0, 16, "channel" },
        { "unread_after", 16, 8, "number" },
        { "unread_newest", 24, 8, "number" },
        { "unread_count", 32, 2, "number" },
        { "unread_code", 34, 2, "number" },
        { "unread_more", 36, 1, "number" },
    } },
    [0x30] = { fixed = 16, tail = "none", fields = {
        { "block_uin", 0, 8, "number" },
        { "block_action", 8, 1, "number" },
    } },
    [0x31] = { fixed = 16, tail = "none", fields = {
        { "blocked_uin", 0, 8, "number" },
        { "blocked_action", 8, 1, "number" },
        { "blocked_code", 10, 2, "number" },
        { "blocked_retry_after_ms", 12, 4, "number" },
    } },
    [0x32] = { fixed = 8, tail = "none", fields = {
        { "block_list_after", 0, 8, "number" },
    } },
    [0x33] = { fixed = 8, tail = "block_page_uins", fields = {
        { "block_page_after", 0, 8, "number" },
    } },
    [0x3e] = { fixed = 8, tail = "error_text", fields = {
        { "error_code", 0, 2, "number" },
        { "error_kind", 2, 1, "number" },
        { "error_flags", 3, 1, "number" },
        { "error_retry_after_ms", 4, 4, "number" },
    } },
    [0x3f] = { fixed = 8, tail = "close_text", fields = {
        { "close_code", 0, 2, "number" },
        { "close_slot_tenths", 2, 2, "number" },
        { "close_come_back_ms", 4, 4, "number" },
    } },
}

local malformed = ProtoExpert.new("tern.malformed", "The payload does not fit the kind",
    expert.group.MALFORMED, expert.severity.ERROR)
tern.experts = { malformed }

local function entry(layout, tvb, tree)
    for _, field in ipairs(layout.fields) do
        local name, at, bytes, what = field[1], field[2], field[3], field[4]
        local range = tvb(at, bytes)
        if what == "channel" then
            local low, high = range(0, 8):le_uint64(), range(8, 8):le_uint64()
            local text = (low == UInt64(0)) and ("g" .. tostring(high))
                or (tostring(low) .. "-" .. tostring(high))
            tree:add(f[name], range, text)
        elseif what == "number" then
            tree:add_le(f[name], range)
        else
            tree:add(f[name], range)
        end
    end
end

local function payload(kind, tvb, tree)
    local layout = LAYOUTS[kind]
    if layout == nil then
        tree:add(f.payload, tvb)
        return
    end
    local fixed, bytes = layout.fixed, tvb:len()
    local fits = (layout.tail == "none" and bytes == fixed)
        or (layout.tail == "repeat" and bytes % fixed == 0)
        or (layout.tail ~= "none" and layout.tail ~= "repeat" and bytes >= fixed)
    if not fits then
        tree:add_proto_expert_info(malformed)
        tree:add(f.payload, tvb)
    elseif layout.tail == "repeat" then
        for at = 0, bytes - fixed, fixed do
            local part = tvb(at, fixed)
            entry(layout, part:tvb(), tree:add(tern, part, "Entry"))
        end
    else
        if fixed > 0 then entry(layout, tvb(0, fixed):tvb(), tree) end
        if layout.tail ~= "none" and bytes > fixed then
            tree:add(f[layout.tail], tvb(fixed))
        end
    end
end

local function frame(tvb, at, pinfo, tree)
    local bytes = tvb(at, 2):le_uint()
    local kind = tvb(at + 2, 1):uint()
    local name = KINDS[kind] or string.format("kind 0x%02x", kind)
    local whole = tvb(at, 4 + bytes)
    local branch = tree:add(tern, whole, "Tern " .. name)
    branch:add_le(f.length, tvb(at, 2))
    branch:add(f.kind, tvb(at + 2, 1))
    branch:add(f.flags, tvb(at + 3, 1)):add(f.last, tvb(at + 3, 1))
    if bytes > 0 then payload(kind, tvb(at + 4, bytes):tvb(), branch) end
    return name
end

function tern.dissector(tvb, pinfo, tree)
    local at, names = 0, {}
    while at < tvb:len() do
        if tvb:len() - at < 4 then
            pinfo.desegment_offset, pinfo.desegment_len = at, DESEGMENT_ONE_MORE_SEGMENT
            break
        end
        local need = 4 + tvb(at, 2):le_uint() - (tvb:len() - at)
        if need > 0 then
            pinfo.desegment_offset, pinfo.desegment_len = at, need
            break
        end
        table.insert(names, frame(tvb, at, pinfo, tree))
        at = at + 4 + tvb(at, 2):le_uint()
    end
    if #names > 0 then
        pinfo.cols.protocol = "Tern"
        pinfo.cols.info:append(" " .. table.concat(names, ", "))
    end
    return at
end

-- What a QUIC stream carries is found by its ALPN protocol.
DissectorTable.get("quic.proto"):add("tern/1", tern)

-- A QUIC datagram holds one whole frame (SPEC.md, section 2.5); other protocols' hold anything.
local datagrams = Proto("tern_datagram", "Tern by QUIC datagram")
local datagram = Field.new("quic.dg")

function datagrams.dissector(_, pinfo, tree)
    for _, found in ipairs({ datagram() }) do
        local tvb = found.range:tvb()
        if tvb:len() >= 4 and 4 + tvb(0, 2):le_uint() == tvb:len() and KINDS[tvb(2, 1):uint()] then
            frame(tvb, 0, pinfo, tree)
        end
    end
end

register_postdissector(datagrams)
