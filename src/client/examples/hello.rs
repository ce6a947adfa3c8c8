//! Sends a line to a user and prints what comes back:
//! `cargo run -p tern-client --example hello -- tern-data ann 10002 "Hello"`.
#![allow(clippy::print_stdout)] // it speaks to people

use std::path::Path;

use tern_client::machine::Event;
use tern_client::profile::Profile;
use tern_client::store::DiskStore;
use tern_client::{Client, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, Uin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [data, me, peer, text] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "give me: DATA-FOLDER MY-NAME PEER-UIN TEXT")?;
    let path = Profile::path(Path::new(&data), &me);
    let profile = Profile::load(&path)?;
    let _lock = profile.lock(&path)?; // one process is one device
    let store = DiskStore::open(&Profile::store_path(&path), profile.uin(), profile.device())?;

    let (client, mut events) = Client::connect(Options::from_profile(&profile, Box::new(store))?)?;
    let channel = ChannelId::direct(profile.uin(), Uin(peer.parse()?));
    println!("{:?}", client.send(channel, content_type::TEXT, text).await?);

    while let Some(event) = events.next().await {
        if let Event::Message(message) = &event {
            println!("{}: {}", message.sender, String::from_utf8_lossy(&message.content));
        }
        client.confirm(&event); // only now: after a crash before this it comes again
    }
    Ok(())
}
