//! Dead letters in Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use eb_contract::stores::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, DeadReason, FailedAttempt, NewDeadLetter,
    Resolution, Resolved, check_resolution,
};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, EbRef, EnvelopeRef, Error, ErrorKind, PartitionId, PartitionKey,
    Record, Result, Topic,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use crate::config::PgConfig;
use crate::db::{Db, bounded_transaction};
use crate::error::{Step, again, classify};
use crate::migrate;
use crate::position::{corrupt, digits, offset};
use crate::text::{escape, unescape};
use crate::time::{from_system, to_system};

const OP_PUT: &str = "put dead letter";
const OP_LIST: &str = "list dead letters";
const OP_GET: &str = "read dead letter";
const OP_RESOLVE: &str = "resolve dead letter";

/// Dead letters in a Postgres schema. Cloning is cheap and shares the connections.
///
/// A put of several is one transaction, under an advisory lock of the table's: so names rise in the order of commits, and whoever
/// reads page after page misses none.
#[derive(Clone)]
pub struct PgDeadLetters {
    db: Db,
    sql: Arc<Sql>,
}

struct Sql {
    lock: String,
    insert: String,
    there: String,
    get: String,
    list: String,
    resolve: String,
    parked: String,
    open_of: String,
    count: String,
}

const COLUMNS: &str = "id, consumer, bus_incarnation, topic, partition_id, offset_kind, \"offset\"::text, \
    published_at, partition_key, event_id, event_type, reason, attempts, failures, parks_key, envelope, put_at, \
    resolution, resolved_at, resolution_reason";

impl Sql {
    fn of(schema: &str) -> Self {
        let table = format!("{schema}.dead_letters");
        let place = "consumer = $1 AND bus_incarnation = $2 AND topic = $3 AND partition_id = $4 \
            AND offset_kind = $5 AND \"offset\" = $6::text::numeric AND resolved_at IS NULL";
        Self {
            // The namespace of the event bus's dead letters, and the schema within it.
            lock: format!("SELECT pg_advisory_xact_lock(1163018069, hashtext('{schema}'))"),
            insert: format!(
                "INSERT INTO {table} (consumer, bus_incarnation, topic, partition_id, offset_kind, \"offset\", \
                     published_at, partition_key, event_id, event_type, reason, attempts, failures, parks_key, \
                     envelope, put_at) \
                 VALUES ($1, $2, $3, $4, $5, $6::text::numeric, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
                     clock_timestamp()) \
                 ON CONFLICT (consumer, bus_incarnation, topic, partition_id, offset_kind, \"offset\") \
                     WHERE resolved_at IS NULL DO NOTHING RETURNING id"
            ),
            there: format!("SELECT id FROM {table} WHERE {place}"),
            get: format!("SELECT {COLUMNS} FROM {table} WHERE id = $1"),
            list: format!(
                "SELECT {COLUMNS} FROM {table} WHERE id > $1 AND ($2::text IS NULL OR consumer = $2) \
                   AND ($3::text IS NULL OR topic = $3) AND ($4::text IS NULL OR partition_key = $4) \
                   AND ($5 OR resolved_at IS NULL) ORDER BY id LIMIT $6"
            ),
            resolve: format!(
                "UPDATE {table} SET resolution = $2, resolution_reason = $3, resolved_at = clock_timestamp() \
                 WHERE id = $1 AND resolved_at IS NULL RETURNING {COLUMNS}"
            ),
            parked: format!(
                "SELECT DISTINCT partition_key FROM {table} \
                 WHERE consumer = $1 AND topic = $2 AND resolved_at IS NULL AND parks_key"
            ),
            open_of: format!(
                "SELECT d.id, i.n FROM unnest($3::text[], $4::bigint[], $5::text[], $6::text[]) \
                     WITH ORDINALITY AS i(topic, partition_id, kind, at, n) \
                 JOIN {table} d ON d.consumer = $1 AND d.bus_incarnation = $2 AND d.topic = i.topic \
                     AND d.partition_id = i.partition_id AND d.offset_kind = i.kind \
                     AND d.\"offset\" = i.at::numeric AND d.resolved_at IS NULL"
            ),
            count: format!(
                "SELECT count(*) FROM {table} WHERE resolved_at IS NULL AND ($1::text IS NULL OR consumer = $1)"
            ),
        }
    }
}

impl std::fmt::Debug for PgDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PgDeadLetters").field(&self.db.place()).finish()
    }
}

impl PgDeadLetters {
    /// Connects, and brings the schema to this program's version (or checks it). A crash or a dropped future leaves the schema as
    /// it was, or complete.
    ///
    /// # Errors
    /// As [`PgCheckpointStore::open`](crate::PgCheckpointStore::open).
    pub async fn open(config: &PgConfig) -> Result<Self> {
        let db = Db::open(config, "").await?;
        migrate::ensure(&db, config.migrations).await?;
        let sql = Arc::new(Sql::of(db.schema()));
        Ok(Self { db, sql })
    }

