//! The suite, on each shape that a memory bus can take.

use std::sync::Arc;

use eb_conformance::{BusFactory, BusOffers, Outcome, TestBus};
use eb_contract::{
    BoxFuture, Capabilities, Cut, EventBusAdmin, EventBusPublisher, EventBusReader, Offset, PartitionId,
    Topic,
};
use eb_memory::{MemoryBus, MemoryConfig};

struct Memory {
    config: MemoryConfig,
    partitions: u32,
}

impl Memory {
    /// A plain log: dense, nothing is trimmed, nothing reshards.
    fn log(partitions: u32) -> Self {
        Self { config: MemoryConfig::default(), partitions }
    }

    /// What a managed stream looks like: sparse, trimmed, resharded.
    fn stream(partitions: u32) -> Self {
        Self { config: MemoryConfig::stream_like(), partitions }
    }
}

impl BusFactory for Memory {
    fn capabilities(&self) -> Capabilities {
        MemoryBus::with_config(self.config.clone()).capabilities().clone()
    }

    fn offers(&self) -> BusOffers {
        BusOffers { create_topics: true, trim: true, reshard: true, second_publisher: true }
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
        Box::pin(async {
            Ok(Box::new(Open::new(MemoryBus::with_config(self.config.clone()))) as Box<dyn TestBus>)
        })
    }
}

struct Open {
    bus: MemoryBus,
    publisher: Arc<dyn EventBusPublisher>,
    reader: Arc<dyn EventBusReader>,
}

impl Open {
    fn new(bus: MemoryBus) -> Self {
        Self { publisher: Arc::new(bus.publisher()), reader: Arc::new(bus.reader()), bus }
    }
}

impl TestBus for Open {
    fn publisher(&self) -> Arc<dyn EventBusPublisher> {
        self.publisher.clone()
    }

    fn reader(&self) -> Arc<dyn EventBusReader> {
        self.reader.clone()
    }

    fn admin(&self) -> Arc<dyn EventBusAdmin> {
        Arc::new(self.bus.admin())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.publisher.close().await?;
            self.reader.close().await?;
            *self = Self::new(self.bus.reopen());
            Ok(())
        })
    }

    fn second_publisher(&self) -> BoxFuture<'_, Outcome<Arc<dyn EventBusPublisher>>> {
        Box::pin(async { Ok(Arc::new(self.bus.publisher()) as Arc<dyn EventBusPublisher>) })
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        before: Offset,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.bus.faults().trim(topic, partition, &Cut::Next(before))?) })
    }

    fn split<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.bus.faults().split(topic, partition).map(drop)?) })
    }

    fn merge<'a>(&'a self, topic: &'a Topic, a: PartitionId, b: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.bus.faults().merge(topic, a, b).map(drop)?) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            self.publisher.close().await?;
            self.reader.close().await?;
            Ok(())
        })
    }
}

mod log_of_one_partition {
    eb_conformance::bus_suite!(super::Memory::log(1));
}

mod log_of_three_partitions {
    eb_conformance::bus_suite!(super::Memory::log(3));
}

mod stream_of_one_partition {
    eb_conformance::bus_suite!(super::Memory::stream(1));
}

mod stream_of_eight_partitions {
    eb_conformance::bus_suite!(super::Memory::stream(8));
}
