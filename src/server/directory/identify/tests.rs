//! Who a token lets in, and whom it adds.

use std::sync::Arc;

use tern_protocol::{DeviceId, Uin};

use super::super::token::tests::issuer::{Issuer, claims_of, ed};
use super::super::token::tests::rules;
use super::super::token::{Rules, Tokens};
use super::super::{Limits, Sqlite};
use super::*;

/// A client that does not know its numbers.
const NOBODY: Device = Device { uin: Uin(0), device: DeviceId(0) };

struct Stage {
    issuer: Issuer,
    accounts: Accounts<Sqlite>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new(adds: Adds) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let issuer = Issuer::new();
        let tokens = Tokens::open(Rules { adds, ..rules(&issuer) }).expect("keys");
        let store = Sqlite::open(&folder.path().join("d")).await.expect("opened");
        let limits = Limits { devices_per_user: 3 };
        let accounts = Accounts::with_tokens(store, limits, Some(Arc::new(tokens)));
        Self { issuer, accounts, _folder: folder }
    }

    fn token(&self, user: &str, device: &str) -> String {
        self.issuer.sign(&ed(), &claims_of(user, device))
    }

    async fn login(&self, claimed: Device, user: &str, device: &str) -> Result<Device, Code> {
        self.accounts.identify(claimed, self.token(user, device).as_bytes()).await
    }
}

#[tokio::test]
async fn only_known_devices_unless_they_may_be_added() {
    let stage = Stage::new(Adds::Nothing).await;
    assert_eq!(stage.login(NOBODY, "ann", "phone").await, Err(Code::BadCredentials));
    let name = "ann".parse().expect("a name");
    let ann = stage.accounts.add_user(&name).await.expect("added").device;
    assert_eq!(stage.login(NOBODY, "ann", "phone").await, Err(Code::BadCredentials));
    assert_eq!(stage.login(NOBODY, "ann", "1").await, Ok(ann), "the device that was made by hand");
    assert_eq!(stage.accounts.directory().users().await.expect("read").len(), 1);
}

#[tokio::test]
async fn devices_alone_may_be_added() {
    let stage = Stage::new(Adds::Devices).await;
    assert_eq!(stage.login(NOBODY, "ann", "phone").await, Err(Code::BadCredentials));
    let ann = stage.accounts.add_user(&"ann".parse().expect("a name")).await.expect("added").device;
    let phone = stage.login(NOBODY, "ann", "phone").await.expect("added");
    assert_eq!((phone.uin, phone.device), (ann.uin, DeviceId(2)));
    stage.accounts.set_disabled("ann", true).await.expect("disabled");
    assert_eq!(stage.login(NOBODY, "ann", "tablet").await, Err(Code::UserDisabled));
    stage.accounts.set_disabled("ann", false).await.expect("enabled");
    let knows = Device { device: DeviceId(3), ..ann };
    assert_eq!(stage.login(knows, "ann", "tablet").await, Err(Code::BadCredentials));
    let devices = stage.accounts.directory().devices(None).await.expect("read");
    assert_eq!(devices.len(), 2, "who is refused is not added");
}

#[tokio::test]
async fn who_is_new_is_added_once_and_stays_who_it_is() {
    let stage = Stage::new(Adds::Users).await;
    let phone = stage.login(NOBODY, "ann", "phone").await.expect("added");
    let tablet = stage.login(NOBODY, "ann", "tablet").await.expect("added");
    let bob = stage.login(NOBODY, "bob", "phone").await.expect("added");
    assert_eq!((phone.uin, phone.device), (Uin(10_001), DeviceId(1)));
    assert_eq!((tablet.uin, tablet.device), (Uin(10_001), DeviceId(2)));
    assert_eq!((bob.uin, bob.device), (Uin(10_002), DeviceId(1)));
    for claimed in [NOBODY, phone, Device { uin: phone.uin, ..NOBODY }] {
        assert_eq!(stage.login(claimed, "ann", "phone").await, Ok(phone));
    }
    for claimed in [tablet, bob, Device { uin: Uin(9), ..NOBODY }] {
        let other = stage.login(claimed, "ann", "phone").await;
        assert_eq!(other, Err(Code::BadCredentials), "{claimed:?}");
    }
}

#[tokio::test]
async fn many_at_once_are_one_device() {
    let stage = Arc::new(Stage::new(Adds::Users).await);
    let logins: Vec<_> = (0..20)
        .map(|number| {
            let stage = Arc::clone(&stage);
            let device = ["phone", "tablet"][number % 2];
            tokio::spawn(async move { stage.login(NOBODY, "ann", device).await })
        })
        .collect();
    for login in logins {
        login.await.expect("no panic").expect("let in");
    }
    let devices = stage.accounts.directory().devices(None).await.expect("read");
    assert_eq!(devices.len(), 2);
}

#[tokio::test]
async fn tokens_do_not_go_round_what_the_operator_shut() {
    let stage = Stage::new(Adds::Users).await;
    let phone = stage.login(NOBODY, "ann", "phone").await.expect("added");
    stage.accounts.set_disabled("ann", true).await.expect("disabled");
    assert_eq!(stage.login(NOBODY, "ann", "phone").await, Err(Code::UserDisabled));
    stage.accounts.set_disabled("ann", false).await.expect("enabled");
    assert_eq!(stage.login(NOBODY, "ann", "phone").await, Ok(phone));
    stage.accounts.revoke("ann", "phone").await.expect("revoked");
    assert_eq!(stage.login(NOBODY, "ann", "phone").await, Err(Code::DeviceRevoked));
    for device in ["a", "b", "c"] {
        stage.login(NOBODY, "ann", device).await.expect("three that are not revoked");
    }
    assert_eq!(stage.login(NOBODY, "ann", "d").await, Err(Code::TooManyDevices));
    assert_eq!(stage.login(NOBODY, "../x", "d").await, Err(Code::TokenInvalid));
}

#[tokio::test]
async fn names_are_looked_up_again_after_a_change() {
    let stage = Stage::new(Adds::Users).await;
    let phone = stage.login(NOBODY, "ann", "phone").await.expect("added");
    let to = "anna".parse().expect("a name");
    stage.accounts.rename_user("ann", &to).await.expect("renamed");
    assert_eq!(stage.login(NOBODY, "anna", "phone").await, Ok(phone));
    let other = stage.login(NOBODY, "ann", "phone").await.expect("added");
    assert_ne!(other.uin, phone.uin, "the old name is another user's now");
    let tablet = "tablet".parse().expect("a label");
    stage.accounts.rename_device("anna", "phone", &tablet).await.expect("renamed");
    assert_eq!(stage.login(NOBODY, "anna", "tablet").await, Ok(phone));
}
