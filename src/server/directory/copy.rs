//! Backups of the directory: a copy while others use it, and the jump of a restored one.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::sqlite::make_private;
use super::{DirectoryError, Sqlite};

/// Users that may have been added after a backup: their numbers are left out. Far above what
/// anybody adds between two backups, and nothing of the 2^63 that there are.
const UINS_LEFT_OUT: u64 = 1_000_000;

/// Devices of each user that may have been added after a backup: far above what one user adds,
/// and nothing of the 2^32 that there are.
const DEVICES_LEFT_OUT: u64 = 1_000;

/// How far the numbers of a restored directory went ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Jump {
    /// Numbers of users that are left out.
    pub uins: u64,
    /// Numbers of devices that are left out for each user.
    pub devices: u64,
}

impl Sqlite {
    /// Copies the file `from`, as one transaction sees it, into a new one, for its owner only; the
    /// copy is checked. Others may use `from` meanwhile.
    ///
    /// # Errors
    /// When the store refuses, or the copy is damaged.
    pub async fn copy(from: &Path, to: &Path) -> Result<(), DirectoryError> {
        make_private(to).map_err(sqlx::Error::Io)?;
        let target = to.to_str().ok_or_else(|| {
            DirectoryError::Damaged(format!("the name {} is no text", to.display()))
        })?;
        let mut source = open(from).await?;
        sqlx::query("VACUUM INTO ?").bind(target).execute(&mut source).await?;
        source.close().await?;
        let mut copy = open(to).await?;
        let verdict: String =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut copy).await?;
        copy.close().await?;
        match verdict.as_str() {
            "ok" => std::fs::File::open(to)
                .and_then(|file| file.sync_all())
                .map_err(|error| sqlx::Error::Io(error).into()),
            wrong => Err(DirectoryError::Damaged(wrong.to_owned())),
        }
    }

    /// Leaves out the numbers that may have been given after the copy was made.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn jump_ahead(path: &Path) -> Result<Jump, DirectoryError> {
        let jump = Jump { uins: UINS_LEFT_OUT, devices: DEVICES_LEFT_OUT };
        let store = Self::open(path).await?;
        let mut write = store.write().await?;
        sqlx::query("UPDATE numbers SET last = last + ? WHERE kind = 'uin'")
            .bind(super::to_column(jump.uins))
            .execute(&mut *write)
            .await?;
        sqlx::query("UPDATE users SET device_last = device_last + ?")
            .bind(super::to_column(jump.devices))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        super::Directory::close(&store).await;
        Ok(jump)
    }
}

async fn open(path: &Path) -> Result<SqliteConnection, DirectoryError> {
    let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
    Ok(options.connect().await?)
}

#[cfg(test)]
mod tests {
    use super::super::{Directory, Hash, NewDevice, Secret};
    use super::*;
    use tern_protocol::UnixMillis;

    fn new() -> NewDevice {
        NewDevice { label: None, hash: Hash::of(&Secret::random()) }
    }

    #[tokio::test]
    async fn a_copy_is_as_of_one_moment_and_jumps() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let store = Sqlite::open(&from).await.expect("made");
        let (ann, bob) = ("ann".parse().expect("a name"), "bob".parse().expect("a name"));
        store.add_user(&ann, UnixMillis(1), &new()).await.expect("added");
        Sqlite::copy(&from, &to).await.expect("copied while it is open");
        let later = store.add_user(&bob, UnixMillis(1), &new()).await.expect("added");
        let (second, _) = store.add_device(&ann, UnixMillis(1), &new(), 100).await.expect("added");
        Sqlite::copy(&from, &to).await.expect_err("it is there");

        let jump = Sqlite::jump_ahead(&to).await.expect("jumped");
        let copy = Sqlite::open(&to).await.expect("opened");
        assert!(copy.user("bob").await.expect("read").is_none(), "added after the copy");
        let user = copy.user("ann").await.expect("read").expect("there");
        assert_eq!(user.devices, 1, "left out is not added");
        let again = copy.add_user(&bob, UnixMillis(1), &new()).await.expect("added");
        assert_eq!(again.uin.0, later.uin.0 + jump.uins);
        let (device, _) = copy.add_device(&ann, UnixMillis(1), &new(), 100).await.expect("added");
        assert_eq!(u64::from(device.device.0), u64::from(second.device.0) + jump.devices);
    }
}
