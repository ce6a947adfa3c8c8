//! Finding the server over real sockets: several names and addresses, some of which never answer,
//! names that lead nowhere any more, IPv6 beside IPv4, and the nearest of several.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::server::{ANY_PORT, Server};
use tempfile::TempDir;
use tern_badlink::{Captures, Plan, Protocol, Relay, Sharing};
use tern_client::machine::{Event, SendOutcome, State};
use tern_client::profile::Profile;
use tern_client::servers::{Resolve, Resolved};
use tern_client::store::{DiskStore, MemoryStore, Store};
use tern_client::{Client, Events, Options, Problem};
use tern_netmodel::{Conditions, Profile as LinkProfile};
use tern_protocol::ChannelId;
use tern_protocol::frames::{Network, content_type};

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the tests call their servers.
const NAME: &str = "chat.test:5190";

/// A server, and a user's device.
struct House {
    server: Server,
    _folder: TempDir,
}

/// Names that a test gives and takes; asking for others fails, as where no name server answers.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>);

impl Names {
    fn lead(&self, name: &str, addresses: &[SocketAddr]) {
        self.0.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }

    fn die(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl Resolve for Names {
    fn resolve(&self, server: &str) -> Resolved {
        let found = self.0.lock().unwrap().get(server).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no name server answers")) })
    }
}

/// An address that takes packets and never answers.
struct BlackHole(UdpSocket);

impl BlackHole {
    fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// How many packets came since the last look.
    fn packets(&self) -> usize {
        self.0.set_nonblocking(true).unwrap();
        let mut packet = [0; 2_048];
        std::iter::from_fn(|| self.0.recv(&mut packet).ok()).count()
    }
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), ANY_PORT, &[]);
        server.user("ann");
        Self { server, _folder: folder }
    }

    fn options(&self, servers: &str, names: &Names, store: Box<dyn Store>) -> Options {
        let profile = Profile::load(&Profile::path(&self.server.data, "ann")).unwrap();
        let mut options = Options::from_profile(&profile, store).unwrap();
        options.server = servers.to_owned();
        options.resolver = Arc::new(names.clone());
        options
    }

    /// The device's store on the disk.
    fn store(&self) -> Box<DiskStore> {
        let path = Profile::path(&self.server.data, "ann");
        let profile = Profile::load(&path).unwrap();
        let store = Profile::store_path(&path);
        Box::new(DiskStore::open(&store, profile.uin(), profile.device()).unwrap())
    }

    /// Connects, sends a note to self, and closes; the address that it was sent to.
    async fn visit(&self, options: Options) -> SocketAddr {
        let uin = options.identity.uin;
        let (client, _events) = Client::connect(options).unwrap();
        let note = client.send(ChannelId::direct(uin, uin), content_type::TEXT, "here");
        let outcome = tokio::time::timeout(PATIENCE, note).await.expect("it is online").unwrap();
        assert!(matches!(outcome, SendOutcome::Acked { .. }), "{outcome:?}");
        let address = client.server_address().expect("it is logged in");
        client.close().await;
        address
    }

    /// A way to the server that takes so long, each way.
    async fn way(&self, listen: &str, delay_ms: u64) -> Relay {
        let plan = Plan {
            listen: listen.parse().unwrap(),
            server: self.server.address,
            profile: LinkProfile::symmetric(Conditions::clear(delay_ms)),
            seed: 1,
            protocol: Protocol::Udp,
            sharing: Sharing::Each,
            captures: Captures::default(),
        };
        Relay::start(plan).await.unwrap()
    }
}

/// Waits until an attempt to connect has failed, and tells why.
async fn problem(client: &Client, events: &mut Events) -> Problem {
    let failed = async {
        loop {
            let event = events.next().await.expect("the client lives");
            if let Event::State(State::Offline { .. }) = event {
                return client.problem().expect("there is a reason");
            }
        }
    };
    tokio::time::timeout(PATIENCE, failed).await.expect("it gives up")
}

