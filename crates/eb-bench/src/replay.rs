//! Replay against a plain scan of the same file; opening and seeking in a long log.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eb_contract::{
    Cut, EventBusPublisher, EventBusReader, Offset, OffsetKind, PartitionId, ReadLimit, ReadState, StartAt,
};
use eb_file::{FileBus, FileBusConfig};

use crate::Options;
use crate::measure::{Case, Result, Row, Sample, measure};
use crate::publish::{record, topic};
use crate::raw;

const PARTITION: PartitionId = PartitionId(0);
const BLOCK: usize = 256 << 10;

/// A log with `records` records, made once and read many times.
struct Log {
    root: PathBuf,
    records: u64,
}

impl Log {
    fn fill(root: PathBuf, records: u64, bytes: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let bus = FileBus::open(FileBusConfig::new(&root))?;
            bus.create_topic(&topic()?, 1)?;
            let publisher = bus.publisher();
            let record = record(bytes)?;
            let mut left = records;
            while left > 0 {
                let count = left.min(5_000);
                let batch = vec![record.clone(); usize::try_from(count)?];
                for result in publisher.publish_batch(&topic()?, batch).await {
                    result?;
                }
                left -= count;
            }
            publisher.close().await?;
            Ok(Self { root, records })
        })
    }

    fn file(&self) -> Result<PathBuf> {
        Ok(self.root.join(topic()?.as_str()).join("partition=0.jsonl"))
    }

    /// Hands every record out, checksum verified, and looks at none of them.
    fn replay(&self) -> Result<Sample> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let reader = FileBus::open(FileBusConfig::new(&self.root))?.reader();
            let started = Instant::now();
            let mut cursor = reader.cursor(&topic()?, PARTITION, StartAt::Earliest).await?;
            let mut records = 0;
            loop {
                let batch = cursor.next(ReadLimit::default()).await?;
                records += batch.records.len() as u64;
                std::hint::black_box(&batch.records);
                if batch.state != ReadState::More {
                    break;
                }
            }
            if records != self.records {
                return Err(format!("{records} records came back of {}", self.records).into());
            }
            Ok(Sample::new(records, started.elapsed()))
        })
    }

    /// Opens the log for reading and asks for its head.
    fn open_for_reading(&self, times: usize) -> Result<Sample> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut latencies = Vec::with_capacity(times);
        for _ in 0..times {
            let one = Instant::now();
            let reader = FileBus::open(FileBusConfig::new(&self.root))?.reader();
            let head = runtime.block_on(reader.head(&topic()?, PARTITION))?;
            latencies.push(one.elapsed());
            if head.last != Some(offset(self.records - 1)) {
                return Err("the head is not the last record".into());
            }
        }
        Ok(sum(latencies))
    }

    /// Opens the log for writing, as the first publish does.
    fn open_for_writing(&self, times: usize) -> Result<Sample> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut latencies = Vec::with_capacity(times);
        for _ in 0..times {
            let one = Instant::now();
            let publisher = FileBus::open(FileBusConfig::new(&self.root))?.publisher();
            runtime.block_on(publisher.probe(&topic()?))?;
            latencies.push(one.elapsed());
            runtime.block_on(publisher.close())?;
        }
        Ok(sum(latencies))
    }

    /// Makes the index anew from the log.
    fn rebuild_index(&self) -> Result<Sample> {
        std::fs::remove_file(self.file()?.with_extension("idx"))?;
        let took = self.open_for_writing(1)?.elapsed;
        Ok(Sample::new(self.records, took))
    }

    /// Reads one record at random offsets, each through a cursor of its own.
    fn seek(&self, times: u64) -> Result<Sample> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reader = FileBus::open(FileBusConfig::new(&self.root))?.reader();
        let topic = topic()?;
        let mut latencies = Vec::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..times {
            // A linear congruential generator (Knuth, MMIX): any spread of offsets will do.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let wanted = offset((state >> 16) % self.records);
            let one = Instant::now();
            let found = runtime.block_on(async {
                let mut cursor = reader.cursor(&topic, PARTITION, StartAt::Cut(Cut::Next(wanted))).await?;
                let batch = cursor.next(ReadLimit::records(1)).await?;
                Ok::<_, eb_contract::Error>(batch.records.first().map(|r| r.eb_ref.offset))
            })?;
            latencies.push(one.elapsed());
            if found != Some(wanted) {
                return Err(format!("a seek to {wanted} found {found:?}").into());
            }
        }
        Ok(sum(latencies))
    }
}

fn offset(n: u64) -> Offset {
    Offset::from_u64(OffsetKind::FileLine, n)
}

fn sum(latencies: Vec<Duration>) -> Sample {
    Sample::new(latencies.len() as u64, latencies.iter().sum()).latencies(latencies)
}

/// Replay of one envelope size.
pub(crate) fn replay(options: &Options, scratch: &Path, bytes: usize, aim: f64) -> Result<Vec<Row>> {
    let log = Log::fill(scratch.join(format!("replay-{bytes}")), options.scale(1_000_000), bytes)?;
    let file = log.file()?;
    let rows = measure(
        &format!("replay, envelopes of {bytes} B, {} records, hot", log.records),
        options.rounds,
        scratch,
        vec![
            Case::new("raw block read + newline scan", |_| raw::scan_lines(&file, BLOCK)),
            Case::new("cursor, every checksum verified", |_| {
                let before = peak_mib();
                Ok(log.replay()?.with("peak MiB grew by", peak_mib() - before))
            })
            .against("raw block read + newline scan")
            .aim(aim),
        ],
    )?;
    std::fs::remove_dir_all(&log.root)?;
    Ok(rows)
}

/// Opening and seeking in a log of ten million records.
pub(crate) fn open(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let log = Log::fill(scratch.join("open"), options.scale(10_000_000), 128)?;
    let file = log.file()?;
    let rounds = options.rounds.min(5);
    let rows = measure(
        &format!("open and seek, {} records", log.records),
        rounds,
        scratch,
        vec![
            Case::new("open for reading and head", |_| log.open_for_reading(20)),
            Case::new("open for writing", |_| log.open_for_writing(5)),
            Case::new("seek to an offset and read it", |_| log.seek(2_000)),
            Case::new("raw block read + newline scan", |_| raw::scan_lines(&file, BLOCK)),
            Case::new("index made anew (records/s)", |_| log.rebuild_index())
                .against("raw block read + newline scan"),
            Case::new("full replay (records/s)", |_| {
                let before = peak_mib();
                Ok(log.replay()?.with("peak MiB grew by", peak_mib() - before))
            })
            .against("raw block read + newline scan"),
        ],
    )?;
    std::fs::remove_dir_all(&log.root)?;
    Ok(rows)
}

/// The most memory that this process has had resident; 0 where the system does not tell.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
