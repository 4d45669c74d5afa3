//! Streams that expire, and cannot say what: whether records are missing between an expired one and the oldest left is
//! known only from when somebody last was at the head.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eb_contract::stores::AdmissionIndex as _;
use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, Error, ErrorKind, EventBusReader, Head, PartitionId, Result,
    StartAt, Timestamp, Topic, TopicPartitions,
};
use eb_memory::{MemoryAdmissionIndex, MemoryConfig};
use ig_gate::{Decision, Gate, GateParts};
use parking_lot::Mutex;

use crate::shared_index::{keyed, publish_elsewhere, reserve_elsewhere_from};
use crate::support::{TRAFFIC, World, event, first_partition, topic};

/// Every record that anybody has read until now has expired; what came after `since` has not.
struct Expiring {
    inner: Box<dyn EventBusReader>,
    since: Timestamp,
    /// Where cursors on the stream of traffic were to start.
    starts: Mutex<Vec<StartAt>>,
}

impl Expiring {
    fn of(world: &World, since: Timestamp) -> Arc<Self> {
        Arc::new(Self { inner: Box::new(world.bus.reader()), since, starts: Mutex::default() })
    }

    fn began_at_the_oldest_left(&self) -> bool {
        self.starts.lock().contains(&StartAt::Earliest)
    }

    fn resumed(&self) -> bool {
        self.starts.lock().iter().any(|start| matches!(start, StartAt::Resume { .. }))
    }
}

impl EventBusReader for Expiring {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.inner.topics()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        self.inner.partitions(topic)
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        self.inner.head(topic, partition)
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        if topic.as_str() == TRAFFIC {
            self.starts.lock().push(start);
        }
        let known = match start {
            StartAt::Cut(Cut::Next(_) | Cut::After(_)) => false,
            StartAt::Resume { caught_up_at, .. } => caught_up_at >= self.since,
            _ => true,
        };
        if known {
            return self.inner.cursor(topic, partition, start);
        }
        let kind = ErrorKind::OutOfRange { oldest: None };
        Box::pin(std::future::ready(Err(Error::new(kind, "cursor", "the record has expired"))))
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.inner.close()
    }
}

async fn streams() -> World {
    let world = World::with(MemoryConfig::stream_like(), 1, MemoryAdmissionIndex::new()).await;
    world.index.shared.store(true, Ordering::SeqCst);
    world
}

async fn open(world: &World, reader: &Arc<Expiring>) -> Gate {
    Gate::open(GateParts { reader: reader.clone(), ..world.parts() }).await.unwrap()
}

#[tokio::test]
async fn a_gate_remembers_when_it_had_read_a_stream_to_its_head() {
    let world = streams().await;
    let gate = world.open().await;
    gate.admit(keyed("a", 0)).await.unwrap();
    gate.close().await.unwrap();
    let since = Timestamp::now();
    // It finds the stream idle, and its own record the last, while others go on.
    let gate = world.open().await;
    gate.admit(event("c-1").of_type("platform.run.started").extra(r#","schema_version":"1.0.0""#))
        .await
        .unwrap();
    gate.close().await.unwrap();
    let reader = Expiring::of(&world, since);
    let gate = open(&world, &reader).await;
    assert!(reader.resumed() && !reader.began_at_the_oldest_left(), "{:?}", reader.starts.lock());
    assert_eq!(gate.admit(keyed("a", 0)).await.unwrap().decision, Decision::Duplicate);
    gate.close().await.unwrap();
    // A reservation from before that time needs what came before it.
    let reader = Expiring::of(&world, since);
    let head = world.bus.reader().head(&topic(TRAFFIC), first_partition()).await.unwrap().cut;
    reserve_elsewhere_from(&world, &keyed("a", 1), Timestamp::EPOCH, vec![(first_partition(), head)]).await;
    open(&world, &reader).await.close().await.unwrap();
    assert!(reader.began_at_the_oldest_left(), "{:?}", reader.starts.lock());
    world.index.reservations.lock().elsewhere.clear();
    // Nobody has been at its head for too long: something may be missing, and what is left is read.
    let later = Timestamp::from_micros(Timestamp::now().as_micros() + 3_600_000_000).unwrap();
    let reader = Expiring::of(&world, later);
    open(&world, &reader).await;
    assert!(reader.began_at_the_oldest_left());
}

#[tokio::test]
async fn a_crashed_gates_event_is_looked_for_from_when_it_was_reserved() {
    let world = streams().await;
    let gate = world.open().await;
    gate.admit(keyed("a", 0)).await.unwrap();
    gate.close().await.unwrap();
    world.open().await.close().await.unwrap();
    let since = Timestamp::now();
    world.open().await.close().await.unwrap();
    let reader = Expiring::of(&world, since);
    let gate = open(&world, &reader).await;
    let crashed = keyed("a", 1);
    let head = world.bus.reader().head(&topic(TRAFFIC), first_partition()).await.unwrap().cut;
    let start = vec![(first_partition(), head)];
    let key = reserve_elsewhere_from(&world, &crashed, Timestamp::now(), start).await;
    world.index.reservations.lock().lease_ended = true;
    let there = publish_elsewhere(&world, &crashed, "a").await;
    let receipt = gate.admit(crashed).await.unwrap();
    assert_eq!((receipt.decision, receipt.eb_ref), (Decision::Duplicate, Some(there.clone())));
    assert_eq!(world.index.get(key).await.unwrap().map(|e| e.eb_ref), Some(there));
    assert!(!reader.began_at_the_oldest_left(), "{:?}", reader.starts.lock());
}
