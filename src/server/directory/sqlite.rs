//! The directory in a SQLite file beside the logs.
//!
//! The statements are plain SQL, so that another adapter differs in its connection, in how it
//! begins a writing transaction, and (PostgreSQL) in how it spells parameters. Commits are synced
//! before they return: a revoked device must not come back after a power cut.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, Sqlite as Engine, Transaction};
use tern_core::mail::Device;
use tern_protocol::{Uin, UnixMillis};

use super::{
    Credential, DeviceEntry, Directory, DirectoryError, Hash, Label, Name, NewDevice, Standing,
    User, device_from, to_column, uin_from,
};
use crate::folder::FILE_MODE;

/// Connections, each a thread of SQLite's: more reads at once than this gain nothing on one file.
const CONNECTIONS_MAX: u32 = 4;

/// SQLite's door to files that keeps the index of the write-ahead log in memory of this process,
/// where others map a file: on a full disk of some kinds a store into that mapping ends the
/// process. Only one process has the folder, so nobody else needs the index.
const FILE_SYSTEM: &str = "unix-excl";

/// How long a statement waits for another's write, in seconds: far above any write of ours.
const BUSY_SECONDS_MAX: u64 = 10;

static MIGRATIONS: Migrator = sqlx::migrate!("directory/migrations");

/// The directory's file, open.
#[derive(Clone, Debug)]
pub struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens the file, made if absent, and brings its tables up to this version.
    ///
    /// # Errors
    /// When it can't be opened, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, DirectoryError> {
        make_private(path).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .vfs(FILE_SYSTEM)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(BUSY_SECONDS_MAX))
            .disable_statement_logging();
        let pool =
            SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
        MIGRATIONS.run(&pool).await.map_err(DirectoryError::Tables)?;
        Ok(Self { pool })
    }

    /// Begins a transaction that will write: taking the write lock at once, since a reader that
    /// turns writer could find another before it.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Engine>, DirectoryError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

impl Directory for Sqlite {
    async fn add_user(
        &self,
        name: &Name,
        now: UnixMillis,
        first: &NewDevice,
    ) -> Result<Device, DirectoryError> {
        let mut write = self.write().await?;
        let uin: i64 = next_uin(&mut write).await?;
        sqlx::query(
            "INSERT INTO users (uin, name, disabled, created_ms, device_last) \
             VALUES (?, ?, 0, ?, 0)",
        )
        .bind(uin)
        .bind(name.as_str())
        .bind(to_column(now.0))
        .execute(&mut *write)
        .await
        .map_err(|error| taken(error, || DirectoryError::NameTaken(name.to_string())))?;
        let (device, _) = insert_device(&mut write, uin, now, first).await?;
        write.commit().await?;
        Ok(device)
    }

