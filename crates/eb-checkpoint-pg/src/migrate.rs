//! The schema's version: embedded steps, applied in one transaction by whoever comes first.
//!
//! - The steps that were applied are listed in the table `migrations` with the MD5 of their text. A listed step whose
//!   text differs, or that this program does not know, is another program's: `WrongVersion`, nothing is changed.
//! - All that are missing are applied in **one** transaction under an advisory lock of the schema's own: of several
//!   programs that open at once one applies them, the others wait and find them there. A crash leaves none or all.
//! - An up-to-date schema is found so by one read, without a lock and without rights to change anything.

use std::time::Duration;

use eb_contract::{Error, ErrorKind, Result};
use tokio_postgres::types::Type;

use crate::config::{Migrations, PgConfig};
use crate::db::{Connection, Db};
use crate::error::{Step, classify};

const OP: &str = "migrate database";

/// How long the steps may take, and how long to wait for another program that applies them.
const PATIENCE: Duration = Duration::from_secs(300);

/// A step, from one version to the next.
struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// All steps; the version is their number.
const ALL: &[Migration] = &[
    Migration { name: "0001_stores", sql: include_str!("../migrations/0001_stores.sql") },
    Migration { name: "0002_renewals", sql: include_str!("../migrations/0002_renewals.sql") },
    Migration { name: "0003_registers", sql: include_str!("../migrations/0003_registers.sql") },
    Migration { name: "0004_consumers", sql: include_str!("../migrations/0004_consumers.sql") },
    Migration { name: "0005_lease_reports", sql: include_str!("../migrations/0005_lease_reports.sql") },
];

/// What a look at a database has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// No table of ours is there.
    Missing,
    /// An older version's, which [`Migrations::Apply`] brings up to date.
    Older,
    /// This program's.
    Current,
}

/// Connects as the stores do and looks at the schema; changes nothing. Dropping the future leaves nothing behind.
///
/// # Errors
/// As [`PgCheckpointStore::open`](crate::PgCheckpointStore::open) with [`Migrations::Verify`], but for a schema that is
/// merely missing or older.
pub async fn check(config: &PgConfig) -> Result<SchemaState> {
    let db = Db::open(config, "").await?;
    let applied = applied(&mut db.connection(OP).await?, &db).await;
    db.close();
    Ok(match applied? {
        0 => SchemaState::Missing,
        n if n < ALL.len() => SchemaState::Older,
        _ => SchemaState::Current,
    })
}

/// Sees to it that the schema is there in this program's version.
pub(crate) async fn ensure(db: &Db, mode: Migrations) -> Result<()> {
    let mut connection = db.connection(OP).await?;
    let applied = applied(&mut connection, db).await?;
    match (applied == ALL.len(), mode) {
        (true, _) => Ok(()),
        (false, Migrations::Apply) => apply(&mut connection, db).await,
        (false, Migrations::Verify) => Err(Error::new(
            ErrorKind::WrongVersion,
            OP,
            format!("the schema has version {applied}, this program needs {}", ALL.len()),
        )
        .at(db.place())
        .advise("open the store once with migrations applied, by a user who may create tables")),
    }
}

/// How many steps are applied, all of them ours.
async fn applied(connection: &mut Connection, db: &Db) -> Result<usize> {
    if !exists(connection, db).await? {
        return Ok(0);
    }
    let sql = list(db.schema());
    let numbers: Vec<i32> = (1..).take(ALL.len()).collect();
    let texts: Vec<&str> = ALL.iter().map(|m| m.sql).collect();
    let rows = connection.rows(Step::Harmless, &sql, &[&numbers, &texts]).await?;
    for row in &rows {
        let (version, name, ours): (i32, String, bool) = (row.get(0), row.get(1), row.get(2));
        if !ours {
            return Err(foreign(db, version, &name));
        }
    }
    Ok(rows.len())
}

fn foreign(db: &Db, version: i32, name: &str) -> Error {
    Error::new(
        ErrorKind::WrongVersion,
        OP,
        format!("the schema's step {version} ({name}) is not one that this program knows: another version has made it"),
    )
    .at(db.place())
    .advise("use the program version that made the schema, or a newer one")
}

/// The steps that were applied, each with whether it is ours.
fn list(schema: &str) -> String {
    format!(
        "SELECT m.version, m.name, i.step IS NOT NULL AND m.md5 = md5(i.step) \
         FROM {schema}.migrations m LEFT JOIN unnest($1::int4[], $2::text[]) i(version, step) USING (version) \
         ORDER BY m.version"
    )
}

async fn exists(connection: &mut Connection, db: &Db) -> Result<bool> {
    let name = format!("{}.migrations", db.schema());
    let rows = connection.rows(Step::Harmless, "SELECT to_regclass($1::text) IS NOT NULL", &[&name]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Applies what is missing. Dropping the future applies none of it.
async fn apply(connection: &mut Connection, db: &Db) -> Result<()> {
    let schema = db.schema();
    let place = db.place();
    let harmless = |e| classify(OP, place, Step::Harmless, e);
    let transaction = connection.transaction().await?;
    let patience = PATIENCE.as_millis();
    let wait = format!("SET LOCAL lock_timeout = {patience}; SET LOCAL statement_timeout = {patience}");
    transaction.batch_execute(&wait).await.map_err(harmless)?;
    // The namespace of the event bus, and the schema within it.
    let lock = "SELECT pg_advisory_xact_lock(1163018068, hashtext($1))";
    transaction.query_typed(lock, &[(&schema, Type::TEXT)]).await.map_err(harmless)?;
    // Only where it is missing: who may use a schema may not always create one.
    let there = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    let rows = transaction.query_typed(there, &[(&schema, Type::TEXT)]).await.map_err(harmless)?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        transaction.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(harmless)?;
    }
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {schema}.migrations (\
         version int PRIMARY KEY, name text NOT NULL, md5 text NOT NULL, applied_at timestamptz NOT NULL)"
    );
    transaction.batch_execute(&table).await.map_err(harmless)?;
    // What another program has applied while this one waited for the lock.
    let numbers: Vec<i32> = (1..).take(ALL.len()).collect();
    let texts: Vec<&str> = ALL.iter().map(|m| m.sql).collect();
    let rows = transaction
        .query_typed(&list(schema), &[(&numbers, Type::INT4_ARRAY), (&texts, Type::TEXT_ARRAY)])
        .await
        .map_err(harmless)?;
    if let Some(row) = rows.iter().find(|row| !row.get::<_, bool>(2)) {
        return Err(foreign(db, row.get(0), row.get(1)));
    }
    let insert = format!(
        "INSERT INTO {schema}.migrations (version, name, md5, applied_at) \
         VALUES ($1, $2, md5($3), clock_timestamp())"
    );
    for (number, migration) in (1i32..).zip(ALL).skip(rows.len()) {
        transaction.batch_execute(&migration.sql.replace("{schema}", schema)).await.map_err(harmless)?;
        let step: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&number, Type::INT4), (&migration.name, Type::TEXT), (&migration.sql, Type::TEXT)];
        transaction.query_typed(&insert, &step).await.map_err(harmless)?;
        tracing::info!(schema, step = migration.name, "database schema migrated");
    }
    // If the answer is lost, the next open finds out.
    transaction.commit().await.map_err(harmless)
}
