//! What happened to each device around the bad things, for the lines that a person reads: when
//! it noticed, and when it was back.

use std::time::Duration;

use super::ledger::DeviceNo;

/// What is known of one device.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    is_online: bool,
    /// When something was done that must break its connection; until it has noticed.
    hurt_at: Option<Duration>,
    /// When the server came back; until the device is online again.
    server_back_at: Option<Duration>,
}

/// Follows the devices through the bad things.
#[derive(Clone, Debug)]
pub struct Story {
    watches: Vec<Watch>,
}

impl Story {
    /// A story of so many devices, none of them online.
    pub fn new(devices: usize) -> Self {
        Self { watches: vec![Watch::default(); devices] }
    }

    /// Whether every device is online.
    pub fn all_online(&self) -> bool {
        self.watches.iter().all(|watch| watch.is_online)
    }

    /// The server was killed.
    pub fn server_killed(&mut self, at: Duration) {
        for watch in &mut self.watches {
            watch.hurt_at = Some(at);
        }
    }

    /// The server is ready again.
    pub fn server_back(&mut self, at: Duration) {
        for watch in &mut self.watches {
            watch.server_back_at = Some(at);
        }
    }

    /// A device's process was killed: nothing is left of what it knew.
    pub fn device_killed(&mut self, device: DeviceNo) {
        self.watches[device.0] = Watch::default();
    }

    /// A device says that it is offline; what to tell of it.
    pub fn offline(&mut self, device: DeviceNo, at: Duration, why: Option<&str>) -> String {
        let watch = &mut self.watches[device.0];
        watch.is_online = false;
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        match watch.hurt_at.take() {
            Some(hurt_at) => format!("notices after {}{why}", seconds(at, hurt_at)),
            None => format!("is offline{why}"),
        }
    }

    /// A device says that it is online; what to tell of it.
    pub fn online(&mut self, device: DeviceNo, at: Duration, resumed: bool) -> String {
        let watch = &mut self.watches[device.0];
        watch.is_online = true;
        let how = if resumed { "goes on with its session" } else { "is logged in" };
        match watch.server_back_at.take() {
            Some(back_at) => format!("{how}, {} after the server was back", seconds(at, back_at)),
            None => how.to_owned(),
        }
    }
}

fn seconds(at: Duration, since: Duration) -> String {
    format!("{:.2} s", at.saturating_sub(since).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_from_the_kill_on() {
        let at = Duration::from_millis;
        let mut story = Story::new(1);
        assert_eq!(story.online(DeviceNo(0), at(100), false), "is logged in");
        assert!(story.all_online());
        story.server_killed(at(1_000));
        story.server_back(at(2_500));
        assert_eq!(
            story.offline(DeviceNo(0), at(3_000), Some("LOST")),
            "notices after 2.00 s (LOST)"
        );
        assert!(!story.all_online());
        assert_eq!(story.offline(DeviceNo(0), at(3_100), None), "is offline");
        assert_eq!(
            story.online(DeviceNo(0), at(3_750), false),
            "is logged in, 1.25 s after the server was back"
        );
    }
}
