//! Publishing to Kinesis against the bare SDK, before the engine `kinesis-local` alone.
//!
//! The engine is one thread on the same machine and does most of the work, so absolute figures say little; what the
//! publisher adds shows in the ratios and in the processor time of this process. The loop over the bare SDK sends as
//! many records a call, with as many calls under way, as the publisher had in the round before: it is told its
//! groups, where the publisher has to form them.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_smithy_types::retry::RetryConfig;
use eb_contract::{EnvelopeRef, EventBusAdmin, EventBusPublisher, PartitionKey, PublishRecord, Topic};
use eb_kinesis::{KinesisBus, KinesisConfig, Ordering as KeyOrdering};
use eb_testkit::services::{KinesisLocal, KinesisLocalOptions};

use crate::Options;
use crate::gate::cpu_seconds;
use crate::measure::{Case, Result, Row, Sample, measure};

const SHARDS: u32 = 4;
const BYTES: usize = 600;

/// What is published, by how many, over how many keys.
#[derive(Clone, Copy)]
struct Load {
    callers: u64,
    keys: u64,
    events: u64,
}

/// How the publisher grouped its records in its last round.
#[derive(Clone, Copy, Default)]
struct Shape {
    per_call: f64,
    in_flight: f64,
}

struct Engine {
    url: String,
    runtime: tokio::runtime::Runtime,
    topics: AtomicU64,
}

impl Engine {
    fn client(&self) -> Client {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::from_keys("test", "test", None))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(&self.url)
            .build();
        Client::from_conf(config)
    }

    async fn open(&self, ordering: KeyOrdering) -> Result<(KinesisBus, Topic)> {
        let mut config = KinesisConfig::emulator(&self.url);
        config.publish.ordering = ordering;
        let bus = KinesisBus::open(config).await?;
        let topic = Topic::new(&format!("bench-{}", self.topics.fetch_add(1, Ordering::Relaxed)))?;
        bus.admin().create_topic(&topic, SHARDS).await?;
        Ok((bus, topic))
    }
}

