//! The one table of frame kinds and the one table of codes.
//!
//! Dispatch, `Debug`, the tables in SPEC.md (compared by a test) and capture decoders come from
//! here. A number is used once: a retired row stays, with what it was.

use core::fmt;

/// Who may say a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Only the client.
    ToServer,
    /// Only the server.
    ToClient,
    /// Either side.
    Both,
}

/// What a session must have behind it before a client may say a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// Nothing: the very first frame.
    Nothing,
    /// HELLO answered by WELCOME.
    Welcome,
    /// A login or resume that was answered.
    Login,
}

macro_rules! kinds {
    ($($code:literal $name:ident $label:literal $direction:ident $needs:ident $doc:literal;)*) => {
        /// What a frame is. A number this version does not know survives as itself.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct Kind(pub u8);

        #[allow(non_upper_case_globals)] // they read as the variants of an open enum
        impl Kind {
            $(#[doc = $doc] pub const $name: Self = Self($code);)*

            /// Every row of the table.
            pub const ALL: &'static [KindRow] = &[$(KindRow {
                kind: Self($code),
                label: $label,
                direction: Direction::$direction,
                needs: Needs::$needs,
                sentence: $doc,
            },)*];
        }
    };
}

/// One row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    /// The number on the wire.
    pub kind: Kind,
    /// The name in documents and decoders.
    pub label: &'static str,
    /// Who may say it.
    pub direction: Direction,
    /// What must have come before it.
    pub needs: Needs,
    /// What it says.
    pub sentence: &'static str,
}

kinds! {
    0x01 Hello "HELLO" ToServer Nothing "Opens the conversation: version, capabilities, network type.";
    0x02 Welcome "WELCOME" ToClient Nothing "Answers HELLO with the server's version, capabilities and limits.";
    0x03 Login "LOGIN" ToServer Welcome "Full login by the device's secret; grants a new epoch.";
    0x04 Resume "RESUME" ToServer Welcome "Goes on with a live session by its token; grants no epoch.";
    0x05 LoggedIn "LOGGED_IN" ToClient Welcome "The session is this device's: epoch, token, heartbeat.";
    0x06 Cursors "CURSORS" ToServer Login "The newest id consumed per channel; flag LAST ends the list and starts delivery.";
    0x07 TokenLogin "TOKEN_LOGIN" ToServer Welcome "Full login by a signed token of the operator's own system; grants a new epoch.";
    0x08 Identity "IDENTITY" ToClient Welcome "The numbers that a token stands for; comes before LOGGED_IN.";
    0x10 Send "SEND" ToServer Login "One message under its send key.";
    0x11 SendAck "SEND_ACK" ToClient Login "The message is durable and has this id.";
    0x12 SendRefused "SEND_REFUSED" ToClient Login "The message was not accepted, with the code that says why.";
    0x13 Push "PUSH" ToClient Login "One message of a channel, the bytes of the log.";
    0x14 ReceiveAck "RECEIVE_ACK" ToServer Login "The device has consumed each channel up to an id.";
    0x15 Fetch "FETCH" ToServer Login "Asks for a range of ids once more.";
    0x16 Channel "CHANNEL" ToClient Login "The state of a channel's history: incarnation, oldest, newest, restart.";
    0x17 Gap "GAP" ToClient Login "Ids that will never come, and why: step over them.";
    0x18 GroupInfo "GROUP_INFO" ToServer Login "Asks for what a group is, and for a page of its members.";
    0x19 GroupPage "GROUP_PAGE" ToClient Login "Answers GROUP_INFO; flag LAST with the last page.";
    0x20 Ping "PING" ToServer Login "The client's heartbeat.";
    0x21 Pong "PONG" ToClient Login "Answers a heartbeat with the time until the next.";
    0x22 AskCursors "ASK_CURSORS" ToClient Login "The cursors differ from what the server knows: say all of them again.";
    0x24 HistoryAsk "HISTORY_ASK" ToServer Login "Asks for a page of a channel, back from an id.";
    0x25 History "HISTORY" ToClient Login "Answers HISTORY_ASK; flag LAST if nothing older can be read.";
    0x26 HistoryWanted "HISTORY_WANTED" ToServer Login "How many messages the device wants of each channel that it does not name in CURSORS.";
    0x27 ChannelsShown "CHANNELS_SHOWN" ToClient Login "All channels of the user were shown to a device that said HISTORY_WANTED.";
    0x28 Read "READ" ToServer Login "The user has read each channel up to an id.";
    0x29 MarksAsk "MARKS_ASK" ToServer Login "Asks how far the user, and those he writes to, have got, and to be told from then on.";
    0x2a Marks "MARKS" ToClient Login "How far users have got in channels: delivered and read; flag LAST ends an answer.";
    0x2b ReceiptsAsk "RECEIPTS_ASK" ToServer Login "Asks how many members of a group have a message.";
    0x2c Receipts "RECEIPTS" ToClient Login "Answers RECEIPTS_ASK with counts.";
    0x2d UnreadAsk "UNREAD_ASK" ToServer Login "Asks for each channel how much is unread behind an id.";
    0x2e Unread "UNREAD" ToClient Login "How much is unread; flag LAST with what ends the answer to an UNREAD_ASK.";
    0x30 Block "BLOCK" ToServer Login "Takes no more messages from a user in direct channels, or does again.";
    0x31 Blocked "BLOCKED" ToClient Login "Answers BLOCK: durable, or why not.";
    0x32 BlockList "BLOCK_LIST" ToServer Login "Asks for the users that are blocked, a page at a time.";
    0x33 BlockPage "BLOCK_PAGE" ToClient Login "Answers BLOCK_LIST; flag LAST with the last page.";
    0x3e Error "ERROR" ToClient Nothing "A frame was not understood or not allowed.";
    0x3f Close "CLOSE" Both Nothing "The last frame before the connection is closed.";
}

