//! Confirmed time: the age of messages by a clock that nobody can set.
//!
//! It is kept in the file `clock` of the data folder and goes on by steps: while the server runs
//! and over restarts within one boot by the time since boot, over a reboot by the wall clock.
//! A step of more than an hour is said and not counted, nor one backwards: a wall clock that
//! jumps by years, a machine that slept, a folder that came back from a backup delete nothing.
//! So confirmed time may fall behind true time, and is never ahead of it by more than an hour for
//! each restart. It is also never behind the newest segment of the log, whose header has it: a
//! clock file that is lost or old takes no message with it.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::Disk;
use crate::error::{IoError, Naming};
use crate::folder::wall_ms;
use crate::format::Id;

/// Name of the clock's file.
pub(crate) const CLOCK_FILE: &str = "clock";

/// Longest step in ms that counts: longer than a reboot takes or a busy machine stalls, short
/// against every retention.
const STEP_MS_MAX: u64 = 60 * 60 * 1000;

/// Time in ms between two writes of the file: what a reboot may cost beside the time it takes.
const SAVE_EVERY_MS: u64 = 60 * 1000;

/// First bytes of the file.
const CLOCK_MAGIC: [u8; 8] = *b"TERNCLK\n";

/// Version of the file.
const CLOCK_VERSION: u32 = 1;

/// What the machine's clocks say at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Milliseconds since 1970 UTC, as anybody may have set them.
    pub wall_ms: u64,
    /// Milliseconds since the machine was booted, with the time it slept.
    pub boot_ms: u64,
}

/// Where readings come from.
pub trait ClockSource: Send + Sync + Debug {
    /// The time now.
    fn now(&self) -> Reading;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl ClockSource for SystemClock {
    fn now(&self) -> Reading {
        let boot = clock_gettime(ClockId::Boottime);
        let boot_ms = boot.tv_sec.unsigned_abs() * 1000 + boot.tv_nsec.unsigned_abs() / 1_000_000;
        Reading { wall_ms: wall_ms(), boot_ms }
    }
}

/// What the confirmed clock knows of itself, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClockFacts {
    /// Confirmed milliseconds since the data folder was made.
    pub confirmed_ms: u64,
    /// Steps since the start that were not counted, or not in full agreement.
    pub jumps: u64,
    /// The newest of them.
    pub newest_jump: Option<String>,
    /// Why the clock did not simply go on where the last server left it.
    pub began_again: Option<String>,
}

/// The clock of a data folder.
#[derive(Debug)]
pub(crate) struct ConfirmedClock {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    folder: Id,
    boot: Id,
    source: Arc<dyn ClockSource>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    facts: ClockFacts,
    last: Reading,
    saved_boot_ms: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ClockPage {
    magic: [u8; 8],
    version: U32,
    reserved_a: U32,
    folder: Id,
    boot: Id,
    confirmed_ms: U64,
    wall_ms: U64,
    boot_ms: U64,
    reserved_b: U32,
    /// CRC-32C of the bytes before it.
    crc: U32,
}

/// Bytes of the file.
const CLOCK_BYTES: usize = 80;
const _: () = assert!(size_of::<ClockPage>() == CLOCK_BYTES);

impl ConfirmedClock {
    /// Goes on from the file of `folder_path`, and not before `floor_ms`: the time in the newest
    /// segments.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder_path: &Path,
        folder: Id,
        boot: Id,
        source: Arc<dyn ClockSource>,
        floor_ms: u64,
    ) -> Self {
        let path = folder_path.join(CLOCK_FILE);
        let last = source.now();
        let mut facts = ClockFacts::default();
        match ClockPage::read(&path, folder) {
            Ok(page) => {
                facts.confirmed_ms = page.confirmed_ms.get();
                facts.step(&page.restart(boot, last), "the server was down");
            }
            Err(why) => facts.began_again = Some(why),
        }
        if facts.confirmed_ms < floor_ms {
            let why = "its file is older than the log".to_owned();
            facts.confirmed_ms = floor_ms;
            facts.began_again.get_or_insert(why);
        }
        // A folder without a record has no time to lose.
        facts.began_again = facts.began_again.filter(|_| floor_ms > 0);
        if let Some(why) = &facts.began_again {
            tracing::warn!("the clock of retention begins again at the newest segment: {why}");
        }
        let state = Mutex::new(State { facts, last, saved_boot_ms: last.boot_ms });
        Self { path, disk, folder, boot, source, state }
    }

    /// Takes a step, and says the confirmed milliseconds.
    pub(crate) fn tick(&self) -> u64 {
        let mut state = self.state();
        let now = self.source.now();
        let step = Step::running(state.last, now);
        state.last = now;
        state.facts.step(&step, "the machine slept, or the server was stopped");
        state.facts.confirmed_ms
    }

    /// Writes the file if that is due.
    pub(crate) fn save_if_due(&self) -> Result<(), IoError> {
        let state = self.state();
        let due = state.saved_boot_ms.saturating_add(SAVE_EVERY_MS);
        let is_due = state.last.boot_ms >= due || state.last.boot_ms < state.saved_boot_ms;
        drop(state);
        if is_due { self.save() } else { Ok(()) }
    }

