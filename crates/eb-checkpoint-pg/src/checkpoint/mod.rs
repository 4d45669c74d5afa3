//! Consumer checkpoints in Postgres.

mod row;
mod rules;
mod sql;
mod write;

use std::sync::Arc;
use std::time::SystemTime;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{BoxFuture, ConsumerName, Cut, Error, ErrorKind, PartitionId, Result, Timestamp, Topic};

use crate::config::PgConfig;
use crate::db::Db;
use crate::error::{Step, invalid};
use crate::migrate;
use crate::position::{corrupt, cut};
use crate::text::unescape;
use crate::time::from_system;
use sql::Sql;

const OP_COMMIT: &str = "commit checkpoint";
const OP_LOAD: &str = "load checkpoint";
const OP_LIST: &str = "list checkpoints";
const OP_RESET: &str = "reset checkpoint";
const OP_PROBE: &str = "probe checkpoints";

/// What a reset left behind for the record.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetHistory {
    /// Where the checkpoint stood; `None` when there was none.
    pub from: Option<Cut>,
    /// Where it was set to.
    pub to: Cut,
    /// Why.
    pub reason: String,
    /// When, by the database's clock.
    pub at: Timestamp,
}

/// Checkpoints in a Postgres schema. Cloning is cheap and shares the connections.
///
/// A commit of several checkpoints is one transaction: all or none. A commit of one is one statement; its rules are
/// part of it, so that nothing can come between the look and the change. Where it was refused, a transaction
/// that locks the row says why.
///
/// Of several reasons to refuse a commit the first of these is answered: `InvalidInput`, `Fenced`, `WrongIncarnation`,
/// `VersionConflict`, `BackwardCommit`.
///
/// # When the answer is lost
/// The connection breaks, or the client's patience ends, after the server was told to commit: the error's effect is
/// [`Unknown`](eb_contract::Effect::Unknown). [`CheckpointStore::load`] tells: the checkpoint is the one committed
/// (cut, lease and version + 1), or the former one.
#[derive(Clone)]
pub struct PgCheckpointStore {
    db: Db,
    sql: Arc<Sql>,
}

impl PgCheckpointStore {
    /// Connects, and brings the schema to this program's version (or checks it, see
    /// [`Migrations`](crate::Migrations)). A crash or a dropped future leaves the schema as it was, or complete.
    ///
    /// # Errors
    /// When the address or schema name is unusable, the server cannot be reached, is unsafe, or refuses; `WrongVersion`
    /// where the schema is another program's.
    pub async fn open(config: &PgConfig) -> Result<Self> {
        let db = Db::open(config, "").await?;
        migrate::ensure(&db, config.migrations).await?;
        let sql = Arc::new(Sql::of(db.schema()));
        Ok(Self { db, sql })
    }

    /// The connections, for a consumer whose own tables lie in the same database: begin a transaction on one of them,
    /// write, [`commit_in`](Self::commit_in), commit.
    #[must_use]
    pub fn pool(&self) -> &deadpool_postgres::Pool {
        self.db.pool()
    }

