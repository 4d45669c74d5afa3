//! A source that has to be opened anew while records that were read are still being worked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eb_consumer::{ConsumerSource, HealthStatus};
use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, Error, ErrorKind, EventBusReader, Head, PartitionId, ReadBatch,
    ReadLimit, Result, Retry, StartAt, Topic, TopicPartitions,
};
use eb_memory::MemoryReader;

use crate::support::{World, transient, until};

/// A reader whose cursors are worth nothing once their generation is over.
#[derive(Clone)]
struct Reader {
    inner: Arc<MemoryReader>,
    generation: Arc<AtomicU64>,
    retry: Retry,
}

struct Old {
    inner: Box<dyn Cursor>,
    of: Reader,
    generation: u64,
}

impl Reader {
    fn now(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn replace(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl EventBusReader for Reader {
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
        Box::pin(async move {
            let inner = self.inner.cursor(topic, partition, start).await?;
            Ok(Box::new(Old { inner, of: self.clone(), generation: self.now() }) as Box<dyn Cursor>)
        })
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.inner.close()
    }
}

impl Cursor for Old {
    fn topic(&self) -> &Topic {
        self.inner.topic()
    }

    fn partition_id(&self) -> PartitionId {
        self.inner.partition_id()
    }

    fn position(&self) -> Cut {
        self.inner.position()
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        Box::pin(async move {
            if self.generation != self.of.now() {
                let error = Error::new(ErrorKind::Io, "read", "the log was replaced");
                return Err(error.with_retry(self.of.retry));
            }
            self.inner.next(limit).await
        })
    }
}

async fn goes_on_beside_a_key_that_never_ends(retry: Retry) {
    let world = World::new(1).await;
    let reader = Reader { inner: Arc::new(world.bus.reader()), generation: Arc::default(), retry };
    let stuck = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&stuck);
    let builder = world.builder().source(ConsumerSource::Log(Arc::new(reader.clone())));
    let worker = world
        .start(builder, move |event| {
            if event.partition_key().as_str() == "k0" && flag.load(Ordering::SeqCst) {
                return Err(transient());
            }
            Ok(())
        })
        .await;
    world.publish(0, 4, 2).await;
    world.seen.until(2).await;
    for round in 1..4 {
        reader.replace();
        world.publish(round * 4, 4, 2).await;
        world.seen.until(2 + round as usize * 2).await;
    }
    until("its health", || async { worker.health().status == HealthStatus::Ready }).await;
    stuck.store(false, Ordering::SeqCst);
    world.until_cut(0, 16).await;
    worker.shutdown().await.unwrap();
    world.seen.assert_all_in_order(16, 2);
    assert!(world.seen.look().done.values().all(|n| *n == 1), "nothing is read twice");
}

#[tokio::test]
async fn a_source_that_has_to_be_opened_anew_is_while_a_key_is_tried_again_for_ever() {
    goes_on_beside_a_key_that_never_ends(Retry::AfterReopen).await;
}

#[tokio::test]
async fn a_source_that_cannot_be_read_and_later_can_is_read_on_while_a_key_is_tried_again_for_ever() {
    goes_on_beside_a_key_that_never_ends(Retry::Never).await;
}
