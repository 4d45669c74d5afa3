//! Handlers within transactions: effects exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use eb_consumer::{
    CommitPolicy, ConsumerBuilder, EventConsumer, HandlerError, LeasePolicy, RunningConsumer, Within,
};
use eb_memory::{Lost, MemoryTransactions};
use serde::Deserialize;

use crate::support::{NAME, TYPE, World, outage, quick_retries, tick, topic, transient, until};

#[derive(Deserialize)]
struct Payload {
    n: u64,
}

fn builder(world: &World, store: &MemoryTransactions) -> ConsumerBuilder<Within<MemoryTransactions>> {
    let ms = Duration::from_millis;
    EventConsumer::transactional(NAME, Arc::new(store.clone()))
        .topic(topic())
        .source(world.source())
        .stores(world.stores())
        .unhandled(eb_consumer::Unhandled::Skip)
        .commit(CommitPolicy {
            records: 7,
            interval: ms(10),
            retry: ms(5),
            retry_max: ms(50),
            ..CommitPolicy::default()
        })
        .leases(LeasePolicy {
            time_to_live: ms(400),
            heartbeat: ms(100),
            rebalance: ms(50),
            retry_failed: ms(100),
            grace: ms(2000),
            ..LeasePolicy::default()
        })
        .retry(quick_retries())
}

fn store(world: &World) -> MemoryTransactions {
    MemoryTransactions::new(world.processed.clone(), world.checkpoints.clone())
}

/// Writes its number, and then fails now and then: what it wrote must be gone.
async fn start(world: &World, store: &MemoryTransactions, every: u32) -> RunningConsumer {
    let calls = Arc::new(AtomicU32::new(0));
    let consumer = builder(world, store).on(TYPE, move |event: eb_consumer::Event<Payload>, tx| {
        let call = tick(&calls);
        tx.write(format!("{} {}", event.partition_key(), event.payload.n));
        Box::pin(async move {
            tokio::task::yield_now().await;
            match call {
                call if every == 0 || call % every != 0 => Ok(()),
                call if call % 2 == 0 => Err(transient()),
                _ => panic!("half way"),
            }
        })
    });
    consumer.build().unwrap().start().await.unwrap()
}

fn assert_once_in_order(effects: &[String], events: u64, keys: u64) {
    let mut by_key: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for effect in effects {
        let (key, n) = effect.split_once(' ').unwrap();
        by_key.entry(key).or_default().push(n.parse().unwrap());
    }
    for key in 0..keys {
        let expected: Vec<_> = (key..events).step_by(keys as usize).collect();
        assert_eq!(by_key.get(format!("k{key}").as_str()), Some(&expected), "key {key}");
    }
    assert_eq!(effects.len() as u64, events);
}

#[tokio::test]
async fn a_handler_that_fails_half_way_leaves_nothing_and_every_effect_comes_once_in_order() {
    let world = World::new(2).await;
    let store = store(&world);
    world.publish(0, 200, 8).await;
    let worker = start(&world, &store, 5).await;
    until("all effects", || async { store.effects().len() == 200 }).await;
    worker.shutdown().await.unwrap();
    assert_once_in_order(&store.effects(), 200, 8);
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_doubles_nothing_and_loses_nothing_whichever_way_it_went() {
    let world = World::new(1).await;
    let store = store(&world);
    let worker = start(&world, &store, 0).await;
    let mut published = 0;
    for truth in [Lost::Committed, Lost::RolledBack, Lost::Committed, Lost::Committed, Lost::RolledBack] {
        store.lose_next_answer(truth);
        world.publish(published, 20, 4).await;
        published += 20;
        until("all effects", || async { store.effects().len() as u64 == published }).await;
        world.until_cut(0, published).await;
    }
    worker.shutdown().await.unwrap();
    assert_once_in_order(&store.effects(), published, 4);
}

#[tokio::test]
async fn killed_at_any_moment_the_next_worker_doubles_nothing() {
    let world = World::new(2).await;
    let store = store(&world);
    world.publish(0, 300, 10).await;
    for round in 0..8 {
        let worker = start(&world, &store, 6).await;
        until("some effects", || async { store.effects().len() >= (round + 1) * 30 }).await;
        drop(worker);
    }
    let worker = start(&world, &store, 0).await;
    until("all effects", || async { store.effects().len() >= 300 }).await;
    worker.shutdown().await.unwrap();
    assert_once_in_order(&store.effects(), 300, 10);
}

#[tokio::test]
async fn an_outage_of_the_store_is_outlasted_and_a_permanent_failure_is_a_letter_without_an_effect() {
    let world = World::new(1).await;
    let store = store(&world);
    let consumer = builder(&world, &store).on(TYPE, |event: eb_consumer::Event<Payload>, tx| {
        tx.write(format!("{} {}", event.partition_key(), event.payload.n));
        Box::pin(
            async move { if event.payload.n == 3 { Err(HandlerError::permanent("no")) } else { Ok(()) } },
        )
    });
    let worker = consumer.build().unwrap().start().await.unwrap();
    world.processed.outage(outage());
    world.publish(0, 10, 2).await;
    until("the trouble", || async { worker.health().status != eb_consumer::HealthStatus::Ready }).await;
    assert!(store.effects().is_empty());
    world.processed.recover();
    world.until_cut(0, 10).await;
    worker.shutdown().await.unwrap();
    assert_eq!((store.effects().len(), world.dead().await.len()), (9, 1));
    assert!(store.effects().iter().all(|e| e != "k1 3"));
}