impl Kind {
    /// The row of a known kind.
    pub fn row(self) -> Option<&'static KindRow> {
        Self::ALL.iter().find(|row| row.kind == self)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.label),
            None => write!(f, "kind {:#04x}", self.0),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a client does about a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// This key or request is dead; the same again gets the same answer.
    Final,
    /// Try again with the same key, after the time given with it.
    Retry,
    /// Not an error: tells of a range or of an end.
    Notice,
}

macro_rules! codes {
    ($($code:literal $name:ident $label:literal $class:ident $doc:literal;)*) => {
        /// Why something was refused, closed or left out. An unknown number survives as itself.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct Code(pub u16);

        #[allow(non_upper_case_globals)] // they read as the variants of an open enum
        impl Code {
            $(#[doc = $doc] pub const $name: Self = Self($code);)*

            /// Every row of the table.
            pub const ALL: &'static [CodeRow] = &[$(CodeRow {
                code: Self($code),
                label: $label,
                class: Class::$class,
                sentence: $doc,
            },)*];
        }
    };
}

/// One row of the table of codes.
#[derive(Clone, Copy, Debug)]
pub struct CodeRow {
    /// The number on the wire; also the application error code of a QUIC close.
    pub code: Code,
    /// The name in documents and decoders.
    pub label: &'static str,
    /// What a client does about it.
    pub class: Class,
    /// What it means and what to do, for people.
    pub sentence: &'static str,
}

