//! The admission index of several gates.

mod batch;
mod meta;
mod reserve;
mod row;
mod sql;
mod store;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, OpenReservation,
    PolicyEpoch, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BoxFuture, ErrorKind, Result, Timestamp};
use parking_lot::Mutex;

use crate::config::PgConfig;
use crate::db::Db;
use crate::error::{Step, closed, invalid};
use crate::migrate;
use crate::text::escape;
use batch::{Batcher, Limits};
use reserve::Reserving;
use row::{entries, key_bytes};
use sql::Sql;
use store::Storing;

const OP_OPEN: &str = "open admission index";
const OP_RESERVE: &str = "reserve";
const OP_CONFIRM: &str = "confirm";
const OP_RELEASE: &str = "release";
const OP_RENEW: &str = "renew reservations";
const OP_APPLY: &str = "apply";
const OP_GIVE_UP: &str = "give up reservations";
const OP_GET: &str = "look up admission";
const OP_PROBE: &str = "probe admission index";

/// How one gate uses the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgIndexConfig {
    /// The gate's name, shown to the others: 1 to 128 characters. Several may have the same; each opening is told apart.
    pub gate: String,
    /// How long a reservation keeps other gates from looking into what became of it. A gate renews those whose publishes
    /// take longer; the more of it is left to a few attempts at that, the better. A longer one delays others after a crash.
    pub lease: Duration,
    /// How many records a gate may admit between two of its checkpoints: what a recovering gate may have to read again.
    pub max_lag: u64,
    /// After how many keys no further call is taken into a batch.
    pub batch: usize,
    /// How many batches of reservations, and how many of entries, may be under way at once.
    pub batches_in_flight: usize,
}

impl PgIndexConfig {
    /// Leases of 30 s, a lag of 100,000 records, batches of 1,000 keys, two of each sort at once.
    #[must_use]
    pub fn new(gate: impl Into<String>) -> Self {
        Self {
            gate: gate.into(),
            lease: Duration::from_secs(30),
            max_lag: 100_000,
            batch: 1_000,
            batches_in_flight: 2,
        }
    }
}

/// An admission index in a Postgres schema, as one gate has opened it.
///
/// Reservations and entries are durable when they are answered. Calls made at the same time share statements and
/// commits. See the crate's documentation for the protocol, and for what a crash leaves behind.
///
/// Must be opened, and be used, on a tokio runtime; its tasks end with [`AdmissionIndex::close`] or when it is dropped.
pub struct PgAdmissionIndex {
    shared: Arc<Shared>,
    reserving: Batcher<Reserving>,
    storing: Batcher<Storing>,
    max_lag: u64,
    batch: usize,
}

/// What the index's tasks share.
struct Shared {
    db: Db,
    sql: Sql,
    /// This opening, by the number that the database gave it.
    gate: i64,
    name: String,
    lease_micros: i64,
    /// Reservations that were answered to this gate and neither confirmed nor released by it.
    held: Mutex<HashSet<u64>>,
    /// Entries, as far as this opening knows.
    len: AtomicU64,
}

impl Shared {
    fn owner(&self) -> String {
        row::owner(Some(&escape(&self.name)), self.gate)
    }

    async fn delete(&self, ids: &[i64]) -> Result<()> {
        repeat(|| async {
            let mut connection = self.db.connection(OP_RELEASE).await?;
            connection.rows(Step::Harmless, &self.sql.release, &[&ids, &self.gate]).await.map(drop)
        })
        .await
    }
}

