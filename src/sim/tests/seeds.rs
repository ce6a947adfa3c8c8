//! The everyday proof: fixed seeds, a few that nobody has seen, and all that ever failed.
//!
//! `TERN_SIM_SEEDS` sets how many fresh seeds are tried (default 4); a failure names its seed and
//! the command that replays it.

use std::time::{SystemTime, UNIX_EPOCH};

use tern_sim::Outcome;
use tern_sim::plan::{Depth, Plan};
use tern_sim::runner::live;

/// The plan of everything at once.
const STORM: &str = include_str!("../plans/storm.toml");

fn must_hold(plan: &Plan, name: &str, seed: u64) -> Outcome {
    let outcome = live(plan, seed, None, 40);
    if let Some(violation) = &outcome.violation {
        outcome.lines.iter().for_each(|line| eprintln!("{line}"));
        let depth = if plan.depth == Depth::Quic { " --depth quic" } else { "" };
        panic!(
            "seed {seed} of {name}: {}: {}\nreplay: cargo run --release -p tern-sim -- \
             --plan src/sim/plans/{name}.toml --seed {seed}{depth} --trace",
            violation.check, violation.what
        );
    }
    outcome
}

#[test]
fn fixed_seeds_hold_and_have_weight() {
    let plan = Plan::everyday();
    for seed in 1..=6 {
        let outcome = must_hold(&plan, "everyday", seed);
        assert!(outcome.virtual_ms >= 600_000, "{outcome:?}");
        assert!(outcome.sends >= 200 && outcome.acked >= 100, "{outcome:?}");
        assert!(outcome.tally.met().count() >= 3, "{outcome:?}");
    }
}

#[test]
fn fresh_seeds_hold() {
    let wanted = std::env::var("TERN_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let first = now.as_millis() as u64; // fits until the year 584,556,019
    let plan = Plan::everyday();
    for seed in first..first + wanted.unwrap_or(4) {
        must_hold(&plan, "everyday", seed);
    }
}

#[test]
fn a_storm_holds() {
    let plan = Plan::parse(STORM).unwrap();
    for seed in 1..=3 {
        must_hold(&plan, "storm", seed);
    }
}

/// A login came late, by a connection that its device had given up, and fenced the newer session.
/// (What a seed gives changes with every new fault; these are as good as any other from then on.)
#[test]
fn a_late_login_of_a_device_does_not_fence_it() {
    for seed in [1_096, 1_111, 1_254, 1_828] {
        must_hold(&Plan::everyday(), "everyday", seed);
    }
}

/// A deadline that had just passed was not told any more, and sends waited for a heartbeat.
#[test]
fn sends_go_on_when_a_pause_is_over() {
    must_hold(&Plan::parse(STORM).unwrap(), "storm", 1_041);
}

/// A device's newest message was lost, its next one linked past it, and its key was called closed.
#[test]
fn the_key_of_a_lost_message_that_was_passed_is_never_closed() {
    for seed in [358, 468] {
        must_hold(&Plan::everyday(), "everyday", seed);
    }
}

/// A heartbeat took back what was under way, and another channel filled its room.
#[test]
fn what_is_healed_keeps_its_room_in_the_window() {
    must_hold(&Plan::everyday(), "everyday", 60);
}

fn with_packets() -> Plan {
    Plan { depth: Depth::Quic, ..Plan::everyday() }
}

/// The depth with packets: fixed seeds, of which some have Retry, migration and resets.
#[test]
fn fixed_seeds_hold_over_quic() {
    let plan = with_packets();
    let (mut seen, mut shown) = (tern_sim::quic::QuicCounts::default(), 0);
    for seed in 1..=8 {
        let outcome = must_hold(&plan, "everyday", seed);
        let counts = outcome.quic.expect("this depth has them");
        seen.host.retries += counts.host.retries;
        seen.host.migrations += counts.host.migrations;
        seen.host.resets += counts.host.resets;
        seen.host.lost_packets += counts.host.lost_packets;
        shown += outcome.shown;
    }
    println!("TEST A-01 depth=quic seeds=8 shown={shown} lost=0 {seen:?}");
    let host = &seen.host;
    assert!(host.retries > 0 && host.migrations > 0 && host.resets > 0, "{host:?}");
    assert!(host.lost_packets > 0, "{host:?}");
}

///
#[test]
fn one_seed_gives_one_run() {
    for (plan, seed) in [(Plan::everyday(), 7), (Plan::everyday(), 8), (with_packets(), 7)] {
        let (first, second) = (live(&plan, seed, None, 500), live(&plan, seed, None, 500));
        assert_eq!((first.hash, first.steps), (second.hash, second.steps));
        assert_eq!(first.lines, second.lines);
        assert_ne!(first.hash, live(&plan, seed + 2, None, 0).hash);
    }
}
