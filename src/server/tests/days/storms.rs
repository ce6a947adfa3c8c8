//! S-15: crowds. All connect in the same moment, come and go as fast as they can, and talk in a
//! group that is as large as it may be; beside them an honest pair whose messages stay durable
//! and whole.

use std::time::{Duration, Instant};

use tern_protocol::{Code, Uin};
use tokio::runtime::Builder;

use crate::crowd::{Place, add, group as group_of};
use crate::device::{Heard, close_all, judge};
use crate::support::dial::Dial;
use crate::support::honest::{Honest, Report};
use crate::support::peer::Peer;
use crate::support::scaled;

/// Clients that come at once, unless `TERN_SOAK` wants more.
const CLIENTS: u32 = 80;

/// Rounds of coming at once.
const ROUNDS: u32 = 3;

/// Logins and ends of one device, one after the other.
const FLIPS: u32 = 60;

/// Messages into the full group.
const MESSAGES: u64 = 20;

/// What the honest pair saw while all was quiet, and meanwhile.
fn compare(place: &Place, storm: impl FnOnce()) -> (Report, Report) {
    let honest = Honest::start(&place.server);
    honest.wait_for(100);
    let quiet = honest.finish();
    let honest = Honest::start_as(&place.server, "storm");
    storm();
    (quiet, honest.finish())
}

fn tell(what: &str, n: u64, took: Duration, (quiet, storm): &(Report, Report)) {
    println!(
        "TEST S-15 {what} n={n} per_s={:.0} honest={} lost=0 p99_quiet={:?} p99_storm={:?}",
        n as f64 / took.as_secs_f64(),
        storm.messages,
        quiet.p99,
        storm.p99
    );
}

#[test]
fn s_15_devices_that_come_and_go_as_fast_as_they_can_hold_up_nobody() {
    let place = Place::start(&[]);
    let flips = scaled(FLIPS);
    let accounts: Vec<_> =
        (0..4).map(|number| place.server.user(&format!("flip{number}"))).collect();
    let mut took = Duration::ZERO;
    let reports = compare(&place, || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for account in &accounts {
                scope.spawn(|| {
                    for _ in 0..flips {
                        let (mut peer, _) =
                            Peer::device(place.address(), &Dial::default(), account);
                        let code = u32::from(Code::LoggedOut.0).into();
                        peer.connection.close(Instant::now(), code, Vec::new().into());
                        peer.flush();
                    }
                });
            }
        });
        took = start.elapsed();
    });
    let all = u64::from(flips) * accounts.len() as u64;
    tell("flips", all, took, &reports);
    let figures = place.server.figures();
    assert!(figures.get("logins") >= all);
    assert!(figures.get("sessions_now") <= accounts.len() as u64, "nobody is left behind");
    place.server.stop();
}

#[test]
fn s_15_a_crowd_that_connects_at_once_is_let_in_beside_those_who_talk() {
    let place = Place::start(&[]);
    let clients = scaled(CLIENTS);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut took = Duration::ZERO;
    let reports = compare(&place, || {
        runtime.block_on(async {
            for _ in 0..scaled(ROUNDS).min(ROUNDS * 4) {
                let start = Instant::now();
                let crowd = place.devices("crowd", clients).await;
                took += start.elapsed();
                close_all(crowd).await;
            }
        });
    });
    let all = u64::from(scaled(ROUNDS).min(ROUNDS * 4)) * u64::from(clients);
    tell("reconnects", all, took, &reports);
    assert!(place.server.figures().get("logins") + place.server.figures().get("resumes") >= all);
    place.server.stop();
}

#[test]
fn s_15_a_group_at_its_cap_takes_no_one_more_and_reaches_everyone() {
    let clients = scaled(CLIENTS);
    let most = clients.to_string();
    let place = Place::start(&["--group-members-max", &most]);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut took = Duration::ZERO;
    let reports = compare(&place, || {
        runtime.block_on(async {
            let crowd = place.devices("member", clients).await;
            let late = place.devices("late", 1).await.remove(0);
            let uins: Vec<Uin> =
                crowd.iter().map(|device| device.heard().uin.expect("told")).collect();
            let late_uin = late.heard().uin.expect("told");
            let owner = &crowd[0];
            let group = group_of(&owner.client, &uins[1..]).await;
            assert_eq!(add(&owner.client, group, late_uin).await, Some(Code::GroupFull));
            let start = Instant::now();
            for number in 1..=MESSAGES {
                owner.say(group, number, format!("owner {number}")).await;
            }
            for device in &crowd {
                let texts = |heard: &Heard| {
                    heard.shown.iter().filter(|(.., text)| text.starts_with("owner ")).count()
                };
                device.until("all messages", |heard| texts(heard) as u64 == MESSAGES).await;
            }
            took = start.elapsed();
            for heard in close_all(crowd).await {
                let (lost, again, disordered) = judge(&heard.texts(), &[("owner", MESSAGES)]);
                assert_eq!((lost, again, disordered), (0, 0, 0));
            }
        });
    });
    tell("group", MESSAGES * u64::from(clients), took, &reports);
    place.server.stop();
}
