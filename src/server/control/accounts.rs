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
        AccountRequest::DeviceList { name } => {
            let uin = match name {
                Some(name) => Some(Uin(accounts.user(&name).await?.uin)),
                None => None,
            };
            Ok(AccountReply::Devices(accounts.directory().devices(uin).await?))
        }
        AccountRequest::DeviceRevoke { name, device } => {
            Ok(AccountReply::Device(accounts.revoke(&name, &device).await?))
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
    let shuts_out = matches!(
        request,
        AccountRequest::UserSetDisabled { disabled: true, .. }
            | AccountRequest::DeviceRevoke { .. }
    );
    let reply = handle(accounts, whereabouts, request).await?;
    if shuts_out {
        kick(accounts, server, &reply);
    }
    Ok(reply)
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
