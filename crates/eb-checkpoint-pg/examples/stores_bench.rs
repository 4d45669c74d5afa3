//! How fast the stores are on a Postgres of this machine with `fsync` on, as ratios to bare statements of the same work
//! on the same connections: `cargo run --release -p eb-checkpoint-pg --example stores_bench`.
//!
//! Rounds of both take turns; medians are printed.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eb_checkpoint_pg::{PgAdmissionIndex, PgCheckpointStore, PgConfig, PgIndexConfig, PgProcessed};
use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Checkpoint, CheckpointStore, Confirmation, EventIdentity,
    Lease, Mark, MarkScope, PolicyRev, ProcessedStore, Progress, ReserveRequest, Reserved,
};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, EbRef, Offset, OffsetKind, PartitionId, Timestamp, Topic,
};
use eb_testkit::services::{Postgres, PostgresOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T = ()> = Result<T, Failure>;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(400);

fn topic() -> Outcome<Topic> {
    Ok(Topic::new("fp.bus.traffic.v1")?)
}

/// Processor time of this process so far, in ticks of 10 ms; 0 where the system does not tell.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    fields.into_iter().flatten().filter_map(|f| f.parse::<u64>().ok()).sum()
}

/// What rounds have come to.
#[derive(Default)]
struct Rates {
    a_second: Vec<f64>,
    done: u64,
    ticks: u64,
}

impl Rates {
    fn push(&mut self, (a_second, done, ticks): (f64, u64, u64)) {
        self.a_second.push(a_second);
        self.done += done;
        self.ticks += ticks;
    }

    fn median(&self) -> f64 {
        let mut rates = self.a_second.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }

    fn cpu_micros(&self) -> f64 {
        self.ticks as f64 * 10_000.0 / self.done.max(1) as f64
    }
}

