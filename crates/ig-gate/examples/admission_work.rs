//! How much work one admission is: everything that the gate does for an event, with an index in memory and a bus that
//! ACKs at once. One thread, its CPU time (where the system tells it; else the clock's). For comparison: reading each
//! event into a `serde_json::Value`.
//!
//! Two cases: the generator's events as they come, and those of them whose sizes lie around 600 B.
//!
//! `cargo run --release -p ig-gate --example admission_work [events] [rounds] [all|600]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use eb_contract::{
    BoxFuture, Capabilities, EbRef, EventBusAdmin as _, EventBusPublisher, Offset, OffsetKind, PartitionId,
    PublishRecord, Result, Timestamp, Topic,
};
use eb_memory::{MemoryAdmissionIndex, MemoryBus};
use eb_testkit::events::{Generator, Mix};
use ig_gate::policy::{PolicyFile, PolicyFiles};
use ig_gate::{Gate, GateConfig, GateParts, LogQuarantine, Policy};

/// ACKs at once and keeps nothing.
struct Nowhere {
    capabilities: Capabilities,
    next: AtomicU64,
}

impl EventBusPublisher for Nowhere {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn publish(&self, topic: &Topic, _record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        let offset = self.next.fetch_add(1, Ordering::Relaxed);
        let eb_ref = EbRef {
            topic: topic.clone(),
            partition_id: PartitionId(0),
            offset: Offset::from_u64(OffsetKind::MemoryIndex, offset),
            published_at_utc: Timestamp::EPOCH,
        };
        Box::pin(std::future::ready(Ok(eb_ref)))
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        let answers: Vec<_> = records.into_iter().map(|record| self.publish(topic, record)).collect();
        Box::pin(futures_util::future::join_all(answers))
    }

    fn probe(&self, _topic: &Topic) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn policy() -> Result<Policy, Box<dyn std::error::Error>> {
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let read = |name: &str| std::fs::read(config.join("ig").join(name));
    let (partitioning, class_map, schema_policy) =
        (read("partitioning_profiles_v0.yaml")?, read("class_map_v0.yaml")?, read("schema_policy_v0.yaml")?);
    let files = PolicyFiles {
        policy_id: "ig.policy",
        revision: "v0",
        partitioning: PolicyFile { name: "partitioning_profiles_v0.yaml", bytes: &partitioning },
        class_map: PolicyFile { name: "class_map_v0.yaml", bytes: &class_map },
        schema_policy: PolicyFile { name: "schema_policy_v0.yaml", bytes: &schema_policy },
    };
    let source = |path: &str| std::fs::read(config.join("schemas").join(path)).map_err(|e| e.to_string());
    Ok(Policy::load(files, &source)?)
}

async fn open() -> Result<Gate, Box<dyn std::error::Error>> {
    let (bus, policy) = (MemoryBus::new(), policy()?);
    for stream in policy.streams() {
        bus.admin().create_topic(&stream, 1).await?;
    }
    let evidence = Topic::new("ig.quarantine.v1")?;
    bus.admin().create_topic(&evidence, 1).await?;
    let capabilities = bus.capabilities().clone();
    let reader = Arc::new(bus.reader());
    let quarantine = LogQuarantine::new(Arc::new(bus.publisher()), reader.clone(), evidence, 64 << 10);
    let parts = GateParts {
        publisher: Arc::new(Nowhere { capabilities, next: AtomicU64::new(0) }),
        reader,
        index: Arc::new(MemoryAdmissionIndex::new()),
        quarantine: Arc::new(quarantine),
        policy,
        config: GateConfig::default(),
    };
    Ok(Gate::open(parts).await?)
}

/// This thread's CPU time where Linux tells it, so that a busy machine disturbs less.
struct Stopwatch {
    clock: Instant,
    cpu: Option<u64>,
}

impl Stopwatch {
    fn start() -> Self {
        Self { clock: Instant::now(), cpu: cpu_nanoseconds() }
    }

    fn seconds(&self) -> f64 {
        match (self.cpu, cpu_nanoseconds()) {
            (Some(from), Some(to)) => (to - from) as f64 / 1e9,
            _ => self.clock.elapsed().as_secs_f64(),
        }
    }
}

fn cpu_nanoseconds() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// How far an event's size may lie from what a case asks for.
const TOLERANCE: usize = 60;

/// Clean events; those of about `size` bytes where it is given, so that their mean is within a few bytes of it.
fn events(count: usize, size: Option<usize>) -> Vec<Bytes> {
    let mut off = 0;
    Generator::new(1, Mix::CLEAN)
        .map(|event| Bytes::from(event.bytes))
        .filter(|event| {
            let Some(size) = size else { return true };
            let fits = event.len().abs_diff(size) <= TOLERANCE;
            // Neither the smaller nor the larger ones may win.
            let error = event.len() as i64 - size as i64;
            let balanced = fits && (off == 0 || (off > 0) != (error > 0));
            off += if balanced { error } else { 0 };
            balanced
        })
        .take(count)
        .collect()
}

/// Microseconds of one thread for each event, through a gate of its own.
fn admit(runtime: &tokio::runtime::Runtime, events: &[Bytes]) -> Result<f64, Box<dyn std::error::Error>> {
    let gate = runtime.block_on(open())?;
    let started = Stopwatch::start();
    runtime.block_on(async {
        for (n, event) in events.iter().enumerate() {
            gate.admit(event.clone()).await?;
            if n % 1000 == 999 {
                tokio::task::yield_now().await;
            }
        }
        Ok::<_, ig_gate::GateError>(())
    })?;
    let each = started.seconds() * 1e6 / events.len().max(1) as f64;
    runtime.block_on(gate.close())?;
    Ok(each)
}

/// Microseconds of one thread for reading each event into a [`serde_json::Value`].
fn values(events: &[Bytes]) -> Result<f64, serde_json::Error> {
    let started = Stopwatch::start();
    for event in events {
        std::hint::black_box(serde_json::from_slice::<serde_json::Value>(event)?);
    }
    Ok(started.seconds() * 1e6 / events.len().max(1) as f64)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(Ok(200_000), |a| a.parse())?;
    let rounds: usize = args.next().map_or(Ok(5), |a| a.parse())?;
    let sizes = match args.next().as_deref() {
        None => vec![Some(600), None],
        Some("all") => vec![None],
        Some(size) => vec![Some(size.parse()?)],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for size in sizes {
        let events = events(count, size);
        let bytes: usize = events.iter().map(Bytes::len).sum();
        println!("{count} events of {} bytes on average", bytes / count.max(1));
        let value = values(&events)?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let each = admit(&runtime, &events)?;
            println!(
                "{each:7.2} µs each, {:9.0} events/s; a Value alone {value:5.2} µs, so {:.1} of these",
                1e6 / each,
                each / value
            );
            times.push(each);
        }
        times.sort_by(f64::total_cmp);
        if let Some(median) = times.get(times.len() / 2) {
            println!("median: {median:.2} µs each, {:.0} events/s on one core", 1e6 / median);
        }
    }
    Ok(())
}
