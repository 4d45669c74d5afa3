//! How fast a log is replayed, sought and opened, against the plainest loop over the same file.
//!
//! `cargo run --release -p eb-file --example replay_bench -- [records] [envelope bytes] [rounds] [folder]`
//!
//! The baseline reads blocks of 256 KiB into one buffer and finds every newline. Replay goes through the public reader: every line's
//! checksum is verified, and every record handed out. Both run in turn for several rounds on one thread of the caller's; how many processors
//! replay keeps busy with its read-ahead is shown beside. Figures are medians.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, EnvelopeRef, EventBusPublisher, EventBusReader, Offset, OffsetKind,
    PartitionId, PartitionKey, PublishRecord, ReadLimit, ReadState, Result, StartAt, Timestamp, Topic,
};
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore};

const PARTITION: PartitionId = PartitionId(0);
const LOOK_UPS: u64 = 2000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (records, size, rounds) = (number(0, 1_000_000), number(1, 256) as usize, number(2, 7) as usize);
    let folder = args.get(3).cloned().unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(&folder).expect("the folder can be written");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be started");
    let topic = Topic::new("fp.bus.traffic.v1").expect("a valid name");
    runtime.block_on(fill(dir.path(), &topic, records, size))?;
    let log = dir.path().join(topic.as_str()).join("partition=0.jsonl");
    let bytes = std::fs::metadata(&log).expect("the log is there").len();
    println!("{records} records, {} bytes a line, {} MiB", bytes / records, bytes >> 20);

    let (mut bases, mut replays, mut ratios, mut own_ratios, mut cores) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let (own, start) = (own_seconds(), Instant::now());
        baseline(&log, records);
        let (base, own_base) = (start.elapsed().as_secs_f64(), own_seconds() - own);
        let (own, all, start) = (own_seconds(), processor_seconds(), Instant::now());
        runtime.block_on(replay(dir.path(), &topic, records))?;
        let (replay, own_replay) = (start.elapsed().as_secs_f64(), own_seconds() - own);
        cores.push((processor_seconds() - all) / replay);
        bases.push(base);
        replays.push(replay);
        ratios.push(base / replay);
        own_ratios.push(own_base / own_replay);
    }
    let rate = |seconds: f64| records as f64 / seconds / 1e6;
    let (base, replay) = (median(&mut bases), median(&mut replays));
    println!(
        "replay: baseline {:.2} M/s ({:.1} GB/s), bus {:.2} M/s ({:.1} GB/s), ratio {:.2} \
         (by the caller's processor time {:.2}), {:.2} processors, peak {} MiB",
        rate(base),
        bytes as f64 / base / 1e9,
        rate(replay),
        bytes as f64 / replay / 1e9,
        median(&mut ratios),
        median(&mut own_ratios),
        median(&mut cores),
        peak_mib(),
    );

    let mut opens = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let reader = FileBus::open(FileBusConfig::new(dir.path()))?.reader();
        let head = runtime.block_on(reader.head(&topic, PARTITION))?;
        opens.push(start.elapsed().as_secs_f64() * 1e6);
        assert_eq!(head.last.and_then(|o| o.as_u64()), Some(records - 1));
    }
    print_times("open and head", &mut opens);

    let reader = FileBus::open(FileBusConfig::new(dir.path()))?.reader();
    let mut times = vec![];
    let mut seeks = vec![];
    let mut state = 42u64;
    for _ in 0..LOOK_UPS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let target = (state >> 16) % records;
        let start = Instant::now();
        let record = runtime.block_on(one(&reader, &topic, StartAt::Cut(next(target))))?;
        seeks.push(start.elapsed().as_secs_f64() * 1e6);
        assert_eq!(record.0, target);
        let start = Instant::now();
        let found = runtime.block_on(one(&reader, &topic, StartAt::Timestamp(record.1)))?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        assert_eq!(found.1, record.1);
    }
    print_times("seek by offset", &mut seeks);
    print_times("seek by time", &mut times);

    let mut rebuilds = Vec::new();
    for _ in 0..3 {
        std::fs::remove_file(log.with_extension("idx")).expect("the sidecar is there");
        let start = Instant::now();
        let publisher = FileBus::open(FileBusConfig::new(dir.path()))?.publisher();
        runtime.block_on(publisher.probe(&topic))?;
        rebuilds.push(start.elapsed().as_secs_f64() * 1e6);
        runtime.block_on(publisher.close())?;
    }
    print_times("open for writing without sidecar", &mut rebuilds);
    let mut opens = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let publisher = FileBus::open(FileBusConfig::new(dir.path()))?.publisher();
        runtime.block_on(publisher.probe(&topic))?;
        opens.push(start.elapsed().as_secs_f64() * 1e6);
        runtime.block_on(publisher.close())?;
    }
    print_times("open for writing with sidecar", &mut opens);
    for partitions in [1, 16] {
        let commits = runtime.block_on(commit_checkpoints(dir.path(), &topic, partitions))?;
        println!("checkpoints: {partitions} a commit: {commits:.0} commits/s");
    }
    Ok(())
}

