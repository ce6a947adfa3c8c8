//! Makes a failing run small: fewer faults, devices, messages and minutes, as long as the same
//! check still fails. What comes out is a plan that draws exactly one world, and the seed.
//!
//! A run changes as a whole with whatever is left out, so each smaller plan is tried with a few
//! seeds; the one that fails goes on.

use std::fmt::{self, Display, Formatter};

use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::plan::{Draw, Plan};
use crate::runner::live;
use crate::world::Outcome;

/// Seeds that each smaller plan is tried with.
const SEEDS_PER_PLAN: u64 = 4;

/// A run that fails, made small.
#[derive(Debug)]
pub struct Shrunk {
    /// What draws its world.
    pub plan: Plan,
    /// Its seed.
    pub seed: u64,
    /// What it gave.
    pub outcome: Outcome,
    /// Runs that it took.
    pub runs: u64,
}

/// Searches for a small run in which the same check fails as in this one, by at most `runs_max`
/// runs. `None` if the run does not fail.
pub fn shrink(plan: &Plan, seed: u64, mutant: Option<Mutant>, runs_max: u64) -> Option<Shrunk> {
    let mut search = Search { mutant, runs: 0, runs_max, check: None };
    let pinned = pin(plan, &plan.draw(seed));
    let outcome = search.fails(&pinned, seed)?;
    search.check = outcome.violation.as_ref().map(|violation| violation.check);
    let mut best = (pinned, seed, outcome);
    while search.runs < search.runs_max {
        let better = smaller(&best.0).into_iter().find_map(|plan| search.tries(plan, best.1));
        match better {
            Some(better) => best = better,
            None => break,
        }
    }
    let (plan, seed, outcome) = best;
    Some(Shrunk { plan, seed, outcome, runs: search.runs })
}

struct Search {
    mutant: Option<Mutant>,
    runs: u64,
    runs_max: u64,
    /// The check that must fail; `None`: any.
    check: Option<&'static str>,
}

impl Search {
    fn fails(&mut self, plan: &Plan, seed: u64) -> Option<Outcome> {
        self.runs += 1;
        let outcome = live(plan, seed, self.mutant, 0);
        let check = outcome.violation.as_ref()?.check;
        self.check.is_none_or(|wanted| wanted == check).then_some(outcome)
    }

    fn tries(&mut self, plan: Plan, seed: u64) -> Option<(Plan, u64, Outcome)> {
        for seed in seed..seed.saturating_add(SEEDS_PER_PLAN) {
            if self.runs >= self.runs_max {
                return None;
            }
            if let Some(outcome) = self.fails(&plan, seed) {
                return Some((plan, seed, outcome));
            }
        }
        None
    }
}

/// The plan that draws this one world.
fn pin(plan: &Plan, draw: &Draw) -> Plan {
    let minutes = draw.chaos_ms / 60_000;
    let (shards, workers) = (u64::from(draw.shards), u64::from(draw.workers));
    Plan {
        minutes: [minutes; 2],
        users: [draw.users; 2],
        devices: [draw.devices; 2],
        sends: [draw.sends; 2],
        groups: [draw.groups; 2],
        shards: [shards; 2],
        workers: [workers; 2],
        recalls_percent: draw.recalls_percent,
        blocks_percent: draw.blocks_percent,
        reads_percent: draw.reads_percent,
        wishes_percent: 100,
        only: Some(draw.faults.iter().map(|fault| fault.label().to_owned()).collect()),
        ..plan.clone()
    }
}

/// Plans that are a step smaller, the largest steps first.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut plans = fewer_faults(plan);
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        if smaller != *plan {
            plans.push(smaller);
        }
    };
    let half = |range: [u64; 2], least: u64| [(range[0] / 2).max(least); 2];
    let less = |range: [u64; 2], least: u64| [(range[0] - 1).max(least); 2];
    add(&|plan| plan.sends = half(plan.sends, 1));
    add(&|plan| plan.minutes = half(plan.minutes, 1));
    add(&|plan| plan.groups = half(plan.groups, 0));
    add(&|plan| plan.devices = half(plan.devices, plan.users[0]));
    add(&|plan| plan.recalls_percent = 0);
    add(&|plan| plan.blocks_percent = 0);
    add(&|plan| plan.reads_percent = 0);
    add(&|plan| plan.workers = [1; 2]);
    add(&|plan| plan.shards = [1; 2]);
    add(&|plan| {
        plan.users = less(plan.users, 1);
        plan.devices = less(plan.devices, plan.users[0]);
    });
    add(&|plan| plan.devices = less(plan.devices, plan.users[0]));
    add(&|plan| plan.minutes = less(plan.minutes, 1));
    plans
}

/// Without one half of the faults, without the other, without each.
fn fewer_faults(plan: &Plan) -> Vec<Plan> {
    let all = plan.only.clone().unwrap_or_default();
    let middle = all.len() / 2;
    let mut sets: Vec<Vec<String>> = Vec::new();
    if all.len() > 3 {
        sets.push(all[..middle].to_vec());
        sets.push(all[middle..].to_vec());
    }
    for index in 0..all.len() {
        let mut set = all.clone();
        set.remove(index);
        sets.push(set);
    }
    sets.into_iter().map(|set| Plan { only: Some(set), ..plan.clone() }).collect()
}

impl Display for Shrunk {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let faults = self.plan.only.as_ref().map_or(0, Vec::len);
        writeln!(
            f,
            "# Shrunk by {} runs to {faults} of {} faults, {} devices, {} messages, {} groups, {} \
             minutes.",
            self.runs,
            Fault::ALL.len(),
            self.plan.devices[0],
            self.plan.sends[0],
            self.plan.groups[0],
            self.plan.minutes[0]
        )?;
        f.write_str(&self.plan.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_fails_in_a_small_world_too_and_the_plan_says_which() {
        let plan = Plan::everyday();
        let mutant = Some(Mutant::AckBeforeCommit);
        let failing = (1..30).find(|seed| live(&plan, *seed, mutant, 0).violation.is_some());
        let seed = failing.expect("the defect is noticed within 30 seeds");
        let shrunk = shrink(&plan, seed, mutant, 60).expect("it fails");
        let before = plan.draw(seed);
        let faults = shrunk.plan.only.as_ref().map_or(0, Vec::len);
        assert!(faults < before.faults.len() && shrunk.plan.sends[0] < before.sends, "{shrunk}");
        // What is printed draws the same world.
        let read = Plan::parse(&shrunk.to_string()).unwrap();
        let again = live(&read, shrunk.seed, mutant, 0);
        assert_eq!((again.hash, again.violation), (shrunk.outcome.hash, shrunk.outcome.violation));
    }

    #[test]
    fn a_run_that_holds_has_nothing_to_shrink() {
        assert!(shrink(&Plan::everyday(), 1, None, 5).is_none());
    }
}