    /// Closes the connections that are not in use, and each other one when its call ends. Later calls are `Closed`.
    pub fn close(&self) {
        self.db.close();
    }

    /// On the connections of another store of the schema.
    pub(super) fn over(db: Db) -> Self {
        let sql = Arc::new(Sql::of(db.schema()));
        Self { db, sql }
    }

    async fn put_all(&self, letters: &[&NewDeadLetter]) -> Result<Vec<DeadLetterId>> {
        let place = self.db.place();
        let mut connection = self.db.connection(OP_PUT).await?;
        let patience = connection.patience();
        let committing = AtomicBool::new(false);
        let work = async {
            let transaction = connection.transaction().await?;
            let ids = self.put_within(&*transaction, letters).await?;
            committing.store(true, Ordering::Relaxed);
            transaction.commit().await.map_err(|e| classify(OP_PUT, place, Step::Commit, e))?;
            Ok(ids)
        };
        let answer = bounded_transaction(OP_PUT, place, patience, &committing, work).await;
        connection.judge(answer)
    }

    /// Puts them within a transaction that is then to be committed, or after any error rolled back.
    pub(super) async fn put_within(
        &self,
        client: &impl GenericClient,
        letters: &[&NewDeadLetter],
    ) -> Result<Vec<DeadLetterId>> {
        let locked = client.batch_execute(&self.sql.lock).await;
        locked.map_err(|e| classify(OP_PUT, self.db.place(), Step::Harmless, e))?;
        let mut ids = Vec::with_capacity(letters.len());
        for letter in letters {
            ids.push(self.put_one(client, letter).await?);
        }
        Ok(ids)
    }

