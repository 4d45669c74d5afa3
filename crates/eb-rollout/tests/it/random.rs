//! Publishers and consumers of several processes through all phases, forward and back, while the new bus is stopped, slowed and loses
//! answers and the register goes away; in the end an audit by event id. `EB_ROLLOUT_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::{
    EbRef, Effect, Error, ErrorKind, EventBusPublisher, EventBusReaderExt, ReadLimit, Record, StartAt,
};
use eb_memory::{Fate, MemoryConfig};
use eb_rollout::{Phase, RolloutBus, RolloutConfig, RolloutParts};
use parking_lot::Mutex;

use crate::bent::{Bend, bent};
use crate::support::{World, event, make_topic, quick, topic};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(1 + self.below(most))
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "test", "the bus is gone")
}

/// What one publisher of one key was told.
#[derive(Default)]
struct Told {
    acked: BTreeMap<usize, EbRef>,
    /// Events of which some attempt had an unknown outcome: a copy of them may lie in the log.
    doubted: BTreeSet<usize>,
}

/// Publishes the events of a key one after the other, each until it is ACKed.
async fn publisher(bus: Arc<RolloutBus>, key: String, stop: Arc<AtomicBool>) -> (String, Told) {
    let publisher = bus.publisher();
    let mut told = Told::default();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        match publisher.publish(&topic(), event(&key, n)).await {
            Ok(at) => {
                told.acked.insert(n, at);
                n += 1;
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                if error.effect() == Effect::Unknown {
                    told.doubted.insert(n);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    // An event that is under way is told for sure.
    while told.doubted.contains(&n) && !told.acked.contains_key(&n) {
        match publisher.publish(&topic(), event(&key, n)).await {
            Ok(at) => drop(told.acked.insert(n, at)),
            Err(_) => tokio::time::sleep(Duration::from_millis(3)).await,
        }
    }
    publisher.close().await.unwrap();
    (key, told)
}

/// Follows the topic; what fails is tried again.
async fn consumer(bus: Arc<RolloutBus>, seen: Arc<Mutex<Vec<Record>>>) {
    let (reader, topic) = (bus.reader(), topic());
    let limit = ReadLimit::default().waiting(Duration::from_millis(20));
    let mut tail = loop {
        match reader.tail_topic(&topic, StartAt::Earliest, limit).await {
            Ok(tail) => break tail,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    while let Some(batch) = tail.next().await {
        match batch {
            Ok((_, batch)) => seen.lock().extend(batch.records),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

async fn chaos(
    world: &World,
    bend: &Bend,
    bus: &RolloutBus,
    random: &mut Random,
    steps: usize,
) -> BTreeSet<Phase> {
    let control = bus.control();
    let mut phases = BTreeSet::new();
    for _ in 0..steps {
        match random.below(12) {
            0..=3 => drop(control.advance("forward").await),
            4 => {
                let to = Phase::ALL[random.below(4) as usize];
                drop(control.rollback(to, "back").await);
            }
            5 => {
                world.new.faults().outage(gone());
                tokio::time::sleep(random.millis(400)).await;
                if random.below(3) == 0 {
                    // It is gone, so everything goes back.
                    control.rollback(Phase::Baseline, "the new bus is gone").await.unwrap();
                }
                tokio::time::sleep(random.millis(200)).await;
                world.new.faults().recover();
            }
            6 => {
                let lost = (0..1 + random.below(3)).map(|_| Fate::LoseAck(gone()));
                world.new.faults().next_records(lost);
            }
            7 => {
                let refused =
                    (0..1 + random.below(3)).map(|_| Fate::Fail(gone().with_effect(Effect::Unknown)));
                world.new.faults().next_records(refused);
            }
            8 => *bend.delay.lock() = Duration::from_millis(random.below(60)),
            9 => {
                world.registers.outage(Some(gone()));
                tokio::time::sleep(random.millis(120)).await;
                world.registers.outage(None);
            }
            10 => {
                let fates = (0..1 + random.below(3)).map(|_| Fate::LoseAck(gone()));
                world.old.faults().next_records(fates);
            }
            _ => {}
        }
        tokio::time::sleep(random.millis(80)).await;
        if let Ok(status) = control.status().await {
            phases.insert(status.state.phase);
        }
    }
    world.new.faults().recover();
    world.old.faults().recover();
    *bend.delay.lock() = Duration::ZERO;
    phases
}

async fn run(seed: u64) {
    let mut random = Random(seed);
    let sparse = |yes| if yes { MemoryConfig::stream_like() } else { MemoryConfig::default() };
    let world = World::new(sparse(random.below(2) == 0), sparse(random.below(2) == 0));
    let bend = Arc::new(Bend::default());
    let config = RolloutConfig { drain: Duration::from_millis(300), ..quick() };
    let mut processes = Vec::new();
    for _ in 0..3 {
        let mut parts: RolloutParts = world.parts();
        parts.new.publisher = bent(&world.new, &bend);
        processes.push(Arc::new(RolloutBus::open(parts, config.clone()).await.unwrap()));
    }
    make_topic(&processes[0], 1 + random.below(3) as u32).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for n in 0..6 {
        let bus = processes[n % processes.len()].clone();
        publishers.push(tokio::spawn(publisher(bus, format!("k{n}"), stop.clone())));
    }
    let seen: Arc<Mutex<Vec<Record>>> = Arc::default();
    let consuming = tokio::spawn(consumer(processes[1].clone(), seen.clone()));
    let phases = chaos(&world, &bend, &processes[2], &mut random, 60).await;
    stop.store(true, Ordering::Relaxed);
    let mut all_told = BTreeMap::new();
    for publisher in publishers {
        let (key, told) = publisher.await.unwrap();
        all_told.insert(key, told);
    }
    let wanted: BTreeSet<String> =
        all_told.values().flat_map(|t| t.acked.values().map(ToString::to_string)).collect();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let got: BTreeSet<String> = seen.lock().iter().map(|r| r.eb_ref.to_string()).collect();
        if wanted.is_subset(&got) {
            break;
        }
        let missing: Vec<_> = wanted.difference(&got).take(5).collect();
        assert!(!consuming.is_finished(), "seed {seed}: the consumer has ended");
        assert!(tokio::time::Instant::now() < deadline, "seed {seed}: ACKed and never read: {missing:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    consuming.abort();
    let seen = seen.lock();
    audit(seed, &all_told, &seen);
    let events: usize = all_told.values().map(|t| t.acked.len()).sum();
    println!("seed {seed}: {events} events, phases {phases:?}");
}

fn audit(seed: u64, told: &BTreeMap<String, Told>, seen: &[Record]) {
    let places: BTreeSet<String> = seen.iter().map(|r| r.eb_ref.to_string()).collect();
    assert_eq!(places.len(), seen.len(), "seed {seed}: a record was handed out twice");
    for (key, told) in told {
        let of_key: Vec<(usize, &EbRef)> = seen
            .iter()
            .filter(|r| r.partition_key.as_str() == key)
            .map(|r| (eb_number(r), &r.eb_ref))
            .collect();
        for (n, at) in &told.acked {
            let there = of_key.iter().filter(|(m, place)| m == n && *place == at).count();
            assert_eq!(there, 1, "seed {seed}: event {key}-{n} was promised at {at}");
            let copies = of_key.iter().filter(|(m, _)| m == n).count();
            assert!(copies == 1 || told.doubted.contains(n), "seed {seed}: {copies} copies of {key}-{n}");
        }
        let mut first = BTreeSet::new();
        let firsts: Vec<usize> = of_key.iter().map(|(n, _)| *n).filter(|n| first.insert(*n)).collect();
        assert!(firsts.windows(2).all(|w| w[0] < w[1]), "seed {seed}: the order of {key}: {firsts:?}");
    }
}

fn eb_number(record: &Record) -> usize {
    let value: serde_json::Value = serde_json::from_slice(record.envelope.as_bytes()).unwrap();
    usize::try_from(value["n"].as_u64().unwrap()).unwrap()
}

#[test]
fn whatever_happens_every_acked_event_is_where_it_was_promised_and_read_once_in_order() {
    let seeds: Vec<u64> = match std::env::var("EB_ROLLOUT_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let now = eb_contract::Timestamp::now().as_micros().unsigned_abs();
            (0..4).map(|n| now.wrapping_add(n)).collect()
        }
    };
    for seed in seeds {
        println!("EB_ROLLOUT_SEED={seed}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(seed));
    }
}