codes! {
    // The connection and its frames.
    0x0001 Malformed "MALFORMED" Final "The frame's bytes do not fit its kind; the connection is closed.";
    0x0002 UnknownKind "UNKNOWN_KIND" Final "This server does not know the frame's kind; it was stepped over.";
    0x0003 UnknownFlag "UNKNOWN_FLAG" Final "This server does not know one of the frame's flags; the frame was not acted on.";
    0x0004 WrongState "WRONG_STATE" Final "The frame may not be said yet, or not again; the connection is closed.";
    0x0005 WrongDirection "WRONG_DIRECTION" Final "Only the server says this frame; the connection is closed.";
    0x0006 Version "VERSION" Final "The server does not speak this version; update the client.";
    0x0007 StreamNotAllowed "STREAM_NOT_ALLOWED" Final "A client opens one bidirectional stream and no other; the connection is closed.";
    0x0008 TooSlow "TOO_SLOW" Retry "No frame came in the time allowed; connect again.";
    0x0009 SlowReader "SLOW_READER" Retry "The client reads too slowly; connect again, nothing is lost.";

    // Who you are.
    0x0010 BadCredentials "BAD_CREDENTIALS" Final "Unknown user or device, or a wrong secret; the connection is closed.";
    0x0011 UserDisabled "USER_DISABLED" Final "The user is disabled by the operator; the connection is closed.";
    0x0012 DeviceRevoked "DEVICE_REVOKED" Final "The device was revoked, or has no epoch left; add a new device to the user.";
    0x0013 ResumeUnknown "RESUME_UNKNOWN" Final "The session to resume is gone; log in with the device's secret.";
    0x0014 Fenced "FENCED" Final "Another login of this device took over; if that was not this user, change the secret.";
    0x0015 TokenInvalid "TOKEN_INVALID" Final "The token is not one that this server takes: form, algorithm, signature, issuer, audience or claims; the connection is closed.";
    0x0016 TokenExpired "TOKEN_EXPIRED" Final "The token has expired; log in with a new one.";
    0x0017 TokenEarly "TOKEN_EARLY" Final "The token is not valid yet; log in with one that is, and compare the clocks.";
    0x0018 TokenKeyUnknown "TOKEN_KEY_UNKNOWN" Final "The server does not have the key that the token names; log in with a new token.";
    0x0019 TokensNotTaken "TOKENS_NOT_TAKEN" Final "This server takes no tokens; log in with the device's secret.";
    0x001a SecretChanged "SECRET_CHANGED" Final "The device was given a new secret; log in with that one.";

    // Sends.
    0x0020 NotAMember "NOT_A_MEMBER" Final "The sender is not a member of the channel, or there is no such channel.";
    0x0021 NoSuchUser "NO_SUCH_USER" Final "The user the channel names does not exist, or takes no messages from this one.";
    0x0022 ContentTooLong "CONTENT_TOO_LONG" Final "The content is longer than the limit said in WELCOME.";
    0x0023 KeyConflict "KEY_CONFLICT" Final "The send key was already used for another message; the first one stands.";
    0x0024 KeyClosed "KEY_CLOSED" Final "The key was not accepted before newer ones closed it, and never will be.";
    0x0025 KeyUnknown "KEY_UNKNOWN" Final "Whether this key was accepted is no longer known; do not send it again unseen.";
    0x0026 KeyAhead "KEY_AHEAD" Final "The key's epoch is newer than the one this login was granted.";
    0x0027 KeyInvalid "KEY_INVALID" Final "A send key has an epoch and a counter from 1, and names an earlier predecessor.";
    0x0028 TooManyChannels "TOO_MANY_CHANNELS" Retry "The user opens new channels faster than allowed.";
    0x0029 RateLimited "RATE_LIMITED" Retry "The device sends faster than allowed.";
    0x002a Busy "BUSY" Retry "A queue of the server is full.";
    0x002b Predecessor "PREDECESSOR" Retry "The message before this one in the channel has not come; send them in order.";
    0x002c DiskFull "DISK_FULL" Retry "The server has no room to keep the message.";
    0x002d ShardStopped "SHARD_STOPPED" Retry "The part of the server that owns this cannot make anything durable; the operator must act.";
    0x002e KindUnknown "KIND_UNKNOWN" Final "The message's kind or body version is not known to this server.";
    0x002f ChannelsFull "CHANNELS_FULL" Final "A user is in as many channels as a user may be.";

    // Groups.
    0x0030 GroupExists "GROUP_EXISTS" Final "A group of this id is there already; create it under the next key.";
    0x0031 GroupDissolved "GROUP_DISSOLVED" Final "The group was dissolved; nobody posts there any more.";
    0x0032 GroupFull "GROUP_FULL" Final "The group has as many members as a group may have.";
    0x0033 ChangeInvalid "CHANGE_INVALID" Final "The change's arguments are not those of its action, or not for this channel.";
    0x0034 ChangesNothing "CHANGES_NOTHING" Final "All that the change asks for is so already.";
    0x0035 NotAllowed "NOT_ALLOWED" Final "The sender's role in the group does not allow this.";
    0x0036 Muted "MUTED" Final "The sender may not post in this group for a while.";
    0x0037 NoSuchMember "NO_SUCH_MEMBER" Final "A user that the change names is not a member.";
    0x0038 OwnerStays "OWNER_STAYS" Final "The owner can't leave; hand the group over or dissolve it first.";

    // Reading.
    0x0040 NotGranted "NOT_GRANTED" Final "The range is not this user's to read.";
    0x0041 RangeTooLong "RANGE_TOO_LONG" Final "More ids than one FETCH may ask for.";
    0x0042 Lost "LOST" Notice "The record of these ids was damaged; they cannot be read.";
    0x0043 Expired "EXPIRED" Notice "These ids are past their retention.";
    0x0044 NotVisible "NOT_VISIBLE" Notice "These ids are not for this member.";
    0x0045 Recalled "RECALLED" Notice "These messages were recalled; they are not shown any more.";
    0x0046 Skipped "SKIPPED" Notice "This device did not want these older messages; HISTORY_ASK still shows them.";

    // Ends.
    0x0050 LoggedOut "LOGGED_OUT" Notice "The client ended its session.";
    0x0051 Draining "DRAINING" Retry "The server goes down in order; come back after the time given.";
    0x0052 Offline "OFFLINE" Retry "Three heartbeats were missed; connect again.";
    0x0053 Internal "INTERNAL" Retry "The server failed in a way it did not expect; connect again.";

    // What a user may have, and how often it may ask.
    0x0060 UserRateLimited "USER_RATE_LIMITED" Retry "The user's devices together send faster than allowed.";
    0x0061 TooManyRequests "TOO_MANY_REQUESTS" Retry "The device asks faster than allowed; the frame was not acted on.";
    0x0062 TooManySessions "TOO_MANY_SESSIONS" Retry "As many devices of the user are connected as may be; come back when one has left.";
    0x0063 TooManyDevices "TOO_MANY_DEVICES" Final "The user has as many devices as it may have; revoke one to add another.";

    // Recalls, edits and blocks.
    0x0070 NoSuchMessage "NO_SUCH_MESSAGE" Final "The channel has no such message, or not for this user, or it can't be read any more.";
    0x0071 NotYours "NOT_YOURS" Final "Only its author may edit a message; its author, and who stands above the author in the group, may recall it.";
    0x0072 TooLate "TOO_LATE" Final "The time in which the message could be recalled or edited is over.";
    0x0073 NotContent "NOT_CONTENT" Final "Only content can be recalled or edited: no change of a group, no recall, and of an edit the original.";
    0x0074 AlreadyRecalled "ALREADY_RECALLED" Final "The message was recalled before.";
    0x0075 ReferenceInvalid "REFERENCE_INVALID" Final "A recall names a message and has no content; an edit names the message that it replaces.";
    0x0076 BlocksFull "BLOCKS_FULL" Final "The user has blocked as many others as the server keeps.";
    0x0077 BlockInvalid "BLOCK_INVALID" Final "A block names another user and says whether it begins or ends.";
}

impl Code {
    /// The row of a known code.
    pub fn row(self) -> Option<&'static CodeRow> {
        Self::ALL.iter().find(|row| row.code == self)
    }

    /// What a client does about it; an unknown code is final, so that nobody retries for ever.
    pub fn class(self) -> Class {
        self.row().map_or(Class::Final, |row| row.class)
    }

    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        self.row()
            .map_or("A newer server says something this client does not know.", |row| row.sentence)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.label),
            None => write!(f, "code {:#06x}", self.0),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
