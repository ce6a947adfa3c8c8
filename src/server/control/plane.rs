//! The control thread: it starts before recovery, so that commands are answered from then on, and
//! ends after the workers.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tern_core::placement::Placement;
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};

use super::Server;
use super::accounts::Whereabouts;
use super::chores::{keep_keys, note_logins};
use super::connection::Desk;
use super::socket::SocketPath;
use crate::directory::service::{Reply, Service};
use crate::directory::token::{KeysError, Rules, Tokens};
use crate::directory::{Accounts, Directory, DirectoryError, Limits, Sqlite};
use crate::folder::{DataFolder, FILE_MODE};

/// Commands served at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;

/// Wait after a failed accept (too many open files, as a rule), so that it is not tried in a loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Exit status of a process that a second signal ended: 128 and the number of SIGINT, as shells
/// have it.
const EXIT_AT_ONCE: i32 = 130;

/// Why the server is to go down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// SIGTERM or SIGINT.
    Signal,
    /// `tern stop`.
    Asked,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal => "on a signal",
            Self::Asked => "as asked by `tern stop`",
        })
    }
}

/// Why the control plane can't start.
#[derive(Debug)]
pub enum ControlError {
    /// The directory can't be opened.
    Directory(DirectoryError),
    /// The keys of tokens can't be read.
    Keys(KeysError),
    /// The thread, the signals or the socket can't be had.
    Io(io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Io(error) => write!(f, "the control plane can't start: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the control plane is made of.
pub struct Parts {
    /// The data folder, locked by this process.
    pub folder: DataFolder,
    /// How much there may be in the directory.
    pub limits: Limits,
    /// What is asked of tokens, if they are taken.
    pub tokens: Option<Rules>,
    /// What profiles are to say.
    pub whereabouts: Whereabouts,
    /// The server it belongs to.
    pub server: Arc<dyn Server>,
    /// The workers' questions.
    pub questions: Service,
    /// Who runs which shard.
    pub placement: Placement,
    /// Carries answers to the workers.
    pub reply: Reply,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A control plane that runs.
#[derive(Debug)]
pub struct Control {
    finish: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts it; returns when the directory is open and the socket takes commands.
    ///
    /// # Errors
    /// When one of them can't be had.
    pub fn start(parts: Parts) -> Result<Self, ControlError> {
        let (finish, finished) = oneshot::channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let thread =
            std::thread::Builder::new().name("tern-control".to_owned()).spawn(move || {
                let runtime = match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error.into()))),
                };
                runtime.block_on(async {
                    match Plane::open(parts).await {
                        Ok(plane) => {
                            let _ = started.send(Ok(()));
                            plane.run(finished).await;
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                });
            })?;
        match start.recv() {
            Ok(Ok(())) => Ok(Self { finish, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("its thread ended").into()),
        }
    }

    /// Ends it, with the directory closed and the socket gone.
    pub fn finish(self) {
        let Self { finish, thread } = self;
        let _ = finish.send(());
        let _ = thread.join();
    }
}

/// Everything that was opened.
struct Plane {
    parts: Parts,
    accounts: Arc<Accounts<Sqlite>>,
    listener: UnixListener,
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Plane {
    async fn open(parts: Parts) -> Result<Self, ControlError> {
        let store =
            Sqlite::open(&parts.folder.directory_file()).await.map_err(ControlError::Directory)?;
        let tokens = parts.tokens.clone().map(Tokens::open).transpose();
        let tokens = tokens.map_err(ControlError::Keys)?.map(Arc::new);
        // Without keys to read again a hangup keeps its own meaning.
        let hangup = tokens.as_ref().map(|_| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            accounts: Arc::new(Accounts::with_tokens(store, parts.limits, tokens)),
            listener: listen(&parts.folder)?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
            parts,
        })
    }

    async fn run(self, finished: oneshot::Receiver<()>) {
        let Self { parts, accounts, listener, terminate, interrupt, hangup } = self;
        let Parts { folder, whereabouts, server, questions, placement, reply, .. } = parts;
        if let Some((tokens, hangup)) = accounts.tokens().cloned().zip(hangup) {
            tokio::spawn(keep_keys(tokens, hangup));
        }
        tokio::spawn(note_logins(Arc::clone(&accounts)));
        tokio::spawn(questions.run(Arc::clone(&accounts), placement, reply));
        tokio::spawn(obey_signals(terminate, interrupt, Arc::clone(&server)));
        let desk = Desk { accounts: Arc::clone(&accounts), server, whereabouts };
        tokio::spawn(accept(listener, Arc::new(desk)));
        let _ = finished.await;
        let _ = std::fs::remove_file(folder.control_socket());
        if let Err(error) = accounts.note_logins().await {
            tracing::warn!(%error, "the newest logins are not noted");
        }
        accounts.directory().close().await;
    }
}

/// Binds the socket; one that is left of an earlier server is in the way, and since the folder is
/// locked nobody listens on it.
fn listen(folder: &DataFolder) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;

    let path = folder.control_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SocketPath::new(&path)?.path())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(FILE_MODE))?;
    Ok(listener)
}

