//! Reading from Kinesis against a bare loop of `GetRecords`, before the engine `kinesis-local` alone.
//!
//! Both read the same records of the same stream from its beginning with pages of the same size, a loop or cursor for each
//! shard. That there are no more takes the cursor one call beyond the last page; it is made once when a reader catches up, and not
//! measured here. The engine is one thread on the same machine and does most of the work, so absolute figures say little; what the
//! reader adds shows in the ratio and in the processor time of this process.

use std::path::Path;
use std::time::Instant;

use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use aws_smithy_types::retry::RetryConfig;
use eb_contract::{EventBusAdmin, EventBusReader, PartitionId, ReadLimit, ReadState, StartAt, Topic};
use eb_kinesis::{KinesisBus, KinesisConfig, KinesisReader};
use eb_testkit::services::{KinesisLocal, KinesisLocalOptions};

use crate::Options;
use crate::gate::cpu_seconds;
use crate::measure::{Case, Result, Row, Sample, measure};

const SHARDS: u32 = 4;
const BYTES: usize = 600;

fn bare_client(url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::from_keys("test", "test", None))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(url)
        .build();
    Client::from_conf(config)
}

async fn fill(client: &Client, topic: &Topic, events: u64) -> Result<()> {
    let frame = r#"{"payload":""}"#.len();
    let envelope = format!(r#"{{"payload":"{}"}}"#, "x".repeat(BYTES - frame));
    for first in (0..events).step_by(500) {
        let entries = (first..(first + 500).min(events))
            .map(|n| {
                let entry = PutRecordsRequestEntry::builder().partition_key(format!("merchant-{n}"));
                Ok(entry.data(Blob::new(envelope.as_bytes())).build()?)
            })
            .collect::<Result<Vec<_>>>()?;
        let answer =
            client.put_records().stream_name(topic.as_str()).set_records(Some(entries)).send().await?;
        if answer.records().iter().any(|r| r.sequence_number().is_none()) {
            return Err("the engine refused a record".into());
        }
    }
    Ok(())
}

/// Reads a shard until `want` records came, or to its head; how many came.
async fn bare_loop(client: Client, topic: Topic, shard: u32, page: i32, want: u64) -> Result<u64> {
    let first = client
        .get_shard_iterator()
        .stream_name(topic.as_str())
        .shard_id(format!("shardId-{shard:012}"))
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await?;
    let mut iterator = first.shard_iterator;
    let mut count = 0;
    while let Some(at) = iterator {
        let answer = client.get_records().shard_iterator(at).limit(page).send().await?;
        count += answer.records().len() as u64;
        if count >= want {
            break;
        }
        // The engine says 0 also where a full page ends within a millisecond.
        if answer.millis_behind_latest() == Some(0) && answer.records().len() < usize::try_from(page)? {
            break;
        }
        iterator = answer.next_shard_iterator;
    }
    Ok(count)
}

/// Reads a shard until `want` records came, or to its head; how many came.
async fn cursor_loop(
    reader: std::sync::Arc<KinesisReader>,
    topic: Topic,
    shard: u32,
    want: u64,
) -> Result<u64> {
    let mut cursor = reader.cursor(&topic, PartitionId(shard), StartAt::Earliest).await?;
    let limit = ReadLimit { max_records: 1_000, max_bytes: 1 << 20, ..ReadLimit::default() };
    let mut count = 0;
    loop {
        let batch = cursor.next(limit).await?;
        count += batch.records.len() as u64;
        if count >= want || batch.state != ReadState::More {
            return Ok(count);
        }
    }
}

/// Runs one reading of each shard at once and counts what they brought.
async fn timed<F>(events: u64, read: impl Fn(u32) -> F) -> Result<Sample>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let tasks: Vec<_> = (0..SHARDS).map(|shard| tokio::spawn(read(shard))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_seconds() - cpu);
    if count != events {
        return Err(format!("{count} of {events} records came").into());
    }
    Ok(Sample::new(events, elapsed).with("CPU µs per event", cpu * 1e6 / events as f64))
}

/// The groups of this benchmark.
///
/// # Errors
/// When the engine cannot be had, or a case fails.
pub(crate) fn run(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let local = KinesisLocal::start(&KinesisLocalOptions::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (client, events) = (bare_client(&local.url()), options.scale(40_000));
    let topic = Topic::new("bench-read")?;
    let mut rows = Vec::new();
    let mut in_shards = Vec::new();
    // Pages of 10,000, the service's most, are more than the engine can hand out within a call's time.
    for (group, page) in [
        ("Kinesis read, 600 B, 4 shards, pages of 2,500", 2_500_u16),
        ("Kinesis read, 600 B, 4 shards, pages of 500", 500),
    ] {
        let mut config = KinesisConfig::emulator(&local.url());
        config.read.max_records_per_call = page.into();
        let reader = runtime.block_on(async {
            let bus = KinesisBus::open(config).await?;
            if rows.is_empty() {
                bus.admin().create_topic(&topic, SHARDS).await?;
                fill(&client, &topic, events).await?;
                for shard in 0..SHARDS {
                    in_shards.push(bare_loop(client.clone(), topic.clone(), shard, 500, u64::MAX).await?);
                }
            }
            Result::Ok(std::sync::Arc::new(bus.reader()))
        })?;
        let (runtime, client, topic, reader, wanted) = (&runtime, &client, &topic, &reader, &in_shards);
        rows.extend(measure(
            group,
            options.rounds,
            scratch,
            vec![
                Case::new("bare GetRecords loop", move |_| {
                    let read = |shard| {
                        bare_loop(client.clone(), topic.clone(), shard, page.into(), wanted[shard as usize])
                    };
                    runtime.block_on(timed(events, read))
                }),
                Case::new("cursor", move |_| {
                    let read =
                        |shard| cursor_loop(reader.clone(), topic.clone(), shard, wanted[shard as usize]);
                    runtime.block_on(timed(events, read))
                })
                .against("bare GetRecords loop")
                .aim(0.9),
            ],
        )?);
    }
    Ok(rows)
}
