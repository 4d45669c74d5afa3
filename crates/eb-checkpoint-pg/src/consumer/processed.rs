//! Marks in Postgres, with the checkpoints in the same transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::stores::{
    Checkpoint, DeadLetter, DeadLetterId, DeadLetterStore, Lease, Mark, MarkScope, NewDeadLetter,
    ProcessedStore, Progress, Seen, TransactionalStore,
};
use eb_contract::{
    BoxFuture, ConsumerName, Cut, Error, ErrorKind, Offset, OffsetKind, PartitionId, Result, Timestamp,
};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::letters::PgDeadLetters;
use super::transaction::PgTransaction;
use crate::PgCheckpointStore;
use crate::config::PgConfig;
use crate::db::{Db, bounded_transaction};
use crate::error::{Step, classify};
use crate::position::{CutColumns, corrupt, digits, offset};
use crate::text::escape;
use crate::time::to_system;

pub(super) const OP_RECORD: &str = "record step";
const OP_SEEN: &str = "look up marks";
const OP_FORGET: &str = "forget marks";

/// Marks in a Postgres schema, committed together with the checkpoints and, within transactions, the dead letters there. Cloning is cheap and shares the connections.
///
/// ```text
/// record           ─ BEGIN · lock the checkpoint's row, check all · write it · INSERT the marks · COMMIT
/// with a handler   ─ begin · (save · the handler's statements · undo where it fails) … · bury · record_and_commit: the same in that transaction
/// a letter again   ─ begin · the handler's statements · UPDATE the letter while it is open · INSERT the mark · COMMIT
/// ```
///
/// A step without marks commits the checkpoint alone. What was not committed is rolled back by the server, whenever and however this program
/// ends.
///
/// # When the answer is lost
/// The error's effect is [`Unknown`](eb_contract::Effect::Unknown) where the server was told to commit and did not answer.
/// The checkpoint tells: it has the step's version plus one and its lease, or it has not.
#[derive(Clone)]
pub struct PgProcessed {
    pub(super) db: Db,
    pub(super) checkpoints: PgCheckpointStore,
    pub(super) letters: PgDeadLetters,
    pub(super) sql: Arc<Sql>,
}

pub(super) struct Sql {
    insert: String,
    kind: String,
    here: String,
    copies: String,
    forget_before: String,
    forget_from: String,
}

impl Sql {
    fn of(schema: &str) -> Self {
        let table = format!("{schema}.processed_events");
        let scope = "p.subscriber_name = $1 AND p.bus_incarnation = $2 AND p.topic = $3";
        Self {
            insert: format!(
                "INSERT INTO {table} (subscriber_name, bus_incarnation, topic, partition_id, offset_kind, \
                     \"offset\", event_id, dedupe_key, processed_at) \
                 SELECT $1, $2, $3, $4, $5, i.at::numeric, i.event_id, i.dedupe, clock_timestamp() \
                 FROM unnest($6::text[], $7::text[], $8::bytea[]) AS i(at, event_id, dedupe) \
                 ON CONFLICT DO NOTHING"
            ),
            kind: format!("SELECT offset_kind FROM {table} p WHERE {scope} AND p.partition_id = $4 LIMIT 1"),
            here: format!(
                "SELECT i.n FROM unnest($5::text[], $6::text[]) WITH ORDINALITY AS i(kind, at, n) \
                 WHERE EXISTS (SELECT FROM {table} p WHERE {scope} AND p.partition_id = $4 \
                     AND p.offset_kind = i.kind AND p.\"offset\" = i.at::numeric)"
            ),
            copies: format!(
                "SELECT i.n, c.partition_id, c.offset_kind, c.at \
                 FROM unnest($5::text[], $6::text[], $7::bytea[]) WITH ORDINALITY AS i(kind, at, dedupe, n) \
                 CROSS JOIN LATERAL ( \
                     SELECT p.partition_id, p.offset_kind, p.\"offset\"::text AS at FROM {table} p \
                     WHERE p.dedupe_key = i.dedupe AND {scope} AND NOT (p.partition_id = $4 \
                         AND p.offset_kind = i.kind AND p.\"offset\" = i.at::numeric) \
                     ORDER BY p.processed_at LIMIT 1) c"
            ),
            // Where there is no checkpoint, or one of another life of the bus, age alone decides.
            forget_before: format!(
                "WITH gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY( \
                     SELECT p.ctid FROM {table} p LEFT JOIN {schema}.checkpoints c \
                       ON c.consumer = p.subscriber_name AND c.topic = p.topic \
                      AND c.partition_id = p.partition_id AND c.bus_incarnation = p.bus_incarnation \
                     WHERE p.subscriber_name = $1 AND p.processed_at < $2 AND CASE \
                         WHEN c.cut_type IS NULL OR c.cut_type = 'end' THEN true \
                         WHEN c.cut_type = 'begin' OR c.offset_kind <> p.offset_kind THEN false \
                         WHEN c.cut_type = 'next' THEN p.\"offset\" < c.offset_value \
                         ELSE p.\"offset\" <= c.offset_value END \
                     ORDER BY p.processed_at LIMIT $3)) RETURNING 1) \
                 SELECT count(*) FROM gone"
            ),
            forget_from: format!(
                "WITH gone AS (DELETE FROM {table} p WHERE {scope} AND p.partition_id = $4 AND CASE $5 \
                     WHEN 'begin' THEN true WHEN 'end' THEN false \
                     WHEN 'next' THEN p.\"offset\" >= $6::text::numeric \
                     ELSE p.\"offset\" > $6::text::numeric END RETURNING 1) \
                 SELECT count(*) FROM gone"
            ),
        }
    }
}

