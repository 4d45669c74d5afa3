//! How fast durable publishes are, against the plainest loop that gives the same promise: for work on the writer. The figures to quote are
//! `cargo xtask bench publish`'s; this one has what tuning needs beside them: slices so short that a restless device strikes both sides alike,
//! the ratio of the median rounds, more mixes of publishers, and a device of a given speed in place of the real one.
//!
//! Each case alternates with its raw baseline (write the very same lines, `fdatasync`, so many records a sync) in short slices, since
//! absolute figures drift with the device from second to second. The ratio is the median over the slices' own ratios.
//!
//! `cargo run --release -p eb-file --example publish_rate -- [slices] [ms per slice] [folder] [part of a case's name]`
//!
//! `SYNC_US`: a sync takes so many microseconds and nothing else. `NO_INLINE`: lone publishers hand over, too. `PREALLOCATE`: bytes of padding.
//! `RESERVE`: the most bytes reserved beyond the log.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use eb_contract::{EnvelopeRef, EventBusPublisher, PartitionKey, PublishRecord, Timestamp, Topic};
use eb_file::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk};
use eb_file::format::line::{LineParts, encode_line};
use eb_file::{FileBus, FileBusConfig, FilePublisher, InlineCommit};

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    publishers: usize,
    batch: usize,
    raw_group: usize,
}

const CASES: [Case; 7] = [
    Case { name: "1 publisher", publishers: 1, batch: 1, raw_group: 1 },
    Case { name: "2 at once", publishers: 2, batch: 1, raw_group: 2 },
    Case { name: "8 at once", publishers: 8, batch: 1, raw_group: 8 },
    Case { name: "64 at once", publishers: 64, batch: 1, raw_group: 64 },
    Case { name: "128 at once", publishers: 128, batch: 1, raw_group: 64 },
    Case { name: "batch of 500", publishers: 1, batch: 500, raw_group: 500 },
    Case { name: "4 x batch 500", publishers: 4, batch: 500, raw_group: 500 },
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let slices: usize = args.first().and_then(|a| a.parse().ok()).unwrap_or(21);
    let time = Duration::from_millis(args.get(1).and_then(|a| a.parse().ok()).unwrap_or(100));
    let folder = args.get(2).cloned().unwrap_or_else(|| ".".to_owned());
    let only = args.get(3).cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime can be started");

    println!("case            bytes        raw/s        bus/s  ratio   calm  recs/flush   p50 µs   p99 µs");
    for size in [256, 1024] {
        for case in CASES.iter().filter(|c| c.name.contains(&only)) {
            let dir = tempfile::tempdir_in(&folder).expect("the folder can be written");
            let mut raw = Raw::new(dir.path(), size, case.raw_group);
            let mut bus = runtime.block_on(Bus::new(dir.path(), size));
            let mut seen = Seen::default();
            for _ in 0..slices {
                let raw_rate = raw.run(time);
                let (bus_rate, per_flush) = runtime.block_on(bus.run(case, time, &mut seen.latencies));
                seen.raw.push(raw_rate);
                seen.bus.push(bus_rate);
                seen.ratio.push(bus_rate / raw_rate);
                seen.per_flush.push(per_flush);
            }
            runtime.block_on(bus.publisher.close()).expect("it closes");
            seen.latencies.sort_unstable();
            raw.latencies.sort_unstable();
            // Whole rounds of all publishers against rounds of the loop, both at their medians: hardly moved by what else the machine does.
            let raw_round = raw.latencies[raw.latencies.len() / 2] as f64 / case.raw_group as f64;
            let bus_round =
                seen.latencies[seen.latencies.len() / 2] as f64 / (case.publishers * case.batch) as f64;
            let calm = raw_round / bus_round;
            let at = |p: usize| seen.latencies[(seen.latencies.len() - 1) * p / 100] as f64 / 1000.0;
            println!(
                "{:<15} {:>5} {:>12.0} {:>12.0} {:>6.2} {:>6.2} {:>11.1} {:>8.0} {:>8.0}",
                case.name,
                size,
                median(&mut seen.raw),
                median(&mut seen.bus),
                median(&mut seen.ratio),
                calm,
                median(&mut seen.per_flush),
                at(50),
                at(99)
            );
        }
    }
}

#[derive(Default)]
struct Seen {
    raw: Vec<f64>,
    bus: Vec<f64>,
    ratio: Vec<f64>,
    per_flush: Vec<f64>,
    latencies: Vec<u64>,
}

