//! In which way should a batch reach the disk? Measures five of them, on room made in two
//! manners, and how long each can hold up the thread that appends.
//!
//! `cargo bench -p tern-storage --bench commit -- --help` tells the options. What comes in is a
//! folder on a real disk; what goes out is a table for people and, if asked for, every round as
//! JSON. Two measurements, each cell in a fresh file:
//!
//! - *commit*: batches of some records one after the other by one thread: from the first byte
//!   handed over to the return of the sync.
//! - *append*: one thread appends all the time, another one syncs whenever some records are there:
//!   time of each single append. A worker must never wait for the disk.
//!
//! Every round goes through all cells in an order of its own, so that what one cell leaves behind
//! for the next (a full journal, a warm cache of the host) shows as a difference between rounds.
//!
//! Where other programs run too, a thread whose sync has ended may wait for a core until the next
//! tick (4 ms here), and that is all one sees. `chrt -f 1` in front of the built program keeps it
//! out of the figures; then nothing else gets the core of the thread that appends.
//!
//! Pages are mapped, and in the page cache, before the clock starts: the first store to each still
//! faults once, for the kernel must learn that it is dirty. That is the state of every page of a
//! log, which is written once.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it speaks to people

mod machine;
mod options;
mod place;
mod report;
mod ring;
mod way;

use std::io;
use std::process::ExitCode;
use std::str::FromStr;

use crate::machine::Machine;
use crate::options::Options;
use crate::place::{Place, Prepared};
use crate::report::{AppendRound, CommitRound, Report};
use crate::way::Way;

/// Records of a batch: a lone message, a quiet, a busy and a crowded server.
const BATCHES: [usize; 4] = [1, 8, 64, 512];

/// One thing to measure.
#[derive(Clone, Copy)]
struct Cell {
    way: Way,
    prepared: Prepared,
    records: usize,
    measured: Measured,
}

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measured {
    /// Batches of so many records.
    Commits,
    /// Appends beside syncs of at least so many records.
    Appends,
}

impl Measured {
    const ALL: [Self; 2] = [Self::Commits, Self::Appends];
}

impl FromStr for Measured {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "commits" => Ok(Self::Commits),
            "appends" => Ok(Self::Appends),
            _ => Err(()),
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", options.dir.display());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let machine = Machine::read(&options.dir)?;
    if machine.in_memory && !options.allow_memory {
        return Err(io::Error::other(
            "this file system is in memory, where a sync does nothing: give --dir on a real disk, \
             or --allow-memory",
        ));
    }
    println!("{}", machine.text());
    let ways = ways(options)?;
    let mut report = Report::new(machine, options, &ways);
    for round in 1..=options.rounds {
        let cells = shuffled(round, &options.measured, &ways);
        for (index, cell) in cells.iter().enumerate() {
            eprint!("\rround {round} of {}: {:>2}/{}  ", options.rounds, index + 1, cells.len());
            measure(options, *cell, round, &mut report)?;
        }
    }
    eprintln!();
    println!("{}", report.text());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json())?;
        println!("every round: {}", path.display());
    }
    Ok(())
}

/// The ways that this machine has; says which it has not.
fn ways(options: &Options) -> io::Result<Vec<Way>> {
    let place = Place::make(&options.dir, Prepared::Fallocated, options.file_bytes)?;
    let usable = |way: &Way| {
        let refused = way.refused(&place);
        if let Some(error) = &refused {
            println!("skipped: {}, which the kernel refuses: {error}", way.name());
        }
        refused.is_none()
    };
    Ok(Way::ALL.into_iter().filter(usable).collect())
}

fn measure(options: &Options, cell: Cell, round: u64, report: &mut Report) -> io::Result<()> {
    let Cell { way, prepared, records, measured } = cell;
    let place = Place::make(&options.dir, prepared, options.file_bytes)?;
    match measured {
        Measured::Commits => {
            let commits = way.commits(&place, records, options.time)?;
            report.commits.push(CommitRound::new(way, prepared, records, round, commits));
        }
        Measured::Appends => {
            let appends = way.appends(&place, records, options.time)?;
            report.appends.push(AppendRound::new(way, prepared, records, round, appends));
        }
    }
    Ok(())
}

/// All cells, in an order that depends on the round alone.
fn shuffled(round: u64, measured: &[Measured], ways: &[Way]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (records, prepared, way) in report::cells(ways) {
        let cell = |measured: &Measured| Cell { way, prepared, records, measured: *measured };
        cells.extend(measured.iter().map(cell));
    }
    let mut random = round;
    for last in (1..cells.len()).rev() {
        // Knuth's linear congruential generator; its high bits are the good ones.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        cells.swap(last, (random >> 33) as usize % (last + 1));
    }
    cells
}
