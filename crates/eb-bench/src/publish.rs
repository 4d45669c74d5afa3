//! Durable publishing against the raw loop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eb_contract::{EnvelopeRef, EventBusPublisher, PartitionKey, PublishRecord, Timestamp, Topic};
use eb_file::format::line::{LineParts, encode_line};
use eb_file::{FileBus, FileBusConfig, InlineCommit};

use crate::Options;
use crate::counting::CountingDisk;
use crate::measure::{Case, Result, Row, Sample, measure};
use crate::raw;

/// A record whose envelope has exactly `bytes` bytes.
pub(crate) fn record(bytes: usize) -> Result<PublishRecord> {
    let frame = r#"{"payload":""}"#.len();
    let envelope = format!(r#"{{"payload":"{}"}}"#, "x".repeat(bytes.saturating_sub(frame)));
    Ok(PublishRecord::new(PartitionKey::new("m-0042")?, EnvelopeRef::new(envelope)?))
}

pub(crate) fn topic() -> Result<Topic> {
    Ok(Topic::new("bench")?)
}

/// A new file bus as a profile opens it, with one topic of one partition.
pub(crate) fn file_bus(folder: &Path, preallocate: bool) -> Result<(FileBus, Arc<CountingDisk>)> {
    let mut config = FileBusConfig::new(folder.join("bus"));
    config.inline_commit = Some(InlineCommit::new(|work| tokio::task::block_in_place(work)));
    config.preallocate_bytes = if preallocate { 1 << 20 } else { 0 };
    let disk = Arc::new(CountingDisk::default());
    let bus = FileBus::open_on(config, disk.clone())?;
    bus.create_topic(&topic()?, 1)?;
    Ok((bus, disk))
}

/// `publishers` tasks on a runtime with `workers` threads, each publishing one record after the other's ACK.
fn one_by_one(
    folder: &Path,
    workers: usize,
    publishers: u64,
    records: u64,
    bytes: usize,
    preallocate: bool,
) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let (bus, disk) = file_bus(folder, preallocate)?;
        let publisher = bus.publisher();
        let (topic, record) = (topic()?, record(bytes)?);
        // The first publish opens the partition; it is not part of the figure.
        publisher.publish(&topic, record.clone()).await?;
        let flushes = disk.flushes();
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
        let done = records / publishers * publishers;
        let flushes = disk.flushes() - flushes;
        publisher.close().await?;
        Ok(Sample::new(done, elapsed)
            .latencies(latencies)
            .with("records per flush", done as f64 / flushes.max(1) as f64))
    })
}

/// One caller with batches of `per_batch`, each after the former's ACK.
fn in_batches(folder: &Path, per_batch: usize, batches: usize, bytes: usize) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (bus, _) = file_bus(folder, false)?;
        let publisher = bus.publisher();
        let (topic, record) = (topic()?, record(bytes)?);
        publisher.publish(&topic, record.clone()).await?;
        let mut latencies: Vec<Duration> = Vec::with_capacity(batches);
        for _ in 0..batches {
            // Making the records is the caller's work, as making its bytes is the raw loop's; neither is timed.
            let records = vec![record.clone(); per_batch];
            let one = Instant::now();
            let results = publisher.publish_batch(&topic, records).await;
            latencies.push(one.elapsed());
            results.into_iter().collect::<eb_contract::Result<Vec<_>>>()?;
        }
        let elapsed = latencies.iter().sum();
        publisher.close().await?;
        Ok(Sample::new((batches * per_batch) as u64, elapsed).latencies(latencies))
    })
}

/// How many bytes the bus's line has for such a record: what the raw loop writes, so that both do the same work.
fn line_bytes(bytes: usize) -> Result<usize> {
    let record = record(bytes)?;
    let mut line = Vec::new();
    let parts = LineParts {
        offset: 50_000,
        durable: 50_000,
        published_at: &Timestamp::now().to_text(),
        key: record.partition_key.as_str(),
        envelope: record.envelope.as_bytes(),
    };
    encode_line(&mut line, &parts);
    Ok(line.len())
}

/// All publish figures for one envelope size.
pub(crate) fn run(options: &Options, scratch: &Path, bytes: usize) -> Result<Vec<Row>> {
    let n = options.scale(4_000);
    let many = options.scale(128_000);
    let batches = options.scale(400);
    let line = line_bytes(bytes)?;
    // As `#[tokio::main]` gives a program.
    let workers = std::thread::available_parallelism()?.get();
    let group = format!("publish, envelopes of {bytes} B (lines of {line} B)");
    measure(
        &group,
        options.rounds,
        scratch,
        vec![
            Case::new("raw, 1 line a sync", |f| raw::write_and_sync(f, n, line, 1)),
            Case::new("1 publisher", |f| one_by_one(f, 1, 1, n, bytes, false))
                .against("raw, 1 line a sync")
                .aim(0.9),
            Case::new("1 publisher, preallocate", |f| one_by_one(f, 1, 1, n, bytes, true))
                .against("raw, 1 line a sync")
                .aim(1.2),
            Case::new("raw, 64 lines a sync", |f| raw::write_and_sync(f, many, line, 64)),
            Case::new("64 publishers", |f| one_by_one(f, workers, 64, many, bytes, false))
                .against("raw, 64 lines a sync")
                .aim(0.65)
                .at_least("records per flush", 60.0),
            Case::new("64 publishers, 1 worker", |f| one_by_one(f, 1, 64, many, bytes, false))
                .against("raw, 64 lines a sync"),
            Case::new("128 publishers", |f| one_by_one(f, workers, 128, many, bytes, false))
                .against("raw, 64 lines a sync")
                .aim(1.0),
            Case::new("raw, 500 lines a sync", |f| raw::write_and_sync(f, batches * 500, line, 500)),
            Case::new("batches of 500", |f| in_batches(f, 500, usize::try_from(batches)?, bytes))
                .against("raw, 500 lines a sync")
                .aim(0.9),
            // The same against envelopes without their lines around them: what the format's own bytes cost.
            Case::new("raw, 500 bare envelopes", |f| raw::write_and_sync(f, batches * 500, bytes, 500)),
        ],
    )
}