/// A device that takes `SYNC_US` microseconds for each sync, where the real one is too restless to measure on; or the real one.
fn sync(real: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
    static SYNC: OnceLock<Option<Duration>> = OnceLock::new();
    let given = || std::env::var("SYNC_US").ok()?.parse().ok().map(Duration::from_micros);
    match SYNC.get_or_init(given) {
        Some(time) => {
            std::thread::sleep(*time);
            Ok(())
        }
        None => real(),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// An envelope with which a line has about `size` bytes.
fn envelope(size: usize) -> EnvelopeRef {
    let pad = size.saturating_sub(170);
    EnvelopeRef::new(format!("{{\"p\":\"{}\"}}", "x".repeat(pad))).expect("it is one object")
}

/// The plainest durable append.
struct Raw {
    file: std::fs::File,
    lines: Vec<u8>,
    group: usize,
    latencies: Vec<u64>,
}

impl Raw {
    fn new(dir: &Path, size: usize, group: usize) -> Self {
        let mut lines = Vec::new();
        let envelope = envelope(size);
        for offset in 0..group as u64 {
            let parts = LineParts {
                offset: 1_000_000 + offset,
                durable: 1_000_000,
                published_at: &Timestamp::now().to_text(),
                key: "merchant-1",
                envelope: envelope.as_bytes(),
            };
            encode_line(&mut lines, &parts);
        }
        let file = std::fs::File::create(dir.join("raw")).expect("the folder can be written");
        Self { file, lines, group, latencies: Vec::new() }
    }

    fn run(&mut self, time: Duration) -> f64 {
        let start = Instant::now();
        let mut records = 0;
        while start.elapsed() < time {
            let began = Instant::now();
            self.file.write_all(&self.lines).expect("the device has space");
            sync(|| self.file.sync_data()).expect("the device syncs");
            self.latencies.push(began.elapsed().as_nanos() as u64);
            records += self.group;
        }
        records as f64 / start.elapsed().as_secs_f64()
    }
}

struct Bus {
    disk: Arc<CountingDisk>,
    publisher: FilePublisher,
    topic: Topic,
    record: PublishRecord,
}

impl Bus {
    async fn new(dir: &Path, size: usize) -> Self {
        let disk = Arc::new(CountingDisk::default());
        let mut config = FileBusConfig::new(dir.join("bus"));
        if std::env::var_os("NO_INLINE").is_none() {
            config.inline_commit = Some(InlineCommit::new(|work| tokio::task::block_in_place(work)));
        }
        let given = |name| std::env::var(name).ok().and_then(|bytes| bytes.parse().ok());
        config.preallocate_bytes = given("PREALLOCATE").unwrap_or(config.preallocate_bytes);
        config.reserve_bytes = given("RESERVE").unwrap_or(config.reserve_bytes);
        let bus = FileBus::open_on(config, disk.clone()).expect("a fresh bus opens");
        let topic = Topic::new("t").expect("a good name");
        bus.create_topic(&topic, 1).expect("a fresh topic");
        let key = PartitionKey::new("merchant-1").expect("a good key");
        let record = PublishRecord::new(key, envelope(size));
        let publisher = bus.publisher();
        publisher.publish(&topic, record.clone()).await.expect("the first publish opens the log");
        Self { disk, publisher, topic, record }
    }

    async fn run(&mut self, case: &Case, time: Duration, latencies: &mut Vec<u64>) -> (f64, f64) {
        let flushes_before = self.disk.flushes.load(Ordering::Relaxed);
        let start = Instant::now();
        let tasks: Vec<_> = (0..case.publishers)
            .map(|_| {
                let (publisher, topic) = (self.publisher.clone(), self.topic.clone());
                let (record, batch) = (self.record.clone(), case.batch);
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    while start.elapsed() < time {
                        let began = Instant::now();
                        if batch == 1 {
                            publisher.publish(&topic, record.clone()).await.expect("a publish succeeds");
                        } else {
                            let answers = publisher.publish_batch(&topic, vec![record.clone(); batch]).await;
                            assert!(answers.iter().all(Result::is_ok));
                        }
                        taken.push(began.elapsed().as_nanos() as u64);
                    }
                    taken
                })
            })
            .collect();
        let mut records = 0;
        for task in tasks {
            let taken = task.await.expect("a publisher does not panic");
            records += taken.len() * case.batch;
            latencies.extend(taken);
        }
        let rate = records as f64 / start.elapsed().as_secs_f64();
        let flushes = self.disk.flushes.load(Ordering::Relaxed) - flushes_before;
        (rate, records as f64 / flushes as f64)
    }
}

/// The real disk, counting data syncs.
#[derive(Debug, Default)]
struct CountingDisk {
    flushes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn DiskFile>,
    flushes: Arc<AtomicU64>,
}

impl Disk for CountingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> std::io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        Ok(Arc::new(CountingFile { file, flushes: self.flushes.clone() }))
    }
    fn create_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn try_lock(&self, path: &Path) -> std::io::Result<Box<dyn DiskLock>> {
        RealDisk.try_lock(path)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> std::io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn write_at(&self, buf: &[u8], position: u64) -> std::io::Result<usize> {
        self.file.write_at(buf, position)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
    fn reserve(&self, position: u64, bytes: u64) -> std::io::Result<()> {
        self.file.reserve(position, bytes)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        sync(|| self.file.sync_data())
    }
    fn sync_all(&self) -> std::io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.file.sync_all()
    }
}
