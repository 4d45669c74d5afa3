//! The suite, on one server: each bus has keys of its own.

use std::sync::Arc;

use eb_conformance::{BusFactory, BusOffers, Outcome, TestBus};
use eb_contract::{
    BoxFuture, Capabilities, Cut, EventBusAdmin, EventBusPublisher, EventBusReader, Offset, PartitionId,
    Topic,
};
use eb_redis::{RedisBus, RedisConfig};
use eb_testkit::services::RedisWire;

use crate::common::{config, own_prefix, shared_port};

/// Who deletes records.
#[derive(Clone, Copy)]
enum Trimmed {
    ByTheBus,
    ByHand,
}

struct OnRedis {
    partitions: u32,
    trimmed: Trimmed,
}

impl BusFactory for OnRedis {
    fn capabilities(&self) -> Capabilities {
        eb_redis::capabilities(&config(1))
    }

    fn offers(&self) -> BusOffers {
        BusOffers { create_topics: true, trim: true, reshard: false, second_publisher: true }
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
        Box::pin(async {
            let config = RedisConfig { prefix: own_prefix(), ..config(shared_port()) };
            Ok(Box::new(Open::new(config, self.trimmed).await?) as Box<dyn TestBus>)
        })
    }
}

struct Open {
    bus: RedisBus,
    config: RedisConfig,
    trimmed: Trimmed,
    publisher: Arc<dyn EventBusPublisher>,
    reader: Arc<dyn EventBusReader>,
}

impl Open {
    async fn new(config: RedisConfig, trimmed: Trimmed) -> Outcome<Self> {
        let bus = RedisBus::open(config.clone()).await?;
        let (publisher, reader) = (Arc::new(bus.publisher()), Arc::new(bus.reader()));
        Ok(Self { bus, config, trimmed, publisher, reader })
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
            *self = Self::new(self.config.clone(), self.trimmed).await?;
            Ok(())
        })
    }

    fn second_publisher(&self) -> BoxFuture<'_, Outcome<Arc<dyn EventBusPublisher>>> {
        Box::pin(async {
            // Over another opening, as another process would have it.
            let other = RedisBus::open(self.config.clone()).await?;
            Ok(Arc::new(other.publisher()) as Arc<dyn EventBusPublisher>)
        })
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        before: Offset,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.trimmed {
                Trimmed::ByTheBus => {
                    self.bus.admin().trim(topic, partition, &Cut::Next(before)).await.map(drop)?;
                }
                Trimmed::ByHand => {
                    let key = format!("{{{}}}:s:{topic}:{partition}", self.config.prefix);
                    let mut wire = RedisWire::connect(shared_port())?;
                    wire.must(&["XTRIM", &key, "MINID", &before.to_string()])?;
                }
            }
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            self.publisher.close().await?;
            self.reader.close().await?;
            Ok(())
        })
    }
}

mod one_partition {
    eb_conformance::bus_suite!(super::OnRedis { partitions: 1, trimmed: super::Trimmed::ByTheBus });
}

mod three_partitions {
    eb_conformance::bus_suite!(super::OnRedis { partitions: 3, trimmed: super::Trimmed::ByHand });
}

mod eight_partitions {
    eb_conformance::bus_suite!(super::OnRedis { partitions: 8, trimmed: super::Trimmed::ByTheBus });
}
