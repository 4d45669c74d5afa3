//! A consumer whose handler does nothing, against a bare replay of the same log in the same run: what order, marks, checkpoints and leases cost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use canonical_envelope::Envelope;
use eb_checkpoint_pg::{PgCheckpointStore, PgConfig, PgDeadLetters, PgLeases, PgProcessed, PgRegisterStore};
use eb_consumer::{ConsumerSource, EventConsumer, Stores};
use eb_contract::{
    EnvelopeRef, EventBusPublisher, EventBusReader, PartitionId, PartitionKey, PublishRecord, ReadLimit,
    ReadState, StartAt, Topic,
};
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore};
use eb_memory::{
    MemoryCheckpointStore, MemoryDeadLetters, MemoryLeases, MemoryProcessed, MemoryRegisterStore,
};
use eb_store_local::{
    EmbeddedDeadLetters, EmbeddedLeases, EmbeddedProcessed, FileRegisterStore, MarksConfig,
};
use eb_testkit::events::{Generator, Mix};
#[cfg(unix)]
use eb_testkit::services::{Postgres, PostgresOptions};
use tokio::sync::Notify;

use crate::Options;
use crate::measure::{Case, Result, Row, Sample, measure};

const NAME: &str = "bench";

/// A log of generated events.
struct Log {
    root: PathBuf,
    events: u64,
    bytes: usize,
}

