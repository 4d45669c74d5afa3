//! How fast marks are: the store of marks against a bare append of the same bytes with `fdatasync`, and against the engine of the admission
//! index doing the same work.
//!
//! `cargo run --release -p eb-store-local --example consumer_marks [DIR]`

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Checkpoint, EventIdentity, IndexCheckpoint, IndexCut,
    Lease, Mark, MarkScope, ProcessedStore, Progress,
};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, EbRef, Offset, OffsetKind, PartitionId, Timestamp, Topic,
};
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex, EmbeddedProcessed, MarksConfig};

const EVENTS: u64 = 100_000;
const ROUNDS: usize = 3;

type Any = Box<dyn std::error::Error>;

fn line(n: u64) -> Offset {
    Offset::from_u64(OffsetKind::FileLine, n)
}

fn dedupe(n: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (i, part) in key.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&(n + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    }
    key
}

fn mark(n: u64) -> Mark {
    let event_id = format!("{n:08x}-0000-7000-8000-{n:012x}").into();
    Mark { offset: line(n), event: Some(EventIdentity { dedupe: dedupe(n), event_id }) }
}

async fn marks(dir: &Path, batch: u64, by_event: bool) -> Result<f64, Any> {
    let scope = MarkScope {
        subscriber: ConsumerName::new("scorer")?,
        bus_incarnation: BusIncarnation::new("0195e6a8-0000-7000-8000-000000000001")?,
        topic: Topic::new("fp.bus.traffic.v1")?,
        partition_id: PartitionId(0),
    };
    let store = EmbeddedProcessed::open(&MarksConfig::new(dir));
    let lease = Lease { owner: "host-a pid 4711".to_owned(), epoch: 1_769_680_800_000 };
    let begun = Instant::now();
    for first in (0..EVENTS).step_by(usize::try_from(batch)?) {
        let marks: Vec<Mark> = (first..first + batch).map(mark).collect();
        // As a consumer does: ask, handle, record.
        store.seen(&scope, &marks, by_event).await?;
        let checkpoint = Checkpoint {
            consumer: scope.subscriber.clone(),
            topic: scope.topic.clone(),
            partition_id: scope.partition_id,
            cut: Cut::Next(line(first + batch)),
            caught_up_at: None,
            version: first / batch,
            bus_incarnation: scope.bus_incarnation.clone(),
            lease: None,
            committed_at: None,
        };
        store.record(&Progress { marks, checkpoint, committed: Cut::Next(line(first)) }, &lease).await?;
    }
    Ok(EVENTS as f64 / begun.elapsed().as_secs_f64())
}

fn raw(dir: &Path, batch: u64) -> Result<f64, Any> {
    let mut file = File::create(dir.join("raw"))?;
    // What a mark takes in its line.
    let bytes = vec![b'x'; usize::try_from(batch)? * 116];
    let begun = Instant::now();
    for _ in 0..EVENTS / batch {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(EVENTS as f64 / begun.elapsed().as_secs_f64())
}

async fn tree(dir: &Path, batch: u64) -> Result<f64, Any> {
    let index = EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.join("tree")))?;
    let topic = Topic::new("fp.bus.traffic.v1")?;
    let begun = Instant::now();
    for first in (0..EVENTS).step_by(usize::try_from(batch)?) {
        let entry = |n: u64| {
            let key = dedupe(n);
            let mut event = [0; 8];
            event.copy_from_slice(&key[..8]);
            let eb_ref = EbRef {
                topic: topic.clone(),
                partition_id: PartitionId(0),
                offset: line(n),
                published_at_utc: Timestamp::now(),
            };
            AdmissionEntry { key: AdmissionKey { event, dedupe: key }, payload_hash: [0; 32], eb_ref }
        };
        for n in first..first + batch {
            index.get(entry(n).key).await?;
        }
        index.apply((first..first + batch).map(entry).collect()).await?;
        let cut = IndexCut {
            topic: topic.clone(),
            partition_id: PartitionId(0),
            bus_incarnation: BusIncarnation::new("life")?,
            cut: Cut::Next(line(first + batch)),
            last_crc32c: None,
            caught_up_at: None,
        };
        index.commit_checkpoint(IndexCheckpoint { key_version: 1, cuts: vec![cut] }).await?;
    }
    let rate = EVENTS as f64 / begun.elapsed().as_secs_f64();
    index.close().await?;
    Ok(rate)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Any> {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    println!("events/s, medians of {ROUNDS} rounds in turn, {EVENTS} events each");
    println!("step   marks   +2nd guard   lsm-tree   bare append   marks/bare");
    for batch in [500, 2_000, 10_000] {
        let mut all: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let dir = tempfile::tempdir_in(&root)?;
            all[0].push(marks(&dir.path().join("a"), batch, false).await?);
            all[1].push(marks(&dir.path().join("b"), batch, true).await?);
            all[2].push(tree(dir.path(), batch).await?);
            all[3].push(raw(dir.path(), batch)?);
        }
        let [marks, guarded, tree, bare] = all.map(median);
        let ratio = marks / bare;
        println!("{batch:>6} {marks:>9.0} {guarded:>9.0} {tree:>9.0} {bare:>11.0} {ratio:>8.2}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
