//! The mirror: nothing is left out, nothing differs unsaid.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, EbRef, Error, ErrorKind, EventBusAdmin, EventBusPublisher,
    EventBusReader, Head, PartitionId, PublishRecord, Result, StartAt, Topic, TopicPartitions,
};
use eb_memory::{Fate, MemoryConfig};
use eb_rollout::{Comparison, FindingKind, MirrorState, Phase, RolloutBus, RolloutConfig, RolloutParts};

use tokio::time::Instant;

use crate::bent::{Bend, bent};
use crate::support::{World, advance_to, event, make_topic, publish, quick, topic};

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "test", "the bus is gone")
}

/// The mirror's state once it has copied so many records.
async fn mirrored(bus: &RolloutBus, copied: u64) -> MirrorState {
    loop {
        let status = bus.control().status().await.unwrap();
        if let Some(mirror) = status.mirror.filter(|m| m.copied >= copied) {
            return mirror;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn begun(bus: &RolloutBus) {
    loop {
        let status = bus.control().status().await.unwrap();
        if status.mirror.is_some_and(|m| m.topics.contains_key(&topic())) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn compared(bus: &RolloutBus) -> Comparison {
    bus.control().compare().await.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn every_record_is_copied_once_and_compared_equal() {
    let world = World::new(MemoryConfig::default(), MemoryConfig::stream_like());
    let bus = world.open(quick()).await;
    make_topic(&bus, 3).await;
    let publisher = bus.publisher();
    publish(&publisher, "before", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    for n in 0..200 {
        publish(&publisher, &format!("k{}", n % 7), n).await;
    }
    // The same record twice is two records, there as here.
    publish(&publisher, "k0", 0).await;
    let mirror = mirrored(&bus, 201).await;
    assert_eq!((mirror.copied, mirror.duplicates, mirror.repaired, mirror.findings.len()), (201, 0, 0, 0));
    let both = compared(&bus).await;
    assert_eq!((both.source_records, both.mirror_records, both.keys, both.out_of_order), (201, 201, 7, 0));
    assert!(both.is_equal() && both.digests[0] == both.digests[1], "{both}");
}

#[tokio::test(start_paused = true)]
async fn after_unknown_outcomes_and_outages_nothing_is_left_out_and_nothing_copied_without_need() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 2).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    for round in 0..20usize {
        let fates = match round % 4 {
            0 => vec![Fate::Ack, Fate::LoseAck(gone())],
            1 => vec![Fate::Fail(gone().with_effect(eb_contract::Effect::Unknown))],
            2 => vec![Fate::Fail(gone()), Fate::Fail(gone())],
            _ => vec![],
        };
        if round % 4 == 3 {
            world.new.faults().outage(gone());
        }
        world.new.faults().next_records(fates);
        for n in 0..10 {
            publish(&publisher, &format!("k{}", n % 3), round * 10 + n).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        world.new.faults().recover();
    }
    let mirror = mirrored(&bus, 200).await;
    assert_eq!((mirror.duplicates, mirror.findings.len()), (0, 0));
    assert!(mirror.failures > 0, "nothing has failed");
    let both = compared(&bus).await;
    assert_eq!((both.source_records, both.mirror_records, both.out_of_order), (200, 200, 0), "{both}");
    assert!(both.is_equal());
}

#[tokio::test(start_paused = true)]
async fn another_process_takes_over_where_the_worker_has_died() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    for n in 0..30 {
        publish(&publisher, "k", n).await;
    }
    mirrored(&bus, 30).await;
    // Its copies land, its progress does not: as one that is killed between the two.
    let other = world.open(quick()).await;
    world.registers.outage(Some(gone()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.registers.outage(None);
    let before = mirrored(&other, 30).await.leader;
    drop(publisher);
    drop(bus);
    let publisher = other.publisher();
    for n in 30..60 {
        publish(&publisher, "k", n).await;
    }
    let mirror = mirrored(&other, 60).await;
    assert_ne!(mirror.leader, before);
    assert_eq!((mirror.duplicates, mirror.findings.len()), (0, 0));
    assert!(compared(&other).await.is_equal());
}

#[tokio::test(start_paused = true)]
async fn in_reverse_the_whole_epoch_is_copied_back() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 2).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::NewPrimary).await;
    for n in 0..50 {
        publish(&publisher, &format!("k{}", n % 5), n).await;
    }
    let mirror = mirrored(&bus, 50).await;
    assert_eq!((mirror.copied, mirror.findings.len()), (50, 0));
    assert!(compared(&bus).await.is_equal());
    // The copies are no part of the log, neither now nor after a rollback.
    bus.control().rollback(Phase::Baseline, "back").await.unwrap();
    let at = publish(&publisher, "k0", 50).await;
    assert_eq!(at.partition_id.0 >> 16, 2);
    let all = crate::support::read_chain(&bus.reader(), &topic()).await;
    assert_eq!(all.len(), 51);
}

/// A rollout whose new bus is bent.
async fn with_bent(world: &World, bend: &Arc<Bend>) -> RolloutBus {
    let mut parts: RolloutParts = world.parts();
    parts.new.publisher = bent(&world.new, bend);
    RolloutBus::open(parts, quick()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_the_mirror_acked_and_lost_is_copied_again() {
    let (world, bend) = (World::plain(), Arc::new(Bend::default()));
    let bus = with_bent(&world, &bend).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    publish(&publisher, "k", 0).await;
    mirrored(&bus, 1).await;
    bend.swallow.store(1, Ordering::SeqCst);
    for n in 1..5 {
        publish(&publisher, "k", n).await;
    }
    let mirror = mirrored(&bus, 5).await;
    assert_eq!((mirror.repaired, mirror.findings.len()), (1, 0));
    assert!(compared(&bus).await.is_equal());
}

#[tokio::test(start_paused = true)]
async fn what_stays_missing_or_is_nobodys_is_found() {
    let (world, bend) = (World::plain(), Arc::new(Bend::default()));
    let bus = with_bent(&world, &bend).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    publish(&publisher, "k", 0).await;
    mirrored(&bus, 1).await;
    bend.swallow.store(usize::MAX, Ordering::SeqCst);
    publish(&publisher, "k", 1).await;
    let mirror = mirrored(&bus, 2).await;
    assert_eq!(mirror.findings[0].kind, FindingKind::Missing);
    bend.swallow.store(0, Ordering::SeqCst);
    bend.change.store(true, Ordering::SeqCst);
    publish(&publisher, "k", 2).await;
    let mirror = mirrored(&bus, 3).await;
    assert!(mirror.findings.iter().any(|f| f.kind == FindingKind::Differing), "{:?}", mirror.findings);
    let both = compared(&bus).await;
    assert!(!both.is_equal() && both.missing == 2 && both.differing > 0, "{both:?}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_writes_to_the_mirror_is_found() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    publish(&publisher, "k", 0).await;
    mirrored(&bus, 1).await;
    world.new.publisher().publish(&topic(), event("intruder", 0)).await.unwrap();
    publish(&publisher, "k", 1).await;
    let mirror = mirrored(&bus, 2).await;
    assert_eq!(mirror.findings.len(), 1, "{:?}", mirror.findings);
    assert_eq!(mirror.findings[0].kind, FindingKind::Differing);
    assert!(!compared(&bus).await.is_equal());
    let error = bus.control().advance("in spite of it").await.unwrap_err();
    assert!(error.to_string().contains("differs"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_follows_resharding_on_both_buses() {
    let world = World::new(MemoryConfig::stream_like(), MemoryConfig::stream_like());
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    for round in 0..6 {
        match round {
            2 => drop(world.old.faults().split(&topic(), PartitionId(0)).unwrap()),
            3 => drop(world.new.faults().split(&topic(), PartitionId(0)).unwrap()),
            4 => drop(world.old.faults().merge(&topic(), PartitionId(1), PartitionId(2)).unwrap()),
            _ => {}
        }
        for n in 0..20 {
            publish(&publisher, &format!("k{}", n % 5), round * 20 + n).await;
        }
    }
    let mirror = mirrored(&bus, 120).await;
    assert_eq!((mirror.copied, mirror.duplicates, mirror.findings.len()), (120, 0, 0));
    let both = compared(&bus).await;
    assert!(both.is_equal() && both.out_of_order == 0, "{both:?}");
    advance_to(&bus, Phase::NewPrimary).await;
    publish(&publisher, "k0", 120).await;
    assert_eq!(crate::support::read_chain(&bus.reader(), &topic()).await.len(), 121);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_remembers_little_whatever_the_keys_and_copies_are() {
    let (world, bend) = (World::plain(), Arc::new(Bend::default()));
    let mut parts: RolloutParts = world.parts();
    parts.new.publisher = bent(&world.new, &bend);
    let mut config = quick();
    config.mirror.compare_at_once = 64;
    let bus = RolloutBus::open(parts, config).await.unwrap();
    make_topic(&bus, 2).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    // One key has more records than are remembered at once; and there are more keys than that.
    for n in 0..300 {
        publish(&publisher, "hot", n).await;
        publish(&publisher, &format!("k{}", n % 150), n).await;
    }
    mirrored(&bus, 600).await;
    let both = compared(&bus).await;
    assert_eq!((both.source_records, both.mirror_records, both.keys), (600, 600, 151), "{both}");
    assert!(both.is_equal() && both.out_of_order == 0 && both.digests[0] == both.digests[1], "{both:?}");

    // Late copies, of the hot key too, are no part of the order.
    let mirror = world.new.publisher();
    for n in [7, 250, 7] {
        mirror.publish(&topic(), event("hot", n)).await.unwrap();
    }
    publish(&publisher, "hot", 300).await;
    mirrored(&bus, 601).await;
    let both = compared(&bus).await;
    assert_eq!((both.mirror_records, both.duplicates, both.out_of_order), (604, 3, 0), "{both:?}");
    assert!(both.is_equal() && both.digests[0] == both.digests[1], "{both:?}");

    // What was swallowed and copied again lies behind what came after it: another order, and said.
    bend.swallow.store(1, Ordering::SeqCst);
    let behind = (301..305).map(|n| event("hot", n)).collect();
    for answer in publisher.publish_batch(&topic(), behind).await {
        answer.unwrap();
    }
    mirrored(&bus, 605).await;
    let both = compared(&bus).await;
    assert!(both.is_equal() && both.out_of_order == 1 && both.digests[0] != both.digests[1], "{both:?}");
}

#[tokio::test(start_paused = true)]
async fn what_lands_late_from_an_earlier_run_or_epoch_is_a_copy_and_no_finding() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::NewPrimary).await;
    publish(&publisher, "k", 1).await;
    bus.control().rollback(Phase::Baseline, "back").await.unwrap();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    // A copy of the first run, and a record of the second epoch that its publisher has given up on and sent again.
    for n in 0..2 {
        world.new.publisher().publish(&topic(), event("k", n)).await.unwrap();
    }
    publish(&publisher, "k", 2).await;
    let mirror = mirrored(&bus, 1).await;
    assert_eq!((mirror.duplicates, mirror.findings.len()), (2, 0), "{:?}", mirror.findings);
}

#[tokio::test(start_paused = true)]
async fn what_lands_behind_the_end_of_its_epoch_on_a_bus_that_rests_is_no_finding() {
    let world = World::plain();
    // Of one that takes a single writer the mirror begins when what was under way is done.
    let mut parts = world.parts();
    parts.old.reader = Counting::of(&parts.old.reader);
    // By the clock of the calendar, which nobody pauses.
    let config = RolloutConfig { rest: Duration::from_millis(300), ..quick() };
    let bus = RolloutBus::open(parts, config).await.unwrap();
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    // Somebody is halted between the look at its lease and the write, and never sends it again.
    world.old.faults().hold();
    let late = publisher.publish(&topic(), event("late", 0));
    advance_to(&bus, Phase::NewPrimary).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.old.faults().release();
    late.await.unwrap_err();
    for n in 1..5 {
        publish(&publisher, "k", n).await;
    }
    let mirror = mirrored(&bus, 4).await;
    assert_eq!((mirror.copied, mirror.findings.len()), (4, 0), "{:?}", mirror.findings);
    assert!(compared(&bus).await.is_equal());
}

/// Counts the places that reading was begun at.
struct Counting(Arc<dyn EventBusReader>, AtomicUsize, Capabilities);

impl Counting {
    /// Of a bus that takes several writers.
    fn of(reader: &Arc<dyn EventBusReader>) -> Arc<Self> {
        let mut capabilities = reader.capabilities().clone();
        capabilities.multi_writer = true;
        Arc::new(Self(reader.clone(), AtomicUsize::new(0), capabilities))
    }
}

impl EventBusReader for Counting {
    fn capabilities(&self) -> &Capabilities {
        &self.2
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.0.topics()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        self.0.partitions(topic)
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        self.0.head(topic, partition)
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.cursor(topic, partition, start)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.0.close()
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_late_copies_there_are_the_primarys_log_is_read_once_for_all() {
    let world = World::plain();
    let mut parts = world.parts();
    let counting = Counting::of(&parts.old.reader);
    parts.old.reader = counting.clone();
    let bus = RolloutBus::open(parts, quick()).await.unwrap();
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    for n in 0..100 {
        publish(&publisher, "k", n).await;
    }
    mirrored(&bus, 100).await;
    let late = (0..100).map(|n| event("k", n)).collect();
    for answer in world.new.publisher().publish_batch(&topic(), late).await {
        answer.unwrap();
    }
    let before = counting.1.load(Ordering::SeqCst);
    publish(&publisher, "k", 100).await;
    let mirror = mirrored(&bus, 101).await;
    assert_eq!((mirror.duplicates, mirror.findings.len()), (100, 0));
    let begun = counting.1.load(Ordering::SeqCst) - before;
    assert!((1..10).contains(&begun), "{begun} times for 100 copies");
}

/// ACKs what lies in another topic, once it is told to: as a name that leads to the wrong place.
struct Astray(Arc<dyn EventBusPublisher>, Arc<AtomicBool>);

fn elsewhere() -> Topic {
    Topic::new("elsewhere").unwrap()
}

impl EventBusPublisher for Astray {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        let one = self.publish_batch(topic, vec![record]);
        Box::pin(async move { one.await.remove(0) })
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        let of = topic.clone();
        let to = if self.1.load(Ordering::SeqCst) { elsewhere() } else { of.clone() };
        let publishing = self.0.publish_batch(&to, records);
        Box::pin(async move {
            let named = |at: EbRef| EbRef { topic: of.clone(), ..at };
            publishing.await.into_iter().map(|answer| answer.map(named)).collect()
        })
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        self.0.probe(topic)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.0.close()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_in_many_partitions_is_waited_for_once() {
    let (world, astray) = (World::plain(), Arc::new(AtomicBool::new(false)));
    let mut parts = world.parts();
    let (new, leads) = (world.new.clone(), astray.clone());
    parts.new.publisher = Arc::new(move || {
        let publisher = Arc::new(Astray(Arc::new(new.publisher()), leads.clone()));
        Box::pin(async move { Ok(publisher as Arc<dyn EventBusPublisher>) })
    });
    let config = quick();
    let visible_within = config.mirror.visible_within;
    let bus = RolloutBus::open(parts, config).await.unwrap();
    make_topic(&bus, 8).await;
    world.new.admin().create_topic(&elsewhere(), 8).await.unwrap();
    let batch = |from: usize| (from..from + 100).map(|n| event(&format!("k{n}"), n)).collect::<Vec<_>>();
    let publisher = bus.publisher();
    advance_to(&bus, Phase::DualWrite).await;
    begun(&bus).await;
    // Offsets there are further than those of the log that is read.
    let filling = world.new.publisher();
    drop([
        filling.publish_batch(&elsewhere(), batch(0)).await,
        filling.publish_batch(&elsewhere(), batch(0)).await,
    ]);
    astray.store(true, Ordering::SeqCst);
    let started = Instant::now();
    drop(publisher.publish_batch(&topic(), batch(0)).await);
    let mirror = mirrored(&bus, 1).await;
    let took = started.elapsed();
    let in_partitions: BTreeSet<u32> = mirror.findings.iter().map(|f| f.partition).collect();
    assert!(mirror.findings.iter().all(|f| f.kind == FindingKind::Missing) && in_partitions.len() > 1);
    // Once for the first copy and once for the second, by a clock that stands still but for what is waited for.
    assert!(took < visible_within * 2 + Duration::from_secs(1), "{took:?}");
}