    /// Resolves one within a transaction that is then to be committed; `None` where there is none that is open.
    pub(super) async fn resolve_within(
        &self,
        client: &impl GenericClient,
        id: DeadLetterId,
        how: Resolution,
        reason: &str,
    ) -> Result<Option<DeadLetter>> {
        check_resolution(reason)?;
        let Ok(number) = i64::try_from(id.0) else { return Ok(None) };
        let (how, reason) = (word(&how), escape(reason));
        let reason = reason.as_ref();
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&number, Type::INT8), (&how, Type::TEXT), (&reason, Type::TEXT)];
        let rows = client.query_typed(&self.sql.resolve, &values).await;
        let rows = rows.map_err(|e| classify(OP_RESOLVE, self.db.place(), Step::Harmless, e))?;
        rows.first().map(|row| self.letter(OP_RESOLVE, row)).transpose()
    }

    /// Why there is none that is open.
    pub(super) async fn not_open(&self, id: DeadLetterId) -> Error {
        match self.get_row(OP_RESOLVE, id).await {
            Ok(_) => Error::new(ErrorKind::AlreadyExists, OP_RESOLVE, "it is resolved already").at(id.0),
            Err(error) => error,
        }
    }

    async fn put_one(
        &self,
        transaction: &impl GenericClient,
        letter: &NewDeadLetter,
    ) -> Result<DeadLetterId> {
        let at = &letter.record.eb_ref;
        let (consumer, life, topic) =
            (letter.consumer.as_str(), letter.bus_incarnation.as_str(), at.topic.as_str());
        let (partition, kind, digits) =
            (i64::from(at.partition_id.0), at.offset.kind().as_str(), digits(&at.offset));
        let place: [(&(dyn ToSql + Sync), Type); 6] = [
            (&consumer, Type::TEXT),
            (&life, Type::TEXT),
            (&topic, Type::TEXT),
            (&partition, Type::INT8),
            (&kind, Type::TEXT),
            (&digits, Type::TEXT),
        ];
        let failed = |e| classify(OP_PUT, self.db.place(), Step::Harmless, e);
        let key = escape(letter.record.partition_key.as_str());
        let (id, sort) = (letter.event_id.as_deref().map(escape), letter.event_type.as_deref().map(escape));
        let (reason, failures) = (word(&letter.reason), escape_json(&letter.failures));
        let attempts = i64::from(letter.attempts);
        let mut values = place.to_vec();
        let (published, key) = (to_system(at.published_at_utc), key.as_ref());
        let (id, sort, envelope) = (id.as_deref(), sort.as_deref(), letter.record.envelope.as_bytes());
        let more: [(&(dyn ToSql + Sync), Type); 9] = [
            (&published, Type::TIMESTAMPTZ),
            (&key, Type::TEXT),
            (&id, Type::TEXT),
            (&sort, Type::TEXT),
            (&reason, Type::TEXT),
            (&attempts, Type::INT8),
            (&failures, Type::TEXT),
            (&letter.parks_key, Type::BOOL),
            (&envelope, Type::BYTEA),
        ];
        values.extend(more);
        let mut rows = transaction.query_typed(&self.sql.insert, &values).await.map_err(failed)?;
        if rows.is_empty() {
            rows = transaction.query_typed(&self.sql.there, &place).await.map_err(failed)?;
        }
        let Some(row) = rows.first() else {
            // It was there, and was resolved before it could be looked at.
            let what = "another resolved the letter at the same moment";
            return Err(again(Error::new(ErrorKind::Unavailable, OP_PUT, what).at(at)));
        };
        self.id(OP_PUT, row)
    }

    fn id(&self, op: &'static str, row: &Row) -> Result<DeadLetterId> {
        let number = u64::try_from(row.get::<_, i64>(0));
        number.map(DeadLetterId).map_err(|_| corrupt(op, self.db.place(), "a letter's number"))
    }

    fn letter(&self, op: &'static str, row: &Row) -> Result<DeadLetter> {
        let id = self.id(op, row)?;
        let place = format!("{} dead letter {}", self.db.place(), id.0);
        let place = place.as_str();
        let damaged = |what: &'static str| corrupt(op, place, what);
        let text = |stored: &str, what| unescape(stored).ok_or_else(|| damaged(what));
        let maybe = |n: usize, what| row.get::<_, Option<&str>>(n).map(|t| text(t, what)).transpose();
        let partition = u32::try_from(row.get::<_, i64>(4)).map_err(|_| damaged("a partition number"))?;
        let eb_ref = EbRef {
            topic: Topic::new(row.get(3)).map_err(|_| damaged("a topic name"))?,
            partition_id: PartitionId(partition),
            offset: offset(op, place, row.get(5), row.get(6))?,
            published_at_utc: from_system(op, place, row.get(7))?,
        };
        let key = PartitionKey::new(text(row.get(8), "a key")?).map_err(|_| damaged("a key"))?;
        let envelope = EnvelopeRef::from_stored(Bytes::copy_from_slice(row.get(15)));
        let resolved = match (row.get(17), row.get::<_, Option<SystemTime>>(18), maybe(19, "a reason")?) {
            (Some(how), Some(at), Some(reason)) => Some(Resolved {
                how: from_word::<Resolution>(how).ok_or_else(|| damaged("a resolution"))?,
                at: from_system(op, place, at)?,
                reason,
            }),
            _ => None,
        };
        let letter = NewDeadLetter {
            consumer: ConsumerName::new(row.get(1)).map_err(|_| damaged("a consumer name"))?,
            bus_incarnation: BusIncarnation::new(row.get(2)).map_err(|_| damaged("an incarnation"))?,
            record: Record { eb_ref, partition_key: key, envelope },
            event_id: maybe(9, "an event id")?,
            event_type: maybe(10, "an event type")?,
            reason: from_word::<DeadReason>(row.get(11)).ok_or_else(|| damaged("a reason"))?,
            attempts: u32::try_from(row.get::<_, i64>(12)).map_err(|_| damaged("a number of attempts"))?,
            failures: serde_json::from_str::<Vec<FailedAttempt>>(row.get(13))
                .map_err(|_| damaged("failures"))?,
            parks_key: row.get(14),
        };
        Ok(DeadLetter { id, letter, put_at: from_system(op, place, row.get(16))?, resolved })
    }

    async fn get_row(&self, op: &'static str, id: DeadLetterId) -> Result<DeadLetter> {
        let none = || Error::new(ErrorKind::NotFound, op, "there is no such dead letter").at(id.0);
        let number = i64::try_from(id.0).map_err(|_| none())?;
        let rows = self.db.connection(op).await?.rows(Step::Harmless, &self.sql.get, &[&number]).await?;
        self.letter(op, rows.first().ok_or_else(none)?)
    }
}

/// The wire name of a reason or resolution.
fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).ok();
    json.and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

fn from_word<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

/// JSON holds U+0000 as an escape, so a column can hold it as it is.
fn escape_json(failures: &[FailedAttempt]) -> String {
    serde_json::to_string(failures).expect("texts and times always serialise")
}

