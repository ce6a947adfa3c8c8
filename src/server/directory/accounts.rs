//! Users and devices as the server uses them: adding, checking, shutting out.
//!
//! Every change goes through here, so that what is remembered of the store never outlives it: a
//! change raises `changes` after its commit, and an answer that was read under an older count is
//! read again, neither remembered nor given.

use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tern_core::mail::Device;
use tern_protocol::{Code, DeviceId, Uin, UnixMillis};

use super::cache::Cache;
use super::token::{Bearer, Tokens};
use super::{
    Credential, DeviceEntry, Directory, DirectoryError, Hash, Label, Name, NewDevice, Secret,
    Standing, User,
};

/// Devices whose credentials are remembered, per generation of the cache: 65,536 of about
/// 100 bytes, two generations, so 13 MB at most.
const CREDENTIALS_MAX: usize = 65_536;

/// Users remembered as existing, per generation: 65,536 of 16 bytes, two generations, so 2 MB.
const USERS_MAX: usize = 65_536;

/// Names of users and devices that are remembered, per generation: 16,384 of about 200 bytes, two
/// generations, so 7 MB.
const NAMES_MAX: usize = 16_384;

/// Logins that wait to be noted: 65,536 of 24 bytes, so 2 MB. Further ones are not noted, which an
/// operator sees as a device that logged in earlier than it did.
const LOGINS_MAX: usize = 65_536;

/// Devices of a user unless the operator chose: a family's worth of phones, tablets and computers,
/// and room for what was lost and not revoked.
const DEVICES_PER_USER: u32 = 100;

/// How much there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Devices of a user that are not revoked.
    pub devices_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { devices_per_user: DEVICES_PER_USER }
    }
}

/// The accounts of a server.
#[derive(Debug)]
pub struct Accounts<D> {
    pub(super) directory: D,
    pub(super) limits: Limits,
    pub(super) tokens: Option<Arc<Tokens>>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) changes: u64,
    credentials: Cache<Device, Credential>,
    users: Cache<Uin, ()>,
    pub(super) names: Cache<Bearer, Device, RandomState>,
    logins: FxHashMap<Device, UnixMillis>,
}

/// A device that was added, with the secret that only its profile will have.
#[derive(Clone, Debug)]
pub struct AddedDevice {
    /// Its numbers.
    pub device: Device,
    /// Its label.
    pub label: String,
    /// Its secret.
    pub secret: Secret,
}

impl<D: Directory> Accounts<D> {
    /// Those of this directory, without tokens.
    pub fn new(directory: D, limits: Limits) -> Self {
        Self::with_tokens(directory, limits, None)
    }

    /// Those of this directory; devices may prove themselves by tokens too, if there are some.
    pub fn with_tokens(directory: D, limits: Limits, tokens: Option<Arc<Tokens>>) -> Self {
        let memory = Memory {
            changes: 0,
            credentials: Cache::new(CREDENTIALS_MAX),
            users: Cache::new(USERS_MAX),
            names: Cache::new(NAMES_MAX),
            logins: FxHashMap::default(),
        };
        Self { directory, limits, tokens, memory: Mutex::new(memory) }
    }

    /// What checks tokens, if some are taken.
    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// The store behind it, for reading.
    pub fn directory(&self) -> &D {
        &self.directory
    }

    /// Adds a user with a first device.
    ///
    /// # Errors
    /// When the name is taken, or the store fails.
    pub async fn add_user(&self, name: &Name) -> Result<AddedDevice, DirectoryError> {
        let secret = Secret::random();
        let first = NewDevice { label: None, hash: Hash::of(&secret) };
        let device = self.directory.add_user(name, now(), &first).await?;
        Ok(AddedDevice { device, label: device.device.to_string(), secret })
    }

    /// Adds a device to a user.
    ///
    /// # Errors
    /// When there is no such user, the label is taken, or the store fails.
    pub async fn add_device(
        &self,
        name: &Name,
        label: Option<Label>,
    ) -> Result<AddedDevice, DirectoryError> {
        let secret = Secret::random();
        let new = NewDevice { label, hash: Hash::of(&secret) };
        let devices_max = self.limits.devices_per_user;
        let (device, label) = self.directory.add_device(name, now(), &new, devices_max).await?;
        Ok(AddedDevice { device, label, secret })
    }