    /// Writes the file.
    pub(crate) fn save(&self) -> Result<(), IoError> {
        let mut state = self.state();
        let page = ClockPage::new(self.folder, self.boot, state.facts.confirmed_ms, state.last);
        let fresh = self.path.with_added_extension("tmp");
        let file = self.disk.create(&fresh).naming("make", &fresh)?;
        file.write_at(0, page.as_bytes()).naming("write", &fresh)?;
        file.sync().naming("sync", &fresh)?;
        self.disk.rename(&fresh, &self.path).naming("make", &self.path)?;
        let folder = self.path.parent().expect("the clock lies in the data folder");
        self.disk.sync_dir(folder).naming("sync", folder)?;
        state.saved_boot_ms = state.last.boot_ms;
        Ok(())
    }

    /// Milliseconds since the machine was booted, at the newest step.
    pub(crate) fn boot_ms(&self) -> u64 {
        self.state().last.boot_ms
    }

    /// What it knows of itself.
    pub(crate) fn facts(&self) -> ClockFacts {
        self.state().facts.clone()
    }

    /// Each holder leaves it whole at every step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From one reading to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    /// What goes by for confirmed time, if it is not too much; `None` is backwards.
    passed_ms: Option<u64>,
    /// By how much the wall clock went elsewhere meanwhile.
    wall_off_ms: u64,
}

impl Step {
    /// Both readings are of one boot.
    fn running(last: Reading, now: Reading) -> Self {
        let passed_ms = now.boot_ms.checked_sub(last.boot_ms);
        let expected = last.wall_ms.saturating_add(passed_ms.unwrap_or(0));
        Self { passed_ms, wall_off_ms: now.wall_ms.abs_diff(expected) }
    }
}

impl ClockFacts {
    fn step(&mut self, step: &Step, why_long: &str) {
        let said = match step.passed_ms {
            None => Some("the clock went back".to_owned()),
            Some(passed) if passed > STEP_MS_MAX => {
                Some(format!("{} are not counted: {why_long}", hours(passed)))
            }
            Some(passed) => {
                self.confirmed_ms += passed;
                let off = step.wall_off_ms;
                (off > STEP_MS_MAX).then(|| format!("the wall clock was set by {}", hours(off)))
            }
        };
        if let Some(said) = said {
            tracing::warn!("a jump of time, which no message's age counts: {said}");
            self.jumps += 1;
            self.newest_jump = Some(said);
        }
    }
}

fn hours(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds / 3600 {
        0..48 => format!("{}.{} h", seconds / 3600, seconds % 3600 / 360),
        hours => format!("{} days", hours / 24),
    }
}