impl std::fmt::Debug for PgProcessed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PgProcessed").field(&self.db.place()).finish()
    }
}

impl PgProcessed {
    /// Connects, and brings the schema to this program's version (or checks it). A crash or a dropped future leaves the schema as
    /// it was, or complete. A transaction holds a connection from its begin to its end: give the pool one for each
    /// partition that is handled at once, and some more.
    ///
    /// # Errors
    /// As [`PgCheckpointStore::open`].
    pub async fn open(config: &PgConfig) -> Result<Self> {
        Ok(Self::over(PgCheckpointStore::open(config).await?))
    }

    /// In the schema of an open store of checkpoints, on its connections.
    #[must_use]
    pub fn over(checkpoints: PgCheckpointStore) -> Self {
        let db = checkpoints.db().clone();
        let sql = Arc::new(Sql::of(db.schema()));
        let letters = PgDeadLetters::over(db.clone());
        Self { db, checkpoints, letters, sql }
    }

    /// The checkpoints that steps commit.
    #[must_use]
    pub fn checkpoints(&self) -> &PgCheckpointStore {
        &self.checkpoints
    }

    /// Closes the connections that are not in use, and each other one when its call ends. Later calls are `Closed`.
    pub fn close(&self) {
        self.db.close();
    }

    /// Checks and writes a step within a transaction that is then to be committed, or after any error rolled back.
    pub(super) async fn write(
        &self,
        client: &impl GenericClient,
        step: &Progress,
        lease: &Lease,
    ) -> Result<Checkpoint> {
        let scope = scope_of(&step.checkpoint);
        let cuts = [&step.checkpoint.cut, &step.committed].map(Cut::offset_kind);
        let kind = one_kind(OP_RECORD, &scope, cuts.into_iter().flatten(), &step.marks)?;
        let stored = self.checkpoints.commit_step(client, &step.checkpoint, lease).await?;
        self.insert(client, OP_RECORD, Step::Harmless, &scope, kind, &step.marks).await?;
        Ok(stored)
    }

    /// Marks one record within a transaction.
    pub(super) async fn mark_within(
        &self,
        client: &impl GenericClient,
        scope: &MarkScope,
        mark: &Mark,
    ) -> Result<()> {
        let marks = std::slice::from_ref(mark);
        self.insert(client, OP_RECORD, Step::Harmless, scope, Some(mark.offset.kind()), marks).await
    }

