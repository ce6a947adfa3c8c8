//! A disk in memory that keeps for sure only what was synced: the content and the length of a
//! file when that file was, the names in a folder when that folder was. Of the rest a power cut
//! keeps what chance likes, as far as FORMAT.md assumes no more of a disk.
//!
//! Every change since the last sync of its file or folder is remembered in order. In come the
//! calls of programs, and [`Volatile::cut`]; what comes out is what they see.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use fuser::Errno;

use super::node::{Change, Destroyed, Meanings, Mood, Names, Node};
use crate::support::random::Random;

/// The number of the folder that all lie in.
pub const ROOT: u64 = 1;

/// The disk.
pub struct Volatile {
    nodes: BTreeMap<u64, Node>,
    /// The number of the next file or folder; none is used twice.
    next: u64,
    /// Changes so far, of everything.
    changes: u64,
    /// Whether syncs are believed and not done.
    pub lies: bool,
}

impl Volatile {
    pub fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::folder())]);
        Self { nodes, next: ROOT + 1, changes: 0, lies: false }
    }

    /// A file or folder by its number.
    pub fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::ENOENT)
    }

    fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    /// Bytes that all files have together.
    pub fn bytes(&self) -> u64 {
        self.nodes.values().map(|node| node.len() as u64).sum()
    }

    /// The names in a folder.
    pub fn names(&self, folder: u64) -> Result<&Names, Errno> {
        match self.node(folder)? {
            Node::Folder { now, .. } => Ok(now),
            Node::File { .. } => Err(Errno::ENOTDIR),
        }
    }

    /// The number of a name.
    pub fn find(&self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.names(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes a file or folder.
    pub fn make(&mut self, folder: u64, name: &OsStr, node: Node) -> Result<u64, Errno> {
        if self.names(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.rename_all(folder, vec![(name.into(), Some(number))])?;
        Ok(number)
    }

    /// Removes a name. What it named stays for those who have it open, and until a cut.
    pub fn remove(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.find(folder, name)?;
        if self.names(number).is_ok_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.rename_all(folder, vec![(name.into(), None)])
    }

    /// Gives what has a name another one in the same folder, also that of another if `replace`.
    pub fn rename(
        &mut self,
        folder: u64,
        from: &OsStr,
        to: &OsStr,
        replace: bool,
    ) -> Result<(), Errno> {
        let number = self.find(folder, from)?;
        if !replace && self.find(folder, to).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.rename_all(folder, vec![(from.into(), None), (to.into(), Some(number))])
    }

    /// What names mean from now on, as one step.
    fn rename_all(&mut self, folder: u64, means: Meanings) -> Result<(), Errno> {
        self.changes += 1;
        let at = self.changes;
        let Node::Folder { now, fresh, .. } = self.node_mut(folder)? else {
            return Err(Errno::ENOTDIR);
        };
        means.iter().for_each(|(name, number)| super::node::set(now, name, *number));
        fresh.push((at, means));
        Ok(())
    }

    /// What a file holds of a range.
    pub fn read(&self, file: u64, at: usize, len: usize) -> Result<&[u8], Errno> {
        let Node::File { now, .. } = self.node(file)? else { return Err(Errno::EISDIR) };
        let end = now.len().min(at.saturating_add(len));
        Ok(&now[at.min(end)..end])
    }

    /// Writes to a file.
    pub fn write(&mut self, file: u64, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        let range = at..at + bytes.len();
        self.change(file, range.clone(), |now| now.len().max(range.end))?[range.clone()]
            .copy_from_slice(bytes);
        Ok(())
    }

    /// Cuts or grows a file.
    pub fn set_len(&mut self, file: u64, len: usize) -> Result<(), Errno> {
        let before = self.node(file)?.len();
        self.change(file, len.min(before)..len.max(before), |_| len).map(drop)
    }

    /// Grows a file to this length at least.
    pub fn allocate(&mut self, file: u64, len: usize) -> Result<(), Errno> {
        let before = self.node(file)?.len();
        if len > before { self.set_len(file, len) } else { Ok(()) }
    }

    /// Notes a change of a file, and gives its content at its new length.
    fn change(
        &mut self,
        file: u64,
        range: std::ops::Range<usize>,
        len: impl FnOnce(&[u8]) -> usize,
    ) -> Result<&mut [u8], Errno> {
        self.changes += 1;
        let at = self.changes;
        let Node::File { now, fresh, .. } = self.node_mut(file)? else {
            return Err(Errno::EISDIR);
        };
        now.resize(len(now), 0);
        fresh.push(Change { at, range, len: now.len() });
        Ok(now)
    }

    /// Keeps what a file or folder is now over a power cut; or says so.
    pub fn sync(&mut self, number: u64) -> Result<(), Errno> {
        let lies = self.lies;
        let node = self.node_mut(number)?;
        if !lies {
            node.sync();
        }
        Ok(())
    }

    /// A sync that failed: what it was to keep counts as written from now on, and never is.
    pub fn fail_sync(&mut self, file: u64) -> Result<(), Errno> {
        let Node::File { fresh, .. } = self.node_mut(file)? else { return Err(Errno::EISDIR) };
        fresh.clear();
        Ok(())
    }

    /// The power goes and comes again: everything is what was kept.
    pub fn cut(&mut self, random: &mut Random) -> Destroyed {
        let unsynced: Vec<u64> = self.nodes.values().flat_map(Node::fresh).collect();
        let mood = Mood::choose(&unsynced, random);
        let mut destroyed = Destroyed::default();
        self.nodes.values_mut().for_each(|node| node.cut(mood, random, &mut destroyed));
        // What has no name any more is gone.
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Node::Folder { now, .. } = node {
                named.extend(now.values());
            }
        }
        self.nodes.retain(|number, _| named.contains(number));
        destroyed
    }
}

#[test]
fn only_what_was_synced_is_there_for_sure() {
    let name = OsStr::new;
    let (mut lost_names, mut lost_bytes, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let mut disk = Volatile::new();
        let file = disk.make(ROOT, name("kept"), Node::file()).unwrap();
        disk.write(file, 0, &[1; 10_000]).unwrap();
        disk.sync(file).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(file, 5_000, &[2; 20_000]).unwrap();
        disk.rename(ROOT, name("kept"), name("moved"), false).unwrap();
        disk.cut(&mut Random::new(seed));
        let found: Vec<_> = ["kept", "moved"].map(|it| disk.find(ROOT, name(it)).ok()).into();
        assert!(found == [Some(file), None] || found == [None, Some(file)], "{found:?}");
        lost_names += u32::from(found[1].is_none());
        let bytes = disk.read(file, 0, usize::MAX).unwrap();
        // The sector in which the second write began may be old or new, and all before is old.
        assert_eq!(bytes[..5_000], [1; 5_000]);
        assert!(bytes.len() == 10_000 || bytes.len() == 25_000, "{}", bytes.len());
        let new = bytes.iter().filter(|byte| **byte == 2).count();
        lost_bytes += u32::from(new == 0);
        torn += u32::from(new > 0 && new < 20_000 && bytes.len() == 25_000);
    }
    let seen = [lost_names, lost_bytes, torn];
    assert!(seen.iter().all(|count| (10..190).contains(count)), "{seen:?}: chance is none");
}

#[test]
fn what_a_failed_sync_left_is_never_written() {
    let mut disk = Volatile::new();
    let file = disk.make(ROOT, OsStr::new("file"), Node::file()).unwrap();
    disk.sync(ROOT).unwrap();
    disk.write(file, 0, &[1; 100]).unwrap();
    disk.sync(file).unwrap();
    disk.write(file, 0, &[2; 100]).unwrap();
    disk.fail_sync(file).unwrap();
    disk.sync(file).unwrap();
    assert_eq!(disk.read(file, 0, 100).unwrap(), [2; 100], "as the page cache has it");
    disk.cut(&mut Random::new(1));
    assert_eq!(disk.read(file, 0, 100).unwrap(), [1; 100]);
}
