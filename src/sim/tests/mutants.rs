//! M-01: each deliberate defect is noticed, and by a check that speaks of it.

use tern_sim::mutant::Mutant;
use tern_sim::plan::Plan;
use tern_sim::runner::live;

/// Seeds within which each defect must be noticed.
const SEEDS_MAX: u64 = 30;

#[test]
fn every_deliberate_defect_is_noticed() {
    // A panic of the machines counts as noticed, and need not be shown.
    std::panic::set_hook(Box::new(|_| {}));
    let plan = Plan::everyday();
    let missed: Vec<&str> = Mutant::at(plan.depth)
        .iter()
        .filter(|mutant| {
            (1..=SEEDS_MAX).all(|seed| live(&plan, seed, Some(**mutant), 0).violation.is_none())
        })
        .map(|mutant| mutant.label())
        .collect();
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}
