//! An epoch of a device is granted once, and is durable before it is told.

use std::collections::BTreeSet;

use tern_core::mail::Device;
use tern_protocol::Epoch;

use super::{Verdict, demand, is_durable};
use crate::disk::Disk;
use crate::oracle::truth::Truth;

/// The epochs that devices were told.
#[derive(Debug, Default)]
pub struct Epochs {
    told: BTreeSet<(Device, Epoch)>,
}

impl Epochs {
    /// A login is answered.
    pub fn granted(&mut self, truth: &Truth, disk: &Disk, device: Device, epoch: Epoch) -> Verdict {
        let is_new = self.told.insert((device, epoch));
        demand(is_new, || format!("{device:?} gets epoch {epoch} a second time"))?;
        match truth.epoch(device, epoch) {
            Some(place) => is_durable(disk, place, &format!("epoch {epoch} of {device:?}")),
            None => Err(format!("{device:?} gets epoch {epoch}, and no log has it")),
        }
    }

    /// A session goes on.
    pub fn resumed(&self, device: Device, epoch: Epoch) -> Verdict {
        let was_told = self.told.contains(&(device, epoch));
        demand(was_told, || format!("{device:?} resumes epoch {epoch} of no login"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::SENDER;
    use crate::random::Stream;

    #[test]
    fn an_epoch_of_no_log_and_one_that_was_used_are_noticed() {
        let (mut epochs, truth) = (Epochs::default(), Truth::default());
        let disk = Disk::new(1, Stream::of(1, "disk"), None);
        let told = epochs.granted(&truth, &disk.borrow(), SENDER, Epoch(1));
        assert!(told.unwrap_err().contains("no log"));
        let told = epochs.granted(&truth, &disk.borrow(), SENDER, Epoch(1));
        assert!(told.unwrap_err().contains("second time"));
        assert_eq!(epochs.resumed(SENDER, Epoch(1)), Ok(()));
        assert!(epochs.resumed(SENDER, Epoch(2)).is_err());
    }
}
