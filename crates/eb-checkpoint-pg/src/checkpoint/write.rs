//! Writing: the one-statement commit of one checkpoint, and the transaction for all else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::stores::{Checkpoint, Lease, ResetRequest};
use eb_contract::{Cut, Error, ErrorKind, Result};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::row::{self, Key, key};
use super::rules::{check, check_lease, not_attempted, place};
use super::sql::Sql;
use super::{OP_COMMIT, OP_RESET, PgCheckpointStore};
use crate::db::bounded_transaction;
use crate::error::{Step, again, classify};
use crate::position::CutColumns;
use crate::text::escape;
use crate::time::to_system;

/// How often a transaction starts again when others got in its way.
const ATTEMPTS: u32 = 4;

impl PgCheckpointStore {
    pub(super) async fn commit_one(&self, c: &Checkpoint, lease: &Lease) -> Result<Checkpoint> {
        check_lease(c, lease)?;
        if let Some(stored) = self.commit_in_one_statement(c, lease).await? {
            return Ok(stored);
        }
        let all = std::slice::from_ref(c);
        let mut answers = self.commit_many(all, lease).await;
        answers.pop().unwrap_or_else(|| Err(not_attempted(c)))
    }

    /// `None` when a rule forbids it, or a first commit finds another one's.
    async fn commit_in_one_statement(&self, c: &Checkpoint, lease: &Lease) -> Result<Option<Checkpoint>> {
        // A version that the column cannot hold is not stored either.
        let Ok(version) = i64::try_from(c.version) else { return Ok(None) };
        let cut = c.cut.canonical();
        let CutColumns { cut_type, kind, digits } = CutColumns::of(&cut);
        let (consumer, topic, number) = (c.consumer.as_str(), c.topic.as_str(), i64::from(c.partition_id.0));
        let caught_up_at = c.caught_up_at.map(to_system);
        let owner = escape(&lease.owner);
        let (owner, epoch) = (owner.as_ref(), lease.epoch.to_string());
        let incarnation = c.bus_incarnation.as_str();
        let mut connection = self.db.connection(OP_COMMIT).await?;
        let rows = if version == 0 {
            let values: crate::db::Params<'_> = &[
                &consumer,
                &topic,
                &number,
                &cut_type,
                &kind,
                &digits,
                &caught_up_at,
                &owner,
                &epoch,
                &incarnation,
            ];
            connection.rows(Step::Commit, &self.sql.insert, values).await?
        } else {
            let values: crate::db::Params<'_> = &[
                &consumer,
                &topic,
                &number,
                &cut_type,
                &kind,
                &digits,
                &caught_up_at,
                &owner,
                &epoch,
                &version,
                &incarnation,
            ];
            connection.rows(Step::Commit, &self.sql.update, values).await?
        };
        rows.first().map(|row| row::checkpoint(OP_COMMIT, self.db.place(), row)).transpose()
    }

    pub(super) async fn commit_many(&self, all: &[Checkpoint], lease: &Lease) -> Vec<Result<Checkpoint>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.commit_many_once(all, lease).await {
                Ok(answers) if !answers.iter().any(is_race) || attempt == ATTEMPTS => return answers,
                Ok(_) => {}
                Err(e) => return all.iter().map(|_| Err(e.clone())).collect(),
            }
        }
    }

    async fn commit_many_once(&self, all: &[Checkpoint], lease: &Lease) -> Result<Vec<Result<Checkpoint>>> {
        let (sql, db_place) = (&self.sql, self.db.place());
        let mut connection = self.db.connection(OP_COMMIT).await?;
        let patience = connection.patience();
        let committing = AtomicBool::new(false);
        let work = async {
            let transaction = connection.transaction().await?;
            let answers = commit_all(sql, db_place, &*transaction, all, lease).await;
            if answers.iter().any(Result::is_err) {
                // Dropping it would do as well; this way the row locks are known to be gone.
                transaction.rollback().await.map_err(|e| classify(OP_COMMIT, db_place, Step::Harmless, e))?;
                return Ok(answers);
            }
            committing.store(true, Ordering::Relaxed);
            transaction.commit().await.map_err(|e| classify(OP_COMMIT, db_place, Step::Commit, e))?;
            Ok(answers)
        };
        let answer = bounded_transaction(OP_COMMIT, db_place, patience, &committing, work).await;
        connection.judge(answer)
    }

    pub(super) async fn reset_in_transaction(&self, request: &ResetRequest) -> Result<Checkpoint> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = self.reset_once(request).await;
            if attempt == ATTEMPTS || !is_race(&answer) {
                return answer;
            }
        }
    }

    async fn reset_once(&self, request: &ResetRequest) -> Result<Checkpoint> {
        let (sql, db_place) = (&self.sql, self.db.place());
        let mut connection = self.db.connection(OP_RESET).await?;
        let patience = connection.patience();
        let committing = AtomicBool::new(false);
        let work = async {
            let transaction = connection.transaction().await?;
            let stored = reset_in(sql, db_place, &transaction, request).await?;
            committing.store(true, Ordering::Relaxed);
            transaction.commit().await.map_err(|e| classify(OP_RESET, db_place, Step::Commit, e))?;
            Ok(stored)
        };
        let answer = bounded_transaction(OP_RESET, db_place, patience, &committing, work).await;
        connection.judge(answer)
    }
}

