//! Users and devices that the operator's tokens name: found in the directory, or added to it.

use tern_core::mail::Device;
use tern_protocol::{Code, DeviceId, Uin};

use super::accounts::{not_now, now};
use super::token::{Adds, Bearer};
use super::{Accounts, Directory, DirectoryError, Hash, NewDevice, Secret};

impl<D: Directory> Accounts<D> {
    /// Which device the token stands for, if it may log in; `claimed` are the numbers that the
    /// client takes itself for, 0 where it does not know.
    ///
    /// # Errors
    /// The code of refusal; `BUSY` when the store fails.
    pub async fn identify(&self, claimed: Device, token: &[u8]) -> Result<Device, Code> {
        let tokens = self.tokens.as_ref().ok_or(Code::TokensNotTaken)?;
        let bearer = tokens.check(token, now()).map_err(|refusal| {
            tracing::debug!(%refusal, "a token is not taken");
            refusal.code()
        })?;
        // Who knows its numbers is here already.
        let is_new = claimed == Device { uin: Uin(0), device: DeviceId(0) };
        let adds = if is_new { tokens.rules().adds } else { Adds::Nothing };
        let device = self.device_of(&bearer, adds).await?;
        let is = |claimed: u64, is: u64| claimed == 0 || claimed == is;
        if !is(claimed.uin.0, device.uin.0) || !is(claimed.device.0.into(), device.device.0.into())
        {
            return Err(Code::BadCredentials);
        }
        let credential = self.credential(device, |_| true).await?;
        credential
            .map_or(Err(Code::BadCredentials), |credential| credential.standing.may_log_in())?;
        self.saw(device);
        Ok(device)
    }

    /// The numbers of a bearer, added if that is allowed.
    async fn device_of(&self, bearer: &Bearer, adds: Adds) -> Result<Device, Code> {
        if let Some(device) = self.memory().names.get(bearer.clone()) {
            return Ok(device);
        }
        let changes = self.memory().changes;
        let device = match self.find(bearer).await? {
            Some(device) => device,
            None => self.add_bearer(bearer, adds).await?,
        };
        let mut memory = self.memory();
        if memory.changes == changes {
            memory.names.put(bearer.clone(), device);
        }
        Ok(device)
    }

    /// Adds the device to the user that is there, or the user with it. Another one may be adding
    /// the same at this moment: then that one is found.
    async fn add_bearer(&self, bearer: &Bearer, adds: Adds) -> Result<Device, Code> {
        let user = self.directory.user(bearer.name.as_str()).await;
        let added = match user.map_err(|error| not_now(&error))? {
            Some(user) if user.disabled => return Err(Code::UserDisabled),
            Some(_) if adds >= Adds::Devices => self.add_device_of(bearer).await,
            None if adds == Adds::Users => {
                match self.directory.add_user(&bearer.name, now(), &new(bearer)).await {
                    Err(DirectoryError::NameTaken(_)) => self.add_device_of(bearer).await,
                    added => added,
                }
            }
            _ => return Err(Code::BadCredentials),
        };
        match added {
            Ok(device) => Ok(device),
            Err(DirectoryError::TooManyDevices(_)) => Err(Code::TooManyDevices),
            Err(DirectoryError::LabelTaken(_)) => {
                self.find(bearer).await?.ok_or(Code::Busy) // renamed meanwhile
            }
            Err(error) => Err(not_now(&error)),
        }
    }

    async fn add_device_of(&self, bearer: &Bearer) -> Result<Device, DirectoryError> {
        let devices_max = self.limits.devices_per_user;
        let new = new(bearer);
        let added = self.directory.add_device(&bearer.name, now(), &new, devices_max).await?;
        Ok(added.0)
    }

    async fn find(&self, bearer: &Bearer) -> Result<Option<Device>, Code> {
        let found = self.directory.find(&bearer.name, &bearer.label).await;
        found.map_err(|error| not_now(&error))
    }
}

/// The bearer's device. Its secret is known to nobody: a token alone proves it, until the
/// operator gives it another secret.
fn new(bearer: &Bearer) -> NewDevice {
    NewDevice { label: Some(bearer.label.clone()), hash: Hash::of(&Secret::random()) }
}

#[cfg(test)]
mod tests;
