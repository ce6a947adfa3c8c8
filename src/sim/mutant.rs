//! Deliberate defects: each must be caught by some check, or that check can't fail.
//!
//! Most sit where the simulated disk, network, store and application meet the machines, which
//! are those that ship. Those that can't be had there are in core, behind its feature `mutants`,
//! which nothing but this package's tests asks for.

use crate::plan::Depth;

macro_rules! mutants {
    (
        $($name:ident $label:literal $sentence:literal;)*
        [in core] $($inner:ident $inner_label:literal $inner_sentence:literal;)*
    ) => {
        /// A deliberate defect.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutant {
            $(#[doc = $sentence] $name,)*
            $(#[cfg(feature = "mutants")] #[doc = $inner_sentence] $inner,)*
        }

        impl Mutant {
            /// All there are.
            pub const ALL: &'static [Self] = &[
                $(Self::$name,)*
                $(#[cfg(feature = "mutants")] Self::$inner,)*
            ];

            /// The name on the command line.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                    $(#[cfg(feature = "mutants")] Self::$inner => $inner_label,)*
                }
            }

            /// What is wrong, for people.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)*
                    $(#[cfg(feature = "mutants")] Self::$inner => $inner_sentence,)*
                }
            }

            /// The defect in core, if this is one.
            #[cfg(feature = "mutants")]
            fn in_core(self) -> Option<tern_core::mutants::Mutant> {
                match self {
                    $(Self::$inner => Some(tern_core::mutants::Mutant::$inner),)*
                    _ => None,
                }
            }
        }
    };
}

mutants! {
    AckBeforeCommit "ack-before-commit" "the log calls durable what was only appended";
    TailNotSynced "tail-not-synced" "what recovery found is called durable without a sync";
    SyncRetried "sync-retried" "a failed sync is tried again, and its success believed";
    CutTooFar "cut-too-far" "recovery takes the newest durable record for a torn one";
    DedupForgets "dedup-forgets" "the deduplication table now and then has no entry";
    DedupNewestOnly "dedup-newest-only" "the table takes each counter below the newest for seen";
    TableTrusted "table-trusted" "a table that knows more than the log is believed";
    EpochLost "epoch-lost" "recovery does not read the records of logins";
    RowsLost "rows-lost" "a checkpoint now and then lacks a row";
    HintsNeverHeal "hints-never-heal" "each notify is lost, for ever";
    ReadsLost "reads-lost" "a healthy record now and then is called damaged";
    ContentChanged "content-changed" "a push now and then has another content";
    Misdelivered "misdelivered" "a push now and then goes to another connection";
    MailLost "mail-lost" "answers to sends get lost between workers";
    StoreLies "store-lies" "a client's store says stored before it is";
    KeyNotStored "key-not-stored" "a client's store loses the keys of sends";
    CursorLost "cursor-lost" "a client's store loses cursors";
    CounterReused "counter-reused" "a send leaves under the counter of the one before it";
    SyncSkipped "sync-skipped" "a batch is called durable without a sync";
    NamesNotSynced "names-not-synced" "a new segment's name is not synced";
    TableFirst "table-first" "a key is put into the table before its message is appended";
    ExpiresEarly "expires-early" "the clock of retention believes in time that never went by";
    ConfirmsFirst "confirms-first" "the application confirms a message before it shows it";
    LifeNotRaised "life-not-raised" "a restored backup goes on in the life that it was made in";
    ClockUnsteady "clock-unsteady" "a machine is told a time before that of its last turn";
    SettledLost "settled-lost" "a client's store loses that it was shown all channels";
    LoginForgotten "login-forgotten" "a checkpoint forgets the newest login of each device";
    LossForgotten "loss-forgotten" "of pushes that are found lost together every second is forgotten";
    [in core]
    RepeatUnproven "repeat-unproven" "the repeat of a message is acked before it is durable";
    GrantUnproven "grant-unproven" "what may be read goes beyond what is durable";
    EpochUnproven "epoch-unproven" "an epoch is told before its record is durable";
    ClosedAppended "closed-appended" "a key of a closed epoch is appended";
    DedupFirst "dedup-first" "the deduplication table is written before the log";
    OtherAnswer "other-answer" "the ack of a repeat tells another time";
    OrderIgnored "order-ignored" "a message does not wait for its predecessor";
    CursorOnPush "cursor-on-push" "what was pushed counts as received";
    HolesConfirmed "holes-confirmed" "notifies are confirmed although some before were lost";
    NotFenced "not-fenced" "the session before a login lives on";
    LateLogin "late-login" "a login that comes late takes the session";
    EpochReused "epoch-reused" "epochs go on where they were in the life before";
    RestartUnnamed "restart-unnamed" "channels do not note where their history restarted";
    KickUntold "kick-untold" "home shards do not hear who was thrown out of a group";
    HistoryShown "history-shown" "who comes into a group sees all that was said before";
    AbsenceShown "absence-shown" "who comes back into a group sees what was said meanwhile";
    MuteForgotten "mute-forgotten" "a checkpoint forgets who is muted";
    KickForgotten "kick-forgotten" "recovery passes over changes that end a membership";
    RolesIgnored "roles-ignored" "every member may change a group as its owner may";
    MembersAskedOnce "members-asked-once" "whose members are unknown is asked once, and not again";
    RefusalUnproven "refusal-unproven" "a refusal leaves before what it rests on is durable";
    RefusalForgotten "refusal-forgotten" "a copy of what was refused for good is judged anew";
    RecalledShown "recalled-shown" "who comes late is shown what was recalled";
    RecallForgotten "recall-forgotten" "a checkpoint forgets what was recalled";
    RecallExpires "recall-expires" "what was recalled is forgotten with the message, not the recall";
    AuthorIgnored "author-ignored" "everybody may recall and edit what others wrote";
    HoursIgnored "hours-ignored" "messages can be recalled and edited for ever";
    BlockIgnored "block-ignored" "who is blocked may write";
    BlockForgotten "block-forgotten" "a checkpoint forgets who is blocked";
    BlockUnproven "block-unproven" "a block is confirmed before its record is durable";
    BlockedHears "blocked-hears" "who is blocked is told how far the other has got";
    HistoryRecalled "history-recalled" "a page of history shows what was recalled";
    HistoryBeyond "history-beyond" "a page of history begins before what may be read";
    HistoryShort "history-short" "a page of history leaves out its first id";
    MarkGoesBack "mark-goes-back" "an older word of a mark takes the place of a newer one";
    MarkUntold "mark-untold" "the other devices of a user do not hear what he has read";
    ReadOnDelivery "read-on-delivery" "what was delivered counts as read";
    OwnUnread "own-unread" "a user's own messages count as unread";
    PushLeftOut "push-left-out" "a push now and then is left out";
    LifeUntold "life-untold" "who knows nothing of a channel is not told of which life it is";
    NewestAhead "newest-ahead" "a channel is said to go one message further than it does";
    WantedIgnored "wanted-ignored" "a new device gets all, whatever it wants";
    WantedShort "wanted-short" "a new device gets one message less than it wants";
    WantedForEver "wanted-for-ever" "what begins after all channels were shown is skipped as well";
    ShownEarly "shown-early" "all channels are called shown before any is";
    GroupsUnawaited "groups-unawaited" "who comes right after a start is not shown all groups";
    OldestFirst "oldest-first" "the channel in which nobody spoke for longest comes first";
    TruncatedEarly "truncated-early" "who was away is told that what he missed has expired";
}

