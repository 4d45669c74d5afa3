//! The groups that a Redis keeps, with embedded stores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eb_contract::{
    ConsumerName, EventBusAdmin, EventBusGroups, EventBusPublisher, PartitionId, PublishRecord,
};
use eb_redis::{RedisBus, RedisConfig, RedisPublisher, RedisUrl};
use eb_system_tests::consumers::CONSUMER;
use eb_system_tests::topic;
use eb_testkit::Budget;
use eb_testkit::services::redis_url;

use super::on_files::letters;
use super::{
    PARTITIONS, World, appended, at_least_once, deadly_until_the_budget_ends, until_the_budget_ends,
};

struct OnRedis {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    bus: RedisBus,
    publisher: RedisPublisher,
    address: String,
    prefix: String,
}

impl OnRedis {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("killed{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = redis_url().expect("a Redis to test with").clone();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config =
            RedisConfig { prefix: prefix.clone(), ..RedisConfig::new(RedisUrl::parse(&address).unwrap()) };
        let bus = runtime.block_on(RedisBus::open(config)).unwrap();
        runtime.block_on(bus.admin().create_topic(&topic(), PARTITIONS)).unwrap();
        let publisher = bus.publisher();
        Self { dir: tempfile::tempdir().unwrap(), runtime, bus, publisher, address, prefix }
    }
}

impl World for OnRedis {
    fn publish(&mut self, records: Vec<PublishRecord>) {
        for answer in self.runtime.block_on(self.publisher.publish_batch(&topic(), records)) {
            answer.unwrap();
        }
    }

    fn arguments(&self) -> Vec<String> {
        vec!["groups".to_owned(), self.address.clone(), self.prefix.clone()]
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn effects(&self) -> BTreeMap<String, Vec<u64>> {
        appended(self.root())
    }

    /// Everything is handed out and acknowledged.
    fn finished(&self) -> bool {
        self.runtime.block_on(async {
            let (groups, name) = (self.bus.groups(), ConsumerName::new(CONSUMER).unwrap());
            for partition in 0..PARTITIONS {
                let backlog = match groups.backlog(&name, &topic(), PartitionId(partition)).await {
                    Ok(backlog) => backlog,
                    Err(late) => {
                        assert!(late.is_retryable(), "{late}");
                        return false;
                    }
                };
                if !backlog.is_some_and(|b| b.pending == 0 && b.undelivered == Some(0)) {
                    return false;
                }
            }
            true
        })
    }
}

#[test]
fn every_event_of_a_group_whose_members_are_killed_has_its_effect_in_order_and_is_acknowledged() {
    until_the_budget_ends(Budget::new(1, Duration::from_secs(12), 40), OnRedis::new, at_least_once);
}

#[test]
fn an_event_that_aborts_its_process_is_given_up_and_acknowledged() {
    deadly_until_the_budget_ends(OnRedis::new, |world| letters(&world.runtime, world.root()), at_least_once);
}
