//! The everyday proof: fixed seeds, a few that nobody has seen, and all that ever failed.
//!
//! `TERN_SOAK` tries fresh ones for as many times as long, `TERN_SEED` sets the first of them; a
//! failure names its seed and the command that replays it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tern_core::counters::Counters;
use tern_sim::Outcome;
use tern_sim::plan::{Depth, Plan};
use tern_sim::report::{Matrix, Totals};
use tern_sim::runner::live;

/// Fixed seeds of the fast depth.
const FIXED: u64 = 40;

/// Those of the depth with packets: without datagrams, and with each of their carriers; between them
/// with all that is looked for.
const FIXED_OVER_QUIC: [u64; 4] = [1, 5, 6, 11];

/// How long fresh seeds are tried, at least one.
const FRESH: Duration = Duration::from_secs(4);
const FRESH_OVER_QUIC: Duration = Duration::from_secs(2);

/// Counters that only broken or foreign clients move, worlds larger than these, addresses (which
/// only packets have), or devices that never acknowledge.
const NOT_BY_HONEST: [&str; 5] =
    ["frames_malformed", "frames_unknown", "mail_coalesced", "beats_moved", "news"];

/// Codes that honest devices get on bad days.
const CODES: [&str; 30] = [
    "TOO_SLOW",
    "RESUME_UNKNOWN",
    "FENCED",
    "NO_SUCH_USER",
    "RATE_LIMITED",
    "BUSY",
    "PREDECESSOR",
    "DISK_FULL",
    "SHARD_STOPPED",
    "LOST",
    "EXPIRED",
    "SKIPPED",
    "DRAINING",
    "OFFLINE",
    "KEY_CLOSED",
    "NOT_A_MEMBER",
    "NOT_ALLOWED",
    "NOT_VISIBLE",
    "MUTED",
    "CHANGES_NOTHING",
    "NO_SUCH_MEMBER",
    "OWNER_STAYS",
    "GROUP_FULL",
    "RECALLED",
    "ALREADY_RECALLED",
    "NOT_CONTENT",
    "NOT_YOURS",
    "TOO_LATE",
    "NO_SUCH_MESSAGE",
    "NOT_GRANTED",
];

/// The plan of every day as it was when the seeds that are kept here failed.
const PAST: &str = include_str!("../plans/past.toml");

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

/// fixed seeds; between them each way through the server that an honest device
/// can lead it was gone.
#[test]
fn fixed_seeds_hold_and_have_weight() {
    let (plan, mut totals) = (Plan::everyday(), Totals::default());
    for seed in 1..=FIXED {
        let outcome = must_hold(&plan, "everyday", seed);
        assert!(outcome.virtual_ms >= 600_000, "{outcome:?}");
        assert!(outcome.sends >= 200 && outcome.acked >= 100, "{outcome:?}");
        assert!(outcome.tally.met().count() >= 3, "{outcome:?}");
        totals.add(&outcome);
    }
    let counters = Counters::DESCRIPTORS.iter().map(|(name, _)| *name);
    let expected: Vec<&str> =
        counters.filter(|name| !NOT_BY_HONEST.contains(name)).chain(CODES).collect();
    let never: Vec<&&str> =
        expected.iter().filter(|name| totals.branches.count(name) == 0).collect();
    println!(
        "TEST A-01 depth=frames seeds={FIXED} hours={:.1} acked={} shown={} lost=0 dup=0",
        totals.virtual_ms as f64 / 3_600_000.0,
        totals.acked,
        totals.shown
    );
    println!("TEST A-02 seeds={FIXED} heal_ms_max={}", totals.heal_ms_max);
    println!("TEST A-04 branches={} never={}", expected.len(), never.len());
    totals.branches.iter().for_each(|(name, count)| println!("  {name:<20} {count:>8}"));
    assert!(never.is_empty(), "nobody went {never:?}");
}

/// seeds that nobody has seen, for a while, with the matrix of the faults they met.
#[test]
fn fresh_seeds_hold() {
    let totals = fresh(&Plan::everyday(), FRESH);
    println!("{totals}\n{}", Matrix(&totals.pairs));
    let (met, of) = totals.pairs.coverage();
    println!("TEST A-03 depth=frames seeds={} pairs={met}/{of} lost=0", totals.seeds);
}

