//! Clocks of one process that say what a test wishes: a few lines of C before those of libc, which
//! the same `cc` makes that links this test.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/days/clock.c");

/// Nanoseconds of a second, and seconds of a year that is no leap year.
const SECOND: i64 = 1_000_000_000;
const YEAR_SECONDS: i64 = 365 * 86_400;

/// What a program's wall clock shall say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    True,
    /// So many years from the true time.
    Years(i64),
    /// So many seconds from it.
    Seconds(i64),
    /// 1970.
    Beginning,
    /// The same moment for ever.
    Frozen,
}

/// The clocks of programs that are started [with](Self::before) them.
pub struct Clock {
    folder: TempDir,
    wish: File,
}

impl Clock {
    /// True clocks, until a test wishes otherwise.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("clock.so");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([library.as_os_str(), SOURCE.as_ref()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let wish = File::create(folder.path().join("wish")).unwrap();
        let clock = Self { folder, wish };
        clock.write([0, 0, 0]);
        clock
    }

    /// The command that a program is to be started by.
    pub fn before(&self) -> [String; 3] {
        let file = |name| -> PathBuf { self.folder.path().join(name) };
        [
            "env".to_owned(),
            format!("LD_PRELOAD={}", file("clock.so").display()),
            format!("CLOCK_WISH={}", file("wish").display()),
        ]
    }

    /// From now on the wall clock says this.
    pub fn set(&self, wish: Wish) {
        self.write(match wish {
            Wish::True => [0, 0, 0],
            Wish::Years(years) => [years * YEAR_SECONDS * SECOND, 0, 0],
            Wish::Seconds(seconds) => [seconds * SECOND, 0, 0],
            Wish::Beginning => [-now(), 0, 0],
            Wish::Frozen => [0, now(), 0],
        });
    }

    /// The next program finds this wall clock, and a machine that was just booted.
    pub fn boot(&self, years: i64) {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        self.write([years * YEAR_SECONDS * SECOND, 0, -(seconds as i64 - 1) * SECOND]);
    }

    fn write(&self, wish: [i64; 3]) {
        let bytes: Vec<u8> = wish.iter().flat_map(|number| number.to_ne_bytes()).collect();
        self.wish.write_all_at(&bytes, 0).unwrap();
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}
