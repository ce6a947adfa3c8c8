//! How long single calls of an operation take, one by one: `cargo bench -p tern-micro --bench
//! single [NAME...]`. The first row is what the clock itself takes and can tell apart: it is in
//! every figure.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

use tern_micro::ALL;

/// Calls of each: enough that a thousand of them are beyond p99.
const CALLS: usize = 100_000;

/// Calls before these: memory and caches are as they stay.
const WARMUP: usize = 20_000;

fn main() -> io::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let mut out = io::stdout();
    writeln!(out, "{:<10} {:>8} {:>8} {:>8} {:>10}  ns", "", "p50", "p99", "p99.9", "max")?;
    tell("clock", || {})?;
    for (name, make) in ALL {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            let mut operation = make();
            tell(name, || operation.once())?;
        }
    }
    Ok(())
}

fn tell(name: &str, mut call: impl FnMut()) -> io::Result<()> {
    (0..WARMUP).for_each(|_| call());
    let mut took: Vec<u64> = (0..CALLS)
        .map(|_| {
            let begin = Instant::now();
            call();
            black_box(begin.elapsed().as_nanos() as u64) // fits for centuries
        })
        .collect();
    took.sort_unstable();
    let at = |share: f64| took[((CALLS - 1) as f64 * share) as usize];
    let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    writeln!(io::stdout(), "{name:<10} {p50:>8} {p99:>8} {p999:>8} {max:>10}")
}