    /// Commits checkpoints **within the caller's transaction**: they become durable when, and only if, the caller
    /// commits it. So a consumer's own writes and its checkpoint are one.
    ///
    /// The rules and the answers are those of [`CheckpointStore::commit`], all or none. After any `Err` roll the
    /// transaction back: of the checkpoints nothing was written, and what else it wrote belongs to a cut that is not
    /// stored. The rows stay locked until the transaction ends, so end it soon. The transaction's isolation should
    /// be READ COMMITTED (the default); stricter ones work, and answer conflicts with a retryable `Unavailable`.
    ///
    /// Dropping the future leaves the transaction to be rolled back.
    ///
    /// A transaction of any `tokio_postgres` client will do, `deadpool_postgres`'s too (by `&*transaction`). Its
    /// database must be this store's.
    pub async fn commit_in(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        checkpoints: &[Checkpoint],
        lease: &Lease,
    ) -> Vec<Result<Checkpoint>> {
        write::commit_all(&self.sql, self.db.place(), transaction, checkpoints, lease).await
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// As [`PgCheckpointStore::commit_in`], of one checkpoint, in whatever transaction the client is in.
    pub(crate) async fn commit_step(
        &self,
        client: &impl tokio_postgres::GenericClient,
        checkpoint: &Checkpoint,
        lease: &Lease,
    ) -> Result<Checkpoint> {
        let one = std::slice::from_ref(checkpoint);
        let answer = write::commit_all(&self.sql, self.db.place(), client, one, lease).await.pop();
        answer.unwrap_or_else(|| Err(rules::not_attempted(checkpoint)))
    }

    /// The resets of a checkpoint, oldest first. All are kept; old ones may be deleted from the table at will.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn history(
        &self,
        consumer: &ConsumerName,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<Vec<ResetHistory>> {
        const OP: &str = "read resets";
        let mut connection = self.db.connection(OP).await?;
        let number = i64::from(partition.0);
        let (consumer, topic) = (consumer.as_str(), topic.as_str());
        let rows = connection.rows(Step::Harmless, &self.sql.history, &[&consumer, &topic, &number]).await?;
        let place = self.db.place();
        let read = rows.iter().map(|row| {
            let from: Option<&str> = row.get(0);
            let at: SystemTime = row.get(7);
            let reason: &str = row.get(6);
            Ok(ResetHistory {
                from: from.map(|t| cut(OP, place, t, row.get(1), row.get(2))).transpose()?,
                to: cut(OP, place, row.get(3), row.get(4), row.get(5))?,
                reason: unescape(reason).ok_or_else(|| corrupt(OP, place, "a reason"))?,
                at: from_system(OP, place, at)?,
            })
        });
        read.collect()
    }

    /// Closes the connections that are not in use, and each other one when its call ends. Later calls are `Closed`.
    pub fn close(&self) {
        self.db.close();
    }
}

impl std::fmt::Debug for PgCheckpointStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PgCheckpointStore").field(&self.db.place()).finish()
    }
}

impl CheckpointStore for PgCheckpointStore {
    fn load<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        Box::pin(async move {
            let mut connection = self.db.connection(OP_LOAD).await?;
            let number = i64::from(partition.0);
            let (consumer, topic) = (consumer.as_str(), topic.as_str());
            let rows = connection.rows(Step::Harmless, &self.sql.load, &[&consumer, &topic, &number]).await?;
            rows.first().map(|row| row::checkpoint(OP_LOAD, self.db.place(), row)).transpose()
        })
    }

    fn commit<'a>(
        &'a self,
        checkpoints: &'a [Checkpoint],
        lease: &'a Lease,
    ) -> BoxFuture<'a, Vec<Result<Checkpoint>>> {
        Box::pin(async move {
            match checkpoints {
                [] => Vec::new(),
                [one] => vec![self.commit_one(one, lease).await],
                all => self.commit_many(all, lease).await,
            }
        })
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<Checkpoint>>> {
        Box::pin(async move {
            let mut connection = self.db.connection(OP_LIST).await?;
            let consumer = consumer.map(ConsumerName::as_str);
            let rows = connection.rows(Step::Harmless, &self.sql.list, &[&consumer]).await?;
            rows.iter().map(|row| row::checkpoint(OP_LIST, self.db.place(), row)).collect()
        })
    }

    fn reset<'a>(&'a self, request: &'a ResetRequest) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(async move {
            let place = format!("{} {}/{}", request.consumer, request.topic, request.partition_id);
            if request.reason.trim().is_empty() {
                return Err(invalid(OP_RESET, "a reset needs a reason").at(place));
            }
            if request.reason.chars().count() > 1024 {
                return Err(invalid(OP_RESET, "a reason has at most 1,024 characters").at(place));
            }
            self.reset_in_transaction(request).await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut connection = self.db.connection(OP_PROBE).await?;
            let rows = connection.rows(Step::Harmless, &self.sql.probe, &[]).await?;
            let refuse = |kind, message: &str, advice: &str| {
                Err(Error::new(kind, OP_PROBE, message).at(self.db.place()).advise(advice))
            };
            match rows.first().map(|row| (row.get::<_, bool>(0), row.get::<_, bool>(1))) {
                Some((false, true)) => Ok(()),
                Some((false, false)) => refuse(
                    ErrorKind::InvalidInput,
                    "the database user may not write checkpoints",
                    "grant it the rights that SCHEMA.md lists",
                ),
                _ => refuse(
                    ErrorKind::Unavailable,
                    "the database is read only",
                    "use the address of the primary",
                ),
            }
        })
    }
}
