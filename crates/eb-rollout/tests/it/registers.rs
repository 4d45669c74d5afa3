//! The register lost, or restored from an old copy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eb_contract::stores::{RegisterChange, RegisterStore, Versioned};
use eb_contract::{
    BoxFuture, Error, EventBusPublisher, EventBusReader, PartitionId, ReadLimit, ReadState, RegisterName,
    Result, StartAt,
};
use eb_memory::MemoryRegisterStore;
use eb_rollout::{Phase, RolloutBus, RolloutConfig, RolloutParts};
use parking_lot::Mutex;

use crate::support::{World, advance_to, event, make_topic, publish, quick, topic};
use crate::switching::ids;

/// A store that can be put in the place of another.
#[derive(Clone)]
struct Restored(Arc<Mutex<MemoryRegisterStore>>);

impl Restored {
    fn now(&self) -> MemoryRegisterStore {
        self.0.lock().clone()
    }
}

impl RegisterStore for Restored {
    fn load<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Versioned>>> {
        Box::pin(async move { self.now().load(name).await })
    }

    fn swap<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: u64,
        value: Bytes,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Versioned>> {
        Box::pin(async move { self.now().swap(name, expected, value, reason).await })
    }

    fn history<'a>(
        &'a self,
        name: &'a RegisterName,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<RegisterChange>>> {
        Box::pin(async move { self.now().history(name, max).await })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.now().probe().await })
    }
}

async fn open(world: &World, store: &Restored) -> RolloutBus {
    let parts = RolloutParts { registers: Arc::new(store.clone()), ..world.parts() };
    let config = RolloutConfig { max_wait: Duration::from_secs(1), workers: false, ..quick() };
    RolloutBus::open(parts, config).await.unwrap()
}

/// The value that the register held at a version.
async fn copy_of(store: &Restored) -> (RegisterName, Bytes) {
    let name = RegisterName::new("rollout").unwrap();
    let stands = store.load(&name).await.unwrap().unwrap();
    (name, stands.value)
}

async fn publish_error(bus: &RolloutBus) -> Error {
    bus.publisher().publish(&topic(), event("k", 9)).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_register_that_was_lost_or_restored_from_an_old_copy_stops_who_knows_better() {
    for lost in [true, false] {
        let world = World::plain();
        let store = Restored(Arc::new(Mutex::new(world.registers.clone())));
        let bus = world.open(quick()).await;
        make_topic(&bus, 1).await;
        publish(&bus.publisher(), "k", 0).await;
        advance_to(&bus, Phase::DualWrite).await;
        let (name, old) = copy_of(&store).await;
        advance_to(&bus, Phase::NewPrimary).await;
        let knows = open(&world, &store).await;
        publish(&knows.publisher(), "k", 1).await;
        let empty = MemoryRegisterStore::new();
        if !lost {
            empty.swap(&name, 0, old, "restored").await.unwrap();
        }
        *store.0.lock() = empty;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let error = publish_error(&knows).await;
        let deepest = {
            let mut at: &dyn std::error::Error = &error;
            while let Some(source) = at.source() {
                at = source;
            }
            at.to_string()
        };
        assert!(deepest.contains("was lost, or restored from an older copy"), "lost: {lost}: {deepest}");
        let cursor = knows.reader().cursor(&topic(), PartitionId(65536), StartAt::Earliest).await;
        assert_eq!(cursor.err().unwrap().kind().code(), "facts_missing", "lost: {lost}");
        let moved = knows.control().rollback(Phase::Baseline, "on").await;
        assert_eq!(moved.unwrap_err().kind().code(), "facts_missing", "lost: {lost}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_cannot_ask_hands_out_nothing_that_may_lie_behind_an_end() {
    let world = World::plain();
    let store = Restored(Arc::new(Mutex::new(world.registers.clone())));
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    let other = open(&world, &store).await;
    let reader = other.reader();
    let mut cursor = reader.cursor(&topic(), PartitionId(0), StartAt::Earliest).await.unwrap();
    // From here on it hears nothing of the switch, and a record lands behind it.
    *store.0.lock() = MemoryRegisterStore::new();
    world.old.faults().hold();
    let late = publisher.publish(&topic(), event("k", 1));
    advance_to(&bus, Phase::NewPrimary).await;
    world.old.faults().release();
    late.await.unwrap_err();
    let error = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!(error.kind().code(), "facts_missing", "{error}");
    *store.0.lock() = world.registers.clone();
    let batch = cursor.next(ReadLimit::default()).await.unwrap();
    assert_eq!(ids(&batch.records), ["k-0"]);
    assert_eq!(batch.state, ReadState::Closed { children: vec![PartitionId(65536)] });
}