#[test]
fn fresh_seeds_hold_over_quic() {
    let totals = fresh(&with_packets(), FRESH_OVER_QUIC);
    let (met, of) = totals.pairs.coverage();
    println!("TEST A-03 depth=quic seeds={} pairs={met}/{of} lost=0", totals.seeds);
}

/// Lives through seeds from `TERN_SEED`, or from this moment's, for this long, times `TERN_SOAK`.
fn fresh(plan: &Plan, time: Duration) -> Totals {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    // Fits until the year 584,556,019.
    let first = number("TERN_SEED").unwrap_or(now.as_millis() as u64);
    let time = time * number("TERN_SOAK").unwrap_or(1) as u32; // fits: a few
    let (begun, mut totals) = (Instant::now(), Totals::default());
    for seed in first.. {
        totals.add(&must_hold(plan, "everyday", seed));
        if begun.elapsed() >= time {
            break;
        }
    }
    totals
}

#[test]
fn a_storm_holds() {
    let plan = Plan::parse(STORM).unwrap();
    for seed in 1..=2 {
        must_hold(&plan, "storm", seed);
    }
}

/// A login came late, by a connection that its device had given up, and fenced the newer session.
/// (What a seed gives changes with every new fault; these are as good as any other from then on.)
#[test]
fn a_late_login_of_a_device_does_not_fence_it() {
    for seed in [1_096, 1_111] {
        must_hold(&past(), "past", seed);
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
        must_hold(&past(), "past", seed);
    }
}

/// A heartbeat took back what was under way, and another channel filled its room.
#[test]
fn what_is_healed_keeps_its_room_in_the_window() {
    must_hold(&past(), "past", 60);
}

/// A push by datagram overtook the answer to a resume, whose cursors were known.
#[test]
fn no_push_overtakes_a_login() {
    must_hold(&past(), "past", 3_001_885);
    must_hold(&Plan { depth: Depth::Quic, ..past() }, "past", 3_100_003);
}

/// Nothing was left of a device's newest message, and its restored phone sent it once more.
#[test]
fn the_key_of_a_message_of_which_nothing_is_left_is_not_appended_again() {
    must_hold(&past(), "past", 3_002_085);
}

/// A change that was refused for good was judged anew when younger ones stood behind it; and a late
/// copy of another one got another final answer than the first.
#[test]
fn what_was_refused_is_not_taken_behind_younger_ones() {
    for seed in [3_002_234, 3_001_448] {
        must_hold(&past(), "past", seed);
    }
}

/// A leave expired before the home shard of who left had heard of it, and was forgotten.
#[test]
fn a_leave_that_expired_is_heard_of() {
    must_hold(&past(), "past", 5_000_589);
}

/// An application confirmed what it was given before its history began another life, in which it
/// stood too, and was not heard.
#[test]
fn what_stands_in_the_next_life_is_confirmed() {
    must_hold(&past(), "past", 5_007_585);
}

/// A lost message had the newest key of its device but not the last place, and the process that
/// kept its table forgot that.
#[test]
fn a_key_that_a_loss_tore_out_is_doubtful_in_every_process() {
    must_hold(&past(), "past", 910_013);
}

/// What a heartbeat told of a channel was overtaken by a push by datagram, which the application had
/// consumed by then; the device took its history for restarted, and showed a message twice.
#[test]
fn a_word_that_pushes_have_overtaken_takes_nothing_back() {
    let slow = Plan::parse(include_str!("../plans/slow.toml")).unwrap();
    for seed in [21_000_698, 41_001_457] {
        must_hold(&slow, "slow", seed);
    }
}

/// A message was taken back in a group that somebody had left, and still counts as unread for him.
#[test]
fn who_left_a_group_need_not_hear_of_what_is_taken_back_later() {
    must_hold(&past(), "past", 31_001_105);
}

/// A server that has just started let a user in by the last word of an exchange, of which the first
/// was lost: a channel of his was not known yet, and he was told that he may not look back in it.
#[test]
fn nobody_is_let_in_before_all_his_channels_are_known() {
    must_hold(&past(), "past", 8_000_158);
}

/// All devices were off when the end of the bad day came near, and time stood still for the
/// application that sends next.
#[test]
fn time_goes_on_while_nobody_can_send() {
    must_hold(&past(), "past", 400_012);
    let groups = Plan::parse(include_str!("../plans/groups.toml")).unwrap();
    must_hold(&groups, "groups", 11);
}

