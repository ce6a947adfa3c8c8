//! A server that goes down in order, and the crowd that it sends away: each client comes back in
//! its slot and not before it, all are there in the end, and nothing that they had to say is lost.

use std::time::{Duration, Instant};

use tern_client::machine::State;
use tern_protocol::{ChannelId, Code};

use crate::crowd::Place;
use crate::support::scaled;

/// Clients, unless `TERN_SOAK` wants more.
const CLIENTS: u32 = 200;

/// The wait before the slot, and so its length too for a crowd that is logged in sooner, in ms.
const COME_BACK_MS: u64 = 2_000;

/// How long a client was told to wait, and when it came after that.
fn come_back(states: &[(Instant, State)]) -> (u64, Instant) {
    let lost = states.iter().position(|(_, state)| matches!(state, State::Offline { .. }));
    let lost = lost.expect("the server went down");
    let State::Offline { retry_in_ms, code } = states[lost].1 else { unreachable!("just found") };
    assert_eq!(code, Some(Code::Draining), "it was told");
    let mut later = states[lost..].iter();
    let came = later.find(|(_, state)| *state == State::Connecting).expect("it came back");
    (retry_in_ms, came.0)
}

#[tokio::test]
async fn drained_clients_come_back_spread_over_their_slot_and_lose_nothing() {
    let clients = scaled(CLIENTS);
    let wait = COME_BACK_MS.to_string();
    let place = Place::start(&["--come-back-ms", &wait]);
    let reader = place.devices("reader", 1).await.remove(0);
    let to = reader.heard().uin.expect("it was told who it is");
    let crowd = place.devices("client", clients).await;
    for device in &crowd {
        let own = device.heard().uin.expect("it was told who it is");
        device.say(ChannelId::direct(own, to), 1, "before".to_owned()).await;
    }
    // Before anybody was told anything, so whoever comes too soon after this is early.
    let begun = Instant::now();
    let place = tokio::task::spawn_blocking(|| place.restart()).await.unwrap();
    for device in &crowd {
        let own = device.heard().uin.expect("it was told who it is");
        device.say(ChannelId::direct(own, to), 2, "meanwhile".to_owned()).await;
    }
    let mut tenths = [0_u32; 10];
    let mut early = 0;
    for device in &crowd {
        device.until("both answers", |heard| heard.acked.len() == 2).await;
        let (told_ms, came) = come_back(&device.heard().states);
        assert!((COME_BACK_MS..=2 * COME_BACK_MS).contains(&told_ms), "{told_ms}");
        early += u32::from(came < begun + Duration::from_millis(told_ms));
        tenths[((told_ms - COME_BACK_MS) * 10 / (COME_BACK_MS + 1)) as usize] += 1;
    }
    let all = 2 * clients as usize;
    reader.until("all messages", |heard| heard.shown.len() >= all).await;
    let heard = reader.close().await;
    let mut shown: Vec<_> = heard.shown.iter().collect();
    shown.sort_unstable();
    shown.dedup();
    println!(
        "TEST come-back sockets n={clients} lost={} dup={} early={early} tenths={tenths:?}",
        all - shown.len(),
        heard.shown.len() - shown.len()
    );
    assert_eq!((shown.len(), heard.shown.len(), early), (all, all, 0));
    let fair = clients / 10;
    assert!(tenths.iter().all(|&some| some > fair / 4 && some < 3 * fair), "{tenths:?}");
    place.server.stop();
}
