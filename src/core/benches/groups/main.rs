//! What a message to a group costs the core, by members and by how many are online: at the
//! channel's shard, at the home shards of the members, and in the sessions.
//!
//! `cargo bench -p tern-core --bench groups [MEMBERS_MAX]`. No disk and no encryption are in it;
//! the shards' logs are in memory. The channel's shard is home to a quarter of the members too,
//! which counts with it. Medians of single messages.
#![allow(clippy::print_stdout)] // its result

mod house;

use std::time::Duration;

use house::{Cost, House, SHARDS};

/// Sizes of groups, and the parts of them that are online, in percent.
const MEMBERS: [u64; 4] = [100, 2_000, 10_000, 100_000];
const ONLINE_PERCENT: [u64; 3] = [1, 10, 100];

/// Messages of a measurement: enough deliveries to smooth it, and some seconds at most.
fn messages(online: u64) -> u32 {
    (2_000_000 / (online + 100)).clamp(20, 2_000) as u32 // fits: at most 2,000
}

fn main() {
    let members_max = std::env::args().find_map(|argument| argument.parse().ok());
    let members_max: u64 = members_max.unwrap_or(u64::MAX);
    println!(
        "| members | online | channel's shard, µs | homes, µs each | session, µs a delivery |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for members in MEMBERS.into_iter().filter(|members| *members <= members_max) {
        for percent in ONLINE_PERCENT {
            let online = (members * percent / 100).max(1);
            measure(members, online);
        }
    }
}

fn measure(members: u64, online: u64) {
    let mut house = House::new(members, online);
    house.measure(20); // warm
    let count = messages(online);
    let costs = house.measure(count);
    assert!(costs.iter().all(|cost| cost.pushes == online), "each session got each message");
    println!(
        "| {members} | {online} | {:.1} | {:.1} | {:.2} |",
        median_us(&costs, |cost| cost.chat),
        median_us(&costs, |cost| cost.homes) / f64::from(SHARDS - 1),
        median_us(&costs, |cost| cost.sessions) / online as f64,
    );
}

/// The middle of what the messages took, in µs: others who use the processor count less in it.
fn median_us(costs: &[Cost], part: impl Fn(&Cost) -> Duration) -> f64 {
    let mut times: Vec<Duration> = costs.iter().map(part).collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
