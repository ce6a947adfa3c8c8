//! What a run looks like, as data: a plan has ranges, a seed draws one value of each.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Shape};
use crate::random::Stream;

/// The plan that is used unless another one is named.
const EVERYDAY: &str = include_str!("plans/everyday.toml");

/// A range: least and most.
type Range = [u64; 2];

/// By what frames travel, and what keeps the messages.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Whole frames over a modelled transport: fast.
    #[default]
    Frames,
    /// Packets between real QUIC state machines: slower, with real loss recovery and migration.
    Quic,
    /// Whole frames, and behind the server the real storage on a disk that forgets.
    Disk,
}

/// Ranges of what seeds may draw; times in the unit of their name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How long things go wrong.
    pub minutes: Range,
    /// Number of users.
    pub users: Range,
    /// Devices of all users together.
    pub devices: Range,
    /// Messages sent while things go wrong.
    pub sends: Range,
    /// Groups that applications make.
    #[serde(default)]
    pub groups: Range,
    /// Shards of the server.
    pub shards: Range,
    /// Workers of the server.
    pub workers: Range,
    /// Between two blows.
    pub gap_ms: Range,
    /// How long a spell lasts.
    pub spell_ms: Range,
    /// How likely each fault is to be part of a seed.
    pub fault_percent: u64,
    /// Kinds of faults that a seed has at least.
    pub faults_least: usize,
    /// How long the healed world may take to come to rest.
    pub converge_ms: u64,
    /// Bytes of the longest contents that applications send, but for those that are refused.
    #[serde(default = "content_bytes_max")]
    pub content_bytes_max: u64,
    /// Sends in a hundred that recall or edit an older message.
    #[serde(default = "recalls_percent")]
    pub recalls_percent: u64,
    /// Sends in a hundred beside which somebody blocks somebody, or asks whom he blocks.
    #[serde(default = "blocks_percent")]
    pub blocks_percent: u64,
    /// Shown messages in a hundred that users read.
    #[serde(default = "reads_percent")]
    pub reads_percent: u64,
    /// New devices in a hundred that want less than all that was said before them.
    #[serde(default)]
    pub newcomers_percent: u64,
    /// How likely each of these four is to be part of a seed.
    #[serde(default = "wishes_percent")]
    pub wishes_percent: u64,
    /// By what frames travel, and what keeps the messages.
    #[serde(default)]
    pub depth: Depth,
    /// These faults and no others, by label; without it each seed draws its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

/// Most contents of a chat are short.
fn content_bytes_max() -> u64 {
    200
}

fn recalls_percent() -> u64 {
    8
}

/// A block stands in the way of half of what two users say to each other.
fn blocks_percent() -> u64 {
    2
}

fn reads_percent() -> u64 {
    40
}

fn wishes_percent() -> u64 {
    75
}

/// What one seed drew.
#[derive(Clone, Debug)]
pub struct Draw {
    /// How long things go wrong, in ms.
    pub chaos_ms: u64,
    /// Number of users.
    pub users: u64,
    /// Devices of all users together.
    pub devices: u64,
    /// Messages sent while things go wrong.
    pub sends: u64,
    /// Groups that applications make.
    pub groups: u64,
    /// Shards of the server.
    pub shards: u16,
    /// Workers of the server at its first start.
    pub workers: u16,
    /// Sends in a hundred that recall or edit an older message.
    pub recalls_percent: u64,
    /// Sends in a hundred beside which somebody blocks somebody, or asks whom he blocks.
    pub blocks_percent: u64,
    /// Shown messages in a hundred that users read.
    pub reads_percent: u64,
    /// New devices in a hundred that want less than all that was said before them.
    pub newcomers_percent: u64,
    /// The faults of this seed.
    pub faults: BTreeSet<Fault>,
}

impl Depth {
    /// The name on the command line and in plans.
    pub fn label(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Quic => "quic",
            Self::Disk => "disk",
        }
    }
}

