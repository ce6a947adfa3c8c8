//! Does an operation many times, for a tool that counts from outside: `tern-micro NAME TIMES`.
//! Without arguments it lists the names.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use tern_micro::ALL;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = &arguments[..] else {
        let names: String = ALL.iter().map(|(name, _)| format!("{name}\n")).collect();
        let _ = std::io::stdout().write_all(names.as_bytes());
        return ExitCode::SUCCESS;
    };
    let operation = ALL.iter().find(|(known, _)| known == name);
    let (Some((_, make)), Ok(times)) = (operation, times.parse::<u64>()) else {
        eprintln!("tern-micro: NAME TIMES; without arguments it lists the names");
        return ExitCode::FAILURE;
    };
    let mut operation = make();
    (0..times).for_each(|_| operation.once());
    ExitCode::SUCCESS
}
