//! The suite, in each phase.

use std::sync::Arc;

use eb_conformance::{BusFactory, BusOffers, Outcome, TestBus};
use eb_contract::{
    BoxFuture, Capabilities, Cut, EventBusAdmin, EventBusPublisher, EventBusReader, Offset, PartitionId,
    Topic,
};
use eb_memory::{MemoryBus, MemoryConfig};
use eb_rollout::{Phase, RolloutBus, RolloutPublisher, RolloutReader};

use crate::support::{World, advance_to, quick};

struct Rollouts {
    config: fn() -> MemoryConfig,
    phase: Phase,
    partitions: u32,
}

impl BusFactory for Rollouts {
    fn capabilities(&self) -> Capabilities {
        let config = (self.config)();
        // What a rollout declares is known when it is open, which needs a runtime of its own.
        let opening = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bus = World::new(config.clone(), config).open(quick()).await;
                bus.capabilities().clone()
            })
        });
        opening.join().unwrap()
    }

    fn offers(&self) -> BusOffers {
        let reshard = (self.config)().resharding;
        BusOffers { create_topics: true, trim: true, reshard, second_publisher: true }
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
        Box::pin(async {
            let world = World::new((self.config)(), (self.config)());
            let bus = world.open(quick()).await;
            advance_to(&bus, self.phase).await;
            Ok(Box::new(Open::new(world, bus, self.phase)) as Box<dyn TestBus>)
        })
    }
}

struct Open {
    world: World,
    bus: RolloutBus,
    phase: Phase,
    publisher: Arc<RolloutPublisher>,
    reader: Arc<RolloutReader>,
}

impl Open {
    fn new(world: World, bus: RolloutBus, phase: Phase) -> Self {
        Self { publisher: Arc::new(bus.publisher()), reader: Arc::new(bus.reader()), world, bus, phase }
    }

    fn primary(&self) -> &MemoryBus {
        match self.phase {
            Phase::Baseline | Phase::DualWrite => &self.world.old,
            Phase::NewPrimary | Phase::NewOnly => &self.world.new,
        }
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
            let bus = self.world.open(quick()).await;
            *self = Self::new(self.world.clone(), bus, self.phase);
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
        Box::pin(async move { Ok(self.primary().faults().trim(topic, partition, &Cut::Next(before))?) })
    }

    fn split<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.primary().faults().split(topic, partition).map(drop)?) })
    }

    fn merge<'a>(&'a self, topic: &'a Topic, a: PartitionId, b: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.primary().faults().merge(topic, a, b).map(drop)?) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            self.publisher.close().await?;
            self.reader.close().await?;
            Ok(())
        })
    }
}

macro_rules! phases {
    ($($name:ident: $phase:ident, $config:expr, $partitions:literal;)*) => {
        $(mod $name {
            eb_conformance::bus_suite!(super::Rollouts {
                config: || $config,
                phase: eb_rollout::Phase::$phase,
                partitions: $partitions,
            });
        })*
    };
}

phases! {
    baseline: Baseline, eb_memory::MemoryConfig::default(), 3;
    dual_write: DualWrite, eb_memory::MemoryConfig::default(), 3;
    new_primary: NewPrimary, eb_memory::MemoryConfig::default(), 1;
    new_only: NewOnly, eb_memory::MemoryConfig::default(), 3;
    baseline_of_streams: Baseline, eb_memory::MemoryConfig::stream_like(), 1;
    new_primary_of_streams: NewPrimary, eb_memory::MemoryConfig::stream_like(), 3;
}