async fn accept<D: Directory>(listener: UnixListener, desk: Arc<Desk<D>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("this semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    match desk.serve(stream).await {
                        // Who asked did not wait for the answer.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                        Err(error) => tracing::warn!(%error, "a control connection ended"),
                        Ok(()) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection can't be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// The first signal asks the server to go down in order, the second ends the process.
async fn obey_signals(mut terminate: Signal, mut interrupt: Signal, server: Arc<dyn Server>) {
    wait(&mut terminate, &mut interrupt).await;
    server.stop(Stop::Signal);
    wait(&mut terminate, &mut interrupt).await;
    tracing::error!("a second signal came before all was in order; the logs recover at next start");
    std::process::exit(EXIT_AT_ONCE);
}

async fn wait(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use tern_protocol::{Code, DeviceId, Uin};

    use super::*;
    use crate::control::client::{Client, ClientError};
    use crate::control::protocol::{AccountReply, AccountRequest, Added, Reply, Request};
    use crate::control::status::{Phase, Status, Table};
    use crate::directory::service::service;

    #[derive(Debug, PartialEq)]
    enum Order {
        Kick(u64, Option<u32>, Code),
        Stop(Stop),
    }

    struct Notes(SyncSender<Order>);

    impl Notes {
        fn note(&self, order: Order) {
            self.0.try_send(order).expect("the test listens");
        }
    }

    impl Server for Notes {
        fn kick(&self, uin: Uin, device: Option<DeviceId>, code: Code) {
            self.note(Order::Kick(uin.0, device.map(|device| device.0), code));
        }

        fn refresh(&self) {}

        fn status(&self) -> Status {
            Status {
                phase: Phase::Ready,
                pid: 1,
                version: String::new(),
                uptime_ms: 0,
                rss_bytes: 0,
                listen: String::new(),
                pin: String::new(),
                troubles: Vec::new(),
                descriptors: None,
                disk: None,
                workers: Table::default(),
                shards: Table::default(),
            }
        }

        fn presences(&self, _: Vec<Uin>) -> crate::control::Seeing {
            Box::pin(std::future::ready(None))
        }

        fn begin_backup(&self, _: &std::path::Path) -> Result<(), String> {
            Err("not here".to_owned())
        }

        fn backup_state(&self) -> Option<crate::backup::BackupState> {
            None
        }

        fn stop(&self, why: Stop) {
            self.note(Order::Stop(why));
        }
    }

    fn start(folder: &DataFolder) -> (Control, Receiver<Order>) {
        let (sender, orders) = sync_channel(8);
        let (_, questions) = service(1);
        let control = Control::start(Parts {
            folder: folder.clone(),
            limits: Limits::default(),
            tokens: None,
            whereabouts: Whereabouts { server: "tern.example:1".to_owned(), pin: "ab".to_owned() },
            server: Arc::new(Notes(sender)),
            questions,
            placement: Placement::new(1, 1),
            reply: Arc::new(|_, _| {}),
        });
        (control.expect("it starts"), orders)
    }

    fn account(client: &mut Client, request: AccountRequest) -> AccountReply {
        match client.ask(&Request::Account(request)) {
            Ok(Reply::Account(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_done_and_sessions_ended() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        assert!(Client::connect(&folder).expect("no error").is_none(), "no server yet");
        let (control, orders) = start(&folder);
        let mut client = Client::connect(&folder).expect("no error").expect("a server");

        assert!(
            matches!(client.ask(&Request::Ping), Ok(Reply::Pong(pid)) if pid == std::process::id())
        );
        let name = || "ann".parse().expect("a name");
        let AccountReply::Added(Added { uin, device, server, secret, .. }) =
            account(&mut client, AccountRequest::UserAdd { name: name() })
        else {
            panic!("a device was added");
        };
        assert_eq!((uin, device, server.as_str(), secret.len()), (10_001, 1, "tern.example:1", 64));
        let again = client.ask(&Request::Account(AccountRequest::UserAdd { name: name() }));
        assert!(matches!(again, Err(ClientError::Refused(why)) if why.contains("already")));

        account(&mut client, AccountRequest::DeviceAdd { name: name(), label: None });
        let (user, device) = ("ann".to_owned(), "2".to_owned());
        account(&mut client, AccountRequest::DeviceRevoke { name: user.clone(), device });
        assert_eq!(orders.recv(), Ok(Order::Kick(10_001, Some(2), Code::DeviceRevoked)));
        let set = AccountRequest::UserSetDisabled { name: user, disabled: true };
        account(&mut client, set);
        assert_eq!(orders.recv(), Ok(Order::Kick(10_001, None, Code::UserDisabled)));

        let (name, device) = ("ann".to_owned(), "1".to_owned());
        let AccountReply::Added(rotated) =
            account(&mut client, AccountRequest::DeviceRotate { name, device })
        else {
            panic!("a new secret");
        };
        assert_ne!(rotated.secret, secret);
        let kicks = orders
            .try_iter()
            .filter(|order| *order == Order::Kick(10_001, Some(1), Code::SecretChanged));
        assert_eq!(kicks.count(), 2, "both before the new secret is told");
        let reload = client.ask(&Request::ReloadTokens);
        assert!(matches!(reload, Err(ClientError::Refused(why)) if why.contains("token-keys")));

        assert!(matches!(client.ask(&Request::Stop), Ok(Reply::Stopping)));
        let stop = orders.iter().find(|order| matches!(order, Order::Stop(_)));
        assert_eq!(stop, Some(Order::Stop(Stop::Asked)));
        control.finish();
        assert!(Client::connect(&folder).expect("no error").is_none(), "the socket is gone");
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_one_answered() {
        let parent = tempfile::tempdir().expect("a folder");
        let deep = parent.path().join("deep".repeat(20)).join("deeper".repeat(20));
        let folder = DataFolder::open(&deep).expect("made");
        let (control, _orders) = start(&folder);
        let path = SocketPath::new(&folder.control_socket()).expect("a path");
        let mut raw = UnixStream::connect(path.path()).expect("beyond 107 bytes too");
        raw.write_all(b"GET / HTTP/1.1\n\"ping\"\n").expect("written");
        raw.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answers = String::new();
        raw.read_to_string(&mut answers).expect("read");
        let answers: Vec<&str> = answers.lines().collect();
        assert!(answers[0].starts_with(r#"{"refused":"this is no request"#), "{answers:?}");
        assert_eq!(answers[1], format!(r#"{{"ok":{{"pong":{}}}}}"#, std::process::id()));

        let mut raw = UnixStream::connect(path.path()).expect("connected");
        let endless = vec![
            b'x';
            2 * usize::try_from(super::super::protocol::REQUEST_BYTES_MAX)
                .expect("fits")
        ];
        let _ = raw.write_all(&endless); // the server may hang up in the middle
        let mut answer = Vec::new();
        let _ = raw.read_to_end(&mut answer);
        assert!(answer.len() < 1_000, "refused once, not buffered without end");
        control.finish();
    }
}
