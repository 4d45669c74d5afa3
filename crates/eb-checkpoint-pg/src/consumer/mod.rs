//! What the workers of consumers share: leases, marks, dead letters.

mod leases;
mod letters;
mod processed;
mod transaction;

pub use leases::PgLeases;
pub use letters::PgDeadLetters;
pub use processed::PgProcessed;
pub use transaction::PgTransaction;

use eb_contract::{Error, ErrorKind, Result};

use crate::db::Db;
use crate::error::Step;

/// Whether the tables can be written to, by rights and by the server's state.
async fn probe(db: &Db, op: &'static str, tables: &[&str]) -> Result<()> {
    let schema = db.schema();
    let rights: Vec<String> = tables
        .iter()
        .map(|t| format!("has_table_privilege('{schema}.{t}', 'SELECT, INSERT') AND has_table_privilege('{schema}.{t}', 'UPDATE, DELETE')"))
        .collect();
    let sql = format!(
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, {}",
        rights.join(" AND ")
    );
    let rows = db.connection(op).await?.rows(Step::Harmless, &sql, &[]).await?;
    let refuse =
        |kind, message: &str, advice: &str| Err(Error::new(kind, op, message).at(db.place()).advise(advice));
    match rows.first().map(|row| (row.get::<_, bool>(0), row.get::<_, bool>(1))) {
        Some((false, true)) => Ok(()),
        Some((false, false)) => refuse(
            ErrorKind::InvalidInput,
            "the database user may not write the tables of consumers",
            "grant it the rights that SCHEMA.md lists",
        ),
        _ => refuse(ErrorKind::Unavailable, "the database is read only", "use the address of the primary"),
    }
}
