//! Several operators and processes at once, and a process that is late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eb_contract::stores::{RegisterChange, RegisterStore, Versioned};
use eb_contract::{
    BoxFuture, Capabilities, Cursor, EventBusPublisher, EventBusReader, Head, PartitionId, RegisterName,
    Result, StartAt, Topic, TopicPartitions,
};
use eb_memory::MemoryRegisterStore;
use eb_rollout::{Phase, RolloutBus, RolloutConfig, RolloutParts};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::{World, advance_to, event, make_topic, publish, quick, topic};
use crate::switching::begin_and_die;

#[tokio::test(start_paused = true)]
async fn a_rollback_does_not_wait_for_a_planned_switch_that_takes_long() {
    let world = World::plain();
    // The lease that everybody gets.
    let bus = world.open(RolloutConfig { lease: Duration::from_millis(500), ..quick() }).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    begin_and_die(&world, "new_primary", false).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    let status = bus.control().rollback(Phase::Baseline, "not now").await.unwrap();
    publish(&publisher, "k", 1).await;
    let took = began.elapsed();
    assert_eq!((status.state.phase, status.state.epoch), (Phase::Baseline, 0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_whose_step_was_taken_back_meanwhile_is_told_so() {
    let world = World::plain();
    let (one, other) = (world.open(quick()).await, world.open(quick()).await);
    make_topic(&one, 1).await;
    publish(&one.publisher(), "k", 0).await;
    advance_to(&one, Phase::DualWrite).await;
    let control = one.control();
    let advancing = tokio::spawn(async move { control.advance("mine").await });
    while other.control().status().await.unwrap().state.switching.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    other.control().rollback(Phase::DualWrite, "no").await.unwrap();
    let error = advancing.await.unwrap().unwrap_err();
    assert_eq!(error.kind().code(), "version_conflict", "{error}");
    assert_eq!(other.control().status().await.unwrap().state.phase, Phase::DualWrite);
}

#[tokio::test(start_paused = true)]
async fn two_operators_at_once_make_one_step() {
    let world = World::plain();
    let (one, other) = (world.open(quick()).await, world.open(quick()).await);
    make_topic(&one, 1).await;
    publish(&one.publisher(), "k", 0).await;
    for to in [Phase::DualWrite, Phase::NewPrimary, Phase::NewOnly] {
        let (a, b) = (one.control(), other.control());
        let (a, b) = tokio::join!(a.advance("a"), b.advance("b"));
        assert!(a.is_ok() != b.is_ok(), "{to}: {a:?} {b:?}");
        assert_eq!(one.control().status().await.unwrap().state.phase, to);
    }
}

/// A store that lets somebody else go first before a change with this reason.
struct GoFirst {
    inner: MemoryRegisterStore,
    reason: &'static str,
    first: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl RegisterStore for GoFirst {
    fn load<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Versioned>>> {
        self.inner.load(name)
    }

    fn swap<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: u64,
        value: Bytes,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Versioned>> {
        Box::pin(async move {
            let first = self.first.lock().take_if(|_| reason == self.reason);
            if let Some(first) = first {
                first.await;
            }
            self.inner.swap(name, expected, value, reason).await
        })
    }

    fn history<'a>(
        &'a self,
        name: &'a RegisterName,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<RegisterChange>>> {
        self.inner.history(name, max)
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.probe()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_checked_of_one_mirror_says_nothing_of_the_next() {
    let world = World::plain();
    let other = world.open(quick()).await;
    make_topic(&other, 1).await;
    publish(&other.publisher(), "k", 0).await;
    advance_to(&other, Phase::DualWrite).await;
    // Between the check of one operator and the switch another goes back and forth, to a mirror that nobody has looked at.
    let first = async move {
        other.control().rollback(Phase::Baseline, "back").await.unwrap();
        other.control().advance("forth").await.unwrap();
    };
    let store = GoFirst {
        inner: world.registers.clone(),
        reason: "checked before",
        first: Mutex::new(Some(Box::pin(first))),
    };
    let parts = RolloutParts { registers: Arc::new(store), ..world.parts() };
    let late = RolloutBus::open(parts, quick()).await.unwrap();
    let error = late.control().advance("checked before").await.unwrap_err();
    assert_eq!(error.kind().code(), "version_conflict", "{error}");
    assert_eq!(late.control().status().await.unwrap().state.phase, Phase::DualWrite);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_still_connecting_to_a_bus_goes_where_the_rollback_leads() {
    let world = World::plain();
    let bus = world.open(RolloutConfig { lease: Duration::from_millis(500), ..quick() }).await;
    make_topic(&bus, 1).await;
    publish(&bus.publisher(), "k", 0).await;
    advance_to(&bus, Phase::NewPrimary).await;
    // A server that takes connections and says nothing.
    let mut parts = world.parts();
    parts.new.publisher = Arc::new(|| Box::pin(std::future::pending()));
    let late = RolloutBus::open(parts, RolloutConfig { workers: false, ..quick() }).await.unwrap();
    let publisher = late.publisher();
    let publishing = tokio::spawn(publisher.publish(&topic(), event("k", 1)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    bus.control().rollback(Phase::Baseline, "it says nothing").await.unwrap();
    publishing.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_publish_does_not_wait_longer_for_a_bus_that_cannot_be_opened_than_for_a_lease() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let mut parts = world.parts();
    parts.old.publisher = Arc::new(|| Box::pin(std::future::pending()));
    let config = RolloutConfig { max_wait: Duration::from_secs(2), workers: false, ..quick() };
    let late = RolloutBus::open(parts, config).await.unwrap();
    let answer =
        tokio::time::timeout(Duration::from_secs(3), late.publisher().publish(&topic(), event("k", 0)));
    let error = answer.await.expect("an answer in time").unwrap_err();
    assert_eq!(error.kind().code(), "unavailable", "{error}");
}

/// A bus that takes requests in and says nothing, once it is told to.
struct Hanging(Arc<dyn EventBusReader>, Arc<AtomicBool>);

impl Hanging {
    async fn hang(&self) {
        if self.1.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl EventBusReader for Hanging {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.0.topics()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        Box::pin(async move {
            self.hang().await;
            self.0.partitions(topic).await
        })
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
        self.0.cursor(topic, partition, start)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.0.close()
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_from_a_bus_that_hangs_takes_a_lease_and_a_margin_and_no_more() {
    let (world, hangs) = (World::plain(), Arc::new(AtomicBool::new(false)));
    let lease = Duration::from_millis(500);
    let mut parts = world.parts();
    parts.new.reader = Arc::new(Hanging(parts.new.reader.clone(), hangs.clone()));
    let config = RolloutConfig { lease, workers: false, ..quick() };
    let bus = RolloutBus::open(parts, config).await.unwrap();
    let worker = world.open(RolloutConfig { lease, ..quick() }).await;
    make_topic(&bus, 2).await;
    publish(&bus.publisher(), "k", 0).await;
    advance_to(&worker, Phase::NewPrimary).await;
    publish(&bus.publisher(), "k", 1).await;
    hangs.store(true, Ordering::SeqCst);
    // The clock of the test stands still but for what is waited for.
    let began = Instant::now();
    let status = bus.control().rollback(Phase::Baseline, "it hangs").await.unwrap();
    let took = began.elapsed();
    assert_eq!(status.pending, [topic()]);
    let margin = lease / 5 + Duration::from_millis(10);
    let wait = lease + margin;
    assert!(took >= wait && took < wait + Duration::from_millis(10), "{took:?}");
}
