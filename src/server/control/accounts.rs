//! Requests about users and devices, done to the accounts: the same whether a server runs or a
//! command works alone.

use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{Code, DeviceId, Uin};

use super::Server;
use super::protocol::{AccountReply, AccountRequest, Added};
use crate::directory::{Accounts, AddedDevice, Directory, DirectoryError};

/// After how many milliseconds sessions of a user that was shut out are ended once more: a login
/// that was answered just before the change may still have been on its way to its worker when
/// the first order passed it.
const KICK_AGAIN_MS: u64 = 1_000;

/// What devices need to find the server and know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whereabouts {
    /// `host:port`.
    pub server: String,
    /// SHA-256 of its certificate in hex.
    pub pin: String,
}

/// Does what is asked to the store.
///
/// # Errors
/// See [`DirectoryError`]; nothing was changed.
pub async fn handle<D: Directory>(
    accounts: &Accounts<D>,
    whereabouts: &Whereabouts,
    request: AccountRequest,
) -> Result<AccountReply, DirectoryError> {
    let added = |name: String, added: AddedDevice| {
        AccountReply::Added(Added {
            name,
            uin: added.device.uin.0,
            device: added.device.device.0,
            label: added.label,
            secret: added.secret.to_hex(),
            server: whereabouts.server.clone(),
            pin: whereabouts.pin.clone(),
        })
    };
    match request {
        AccountRequest::UserAdd { name } => {
            Ok(added(name.to_string(), accounts.add_user(&name).await?))
        }
        AccountRequest::DeviceAdd { name, label } => {
            Ok(added(name.to_string(), accounts.add_device(&name, label).await?))
        }
        AccountRequest::UserList => Ok(AccountReply::Users(accounts.directory().users().await?)),
        AccountRequest::UserSetDisabled { name, disabled } => {
            Ok(AccountReply::User(accounts.set_disabled(&name, disabled).await?))
        }
        AccountRequest::UserRename { name, to } => {
            Ok(AccountReply::User(accounts.rename_user(&name, &to).await?))
        }
        AccountRequest::DeviceList { name } => {
            let uin = match name {
                // No name is a number.
                Some(name) => match name.parse() {
                    Ok(uin) => Some(Uin(uin)),
                    Err(_) => Some(Uin(accounts.user(&name).await?.uin)),
                },
                None => None,
            };
            Ok(AccountReply::Devices(accounts.devices(uin).await?))
        }
        AccountRequest::DeviceRevoke { name, device } => {
            Ok(AccountReply::Device(accounts.revoke(&name, &device).await?))
        }
        AccountRequest::DeviceRename { name, device, to } => {
            Ok(AccountReply::Device(accounts.rename_device(&name, &device, &to).await?))
        }
        AccountRequest::DeviceRotate { name, device } => {
            let rotated = accounts.rotate(&name, &device).await?;
            Ok(added(name, rotated))
        }
        AccountRequest::Resolve { name } => Ok(AccountReply::User(accounts.user(&name).await?)),
    }
}

/// Does it on a running server: who is shut out by it loses its sessions, at once.
///
/// # Errors
/// See [`handle`].
pub async fn handle_live<D: Directory>(
    accounts: &Arc<Accounts<D>>,
    server: &Arc<dyn Server>,
    whereabouts: &Whereabouts,
    request: AccountRequest,
) -> Result<AccountReply, DirectoryError> {
    let ends = Ends::of(&request);
    let reply = handle(accounts, whereabouts, request).await?;
    match ends {
        Ends::Nothing => {}
        Ends::ShutOut => kick(accounts, server, &reply),
        Ends::OldSecret => end_old_secret(server, &reply).await,
    }
    Ok(reply)
}

/// Which sessions a request ends.
enum Ends {
    /// None.
    Nothing,
    /// Those of who is shut out.
    ShutOut,
    /// That of a device whose secret is not taken any more.
    OldSecret,
}

impl Ends {
    fn of(request: &AccountRequest) -> Self {
        match request {
            AccountRequest::UserSetDisabled { disabled: true, .. }
            | AccountRequest::DeviceRevoke { .. } => Self::ShutOut,
            AccountRequest::DeviceRotate { .. } => Self::OldSecret,
            AccountRequest::UserSetDisabled { .. }
            | AccountRequest::UserAdd { .. }
            | AccountRequest::UserList
            | AccountRequest::UserRename { .. }
            | AccountRequest::DeviceAdd { .. }
            | AccountRequest::DeviceList { .. }
            | AccountRequest::DeviceRename { .. }
            | AccountRequest::Resolve { .. } => Self::Nothing,
        }
    }
}

/// Ends what began by an old secret, twice as for those who are shut out. The new secret is told
/// only after the second time, so no session that began by it is ended.
async fn end_old_secret(server: &Arc<dyn Server>, rotated: &AccountReply) {
    let AccountReply::Added(rotated) = rotated else { return };
    let (uin, device) = (Uin(rotated.uin), Some(DeviceId(rotated.device)));
    server.kick(uin, device, Code::SecretChanged);
    tokio::time::sleep(Duration::from_millis(KICK_AGAIN_MS)).await;
    server.kick(uin, device, Code::SecretChanged);
}

fn kick<D: Directory>(accounts: &Arc<Accounts<D>>, server: &Arc<dyn Server>, out: &AccountReply) {
    match out {
        AccountReply::User(user) => {
            let (uin, name) = (Uin(user.uin), user.name.clone());
            server.kick(uin, None, Code::UserDisabled);
            let (accounts, server) = (Arc::clone(accounts), Arc::clone(server));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(KICK_AGAIN_MS)).await;
                if accounts.user(&name).await.is_ok_and(|user| user.disabled) {
                    server.kick(uin, None, Code::UserDisabled);
                }
            });
        }
        AccountReply::Device(device) => {
            let (uin, device) = (Uin(device.uin), Some(DeviceId(device.device)));
            server.kick(uin, device, Code::DeviceRevoked);
            let server = Arc::clone(server);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(KICK_AGAIN_MS)).await;
                server.kick(uin, device, Code::DeviceRevoked);
            });
        }
        AccountReply::Added(_) | AccountReply::Users(_) | AccountReply::Devices(_) => {}
    }
}
