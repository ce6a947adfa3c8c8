//! Power cuts at every moment: everything that is asked of the disk is written down, and after
//! each entry the folder is rebuilt as a cut may leave it, and opened by the real recovery. What
//! was acked by then is there, in order, and nothing torn comes to life.
//!
//! `TERN_SOAK` multiplies the images, `TERN_SEED` says which.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use support::{Rig, SHARD, segments_at};
use tempfile::TempDir;
use tern_core::log::Log;
use tern_diskmodel::model::{Luck, Model, Op};
use tern_diskmodel::quick::QuickDisk;
use tern_diskmodel::trace::{Kept, Trace, TraceDisk};
use tern_random::{Stream, seed_from_env, soaked};
use tern_storage::{Folder, FolderOptions, StorageConfig};

/// Images after each entry, unless `TERN_SOAK` wants more.
const IMAGES_EACH: u64 = 3;

/// Pieces in which a disk writes.
const PIECES: [usize; 2] = [512, 4096];

/// Pieces of the batch whose subsets are all tried.
const SUBSET_PIECES: usize = 8;

/// Everything that was written down, and what was appended, in order.
struct Recorded {
    trace: Arc<Mutex<Trace>>,
    bodies: Vec<Vec<u8>>,
    rig: Rig,
}

/// What became of the images.
#[derive(Default, Debug)]
struct Tally {
    images: u64,
    /// Images in which something acked was missing, or that could not be opened.
    lost: u64,
    /// Images that were appended to, and opened once more.
    resumed: u64,
}

/// A folder for images: in memory, where there is such a file system.
fn image_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn body(number: usize, random: &mut Stream) -> Vec<u8> {
    let mut body = vec![number as u8; 8 + random.below(9000) as usize];
    body[..8].copy_from_slice(&(number as u64).to_le_bytes());
    body
}

/// Opens a folder on a disk that writes everything down, appends for some rounds, and leaves
/// without closing.
fn record(rig: Rig, kept: Kept, rounds: u64, random: &mut Stream) -> Recorded {
    let (disk, trace) = TraceDisk::new(rig.path(), kept);
    let rig = Rig { disk: Arc::new(disk), ..rig };
    let running = rig.start();
    let (opened, _, told) = running.open();
    let (mut log, mut bodies) = (opened.log, told.bodies());
    trace.lock().unwrap().acked(bodies.len());
    for _ in 0..rounds {
        let mut last = None;
        for _ in 0..1 + random.below(6) {
            let body = body(bodies.len(), random);
            last = Some(running.append(&mut log, &body));
            bodies.push(body);
        }
        running.make_durable(&mut log, last.unwrap());
        trace.lock().unwrap().acked(bodies.len());
    }
    // A batch whose proof nobody saw.
    let torn = body(bodies.len(), random);
    running.append(&mut log, &torn);
    bodies.push(torn);
    log.commit();
    running.kill(log);
    Recorded { trace, bodies, rig }
}

/// What the folder at `path` says, if recovery opens it: the records, as the bodies they have.
fn open_image(path: &Path, append: Option<&[u8]>) -> Result<Vec<Vec<u8>>, String> {
    let mut rig = Rig::new();
    rig.disk = Arc::new(QuickDisk);
    rig.config = StorageConfig { boot: Some([9; 16]), ..rig.config };
    let options = FolderOptions { shards: rig.shards, disk: Arc::clone(&rig.disk) };
    Folder::open(path, options).map_err(|error| error.to_string())?;
    let running = rig.start_at(path);
    let (opened, _, told) = running.try_open().map_err(|error| error.to_string())?;
    let mut log = opened.log;
    if let Some(body) = append {
        running.write(&mut log, body);
    }
    running.kill(log);
    Ok(told.bodies())
}

impl Recorded {
    /// Cuts the power after each entry; `each` images for each.
    fn cut_everywhere(&self, each: u64, random: &mut Stream) -> Tally {
        let trace = self.trace.lock().unwrap();
        let (mut model, mut tally) = (Model::new(&trace), Tally::default());
        for op in &trace.ops {
            model.apply(op);
            for image in 0..each {
                self.cut(&model, image, random, &mut tally);
            }
        }
        tally
    }

    fn cut(&self, model: &Model, image: u64, random: &mut Stream, tally: &mut Tally) {
        let dir = image_dir();
        let (piece, in_order) = (PIECES[random.below(2) as usize], random.below(2) == 0);
        // Nothing arrives, everything does, or some of it.
        let chance = [0, 8, 1 + random.below(7)][image.min(2) as usize];
        let mut arrives = || random.below(8) < chance;
        model.power_cut(dir.path(), &mut Luck { piece, in_order, arrives: &mut arrives });
        tally.images += 1;
        let goes_on = tally.images.is_multiple_of(16);
        let last = b"behind the cut".to_vec();
        match open_image(dir.path(), goes_on.then_some(&last)) {
            Ok(found) if found.len() >= model.acked => {
                assert!(found.len() <= self.bodies.len(), "records that nobody wrote");
                assert!(found == self.bodies[..found.len()], "torn or foreign records");
                if goes_on {
                    let again = open_image(dir.path(), None).unwrap();
                    assert_eq!(again, [found, vec![last]].concat(), "a cut record came back");
                    tally.resumed += 1;
                }
            }
            Ok(_) | Err(_) => tally.lost += 1,
        }
    }
}

