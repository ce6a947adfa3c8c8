//! Who there is: users, their devices, and what proves a device.
//!
//! [`Directory`] is the door to the store, with [`Sqlite`] behind it; [`Accounts`] is what the
//! rest of the server uses: it checks secrets and [`token`]s, remembers good answers for a while,
//! and sees to it that a disabled user, a revoked device or an old secret is refused from the
//! moment the store has it. The [`service`] answers the workers' questions; no worker ever waits
//! for it.
//!
//! - Numbers are never given twice: uins from 10001, devices from 1 within each user.
//! - A secret leaves the server once, when it is made; the store has its salted hash.
//! - An unknown user, an unknown device and a wrong secret are one answer, by one way.

mod accounts;
mod cache;
mod copy;
mod identify;
mod name;
mod secret;
pub mod service;
mod sqlite;
pub mod token;

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};
use tern_core::mail::Device;
use tern_protocol::{DeviceId, Uin, UnixMillis};

pub(crate) use accounts::now;
pub use accounts::{Accounts, AddedDevice, Limits};
pub use copy::Jump;
pub use name::{Label, Name, NameError};
pub use secret::{Hash, Secret};
pub use sqlite::Sqlite;

/// A user as the directory knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    /// The user's number.
    pub uin: u64,
    /// The user's name.
    pub name: String,
    /// Whether the operator has shut the user out.
    pub disabled: bool,
    /// Devices that were ever added.
    pub devices: u32,
    /// When the user was added, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

/// A device as the directory knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// The name of its user.
    pub name: String,
    /// Its user's number.
    pub uin: u64,
    /// Its number within the user.
    pub device: u32,
    /// What the user calls it.
    pub label: String,
    /// Whether it was revoked.
    pub revoked: bool,
    /// When it was added, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// When it last logged in, in milliseconds since 1970 UTC; 0 if it never did. A session that
    /// is resumed is no login.
    pub last_login_ms: u64,
}

/// Whether a device may log in, if it has the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may.
    Good,
    /// Its user is disabled.
    Disabled,
    /// It was revoked.
    Revoked,
}

/// What the store has of a device's credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    /// Of its secret.
    pub hash: Hash,
    /// Whether it may log in.
    pub standing: Standing,
}

/// Why the directory did not do it. Nothing was changed.
#[derive(Debug)]
pub enum DirectoryError {
    /// There is such a user already.
    NameTaken(String),
    /// The user has a device of this label already.
    LabelTaken(String),
    /// There is no such user.
    NoUser(String),
    /// The user has no such device.
    NoDevice(String),
    /// The user has this many devices, and may have no more.
    TooManyDevices(u32),
    /// The device was revoked, for ever.
    Revoked(String),
    /// The store failed.
    Store(sqlx::Error),
    /// The store's tables are not what this version makes of them.
    Tables(sqlx::migrate::MigrateError),
    /// The store holds what this version never wrote.
    Damaged(String),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(
                f,
                "there is a user {name:?} already; `tern device add` gives it one more device"
            ),
            Self::LabelTaken(label) => write!(
                f,
                "the user has a device {label:?} already; choose another label by --device"
            ),
            Self::NoUser(name) => {
                write!(f, "there is no user {name:?}; `tern user list` shows them")
            }
            Self::NoDevice(device) => write!(
                f,
                "the user has no device {device:?}; `tern device list` shows them, by number and \
                 label"
            ),
            Self::TooManyDevices(max) => write!(
                f,
                "the user has {max} devices, as many as the option devices-per-user allows; \
                 revoke one to add another"
            ),
            Self::Revoked(device) => write!(
                f,
                "the device {device:?} was revoked, for ever; `tern device add` gives the user \
                 another one"
            ),
            Self::Store(error) => write!(f, "the directory's store failed: {error}"),
            Self::Tables(error) => write!(
                f,
                "the directory's tables are not those of this version: {error}; use the version \
                 that wrote them"
            ),
            Self::Damaged(what) => {
                write!(f, "the directory's store is damaged: {what}; restore it from a backup")
            }
        }
    }
}

