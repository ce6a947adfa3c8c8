//! S-14: what a device may send is exact, also where the wall clock jumps meanwhile; what is too
//! much is said with its code, and leaves no trace in the log.

use std::time::Instant;

use tern_protocol::{Code, Frame};

use crate::clock::{Clock, Wish};
use crate::support::dial::Dial;
use crate::support::peer::Peer;
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Server};
use crate::support::words;

/// Offers of a device, unless `TERN_SOAK` wants more: well above what it may send at once.
const OFFERS: u32 = 150;

/// What an offer got.
fn offer(peer: &mut Peer, frame: &[u8], counter: u32) -> Result<u64, Code> {
    peer.say(frame);
    loop {
        match peer.next().frame() {
            Frame::SendAck(ack) if ack.counter.get() == counter => return Ok(ack.id.get()),
            Frame::SendRefused(no) if no.counter.get() == counter => {
                return Err(Code(no.code.get()));
            }
            _ => {}
        }
    }
}

#[test]
fn s_14_bursts_and_rates_are_held_by_the_real_server_under_jumping_clocks() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::new());
    let before = clock.before();
    let by: Vec<&str> = before.iter().map(String::as_str).collect();
    let burst = ["--sends-per-second", "1", "--sends-burst", "60"];
    let cases = [("burst", 60, &burst[..]), ("strict", 1, &["--preset", "strict"])];
    for (name, at_once, options) in cases {
        let data = folder.path().join(name);
        let server = Server::try_start(&by, &data, ANY_PORT, 2, options).unwrap();
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        let channel = ann.channel_with(&bob);
        let (mut peer, logged_in) = Peer::device(server.address, &Dial::default(), &ann);
        let (epoch, start) = (logged_in.epoch.get(), Instant::now());
        let (mut admitted, mut refused) = (0, 0);
        for offered in 0..scaled(OFFERS) {
            if offered % 10 == 5 {
                clock.set(
                    [Wish::Years(10), Wish::Frozen, Wish::Years(-10), Wish::True][refused % 4],
                );
            }
            let counter = admitted + 1;
            match offer(&mut peer, &words::send(channel, epoch, counter, b"again"), counter) {
                Ok(id) => {
                    admitted += 1;
                    assert_eq!(id, u64::from(admitted));
                }
                Err(code) => {
                    let limits = [Code::RateLimited, Code::UserRateLimited];
                    assert!(limits.contains(&code), "{code}");
                    refused += 1;
                }
            }
        }
        let seconds = start.elapsed().as_secs() as u32;
        let appended = server.figures().get("sends_appended");
        println!(
            "TEST S-14 sockets {name}: n={} admitted={admitted} expected={at_once}..={} \
             refused={refused} traces={}",
            scaled(OFFERS),
            at_once + seconds + 1,
            appended - u64::from(admitted),
        );
        assert!((at_once..=at_once + seconds + 1).contains(&admitted));
        assert_eq!(appended, u64::from(admitted), "no trace of what was refused");
        assert!(refused > 0);
        server.stop();
    }
}