/// Whether another commit got in between the look and the change: only where there was no row to lock, or where
/// the database rolled one of two back.
fn is_race(answer: &Result<Checkpoint>) -> bool {
    matches!(answer, Err(e) if e.message() == RACE)
}

const RACE: &str = "another commit of the checkpoint came first";

fn race(c: &Checkpoint) -> Error {
    again(Error::new(ErrorKind::Unavailable, OP_COMMIT, RACE).at(place(c)))
}

/// Checks all under row locks, then writes all; writes nothing if any is refused.
pub(super) async fn commit_all(
    sql: &Sql,
    db_place: &str,
    transaction: &impl GenericClient,
    all: &[Checkpoint],
    lease: &Lease,
) -> Vec<Result<Checkpoint>> {
    let everyone = |e: &Error| all.iter().map(|_| Err(e.clone())).collect();
    let stored = match lock(sql, db_place, transaction, all.iter().map(key)).await {
        Ok(stored) => stored,
        Err(e) => return everyone(&e),
    };
    let mut seen = std::collections::BTreeSet::new();
    let checks: Vec<Result<()>> = all
        .iter()
        .map(|c| {
            if !seen.insert(key(c)) {
                let message = "it is twice in one commit";
                return Err(Error::new(ErrorKind::InvalidInput, OP_COMMIT, message).at(place(c)));
            }
            check_lease(c, lease).and_then(|()| check(stored.get(&key(c)), c, lease))
        })
        .collect();
    if checks.iter().any(Result::is_err) {
        let refused = |(check, c): (Result<()>, _)| Err(check.err().unwrap_or_else(|| not_attempted(c)));
        return checks.into_iter().zip(all).map(refused).collect();
    }
    let wanted: Vec<Checkpoint> = all
        .iter()
        .map(|c| Checkpoint {
            cut: c.cut.canonical(),
            caught_up_at: c.caught_up_at.max(stored.get(&key(c)).and_then(|s| s.caught_up_at)),
            version: c.version + 1,
            lease: Some(lease.clone()),
            ..c.clone()
        })
        .collect();
    match write(sql, db_place, transaction, OP_COMMIT, &wanted).await {
        Ok(mut written) => all.iter().map(|c| written.remove(&key(c)).ok_or_else(|| race(c))).collect(),
        Err(e) => everyone(&e),
    }
}

/// Locks and reads the rows of these checkpoints, those that are there.
async fn lock(
    sql: &Sql,
    db_place: &str,
    transaction: &impl GenericClient,
    keys: impl Iterator<Item = Key>,
) -> Result<BTreeMap<Key, Checkpoint>> {
    let keys: Vec<Key> = keys.collect();
    let consumers: Vec<&str> = keys.iter().map(|k| k.0.as_str()).collect();
    let topics: Vec<&str> = keys.iter().map(|k| k.1.as_str()).collect();
    let partitions: Vec<i64> = keys.iter().map(|k| i64::from(k.2.0)).collect();
    let rows = transaction
        .query_typed(
            &sql.lock,
            &[(&consumers, Type::TEXT_ARRAY), (&topics, Type::TEXT_ARRAY), (&partitions, Type::INT8_ARRAY)],
        )
        .await
        .map_err(|e| classify(OP_COMMIT, db_place, Step::Harmless, e))?;
    by_key(OP_COMMIT, db_place, &rows)
}

fn by_key(
    op: &'static str,
    db_place: &str,
    rows: &[tokio_postgres::Row],
) -> Result<BTreeMap<Key, Checkpoint>> {
    let read = rows.iter().map(|row| row::checkpoint(op, db_place, row).map(|c| (key(&c), c)));
    read.collect()
}