/// Repeats what can be repeated without harm where the connection broke (the next one may be to a server that is back)
/// or the database rolled it back in favour of another.
async fn repeat<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> Result<T> {
    let mut pause = Duration::from_millis(5);
    for _ in 0..2 {
        match call().await {
            Err(e) if *e.kind() == ErrorKind::Unavailable => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 8;
    }
    call().await
}

/// Reservations as the database counts them; a number that it cannot have given is nobody's.
fn numbers(reservations: &[ReservationId]) -> Vec<i64> {
    reservations.iter().filter_map(|r| i64::try_from(r.0).ok()).collect()
}

impl PgAdmissionIndex {
    /// Connects, brings the schema to this program's version (or checks it) and registers the gate.
    ///
    /// # Errors
    /// As [`PgCheckpointStore::open`](crate::PgCheckpointStore::open), and `InvalidInput` for a name of no length or a
    /// lease of no time.
    pub async fn open(config: &PgConfig, gate: &PgIndexConfig) -> Result<Self> {
        if !(1..=128).contains(&gate.gate.chars().count()) {
            return Err(invalid(OP_OPEN, "a gate's name has 1 to 128 characters"));
        }
        let lease_micros = i64::try_from(gate.lease.as_micros()).unwrap_or(i64::MAX / 2);
        if lease_micros == 0 {
            return Err(invalid(OP_OPEN, "a lease that has ended before it began protects nothing"));
        }
        let db = Db::open(config, sql::SESSION).await?;
        migrate::ensure(&db, config.migrations).await?;
        let sql = Sql::of(db.schema());
        let name = gate.gate.clone();
        let mut connection = db.connection(OP_OPEN).await?;
        let rows = connection.rows(Step::Harmless, &sql.register, &[&escape(&name).as_ref()]).await?;
        let number = rows.first().map_or(0, |row| row.get(0));
        drop(connection);
        let shared = Shared {
            db,
            sql,
            gate: number,
            name,
            lease_micros,
            held: Mutex::default(),
            len: AtomicU64::new(0),
        };
        shared.count().await?;
        let shared = Arc::new(shared);
        let limits = Limits { items: gate.batch.max(1), in_flight: gate.batches_in_flight.max(1) };
        Ok(Self {
            reserving: Batcher::start(Arc::new(Reserving(shared.clone())), limits),
            storing: Batcher::start(Arc::new(Storing(shared.clone())), limits),
            shared,
            max_lag: gate.max_lag,
            batch: gate.batch.max(1),
        })
    }

    fn check_open(&self, op: &'static str) -> Result<()> {
        if self.shared.db.is_closed() { Err(closed(op)) } else { Ok(()) }
    }

    async fn read(
        &self,
        op: &'static str,
        sql: &str,
        params: crate::db::Params<'_>,
    ) -> Result<Vec<AdmissionEntry>> {
        self.check_open(op)?;
        let mut connection = self.shared.db.connection(op).await?;
        let rows = connection.rows(Step::Harmless, sql, params).await?;
        entries(op, self.shared.db.place(), &rows)
    }
}

impl std::fmt::Debug for PgAdmissionIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgAdmissionIndex")
            .field("database", &self.shared.db.place())
            .field("gate", &self.shared.owner())
            .finish()
    }
}

impl AdmissionIndex for PgAdmissionIndex {
    fn is_shared(&self) -> bool {
        true
    }