/// A folder that a power cut left, with any part of its last batch.
fn torn(recorded: &Recorded, random: &mut Stream) -> Rig {
    let trace = recorded.trace.lock().unwrap();
    let mut model = Model::new(&trace);
    trace.ops.iter().for_each(|op| model.apply(op));
    let rig = Rig::new();
    let mut arrives = || random.below(2) == 0;
    let mut luck = Luck { piece: 512, in_order: false, arrives: &mut arrives };
    model.power_cut(rig.path(), &mut luck);
    rig
}

#[test]
fn b_04_b_09_power_cuts_after_every_entry() {
    let mut random = Stream::new(seed_from_env(1));
    let first = record(Rig::new(), Kept::All, 30, &mut random);
    assert!(segments_at(first.rig.path()).len() >= 3, "the log rolled over");
    // The start behind a cut has steps of its own to be cut in.
    let second = record(torn(&first, &mut random), Kept::All, 6, &mut random);
    for (name, recorded) in [("first", &first), ("after-cut", &second)] {
        let tally = recorded.cut_everywhere(soaked(IMAGES_EACH), &mut random);
        println!(
            "TEST B-04 B-09 run={name} seed={} n={} entries={} resumed={} lost={}",
            seed_from_env(1),
            tally.images,
            recorded.trace.lock().unwrap().ops.len(),
            tally.resumed,
            tally.lost,
        );
        assert_eq!(tally.lost, 0, "replay with TERN_SEED={}", seed_from_env(1));
    }
}

/// The test of the test: where syncs do nothing, power cuts must lose what was acked.
#[test]
fn m_03_without_syncs_power_cuts_lose() {
    for kept in [Kept::FoldersOnly, Kept::FilesOnly] {
        let mut random = Stream::new(seed_from_env(1));
        let recorded = record(Rig::new(), kept, 12, &mut random);
        let tally = recorded.cut_everywhere(1, &mut random);
        println!("TEST M-03 kept={kept:?} n={} lost={}", tally.images, tally.lost);
        assert!(tally.lost > 0, "{kept:?}: the power-cut test can't fail");
    }
}

/// B-03: every subset of the pieces of a last batch.
#[test]
fn b_03_every_subset_of_a_torn_batch() {
    for piece in PIECES {
        let (model, bodies) = one_batch_open(piece);
        let pieces = model.open_pieces(piece);
        assert!(pieces <= 2 * SUBSET_PIECES, "{pieces} pieces");
        let (mut seen, subsets) = (std::collections::BTreeSet::new(), 1u64 << pieces);
        for subset in 0..subsets {
            let (dir, mut next) = (image_dir(), 0);
            let mut arrives = || {
                next += 1;
                subset >> (next - 1) & 1 == 1
            };
            model.power_cut(dir.path(), &mut Luck { piece, in_order: true, arrives: &mut arrives });
            let found = open_image(dir.path(), None).unwrap();
            assert!(found.len() >= model.acked, "subset {subset:b}: an acked record is lost");
            assert!(found == bodies[..found.len()], "subset {subset:b}: torn records");
            seen.insert(found.len());
        }
        println!("TEST B-03 piece={piece} n={subsets} pieces={pieces} prefixes={seen:?} lost=0");
        assert!(seen.len() > 2, "some subsets hold a part of the batch: {seen:?}");
    }
}

/// A log whose last batch was written, and not synced: its fate is open.
fn one_batch_open(piece: usize) -> (Model, Vec<Vec<u8>>) {
    let rig = Rig::new();
    let (disk, trace) = TraceDisk::new(rig.path(), Kept::All);
    let rig = Rig { disk: Arc::new(disk), ..rig };
    let running = rig.start();
    let mut log = running.log();
    let mut bodies = vec![vec![1; 700], vec![2; 900]];
    let acked = bodies.iter().map(|body| running.append(&mut log, body)).last().unwrap();
    running.make_durable(&mut log, acked);
    trace.lock().unwrap().acked(bodies.len());
    // Nobody else asks the disk for anything from here on.
    running.until(|| running.storage.stats(SHARD).segments == 2);
    let synced = trace.lock().unwrap().ops.len();
    let each = piece * (SUBSET_PIECES - 1) / 4 - 80;
    let mut last = acked;
    for number in 3..7u8 {
        bodies.push(vec![number; each]);
        last = running.append(&mut log, bodies.last().unwrap());
    }
    running.make_durable(&mut log, last);
    running.kill(log);
    let trace = trace.lock().unwrap();
    let mut model = Model::new(&trace);
    let is_sync = |op: &&Op| !matches!(op, Op::Sync { .. });
    trace.ops[..synced].iter().for_each(|op| model.apply(op));
    trace.ops[synced..].iter().take_while(is_sync).for_each(|op| model.apply(op));
    (model, bodies)
}
