//! The suite, on the engine alone and on LocalStack, at 1, 3 and 8 shards.
//!
//! LocalStack is the same engine behind a front that is many times slower, and waits most of the time: its sweep runs all
//! scenarios at each number of shards, several side by side in a random order, whose seed is said.
//!
//! Trimming is not offered: no engine can be told to forget, and what a reader does at the horizon depends on the age of
//! records, which the fake can bend (`reading_at_the_horizon`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use eb_conformance::{
    BusFactory, BusOffers, Failure, Outcome, Pace, TestBus, Verdict, bus_scenarios, run_bus_scenario,
};
use eb_contract::{
    BoxFuture, Capabilities, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId, Topic,
};
use eb_kinesis::{KinesisBus, KinesisConfig, StreamNames, capabilities};
use eb_testkit::services::{ServiceError, kinesis_url, localstack_url};
use eb_testkit::{Rng, seed};

use crate::engine::{Engine, own_prefix, patient};

struct Kinesis {
    url: fn() -> Result<String, ServiceError>,
    shards: u32,
}

impl Kinesis {
    fn local(shards: u32) -> Self {
        Self { url: kinesis_url, shards }
    }

    fn localstack(shards: u32) -> Self {
        Self { url: localstack_url, shards }
    }
}

impl BusFactory for Kinesis {
    fn capabilities(&self) -> Capabilities {
        capabilities(&KinesisConfig::emulator("http://127.0.0.1"))
    }

    fn offers(&self) -> BusOffers {
        BusOffers { create_topics: true, trim: false, reshard: true, second_publisher: true }
    }

    fn pace(&self) -> Pace {
        Pace::SERVICE
    }

    fn partitions(&self) -> u32 {
        self.shards
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
        Box::pin(async {
            // A service that cannot be had fails the test, with the reason.
            let url = (self.url)()?;
            let config = KinesisConfig {
                streams: StreamNames { prefix: own_prefix(), ..StreamNames::default() },
                timeouts: patient(),
                ..KinesisConfig::emulator(&url)
            };
            Ok(Box::new(Open::new(config, Engine::at(&url)).await?) as Box<dyn TestBus>)
        })
    }
}

struct Open {
    config: KinesisConfig,
    engine: Engine,
    bus: KinesisBus,
    publisher: Arc<dyn EventBusPublisher>,
    reader: Arc<dyn EventBusReader>,
}

impl Open {
    async fn new(config: KinesisConfig, engine: Engine) -> Outcome<Self> {
        let bus = KinesisBus::open(config.clone()).await?;
        let (publisher, reader) = (Arc::new(bus.publisher()), Arc::new(bus.reader()));
        Ok(Self { config, engine, bus, publisher, reader })
    }

    fn stream(&self, topic: &Topic) -> String {
        self.config.streams.stream_of(topic)
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
            *self = Self::new(self.config.clone(), self.engine.clone()).await?;
            Ok(())
        })
    }

    fn second_publisher(&self) -> BoxFuture<'_, Outcome<Arc<dyn EventBusPublisher>>> {
        Box::pin(async {
            let beside = KinesisBus::open(self.config.clone()).await?;
            Ok(Arc::new(beside.publisher()) as Arc<dyn EventBusPublisher>)
        })
    }

    fn split<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(
            async move { self.engine.split(&self.stream(topic), partition.0).await.map_err(Failure::new) },
        )
    }

    fn merge<'a>(&'a self, topic: &'a Topic, a: PartitionId, b: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { self.engine.merge(&self.stream(topic), a.0, b.0).await.map_err(Failure::new) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            self.publisher.close().await?;
            self.reader.close().await?;
            self.engine.delete_all(&self.config.streams.prefix).await.map_err(Failure::new)
        })
    }
}

mod on_the_engine_with_one_shard {
    eb_conformance::bus_suite!(super::Kinesis::local(1));
}

mod on_the_engine_with_three_shards {
    eb_conformance::bus_suite!(super::Kinesis::local(3));
}

mod on_the_engine_with_eight_shards {
    eb_conformance::bus_suite!(super::Kinesis::local(8));
}

/// Scenarios that wait for LocalStack at the same time.
const SIDE_BY_SIDE: usize = 6;

#[test]
fn every_scenario_holds_on_localstack_at_one_three_and_eight_shards() {
    let seed = seed();
    println!("seed: {seed} (conformance on LocalStack)");
    let mut rng = Rng::new(seed);
    let all = [1, 3, 8].into_iter().flat_map(|shards| bus_scenarios().iter().map(move |s| (shards, s.name)));
    let mut all: Vec<(u32, &str)> = all.collect();
    for i in (1..all.len()).rev() {
        all.swap(i, rng.index(i + 1));
    }
    // The server's start is nobody's time.
    localstack_url().expect("a LocalStack to test with");
    let waiting = Mutex::new(VecDeque::from(all));
    let verdicts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((shards, name)) = next else { return };
                    let verdict = run_bus_scenario(name, &Kinesis::localstack(shards));
                    verdicts.lock().unwrap_or_else(PoisonError::into_inner).push((shards, name, verdict));
                }
            });
        }
    });
    let (mut passed, mut failed) = (0, Vec::new());
    for (shards, name, verdict) in verdicts.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::NotRun(why) => println!("not run: {name}: {why}"),
            Verdict::Failed(why) => failed.push(format!("{name} at {shards} shards: {why}")),
        }
    }
    println!("cycles: {passed} scenarios passed on LocalStack, at 1, 3 and 8 shards");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