    async fn add_device(
        &self,
        name: &Name,
        now: UnixMillis,
        new: &NewDevice,
        devices_max: u32,
    ) -> Result<(Device, String), DirectoryError> {
        let mut write = self.write().await?;
        let uin: Option<i64> = sqlx::query_scalar("SELECT uin FROM users WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&mut *write)
            .await?;
        let uin = uin.ok_or_else(|| DirectoryError::NoUser(name.to_string()))?;
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM devices WHERE uin = ? AND revoked = 0")
                .bind(uin)
                .fetch_one(&mut *write)
                .await?;
        if count >= i64::from(devices_max) {
            return Err(DirectoryError::TooManyDevices(devices_max));
        }
        let added = insert_device(&mut write, uin, now, new).await?;
        write.commit().await?;
        Ok(added)
    }

    async fn users(&self) -> Result<Vec<User>, DirectoryError> {
        let rows = sqlx::query(
            "SELECT uin, name, disabled, created_ms, \
             (SELECT COUNT(*) FROM devices d WHERE d.uin = u.uin) AS devices \
             FROM users u ORDER BY uin",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(user).collect()
    }

    async fn user(&self, name: &str) -> Result<Option<User>, DirectoryError> {
        let row = sqlx::query(
            "SELECT uin, name, disabled, created_ms, \
             (SELECT COUNT(*) FROM devices d WHERE d.uin = u.uin) AS devices \
             FROM users u WHERE name = ?",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(user).transpose()
    }

    async fn exists(&self, uin: Uin) -> Result<bool, DirectoryError> {
        let row = sqlx::query("SELECT uin FROM users WHERE uin = ?")
            .bind(to_column(uin.0))
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    async fn devices(&self, uin: Option<Uin>) -> Result<Vec<DeviceEntry>, DirectoryError> {
        let query = match uin {
            Some(uin) => sqlx::query(
                "SELECT u.name, d.uin, d.device, d.label, d.revoked, d.created_ms, \
                 d.last_login_ms \
                 FROM devices d JOIN users u ON u.uin = d.uin \
                 WHERE d.uin = ? ORDER BY d.device",
            )
            .bind(to_column(uin.0)),
            None => sqlx::query(
                "SELECT u.name, d.uin, d.device, d.label, d.revoked, d.created_ms, \
                 d.last_login_ms \
                 FROM devices d JOIN users u ON u.uin = d.uin ORDER BY d.uin, d.device",
            ),
        };
        query.fetch_all(&self.pool).await?.iter().map(device).collect()
    }

    async fn find(&self, name: &Name, label: &Label) -> Result<Option<Device>, DirectoryError> {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT d.uin, d.device FROM devices d JOIN users u ON u.uin = d.uin \
             WHERE u.name = ? AND d.label = ?",
        )
        .bind(name.as_str())
        .bind(label.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some((uin, device)) = row else { return Ok(None) };
        Ok(Some(Device { uin: uin_from(uin)?, device: device_from(device)? }))
    }

    async fn credential(&self, device: Device) -> Result<Option<Credential>, DirectoryError> {
        // A device that is not there has a row too, so that it takes as long to find out.
        let (salt, hash) = Hash::of_nobody().to_hex();
        let row = sqlx::query(
            "SELECT 0 AS nobody, d.salt, d.secret_hash, d.revoked, u.disabled \
             FROM devices d JOIN users u ON u.uin = d.uin WHERE d.uin = ? AND d.device = ? \
             UNION ALL SELECT 1, ?, ?, 0, 0 ORDER BY nobody LIMIT 1",
        )
        .bind(to_column(device.uin.0))
        .bind(i64::from(device.device.0))
        .bind(salt)
        .bind(hash)
        .fetch_one(&self.pool)
        .await?;
        let (credential, nobody) = (credential(&row)?, row.try_get::<i64, _>("nobody")?);
        Ok((nobody == 0).then_some(credential))
    }

    async fn set_disabled(&self, uin: Uin, disabled: bool) -> Result<(), DirectoryError> {
        sqlx::query("UPDATE users SET disabled = ? WHERE uin = ?")
            .bind(i64::from(disabled))
            .bind(to_column(uin.0))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn rename_user(&self, uin: Uin, name: &Name) -> Result<(), DirectoryError> {
        sqlx::query("UPDATE users SET name = ? WHERE uin = ?")
            .bind(name.as_str())
            .bind(to_column(uin.0))
            .execute(&self.pool)
            .await
            .map_err(|error| taken(error, || DirectoryError::NameTaken(name.to_string())))?;
        Ok(())
    }

    async fn rename_device(&self, device: Device, label: &Label) -> Result<(), DirectoryError> {
        sqlx::query("UPDATE devices SET label = ? WHERE uin = ? AND device = ?")
            .bind(label.as_str())
            .bind(to_column(device.uin.0))
            .bind(i64::from(device.device.0))
            .execute(&self.pool)
            .await
            .map_err(|error| taken(error, || DirectoryError::LabelTaken(label.to_string())))?;
        Ok(())
    }

    async fn set_secret(&self, device: Device, hash: &Hash) -> Result<(), DirectoryError> {
        let (salt, hash) = hash.to_hex();
        sqlx::query("UPDATE devices SET salt = ?, secret_hash = ? WHERE uin = ? AND device = ?")
            .bind(salt)
            .bind(hash)
            .bind(to_column(device.uin.0))
            .bind(i64::from(device.device.0))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn note_logins(&self, logins: &[(Device, UnixMillis)]) -> Result<(), DirectoryError> {
        let mut write = self.write().await?;
        for (device, at) in logins {
            sqlx::query("UPDATE devices SET last_login_ms = ? WHERE uin = ? AND device = ?")
                .bind(to_column(at.0))
                .bind(to_column(device.uin.0))
                .bind(i64::from(device.device.0))
                .execute(&mut *write)
                .await?;
        }
        Ok(write.commit().await?)
    }

    async fn revoke(&self, device: Device) -> Result<(), DirectoryError> {
        sqlx::query("UPDATE devices SET revoked = 1 WHERE uin = ? AND device = ?")
            .bind(to_column(device.uin.0))
            .bind(i64::from(device.device.0))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// Makes the file if absent, for its owner only; SQLite's own files beside it get the same mode.
pub(super) fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).open(path).map(drop)
}

async fn next_uin(write: &mut Transaction<'static, Engine>) -> Result<i64, DirectoryError> {
    sqlx::query("UPDATE numbers SET last = last + 1 WHERE kind = 'uin'")
        .execute(&mut **write)
        .await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT last FROM numbers WHERE kind = 'uin'")
        .fetch_optional(&mut **write)
        .await?;
    last.ok_or_else(|| DirectoryError::Damaged("the last uin is not known".to_owned()))
}

/// Adds a device under the user's next number.
async fn insert_device(
    write: &mut Transaction<'static, Engine>,
    uin: i64,
    now: UnixMillis,
    new: &NewDevice,
) -> Result<(Device, String), DirectoryError> {
    sqlx::query("UPDATE users SET device_last = device_last + 1 WHERE uin = ?")
        .bind(uin)
        .execute(&mut **write)
        .await?;
    let number: i64 = sqlx::query_scalar("SELECT device_last FROM users WHERE uin = ?")
        .bind(uin)
        .fetch_one(&mut **write)
        .await?;
    let label = new.label.as_ref().map_or_else(|| number.to_string(), ToString::to_string);
    let (salt, hash) = new.hash.to_hex();
    sqlx::query(
        "INSERT INTO devices (uin, device, label, salt, secret_hash, revoked, created_ms) \
         VALUES (?, ?, ?, ?, ?, 0, ?)",
    )
    .bind(uin)
    .bind(number)
    .bind(&label)
    .bind(salt)
    .bind(hash)
    .bind(to_column(now.0))
    .execute(&mut **write)
    .await
    .map_err(|error| taken(error, || DirectoryError::LabelTaken(label.clone())))?;
    Ok((Device { uin: uin_from(uin)?, device: device_from(number)? }, label))
}

fn taken(error: sqlx::Error, taken: impl FnOnce() -> DirectoryError) -> DirectoryError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => taken(),
        _ => DirectoryError::Store(error),
    }
}

fn user(row: &SqliteRow) -> Result<User, DirectoryError> {
    Ok(User {
        uin: uin_from(row.try_get("uin")?)?.0,
        name: row.try_get("name")?,
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        devices: device_from(row.try_get("devices")?)?.0,
        created_ms: row.try_get::<i64, _>("created_ms")?.max(0).cast_unsigned(),
    })
}

fn device(row: &SqliteRow) -> Result<DeviceEntry, DirectoryError> {
    Ok(DeviceEntry {
        name: row.try_get("name")?,
        uin: uin_from(row.try_get("uin")?)?.0,
        device: device_from(row.try_get("device")?)?.0,
        label: row.try_get("label")?,
        revoked: row.try_get::<i64, _>("revoked")? != 0,
        created_ms: row.try_get::<i64, _>("created_ms")?.max(0).cast_unsigned(),
        last_login_ms: row.try_get::<i64, _>("last_login_ms")?.max(0).cast_unsigned(),
    })
}

fn credential(row: &SqliteRow) -> Result<Credential, DirectoryError> {
    let revoked = row.try_get::<i64, _>("revoked")? != 0;
    let disabled = row.try_get::<i64, _>("disabled")? != 0;
    let hash = Hash::from_hex(row.try_get("salt")?, row.try_get("secret_hash")?)
        .map_err(|error| DirectoryError::Damaged(format!("a secret's hash: {error}")))?;
    let standing = match (revoked, disabled) {
        (true, _) => Standing::Revoked,
        (false, true) => Standing::Disabled,
        (false, false) => Standing::Good,
    };
    Ok(Credential { hash, standing })
}

#[cfg(test)]
mod tests;