/// Defects that only the depth of the real storage has.
const OF_STORAGE: [Mutant; 4] =
    [Mutant::SyncSkipped, Mutant::NamesNotSynced, Mutant::TableFirst, Mutant::ExpiresEarly];

/// Defects that only the depth with packets has.
const OF_PACKETS: [Mutant; 1] = [Mutant::LossForgotten];

/// Defects of the simulated disk that the real storage has as well.
const OF_BOTH: [Mutant; 9] = [
    Mutant::AckBeforeCommit,
    Mutant::TailNotSynced,
    Mutant::SyncRetried,
    Mutant::CutTooFar,
    Mutant::DedupForgets,
    Mutant::DedupNewestOnly,
    Mutant::EpochLost,
    Mutant::RowsLost,
    Mutant::ReadsLost,
];

impl Mutant {
    /// Those that are to be noticed at a depth: at that of the real storage, those of storage.
    pub fn at(depth: Depth) -> Vec<Self> {
        let all = Self::ALL.iter().copied().filter(|one| !OF_STORAGE.contains(one));
        match depth {
            Depth::Disk => OF_BOTH.into_iter().chain(OF_STORAGE).collect(),
            Depth::Quic => all.collect(),
            Depth::Frames => all.filter(|one| !OF_PACKETS.contains(one)).collect(),
        }
    }

    /// The one of this label.
    pub fn by_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.label() == label)
    }

    /// Everything that this thread runs from now on has this defect, or none.
    pub(crate) fn choose(mutant: Option<Self>) {
        #[cfg(feature = "mutants")]
        tern_core::mutants::choose(mutant.and_then(Self::in_core));
        // Without the feature there is nothing to choose: the world looks for the others itself.
        let _ = mutant;
    }
}
