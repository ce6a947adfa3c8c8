//! What is said over the control socket: a [`Request`] a line, a [`Response`] a line, in JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::presence::Presence;
use super::status::Status;
use crate::backup::BackupState;
use crate::directory::{DeviceEntry, Label, Name, User};

/// Longest request in bytes; the longest that is of use holds a name and a label.
pub const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// Longest response in bytes that a command reads: a list of two million users or devices.
pub const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// What a command asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Is anybody there?
    Ping,
    /// How does the server do?
    Status,
    /// Where are the devices of these users, at most [`super::presence::USERS_MAX`] of them, and
    /// when did they log in?
    Presence(Vec<u64>),
    /// Go down in order.
    Stop,
    /// Begin a backup into this folder, named from the root; one at a time.
    Backup(PathBuf),
    /// How far is the backup?
    BackupState,
    /// Read the keys of tokens again.
    ReloadTokens,
    /// Whose is this token?
    CheckToken(TokenText),
    /// About users and devices; works without a server too.
    Account(AccountRequest),
}

/// A token as it was given; who has it is its bearer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenText(pub String);

impl std::fmt::Debug for TokenText {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenText(…)")
    }
}

/// What a command asks about users and devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountRequest {
    /// Add a user with a first device.
    UserAdd {
        /// Its name.
        name: Name,
    },
    /// List the users.
    UserList,
    /// Shut a user out, or let it in again.
    UserSetDisabled {
        /// Its name.
        name: String,
        /// Out or in.
        disabled: bool,
    },
    /// Give a user another name.
    UserRename {
        /// Its name.
        name: String,
        /// Its new name.
        to: Name,
    },
    /// Add a device to a user.
    DeviceAdd {
        /// The user's name.
        name: Name,
        /// What to call it; by default its number.
        label: Option<Label>,
    },
    /// List the devices of a user, or of all.
    DeviceList {
        /// The user's name or uin.
        name: Option<String>,
    },
    /// Revoke a device.
    DeviceRevoke {
        /// The user's name.
        name: String,
        /// The device's label or number.
        device: String,
    },
    /// Give a device another label.
    DeviceRename {
        /// The user's name.
        name: String,
        /// The device's label or number.
        device: String,
        /// Its new label.
        to: Label,
    },
    /// Give a device another secret.
    DeviceRotate {
        /// The user's name.
        name: String,
        /// The device's label or number.
        device: String,
    },
    /// Which user has this name?
    Resolve {
        /// The name.
        name: String,
    },
}

/// What comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done.
    Ok(Reply),
    /// Not done, for this reason; nothing was changed.
    Refused(String),
}

/// What comes back when it was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Ping`]: the server's process number.
    Pong(u32),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Presence`], by user and device; `None` if it can't be seen now.
    Presence(Option<Vec<Presence>>),
    /// To [`Request::Stop`]: it goes down.
    Stopping,
    /// To [`Request::Backup`] and [`Request::BackupState`]; `None` if none was ever begun.
    Backup(Option<BackupState>),
    /// To [`Request::ReloadTokens`]: how many keys there are.
    Keys(usize),
    /// To [`Request::CheckToken`], if it is good: the names of user and device.
    Bearer(Name, Label),
    /// To [`Request::Account`].
    Account(AccountReply),
}

/// What comes back about users and devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountReply {
    /// A device was added, with or without its user, or has another secret.
    Added(Added),
    /// The users asked for.
    Users(Vec<User>),
    /// The user that was found or changed.
    User(User),
    /// The devices asked for.
    Devices(Vec<DeviceEntry>),
    /// The device that was changed.
    Device(DeviceEntry),
}

/// Everything a profile needs.
#[derive(Clone, Serialize, Deserialize)]
pub struct Added {
    /// The user's name.
    pub name: String,
    /// The user's number.
    pub uin: u64,
    /// The device's number.
    pub device: u32,
    /// The device's label.
    pub label: String,
    /// The device's secret in hex, said this once.
    pub secret: String,
    /// Where devices reach the server.
    pub server: String,
    /// SHA-256 of the server's certificate in hex.
    pub pin: String,
}

impl std::fmt::Debug for Added {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Added({} {} {} {})", self.name, self.uin, self.device, self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let name = "Ann\u{2028}Lee".parse().expect("a name");
        let request = Request::Account(AccountRequest::DeviceAdd { name, label: None });
        let line = serde_json::to_string(&request).expect("it is JSON");
        assert!(!line.contains('\n'));
        let back: Request = serde_json::from_str(&line).expect("the same");
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
    }

    #[test]
    fn a_name_that_is_none_is_refused_by_either_side() {
        let line = r#"{"account":{"user-add":{"name":"../x"}}}"#;
        let error = serde_json::from_str::<Request>(line).expect_err("no name");
        assert!(error.to_string().contains("slashes"), "{error}");
    }
}
