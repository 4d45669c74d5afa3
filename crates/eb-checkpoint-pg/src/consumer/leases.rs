//! Leases in Postgres. Ends are by the server's clock; epochs rise under the row's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eb_contract::stores::{
    Claim, Heartbeat, Lease, LeaseInfo, LeaseKey, LeaseStore, Renewal, Reported, WorkPhase, WorkReport,
    check_lease_request, check_owner,
};
use eb_contract::{BoxFuture, ConsumerName, Error, ErrorKind, PartitionId, Result, Topic};
use tokio_postgres::Row;

use crate::config::PgConfig;
use crate::db::Db;
use crate::error::{Step, again};
use crate::migrate;
use crate::position::corrupt;
use crate::text::{escape, unescape};
use crate::time::from_system;

const OP_CLAIM: &str = "claim lease";
const OP_HEARTBEAT: &str = "heartbeat";
const OP_LIST: &str = "list leases";
/// How often a claim looks again when the lease changed hands between its statements.
const ATTEMPTS: u32 = 5;

/// Leases in a Postgres schema. Cloning is cheap and shares the connections.
///
/// Every call is one statement, which the server carries out whole or not at all; a claim that finds the lease taken asks by another
/// whose it is. A lease ends by `clock_timestamp()` of the server: of a step of that clock forwards, leases end early, and
/// only the epochs then keep two holders apart, as the stores of effects compare them; of one backwards they end late. Keep the
/// server's clock slewed.
#[derive(Clone)]
pub struct PgLeases {
    db: Db,
    sql: Arc<Sql>,
}

struct Sql {
    claim: String,
    holder: String,
    heartbeat: String,
    release: String,
    leave: String,
    list: String,
}

impl Sql {
    fn of(schema: &str) -> Self {
        let (leases, members) = (format!("{schema}.consumer_leases"), format!("{schema}.consumer_members"));
        let report = ["phase", "in_flight", "keys_retrying", "retries", "reported_at"];
        let no_report = report.map(|column| format!("{column} = NULL")).join(", ");
        // A holder that claims again keeps the epoch and its report.
        let kept = report
            .map(|column| format!("{column} = CASE WHEN l.ends_at > clock_timestamp() THEN l.{column} END"));
        let kept = kept.join(", ");
        // One that holds it keeps the epoch and never loses time by asking for less.
        let claim = format!(
            "INSERT INTO {leases} AS l (consumer, topic, partition_id, owner, epoch, ends_at) \
             VALUES ($1, $2, $3, $4, floor(extract(epoch FROM clock_timestamp()) * 1000), \
                 clock_timestamp() + make_interval(secs => $5)) \
             ON CONFLICT (consumer, topic, partition_id) DO UPDATE SET owner = excluded.owner, \
                 epoch = l.epoch + CASE WHEN l.ends_at > clock_timestamp() THEN 0 ELSE 1 END, \
                 ends_at = CASE WHEN l.ends_at > clock_timestamp() THEN greatest(l.ends_at, excluded.ends_at) \
                     ELSE excluded.ends_at END, {kept} \
             WHERE l.ends_at IS NULL OR l.ends_at <= clock_timestamp() OR l.owner = excluded.owner \
             RETURNING owner, epoch::text"
        );
        let left = "extract(epoch FROM ends_at - clock_timestamp())::float8";
        let heartbeat = format!(
            "WITH me AS ( \
                 INSERT INTO {members} AS m (consumer, topic, owner, ends_at) \
                 VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4)) \
                 ON CONFLICT (consumer, topic, owner) DO UPDATE SET ends_at = CASE \
                     WHEN m.ends_at > clock_timestamp() THEN greatest(m.ends_at, excluded.ends_at) \
                     ELSE excluded.ends_at END \
             ), gone AS ( \
                 DELETE FROM {members} WHERE ctid IN (SELECT ctid FROM {members} \
                     WHERE consumer = $1 AND topic = $2 AND owner <> $3 \
                       AND ends_at < clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED) \
             ), renewed AS ( \
                 UPDATE {leases} l SET ends_at = greatest(l.ends_at, \
                     clock_timestamp() + make_interval(secs => $4)), \
                     phase = coalesce(i.phase, l.phase), in_flight = coalesce(i.in_flight, l.in_flight), \
                     keys_retrying = coalesce(i.keys_retrying, l.keys_retrying), \
                     retries = coalesce(i.retries, l.retries), \
                     reported_at = CASE WHEN i.phase IS NULL THEN l.reported_at ELSE clock_timestamp() END \
                 FROM unnest($5::int8[], $6::text[], $7::text[], $8::int8[], $9::int8[], $10::int8[]) \
                     AS i(partition_id, epoch, phase, in_flight, keys_retrying, retries) \
                 WHERE l.consumer = $1 AND l.topic = $2 AND l.partition_id = i.partition_id AND l.owner = $3 \
                   AND l.epoch = i.epoch::numeric AND l.ends_at > clock_timestamp() \
                 RETURNING l.partition_id, i.epoch \
             ) \
             SELECT owner, NULL::int8, NULL::text FROM {members} \
                 WHERE consumer = $1 AND topic = $2 AND owner <> $3 AND ends_at > clock_timestamp() \
             UNION ALL SELECT NULL, partition_id, epoch FROM renewed"
        );
        let at = "consumer = $1 AND topic = $2 AND partition_id = $3";
        Self {
            claim,
            holder: format!("SELECT owner, epoch::text, {left} FROM {leases} WHERE {at}"),
            heartbeat,
            release: format!(
                "UPDATE {leases} SET ends_at = NULL, {no_report} \
                 WHERE {at} AND owner = $4 AND epoch = $5::text::numeric"
            ),
            leave: format!(
                "WITH gone AS (DELETE FROM {members} WHERE consumer = $1 AND topic = $2 AND owner = $3) \
                 UPDATE {leases} SET ends_at = NULL, {no_report} WHERE consumer = $1 AND topic = $2 AND owner = $3"
            ),
            list: format!(
                "SELECT owner, epoch::text, {left}, consumer, topic, partition_id, phase, in_flight, \
                     keys_retrying, retries, reported_at FROM {leases} \
                 WHERE $1::text IS NULL OR consumer = $1 ORDER BY consumer, topic, partition_id"
            ),
        }
    }
}

