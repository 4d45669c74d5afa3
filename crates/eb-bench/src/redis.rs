//! Publishing to Redis Streams against a bare client that pipelines `XADD`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use eb_contract::{EventBusAdmin, EventBusPublisher, PublishRecord};
use eb_redis::{RedisBus, RedisConfig, RedisUrl};
use eb_testkit::services::{Redis, RedisOptions};

use crate::Options;
use crate::measure::{Case, Result, Row, Sample, measure};
use crate::publish::{record, topic};

/// Each run has keys of its own: a long stream is not what is measured.
fn own_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bench{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn text(record: &PublishRecord) -> Result<&str> {
    Ok(std::str::from_utf8(record.envelope.as_bytes())?)
}

fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    text
}

/// Sends `depth` appends with one write, waits for all their answers, and again.
fn bare(port: u16, depth: u64, records: u64, bytes: usize) -> Result<Sample> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port))?);
    stream.get_ref().set_nodelay(true)?;
    let record = record(bytes)?;
    let key = format!("{{{}}}:s", own_prefix());
    let add = command(&["XADD", &key, "*", "k", record.partition_key.as_str(), "e", text(&record)?]);
    let group = add.repeat(usize::try_from(depth)?);
    let mut latencies = Vec::new();
    let mut line = String::new();
    let started = Instant::now();
    for _ in 0..records / depth {
        let one = Instant::now();
        stream.get_mut().write_all(group.as_bytes())?;
        // An id is a line with its length and a line with its text.
        for _ in 0..2 * depth {
            line.clear();
            stream.read_line(&mut line)?;
            if line.starts_with('-') {
                return Err(format!("the server says {line}").into());
            }
        }
        latencies.push(one.elapsed());
    }
    Ok(Sample::new(records / depth * depth, started.elapsed()).latencies(latencies))
}

/// So many callers, each publishing one record after the other's ACK.
fn callers(port: u16, workers: usize, callers: u64, records: u64, bytes: usize) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let url = RedisUrl::parse(&format!("redis://127.0.0.1:{port}"))?;
        let bus = RedisBus::open(RedisConfig { prefix: own_prefix(), ..RedisConfig::new(url) }).await?;
        let (topic, record) = (topic()?, record(bytes)?);
        bus.admin().create_topic(&topic, 1).await?;
        let publisher = bus.publisher();
        // The first publish looks the topic up; it is not part of the figure.
        publisher.publish(&topic, record.clone()).await?;
        let started = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (publisher, topic, record) = (publisher.clone(), topic.clone(), record.clone());
                tokio::spawn(async move {
                    let mut latencies: Vec<Duration> = Vec::new();
                    for _ in 0..records / callers {
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
        Ok(Sample::new(records / callers * callers, elapsed).latencies(latencies))
    })
}

/// All figures on Redis, on a server of its own with `appendfsync always`.
pub(crate) fn run(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let server = Redis::start(&RedisOptions::default())?;
    let port = server.port();
    let mut rows = Vec::new();
    for bytes in [256, 1024] {
        let (few, many) = (options.scale(2_000), options.scale(64_000));
        rows.extend(measure(
            &format!("redis, envelopes of {bytes} B, appendfsync always"),
            options.rounds,
            scratch,
            vec![
                Case::new("bare XADD, one by one", |_| bare(port, 1, few, bytes)),
                Case::new("1 caller", |_| callers(port, 1, 1, few, bytes)).against("bare XADD, one by one"),
                Case::new("bare XADD, 64 deep", |_| bare(port, 64, many, bytes)),
                Case::new("64 callers", |_| callers(port, 1, 64, many, bytes))
                    .against("bare XADD, 64 deep")
                    .aim(0.8),
                Case::new("64 callers, 2 workers", |_| callers(port, 2, 64, many, bytes))
                    .against("bare XADD, 64 deep"),
            ],
        )?);
    }
    Ok(rows)
}
