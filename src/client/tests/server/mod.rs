//! A server of a few lines, all in memory: real QUIC, real frames, no durability, no limits. It
//! deduplicates and pushes to every device of a direct channel's two users.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    ChannelState, Close, LoggedIn, Pong, PushBody, Send, SendAck, Welcome,
};
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::limits::{ALPN, VERSION};
use tern_protocol::{ChannelId, Code, Flags, Frame, Header, Kind};
use tokio::sync::watch;
use zerocopy::{Immutable, IntoBytes};

type Device = (u64, u32);
type Entry = (Device, u32, u32);

/// What the server knows.
#[derive(Default)]
struct Hub {
    channels: BTreeMap<ChannelId, Vec<(PushBody, Vec<u8>)>>,
    appended: BTreeMap<Entry, (ChannelId, u64)>,
    epochs: BTreeMap<Device, u32>,
    connections: Vec<Connection>,
    logins: usize,
    remotes: Vec<SocketAddr>,
}

pub struct Server {
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
    endpoint: Endpoint,
    hub: Arc<Mutex<Hub>>,
    changed: watch::Sender<u64>,
}

impl Server {
    /// Starts on a free port with a certificate of its own.
    pub fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = made.signing_key.serialize_der();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = listen(&certificate, &key, socket);
        let address = endpoint.local_addr().unwrap();
        let (hub, changed) = (Arc::default(), watch::Sender::new(0));
        let server = Self { address, certificate, key, endpoint, hub, changed };
        server.accept();
        server
    }

    /// Goes away and comes back on the same port, knowing what it knew.
    pub async fn restart(&mut self) {
        let nowhere = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let old = std::mem::replace(&mut self.endpoint, nowhere);
        old.close(VarInt::from_u32(0), b"");
        old.wait_idle().await;
        drop(old);
        self.hub().connections.clear();
        // The port is free once the last task that holds the endpoint has seen its end.
        let socket = loop {
            match std::net::UdpSocket::bind(self.address) {
                Ok(socket) => break socket,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.endpoint = listen(&self.certificate, &self.key, socket);
        self.accept();
    }

    /// Closes all connections with this code.
    pub fn close_all(&self, code: Code) {
        for connection in self.hub().connections.drain(..) {
            connection.close(VarInt::from_u32(code.0.into()), b"");
        }
    }

    pub fn pin(&self) -> [u8; 32] {
        tern_client::certificate_pin(&self.certificate)
    }

    pub fn logins(&self) -> usize {
        self.hub().logins
    }

    /// The client address of each login, and of the last frames.
    pub fn remotes(&self) -> Vec<SocketAddr> {
        self.hub().remotes.clone()
    }

    /// The contents of a channel.
    pub fn contents(&self, channel: ChannelId) -> Vec<Vec<u8>> {
        let hub = self.hub();
        let list = hub.channels.get(&channel).map_or(&[][..], Vec::as_slice);
        list.iter().map(|(_, content)| content.clone()).collect()
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap()
    }

    fn accept(&self) {
        let (endpoint, hub, changed) =
            (self.endpoint.clone(), Arc::clone(&self.hub), self.changed.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (hub, changed) = (Arc::clone(&hub), changed.clone());
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    hub.lock().unwrap().connections.push(connection.clone());
                    let Ok((send, receive)) = connection.accept_bi().await else { return };
                    let session =
                        Session { hub, changed, connection, send, device: (0, 0), sent: None };
                    session.run(receive).await;
                });
            }
        });
    }
}

fn listen(
    certificate: &CertificateDer<'static>,
    key: &[u8],
    socket: std::net::UdpSocket,
) -> Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivatePkcs8KeyDer::from(key.to_vec()).into())
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime).unwrap()
}

struct Session {
    hub: Arc<Mutex<Hub>>,
    changed: watch::Sender<u64>,
    connection: Connection,
    send: SendStream,
    device: Device,
    /// What was pushed of each channel; `None` before the cursors are known.
    sent: Option<BTreeMap<ChannelId, u64>>,
}