/// Writes checkpoints with their new versions where the former version is the stored one, or nothing is stored. Where
/// that does not hold for all, the transaction is to be rolled back (the savepoint takes back what was written).
async fn write(
    sql: &Sql,
    db_place: &str,
    transaction: &impl GenericClient,
    op: &'static str,
    all: &[Checkpoint],
) -> Result<BTreeMap<Key, Checkpoint>> {
    let failed = |e| classify(op, db_place, Step::Harmless, e);
    // Rows that are there are locked, so only new ones can be raced for.
    let raceable = all.iter().any(|c| c.version == 1);
    if raceable {
        transaction.batch_execute("SAVEPOINT eb_checkpoints").await.map_err(failed)?;
    }
    let cuts: Vec<CutColumns> = all.iter().map(|c| CutColumns::of(&c.cut)).collect();
    let column = |read: fn(&Checkpoint) -> &str| all.iter().map(read).collect::<Vec<&str>>();
    let partitions: Vec<i64> = all.iter().map(|c| i64::from(c.partition_id.0)).collect();
    // Versions rise by one from 0; no column will ever reach its end.
    let versions: Vec<i64> = all.iter().map(|c| i64::try_from(c.version).unwrap_or(i64::MAX)).collect();
    let caught_up: Vec<_> = all.iter().map(|c| c.caught_up_at.map(to_system)).collect();
    let owners: Vec<Option<String>> =
        all.iter().map(|c| c.lease.as_ref().map(|l| escape(&l.owner).into_owned())).collect();
    let epochs: Vec<Option<String>> =
        all.iter().map(|c| c.lease.as_ref().map(|l| l.epoch.to_string())).collect();
    let rows = transaction
        .query_typed(
            &sql.write,
            &[
                (&column(|c| c.consumer.as_str()), Type::TEXT_ARRAY),
                (&column(|c| c.topic.as_str()), Type::TEXT_ARRAY),
                (&partitions, Type::INT8_ARRAY),
                (&cuts.iter().map(|c| c.cut_type).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                (&cuts.iter().map(|c| c.kind).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                (&cuts.iter().map(|c| c.digits.as_deref()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                (&caught_up, Type::TIMESTAMPTZ_ARRAY),
                (&versions, Type::INT8_ARRAY),
                (&column(|c| c.bus_incarnation.as_str()), Type::TEXT_ARRAY),
                (&owners, Type::TEXT_ARRAY),
                (&epochs, Type::TEXT_ARRAY),
            ],
        )
        .await
        .map_err(failed)?;
    let written = by_key(op, db_place, &rows)?;
    if raceable {
        let end = if written.len() == all.len() {
            "RELEASE SAVEPOINT eb_checkpoints"
        } else {
            "ROLLBACK TO SAVEPOINT eb_checkpoints; RELEASE SAVEPOINT eb_checkpoints"
        };
        transaction.batch_execute(end).await.map_err(failed)?;
    }
    Ok(written)
}

async fn reset_in(
    sql: &Sql,
    db_place: &str,
    transaction: &Transaction<'_>,
    request: &ResetRequest,
) -> Result<Checkpoint> {
    let at: Key = (request.consumer.clone(), request.topic.clone(), request.partition_id);
    let before = lock(sql, db_place, transaction, std::iter::once(at.clone())).await?.remove(&at);
    let wanted = Checkpoint {
        consumer: request.consumer.clone(),
        topic: request.topic.clone(),
        partition_id: request.partition_id,
        cut: request.cut.canonical(),
        caught_up_at: None,
        version: before.as_ref().map_or(0, |b| b.version) + 1,
        bus_incarnation: request.bus_incarnation.clone(),
        // Stale owners stay fenced.
        lease: before.as_ref().and_then(|b| b.lease.clone()),
        committed_at: None,
    };
    let written = write(sql, db_place, transaction, OP_RESET, std::slice::from_ref(&wanted)).await?;
    let stored = written.into_values().next().ok_or_else(|| race(&wanted))?;
    log_reset(sql, db_place, transaction, request, before.as_ref(), &stored.cut).await?;
    Ok(stored)
}

async fn log_reset(
    sql: &Sql,
    db_place: &str,
    transaction: &Transaction<'_>,
    request: &ResetRequest,
    before: Option<&Checkpoint>,
    to: &Cut,
) -> Result<()> {
    let from = before.map(|b| CutColumns::of(&b.cut));
    let to = CutColumns::of(to);
    let from_version = before.and_then(|b| i64::try_from(b.version).ok());
    let number = i64::from(request.partition_id.0);
    transaction
        .query_typed(
            &sql.log_reset,
            &[
                (&request.consumer.as_str(), Type::TEXT),
                (&request.topic.as_str(), Type::TEXT),
                (&number, Type::INT8),
                (&from_version, Type::INT8),
                (&from.as_ref().map(|f| f.cut_type), Type::TEXT),
                (&from.as_ref().and_then(|f| f.kind), Type::TEXT),
                (&from.as_ref().and_then(|f| f.digits.as_deref()), Type::TEXT),
                (&before.map(|b| b.bus_incarnation.as_str()), Type::TEXT),
                (&to.cut_type, Type::TEXT),
                (&to.kind, Type::TEXT),
                (&to.digits.as_deref(), Type::TEXT),
                (&request.bus_incarnation.as_str(), Type::TEXT),
                (&escape(&request.reason).as_ref(), Type::TEXT),
            ],
        )
        .await
        .map(drop)
        .map_err(|e| classify(OP_RESET, db_place, Step::Harmless, e))
}
