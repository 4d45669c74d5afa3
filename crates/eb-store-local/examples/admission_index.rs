//! Measures the embedded admission index: `cargo run --release -p eb-store-local --example admission_index --
//! [--events 10000000] [--dir FOLDER] [--callers 8]`.
//!
//! Fills an index as a gate does (each event reserved, so one miss each, and confirmed in groups of 64, a checkpoint
//! every 25,000), closes, opens, looks up, crashes 100,000 admissions behind the log and opens again. Prints one JSON
//! object. The folder (default: a temporary one) must not hold an index, and is left empty of it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, IndexCut, PolicyRev,
    ReserveRequest, Reserved,
};
use eb_contract::{BusIncarnation, Cut, EbRef, Offset, OffsetKind, PartitionId, Timestamp, Topic};
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex};
use serde_json::{Value, json};

type Failed = Box<dyn Error + Send + Sync>;

const GROUP: u64 = 64;
const CHECKPOINT_EVERY: u64 = 25_000;
const LOOK_UPS: u64 = 200_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let mut events = 10_000_000;
    let mut callers = 8;
    let mut dir = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--events" => events = value.parse()?,
            "--callers" => callers = value.parse()?,
            "--dir" => dir = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    let temporary = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| temporary.path().join("index"));
    let report = measure(&dir, events, callers).await?;
    EmbeddedAdmissionIndex::remove(&dir)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

async fn measure(dir: &Path, events: u64, callers: u64) -> Result<Value, Failed> {
    let world = Arc::new(World::new()?);
    let index = Arc::new(open(dir)?);
    if index.stats().stored > 0 {
        return Err(format!("{} holds an index already", dir.display()).into());
    }

    let (started, cpu) = (Instant::now(), cpu_seconds());
    let next = Arc::new(AtomicU64::new(0));
    let filling: Vec<_> = (0..callers.max(1))
        .map(|_| tokio::spawn(fill(world.clone(), index.clone(), next.clone(), events)))
        .collect();
    for caller in filling {
        caller.await??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let fill = json!({
        "seconds": seconds,
        "events_per_second": events as f64 / seconds,
        "cpu_us_per_event": (cpu_seconds() - cpu) * 1e6 / events as f64,
        "rss_mib": rss_mib("VmRSS:"),
        "unmerged_tables": index.stats().unmerged_tables,
        "disk_bytes_per_event_before_merging": index.stats().disk_bytes as f64 / events as f64,
    });
    index.commit_checkpoint(world.checkpoint(events)?).await?;
    let started = Instant::now();
    index.close().await?;
    let close_ms = ms(started);
    drop(index);

    let mut opens = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let index = open(dir)?;
        opens.push(ms(started));
        index.close().await?;
    }
    opens.sort_by(f64::total_cmp);

    let index = open(dir)?;
    let misses = look_up(&world, &index, |i| events + 1_000_000 + i).await?;
    let hits = look_up(&world, &index, |i| mix(i) % events).await?;

    let lag = 99_000;
    for first in (events..events + lag).step_by(GROUP as usize) {
        admit(&world, &index, first..(first + GROUP).min(events + lag)).await?;
    }
    drop(index);
    let lost = (events..events + lag).map(|i| world.entry(i)).collect();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let index = open(dir)?;
    index.apply(lost).await?;
    let (open_behind_ms, open_behind_cpu_ms) = (ms(started), (cpu_seconds() - cpu) * 1e3);
    if index.get(world.key(events + lag - 1)).await?.is_none() {
        return Err("an applied event is not there".into());
    }

    let (started, cpu) = (Instant::now(), cpu_seconds());
    let (mut scanned, mut after) = (0u64, None);
    loop {
        let page = index.scan(after, 10_000).await?;
        scanned += page.len() as u64;
        after = page.last().map(|entry| entry.key).or(after);
        if page.len() < 10_000 {
            break;
        }
    }
    if scanned != events + lag {
        return Err(format!("{scanned} events found of {}", events + lag).into());
    }
    let (scan_seconds, scan_cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rss = rss_mib("VmRSS:");
    let stored = index.stats();
    index.close().await?;
    Ok(json!({
        "events": events,
        "fill": fill,
        "close_ms": close_ms,
        "open_ms": opens[opens.len() / 2],
        "open_99000_behind_ms": open_behind_ms,
        "open_99000_behind_cpu_ms": open_behind_cpu_ms,
        "miss_us": misses,
        "hit_us": hits,
        "scan_seconds": scan_seconds,
        "scan_cpu_us_per_event": scan_cpu * 1e6 / scanned as f64,
        "disk_bytes_per_event": stored.disk_bytes as f64 / stored.stored.max(1) as f64,
        "rss_after_all_mib": rss,
        "rss_peak_mib": rss_mib("VmHWM:"),
    }))
}

fn open(dir: &Path) -> Result<EmbeddedAdmissionIndex, Failed> {
    Ok(EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir))?)
}

