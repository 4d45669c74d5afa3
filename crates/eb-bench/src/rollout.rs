//! What a rollout in its baseline phase costs over the bare bus.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eb_contract::{BoxFuture, EventBusPublisher};
use eb_file::FileBus;
use eb_memory::{MemoryBus, MemoryRegisterStore};
use eb_rollout::{PublisherFactory, RolloutBus, RolloutConfig, RolloutParts, SideBus};

use crate::Options;
use crate::measure::{Case, Result, Row, Sample, measure};
use crate::publish::{file_bus, record, topic};

fn factory<P: EventBusPublisher>(open: impl Fn() -> P + Send + Sync + 'static) -> PublisherFactory {
    Arc::new(move || -> BoxFuture<'static, eb_contract::Result<Arc<dyn EventBusPublisher>>> {
        let publisher: Arc<dyn EventBusPublisher> = Arc::new(open());
        Box::pin(async move { Ok(publisher) })
    })
}

async fn rollout(file: &FileBus) -> Result<RolloutBus> {
    let (file, memory) = (file.clone(), Arc::new(MemoryBus::new()));
    let old = SideBus {
        name: "file".to_owned(),
        reader: Arc::new(file.reader()),
        admin: Arc::new(file.admin()),
        publisher: factory(move || file.publisher()),
        shows_within: Duration::ZERO,
    };
    let new = SideBus {
        name: "memory".to_owned(),
        reader: Arc::new(memory.reader()),
        admin: Arc::new(memory.admin()),
        publisher: factory(move || memory.publisher()),
        shows_within: Duration::ZERO,
    };
    let parts = RolloutParts { old, new, registers: Arc::new(MemoryRegisterStore::new()) };
    Ok(RolloutBus::open(parts, RolloutConfig::default()).await?)
}

/// `publishers` tasks, each publishing one record after the other's ACK.
fn one_by_one(folder: &Path, publishers: u64, records: u64, over_rollout: bool) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (file, _) = file_bus(folder, false)?;
        let opened = if over_rollout { Some(rollout(&file).await?) } else { None };
        let publisher: Arc<dyn EventBusPublisher> = match &opened {
            Some(bus) => Arc::new(bus.publisher()),
            None => Arc::new(file.publisher()),
        };
        let (topic, record) = (topic()?, record(256)?);
        publisher.publish(&topic, record.clone()).await?;
        let started = Instant::now();
        let tasks: Vec<_> = (0..publishers)
            .map(|_| {
                let (publisher, topic, record) = (publisher.clone(), topic.clone(), record.clone());
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    for _ in 0..records / publishers {
                        let one = Instant::now();
                        publisher.publish(&topic, record.clone()).await?;
                        latencies.push(one.elapsed());
                    }
                    Ok::<_, eb_contract::Error>(latencies)
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await??);
        }
        let elapsed = started.elapsed();
        publisher.close().await?;
        Ok(Sample::new(records / publishers * publishers, elapsed).latencies(latencies))
    })
}

/// Callers without a disk: what the rollout's own work costs where the bus costs next to nothing.
fn in_memory(records: u64, over_rollout: bool) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        use eb_contract::EventBusAdmin;
        let (old, new) = (Arc::new(MemoryBus::new()), Arc::new(MemoryBus::new()));
        old.admin().create_topic(&topic()?, 1).await?;
        let side = |name: &str, bus: &Arc<MemoryBus>| {
            let of = bus.clone();
            SideBus {
                name: name.to_owned(),
                reader: Arc::new(bus.reader()),
                admin: Arc::new(bus.admin()),
                publisher: factory(move || of.publisher()),
                shows_within: Duration::ZERO,
            }
        };
        let registers = Arc::new(MemoryRegisterStore::new());
        let parts = RolloutParts { old: side("old", &old), new: side("new", &new), registers };
        let opened =
            if over_rollout { Some(RolloutBus::open(parts, RolloutConfig::default()).await?) } else { None };
        let publisher: Arc<dyn EventBusPublisher> = match &opened {
            Some(bus) => Arc::new(bus.publisher()),
            None => Arc::new(old.publisher()),
        };
        let (topic, record) = (topic()?, record(256)?);
        publisher.publish(&topic, record.clone()).await?;
        let started = Instant::now();
        for _ in 0..records {
            publisher.publish(&topic, record.clone()).await?;
        }
        Ok(Sample::new(records, started.elapsed()))
    })
}

pub(crate) fn run(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let (few, many) = (options.scale(4_000), options.scale(128_000));
    measure(
        "rollout in its baseline phase, envelopes of 256 B",
        options.rounds,
        scratch,
        vec![
            Case::new("file bus, 1 publisher", |f| one_by_one(f, 1, few, false)),
            Case::new("rollout, 1 publisher", |f| one_by_one(f, 1, few, true))
                .against("file bus, 1 publisher")
                .aim(0.9),
            Case::new("file bus, 64 publishers", |f| one_by_one(f, 64, many, false)),
            Case::new("rollout, 64 publishers", |f| one_by_one(f, 64, many, true))
                .against("file bus, 64 publishers")
                .aim(0.9),
            Case::new("memory bus", |_| in_memory(many, false)),
            Case::new("rollout over memory", |_| in_memory(many, true)).against("memory bus"),
        ],
    )
}