/// A user could not read a channel any more, and all that he read elsewhere was told too late.
#[test]
fn what_is_read_is_told_though_a_channel_is_refused() {
    must_hold(&past(), "past", 7_004_185);
}

/// Who was thrown out and came back was pushed what was said meanwhile, when a heartbeat pushed
/// once more what was never acked.
#[test]
fn what_is_pushed_once_more_is_for_who_may_read_it_now() {
    must_hold(&past(), "past", 11_006_220);
}

/// Marks of another life of a history came before it was said where that begins, and a device
/// forgot what it had read.
#[test]
fn what_is_read_outlives_a_mark_of_a_life_that_is_not_known_yet() {
    must_hold(&Plan::everyday(), "everyday", 240_000_016);
}

/// A phone went back to a backup from before its history had restarted, and the judge took from
/// it what stood in the backup.
#[test]
fn a_restored_phone_has_the_messages_of_its_backup() {
    must_hold(&past(), "past", 20_002_426);
}

/// The server stepped over what had expired for a session whose connection was gone, and the judge
/// took the mark for invented.
#[test]
fn what_expired_is_stepped_over_without_a_connection_too() {
    must_hold(&past(), "past", 50_006_468);
}

/// After a start a home shard was asked how far a user had got before it heard what he may read;
/// it told nothing, and the other side did not learn of it any more.
#[test]
fn what_is_asked_too_early_is_told_later() {
    must_hold(&past(), "past", 60_009_836);
}

/// A refusal was forgotten two minutes after it was said first, though copies of its send still
/// came; then a late one was appended behind younger ones.
#[test]
fn a_refusal_is_remembered_while_copies_come() {
    must_hold(&past(), "past", 130_004_709);
}

/// A plan that stays as it is.
fn past() -> Plan {
    Plan::parse(PAST).expect("a test of the plans reads it")
}

fn with_packets() -> Plan {
    Plan { depth: Depth::Quic, ..Plan::everyday() }
}

/// The depth with packets: fixed seeds, of which some have Retry, migration and resets.
#[test]
fn fixed_seeds_hold_over_quic() {
    let plan = with_packets();
    let (mut seen, mut shown) = (tern_sim::quic::QuicCounts::default(), 0);
    for seed in FIXED_OVER_QUIC {
        let outcome = must_hold(&plan, "everyday", seed);
        let counts = outcome.quic.expect("this depth has them");
        seen.host.retries += counts.host.retries;
        seen.host.migrations += counts.host.migrations;
        seen.host.resets += counts.host.resets;
        seen.host.lost_packets += counts.host.lost_packets;
        seen.host.pushes_free += counts.host.pushes_free;
        seen.host.pushes_doubled += counts.host.pushes_doubled;
        seen.host.pushes_repaired += counts.host.pushes_repaired;
        seen.host.pushes_repeated += counts.host.pushes_repeated;
        seen.host.frames_free += counts.host.frames_free;
        shown += outcome.shown;
    }
    println!("TEST A-01 depth=quic seeds={} shown={shown} lost=0 {seen:?}", FIXED_OVER_QUIC.len());
    let host = &seen.host;
    assert!(host.retries > 0 && host.migrations > 0 && host.resets > 0, "{host:?}");
    assert!(host.lost_packets > 0, "{host:?}");
    assert!(host.frames_free > 0 && host.pushes_free > 0, "{host:?}");
    let again = [host.pushes_doubled, host.pushes_repaired, host.pushes_repeated];
    assert!(again.iter().all(|pushes| *pushes > 0), "{host:?}");
}

///
#[test]
fn one_seed_gives_one_run() {
    for (plan, seed) in [(Plan::everyday(), 7), (Plan::everyday(), 8), (with_packets(), 5)] {
        let (first, second) =
            (live(&plan, seed, None, usize::MAX), live(&plan, seed, None, usize::MAX));
        assert_eq!((first.hash, first.steps), (second.hash, second.steps));
        assert_eq!(first.lines, second.lines);
        println!(
            "TEST A-06 depth={:?} seed={seed} lines={} hash={:016x}",
            plan.depth,
            first.lines.len(),
            first.hash
        );
        assert_ne!(first.hash, live(&plan, seed + 2, None, 0).hash);
    }
}