#[tokio::test]
async fn who_never_answers_is_no_obstacle_and_is_not_asked_first_again() {
    let house = House::new();
    let (hole, names) = (BlackHole::new(), Names::default());
    let good = house.server.address;
    names.lead(NAME, &[hole.address(), good]);
    assert_eq!(house.visit(house.options(NAME, &names, house.store())).await, good);
    assert!(hole.packets() > 0, "it was asked first");

    // Another process of the device: the last good address goes ahead, with all others behind.
    assert_eq!(house.store().servers().unwrap()[0].address, good);
    assert_eq!(house.visit(house.options(NAME, &names, house.store())).await, good);

    // A name of which no address answers, beside one that leads there.
    names.lead("hole.test:1", &[hole.address()]);
    let both = format!("hole.test:1,{NAME}");
    let fresh = Box::<MemoryStore>::default();
    assert_eq!(house.visit(house.options(&both, &names, fresh)).await, good);
    println!("TEST servers black hole n=3 lost=0");
    house.server.stop();
}

#[tokio::test]
async fn names_that_are_dead_do_not_matter_once_it_has_logged_in() {
    let house = House::new();
    let names = Names::default();
    names.lead(NAME, &[house.server.address]);
    let address = house.visit(house.options(NAME, &names, house.store())).await;
    names.die();
    assert_eq!(house.visit(house.options(NAME, &names, house.store())).await, address);
    // On another kind of network too.
    let mut elsewhere = house.options(NAME, &names, house.store());
    elsewhere.network = Network::Cellular;
    assert_eq!(house.visit(elsewhere).await, address);

    // One that never was there has nothing to go by, nor has one whose profile names another.
    for (servers, store) in [
        (NAME, Box::<MemoryStore>::default() as Box<dyn Store>),
        ("other.test:5190", house.store()),
    ] {
        let options = house.options(servers, &names, store);
        let (client, mut events) = Client::connect(options).unwrap();
        let problem = problem(&client, &mut events).await;
        assert!(matches!(problem, Problem::Address(_)), "{problem:?}");
        client.close().await;
    }
    println!("TEST servers without names n=2 lost=0");
    house.server.stop();
}

#[tokio::test]
async fn both_families_lead_there_whichever_is_dead() {
    let house = House::new();
    let way = house.way("[::1]:0", 0).await;
    let (hole, names) = (BlackHole::new(), Names::default());
    names.lead(NAME, &[hole.address(), way.address()]);
    let fresh = || Box::<MemoryStore>::default();
    assert_eq!(house.visit(house.options(NAME, &names, fresh())).await, way.address());
    // IPv6 leads nowhere.
    let dead = UdpSocket::bind("[::1]:0").unwrap();
    names.lead(NAME, &[dead.local_addr().unwrap(), house.server.address]);
    assert_eq!(house.visit(house.options(NAME, &names, fresh())).await, house.server.address);
    // Without any name: an address of each family is its own name.
    let both = format!("{},{}", dead.local_addr().unwrap(), house.server.address);
    let mut options = house.options(&both, &names, fresh());
    options.resolver = Arc::new(tern_client::servers::SystemResolver);
    assert_eq!(house.visit(options).await, house.server.address);
    println!("TEST servers families n=3 lost=0");
    house.server.stop();
}

#[tokio::test]
async fn the_nearest_of_several_is_taken() {
    let house = House::new();
    let (far, near) = (house.way("127.0.0.1:0", 400).await, house.way("127.0.0.1:0", 5).await);
    let names = Names::default();
    names.lead("far.test:1", &[far.address()]);
    names.lead("near.test:1", &[near.address()]);
    for servers in ["far.test:1,near.test:1", "near.test:1,far.test:1"] {
        let options = house.options(servers, &names, Box::<MemoryStore>::default());
        assert_eq!(house.visit(options).await, near.address(), "{servers}");
    }
    assert!(far.figures().up.offered > 0, "it was asked too");
    // When the nearest is gone, the other one does.
    let both = "far.test:1,near.test:1";
    assert_eq!(house.visit(house.options(both, &names, house.store())).await, near.address());
    drop(near);
    assert_eq!(house.visit(house.options(both, &names, house.store())).await, far.address());
    println!("TEST servers nearest n=4 lost=0");
    house.server.stop();
}