fn envelope() -> String {
    let frame = r#"{"payload":""}"#.len();
    format!(r#"{{"payload":"{}"}}"#, "x".repeat(BYTES - frame))
}

fn key(n: u64, keys: u64) -> String {
    // A step that is prime to any number of keys in use here, so that neighbours differ.
    format!("merchant-{:05}", n * 7_919 % keys)
}

/// `callers` tasks that publish one record after the other's ACK.
fn publisher(engine: &Engine, load: Load, ordering: KeyOrdering, shape: &Cell<Shape>) -> Result<Sample> {
    engine.runtime.block_on(async {
        let (bus, topic) = engine.open(ordering).await?;
        let publisher = bus.publisher();
        let record = |n: u64| {
            let envelope = EnvelopeRef::new(envelope())?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(PublishRecord::new(
                PartitionKey::new(key(n, load.keys))?,
                envelope,
            ))
        };
        publisher.publish(&topic, record(0)?).await?;
        let each = load.events / load.callers;
        let mut inputs: Vec<Vec<PublishRecord>> = Vec::new();
        for caller in 0..load.callers {
            inputs.push((0..each).map(|i| record(i * load.callers + caller)).collect::<Result<_>>()?);
        }
        let before = publisher.stats();
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let tasks: Vec<_> = inputs
            .into_iter()
            .map(|records| {
                let (publisher, topic) = (publisher.clone(), topic.clone());
                tokio::spawn(async move {
                    let mut latencies = Vec::with_capacity(records.len());
                    for record in records {
                        let one = Instant::now();
                        publisher.publish(&topic, record).await?;
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
        let (elapsed, cpu) = (started.elapsed(), cpu_seconds() - cpu);
        let after = publisher.stats();
        publisher.close().await?;
        let calls = (after.calls - before.calls).max(1) as f64;
        let per_call = (after.records - before.records) as f64 / calls;
        let in_flight = (after.in_calls - before.in_calls).as_secs_f64() / elapsed.as_secs_f64();
        shape.set(Shape { per_call, in_flight });
        delete(engine, &topic).await?;
        let events = each * load.callers;
        Ok(Sample::new(events, elapsed)
            .latencies(latencies)
            .with("records per call", per_call)
            .with("calls under way", in_flight)
            .with("CPU µs per event", cpu * 1e6 / events as f64))
    })
}

async fn delete(engine: &Engine, topic: &Topic) -> Result<()> {
    engine.client().delete_stream().stream_name(topic.as_str()).send().await?;
    Ok(())
}

/// Loops over the bare SDK, each sending `per_call` records after the answer to the last; with 1 by `PutRecord`.
fn bare(engine: &Engine, load: Load, per_call: u64, loops: u64) -> Result<Sample> {
    engine.runtime.block_on(async {
        let (_bus, topic) = engine.open(KeyOrdering::Strict).await?;
        let client = engine.client();
        let envelope: Arc<str> = envelope().into();
        client
            .put_record()
            .stream_name(topic.as_str())
            .partition_key("warm")
            .data(Blob::new(envelope.as_bytes()))
            .send()
            .await?;
        let next = Arc::new(AtomicU64::new(0));
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let tasks: Vec<_> = (0..loops)
            .map(|_| {
                let (client, topic, next) = (client.clone(), topic.clone(), next.clone());
                let envelope = envelope.clone();
                tokio::spawn(async move {
                    loop {
                        let first = next.fetch_add(per_call, Ordering::Relaxed);
                        if first >= load.events {
                            return Result::Ok(());
                        }
                        let data = || Blob::new(envelope.as_bytes());
                        if per_call == 1 {
                            let call = client.put_record().stream_name(topic.as_str());
                            call.partition_key(key(first, load.keys)).data(data()).send().await?;
                            continue;
                        }
                        let entries = (first..(first + per_call).min(load.events))
                            .map(|n| {
                                let entry = PutRecordsRequestEntry::builder();
                                Ok(entry.partition_key(key(n, load.keys)).data(data()).build()?)
                            })
                            .collect::<Result<Vec<_>>>()?;
                        let call = client.put_records().stream_name(topic.as_str());
                        let answer = call.set_records(Some(entries)).send().await?;
                        if answer.records().iter().any(|r| r.sequence_number().is_none()) {
                            return Err("the engine refused a record".into());
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let (elapsed, cpu) = (started.elapsed(), cpu_seconds() - cpu);
        delete(engine, &topic).await?;
        Ok(Sample::new(load.events, elapsed)
            .with("records per call", per_call as f64)
            .with("calls under way", loops as f64)
            .with("CPU µs per event", cpu * 1e6 / load.events as f64))
    })
}

/// The loop with the publisher's own grouping.
fn bare_like(engine: &Engine, load: Load, shape: &Cell<Shape>) -> Result<Sample> {
    let Shape { per_call, in_flight } = shape.get();
    let at_least_one = |x: f64| (x.round() as u64).max(1);
    bare(engine, load, at_least_one(per_call).clamp(2, 500), at_least_one(in_flight))
}

/// The groups of this benchmark.
///
/// # Errors
/// When the engine cannot be had, or a case fails.
pub(crate) fn run(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let local = KinesisLocal::start(&KinesisLocalOptions::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let engine = Engine { url: local.url(), runtime, topics: AtomicU64::new(0) };
    let engine = &engine;
    let mut rows = Vec::new();

    let load = Load { callers: 64, keys: 500, events: options.scale(20_000) };
    let shape = &Cell::new(Shape::default());
    let measured = measure(
        "Kinesis publish, 600 B, 64 callers, 500 keys, 4 shards",
        options.rounds,
        scratch,
        vec![
            Case::new("publisher, strict", move |_| publisher(engine, load, KeyOrdering::Strict, shape))
                .against("bare PutRecords, same groups")
                .aim(0.9),
            Case::new("bare PutRecords, same groups", move |_| bare_like(engine, load, shape)),
            Case::new("publisher, strict (again)", move |_| {
                publisher(engine, load, KeyOrdering::Strict, &Cell::default())
            })
            .against("bare PutRecord, 64 under way")
            .aim(5.0),
            Case::new("bare PutRecord, 64 under way", move |_| {
                bare(engine, Load { events: load.events / 4, ..load }, 1, 64)
            }),
        ],
    )?;
    rows.extend(measured);

    let load = Load { callers: 2_000, keys: 100_000, events: options.scale(80_000) };
    let in_flight = KinesisConfig::default().publish.calls_in_flight as u64;
    let measured = measure(
        "Kinesis publish, 600 B, 2,000 callers, 4 shards",
        options.rounds,
        scratch,
        vec![
            Case::new("bare PutRecords of 500", move |_| bare(engine, load, 500, in_flight.min(4))),
            Case::new("publisher, strict", move |_| {
                publisher(engine, load, KeyOrdering::Strict, &Cell::default())
            })
            .against("bare PutRecords of 500")
            .aim(0.85),
            Case::new("publisher, batched", move |_| {
                publisher(engine, load, KeyOrdering::Batched, &Cell::default())
            })
            .against("bare PutRecords of 500")
            .aim(0.95),
        ],
    )?;
    rows.extend(measured);
    Ok(rows)
}
