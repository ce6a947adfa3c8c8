//! Everything that can go wrong in the world, each with a name and a sentence, and the count of
//! what was really injected.

use std::collections::BTreeMap;

macro_rules! faults {
    ($($name:ident $label:literal $shape:ident $sentence:literal;)*) => {
        /// Something that goes wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Fault { $(#[doc = $sentence] $name,)* }

        impl Fault {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in plans and tables.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The one of this label.
            pub fn by_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|fault| fault.label() == label)
            }

            /// What it does, for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            /// How it shows itself.
            pub fn shape(self) -> Shape {
                match self { $(Self::$name => Shape::$shape,)* }
            }
        }
    };
}

/// How a fault shows itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Strikes once each time that it is drawn.
    Blow,
    /// Lasts for a while each time that it is drawn.
    Spell,
    /// Holds for the whole run.
    Climate,
}

faults! {
    PowerCut "power-cut" Blow "the server loses everything that was not synced, and its shared memory";
    ProcessDeath "process-death" Blow "the server's process dies; what it wrote stays";
    MemoryLost "memory-lost" Blow "the server's process dies and its shared memory goes with it";
    Drain "drain" Blow "the server goes down in order and comes back";
    BackupRestored "backup-restored" Blow "the server goes back to an older copy of its logs";
    LifeRaised "life-raised" Blow "the server comes back as a new life, though nothing was lost";
    MachinePause "machine-pause" Blow "all of the server stands still, and time goes on";
    WorkerPause "worker-pause" Blow "one worker stands still while the others run";
    SyncFails "sync-fails" Blow "a sync fails, for good until the server is restarted";
    LinkLost "link-lost" Blow "a connection is gone; both sides notice, at different times";
    LinkHalfLost "link-half-lost" Blow "a connection is gone and the server never notices; frames come late";
    Blackout "blackout" Blow "one direction of a connection stands still for a while";
    Partition "partition" Blow "some devices and the server can't reach each other for a while";
    NatRebind "nat-rebind" Blow "the NAT before a device forgets its connections";
    NetworkChange "network-change" Blow "a device is on another network, faster or slower";
    ClientCrash "client-crash" Blow "a client's process dies and comes back with what was stored";
    ClientPause "client-pause" Blow "a client's process sleeps";
    StoreFails "store-fails" Blow "a client's store fails; the application starts it again";
    Logout "logout" Blow "a device logs out and comes back later";
    Reinstall "reinstall" Blow "a device is gone for ever; its user has a new one";
    Clone "clone" Blow "a device's store is copied to a second phone, and both run";
    Restore "restore" Blow "a device goes back to an older copy of its own store";
    Away "away" Blow "a device is off for minutes to days, and comes back";
    DeviceClockBack "device-clock-back" Blow "a device's clock goes back by up to an hour";
    DeviceClock "device-clock" Blow "a device's clock leaps ahead by up to an hour";
    WallJump "wall-jump" Blow "the server's wall clock jumps forwards or back";
    BodyDamaged "body-damaged" Blow "the body of a message is damaged on the disk";
    RecordDamaged "record-damaged" Blow "nothing is left of a message on the disk";
    Expiry "expiry" Blow "old messages of a shard are deleted for their age";
    SlowSync "slow-sync" Spell "syncs take up to three seconds";
    DiskFull "disk-full" Spell "the log, or the deduplication table, has no room";
    DiskBusy "disk-busy" Spell "the log now and then asks to try again soon";
    ColdReads "cold-reads" Spell "old records must be read from the disk first";
    RingsFull "rings-full" Spell "mailboxes between workers have hardly any room";
    MailDelayed "mail-delayed" Spell "mail between two workers waits";
    HintsLost "hints-lost" Spell "notifies and what else is said again between shards are lost";
    SlowNetwork "slow-network" Spell "frames take up to two seconds";
    LossyNetwork "lossy-network" Spell "one frame in five is repaired by the transport, late";
    Bursts "bursts" Spell "losses come in bursts, and little gets through in them";
    Reordered "reordered" Spell "one packet in five is held back and overtaken";
    NarrowLine "narrow-line" Spell "a slow line with a short queue";
    Replay "replay" Spell "frames of sends are repeated, at once or long after";
    SlowConsumer "slow-consumer" Spell "applications take seconds to read a message";
    SlowStore "slow-store" Spell "clients' stores take up to two seconds";
    SlowDirectory "slow-directory" Spell "the directory takes up to four seconds to answer";
    DirectoryDown "directory-down" Spell "the directory can't answer";
    TightLimits "tight-limits" Climate "small windows, low rates, few requests under way, short epochs";
    Checkpoints "checkpoints" Climate "each start of the server begins with a checkpoint";
    OtherWorkers "other-workers" Climate "each start of the server has another number of workers";
    Datagrams "datagrams" Climate "single frames travel by datagram: lost, late, early, or twice";
}

/// How often each way through the machines was gone: counters of the server, and codes that it
/// gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branches {
    counts: BTreeMap<&'static str, u64>,
}

impl Branches {
    /// It was gone this often.
    pub fn hit(&mut self, name: &'static str, times: u64) {
        *self.counts.entry(name).or_default() += times;
    }

    /// How often it was gone.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        other.counts.iter().for_each(|(name, count)| self.hit(name, *count));
    }

    /// All that were looked at, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(name, count)| (*name, *count))
    }
}

/// How often each fault was injected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<Fault, u64>,
}

impl Tally {
    /// It struck once.
    pub fn hit(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    /// How often it struck.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    /// The faults that struck at all.
    pub fn met(&self) -> impl Iterator<Item = Fault> + '_ {
        self.counts.iter().filter(|(_, count)| **count > 0).map(|(fault, _)| *fault)
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.counts {
            *self.counts.entry(*fault).or_default() += count;
        }
    }
}

/// Faults that were met together in one run.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    seen: BTreeMap<(Fault, Fault), u64>,
}

impl Pairs {
    /// One run's faults.
    pub fn add(&mut self, tally: &Tally) {
        let met: Vec<Fault> = tally.met().collect();
        for (index, first) in met.iter().enumerate() {
            for second in &met[index + 1..] {
                *self.seen.entry((*first, *second)).or_default() += 1;
            }
        }
    }

    /// How many pairs were met, of how many.
    pub fn coverage(&self) -> (usize, usize) {
        let kinds = Fault::ALL.len();
        (self.seen.len(), kinds * (kinds - 1) / 2)
    }

    /// The runs in which both were met.
    pub fn count(&self, first: Fault, second: Fault) -> u64 {
        let pair = if first < second { (first, second) } else { (second, first) };
        self.seen.get(&pair).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_once_a_run_whatever_their_order() {
        let mut tally = Tally::default();
        tally.hit(Fault::Drain);
        tally.hit(Fault::PowerCut);
        tally.hit(Fault::Drain);
        let mut pairs = Pairs::default();
        pairs.add(&tally);
        pairs.add(&tally);
        assert_eq!(pairs.count(Fault::PowerCut, Fault::Drain), 2);
        assert_eq!(pairs.count(Fault::Drain, Fault::PowerCut), 2);
        assert_eq!(pairs.coverage().0, 1);
    }
}