impl std::fmt::Debug for PgLeases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PgLeases").field(&self.db.place()).finish()
    }
}

impl PgLeases {
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

    fn lease(&self, op: &'static str, owner: &str, epoch: &str) -> Result<Lease> {
        let damaged = |what| corrupt(op, self.db.place(), what);
        Ok(Lease {
            owner: unescape(owner).ok_or_else(|| damaged("a lease owner"))?,
            epoch: epoch.parse().map_err(|_| damaged("a lease epoch"))?,
        })
    }

    async fn claim_once(&self, key: &LeaseKey, owner: &str, time_to_live: Duration) -> Result<Option<Claim>> {
        let (consumer, topic, number) =
            (key.consumer.as_str(), key.topic.as_str(), i64::from(key.partition_id.0));
        let (stored, seconds) = (escape(owner), time_to_live.as_secs_f64());
        let stored = stored.as_ref();
        let mut connection = self.db.connection(OP_CLAIM).await?;
        let rows = connection
            .rows(Step::Commit, &self.sql.claim, &[&consumer, &topic, &number, &stored, &seconds])
            .await?;
        if let Some(row) = rows.first() {
            return Ok(Some(Claim::Held(self.lease(OP_CLAIM, row.get(0), row.get(1))?)));
        }
        let rows = connection.rows(Step::Harmless, &self.sql.holder, &[&consumer, &topic, &number]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let by = self.lease(OP_CLAIM, row.get(0), row.get(1))?;
        Ok(left(row).map(|left| Claim::Taken { by, left }))
    }

    fn info(&self, row: &Row) -> Result<LeaseInfo> {
        let damaged = |what| corrupt(OP_LIST, self.db.place(), what);
        let key = LeaseKey {
            consumer: ConsumerName::new(row.get(3)).map_err(|_| damaged("a consumer name"))?,
            topic: Topic::new(row.get(4)).map_err(|_| damaged("a topic name"))?,
            partition_id: PartitionId(
                u32::try_from(row.get::<_, i64>(5)).map_err(|_| damaged("a partition number"))?,
            ),
        };
        let left = left(row);
        let reported = if left.is_some() { self.reported(row)? } else { None };
        Ok(LeaseInfo { key, lease: self.lease(OP_LIST, row.get(0), row.get(1))?, left, reported })
    }

    fn reported(&self, row: &Row) -> Result<Option<Reported>> {
        let damaged = || corrupt(OP_LIST, self.db.place(), "a lease's report");
        let Some(phase) = row.get::<_, Option<&str>>(6) else { return Ok(None) };
        let phase = WorkPhase::ALL.into_iter().find(|p| p.as_str() == phase).ok_or_else(damaged)?;
        let number = |column: usize| {
            let number: Option<i64> = row.get(column);
            number.and_then(|n| u64::try_from(n).ok()).ok_or_else(damaged)
        };
        let work =
            WorkReport { phase, in_flight: number(7)?, keys_retrying: number(8)?, retries: number(9)? };
        let at: Option<SystemTime> = row.get(10);
        let at = from_system(OP_LIST, self.db.place(), at.ok_or_else(damaged)?)?;
        Ok(Some(Reported { work, at }))
    }
}

/// Renewals as the columns of the statement.
#[derive(Default)]
struct Renewals {
    partitions: Vec<i64>,
    epochs: Vec<String>,
    phases: Vec<Option<&'static str>>,
    in_flight: Vec<Option<i64>>,
    keys_retrying: Vec<Option<i64>>,
    retries: Vec<Option<i64>>,
}

impl Renewals {
    /// Those that may be the owner's. Each once: a row is updated once by a statement; of two reports the last stands.
    fn of(held: &[Renewal], owner: &str) -> Self {
        let mut own: BTreeMap<(i64, u64), Option<WorkReport>> = BTreeMap::new();
        for renewal in held.iter().filter(|r| r.lease.owner == owner) {
            let report = own.entry((i64::from(renewal.partition_id.0), renewal.lease.epoch)).or_default();
            *report = renewal.report.or(*report);
        }
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut all = Self::default();
        for ((partition, epoch), report) in own {
            all.partitions.push(partition);
            all.epochs.push(epoch.to_string());
            all.phases.push(report.map(|r| r.phase.as_str()));
            all.in_flight.push(report.map(|r| number(r.in_flight)));
            all.keys_retrying.push(report.map(|r| number(r.keys_retrying)));
            all.retries.push(report.map(|r| number(r.retries)));
        }
        all
    }
}

/// The third column: seconds that are left.
fn left(row: &Row) -> Option<Duration> {
    let seconds: Option<f64> = row.get(2);
    seconds.filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok())
}