/// Runs `tasks` loops for a round; each turn of a loop does what it says. Gives back how much was done a second, how
/// much in all, and what processor time the client took.
async fn rate<F>(
    tasks: usize,
    turn: impl Fn(usize, u64) -> F + Clone + Send + 'static,
) -> Outcome<(f64, u64, u64)>
where
    F: Future<Output = Outcome<u64>> + Send + 'static,
{
    let (start, before) = (Instant::now(), ticks());
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let turn = turn.clone();
            tokio::spawn(async move {
                let (mut done, mut n) = (0, 0);
                while start.elapsed() < ROUND {
                    done += turn(task, n).await?;
                    n += 1;
                }
                Ok::<u64, Failure>(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in running {
        done += task.await??;
    }
    Ok((done as f64 / start.elapsed().as_secs_f64(), done, ticks() - before))
}

fn config(server: &Postgres) -> PgConfig {
    PgConfig { max_connections: 16, ..PgConfig::new(server.url()) }
}

async fn checkpoints(server: &Postgres, tasks: usize) -> Outcome {
    let store = PgCheckpointStore::open(&config(server)).await?;
    let pool = store.pool().clone();
    let client = pool.get().await?;
    client
        .batch_execute(
            "DROP TABLE IF EXISTS bare; \
             CREATE TABLE bare (consumer text, topic text, partition_id bigint, cut text, version bigint, \
             committed_at timestamptz, PRIMARY KEY (consumer, topic, partition_id)) WITH (fillfactor = 50)",
        )
        .await?;
    let insert = "INSERT INTO bare VALUES ('scorer', 'fp.bus.traffic.v1', $1, '0', 0, now())";
    for task in 0..tasks {
        client.execute(insert, &[&(task as i64)]).await?;
    }
    drop(client);
    let lease = Lease { owner: "bench".to_owned(), epoch: 1 };
    let cell = || Arc::new(tokio::sync::Mutex::new(None::<Checkpoint>));
    let standing: Arc<Vec<_>> = Arc::new((0..tasks).map(|_| cell()).collect());
    for (task, cell) in standing.iter().enumerate() {
        let first = Checkpoint {
            consumer: ConsumerName::new("scorer")?,
            topic: topic()?,
            partition_id: PartitionId(u32::try_from(task)?),
            cut: Cut::Begin,
            caught_up_at: None,
            version: 0,
            bus_incarnation: BusIncarnation::new("life-1")?,
            lease: None,
            committed_at: None,
        };
        let known = store.load(&first.consumer, &first.topic, first.partition_id).await?;
        *cell.lock().await = Some(match known {
            Some(known) => known,
            None => store.commit(&[first], &lease).await.remove(0)?,
        });
    }
    let (mut ours, mut bare) = (Rates::default(), Rates::default());
    for _ in 0..ROUNDS {
        let (store, standing, lease) = (store.clone(), standing.clone(), lease.clone());
        ours.push(
            rate(tasks, move |task, _| {
                let (store, cell, lease) = (store.clone(), standing[task].clone(), lease.clone());
                async move {
                    let mut cell = cell.lock().await;
                    let mut on = cell.take().ok_or("the checkpoint is gone")?;
                    let at = on.cut.offset().and_then(Offset::as_u64).unwrap_or(0);
                    on.cut = Cut::Next(Offset::from_u64(OffsetKind::FileLine, at + 1));
                    *cell = Some(store.commit(std::slice::from_ref(&on), &lease).await.remove(0)?);
                    Ok(1)
                }
            })
            .await?,
        );
        let pool = pool.clone();
        bare.push(
            rate(tasks, move |task, n| {
                let pool = pool.clone();
                async move {
                    let client = pool.get().await?;
                    let sql = "UPDATE bare SET cut = $3, version = version + 1, committed_at = now() \
                               WHERE consumer = $1 AND topic = $2 AND partition_id = $4";
                    let statement = client.prepare_cached(sql).await?;
                    let cut = n.to_string();
                    client
                        .execute(&statement, &[&"scorer", &"fp.bus.traffic.v1", &cut, &(task as i64)])
                        .await
                        .map_err(Failure::from)
                }
            })
            .await?,
        );
    }
    report(&format!("checkpoint commits, {tasks} at once"), &ours, &bare);
    Ok(())
}

fn report(what: &str, ours: &Rates, bare: &Rates) {
    println!(
        "{what:<50} {:>8.0}/s {:>6.1} us CPU   bare {:>8.0}/s {:>6.1} us CPU   ratio {:.2}",
        ours.median(),
        ours.cpu_micros(),
        bare.median(),
        bare.cpu_micros(),
        ours.median() / bare.median()
    );
}

fn key(n: u64) -> AdmissionKey {
    let mut rng = eb_testkit::Rng::new(n);
    let mut dedupe = [0; 32];
    dedupe.chunks_mut(8).for_each(|c| c.copy_from_slice(&rng.next_u64().to_le_bytes()));
    AdmissionKey { event: rng.next_u64().to_le_bytes(), dedupe }
}

fn bytes(key: &AdmissionKey) -> Vec<u8> {
    [&key.event[..], &key.dedupe[..]].concat()
}

async fn admissions(server: &Postgres, tasks: usize, batch: u64) -> Outcome {
    let gate = PgIndexConfig::new("bench");
    let index = Arc::new(PgAdmissionIndex::open(&config(server), &gate).await?);
    let pool = PgCheckpointStore::open(&config(server)).await?.pool().clone();
    pool.get()
        .await?
        .batch_execute(
            "DROP TABLE IF EXISTS raw; \
             CREATE TABLE raw (key bytea PRIMARY KEY, payload_hash bytea, topic text, start text, \
             policy text, gate_id bigint, reserved_at timestamptz, lease_until timestamptz)",
        )
        .await?;
    let cuts: Vec<_> = (0..4u32)
        .map(|p| (PartitionId(p), Cut::Next(Offset::from_u64(OffsetKind::FileLine, 1_000_000))))
        .collect();
    let policy = Arc::new(PolicyRev {
        policy_id: "ig.policy.v0".to_owned(),
        revision: "r1".to_owned(),
        content_digest: "ab".repeat(32),
    });
    let topic = topic()?;
    let start_json = serde_json::to_string(&cuts)?;
    let policy_json = serde_json::to_string(policy.as_ref())?;
    // Keys of its own for every measurement.
    let next = Arc::new(std::sync::atomic::AtomicU64::new((tasks as u64) << 48));
    let take = move |next: &std::sync::atomic::AtomicU64| {
        next.fetch_add(batch, std::sync::atomic::Ordering::Relaxed)
    };
    let (mut reserved, mut admitted, mut raw) = (Rates::default(), Rates::default(), Rates::default());
    for _ in 0..ROUNDS {
        for confirm in [false, true] {
            let (index, next, topic) = (index.clone(), next.clone(), topic.clone());
            let (cuts, policy) = (cuts.clone(), policy.clone());
            let measured = rate(tasks, move |_, _| {
                let (index, topic, from) = (index.clone(), topic.clone(), take(&next));
                let (cuts, policy) = (cuts.clone(), policy.clone());
                async move {
                    let requests: Vec<_> = (from..from + batch)
                        .map(|n| ReserveRequest {
                            key: key(n),
                            payload_hash: [7; 32],
                            topic: topic.clone(),
                            start: cuts.clone(),
                            policy: policy.clone(),
                        })
                        .collect();
                    let answers = index.reserve(&requests).await?;
                    if !confirm {
                        return Ok(batch);
                    }
                    let mut confirmed = Vec::new();
                    for (n, answer) in (from..).zip(answers) {
                        let Reserved::Fresh(reservation) = answer else { return Err("not fresh".into()) };
                        let eb_ref = EbRef {
                            topic: topic.clone(),
                            partition_id: PartitionId(0),
                            offset: Offset::from_u64(OffsetKind::FileLine, n),
                            published_at_utc: Timestamp::now(),
                        };
                        let entry = AdmissionEntry { key: key(n), payload_hash: [7; 32], eb_ref };
                        confirmed.push(Confirmation { reservation, entry });
                    }
                    index.confirm(confirmed).await?;
                    Ok(batch)
                }
            });
            if confirm { &mut admitted } else { &mut reserved }.push(measured.await?);
        }
        let (pool, next) = (pool.clone(), next.clone());
        let (start_json, policy_json) = (start_json.clone(), policy_json.clone());
        raw.push(
            rate(tasks, move |_, _| {
                let (pool, from) = (pool.clone(), take(&next));
                let (start_json, policy_json) = (start_json.clone(), policy_json.clone());
                async move {
                    let keys: Vec<_> = (from..from + batch).map(|n| bytes(&key(n))).collect();
                    let hashes: Vec<&[u8]> = keys.iter().map(|_| [7u8; 32].as_slice()).collect();
                    let client = pool.get().await?;
                    let sql = "INSERT INTO raw SELECT i.key, i.hash, 'fp.bus.traffic.v1', $3, $4, 1, now(), \
                               now() FROM unnest($1::bytea[], $2::bytea[]) i(key, hash)";
                    let statement = client.prepare_cached(sql).await?;
                    client
                        .execute(&statement, &[&keys, &hashes, &start_json, &policy_json])
                        .await
                        .map_err(Failure::from)
                }
            })
            .await?,
        );
    }
    report(&format!("reservations, {tasks} callers x {batch}, to raw INSERTs"), &reserved, &raw);
    report(&format!("reserved and confirmed, {tasks} callers x {batch}"), &admitted, &raw);
    index.close().await?;
    Ok(())
}

/// One event a call, as a gate confirms them.
async fn single_calls(server: &Postgres, callers: usize) -> Outcome {
    let gate = PgIndexConfig::new("bench");
    let index = Arc::new(PgAdmissionIndex::open(&config(server), &gate).await?);
    let topic = topic()?;
    let next = Arc::new(std::sync::atomic::AtomicU64::new((callers as u64) << 32));
    let mut rates = Rates::default();
    for _ in 0..5 {
        let (index, topic, next) = (index.clone(), topic.clone(), next.clone());
        let measured = rate(callers, move |_, _| {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (index, topic) = (index.clone(), topic.clone());
            async move {
                let policy = PolicyRev {
                    policy_id: "p".to_owned(),
                    revision: "r".to_owned(),
                    content_digest: "d".to_owned(),
                };
                let request = ReserveRequest {
                    key: key(n),
                    payload_hash: [7; 32],
                    topic: topic.clone(),
                    start: Vec::new(),
                    policy: policy.into(),
                };
                let Reserved::Fresh(reservation) = index.reserve(&[request]).await?.remove(0) else {
                    return Err("not fresh".into());
                };
                let eb_ref = EbRef {
                    topic,
                    partition_id: PartitionId(0),
                    offset: Offset::from_u64(OffsetKind::FileLine, n),
                    published_at_utc: Timestamp::now(),
                };
                let entry = AdmissionEntry { key: key(n), payload_hash: [7; 32], eb_ref };
                index.confirm(vec![Confirmation { reservation, entry }]).await?;
                Ok(1)
            }
        });
        rates.push(measured.await?);
    }
    let what = format!("reserve + confirm one by one, {callers} callers");
    println!("{what:<50} {:>8.0}/s {:>6.1} us CPU", rates.median(), rates.cpu_micros());
    index.close().await?;
    Ok(())
}

/// Steps of consumers, each of a partition of its own: look up, record with the checkpoint; to bare batched `INSERT`s of the same rows.
async fn steps(server: &Postgres, tasks: usize, batch: u64) -> Outcome {
    let store = PgProcessed::open(&config(server)).await?;
    let pool = store.checkpoints().pool().clone();
    pool.get()
        .await?
        .batch_execute(
            "DROP TABLE IF EXISTS raw_marks; \
             CREATE TABLE raw_marks (subscriber_name text, bus_incarnation text, topic text, partition_id bigint, \
             offset_kind text, at numeric, event_id text, dedupe_key bytea, processed_at timestamptz, \
             PRIMARY KEY (subscriber_name, bus_incarnation, topic, partition_id, offset_kind, at))",
        )
        .await?;
    let lease = Lease { owner: "bench".to_owned(), epoch: 1 };
    let cell = || Arc::new(tokio::sync::Mutex::new(None::<Checkpoint>));
    let standing: Arc<Vec<_>> = Arc::new((0..tasks).map(|_| cell()).collect());
    let name = format!("steps-{tasks}-{batch}");
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (mut ours, mut bare) = (Rates::default(), Rates::default());
    for _ in 0..ROUNDS {
        let (store, standing, lease, name) = (store.clone(), standing.clone(), lease.clone(), name.clone());
        let measured = rate(tasks, move |task, _| {
            let (store, cell, lease, name) =
                (store.clone(), standing[task].clone(), lease.clone(), name.clone());
            async move {
                let mut cell = cell.lock().await;
                let on = match cell.take() {
                    Some(on) => on,
                    None => Checkpoint {
                        consumer: ConsumerName::new(&name)?,
                        topic: topic()?,
                        partition_id: PartitionId(u32::try_from(task)?),
                        cut: Cut::Begin,
                        caught_up_at: None,
                        version: 0,
                        bus_incarnation: BusIncarnation::new("life-1")?,
                        lease: None,
                        committed_at: None,
                    },
                };
                let from = on.cut.offset().and_then(Offset::as_u64).unwrap_or(0);
                let mark = |n: u64| {
                    let dedupe = key(n << 8 | task as u64).dedupe;
                    let event = EventIdentity { dedupe, event_id: format!("{n:032x}").into() };
                    Mark { offset: Offset::from_u64(OffsetKind::FileLine, n), event: Some(event) }
                };
                let marks: Vec<Mark> = (from..from + batch).map(mark).collect();
                let scope = MarkScope {
                    subscriber: on.consumer.clone(),
                    bus_incarnation: on.bus_incarnation.clone(),
                    topic: on.topic.clone(),
                    partition_id: on.partition_id,
                };
                store.seen(&scope, &marks, false).await?;
                let committed = on.cut;
                let cut = Cut::Next(Offset::from_u64(OffsetKind::FileLine, from + batch));
                let step = Progress { marks, checkpoint: Checkpoint { cut, ..on }, committed };
                *cell = store.record(&step, &lease).await?;
                Ok(batch)
            }
        });
        ours.push(measured.await?);
        let (pool, next) = (pool.clone(), next.clone());
        let measured = rate(tasks, move |_, _| {
            let (pool, from) = (pool.clone(), next.fetch_add(batch, std::sync::atomic::Ordering::Relaxed));
            async move {
                let at: Vec<String> = (from..from + batch).map(|n| n.to_string()).collect();
                let ids: Vec<String> = (from..from + batch).map(|n| format!("{n:032x}")).collect();
                let keys: Vec<Vec<u8>> = (from..from + batch).map(|n| key(n).dedupe.to_vec()).collect();
                let client = pool.get().await?;
                let sql = "INSERT INTO raw_marks SELECT 'steps', 'life-1', 'fp.bus.traffic.v1', 0, 'file_line', \
                           i.at::numeric, i.id, i.key, now() FROM unnest($1::text[], $2::text[], $3::bytea[]) i(at, id, key)";
                let statement = client.prepare_cached(sql).await?;
                client.execute(&statement, &[&at, &ids, &keys]).await.map_err(Failure::from)
            }
        });
        bare.push(measured.await?);
    }
    report(&format!("marked events, {tasks} partitions x {batch}, to raw INSERTs"), &ours, &bare);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let server = tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions::default())).await??;
    for tasks in [1, 8] {
        checkpoints(&server, tasks).await?;
    }
    for (tasks, batch) in [(2, 500), (4, 1000)] {
        admissions(&server, tasks, batch).await?;
    }
    for (tasks, batch) in [(1, 100), (1, 500), (4, 500)] {
        steps(&server, tasks, batch).await?;
    }
    for callers in [1, 64, 512] {
        single_calls(&server, callers).await?;
    }
    tokio::task::spawn_blocking(move || drop(server)).await?;
    Ok(())
}
