//! How a command reaches the accounts: through the server if one runs, else by itself, under the
//! folder's lock.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::accounts::{Whereabouts, handle};
use super::client::{Client, ClientError};
use super::protocol::{AccountReply, AccountRequest, Reply, Request};
use crate::directory::{Accounts, Directory, DirectoryError, Limits, Sqlite};
use crate::folder::{DataFolder, FolderError, FolderLock};
use crate::options::Options;

/// How long a command waits for a folder that is held while no server answers yet: one that
/// starts, or another command.
const HELD_SECONDS_MAX: u64 = 10;

/// Time between two tries, in milliseconds.
const TRY_AGAIN_MS: u64 = 20;

/// Why the accounts were not reached, or did not do it.
#[derive(Debug)]
pub enum AccessError {
    /// The server refuses or is silent.
    Server(ClientError),
    /// The store refuses.
    Directory(DirectoryError),
    /// The folder can't be used.
    Folder(FolderError),
    /// The control socket or a runtime can't be had.
    Io(io::Error),
    /// The port is free to be chosen at start, so no profile can name it before.
    PortUnknown,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
            Self::Folder(error) => error.fmt(f),
            Self::Io(error) => write!(f, "the control socket can't be used: {error}"),
            Self::PortUnknown => f.write_str(
                "option listen has port 0, so a profile can't name the port yet; start the server \
                 first, or set the option advertise",
            ),
        }
    }
}

impl std::error::Error for AccessError {}

/// Does a request about accounts, through the server or without one.
///
/// # Errors
/// When neither is possible, or it is refused; nothing was changed then.
pub fn ask(options: &Options, request: &AccountRequest) -> Result<AccountReply, AccessError> {
    let folder = DataFolder::open(&options.data).map_err(AccessError::Folder)?;
    let deadline = Instant::now() + Duration::from_secs(HELD_SECONDS_MAX);
    loop {
        if let Some(client) = Client::connect(&folder).map_err(AccessError::Io)? {
            return ask_server(client, request);
        }
        match folder.lock() {
            Ok(lock) => return ask_store(options, &folder, &lock, request.clone()),
            Err(FolderError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(TRY_AGAIN_MS));
            }
            Err(error) => return Err(AccessError::Folder(error)),
        }
    }
}

fn ask_server(mut client: Client, request: &AccountRequest) -> Result<AccountReply, AccessError> {
    match client.ask(&Request::Account(request.clone())).map_err(AccessError::Server)? {
        Reply::Account(reply) => Ok(reply),
        other @ (Reply::Pong(_)
        | Reply::Status(_)
        | Reply::Presence(_)
        | Reply::Stopping
        | Reply::Backup(_)
        | Reply::Keys(_)
        | Reply::Bearer(..)) => {
            Err(AccessError::Server(ClientError::Strange(format!("{other:?}"))))
        }
    }
}

/// Does it to the store; `_lock` is the folder's.
fn ask_store(
    options: &Options,
    folder: &DataFolder,
    _lock: &FolderLock,
    request: AccountRequest,
) -> Result<AccountReply, AccessError> {
    let writes_profile = matches!(
        request,
        AccountRequest::UserAdd { .. }
            | AccountRequest::DeviceAdd { .. }
            | AccountRequest::DeviceRotate { .. }
    );
    let server = options.advertise.address(options.listen);
    if writes_profile && server.is_none() {
        return Err(AccessError::PortUnknown);
    }
    let identity = folder.identity(&options.name.0).map_err(AccessError::Folder)?;
    let whereabouts = Whereabouts { server: server.unwrap_or_default(), pin: identity.pin() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AccessError::Io)?;
    runtime.block_on(async {
        let store = Sqlite::open(&folder.directory_file()).await.map_err(AccessError::Directory)?;
        let limits = Limits { devices_per_user: options.devices_per_user };
        let accounts = Accounts::new(store, limits);
        let reply = handle(&accounts, &whereabouts, request).await;
        accounts.directory().close().await;
        reply.map_err(AccessError::Directory)
    })
}
