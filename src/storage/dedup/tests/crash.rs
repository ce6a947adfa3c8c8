//! A real process that dies at each store, one after the other; what it leaves is either right to
//! the last bit, or thrown away (C-03).
//!
//! The child keeps a plain log of its own, written before the table as a shard does. The parent
//! knows from it what there was, attaches, replays what the table says it does not know, and
//! compares with a map.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use tern_core::dedup::DedupEntry;

use super::super::memory::crash::{Plan, passed, plan};
use super::*;

/// Names the folder to the child.
const FOLDER: &str = "TERN_DEDUP_TEST_CRASH_FOLDER";

/// The point at which the child dies.
const POINT: &str = "TERN_DEDUP_TEST_CRASH_POINT";

/// How the child says that it got through, and after how many points.
const THROUGH: &str = "points passed: ";

/// Slots of the first table: it grows twice.
const SLOTS: usize = 16;

/// Steps of the scenario before, and after, the child opens its log again.
const STEPS: [u64; 2] = [80, 20];

/// What a line of the child's log says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    /// The log was opened for the n-th time.
    Open(u8),
    /// A device's record. Its offset is 16 times the number of the line.
    Put(u64),
    /// The device can send no more.
    Remove(u64),
}

/// The whole scenario, the same every time: devices come, send again, and go.
fn scenario() -> Vec<Line> {
    let mut random = Stream::new(7);
    let mut lines = Vec::new();
    for (opening, steps) in (1..).zip(STEPS) {
        lines.push(Line::Open(opening));
        for step in 0..steps {
            let uin = random.below(44) + 1;
            let goes = step % 4 == 3;
            lines.push(if goes { Line::Remove(uin) } else { Line::Put(uin) });
        }
    }
    lines
}

fn offset(line: usize) -> u64 {
    (line as u64 + 1) * 16
}

/// Does what the lines from `first` on say; each is in the log before the table hears of it.
fn live(folder: &Path, lines: &[Line]) {
    let mut log = OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut table = None;
    for (number, line) in lines.iter().enumerate() {
        log.write_all(b".").unwrap();
        match *line {
            Line::Open(opening) => {
                drop(table.take());
                let supply = small_supply(&folder.join("table"), SLOTS);
                table = Some(attach_from(&supply, opening, Offset(offset(number))).table);
            }
            Line::Put(uin) => {
                put(table.as_mut().unwrap(), uin, offset(number));
            }
            Line::Remove(uin) => remove(table.as_mut().unwrap(), uin),
        }
    }
}

/// Not a test of its own: what the parent starts.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let point = std::env::var(POINT).unwrap().parse().unwrap();
    plan(Plan::Die(point));
    live(Path::new(&folder), &scenario());
    println!("{THROUGH}{}", passed());
}

/// What a table holds after some lines, by a plain map.
fn model(lines: &[Line]) -> BTreeMap<u64, DedupEntry> {
    let mut model = BTreeMap::new();
    for (number, line) in lines.iter().enumerate() {
        match line {
            Line::Open(_) => {}
            Line::Put(uin) => drop(model.insert(*uin, entry(offset(number)))),
            Line::Remove(uin) => drop(model.remove(uin)),
        }
    }
    model
}

fn content(table: &ShmTable) -> BTreeMap<u64, DedupEntry> {
    let content: BTreeMap<_, _> =
        (1..=64).filter_map(|uin| Some((uin, get(table, uin)?))).collect();
    assert_eq!(content.len(), table.entries());
    content
}

/// Attaches to what a child left after these lines; why it was thrown away, if it was.
fn judge(folder: &Path, lines: &[Line]) -> Option<&'static str> {
    let opened = lines.iter().filter(|line| matches!(line, Line::Open(_))).count() as u8;
    let supply = small_supply(&folder.join("table"), SLOTS);
    let end = Offset(offset(lines.len()));
    let Attached { mut table, applied, rebuilt } = attach_from(&supply, opened + 1, end);
    let mut from = 0;
    if rebuilt.is_some() {
        assert_eq!((applied, table.entries()), (Offset::NONE, 0));
    } else {
        // It knows the records before `applied`; of what was removed behind the newest of
        // them it knows some, in order, and none by half.
        let records = lines.iter().enumerate().filter(|(_, line)| matches!(line, Line::Put(_)));
        let known = records.take_while(|(number, _)| offset(*number) < applied.0).last();
        from = known.map_or(0, |(number, _)| number + 1);
        let gone = lines[from..].iter().take_while(|line| !matches!(line, Line::Put(_))).count();
        let content = content(&table);
        let fits = (from..=from + gone).any(|known| model(&lines[..known]) == content);
        assert!(fits, "applied {applied:?}: {content:?}");
    }
    for (number, line) in lines.iter().enumerate().skip(from) {
        match line {
            Line::Open(_) => {}
            Line::Put(uin) => drop(put(&mut table, *uin, offset(number))),
            Line::Remove(uin) => remove(&mut table, *uin),
        }
    }
    assert_eq!(content(&table), model(lines), "after replay");
    rebuilt
}

/// One child; `None` if it got through the whole scenario.
fn die_at(point: u64, lines: &[Line]) -> Option<Option<&'static str>> {
    let folder = tempfile::tempdir_in(MEMORY).unwrap();
    std::fs::create_dir(folder.path().join("table")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["dedup::tests::crash::child", "--exact", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(POINT, point.to_string())
        .stdout(Stdio::piped());
    let child = spawn(&mut child).wait_with_output().unwrap();
    let written = std::fs::read(folder.path().join("log")).unwrap().len();
    if child.status.signal().is_none() {
        let said = String::from_utf8(child.stdout).unwrap();
        assert!(child.status.success() && said.contains(THROUGH), "point {point}: {said}");
        assert_eq!(written, lines.len());
        assert!(said.contains(&format!("{THROUGH}{}\n", point - 1)), "point {point}: {said}");
        return None;
    }
    assert_eq!(child.status.signal(), Some(9), "point {point}");
    Some(judge(folder.path(), &lines[..written]))
}

#[test]
fn killed_before_any_store_it_is_right_or_thrown_away() {
    let lines = scenario();
    let (mut points, mut taken) = (0, 0);
    let mut thrown: BTreeMap<&str, u32> = BTreeMap::new();
    while let Some(rebuilt) = die_at(points + 1, &lines) {
        points += 1;
        match rebuilt {
            None => taken += 1,
            Some(why) => *thrown.entry(why).or_default() += 1,
        }
    }
    for why in ["it was growing", "an entry is torn", "entries were moving", "its count is wrong"] {
        assert!(thrown.contains_key(why), "no point of the scenario left: {why}");
    }
    assert!(points > 1000 && taken > 50, "{taken} of {points}");
    println!("TEST C-03 n={points}/{points} taken_over={taken} thrown_away={thrown:?} wrong=0");
}
