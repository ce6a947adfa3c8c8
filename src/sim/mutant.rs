//! Deliberate defects: each must be caught by some check, or that check can't fail.
//!
//! They sit where the simulated disk, network, store and application meet the machines; the
//! machines themselves are those that ship.

use crate::plan::Depth;

macro_rules! mutants {
    ($($name:ident $label:literal $sentence:literal;)*) => {
        /// A deliberate defect.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutant { $(#[doc = $sentence] $name,)* }

        impl Mutant {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the command line.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What is wrong, for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
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
}

/// Defects that only the depth of the real storage has.
const OF_STORAGE: [Mutant; 4] =
    [Mutant::SyncSkipped, Mutant::NamesNotSynced, Mutant::TableFirst, Mutant::ExpiresEarly];

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
        let all = Self::ALL.iter().copied();
        match depth {
            Depth::Disk => OF_BOTH.into_iter().chain(OF_STORAGE).collect(),
            Depth::Frames | Depth::Quic => all.filter(|one| !OF_STORAGE.contains(one)).collect(),
        }
    }

    /// The one of this label.
    pub fn by_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.label() == label)
    }
}