fn topic() -> Result<Topic> {
    Ok(Topic::new("fp.bus.traffic.v1")?)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

impl Log {
    fn fill(root: PathBuf, events: u64) -> Result<Self> {
        runtime()?.block_on(async {
            let bus = FileBus::open(FileBusConfig::new(&root))?;
            bus.create_topic(&topic()?, 1)?;
            let publisher = bus.publisher();
            let mut generator = Generator::new(1, Mix::CLEAN);
            let (mut left, mut bytes) = (events, 0);
            while left > 0 {
                let count = left.min(5_000);
                let batch: Result<Vec<_>> = generator
                    .by_ref()
                    .take(usize::try_from(count)?)
                    .map(|e| {
                        bytes += e.bytes.len();
                        Ok(PublishRecord::new(
                            PartitionKey::new(e.partition_key.clone())?,
                            EnvelopeRef::new(e.bytes)?,
                        ))
                    })
                    .collect();
                for result in publisher.publish_batch(&topic()?, batch?).await {
                    result?;
                }
                left -= count;
            }
            publisher.close().await?;
            Ok(Self { root, events, bytes: bytes / usize::try_from(events)? })
        })
    }

    fn reader(&self) -> Result<impl EventBusReader + use<>> {
        Ok(FileBus::open(FileBusConfig::new(&self.root))?.reader())
    }

    /// Hands every record out; `look` is what is done with each.
    fn replay(&self, look: impl Fn(&[u8]) -> Result<()>) -> Result<Sample> {
        runtime()?.block_on(async {
            let reader = self.reader()?;
            let started = Instant::now();
            let mut cursor = reader.cursor(&topic()?, PartitionId(0), StartAt::Earliest).await?;
            let mut records = 0;
            loop {
                let batch = cursor.next(ReadLimit::default()).await?;
                records += batch.records.len() as u64;
                batch.records.iter().try_for_each(|r| look(r.envelope.as_bytes()))?;
                if batch.state != ReadState::More {
                    break;
                }
            }
            if records != self.events {
                return Err(format!("{records} records came back of {}", self.events).into());
            }
            Ok(Sample::new(records, started.elapsed()))
        })
    }

    /// From the start of the consumer until everything is handled, recorded, and behind the stored checkpoint.
    async fn consume(&self, stores: Stores) -> Result<Sample> {
        let (handled, done) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (count, all, told) = (Arc::clone(&handled), self.events, Arc::clone(&done));
        let consumer = EventConsumer::builder(NAME)
            .topic(topic()?)
            .source(ConsumerSource::Log(Arc::new(self.reader()?)))
            .stores(stores)
            .otherwise(move |_| {
                if count.fetch_add(1, Ordering::Relaxed) + 1 == all {
                    told.notify_one();
                }
                std::future::ready(Ok(()))
            })
            .build()?;
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let worker = consumer.start().await?;
        done.notified().await;
        // Ends with the last step durable.
        worker.shutdown().await?;
        let elapsed = started.elapsed();
        let per_event = (cpu_seconds() - cpu) * 1e6 / self.events as f64;
        if handled.load(Ordering::Relaxed) != self.events {
            return Err(format!(
                "{} of {} events were handled",
                handled.load(Ordering::Relaxed),
                self.events
            )
            .into());
        }
        let thousands = self.events as f64 / elapsed.as_secs_f64() / 1e3;
        Ok(Sample::new(self.events, elapsed).with("thousand/s", thousands).with("CPU µs/event", per_event))
    }
}

/// The processor time of this process so far; 0 where nobody tells.
fn cpu_seconds() -> f64 {
    // utime and stime in ticks of 10 ms: fields 14 and 15, behind the name in parentheses.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn memory_stores() -> Stores {
    Stores {
        checkpoints: Arc::new(MemoryCheckpointStore::new()),
        processed: Arc::new(MemoryProcessed::new()),
        dead_letters: Arc::new(MemoryDeadLetters::new()),
        leases: Arc::new(MemoryLeases::new()),
        registers: Arc::new(MemoryRegisterStore::new()),
    }
}

/// As the `local` profile has them: everything on disk, synced.
fn embedded_stores(folder: &Path) -> Stores {
    Stores {
        checkpoints: Arc::new(FileCheckpointStore::open(folder)),
        processed: Arc::new(EmbeddedProcessed::open(&MarksConfig::new(folder))),
        dead_letters: Arc::new(EmbeddedDeadLetters::open(folder)),
        leases: Arc::new(EmbeddedLeases::open(folder)),
        registers: Arc::new(FileRegisterStore::open(folder)),
    }
}

/// In a schema of its own, made anew.
async fn postgres_stores(url: &str, run: u64) -> Result<Stores> {
    let config = PgConfig { schema: format!("bench_{run}"), ..PgConfig::new(url) };
    Ok(Stores {
        checkpoints: Arc::new(PgCheckpointStore::open(&config).await?),
        processed: Arc::new(PgProcessed::open(&config).await?),
        dead_letters: Arc::new(PgDeadLetters::open(&config).await?),
        leases: Arc::new(PgLeases::open(&config).await?),
        registers: Arc::new(PgRegisterStore::open(&config).await?),
    })
}

fn read_envelope(bytes: &[u8]) -> Result<()> {
    let envelope = Envelope::parse(bytes)?;
    std::hint::black_box(envelope.dedupe_key());
    Ok(())
}

/// A consumer against a bare replay.
pub(crate) fn run(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let log = Log::fill(scratch.join("consumer-log"), options.scale(500_000))?;
    measure(
        &format!("consumer, no-op handler, events of {} B, one partition", log.bytes),
        options.rounds,
        scratch,
        vec![
            Case::new("bare replay", |_| log.replay(|_| Ok(()))),
            Case::new("replay that reads each envelope", |_| log.replay(read_envelope))
                .against("bare replay"),
            Case::new("consumer, stores in memory", |_| runtime()?.block_on(log.consume(memory_stores())))
                .against("bare replay"),
            Case::new("consumer, embedded stores", |f| runtime()?.block_on(log.consume(embedded_stores(f))))
                .against("bare replay")
                .at_least("thousand/s", 100.0),
        ],
    )
}

/// A consumer whose marks and checkpoints are in a Postgres that syncs. The server is started for the run.
#[cfg(unix)]
pub(crate) fn postgres(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let log = Log::fill(scratch.join("consumer-log"), options.scale(200_000))?;
    let server = Postgres::start(&PostgresOptions::default())?;
    let (url, mut run) = (server.url(), 0);
    measure(
        "consumer, no-op handler, stores in Postgres, fsync on",
        options.rounds,
        scratch,
        vec![
            Case::new("bare replay", |_| log.replay(|_| Ok(()))),
            Case::new("consumer, stores in Postgres", |_| {
                run += 1;
                runtime()?.block_on(async { log.consume(postgres_stores(&url, run).await?).await })
            })
            .against("bare replay")
            .at_least("thousand/s", 10.0),
        ],
    )
}