    async fn insert(
        &self,
        client: &impl GenericClient,
        op: &'static str,
        step: Step,
        scope: &MarkScope,
        kind: Option<OffsetKind>,
        marks: &[Mark],
    ) -> Result<()> {
        let Some(kind) = kind.filter(|_| !marks.is_empty()) else { return Ok(()) };
        let failed = |step| move |e| classify(op, self.db.place(), step, e);
        let (subscriber, life, topic, partition) = columns(scope);
        let own = [
            (&subscriber as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
            (&life, Type::TEXT),
            (&topic, Type::TEXT),
            (&partition, Type::INT8),
        ];
        let rows = client.query_typed(&self.sql.kind, &own).await.map_err(failed(Step::Harmless))?;
        if rows.first().is_some_and(|row| row.get::<_, &str>(0) != kind.as_str()) {
            return Err(other_kind(op, scope));
        }
        let at: Vec<String> = marks.iter().map(|m| digits(&m.offset)).collect();
        let ids: Vec<Option<_>> =
            marks.iter().map(|m| m.event.as_ref().map(|e| escape(&e.event_id))).collect();
        let ids: Vec<Option<&str>> = ids.iter().map(|id| id.as_deref()).collect();
        let keys: Vec<Option<&[u8]>> =
            marks.iter().map(|m| m.event.as_ref().map(|e| &e.dedupe[..])).collect();
        let kind = kind.as_str();
        let [a, b, c, d] = own;
        let values = [
            a,
            b,
            c,
            d,
            (&kind as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
            (&at, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&keys, Type::BYTEA_ARRAY),
        ];
        client.query_typed(&self.sql.insert, &values).await.map(drop).map_err(failed(step))
    }

    async fn record_once(&self, step: &Progress, lease: &Lease) -> Result<Checkpoint> {
        let place = self.db.place();
        let mut connection = self.db.connection(OP_RECORD).await?;
        let patience = connection.patience();
        let committing = AtomicBool::new(false);
        let work = async {
            let transaction = connection.transaction().await?;
            let stored = self.write(&*transaction, step, lease).await?;
            committing.store(true, Ordering::Relaxed);
            transaction.commit().await.map_err(|e| classify(OP_RECORD, place, Step::Commit, e))?;
            Ok(stored)
        };
        let answer = bounded_transaction(OP_RECORD, place, patience, &committing, work).await;
        connection.judge(answer)
    }

    async fn look_up(&self, scope: &MarkScope, records: &[Mark], by_event: bool) -> Result<Vec<Seen>> {
        let mut seen = vec![Seen::No; records.len()];
        let (subscriber, life, topic, partition) = columns(scope);
        let mut connection = self.db.connection(OP_SEEN).await?;
        let kinds: Vec<&str> = records.iter().map(|r| r.offset.kind().as_str()).collect();
        let at: Vec<String> = records.iter().map(|r| digits(&r.offset)).collect();
        let values: crate::db::Params<'_> = &[&subscriber, &life, &topic, &partition, &kinds, &at];
        for row in connection.rows(Step::Harmless, &self.sql.here, values).await? {
            if let Some(seen) = slot(&mut seen, row.get(0)) {
                *seen = Seen::Here;
            }
        }
        let open = |n: &usize| by_event && seen[*n] == Seen::No;
        let asked: Vec<(usize, &[u8])> = (0..records.len())
            .filter(open)
            .filter_map(|n| records[n].event.as_ref().map(|e| (n, &e.dedupe[..])))
            .collect();
        if asked.is_empty() {
            return Ok(seen);
        }
        let kinds: Vec<&str> = asked.iter().map(|(n, _)| kinds[*n]).collect();
        let at: Vec<&str> = asked.iter().map(|(n, _)| at[*n].as_str()).collect();
        let keys: Vec<&[u8]> = asked.iter().map(|(_, key)| *key).collect();
        let values: crate::db::Params<'_> = &[&subscriber, &life, &topic, &partition, &kinds, &at, &keys];
        for row in connection.rows(Step::Harmless, &self.sql.copies, values).await? {
            let n =
                usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|n| asked.get(n)).map(|(n, _)| *n);
            let number = u32::try_from(row.get::<_, i64>(1));
            let partition_id =
                PartitionId(number.map_err(|_| corrupt(OP_SEEN, self.db.place(), "a partition number"))?);
            let offset: Offset = offset(OP_SEEN, self.db.place(), row.get(2), row.get(3))?;
            if let Some(n) = n {
                seen[n] = Seen::Copy { partition_id, offset };
            }
        }
        Ok(seen)
    }
}

/// The answer to the question of this 1-based number.
fn slot(seen: &mut [Seen], number: i64) -> Option<&mut Seen> {
    seen.get_mut(usize::try_from(number - 1).ok()?)
}

fn columns(scope: &MarkScope) -> (&str, &str, &str, i64) {
    let partition = i64::from(scope.partition_id.0);
    (scope.subscriber.as_str(), scope.bus_incarnation.as_str(), scope.topic.as_str(), partition)
}

fn scope_of(c: &Checkpoint) -> MarkScope {
    MarkScope {
        subscriber: c.consumer.clone(),
        bus_incarnation: c.bus_incarnation.clone(),
        topic: c.topic.clone(),
        partition_id: c.partition_id,
    }
}

fn other_kind(op: &'static str, scope: &MarkScope) -> Error {
    let what = "its offsets are not of the one kind that the scope has";
    Error::new(ErrorKind::InvalidInput, op, what)
        .at(format!("{} {}/{}", scope.subscriber, scope.topic, scope.partition_id))
}

fn one_kind(
    op: &'static str,
    scope: &MarkScope,
    cuts: impl Iterator<Item = OffsetKind>,
    marks: &[Mark],
) -> Result<Option<OffsetKind>> {
    let mut kinds = cuts.chain(marks.iter().map(|m| m.offset.kind()));
    let kind = kinds.next();
    if kinds.any(|k| Some(k) != kind) {
        return Err(other_kind(op, scope));
    }
    Ok(kind)
}

impl ProcessedStore for PgProcessed {
    fn keeps_checkpoints(&self) -> bool {
        true
    }

