//! Where tables are, and what else may be there: no room, links, other people's files, other
//! processes.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Stdio;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::*;

/// Names the folder to a process that holds a table.
const HOLDER: &str = "TERN_DEDUP_TEST_HOLDER";

/// Somebody who is neither root nor the user of the tests.
const STRANGER: u32 = 54_321;

/// Devices that the holder puts before it says so.
const HELD: u64 = 1000;

#[test]
fn where_shared_memory_has_no_room_the_data_folder_takes_it() {
    let (data, nowhere) = (tempfile::tempdir().unwrap(), Path::new("/proc/self/nowhere"));
    let supply = supply_of(identity(), &[nowhere, data.path()]);
    let mut table = attach_from(&supply, 1, END).table;
    fill(&mut table, 1..5000);
    drop(table);
    only_file(&data);
    let supply = supply_of(identity(), &[nowhere, data.path()]);
    let again = attach_from(&supply, 2, END);
    assert_eq!((again.rebuilt, again.table.entries()), (None, 4999));
}

/// A file system in memory of this many KiB, gone with the value; `None` without the right to
/// mount one.
struct SmallMemory(TempDir);

impl SmallMemory {
    fn new(kib: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tern-test"]).arg(dir.path());
        let done = spawn(mount.stderr(Stdio::null())).wait().unwrap();
        done.success().then(|| Self(dir))
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        let done = spawn(Command::new("umount").arg("--lazy").arg(self.0.path())).wait();
        assert!(done.unwrap().success());
    }
}

/// There is room for a table, and none for one of twice its size: that one is made in the data
/// folder, and is found there.
#[test]
fn a_table_grows_out_of_shared_memory_that_is_full() {
    let Some(memory) = SmallMemory::new(300) else {
        println!("TEST C-05 full memory skipped: no right to mount a file system");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let supply = supply_of(identity(), &[memory.0.path(), data.path()]);
    let mut table = attach_from(&supply, 1, END).table;
    only_file(&memory.0);
    fill(&mut table, 1..6000);
    assert!((1..6000).all(|uin| get(&table, uin) == Some(entry(uin * 8))));
    drop(table);
    only_file(&data);
    let again = attach_from(&supply_of(identity(), &[memory.0.path(), data.path()]), 2, END);
    assert_eq!((again.rebuilt, again.table.entries()), (None, 5999));
    println!("TEST C-05 full memory n=5999 lost=0");
}

/// What is not a file of this user alone is neither read, nor waited for, nor changed; where it
/// can't be removed the next place takes the table.
#[test]
fn what_is_no_table_of_ours_is_not_touched() {
    let (mut kinds, cant_open) = (0, "it can't be opened");
    let mut check = |make: &dyn Fn(&Path), stays: bool| {
        let (first, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let supply = supply_of(identity(), &[first.path(), data.path()]);
        let path = first.path().join(supply.name());
        make(&path);
        let Attached { mut table, rebuilt, .. } = attach_from(&supply, 1, END);
        assert!(rebuilt == Some(cant_open), "{rebuilt:?}");
        fill(&mut table, 1..3000); // grown, it would not get its name where something stays
        drop(table);
        only_file(if stays { &data } else { &first });
        assert_eq!(path.symlink_metadata().is_ok_and(|meta| meta.is_file()), !stays);
        let supply = supply_of(identity(), &[first.path(), data.path()]);
        assert_eq!(attach_from(&supply, 2, END).rebuilt, None);
        kinds += 1;
    };
    let target = tempfile::tempdir().unwrap();
    let victim = target.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    check(&|path| symlink(&victim, path).unwrap(), false);
    check(&|path| symlink("/nowhere/at/all", path).unwrap(), false);
    check(&|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()), false);
    check(&|path| std::fs::write(path, "").unwrap(), false);
    check(&|path| std::fs::write(path, [7; 5000]).unwrap(), false);
    check(
        &|path| {
            std::fs::write(path, [0; 4096 + 48]).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
        },
        false,
    );
    let pipe = |path: &Path| {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o600.into(), 0).unwrap();
    };
    check(&pipe, false);
    check(&|path| std::fs::create_dir(path).unwrap(), true);
    if geteuid().is_root() {
        let foreign = |path: &Path| {
            std::fs::write(path, [0; 4096 + 48]).unwrap();
            chown(path, Some(STRANGER), None).unwrap();
        };
        check(&foreign, false);
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    println!("TEST C-04 places n={kinds} touched=0");
}

/// The same link in the way of a whole table: it is not followed to that one either.
#[test]
fn a_link_to_a_whole_table_is_not_followed() {
    let (dir, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(&mut attach(&target, 1, END).table, 1..500);
    let link = dir.path().join(supply(&dir).name());
    symlink(only_file(&target), &link).unwrap();
    assert_eq!(attach(&dir, 2, END).rebuilt, Some("it can't be opened"));
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!(attach(&target, 2, END).rebuilt, None, "the target was not touched");
}

/// The file's name goes while the table is used, and then the folder that it was in.
#[test]
fn a_table_that_is_deleted_while_it_runs_serves_on() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let supply = supply_of(identity(), &[dir.path(), data.path()]);
    let mut table = attach_from(&supply, 1, END).table;
    fill(&mut table, 1..2000);
    std::fs::remove_file(only_file(&dir)).unwrap();
    fill(&mut table, 2000..3000);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(table);
    let supply = supply_of(identity(), &[dir.path(), data.path()]);
    let Attached { mut table, rebuilt, .. } = attach_from(&supply, 2, END);
    assert_eq!((rebuilt, table.entries()), (Some("there was none"), 0));
    fill(&mut table, 1..3000);
    std::fs::remove_dir_all(dir.path()).unwrap();
    fill(&mut table, 3000..6000);
    assert!((1..6000).all(|uin| get(&table, uin) == Some(entry(uin * 8))));
    drop(table);
    only_file(&data); // it grew there
    let supply = supply_of(identity(), &[dir.path(), data.path()]);
    let again = attach_from(&supply, 3, END);
    assert_eq!((again.rebuilt, again.table.entries()), (None, 5999));
}

#[test]
fn a_table_in_use_is_left_alone() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = attach(&dir, 1, END).table;
    put(&mut first, 1, 8);
    let second = attach_from(&supply_of(identity(), &[dir.path(), data.path()]), 2, END);
    assert_eq!(second.rebuilt, Some("another process uses it"));
    drop(second);
    only_file(&data);
    put(&mut first, 2, 16);
    drop(first);
    assert_eq!(attach(&dir, 2, END).table.entries(), 2);
}

