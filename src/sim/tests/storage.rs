//! The third depth: the storage that ships, on a disk that forgets what was not synced.

use tern_random::{seed_from_env, soaked};
use tern_sim::Outcome;
use tern_sim::engine::EngineCounts;
use tern_sim::mutant::Mutant;
use tern_sim::plan::{Depth, Plan};
use tern_sim::runner::live;

/// The plan in which storage fails all the time.
const DISK: &str = include_str!("../plans/disk.toml");

/// Seeds that are tried in an everyday run.
const SEEDS: u64 = 3;

/// Seeds within which each defect must be noticed.
const SEEDS_MAX: u64 = 30;

fn plan() -> Plan {
    Plan::parse(DISK).expect("the plan is part of the program")
}

fn must_hold(plan: &Plan, name: &str, seed: u64) -> Outcome {
    let outcome = live(plan, seed, None, 40);
    if let Some(violation) = &outcome.violation {
        outcome.lines.iter().for_each(|line| eprintln!("{line}"));
        panic!(
            "seed {seed} of {name}: {}: {}\nreplay: cargo run --release -p tern-sim -- \
             --plan src/sim/plans/{name}.toml --depth disk --seed {seed} --trace",
            violation.check, violation.what
        );
    }
    outcome
}

/// A-01 over the real storage: what must come to pass did, in the runs together.
#[test]
fn the_storage_that_ships_holds() {
    let (mut sum, mut acked, first) = (EngineCounts::default(), 0, seed_from_env(1));
    for seed in first..first + soaked(SEEDS) {
        let outcome = must_hold(&plan(), "disk", seed);
        sum += outcome.storage.expect("this depth has it");
        acked += outcome.acked;
    }
    println!("TEST A-01 depth=disk seed={first} n={} acked={acked} lost=0 {sum}", soaked(SEEDS));
    assert!(sum.opened > 20 && sum.torn > 0 && sum.clean > 0, "{sum:?}");
    assert!(sum.deaths_inside > 0 && sum.commit_steps > 0, "{sum:?}");
    assert!(sum.checkpoints > 0 && sum.from_checkpoint > 0, "{sum:?}");
    assert!(sum.segments_deleted > 0 && sum.tables_kept > 0, "{sum:?}");
}

#[test]
fn the_storage_holds_beside_everything_else() {
    let plan = Plan { depth: Depth::Disk, ..Plan::everyday() };
    must_hold(&plan, "everyday", 1);
}

/// also here, where salts and ids are never the same.
#[test]
fn one_seed_gives_one_run_over_real_files() {
    let plan = plan();
    let (first, second) = (live(&plan, 2, None, 500), live(&plan, 2, None, 500));
    assert_eq!((first.hash, first.steps), (second.hash, second.steps));
    assert_eq!((first.lines, first.storage), (second.lines, second.storage));
    assert_ne!(first.hash, live(&plan, 3, None, 0).hash);
}

/// M-01.
#[test]
fn every_deliberate_defect_of_storage_is_noticed() {
    // A panic of the machines counts as noticed, and need not be shown.
    std::panic::set_hook(Box::new(|_| {}));
    let plan = plan();
    let mut missed = Vec::new();
    for mutant in Mutant::at(Depth::Disk) {
        let mut noticed = (1..=SEEDS_MAX).filter_map(|seed| {
            let violation = live(&plan, seed, Some(mutant), 0).violation?;
            Some((seed, violation.check))
        });
        match noticed.next() {
            Some((seeds, check)) => {
                println!(
                    "TEST M-01 depth=disk defect={} seeds={seeds} check={check}",
                    mutant.label()
                );
            }
            None => missed.push(mutant.label()),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

/// A server that ended in order appended parked sends, and the judge heard of them twice.
#[test]
fn what_is_appended_at_the_end_is_judged_once() {
    must_hold(&plan(), "disk", 1_109);
}

/// Acks that wait for no sync: the power was cut, nothing whole was left of the last run, and the
/// log did not begin a new life, for the run before had ended in order.
#[test]
fn a_power_cut_that_takes_a_whole_run_ends_a_life() {
    must_hold(&plan(), "disk", 46);
}

/// The same, and a process that died before its first record: the next one began another life for
/// nothing.
#[test]
fn a_life_that_nobody_used_does_not_end() {
    must_hold(&plan(), "disk", 80_000_386);
}

/// The same, and the power cut once more while a start removed the segments that said so.
#[test]
fn a_life_that_was_shown_is_not_begun_again() {
    must_hold(&plan(), "disk", 82_000_522);
}

/// Messages expired between a question in a world at rest and its answer, and the judge held the
/// count, which was half made by then, against what was left.
#[test]
fn a_count_that_an_expiry_passes_is_not_taken_for_exact() {
    must_hold(&plan(), "disk", 140_000_046);
}