    fn seen<'a>(
        &'a self,
        scope: &'a MarkScope,
        records: &'a [Mark],
        by_event: bool,
    ) -> BoxFuture<'a, Result<Vec<Seen>>> {
        Box::pin(async move {
            if records.is_empty() { Ok(Vec::new()) } else { self.look_up(scope, records, by_event).await }
        })
    }

    fn record<'a>(
        &'a self,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        Box::pin(async move { self.record_once(step, lease).await.map(Some) })
    }

    fn mark<'a>(&'a self, scope: &'a MarkScope, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        const OP: &str = "mark";
        Box::pin(async move {
            let kind = one_kind(OP, scope, std::iter::empty(), marks)?;
            let mut connection = self.db.connection(OP).await?;
            let patience = connection.patience();
            // One statement, which commits by itself.
            let committing = AtomicBool::new(true);
            let work =
                async { self.insert(connection.client(OP)?, OP, Step::Commit, scope, kind, marks).await };
            let answer = bounded_transaction(OP, self.db.place(), patience, &committing, work).await;
            connection.judge(answer)
        })
    }

    fn forget_before<'a>(
        &'a self,
        subscriber: &'a ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let (subscriber, before) = (subscriber.as_str(), to_system(before));
            let mut connection = self.db.connection(OP_FORGET).await?;
            let values: crate::db::Params<'_> = &[&subscriber, &before, &limit];
            let rows = connection.rows(Step::Commit, &self.sql.forget_before, values).await?;
            Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
        })
    }

    fn forget_from<'a>(&'a self, scope: &'a MarkScope, from: &'a Cut) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let (subscriber, life, topic, partition) = columns(scope);
            let from = from.canonical();
            let CutColumns { cut_type, kind, digits } = CutColumns::of(&from);
            let mut connection = self.db.connection(OP_FORGET).await?;
            let own: crate::db::Params<'_> = &[&subscriber, &life, &topic, &partition];
            let rows = connection.rows(Step::Harmless, &self.sql.kind, own).await?;
            let stored = rows.first().map(|row| row.get::<_, &str>(0));
            if kind.is_some() && stored.is_some_and(|stored| Some(stored) != kind) {
                return Err(other_kind(OP_FORGET, scope));
            }
            let values: crate::db::Params<'_> = &[&subscriber, &life, &topic, &partition, &cut_type, &digits];
            let rows = connection.rows(Step::Commit, &self.sql.forget_from, values).await?;
            Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(super::probe(&self.db, "probe marks", &["processed_events"]))
    }
}

impl TransactionalStore for PgProcessed {
    type Transaction = PgTransaction;

    fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(self.letters.clone())
    }

    fn bury<'a>(
        &'a self,
        transaction: &'a mut PgTransaction,
        letters: &'a [NewDeadLetter],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(transaction.bury(self, letters))
    }

    fn resolve_and_commit<'a>(
        &'a self,
        transaction: PgTransaction,
        id: DeadLetterId,
        of: (&'a MarkScope, &'a Mark),
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        Box::pin(transaction.resolve(self, id, of, reason))
    }

    fn begin(&self) -> BoxFuture<'_, Result<PgTransaction>> {
        Box::pin(PgTransaction::begin(&self.db))
    }

    fn save<'a>(&'a self, transaction: &'a mut PgTransaction) -> BoxFuture<'a, Result<()>> {
        Box::pin(transaction.save())
    }

    fn undo<'a>(&'a self, transaction: &'a mut PgTransaction) -> BoxFuture<'a, Result<()>> {
        Box::pin(transaction.undo())
    }

    fn record_and_commit<'a>(
        &'a self,
        transaction: PgTransaction,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(transaction.commit(self, step, lease))
    }
}