impl Session {
    async fn run(mut self, mut receive: RecvStream) {
        let mut changed = self.changed.subscribe();
        let (frames, mut got) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(frame) = read_frame(&mut receive).await {
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        });
        loop {
            tokio::select! {
                frame = got.recv() => match frame {
                    Some(frame) => self.handle(&frame).await,
                    None => return,
                },
                _ = changed.changed() => {}
            }
            self.push_all().await;
        }
    }

    async fn say<T: IntoBytes + Immutable>(&mut self, kind: Kind, head: &T, variable: &[u8]) {
        let mut buffer = vec![0; frame_bytes::<T>(variable.len())];
        encode(kind, Flags::NONE, head, variable, &mut buffer);
        let _ = self.send.write_all(&buffer).await;
    }

    async fn handle(&mut self, bytes: &[u8]) {
        self.hub.lock().unwrap().remotes.push(self.connection.remote_address());
        let (frame, flags) = Frame::parse(bytes).unwrap();
        match frame {
            Frame::Hello(_) => {
                let welcome = Welcome {
                    version: VERSION.into(),
                    unacked_sends_max: 64.into(),
                    content_bytes_max: 1_440.into(),
                    capabilities: 0.into(),
                    server_time: 0.into(),
                    reserved: 0.into(),
                };
                self.say(Kind::Welcome, &welcome, &[]).await;
            }
            Frame::Login(login) if login.secret == [0; 32] => {
                let code = Code::BadCredentials;
                let close =
                    Close { code: code.0.into(), slot_tenths: 0.into(), come_back_ms: 0.into() };
                self.say(Kind::Close, &close, &[]).await;
                self.connection.close(VarInt::from_u32(code.0.into()), b"");
            }
            Frame::Login(login) => {
                self.device = (login.uin.get(), login.device.get());
                let epoch = {
                    let mut hub = self.hub.lock().unwrap();
                    let epoch = hub.epochs.entry(self.device).or_default();
                    *epoch += 1;
                    *epoch
                };
                self.logged_in(epoch, false).await;
            }
            Frame::Resume(resume) => {
                self.device = (resume.uin.get(), resume.device.get());
                self.logged_in(resume.epoch.get(), true).await;
            }
            Frame::Cursors(list) => {
                let sent = self.sent.get_or_insert_default();
                sent.extend(list.iter().map(|cursor| (cursor.channel, cursor.id.get())));
                assert!(flags.has(Flags::LAST));
            }
            Frame::Send(head, content) => {
                let ack = self.append(head, content);
                self.say(Kind::SendAck, &ack, &[]).await;
                self.changed.send_modify(|version| *version += 1);
            }
            Frame::Ping(ping) => {
                let pong = Pong {
                    sequence: ping.sequence,
                    heartbeat_ms: 10_000.into(),
                    server_time: 0.into(),
                    moved: 0,
                    reserved: [0; 7],
                };
                self.say(Kind::Pong, &pong, &[]).await;
            }
            _ => {}
        }
    }

    async fn logged_in(&mut self, epoch: u32, resumed: bool) {
        self.hub.lock().unwrap().logins += 1;
        let logged_in = LoggedIn {
            epoch: epoch.into(),
            heartbeat_ms: 10_000.into(),
            resume_ms: 60_000.into(),
            resumed: resumed.into(),
            known: 0,
            reserved: [0; 2],
            token: [1; 32],
        };
        self.say(Kind::LoggedIn, &logged_in, &[]).await;
    }

    fn append(&self, head: &Send, content: &[u8]) -> SendAck {
        let mut hub = self.hub.lock().unwrap();
        let entry = (self.device, head.epoch.get(), head.counter.get());
        let known = hub.appended.get(&entry).copied();
        let id = known.map_or_else(
            || {
                let list = hub.channels.entry(head.channel).or_default();
                let id = list.len() as u64 + 1;
                let body = PushBody {
                    channel: head.channel,
                    id: id.into(),
                    sender: self.device.0.into(),
                    device: self.device.1.into(),
                    epoch: head.epoch,
                    counter: head.counter,
                    content_type: head.content_type,
                    kind: head.kind,
                    version: head.version,
                    server_time: 1.into(),
                    refers_to: head.refers_to,
                };
                list.push((body, content.to_vec()));
                hub.appended.insert(entry, (head.channel, id));
                id
            },
            |(_, id)| id,
        );
        SendAck {
            channel: head.channel,
            epoch: head.epoch,
            counter: head.counter,
            id: id.into(),
            server_time: 1.into(),
        }
    }

    async fn push_all(&mut self) {
        let Some(mut sent) = self.sent.take() else { return };
        let due: Vec<(bool, PushBody, Vec<u8>)> = {
            let hub = self.hub.lock().unwrap();
            let mine = hub.channels.iter().filter(|(channel, _)| {
                channel.members().is_some_and(|(a, b)| [a.0, b.0].contains(&self.device.0))
            });
            mine.flat_map(|(channel, list)| {
                let from = sent.get(channel).copied();
                let rest = list.iter().skip(from.unwrap_or(0) as usize);
                rest.enumerate().map(move |(n, (body, content))| {
                    (from.is_none() && n == 0, *body, content.clone())
                })
            })
            .collect()
        };
        for (first, body, content) in due {
            if first {
                let state = ChannelState {
                    channel: body.channel,
                    incarnation: 1.into(),
                    reserved: 0.into(),
                    oldest: 1.into(),
                    newest: body.id,
                    restarted_at: 1.into(),
                };
                self.say(Kind::Channel, &state, &[]).await;
            }
            sent.insert(body.channel, body.id.get());
            self.say(Kind::Push, &body, &content).await;
        }
        self.sent = Some(sent);
    }
}

async fn read_frame(receive: &mut RecvStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    receive.read_exact(&mut frame).await.ok()?;
    frame.resize(Header::peek(&frame)?.frame_bytes(), 0);
    receive.read_exact(&mut frame[HEADER_BYTES..]).await.ok()?;
    Some(frame)
}