impl std::error::Error for DirectoryError {}

impl From<sqlx::Error> for DirectoryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error)
    }
}

/// The store of users and devices. Each change is durable when its future ends.
pub trait Directory: Send + Sync + 'static {
    /// Adds a user, without a device.
    ///
    /// # Errors
    /// When the name is taken.
    fn add_user(
        &self,
        name: &Name,
        now: UnixMillis,
        first: &NewDevice,
    ) -> impl Future<Output = Result<Device, DirectoryError>> + Send;

    /// Adds a device to a user.
    ///
    /// # Errors
    /// When there is no such user, it has a device of this label, or `devices_max` that are not
    /// revoked.
    fn add_device(
        &self,
        name: &Name,
        now: UnixMillis,
        new: &NewDevice,
        devices_max: u32,
    ) -> impl Future<Output = Result<(Device, String), DirectoryError>> + Send;

    /// All users, in the order of their numbers.
    fn users(&self) -> impl Future<Output = Result<Vec<User>, DirectoryError>> + Send;

    /// The user of a name.
    fn user(&self, name: &str)
    -> impl Future<Output = Result<Option<User>, DirectoryError>> + Send;

    /// Whether there is a user of this number, disabled or not.
    fn exists(&self, uin: Uin) -> impl Future<Output = Result<bool, DirectoryError>> + Send;

    /// The devices of a user, or of all, in the order of their numbers.
    fn devices(
        &self,
        uin: Option<Uin>,
    ) -> impl Future<Output = Result<Vec<DeviceEntry>, DirectoryError>> + Send;

    /// The device of this label of the user of this name, revoked or not.
    fn find(
        &self,
        name: &Name,
        label: &Label,
    ) -> impl Future<Output = Result<Option<Device>, DirectoryError>> + Send;

    /// What proves a device; `None` if there is no such device.
    fn credential(
        &self,
        device: Device,
    ) -> impl Future<Output = Result<Option<Credential>, DirectoryError>> + Send;

    /// Shuts a user out, or lets it in again.
    ///
    /// # Errors
    /// When the store fails; a user that is not there is no error.
    fn set_disabled(
        &self,
        uin: Uin,
        disabled: bool,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Gives a user another name.
    ///
    /// # Errors
    /// When another has it; a user that is not there is no error.
    fn rename_user(
        &self,
        uin: Uin,
        name: &Name,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Gives a device another label.
    ///
    /// # Errors
    /// When another one of the user has it; a device that is not there is no error.
    fn rename_device(
        &self,
        device: Device,
        label: &Label,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Gives a device another secret.
    ///
    /// # Errors
    /// When the store fails; a device that is not there is no error.
    fn set_secret(
        &self,
        device: Device,
        hash: &Hash,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Notes when devices logged in. A device that is not there is no error.
    ///
    /// # Errors
    /// When the store fails; then none is noted.
    fn note_logins(
        &self,
        logins: &[(Device, UnixMillis)],
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Revokes a device, for ever.
    ///
    /// # Errors
    /// When the store fails; a device that is not there is no error.
    fn revoke(&self, device: Device) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Ends its use, with everything written.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A device that is to be added.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// What the user calls it; `None`: its number.
    pub label: Option<Label>,
    /// Of its secret.
    pub hash: Hash,
}

/// A number as the store keeps it: signed, of which only the positive half is ever given.
fn to_column(number: u64) -> Option<i64> {
    i64::try_from(number).ok()
}

fn uin_from(column: i64) -> Result<Uin, DirectoryError> {
    u64::try_from(column).map(Uin).map_err(|_| DirectoryError::Damaged(format!("uin {column}")))
}

fn device_from(column: i64) -> Result<DeviceId, DirectoryError> {
    u32::try_from(column)
        .map(DeviceId)
        .map_err(|_| DirectoryError::Damaged(format!("device {column}")))
}