async fn fill(
    world: Arc<World>,
    index: Arc<EmbeddedAdmissionIndex>,
    next: Arc<AtomicU64>,
    events: u64,
) -> Result<(), Failed> {
    loop {
        let first = next.fetch_add(GROUP, Ordering::Relaxed);
        if first >= events {
            return Ok(());
        }
        admit(&world, &index, first..(first + GROUP).min(events)).await?;
        if first / CHECKPOINT_EVERY != (first + GROUP) / CHECKPOINT_EVERY {
            index.commit_checkpoint(world.checkpoint(first)?).await?;
        }
    }
}

async fn admit(
    world: &World,
    index: &EmbeddedAdmissionIndex,
    events: std::ops::Range<u64>,
) -> Result<(), Failed> {
    let requests: Vec<_> = events.clone().map(|i| world.request(i)).collect();
    let mut confirmed = Vec::with_capacity(requests.len());
    for (i, answer) in events.zip(index.reserve(&requests).await?) {
        let Reserved::Fresh(reservation) = answer else {
            return Err(format!("event {i} is known already").into());
        };
        confirmed.push(Confirmation { reservation, entry: world.entry(i) });
    }
    index.confirm(confirmed).await?;
    Ok(())
}

/// The latency of one reservation at a time, in microseconds.
async fn look_up(
    world: &World,
    index: &EmbeddedAdmissionIndex,
    event: impl Fn(u64) -> u64,
) -> Result<Value, Failed> {
    let mut nanos = Vec::new();
    for i in 0..LOOK_UPS {
        let request = [world.request(event(i))];
        let started = Instant::now();
        index.reserve(&request).await?;
        nanos.push(started.elapsed().as_nanos() as u64);
    }
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    Ok(json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) }))
}

/// Events made from their numbers.
struct World {
    topics: Vec<Topic>,
    incarnation: BusIncarnation,
    policy: Arc<PolicyRev>,
}

impl World {
    fn new() -> Result<Self, Failed> {
        let topics = ["traffic", "control", "audit"].map(|name| Topic::new(&format!("fp.bus.{name}.v1")));
        Ok(Self {
            topics: topics.into_iter().collect::<Result<_, _>>()?,
            incarnation: BusIncarnation::new("0195e6a8-0000-7000-8000-000000000001")?,
            policy: Arc::new(PolicyRev {
                policy_id: "fraud".to_owned(),
                revision: "1".to_owned(),
                content_digest: "0".repeat(64),
            }),
        })
    }

    fn key(&self, event: u64) -> AdmissionKey {
        AdmissionKey { event: mix(event).to_le_bytes(), dedupe: bytes(event ^ 1 << 62) }
    }

    fn request(&self, event: u64) -> ReserveRequest {
        ReserveRequest {
            key: self.key(event),
            payload_hash: bytes(event ^ 1 << 63),
            topic: self.topics[0].clone(),
            start: Vec::new(),
            policy: self.policy.clone(),
        }
    }

    fn entry(&self, event: u64) -> AdmissionEntry {
        AdmissionEntry {
            key: self.key(event),
            payload_hash: bytes(event ^ 1 << 63),
            eb_ref: EbRef {
                topic: self.topics[(event % 3) as usize].clone(),
                partition_id: PartitionId(0),
                offset: Offset::from_u64(OffsetKind::FileLine, event),
                published_at_utc: Timestamp::EPOCH
                    .saturating_add(Duration::from_micros(1_700_000_000_000_000 + event * 37)),
            },
        }
    }

    fn checkpoint(&self, line: u64) -> Result<IndexCheckpoint, Failed> {
        let cut = |topic: &Topic| IndexCut {
            topic: topic.clone(),
            partition_id: PartitionId(0),
            bus_incarnation: self.incarnation.clone(),
            cut: Cut::Next(Offset::from_u64(OffsetKind::FileLine, line)),
            last_crc32c: Some(0),
            caught_up_at: None,
        };
        Ok(IndexCheckpoint { key_version: 1, cuts: self.topics.iter().map(cut).collect() })
    }
}

fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn bytes(seed: u64) -> [u8; 32] {
    let mut out = [0; 32];
    let mut n = seed;
    for chunk in out.chunks_exact_mut(8) {
        n = mix(n);
        chunk.copy_from_slice(&n.to_le_bytes());
    }
    out
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Memory by the kernel's books; 0 where it does not keep them as Linux does.
fn rss_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

/// Processor time of all threads; 0 where it is not known.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
