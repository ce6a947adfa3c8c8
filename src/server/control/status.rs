//! How a server does: tables of figures, each with its unit and a sentence, that need no
//! explanation elsewhere.

use serde::{Deserialize, Serialize};

/// A server's figures at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its process number.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Memory that the process holds, in bytes: without what lies in the page cache only.
    pub rss_bytes: u64,
    /// Where it listens.
    pub listen: String,
    /// SHA-256 of its certificate in hex.
    pub pin: String,
    /// What the operator must see to, a sentence each.
    pub troubles: Vec<String>,
    /// Its open files; `None` if the system does not tell.
    pub descriptors: Option<Descriptors>,
    /// What its logs do with the disk; `None` while they are being read.
    pub disk: Option<DiskStatus>,
    /// What its workers count.
    pub workers: Table,
    /// What its logs count.
    pub shards: Table,
}

/// The open files of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Descriptors {
    /// How many are open: about one for each kept file of a log, and some for each worker.
    pub open: u64,
    /// How many may be; `None` without a limit.
    pub limit: Option<u64>,
}

/// What the logs do with the disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Bytes that segments and checkpoints hold; of the newest segments a part is still empty.
    pub used_bytes: u64,
    /// Bytes that they may hold; `None` without a bound.
    pub bound_bytes: Option<u64>,
    /// Bytes that the file system has left, if it says so.
    pub free_bytes: Option<u64>,
    /// Bytes that can still be written.
    pub room_bytes: u64,
    /// Bytes appended a second, over the last minutes.
    pub bytes_per_second: u64,
    /// Seconds until the room is used up at this rate; `None`: never.
    pub full_in_s: Option<u64>,
    /// Seconds that messages are kept; `None`: for ever.
    pub retention_s: Option<u64>,
    /// Seconds since the oldest kept file of a log was begun.
    pub oldest_s: u64,
    /// All of this for people, and what will happen.
    pub words: Vec<String>,
}

/// Where a server is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It reads its logs; accounts can be worked on, clients wait.
    Recovering,
    /// It serves.
    Ready,
    /// It goes down in order.
    Draining,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Recovering => "recovering",
            Self::Ready => "ready",
            Self::Draining => "draining",
        })
    }
}

/// Figures of several alike: a row per figure, a column per worker or shard.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What the columns are.
    pub columns: Vec<String>,
    /// The figures.
    pub rows: Vec<Figure>,
}

/// One figure of each column.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// How several of them add up.
    pub sort: Sort,
    /// What it says.
    pub sentence: String,
    /// Its value in each column.
    pub values: Vec<u64>,
}

/// How figures of several columns, and of two moments, go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// Counts events since the start: columns add up, and two moments give a rate.
    Count,
    /// How many there are now: columns add up.
    Gauge,
    /// How high it is: of several columns the highest counts.
    Level,
}

impl Figure {
    /// All columns together.
    pub fn total(&self) -> u64 {
        match self.sort {
            Sort::Count | Sort::Gauge => {
                self.values.iter().fold(0, |sum, value| sum.saturating_add(*value))
            }
            Sort::Level => self.values.iter().copied().max().unwrap_or(0),
        }
    }
}

impl Table {
    /// A table of these columns, without rows.
    pub fn new(columns: impl IntoIterator<Item = String>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has not a value for each column.
    pub fn push(&mut self, figure: Figure) {
        assert_eq!(figure.values.len(), self.columns.len(), "figure {}", figure.name);
        self.rows.push(figure);
    }

    /// The figure of this name.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.rows.iter().find(|figure| figure.name == name)
    }
}