impl ClockPage {
    fn new(folder: Id, boot: Id, confirmed_ms: u64, last: Reading) -> Self {
        let mut page = Self {
            magic: CLOCK_MAGIC,
            version: U32::new(CLOCK_VERSION),
            reserved_a: U32::ZERO,
            folder,
            boot,
            confirmed_ms: U64::new(confirmed_ms),
            wall_ms: U64::new(last.wall_ms),
            boot_ms: U64::new(last.boot_ms),
            reserved_b: U32::ZERO,
            crc: U32::ZERO,
        };
        page.crc = U32::new(page.checksum());
        page
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..CLOCK_BYTES - 4])
    }

    /// The file, or why it can't be used.
    fn read(path: &Path, folder: Id) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "its file is missing".to_owned(),
            _ => format!("its file can't be read: {error}"),
        })?;
        let page = Self::read_from_bytes(&bytes).map_err(|_| "its file has the wrong length")?;
        if page.magic != CLOCK_MAGIC || page.checksum() != page.crc.get() {
            return Err("its file is damaged".to_owned());
        }
        if page.version.get() != CLOCK_VERSION {
            return Err(format!("its file has version {}", page.version));
        }
        if page.folder != folder {
            return Err("its file belongs to another data folder".to_owned());
        }
        Ok(page)
    }

    /// The step from when the file was written: within a boot by the time since boot, else by the
    /// wall clock alone.
    fn restart(&self, boot: Id, now: Reading) -> Step {
        let last = Reading { wall_ms: self.wall_ms.get(), boot_ms: self.boot_ms.get() };
        if self.boot == boot && boot != [0; 16] {
            return Step::running(last, now);
        }
        Step { passed_ms: now.wall_ms.checked_sub(last.wall_ms), wall_off_ms: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const HOUR: u64 = 60 * 60 * 1000;
    const YEARS: u64 = 10 * 365 * 24 * HOUR;
    const START: Reading = Reading { wall_ms: 20 * YEARS, boot_ms: 5 * HOUR };

    #[derive(Debug, Default)]
    struct Hands {
        wall_ms: AtomicU64,
        boot_ms: AtomicU64,
    }

    impl Hands {
        fn set(&self, reading: Reading) {
            self.wall_ms.store(reading.wall_ms, Relaxed);
            self.boot_ms.store(reading.boot_ms, Relaxed);
        }

        fn pass(&self, wall_ms: i64, boot_ms: i64) {
            let now = self.now();
            let wall_ms = now.wall_ms.saturating_add_signed(wall_ms);
            self.set(Reading { wall_ms, boot_ms: now.boot_ms.saturating_add_signed(boot_ms) });
        }
    }

    impl ClockSource for Hands {
        fn now(&self) -> Reading {
            Reading { wall_ms: self.wall_ms.load(Relaxed), boot_ms: self.boot_ms.load(Relaxed) }
        }
    }

    struct Rig {
        dir: tempfile::TempDir,
        hands: Arc<Hands>,
    }

    impl Rig {
        fn new() -> Self {
            let hands = Arc::new(Hands::default());
            hands.set(START);
            Self { dir: tempfile::tempdir().unwrap(), hands }
        }

        fn open(&self, boot: u8, floor_ms: u64) -> ConfirmedClock {
            let (disk, hands) = (Arc::new(RealDisk), Arc::clone(&self.hands));
            ConfirmedClock::open(disk, self.dir.path(), [7; 16], [boot; 16], hands, floor_ms)
        }
    }

    #[test]
    fn runs_with_the_time_since_boot_and_never_with_a_jump() {
        let rig = Rig::new();
        let clock = rig.open(1, 0);
        let mut expected = 0;
        let hour = HOUR as i64;
        // Wall and boot clock go by this much; this much counts; so many jumps are said.
        let steps = [
            (1_000, 1_000, 1_000, 0),
            (YEARS as i64, 5_000, 5_000, 1),
            (-(YEARS as i64), 5_000, 5_000, 2),
            (hour, hour, HOUR, 2),
            (hour + 1, hour + 1, 0, 3),
            (9 * 24 * hour, 9 * 24 * hour, 0, 4),
            (0, -1_000, 0, 5),
            (1_000, 1_000, 1_000, 5),
            (-hour / 2, 1_000, 1_000, 5),
        ];
        for (number, (wall, boot, counted, jumps)) in steps.into_iter().enumerate() {
            rig.hands.pass(wall, boot);
            expected += counted;
            assert_eq!(clock.tick(), expected, "step {number}");
            assert_eq!(clock.facts().jumps, jumps, "step {number}: {:?}", clock.facts());
        }
    }

    #[test]
    fn goes_on_over_restarts_and_reboots_by_an_hour_at_most() {
        let hour = HOUR as i64;
        // Is it another boot; both clocks go by this much; this much counts.
        let cases = [
            (false, 0, 90_000, 90_000),
            (false, hour, hour, HOUR),
            (false, 3 * hour, 3 * hour, 0),
            (false, YEARS as i64, 1_000, 1_000),
            (true, 40_000, -2 * hour, 40_000),
            (true, hour, 0, HOUR),
            (true, hour + 1, 0, 0),
            (true, YEARS as i64, 0, 0),
            (true, -(YEARS as i64), 0, 0),
        ];
        for (number, (reboot, wall, boot, counted)) in cases.into_iter().enumerate() {
            let rig = Rig::new();
            let clock = rig.open(1, 0);
            rig.hands.pass(5_000, 5_000);
            assert_eq!(clock.tick(), 5_000);
            clock.save().unwrap();
            rig.hands.pass(wall, boot);
            let clock = rig.open(if reboot { 2 } else { 1 }, 0);
            assert_eq!(clock.tick(), 5_000 + counted, "case {number}");
            let jumped = counted == 0 || (!reboot && wall.abs_diff(boot) > HOUR);
            assert_eq!(clock.facts().jumps, u64::from(jumped), "case {number}");
            assert_eq!(clock.facts().began_again, None);
        }
    }

    #[test]
    fn a_lost_damaged_or_old_file_goes_on_at_the_newest_segment() {
        let rig = Rig::new();
        let clock = rig.open(1, 0);
        rig.hands.pass(60_000, 60_000);
        clock.tick();
        clock.save_if_due().unwrap();
        let file = rig.dir.path().join(CLOCK_FILE);
        let good = std::fs::read(&file).unwrap();
        let floor = 1_000_000;
        let old = rig.open(1, floor).facts();
        assert_eq!(old.confirmed_ms, floor);
        assert!(old.began_again.unwrap().contains("older than the log"));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, &bytes).unwrap();
            let facts = rig.open(1, floor).facts();
            assert!(facts.confirmed_ms == floor && facts.began_again.is_some(), "bit {bit}");
        }
        std::fs::remove_file(&file).unwrap();
        let facts = rig.open(1, floor).facts();
        assert!(facts.began_again.unwrap().contains("missing"));
        println!("TEST clock flips={} n={} taken=0", good.len() * 8, good.len() * 8);
    }

    #[test]
    fn the_machine_has_clocks() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(first.boot_ms > 0 && second.boot_ms >= first.boot_ms);
    }
}