impl Plan {
    /// The plan of every day.
    ///
    /// # Panics
    /// Never: the text is part of the program and a test reads it.
    pub fn everyday() -> Self {
        Self::parse(EVERYDAY).expect("the built-in plan is read by a test")
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// When the text is no plan, or one that nothing could be drawn from; says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let ranges = [
            ("minutes", plan.minutes),
            ("users", plan.users),
            ("devices", plan.devices),
            ("sends", plan.sends),
            ("shards", plan.shards),
            ("workers", plan.workers),
            ("gap_ms", plan.gap_ms),
            ("spell_ms", plan.spell_ms),
        ];
        match ranges.iter().find(|(_, [least, most])| *least == 0 || least > most) {
            Some((name, _)) => Err(format!("{name} must be [least, most] with least from 1")),
            None => plan.check_faults(),
        }
    }

    fn check_faults(self) -> Result<Self, String> {
        let mut wanted = self.only.iter().flatten();
        match wanted.find(|label| Fault::by_label(label).is_none()) {
            Some(label) => Err(format!("only: no fault is called {label}")),
            None => Ok(self),
        }
    }

    /// The plan as it is read.
    ///
    /// # Panics
    /// Never: a plan has nothing that TOML can't say.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("a plan has nothing that TOML can't say")
    }

    /// What this seed draws.
    pub fn draw(&self, seed: u64) -> Draw {
        let mut stream = Stream::of(seed, "plan");
        let mut one = |[least, most]: Range| stream.between(least, most);
        let (chaos_ms, users) = (one(self.minutes) * 60_000, one(self.users));
        let (devices, sends) = (one(self.devices).max(users), one(self.sends));
        let groups = one(self.groups);
        let (shards, workers) = (one(self.shards) as u16, one(self.workers) as u16);
        let faults = self.draw_faults(&mut stream);
        let mut wish = |percent| if stream.percent(self.wishes_percent) { percent } else { 0 };
        Draw {
            chaos_ms,
            users,
            devices,
            sends,
            groups,
            shards,
            workers,
            recalls_percent: wish(self.recalls_percent),
            blocks_percent: wish(self.blocks_percent),
            reads_percent: wish(self.reads_percent),
            newcomers_percent: self.draw_newcomers(seed),
            faults,
        }
    }

    /// By a stream of its own: what else a seed draws is as it was before there were newcomers.
    fn draw_newcomers(&self, seed: u64) -> u64 {
        let mut stream = Stream::of(seed, "plan of newcomers");
        if stream.percent(self.wishes_percent) { self.newcomers_percent } else { 0 }
    }

    fn draw_faults(&self, stream: &mut Stream) -> BTreeSet<Fault> {
        if let Some(only) = &self.only {
            return only.iter().filter_map(|label| Fault::by_label(label)).collect();
        }
        let mut faults: BTreeSet<Fault> =
            Fault::ALL.iter().copied().filter(|_| stream.percent(self.fault_percent)).collect();
        let is_active = |fault: &&Fault| fault.shape() != Shape::Climate;
        while faults.iter().filter(is_active).count() < self.faults_least {
            faults.extend(stream.pick(Fault::ALL));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_and_a_seed_has_weight() {
        let quiet = include_str!("plans/quiet.toml");
        let dense = include_str!("plans/dense.toml");
        let named = [
            include_str!("plans/groups.toml"),
            include_str!("plans/devices.toml"),
            include_str!("plans/offline.toml"),
            include_str!("plans/slow.toml"),
            include_str!("plans/fencing.toml"),
            include_str!("plans/beats.toml"),
            include_str!("plans/past.toml"),
            include_str!("plans/starts.toml"),
        ];
        let others = [EVERYDAY, include_str!("plans/storm.toml"), quiet, dense];
        for text in named.into_iter().chain(others) {
            let plan = Plan::parse(text).unwrap();
            for seed in 0..200 {
                let draw = plan.draw(seed);
                assert!(draw.chaos_ms >= 600_000 && draw.devices >= 4 && draw.sends >= 200);
                assert!(draw.faults.len() >= 3, "seed {seed}: {:?}", draw.faults);
            }
        }
    }

    #[test]
    fn a_plan_that_draws_nothing_is_refused() {
        let text = EVERYDAY.replace("users = [2, 4]", "users = [4, 2]");
        assert!(Plan::parse(&text).unwrap_err().contains("users"));
        assert!(Plan::parse("minutes = 3").is_err());
        let text = format!("only = [\"rain\"]\n{EVERYDAY}");
        assert!(Plan::parse(&text).unwrap_err().contains("rain"));
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let only = Some(vec!["drain".to_owned(), "blackout".to_owned()]);
        let plan = Plan { only, depth: Depth::Quic, ..Plan::everyday() };
        assert_eq!(Plan::parse(&plan.to_text()), Ok(plan.clone()));
        assert_eq!(plan.draw(1).faults.len(), 2);
    }
}