async fn commit_checkpoints(root: &Path, topic: &Topic, partitions: u32) -> Result<f64> {
    let store = FileCheckpointStore::open(root);
    let consumer = ConsumerName::new(&format!("bench-{partitions}")).expect("a valid name");
    let lease = Lease { owner: "bench".to_owned(), epoch: 1 };
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed().as_secs_f64() < 1.0 {
        let wanted: Vec<Checkpoint> = (0..partitions)
            .map(|n| Checkpoint {
                consumer: consumer.clone(),
                topic: topic.clone(),
                partition_id: PartitionId(n),
                cut: next(rounds),
                caught_up_at: None,
                version: rounds,
                bus_incarnation: BusIncarnation::new("bench").expect("a valid name"),
                lease: None,
                committed_at: None,
            })
            .collect();
        for result in store.commit(&wanted, &lease).await {
            result?;
        }
        rounds += 1;
    }
    Ok(rounds as f64 / start.elapsed().as_secs_f64())
}

async fn fill(root: &Path, topic: &Topic, records: u64, size: usize) -> Result<()> {
    let bus = FileBus::open(FileBusConfig::new(root))?;
    bus.create_topic(topic, 1)?;
    let publisher = bus.publisher();
    let mut done = 0;
    while done < records {
        let count = (records - done).min(5000);
        let batch = (done..done + count).map(|n| record(n, size)).collect();
        for result in publisher.publish_batch(topic, batch).await {
            result?;
        }
        done += count;
    }
    publisher.close().await
}

fn record(n: u64, size: usize) -> PublishRecord {
    let mut body = format!("{{\"event_id\":\"{n:032x}\",\"payload\":{{\"text\":\"");
    body.extend(std::iter::repeat_n('x', size.saturating_sub(body.len() + 3)));
    body.push_str("\"}}");
    let key = PartitionKey::new(format!("merchant-{}", n % 499)).expect("a valid key");
    PublishRecord::new(key, EnvelopeRef::new(body).expect("one object"))
}

fn baseline(log: &Path, records: u64) {
    let file = File::open(log).expect("the log is there");
    let mut block = vec![0; 256 * 1024];
    let (mut at, mut kept, mut lines) = (0, 0, 0);
    loop {
        let read = file.read_at(&mut block[kept..], at).expect("the log can be read");
        if read == 0 {
            break;
        }
        at += read as u64;
        let filled = kept + read;
        let mut line = 0;
        for newline in memchr::memchr_iter(b'\n', &block[..filled]) {
            std::hint::black_box(&block[line..newline]);
            line = newline + 1;
            lines += 1;
        }
        block.copy_within(line..filled, 0);
        kept = filled - line;
    }
    assert_eq!(lines, records);
}

async fn replay(root: &Path, topic: &Topic, records: u64) -> Result<()> {
    let reader = FileBus::open(FileBusConfig::new(root))?.reader();
    let mut cursor = reader.cursor(topic, PARTITION, StartAt::Earliest).await?;
    let mut count = 0;
    loop {
        let batch = cursor.next(ReadLimit::default()).await?;
        count += batch.records.len() as u64;
        std::hint::black_box(&batch.records);
        if batch.state == ReadState::CaughtUp {
            break;
        }
    }
    assert_eq!(count, records);
    Ok(())
}

async fn one(reader: &dyn EventBusReader, topic: &Topic, start: StartAt) -> Result<(u64, Timestamp)> {
    let mut cursor = reader.cursor(topic, PARTITION, start).await?;
    let batch = cursor.next(ReadLimit::records(1)).await?;
    let record = &batch.records[0].eb_ref;
    Ok((record.offset.as_u64().unwrap_or_default(), record.published_at_utc))
}

fn next(n: u64) -> Cut {
    Cut::Next(Offset::from_u64(OffsetKind::FileLine, n))
}

fn print_times(what: &str, times: &mut [f64]) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |p: usize| times[(times.len() - 1) * p / 100];
    println!("{what}: p50 {:.0} µs, p99 {:.0} µs", at(50), at(99));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor time of this thread.
fn own_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// Processor time of all threads.
fn processor_seconds() -> f64 {
    // Fields 14 and 15, in hundredths of a second; the name before them may hold spaces but ends with a bracket.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}
