//! Consumers as processes, killed at random moments (`SIGKILL`), over the file bus with embedded stores.
//!
//! What would break these suites: a checkpoint that runs ahead of what is finished, a mark before its effect, two holders of one partition,
//! a lease that is never taken over, reading on behind a record that was not finished.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use eb_contract::stores::CheckpointStore;
use eb_contract::{ConsumerName, EventBusPublisher, EventBusReader, Offset};
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore};
use eb_system_tests::consumers::{CONSUMER, EFFECTS, call};
use eb_system_tests::{block_on, topic};
use eb_testkit::process::Spoken;
use eb_testkit::{Budget, Rng};

const PARTITIONS: u32 = 3;
const KEYS: u64 = 9;

fn consumer(root: &Path, room: u64, seed: u64) -> Spoken {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-consumer"));
    command.arg(root).arg(room.to_string()).arg(seed.to_string());
    Spoken::spawn(&mut command).expect("the consumer starts")
}

/// The calls of each key, in the order of their effects.
fn effects(root: &Path) -> BTreeMap<String, Vec<u64>> {
    let text = std::fs::read_to_string(root.join(EFFECTS)).unwrap_or_default();
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let (key, call) = line.split_once(' ').expect("a line of an effect is written whole");
        by_key.entry(key.to_owned()).or_default().push(call.parse().unwrap());
    }
    by_key
}

fn total(effects: &BTreeMap<String, Vec<u64>>) -> usize {
    effects.values().map(Vec::len).sum()
}

/// Every call has its effect, first effects are in order, and no more come again than crashes can explain.
fn hold_to(root: &Path, calls: u64, bound: u64) -> Result<u64, String> {
    let effects = effects(root);
    let mut again = 0;
    for key in 0..KEYS {
        let got = effects.get(&format!("k{key}")).cloned().unwrap_or_default();
        let mut firsts = Vec::new();
        for n in &got {
            if firsts.contains(n) { again += 1 } else { firsts.push(*n) }
        }
        let all: Vec<u64> = (0..calls).collect();
        if firsts != all {
            return Err(format!("key {key}: {} of {calls} calls, or not in order: {firsts:?}", firsts.len()));
        }
    }
    if again > bound {
        return Err(format!("{again} effects came again, the bound is {bound}"));
    }
    Ok(again)
}

/// Waits for the checkpoints to lie at the heads.
fn finished(root: &Path) -> bool {
    block_on(async {
        let reader = FileBus::open(FileBusConfig::new(root)).unwrap().reader();
        let checkpoints = FileCheckpointStore::open(root);
        let name = ConsumerName::new(CONSUMER).unwrap();
        for p in reader.partitions(&topic()).await.unwrap().partitions {
            let Some(last) = reader.head(&topic(), p.id).await.unwrap().last else { continue };
            let stored = checkpoints.load(&name, &topic(), p.id).await.unwrap();
            let at = stored.and_then(|c| c.cut.offset().and_then(Offset::as_u64));
            if at != last.as_u64().map(|n| n + 1) {
                return false;
            }
        }
        true
    })
}

#[test]
fn every_event_of_killed_consumers_has_its_effect_in_order_and_again_only_within_the_bound() {
    let mut budget = Budget::new(1, Duration::from_secs(15), 40);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let (mut kills, mut repeats) = (0, 0);
    while budget.again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let seed = budget.seed;
        let (calls, room) = (rng.range(100..400), rng.range(8..120));
        // A runtime that lives as long as the publisher, whose writer threads use it.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bus = FileBus::open(FileBusConfig::new(root)).unwrap();
        bus.create_topic(&topic(), PARTITIONS).unwrap();
        let publisher = bus.publisher();
        let mut workers = vec![consumer(root, room, rng.next_u64())];
        let (mut published, mut killed) = (0, 0);
        while published < calls {
            let more = rng.range(5..60).min(calls - published);
            let batch =
                (published..published + more).flat_map(|n| (0..KEYS).map(move |k| call(&format!("k{k}"), n)));
            for answer in runtime.block_on(publisher.publish_batch(&topic(), batch.collect())) {
                answer.unwrap();
            }
            published += more;
            // So many effects more, or a moment: kills hit starts and take-overs, too.
            let (before, patience) =
                (total(&effects(root)), Instant::now() + Duration::from_millis(rng.range(0..700)));
            let wanted = before + rng.index(200);
            while Instant::now() < patience && total(&effects(root)) < wanted {
                std::thread::yield_now();
            }
            if rng.chance(60) && !workers.is_empty() {
                let words = workers.swap_remove(rng.index(workers.len())).kill().unwrap();
                assert!(words.errors.is_empty(), "seed {seed}: {}", words.errors);
                killed += 1;
            }
            if workers.len() < 3 && (rng.chance(60) || workers.is_empty()) {
                workers.push(consumer(root, room, rng.next_u64()));
            }
        }
        runtime.block_on(publisher.close()).unwrap();
        if workers.is_empty() {
            workers.push(consumer(root, room, rng.next_u64()));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while !finished(root) {
            assert!(
                Instant::now() < deadline,
                "seed {seed}: the consumers did not get to the end: {:?}",
                effects(root)
            );
            std::thread::yield_now();
        }
        for worker in workers {
            let words = worker.kill().unwrap();
            assert!(words.errors.is_empty(), "seed {seed}: {}", words.errors);
        }
        // A lease may also be lost on a machine that is busy with other things: one for each kill is allowed for.
        let bound = (2 * killed + 1) * u64::from(PARTITIONS) * room;
        repeats += hold_to(root, calls, bound).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        kills += killed;
    }
    println!("{} logs, {kills} consumers killed, {repeats} effects came again", budget.cycles());
}
