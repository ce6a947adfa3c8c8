//! Users and devices that the operator's tokens name: found in the directory, or added to it.

use tern_core::mail::Device;
use tern_protocol::Code;

use super::accounts::{not_now, now};
use super::token::Bearer;
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
        let device = self.device_of(&bearer, tokens.rules().adds).await?;
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
    async fn device_of(&self, bearer: &Bearer, adds: bool) -> Result<Device, Code> {
        if let Some(device) = self.memory().names.get(bearer.clone()) {
            return Ok(device);
        }
        let changes = self.memory().changes;
        let found = match self.find(bearer).await? {
            None if adds => Some(self.add_bearer(bearer).await?),
            found => found,
        };
        let device = found.ok_or(Code::BadCredentials)?;
        let mut memory = self.memory();
        if memory.changes == changes {
            memory.names.put(bearer.clone(), device);
        }
        Ok(device)
    }

    /// Adds the user, or the device to the user that is there. Another one may be adding the same
    /// at this moment: then that one is found.
    async fn add_bearer(&self, bearer: &Bearer) -> Result<Device, Code> {
        let Bearer { name, label } = bearer;
        // No secret is known to anyone: the token alone proves this device.
        let new = || NewDevice { label: Some(label.clone()), hash: Hash::of(&Secret::random()) };
        let devices_max = self.limits.devices_per_user;
        let mut added = self.directory.add_user(name, now(), &new()).await;
        if matches!(added, Err(DirectoryError::NameTaken(_))) {
            let device = self.directory.add_device(name, now(), &new(), devices_max).await;
            added = device.map(|(device, _)| device);
        }
        match added {
            Ok(device) => Ok(device),
            Err(DirectoryError::TooManyDevices(_)) => Err(Code::TooManyDevices),
            Err(DirectoryError::LabelTaken(_)) => {
                self.find(bearer).await?.ok_or(Code::Busy) // renamed meanwhile
            }
            Err(error) => Err(not_now(&error)),
        }
    }

    async fn find(&self, bearer: &Bearer) -> Result<Option<Device>, Code> {
        let found = self.directory.find(&bearer.name, &bearer.label).await;
        found.map_err(|error| not_now(&error))
    }
}

#[cfg(test)]
mod tests;