impl DeadLetterStore for PgDeadLetters {
    fn put<'a>(&'a self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Vec<Result<DeadLetterId>>> {
        Box::pin(async move {
            let checks: Vec<Result<()>> = letters.iter().map(NewDeadLetter::check).collect();
            let good: Vec<&NewDeadLetter> =
                letters.iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(l, _)| l).collect();
            let put = if good.is_empty() { Ok(Vec::new()) } else { self.put_all(&good).await };
            let mut ids = put.as_ref().map(|ids| ids.iter()).into_iter().flatten();
            let answer = |check: Result<()>| {
                check?;
                match (&put, ids.next()) {
                    (Err(e), _) => Err(e.clone()),
                    (Ok(_), Some(id)) => Ok(*id),
                    (Ok(_), None) => {
                        let what = "a letter was put and got no number";
                        Err(Error::new(ErrorKind::ProtocolViolation, OP_PUT, what).at(self.db.place()))
                    }
                }
            };
            checks.into_iter().map(answer).collect()
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>>> {
        Box::pin(async move {
            let after = filter.after.map_or(0, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
            let (consumer, topic) = (
                filter.consumer.as_ref().map(ConsumerName::as_str),
                filter.topic.as_ref().map(Topic::as_str),
            );
            let key = filter.partition_key.as_ref().map(|k| escape(k.as_str()));
            let (key, max) = (key.as_deref(), i64::try_from(max).unwrap_or(i64::MAX));
            let mut connection = self.db.connection(OP_LIST).await?;
            let values: crate::db::Params<'_> =
                &[&after, &consumer, &topic, &key, &filter.resolved_too, &max];
            let rows = connection.rows(Step::Harmless, &self.sql.list, values).await?;
            rows.iter().map(|row| self.letter(OP_LIST, row)).collect()
        })
    }

    fn get(&self, id: DeadLetterId) -> BoxFuture<'_, Result<DeadLetter>> {
        Box::pin(self.get_row(OP_GET, id))
    }

    fn resolve<'a>(
        &'a self,
        id: DeadLetterId,
        how: Resolution,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        Box::pin(async move {
            check_resolution(reason)?;
            if let Ok(number) = i64::try_from(id.0) {
                let (how, reason) = (word(&how), escape(reason));
                let reason = reason.as_ref();
                let mut connection = self.db.connection(OP_RESOLVE).await?;
                let rows =
                    connection.rows(Step::Commit, &self.sql.resolve, &[&number, &how, &reason]).await?;
                if let Some(row) = rows.first() {
                    return self.letter(OP_RESOLVE, row);
                }
            }
            Err(self.not_open(id).await)
        })
    }

    fn parked_keys<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Vec<PartitionKey>>> {
        const OP: &str = "list parked keys";
        Box::pin(async move {
            let (consumer, topic) = (consumer.as_str(), topic.as_str());
            let mut connection = self.db.connection(OP).await?;
            let rows = connection.rows(Step::Harmless, &self.sql.parked, &[&consumer, &topic]).await?;
            let key = |row: &Row| {
                let text = unescape(row.get(0));
                let key = text.and_then(|text| PartitionKey::new(text).ok());
                key.ok_or_else(|| corrupt(OP, self.db.place(), "a key"))
            };
            let mut keys = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
            keys.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            Ok(keys)
        })
    }

    fn open_of<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        incarnation: &'a BusIncarnation,
        records: &'a [EbRef],
    ) -> BoxFuture<'a, Result<Vec<Option<DeadLetterId>>>> {
        const OP: &str = "look for dead letters";
        Box::pin(async move {
            let (consumer, incarnation) = (consumer.as_str(), incarnation.as_str());
            let topics: Vec<&str> = records.iter().map(|r| r.topic.as_str()).collect();
            let partitions: Vec<i64> = records.iter().map(|r| i64::from(r.partition_id.0)).collect();
            let kinds: Vec<&str> = records.iter().map(|r| r.offset.kind().as_str()).collect();
            let digits: Vec<String> = records.iter().map(|r| digits(&r.offset)).collect();
            let values: crate::db::Params<'_> =
                &[&consumer, &incarnation, &topics, &partitions, &kinds, &digits];
            let mut connection = self.db.connection(OP).await?;
            let rows = connection.rows(Step::Harmless, &self.sql.open_of, values).await?;
            let mut open = vec![None; records.len()];
            for row in &rows {
                // Ordinality counts from 1.
                let place = usize::try_from(row.get::<_, i64>(1) - 1).ok().and_then(|n| open.get_mut(n));
                *place.ok_or_else(|| corrupt(OP, self.db.place(), "a place in a list"))? =
                    Some(self.id(OP, row)?);
            }
            Ok(open)
        })
    }

    fn count_open<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<u64>> {
        const OP: &str = "count dead letters";
        Box::pin(async move {
            let consumer = consumer.map(ConsumerName::as_str);
            let rows =
                self.db.connection(OP).await?.rows(Step::Harmless, &self.sql.count, &[&consumer]).await?;
            Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(super::probe(&self.db, "probe dead letters", &["dead_letters"]))
    }
}
