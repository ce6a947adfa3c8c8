//! What the caller of the bench may choose.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Measured;

const HELP: &str = "\
Measures the ways in which a batch of records can reach the disk.

cargo bench -p tern-storage --bench commit -- [OPTIONS]

  --dir DIR         where the files are made, on the disk to measure [the build folder]
  --rounds N        rounds, at least 3, each in an order of its own [3]
  --seconds N       longest time of a cell and round [1]
  --file-mib N      size of the file of a cell; full, the cell ends [64]
  --json FILE       also write every round as JSON
  --only WHAT       commits, or appends; else both
  --allow-memory    measure a file system in memory all the same";

/// Fewest rounds: with two, nobody knows which one was disturbed.
const ROUNDS_MIN: u64 = 3;

/// Smallest file in MiB: some hundreds of the largest batches.
const FILE_MIB_MIN: usize = 16;

/// What was chosen.
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) rounds: u64,
    pub(crate) time: Duration,
    pub(crate) file_bytes: usize,
    pub(crate) json: Option<PathBuf>,
    /// What is timed.
    pub(crate) measured: Vec<Measured>,
    pub(crate) allow_memory: bool,
}

impl Options {
    /// Reads the arguments; `None` if they ask for help only.
    pub(crate) fn read(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            dir: env!("CARGO_TARGET_TMPDIR").into(),
            rounds: ROUNDS_MIN,
            time: Duration::from_secs(1),
            file_bytes: 64 << 20,
            json: None,
            measured: Measured::ALL.to_vec(),
            allow_memory: false,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {} // cargo's own
                "--dir" => options.dir = value(&arg, args.next())?,
                "--rounds" => options.rounds = at_least(&arg, args.next(), ROUNDS_MIN)?,
                "--seconds" => {
                    options.time = Duration::from_secs(at_least(&arg, args.next(), 1)?);
                }
                "--file-mib" => {
                    options.file_bytes = at_least(&arg, args.next(), FILE_MIB_MIN)? << 20;
                }
                "--json" => options.json = Some(value(&arg, args.next())?),
                "--only" => options.measured = vec![value(&arg, args.next())?],
                "--allow-memory" => options.allow_memory = true,
                "--help" | "-h" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                _ => return Err(format!("there is no {arg}\n\n{HELP}")),
            }
        }
        Ok(Some(options))
    }
}

fn value<T: FromStr>(name: &str, text: Option<String>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{name} needs a value"))?;
    text.parse().map_err(|_| format!("{name} {text}: not a proper value"))
}

fn at_least<T: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    text: Option<String>,
    least: T,
) -> Result<T, String> {
    let number: T = value(name, text)?;
    if number < least {
        return Err(format!("{name} must be at least {least}"));
    }
    Ok(number)
}
