//! Every order of events in a small world, and a fault at every step of a message's way.
//!
//! `TERN_SOAK` makes the choices of A-05 deeper by as many less one.

use tern_sim::small::choices::Choices;
use tern_sim::small::{Dies, Move, live, live_with};

/// Choices in a row whose every way is tried, from each step on.
const DEPTH: usize = 2;

/// Faults in one run.
const FAULTS: usize = 2;

fn soak() -> usize {
    std::env::var("TERN_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// two senders, four devices, and from each step on every order of the next events, crashes
/// and repeats among them.
#[test]
fn every_order_of_events_holds() {
    let usual = live(&mut Choices::new(0), 0, 0);
    assert_eq!((usual.acked, usual.violation), (4, None));
    let (mut runs, mut steps, mut longest) = (0_u64, 0, 0);
    let depth = DEPTH + soak() - 1;
    for skip in 0..usual.steps {
        let mut choices = Choices::new(depth);
        loop {
            let outcome = live(&mut choices, skip, FAULTS);
            assert_eq!(outcome.violation, None, "from step {skip}: {:?}", outcome.moves);
            // What a process had not stored when it died was never accepted.
            let crashed = outcome.moves.iter().any(|made| matches!(made, Move::Crash(_)));
            assert!(outcome.acked == 4 || crashed, "from step {skip}: {:?}", outcome.moves);
            (runs, steps) = (runs + 1, steps + outcome.steps);
            longest = longest.max(outcome.steps);
            if !choices.turn() {
                break;
            }
        }
    }
    println!(
        "TEST A-05 senders=2 devices=4 depth={depth} from={} runs={runs} steps={steps} \
         longest={longest} lost=0 dup=0",
        usual.steps
    );
}

/// whoever dies, and whichever step it is, the sender learns the one result of its message.
#[test]
fn a_send_has_one_result_whatever_step_a_fault_strikes() {
    let usual = live(&mut Choices::new(0), 0, 0);
    let faults = [
        Move::Cut(0),
        Move::Crash(0),
        Move::Kill(Dies::Power),
        Move::Kill(Dies::Memory),
        Move::Kill(Dies::Process),
    ];
    let (mut covered, mut runs) = (0, 0);
    for step in 0..usual.steps {
        let outcomes = faults.iter().filter_map(|fault| Some((fault, live_with(step, *fault)?)));
        let mut tried = 0;
        for (fault, outcome) in outcomes {
            assert_eq!(outcome.violation, None, "{fault:?} at step {step}: {:?}", outcome.moves);
            assert!(outcome.acked <= 4, "{fault:?} at step {step}");
            let may_miss = *fault == Move::Crash(0); // what was not stored was never accepted
            assert!(outcome.acked == 4 || may_miss, "{fault:?} at step {step}: {}", outcome.acked);
            tried += 1;
        }
        covered += u64::from(tried == faults.len());
        runs += tried;
    }
    println!(
        "TEST A-07 steps={covered}/{} faults={} runs={runs} lost=0 dup=0",
        usual.steps,
        faults.len()
    );
    assert_eq!(covered, usual.steps);
}