/// Not a test of its own: holds a table, says so, and puts the same device again and again.
#[test]
fn holder() {
    let Some(folder) = std::env::var_os(HOLDER) else { return };
    let supply = supply_of(identity(), &[Path::new(&folder)]);
    let mut table = attach_from(&supply, 1, END).table;
    fill(&mut table, 1..HELD + 1);
    println!("holding");
    for last in HELD + 1.. {
        put(&mut table, 1, last * 8);
    }
}

/// A holder that is surely killed.
struct Holder(Child);

impl Holder {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["dedup::tests::places::holder", "--exact", "--nocapture"])
            .env(HOLDER, folder)
            .stdout(Stdio::piped());
        let mut child = spawn(&mut child);
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("holding")));
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Another process, alive or stopped, keeps its table: the kernel holds the lock for as long as
/// it lives, so neither a process number that is used again nor a pause says otherwise (C-06).
#[test]
fn another_process_keeps_its_table_until_it_ends() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let holder = Holder::start(dir.path());
    let rival = || {
        let supply = supply_of(identity(), &[dir.path(), data.path()]);
        let Attached { mut table, rebuilt, .. } = attach_from(&supply, 2, END);
        assert_eq!(rebuilt, Some("another process uses it"));
        fill(&mut table, 5000..5100);
        assert_eq!(table.entries(), 100);
        drop(table);
        std::fs::remove_file(only_file(&data)).unwrap();
    };
    rival();
    holder.signal(Signal::STOP);
    rival();
    holder.signal(Signal::CONT);
    rival();
    drop(holder);
    let supply = supply_of(identity(), &[dir.path(), data.path()]);
    let Attached { table, rebuilt, .. } = attach_from(&supply, 2, END);
    // It died somewhere in a put, most of the time not within the nanoseconds of its stores.
    if rebuilt.is_none() {
        assert_eq!(table.entries() as u64, HELD);
        assert!((2..=HELD).all(|uin| get(&table, uin) == Some(entry(uin * 8))));
        assert!(get(&table, 1).is_some_and(|found| found == entry(found.last.0)));
    }
    println!(
        "TEST C-06 n=3 taken_from_the_living=0 after_kill={}",
        rebuilt.unwrap_or("taken over")
    );
}
