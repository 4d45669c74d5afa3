//! What lands late never comes before what it would have had to precede.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Effect, EventBusPublisher, EventBusReader, Head, PartitionId, Result,
    StartAt, Topic, TopicPartitions,
};
use eb_rollout::{Phase, RolloutBus};
use parking_lot::Mutex;

use crate::support::{World, advance_to, event, make_topic, publish, quick, read_chain, topic};
use crate::switching::ids;

#[tokio::test(start_paused = true)]
async fn a_key_whose_record_is_still_under_way_on_the_bus_that_was_left_waits_for_it() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    // Slow for this process's call alone: the switch gets its answers.
    world.old.faults().hold();
    let late = publisher.publish(&topic(), event("k", 1));
    advance_to(&bus, Phase::NewPrimary).await;
    publish(&publisher, "other", 0).await;
    let error = publisher.publish(&topic(), event("k", 2)).await.unwrap_err();
    assert_eq!((error.effect(), error.is_retryable()), (Effect::None, true), "{error}");
    let batch = publisher.publish_batch(&topic(), vec![event("k", 2), event("k", 3)]).await;
    assert!(batch.iter().all(Result::is_err), "{batch:?}");
    // Back on the old bus, where it lands now.
    bus.control().rollback(Phase::Baseline, "there and back").await.unwrap();
    world.old.faults().release();
    late.await.unwrap();
    publish(&publisher, "k", 2).await;
    let of_k: Vec<_> = ids(&read_chain(&bus.reader(), &topic()).await)
        .into_iter()
        .filter(|id| id.starts_with("k-"))
        .collect();
    assert_eq!(of_k, ["k-0", "k-1", "k-2"]);
}

/// A bus that shows what it has ACKed after a while only, as Kinesis does.
struct Slow {
    inner: Arc<dyn EventBusReader>,
    by: Duration,
    /// What heads were, and when.
    past: Arc<Mutex<Vec<(tokio::time::Instant, Head)>>>,
}

impl Slow {
    /// Looks all the time, so that it knows what was to be seen some time ago.
    fn new(inner: Arc<dyn EventBusReader>, by: Duration) -> Self {
        let past: Arc<Mutex<Vec<(tokio::time::Instant, Head)>>> = Arc::default();
        let (reader, seen) = (inner.clone(), past.clone());
        tokio::spawn(async move {
            loop {
                if let Ok(head) = reader.head(&topic(), PartitionId(0)).await {
                    seen.lock().push((tokio::time::Instant::now(), head));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { inner, by, past }
    }
}

impl EventBusReader for Slow {
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
        Box::pin(async move {
            let now = tokio::time::Instant::now();
            let shown = self.past.lock().iter().rev().find(|(at, _)| *at + self.by <= now).map(|(_, h)| *h);
            match shown {
                Some(head) => Ok(head),
                None => self.inner.head(topic, partition).await,
            }
        })
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        self.inner.cursor(topic, partition, start)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.inner.close()
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_ends_behind_what_its_bus_has_acked_and_does_not_show_yet() {
    for urgent in [false, true] {
        let world = World::plain();
        eb_contract::EventBusAdmin::create_topic(&world.old.admin(), &topic(), 1).await.unwrap();
        eb_contract::EventBusAdmin::create_topic(&world.new.admin(), &topic(), 1).await.unwrap();
        let mut parts = world.parts();
        let by = Duration::from_millis(300);
        let side = if urgent { &mut parts.new } else { &mut parts.old };
        side.reader = Arc::new(Slow::new(side.reader.clone(), by));
        side.shows_within = by;
        let bus = RolloutBus::open(parts, quick()).await.unwrap();
        let publisher = bus.publisher();
        publish(&publisher, "k", 0).await;
        tokio::time::sleep(by).await;
        advance_to(&bus, Phase::DualWrite).await;
        if urgent {
            advance_to(&bus, Phase::NewPrimary).await;
        }
        publish(&publisher, "k", 1).await;
        if urgent {
            bus.control().rollback(Phase::Baseline, "back").await.unwrap();
        } else {
            while bus.control().advance("on").await.is_err() {
                publish(&publisher, "other", 0).await;
            }
        }
        publish(&publisher, "k", 2).await;
        let of_k: Vec<_> = loop {
            if bus.control().status().await.unwrap().pending.is_empty() {
                let all = ids(&read_chain(&bus.reader(), &topic()).await);
                break all.into_iter().filter(|id| id.starts_with("k-")).collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(of_k, ["k-0", "k-1", "k-2"], "urgent: {urgent}");
    }
}
