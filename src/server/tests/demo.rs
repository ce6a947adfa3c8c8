//! The newcomer's command on the real binary: a short run of everything holds every promise and
//! says so.

use std::process::Command;

#[test]
fn a_short_demo_holds_every_promise() {
    play(&[]);
}

#[test]
fn a_short_demo_by_streams_holds_every_promise() {
    play(&["--streams"]);
}

fn play(more: &[&str]) {
    let demo = Command::new(env!("CARGO_BIN_EXE_tern"))
        .args(["demo", "--messages", "40", "--seconds", "4"])
        .args(more)
        .output()
        .expect("the binary is there");
    let (said, complained) =
        (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{}: {said}{complained}", demo.status);
    let last = said.lines().last().expect("it says how it went");
    assert!(
        last.starts_with(
            "demo seed=1 sent=80 acked=80 delivered=160 lost=0 dup=0 reorder=0 answers=0 "
        ),
        "{said}"
    );
    for event in ["kill -9 of the server", "the server is back", "kill -9 of bob's client"] {
        assert!(said.contains(event), "{said}");
    }
}
