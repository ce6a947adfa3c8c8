//! What the flight recorder says of one message, in order, and for each device by itself.

use std::path::Path;

use tern_core::mail::Device;
use tern_core::moments::Happened;
use tern_protocol::{ChannelId, MessageId};
use tern_storage::{Carrier, Entry, Id, Recording, RecordingError, What, read_recording};

use super::log::Logged;

/// Moments that may concern one message and are looked at, some 10 MB: far more than its devices
/// cause. More are counted.
const MOMENTS_MAX: usize = 100_000;

/// One moment of the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// What the recorder says.
    pub entry: Entry,
    /// The worker that says it.
    pub worker: u16,
}

/// What the recorder says of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The recorder itself.
    pub recording: Recording,
    /// The moments of the message, in order. Of what is said of all messages up to one, it is the
    /// first of each device that counts this one in.
    pub moments: Vec<Moment>,
    /// Moments that were left out.
    pub left_out: u64,
}

/// What one device has of the message; each the first of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceStory {
    /// Whose.
    pub device: Device,
    /// A session of it might read the message.
    pub granted: Option<Moment>,
    /// The message was written to its connection.
    pub pushed: Option<Moment>,
    /// How often, and how the last time.
    pub pushes: u64,
    /// How it left the last time.
    pub carrier: Option<Carrier>,
    /// It said that it has consumed the message.
    pub acked: Option<Moment>,
}

impl Recorded {
    /// Reads what is said of a message; with what the log knows of it, also of its sending, which
    /// has a key and no number.
    ///
    /// # Errors
    /// See [`read_recording`].
    pub(super) fn read(
        path: &Path,
        folder: &Id,
        channel: ChannelId,
        id: MessageId,
        found: Option<&Logged>,
    ) -> Result<Self, RecordingError> {
        let (mut moments, mut left_out) = (Vec::new(), 0);
        let recording = read_recording(path, folder, |worker, entry| {
            if entry.channel == channel && is_about(entry, id, found) {
                match moments.len() < MOMENTS_MAX {
                    true => moments.push(Moment { entry: *entry, worker }),
                    false => left_out += 1,
                }
            }
        })?;
        moments.sort_by_key(|moment: &Moment| {
            let Entry { run, stamp, what, .. } = moment.entry;
            (run, stamp.mono_us, order(what))
        });
        keep_first(&mut moments);
        Ok(Self { recording, moments, left_out })
    }

    /// The moment that times are counted from: that of the receipt, or else the first one.
    pub fn origin(&self) -> Option<&Moment> {
        let first = self.moments.iter().find(|moment| order(moment.entry.what) <= APPENDED);
        first.or(self.moments.first())
    }

    /// Microseconds from one moment to another: by the clock that only goes on, if it is the same
    /// run of a server, and else by the clock on the wall.
    pub fn between_us(from: &Moment, to: &Moment) -> i64 {
        let by = |from: u64, to: u64| to.wrapping_sub(from) as i64; // 292,000 years
        let (from, to) = (&from.entry, &to.entry);
        match from.run == to.run {
            true => by(from.stamp.mono_us, to.stamp.mono_us),
            false => by(from.stamp.wall_us, to.stamp.wall_us),
        }
    }

    /// The story of each device to which something happened, by its name.
    pub fn devices(&self) -> Vec<DeviceStory> {
        let mut stories: std::collections::BTreeMap<Device, DeviceStory> = Default::default();
        for moment in &self.moments {
            let Some(device) = moment.entry.device else { continue };
            if order(moment.entry.what) < GRANTED {
                continue;
            }
            let (granted, pushed, acked, carrier) = (None, None, None, None);
            let story = stories.entry(device).or_insert(DeviceStory {
                device,
                granted,
                pushed,
                pushes: 0,
                carrier,
                acked,
            });
            match moment.entry.what {
                What::Happened(Happened::Granted(_)) => {
                    story.granted = story.granted.or(Some(*moment));
                }
                What::Happened(Happened::Acked(_)) => story.acked = story.acked.or(Some(*moment)),
                What::Pushed(_, carrier) => {
                    story.pushed = story.pushed.or(Some(*moment));
                    (story.pushes, story.carrier) = (story.pushes + 1, Some(carrier));
                }
                What::Happened(_) => {}
            }
        }
        stories.into_values().collect()
    }
}

/// Place of the append in [`order`].
const APPENDED: u8 = 3;

/// Place of the first thing that happens to a receiving device in [`order`].
const GRANTED: u8 = 5;

/// Place of the last one.
const ACKED: u8 = 7;

/// The order in which things happen that bear the same time: all of a turn do.
fn order(what: What) -> u8 {
    match what {
        What::Happened(Happened::Received(_)) => 0,
        What::Happened(Happened::Refused(..)) => 1,
        What::Happened(Happened::Repeated(_)) => 2,
        What::Happened(Happened::Appended(_)) => APPENDED,
        What::Happened(Happened::Committed(_)) => 4,
        What::Happened(Happened::Granted(_)) => GRANTED,
        What::Pushed(..) => 6,
        What::Happened(Happened::Acked(_)) => ACKED,
    }
}

/// Whether an entry of the channel counts the message in.
fn is_about(entry: &Entry, id: MessageId, found: Option<&Logged>) -> bool {
    match entry.what {
        What::Happened(Happened::Received(key) | Happened::Refused(key, _)) => {
            found.is_some_and(|found| {
                let sender = Device { uin: found.sender, device: found.device };
                found.key == key && entry.device == Some(sender)
            })
        }
        What::Happened(
            Happened::Repeated(at) | Happened::Appended(at) | Happened::Committed(at),
        )
        | What::Pushed(at, _) => at == id,
        What::Happened(Happened::Granted(upto) | Happened::Acked(upto)) => upto >= id,
    }
}

/// Of grants and acks, which count all messages before in, only the first of each device says
/// something about this one; a grant behind the device's ack says nothing at all.
fn keep_first(moments: &mut Vec<Moment>) {
    let mut seen = std::collections::BTreeSet::new();
    moments.retain(|moment| {
        let kind = match moment.entry.what {
            What::Happened(Happened::Granted(_)) => GRANTED,
            What::Happened(Happened::Acked(_)) => ACKED,
            _ => return true,
        };
        let device = moment.entry.device;
        let is_late = kind == GRANTED && seen.contains(&(device, ACKED));
        !is_late && seen.insert((device, kind))
    });
}
