//! Each plan for a few seeds: what it is about has come to pass in them, and everything held.
//!
//! `TERN_SOAK` tries as many times the seeds, `TERN_SEED` sets the first of them.

use tern_random::{seed_from_env, soaked};
use tern_sim::fault::Fault;
use tern_sim::plan::{Depth, Plan};
use tern_sim::report::Totals;
use tern_sim::runner::live;

/// Seeds of each plan in an everyday run.
const SEEDS: u64 = 6;

/// Those of the plan whose seeds last for hours.
const SEEDS_LONG: u64 = 4;

/// Seeds of each plan over QUIC, and over the real storage.
const SEEDS_DEEP: u64 = 1;

/// Lives through seeds of a plan at a depth; the text of the plan is that of its file.
#[expect(clippy::print_stdout, reason = "a test tells what it counted")]
fn hold(name: &str, text: &str, depth: Depth, seeds: u64) -> Totals {
    let plan = Plan { depth, ..Plan::parse(text).expect("a test of the plans reads it") };
    let (mut totals, first) = (Totals::default(), seed_from_env(1));
    for seed in first..first + soaked(seeds) {
        let outcome = live(&plan, seed, None, 40);
        if let Some(violation) = &outcome.violation {
            outcome.lines.iter().for_each(|line| eprintln!("{line}"));
            panic!(
                "seed {seed} of {name}: {}: {}\nreplay: cargo run --release -p tern-sim -- --plan \
                 src/sim/plans/{name}.toml --depth {} --seed {seed} --trace",
                violation.check,
                violation.what,
                depth.label()
            );
        }
        totals.add(&outcome);
    }
    println!(
        "TEST plan={name} depth={} seed={first} n={} hours={:.1} acked={} shown={} \
         same_on_two_devices={} lost=0 dup=0",
        depth.label(),
        totals.seeds,
        totals.virtual_ms as f64 / 3_600_000.0,
        totals.acked,
        totals.shown,
        totals.compared
    );
    totals
}

/// What must have come to pass: faults, and ways through the machines.
fn met(totals: &Totals, faults: &[Fault], ways: &[&str]) {
    for fault in faults {
        assert!(totals.tally.count(*fault) > 0, "{} never struck", fault.label());
    }
    for way in ways {
        assert!(totals.branches.count(way) > 0, "nobody went {way}");
    }
}

const GROUPS: &str = include_str!("../plans/groups.toml");
const DEVICES: &str = include_str!("../plans/devices.toml");
const OFFLINE: &str = include_str!("../plans/offline.toml");
const SLOW: &str = include_str!("../plans/slow.toml");
const FENCING: &str = include_str!("../plans/fencing.toml");
const STARTS: &str = include_str!("../plans/starts.toml");
const BEATS: &str = include_str!("../plans/beats.toml");

#[test]
fn groups_hold() {
    let totals = hold("groups", GROUPS, Depth::Frames, SEEDS);
    let ways = ["recalls", "edits", "NOT_YOURS", "NOT_VISIBLE", "receipts_counted"];
    met(&totals, &[], &ways);
}

#[test]
fn what_one_device_does_the_others_of_its_user_end_with() {
    let totals = hold("devices", DEVICES, Depth::Frames, SEEDS);
    met(&totals, &[], &["marks_read", "blocks", "recalls", "unread_counted", "SKIPPED"]);
    assert!(totals.compared > 1_000, "{} places were compared", totals.compared);
}

#[test]
fn three_devices_of_a_user_with_random_times_away_end_with_identical_logs() {
    let totals = hold("offline", OFFLINE, Depth::Frames, SEEDS_LONG);
    met(&totals, &[Fault::Away, Fault::Expiry], &["EXPIRED", "RECALLED", "SKIPPED"]);
    assert!(totals.compared > 1_000, "{} places were compared", totals.compared);
}

#[test]
fn slow_consumers_lose_nothing() {
    let totals = hold("slow", SLOW, Depth::Frames, SEEDS);
    met(&totals, &[Fault::SlowConsumer, Fault::SlowStore, Fault::ClientPause], &["reads_cold"]);
}

#[test]
fn sessions_of_one_device_fence_each_other() {
    let totals = hold("fencing", FENCING, Depth::Frames, SEEDS);
    let faults = [Fault::Clone, Fault::Restore, Fault::LinkHalfLost, Fault::Replay];
    met(&totals, &faults, &["sessions_fenced", "FENCED"]);
}

#[test]
fn who_comes_right_after_a_start_is_shown_everything() {
    let totals = hold("starts", STARTS, Depth::Frames, SEEDS);
    met(&totals, &[Fault::HintsLost, Fault::MailDelayed, Fault::Reinstall], &["SKIPPED"]);
}

#[test]
fn heartbeats_tell_who_is_there() {
    let totals = hold("beats", BEATS, Depth::Frames, SEEDS);
    let faults = [Fault::NatRebind, Fault::NetworkChange, Fault::DeviceClockBack];
    met(&totals, &faults, &["beats", "sessions_offline"]);
}

#[test]
fn the_plans_hold_over_quic_and_over_the_real_storage() {
    let all = [
        ("groups", GROUPS),
        ("devices", DEVICES),
        ("slow", SLOW),
        ("fencing", FENCING),
        ("beats", BEATS),
    ];
    for depth in [Depth::Quic, Depth::Disk] {
        for (name, text) in all {
            hold(name, text, depth, SEEDS_DEEP);
        }
    }
    hold("offline", OFFLINE, Depth::Disk, SEEDS_DEEP);
}
