//! Deliberate defects: each must be caught by some check, or that check can't fail.
//!
//! They sit where the simulated disk, network, store and application meet the machines; the
//! machines themselves are those that ship.

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
    ConfirmsFirst "confirms-first" "the application confirms a message before it shows it";
}

impl Mutant {
    /// The one of this label.
    pub fn by_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.label() == label)
    }
}
