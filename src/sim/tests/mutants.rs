//! M-01: each deliberate defect is noticed; the table says by which check, and how soon.

use tern_sim::mutant::Mutant;
use tern_sim::plan::{Depth, Plan};
use tern_sim::runner::live;

/// Many channels with few messages each.
const QUIET: &str = include_str!("../plans/quiet.toml");

/// Starts of the server, and devices that come back before its shards know of each other.
const STARTS: &str = include_str!("../plans/starts.toml");

/// Seeds within which each defect must be noticed.
const SEEDS_MAX: u64 = 200;

/// Defects that there are at least; fewer means that a switch was lost.
const DEFECTS_LEAST: usize = 30;

/// Much that goes wrong in little time.
const DENSE: &str = include_str!("../plans/dense.toml");

/// Where a defect shows: a lost word in a busy channel is made up for by the next.
fn plan_of(mutant: Mutant) -> Plan {
    let dense = Plan::parse(DENSE).expect("a test of the plans reads it");
    match mutant {
        Mutant::HolesConfirmed => Plan::parse(QUIET).expect("a test of the plans reads it"),
        Mutant::MembersAskedOnce => Plan::everyday(),
        // New devices that want less than all, all the time; more channels than one page of pushes.
        Mutant::WantedIgnored
        | Mutant::WantedShort
        | Mutant::WantedForEver
        | Mutant::ShownEarly
        | Mutant::OldestFirst
        | Mutant::SettledLost => Plan { newcomers_percent: 100, wishes_percent: 100, ..dense },
        Mutant::GroupsUnawaited => Plan::parse(STARTS).expect("a test of the plans reads it"),
        // Only packets have datagrams.
        Mutant::LossForgotten => Plan { depth: Depth::Quic, ..Plan::everyday() },
        // An edit must outlive what it is about, and somebody come late right then.
        Mutant::RecallExpires => Plan { recalls_percent: 30, wishes_percent: 100, ..dense },
        _ => dense,
    }
}

#[test]
fn every_deliberate_defect_is_noticed() {
    // A panic of the machines counts as noticed, and need not be shown.
    std::panic::set_hook(Box::new(|_| {}));
    let mutants = Mutant::at(Depth::Quic);
    let mut missed = Vec::new();
    println!("{:<18} {:>5}  {:<9} what is wrong", "defect", "seeds", "check");
    for mutant in &mutants {
        let plan = plan_of(*mutant);
        let first = (1..=SEEDS_MAX).find_map(|seed| {
            let violation = live(&plan, seed, Some(*mutant), 0).violation?;
            Some((seed, violation.check))
        });
        let (seeds, check) = first.unwrap_or((SEEDS_MAX, "MISSED"));
        println!("{:<18} {seeds:>5}  {check:<9} {}", mutant.label(), mutant.sentence());
        missed.extend(first.is_none().then(|| mutant.label()));
    }
    let _ = std::panic::take_hook();
    let (all, lost) = (mutants.len(), missed.len());
    println!("TEST M-01 mutants={all} killed={} missed={lost}", all - lost);
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
    assert!(all >= DEFECTS_LEAST, "{all} defects");
}
