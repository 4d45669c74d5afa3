//! Registers in Postgres.
//!
//! A swap is one statement: the value changes where its version is the expected one, and the change is written down with it, so that
//! nothing can come between. What is visible to others was committed, and is as durable as every other answer of these stores.

use std::time::SystemTime;

use bytes::Bytes;
use eb_contract::stores::{
    REGISTER_HISTORY, RegisterChange, RegisterStore, Versioned, check_swap, version_conflict,
};
use eb_contract::{BoxFuture, Error, ErrorKind, RegisterName, Result};

use crate::config::PgConfig;
use crate::db::Db;
use crate::error::Step;
use crate::migrate;
use crate::position::corrupt;
use crate::text::{escape, unescape};
use crate::time::from_system;

const LOAD: &str = "load register";
const SWAP: &str = "swap register";
const HISTORY: &str = "read register history";
const PROBE: &str = "probe registers";

/// Registers in a Postgres schema. Cloning is cheap and shares the connections.
///
/// Where the answer of a swap is lost the error's effect is [`Unknown`](eb_contract::Effect::Unknown).
#[derive(Clone)]
pub struct PgRegisterStore {
    db: Db,
}

impl PgRegisterStore {
    /// Connects, and brings the schema to this program's version; as
    /// [`PgCheckpointStore::open`](crate::PgCheckpointStore::open).
    ///
    /// # Errors
    /// As there.
    pub async fn open(config: &PgConfig) -> Result<Self> {
        let db = Db::open(config, "").await?;
        migrate::ensure(&db, config.migrations).await?;
        Ok(Self { db })
    }

    /// Closes the connections that are not in use, and each other one when its call ends. Later calls are `Closed`.
    pub fn close(&self) {
        self.db.close();
    }

    async fn read(&self, name: &RegisterName) -> Result<Option<Versioned>> {
        let sql = format!("SELECT version, value FROM {}.registers WHERE name = $1", self.db.schema());
        let mut connection = self.db.connection(LOAD).await?;
        let rows = connection.rows(Step::Harmless, &sql, &[&name.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Versioned {
            version: self.version(LOAD, row.get(0))?,
            value: row.get::<_, Vec<u8>>(1).into(),
        }))
    }

    fn version(&self, op: &'static str, version: i64) -> Result<u64> {
        u64::try_from(version).map_err(|_| corrupt(op, self.db.place(), "a version"))
    }

    async fn replace(
        &self,
        name: &RegisterName,
        expected: u64,
        value: Bytes,
        reason: &str,
    ) -> Result<Versioned> {
        check_swap(name, &value, reason)?;
        let schema = self.db.schema();
        let keep = REGISTER_HISTORY;
        // With an expected version of 0 a row is made, unless there is one; else the row of that version is changed.
        let sql = format!(
            "WITH made AS ( \
               INSERT INTO {schema}.registers (name, version, value) \
               SELECT $1::text, 1::int8, $3::bytea WHERE $2::int8 = 0 ON CONFLICT (name) DO NOTHING RETURNING version), \
             changed AS ( \
               UPDATE {schema}.registers SET version = version + 1, value = $3::bytea \
               WHERE name = $1::text AND version = $2::int8 AND $2::int8 > 0 RETURNING version), \
             swapped AS (SELECT version FROM made UNION ALL SELECT version FROM changed), \
             forgotten AS ( \
               DELETE FROM {schema}.register_changes c USING swapped s \
               WHERE c.name = $1::text AND c.version <= s.version - {keep}) \
             INSERT INTO {schema}.register_changes (name, version, reason, changed_at) \
             SELECT $1::text, version, $4::text, clock_timestamp() FROM swapped RETURNING version"
        );
        // No register has a version beyond this: it then conflicts as any other wrong one does.
        let of = i64::try_from(expected).unwrap_or(i64::MAX);
        let (bytes, reason) = (value.as_ref(), escape(reason));
        let mut connection = self.db.connection(SWAP).await?;
        let rows = connection.rows(Step::Commit, &sql, &[&name.as_str(), &of, &bytes, &reason]).await?;
        drop(connection);
        match rows.first() {
            Some(row) => Ok(Versioned { version: self.version(SWAP, row.get(0))?, value }),
            None => {
                let current = self.read(name).await?.map_or(0, |v| v.version);
                Err(version_conflict(name, expected, current))
            }
        }
    }

    async fn changes(&self, name: &RegisterName, max: usize) -> Result<Vec<RegisterChange>> {
        let sql = format!(
            "SELECT version, changed_at, reason FROM {}.register_changes WHERE name = $1 \
             ORDER BY version DESC LIMIT $2",
            self.db.schema()
        );
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let mut connection = self.db.connection(HISTORY).await?;
        let rows = connection.rows(Step::Harmless, &sql, &[&name.as_str(), &max]).await?;
        let place = self.db.place();
        let read = rows.iter().map(|row| {
            let at: SystemTime = row.get(1);
            let reason: &str = row.get(2);
            Ok(RegisterChange {
                version: self.version(HISTORY, row.get(0))?,
                at: from_system(HISTORY, place, at)?,
                reason: unescape(reason).ok_or_else(|| corrupt(HISTORY, place, "a reason"))?,
            })
        });
        read.collect()
    }

    async fn check(&self) -> Result<()> {
        let schema = self.db.schema();
        let sql = format!(
            "SELECT pg_is_in_recovery(), has_table_privilege('{schema}.registers', 'SELECT, INSERT, UPDATE') \
             AND has_table_privilege('{schema}.register_changes', 'SELECT, INSERT, DELETE')"
        );
        let mut connection = self.db.connection(PROBE).await?;
        let rows = connection.rows(Step::Harmless, &sql, &[]).await?;
        let (kind, what, advice) =
            match rows.first().map(|row| (row.get::<_, bool>(0), row.get::<_, bool>(1))) {
                Some((false, true)) => return Ok(()),
                Some((false, false)) => (
                    ErrorKind::InvalidInput,
                    "the database user may not write registers",
                    "grant it the rights that SCHEMA.md lists",
                ),
                _ => (ErrorKind::Unavailable, "the database is read only", "use the address of the primary"),
            };
        Err(Error::new(kind, PROBE, what).at(self.db.place()).advise(advice))
    }
}

impl std::fmt::Debug for PgRegisterStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PgRegisterStore").field(&self.db.place()).finish()
    }
}

impl RegisterStore for PgRegisterStore {
    fn load<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Versioned>>> {
        Box::pin(self.read(name))
    }

    fn swap<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: u64,
        value: Bytes,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Versioned>> {
        Box::pin(self.replace(name, expected, value, reason))
    }

    fn history<'a>(
        &'a self,
        name: &'a RegisterName,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<RegisterChange>>> {
        Box::pin(self.changes(name, max))
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.check())
    }
}