    fn lease(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.shared.lease_micros.unsigned_abs()))
    }

    fn max_lag(&self) -> u64 {
        self.max_lag
    }

    fn reserve<'a>(&'a self, requests: &'a [ReserveRequest]) -> BoxFuture<'a, Result<Vec<Reserved>>> {
        Box::pin(async move {
            self.check_open(OP_RESERVE)?;
            if requests.is_empty() {
                return Ok(Vec::new());
            }
            self.reserving.call(OP_RESERVE, reserve::items(requests)?).await
        })
    }

    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        Box::pin(async move {
            self.check_open(OP_CONFIRM)?;
            if confirmed.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<u64> = confirmed.iter().map(|c| c.reservation.0).collect();
            let entries = confirmed.into_iter().map(|c| c.entry).collect();
            let standing = self.storing.call(OP_CONFIRM, entries).await?;
            let mut held = self.shared.held.lock();
            ids.iter().for_each(|id| {
                held.remove(id);
            });
            Ok(standing.into_iter().flatten().collect())
        })
    }

    fn renew(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_open(OP_RENEW)?;
            if reservations.is_empty() {
                return Ok(());
            }
            let ids = numbers(&reservations);
            repeat(|| async {
                let mut connection = self.shared.db.connection(OP_RENEW).await?;
                let (sql, lease) = (&self.shared.sql.renew, &self.shared.lease_micros);
                connection.rows(Step::Harmless, sql, &[&ids, &self.shared.gate, lease]).await.map(drop)
            })
            .await
        })
    }

    fn release(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_open(OP_RELEASE)?;
            if reservations.is_empty() {
                return Ok(());
            }
            {
                // Also where the database is not reached: nothing is being published under them.
                let mut held = self.shared.held.lock();
                reservations.iter().for_each(|r| {
                    held.remove(&r.0);
                });
            }
            self.shared.delete(&numbers(&reservations)).await
        })
    }

    fn give_up(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_open(OP_GIVE_UP)?;
            // One that this gate holds is its own to release.
            let held = |r: &ReservationId| self.shared.held.lock().contains(&r.0);
            let ids: Vec<i64> =
                reservations.iter().filter(|r| !held(r)).filter_map(|r| i64::try_from(r.0).ok()).collect();
            if ids.is_empty() {
                return Ok(());
            }
            repeat(|| async {
                let mut connection = self.shared.db.connection(OP_GIVE_UP).await?;
                connection.rows(Step::Harmless, &self.shared.sql.give_up, &[&ids]).await.map(drop)
            })
            .await
        })
    }

    fn apply(&self, mut found: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        Box::pin(async move {
            self.check_open(OP_APPLY)?;
            let mut standing = Vec::new();
            while !found.is_empty() {
                let rest = found.split_off(self.batch.min(found.len()));
                standing.extend(self.storing.call(OP_APPLY, found).await?.into_iter().flatten());
                found = rest;
            }
            Ok(standing)
        })
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<IndexCheckpoint>>> {
        Box::pin(async move {
            self.check_open(meta::OP_CHECKPOINT)?;
            self.shared.checkpoint().await
        })
    }

    fn commit_checkpoint(&self, checkpoint: IndexCheckpoint) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_open(meta::OP_CHECKPOINT)?;
            repeat(|| self.shared.commit_checkpoint(&checkpoint)).await
        })
    }

    fn get(&self, key: AdmissionKey) -> BoxFuture<'_, Result<Option<AdmissionEntry>>> {
        Box::pin(async move {
            let key = key_bytes(&key);
            let found = self.read(OP_GET, &self.shared.sql.get, &[&key.as_slice()]).await?;
            Ok(found.into_iter().next())
        })
    }

    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        Box::pin(async move {
            let first = key_bytes(&AdmissionKey { event, dedupe: [0; 32] });
            let last = key_bytes(&AdmissionKey { event, dedupe: [0xff; 32] });
            self.read(OP_GET, &self.shared.sql.find, &[&first.as_slice(), &last.as_slice()]).await
        })
    }

    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        Box::pin(async move {
            // No bytes at all sort before every key.
            let after = after.as_ref().map(key_bytes);
            let after: &[u8] = after.as_ref().map_or(&[], <[u8; 40]>::as_slice);
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            self.read("scan admission index", &self.shared.sql.scan, &[&after, &max]).await
        })
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<OpenReservation>>> {
        const OP: &str = "list open reservations";
        Box::pin(async move {
            self.check_open(OP)?;
            let mut connection = self.shared.db.connection(OP).await?;
            let rows = connection.rows(Step::Harmless, &self.shared.sql.open, &[]).await?;
            let now = Timestamp::now();
            rows.iter().map(|row| row::open(OP, self.shared.db.place(), row, now)).collect()
        })
    }

    fn record_policy(&self, epoch: PolicyEpoch) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_open(meta::OP_POLICY)?;
            repeat(|| self.shared.record_policy(&epoch)).await
        })
    }

    fn policy_history(&self) -> BoxFuture<'_, Result<Vec<PolicyEpoch>>> {
        Box::pin(async move {
            self.check_open(meta::OP_POLICY)?;
            self.shared.policies().await
        })
    }

    fn approximate_len(&self) -> u64 {
        self.shared.len.load(Ordering::Relaxed)
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_open(OP_PROBE)?;
            self.shared.probe().await
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.reserving.close().await;
            self.storing.close().await;
            self.shared.db.close();
            Ok(())
        })
    }
}