impl LeaseStore for PgLeases {
    fn claim<'a>(
        &'a self,
        key: &'a LeaseKey,
        owner: &'a str,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<Claim>> {
        Box::pin(async move {
            check_lease_request(OP_CLAIM, owner, time_to_live)?;
            for _ in 0..ATTEMPTS {
                if let Some(claim) = self.claim_once(key, owner, time_to_live).await? {
                    return Ok(claim);
                }
            }
            let what = "the lease changed hands again and again";
            Err(again(Error::new(ErrorKind::Unavailable, OP_CLAIM, what).at(self.db.place())))
        })
    }

    fn heartbeat<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
        time_to_live: Duration,
        held: &'a [Renewal],
    ) -> BoxFuture<'a, Result<Heartbeat>> {
        Box::pin(async move {
            check_lease_request(OP_HEARTBEAT, owner, time_to_live)?;
            let stored = escape(owner);
            let (stored, seconds) = (stored.as_ref(), time_to_live.as_secs_f64());
            let own = Renewals::of(held, owner);
            let (consumer_name, topic_name) = (consumer.as_str(), topic.as_str());
            let mut connection = self.db.connection(OP_HEARTBEAT).await?;
            let rows = connection
                .rows(
                    Step::Commit,
                    &self.sql.heartbeat,
                    &[
                        &consumer_name,
                        &topic_name,
                        &stored,
                        &seconds,
                        &own.partitions,
                        &own.epochs,
                        &own.phases,
                        &own.in_flight,
                        &own.keys_retrying,
                        &own.retries,
                    ],
                )
                .await?;
            let mut workers = vec![owner.to_owned()];
            let mut renewed = BTreeSet::new();
            for row in &rows {
                let (worker, partition, epoch): (Option<&str>, Option<i64>, Option<&str>) =
                    (row.get(0), row.get(1), row.get(2));
                if let Some(worker) = worker {
                    let worker = unescape(worker);
                    workers.push(worker.ok_or_else(|| corrupt(OP_HEARTBEAT, self.db.place(), "a worker"))?);
                }
                renewed.extend(partition.zip(epoch.map(str::to_owned)));
            }
            workers.sort_unstable();
            let answer = |Renewal { partition_id, lease, .. }: &Renewal| {
                let asked = (i64::from(partition_id.0), lease.epoch.to_string());
                if lease.owner == owner && renewed.contains(&asked) {
                    return Ok(());
                }
                let what = format!("the lease of `{}` with epoch {} has ended", lease.owner, lease.epoch);
                Err(Error::new(ErrorKind::Fenced, "renew lease", what)
                    .at(format!("{consumer} {topic}/{partition_id}"))
                    .advise("claim it anew"))
            };
            Ok(Heartbeat { workers, renewed: held.iter().map(answer).collect() })
        })
    }

    fn release<'a>(&'a self, key: &'a LeaseKey, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (consumer, topic, number) =
                (key.consumer.as_str(), key.topic.as_str(), i64::from(key.partition_id.0));
            let owner = escape(&lease.owner);
            let (owner, epoch) = (owner.as_ref(), lease.epoch.to_string());
            let mut connection = self.db.connection("release lease").await?;
            let values: crate::db::Params<'_> = &[&consumer, &topic, &number, &owner, &epoch];
            connection.rows(Step::Commit, &self.sql.release, values).await.map(drop)
        })
    }

    fn leave<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_owner("leave", owner)?;
            let (consumer, topic, owner) = (consumer.as_str(), topic.as_str(), escape(owner));
            let owner = owner.as_ref();
            let mut connection = self.db.connection("leave").await?;
            connection.rows(Step::Commit, &self.sql.leave, &[&consumer, &topic, &owner]).await.map(drop)
        })
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<LeaseInfo>>> {
        Box::pin(async move {
            let mut connection = self.db.connection(OP_LIST).await?;
            let consumer = consumer.map(ConsumerName::as_str);
            let rows = connection.rows(Step::Harmless, &self.sql.list, &[&consumer]).await?;
            rows.iter().map(|row| self.info(row)).collect()
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(super::probe(&self.db, "probe leases", &["consumer_leases", "consumer_members"]))
    }
}