    /// The user of a name.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn user(&self, name: &str) -> Result<User, DirectoryError> {
        let user = self.directory.user(name).await?;
        user.ok_or_else(|| DirectoryError::NoUser(name.to_owned()))
    }

    /// Shuts a user out or lets it in; from the end of this call on no secret of a disabled user
    /// is taken for good. Its live sessions are the caller's to end.
    ///
    /// # Errors
    /// When there is no such user, or the store fails.
    pub async fn set_disabled(&self, name: &str, disabled: bool) -> Result<User, DirectoryError> {
        let user = self.user(name).await?;
        let uin = Uin(user.uin);
        let done = self.directory.set_disabled(uin, disabled).await;
        self.forget(|device| device.uin == uin);
        done?;
        Ok(User { disabled, ..user })
    }

    /// Revokes a device, named by number or label; from the end of this call on its secret is
    /// refused. Its live session is the caller's to end.
    ///
    /// # Errors
    /// When there is no such user or device, or the store fails.
    pub async fn revoke(&self, name: &str, which: &str) -> Result<DeviceEntry, DirectoryError> {
        let (device, found) = self.device(name, which).await?;
        let done = self.directory.revoke(device).await;
        self.forget(|known| known == device);
        done?;
        Ok(DeviceEntry { revoked: true, ..found })
    }

    /// Gives a user another name. Its uin stays, so nobody loses it.
    ///
    /// # Errors
    /// When there is no such user, another has the name, or the store fails.
    pub async fn rename_user(&self, name: &str, to: &Name) -> Result<User, DirectoryError> {
        let user = self.user(name).await?;
        let done = self.directory.rename_user(Uin(user.uin), to).await;
        self.forget_names();
        done?;
        Ok(User { name: to.to_string(), ..user })
    }

    /// Gives a device another label. Its number stays.
    ///
    /// # Errors
    /// When there is no such device, the user has another one of this label, or the store fails.
    pub async fn rename_device(
        &self,
        name: &str,
        which: &str,
        to: &Label,
    ) -> Result<DeviceEntry, DirectoryError> {
        let (device, found) = self.device(name, which).await?;
        let done = self.directory.rename_device(device, to).await;
        self.forget_names();
        done?;
        Ok(DeviceEntry { label: to.to_string(), ..found })
    }

    /// Gives a device another secret; from the end of this call on the old one is refused. The
    /// device's live session is the caller's to end.
    ///
    /// # Errors
    /// When there is no such device, it was revoked, or the store fails.
    pub async fn rotate(&self, name: &str, which: &str) -> Result<AddedDevice, DirectoryError> {
        let (device, found) = self.device(name, which).await?;
        if found.revoked {
            return Err(DirectoryError::Revoked(found.label));
        }
        let secret = Secret::random();
        let done = self.directory.set_secret(device, &Hash::of(&secret)).await;
        self.forget(|known| known == device);
        done?;
        Ok(AddedDevice { device, label: found.label, secret })
    }

    /// The user's device that is named by label or number.
    async fn device(
        &self,
        name: &str,
        which: &str,
    ) -> Result<(Device, DeviceEntry), DirectoryError> {
        let user = self.user(name).await?;
        let devices = self.directory.devices(Some(Uin(user.uin))).await?;
        let named = |device: &&DeviceEntry| device.label == which;
        let numbered = |device: &&DeviceEntry| device.device.to_string() == which;
        let found = devices.iter().find(named).or_else(|| devices.iter().find(numbered));
        let found = found.ok_or_else(|| DirectoryError::NoDevice(which.to_owned()))?;
        let device = Device { uin: Uin(found.uin), device: DeviceId(found.device) };
        Ok((device, found.clone()))
    }

    /// Whether the secret is the device's and the device may log in.
    ///
    /// # Errors
    /// The code of refusal; `BUSY` when the store fails.
    pub async fn authenticate(&self, device: Device, secret: &Secret) -> Result<(), Code> {
        let good = |credential: &Credential| judge(Some(credential), secret) == Ok(());
        let credential = self.credential(device, good).await?;
        judge(credential.as_ref(), secret)?;
        self.saw(device);
        Ok(())
    }

    /// What proves a device: as remembered, if that is `enough`, else as the store has it. What
    /// is enough and from the store is remembered.
    pub(super) async fn credential(
        &self,
        device: Device,
        enough: impl Fn(&Credential) -> bool,
    ) -> Result<Option<Credential>, Code> {
        let remembered = self.memory().credentials.get(device);
        if let Some(remembered) = remembered.filter(&enough) {
            return Ok(Some(remembered));
        }
        loop {
            let changes = self.memory().changes;
            let found = self.directory.credential(device).await;
            let found = found.map_err(|error| not_now(&error))?;
            let is_enough = found.as_ref().is_some_and(&enough);
            let mut memory = self.memory();
            if memory.changes != changes {
                continue;
            }
            if let Some(credential) = found.as_ref().filter(|_| is_enough) {
                memory.credentials.put(device, credential.clone());
            }
            return Ok(found);
        }
    }

    /// The devices of a user, or of all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn devices(&self, uin: Option<Uin>) -> Result<Vec<DeviceEntry>, DirectoryError> {
        self.note_logins().await?;
        self.directory.devices(uin).await
    }

    /// Writes down the logins since the last time, in one go: a login itself writes nothing.
    ///
    /// # Errors
    /// When the store fails; they are lost then.
    pub async fn note_logins(&self) -> Result<(), DirectoryError> {
        let logins: Vec<_> = std::mem::take(&mut self.memory().logins).into_iter().collect();
        match logins.is_empty() {
            true => Ok(()),
            false => self.directory.note_logins(&logins).await,
        }
    }

    /// Remembers a login, to be noted later.
    pub(super) fn saw(&self, device: Device) {
        let mut memory = self.memory();
        if memory.logins.len() < LOGINS_MAX || memory.logins.contains_key(&device) {
            memory.logins.insert(device, now());
        }
    }

    /// Whether there is such a user; `None` when the store fails.
    pub async fn exists(&self, uin: Uin) -> Option<bool> {
        if self.memory().users.get(uin).is_some() {
            return Some(true);
        }
        let exists = self.directory.exists(uin).await.inspect_err(|error| {
            tracing::error!(%error, "a user can't be looked up");
        });
        let exists = exists.ok()?;
        if exists {
            self.memory().users.put(uin, ()); // users are never removed
        }
        Some(exists)
    }

    fn forget(&self, mut which: impl FnMut(Device) -> bool) {
        let mut memory = self.memory();
        memory.changes += 1;
        memory.credentials.retain(|device| !which(*device));
    }

    /// A user or device has another name.
    fn forget_names(&self) {
        let mut memory = self.memory();
        memory.changes += 1;
        memory.names.retain(|_| false);
    }

    /// Each holder leaves the memory whole at every step, so a panic elsewhere spoils nothing.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares in the same time whether there is such a device or not. Why a device may not log in
/// is told only to who has its secret.
fn judge(credential: Option<&Credential>, secret: &Secret) -> Result<(), Code> {
    let nobody = Credential { hash: Hash::of_nobody(), standing: Standing::Good };
    let credential = credential.unwrap_or(&nobody);
    match credential.hash.matches(secret) {
        true => credential.standing.may_log_in(),
        false => Err(Code::BadCredentials),
    }
}

impl Standing {
    /// Whether the device may log in, once it is proved.
    pub(super) fn may_log_in(self) -> Result<(), Code> {
        match self {
            Self::Good => Ok(()),
            Self::Disabled => Err(Code::UserDisabled),
            Self::Revoked => Err(Code::DeviceRevoked),
        }
    }
}

pub(super) fn not_now(error: &DirectoryError) -> Code {
    tracing::error!(%error, "a login can't be checked");
    Code::Busy
}

/// The time of this machine; 0 before 1970.
pub(crate) fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
