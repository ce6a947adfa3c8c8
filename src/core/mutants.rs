//! Deliberate defects, for the tests of the tests: each must be noticed by the simulator, or what
//! should notice it can't fail.
//!
//! Without the feature `mutants` none of them exists: `mutant!` is the word `false` then. The
//! feature is asked for by the simulator's own tests alone; a test of the sources holds that.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// A deliberate defect.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The repeat of a message is acked before the message is durable.
    RepeatUnproven,
    /// What may be read goes beyond what is durable.
    GrantUnproven,
    /// An epoch is told before its record is durable.
    EpochUnproven,
    /// A key of a closed epoch is appended.
    ClosedAppended,
    /// The deduplication table is written before the log.
    DedupFirst,
    /// The ack of a repeat tells another time.
    OtherAnswer,
    /// A message does not wait for its predecessor.
    OrderIgnored,
    /// What was pushed counts as received.
    CursorOnPush,
    /// Notifies are confirmed although some before them were lost.
    HolesConfirmed,
    /// The session before a login lives on.
    NotFenced,
    /// A login that comes late takes the session.
    LateLogin,
    /// Epochs go on where they were in the life before.
    EpochReused,
    /// Channels do not note where their history restarted.
    RestartUnnamed,
    /// Home shards do not hear who was thrown out of a group.
    KickUntold,
    /// Who comes into a group sees what was said before, whatever its settings are.
    HistoryShown,
    /// Who comes back into a group sees what was said meanwhile.
    AbsenceShown,
    /// A checkpoint forgets who is muted.
    MuteForgotten,
    /// Recovery passes over changes that end a membership.
    KickForgotten,
    /// Whoever is a member may change a group as its owner may.
    RolesIgnored,
    /// Whose members are unknown is asked once, and not again.
    MembersAskedOnce,
    /// A final refusal leaves before what it rests on is durable.
    RefusalUnproven,
    /// A copy of a send that was refused for good is judged anew.
    RefusalForgotten,
    /// Who comes late is shown what was recalled.
    RecalledShown,
    /// A checkpoint forgets what was recalled.
    RecallForgotten,
    /// What was recalled is forgotten with the message, and not with the recall.
    RecallExpires,
    /// Everybody may recall and edit what others wrote.
    AuthorIgnored,
    /// Messages can be recalled and edited for ever.
    HoursIgnored,
    /// Who is blocked may write.
    BlockIgnored,
    /// A checkpoint forgets who is blocked.
    BlockForgotten,
    /// A block is confirmed before its record is durable.
    BlockUnproven,
    /// Who is blocked is told how far the other has got.
    BlockedHears,
    /// A page of history shows what was recalled.
    HistoryRecalled,
    /// A page of history begins before what may be read.
    HistoryBeyond,
    /// A page of history leaves out what comes first.
    HistoryShort,
    /// An older word of a mark takes the place of a newer one.
    MarkGoesBack,
    /// The other devices of a user do not hear what he has read.
    MarkUntold,
    /// What was delivered counts as read.
    ReadOnDelivery,
    /// A user's own messages count as unread.
    OwnUnread,
    /// A push now and then is left out.
    PushLeftOut,
    /// Who knows nothing of a channel is not told of which life its messages are.
    LifeUntold,
    /// A channel is said to go one message further than it does.
    NewestAhead,
    /// A new device gets all, whatever it wants.
    WantedIgnored,
    /// A new device gets one message less than it wants.
    WantedShort,
    /// What begins after all channels were shown is skipped as well.
    WantedForEver,
    /// All channels are called shown before any is.
    ShownEarly,
    /// Who comes right after a start is not shown groups of which the members are not known yet.
    GroupsUnawaited,
    /// The channel in which nobody spoke for longest comes first.
    OldestFirst,
    /// Who was away is told that what he missed has expired.
    TruncatedEarly,
}

#[cfg(feature = "mutants")]
thread_local! {
    static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Everything that this thread runs from now on has this defect, or none.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}

#[cfg(feature = "mutants")]
pub(crate) fn is_chosen(mutant: Mutant) -> bool {
    CHOSEN.get() == Some(mutant)
}

/// Whether this deliberate defect is chosen.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_chosen($crate::mutants::Mutant::$name)
    };
}

/// No deliberate defect exists.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
