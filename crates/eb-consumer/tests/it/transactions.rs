//! Handlers within transactions: effects exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use eb_consumer::{
    Backoff, CommitPolicy, ConsumerBuilder, EventConsumer, HandlerError, LeasePolicy, Retried, RetryPolicy,
    RunningConsumer, Within,
};
use eb_contract::stores::DeadLetterFilter;
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
    MemoryTransactions::new(world.processed.clone(), world.checkpoints.clone(), world.letters.clone())
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

#[tokio::test]
async fn a_commit_that_lands_late_is_not_taken_for_the_next_one() {
    let world = World::new(1).await;
    let store = store(&world);
    let (open, gate) = tokio::sync::watch::channel(false);
    let calls = Arc::new(AtomicU32::new(0));
    let long = Duration::from_secs(600);
    let consumer = builder(&world, &store)
        .commit(CommitPolicy { records: 10, interval: long, ..CommitPolicy::default() })
        .leases(LeasePolicy { time_to_live: long, ..LeasePolicy::default() })
        .retry(RetryPolicy { backoff: Backoff::Fixed { delay: long }, ..RetryPolicy::default() })
        .on(TYPE, move |event: eb_consumer::Event<Payload>, tx| {
            tx.write(format!("{} {}", event.partition_key(), event.payload.n));
            let mut gate = gate.clone();
            let calls = Arc::clone(&calls);
            Box::pin(async move {
                match event.payload.n {
                    0 => return Err(transient()),
                    1 if tick(&calls) == 2 => _ = gate.wait_for(|open| *open).await,
                    _ => {}
                }
                Ok(())
            })
        });
    // The first stands in the way of the cut for good; the second's commit is lost on its way.
    store.lose_next_answer(Lost::LandsLate);
    world.publish(0, 2, 3).await;
    let worker = consumer.build().unwrap().start().await.unwrap();
    until("a commit on its way", || async { store.is_one_late() }).await;
    // While the second is handled again, the third comes: it is in the next transaction, which is refused.
    world.publish(2, 1, 3).await;
    until("the third", || async { worker.partitions().iter().any(|p| p.in_flight == 3) }).await;
    open.send_replace(true);
    until("its effect", || async { store.effects().contains(&"k2 2".to_owned()) }).await;
    worker.shutdown().await.unwrap();
    assert_eq!(store.effects(), ["k1 1", "k2 2"], "each once");
}

#[tokio::test]
async fn a_handler_that_never_ends_is_dropped_with_the_grace_and_what_went_before_it_is_committed() {
    let world = World::new(1).await;
    let store = store(&world);
    let long = Duration::from_secs(600);
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let consumer = builder(&world, &store)
        .commit(CommitPolicy { interval: long, retry_max: long, ..CommitPolicy::default() })
        .leases(LeasePolicy { grace: Duration::from_millis(20), ..LeasePolicy::default() })
        .on(TYPE, move |event: eb_consumer::Event<Payload>, tx| {
            tx.write(format!("{} {}", event.partition_key(), event.payload.n));
            let begun = begun.clone();
            Box::pin(async move {
                if event.payload.n == 2 {
                    begun.send(()).unwrap();
                    std::future::pending::<()>().await;
                }
                Ok(())
            })
        });
    let worker = consumer.build().unwrap().start().await.unwrap();
    world.publish(0, 5, 1).await;
    begins.recv().await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(60), worker.shutdown()).await;
    stopped.expect("the shutdown ends soon after the grace").unwrap();
    assert_eq!(store.effects(), ["k0 0", "k0 1"]);
    let next = start(&world, &store, 0).await;
    until("all effects", || async { store.effects().len() == 5 }).await;
    next.shutdown().await.unwrap();
    assert_once_in_order(&store.effects(), 5, 1);
}

#[tokio::test]
async fn a_record_has_its_effect_or_its_letter_whenever_its_worker_is_killed() {
    let world = World::new(2).await;
    let store = store(&world);
    world.publish(0, 200, 10).await;
    let calls = Arc::new(AtomicU32::new(0));
    // Which attempts fail for good is left to chance: a second one may go the other way.
    let start = || {
        let (calls, mut rng) = (Arc::clone(&calls), fastrand::Rng::with_seed(u64::from(tick(&calls))));
        let luck = std::sync::Mutex::new(move || rng.u8(..));
        let consumer = builder(&world, &store).on(TYPE, move |event: eb_consumer::Event<Payload>, tx| {
            tick(&calls);
            let dies = luck.lock().unwrap()() < 60;
            tx.write(format!("{} {}", event.partition_key(), event.payload.n));
            Box::pin(async move {
                tokio::task::yield_now().await;
                if dies { Err(HandlerError::permanent("no")) } else { Ok(()) }
            })
        });
        let consumer = consumer.build().unwrap();
        async move { consumer.start().await.unwrap() }
    };
    for round in 0..20 {
        let worker = start().await;
        until("some effects", || async {
            store.effects().len() + world.dead().await.len() >= (round + 1) * 8
        })
        .await;
        drop(worker);
    }
    let worker = start().await;
    until("all of them", || async { store.effects().len() + world.dead().await.len() >= 200 }).await;
    worker.shutdown().await.unwrap();
    let dead = world.dead().await;
    let dead = dead.iter().map(|l| {
        let n = &l.letter.event_id.as_ref().unwrap()[1..];
        format!("{} {n}", l.letter.record.partition_key)
    });
    let mut all: Vec<String> = store.effects().into_iter().chain(dead).collect();
    all.sort();
    let mut expected: Vec<String> = (0..200).map(|n| format!("k{} {n}", n % 10)).collect();
    expected.sort();
    assert_eq!(all, expected, "each once, as an effect or as a letter");
}

#[tokio::test]
async fn a_letter_is_there_only_once_its_record_is_marked() {
    let world = World::new(1).await;
    let store = store(&world);
    world.publish(0, 1, 1).await;
    // The attempt is committed, and then not the letter; there is no second try before the worker dies.
    store.lose_answer_after(1, Lost::RolledBack);
    let long = Duration::from_secs(600);
    let consumer = builder(&world, &store)
        .commit(CommitPolicy { retry: long, retry_max: long, ..CommitPolicy::default() })
        .on(TYPE, |_: eb_consumer::Event<Payload>, _| Box::pin(async { Err(HandlerError::permanent("no")) }));
    let worker = consumer.build().unwrap().start().await.unwrap();
    let troubled = || async { worker.health().checks.iter().any(|c| c.detail.contains("was lost")) };
    until("the lost answer", troubled).await;
    drop(worker);
    assert_eq!(world.dead().await, vec![]);
    let next = start(&world, &store, 0).await;
    until("the effect", || async { store.effects().len() == 1 }).await;
    next.shutdown().await.unwrap();
    assert_eq!(world.dead().await, vec![]);
}

/// Ten records, all of them dead letters without an effect.
async fn all_dead(world: &World, store: &MemoryTransactions) {
    world.publish(0, 10, 2).await;
    let consumer = builder(world, store).on(TYPE, |event: eb_consumer::Event<Payload>, tx| {
        tx.write(format!("{} {}", event.partition_key(), event.payload.n));
        Box::pin(async { Err(HandlerError::permanent("no")) })
    });
    let worker = consumer.build().unwrap().start().await.unwrap();
    world.until_cut(0, 10).await;
    worker.shutdown().await.unwrap();
    assert_eq!((store.effects().len(), world.dead().await.len()), (0, 10));
}

fn retrier(world: &World, store: &MemoryTransactions, fails: u64) -> EventConsumer {
    let consumer = builder(world, store).on(TYPE, move |event: eb_consumer::Event<Payload>, tx| {
        tx.write(format!("{} {}", event.partition_key(), event.payload.n));
        Box::pin(async move {
            tokio::task::yield_now().await;
            if event.payload.n.is_multiple_of(fails) { Err(transient()) } else { Ok(()) }
        })
    });
    consumer.build().unwrap()
}

async fn retry_all(consumer: &EventConsumer) -> eb_contract::Result<Vec<Retried>> {
    let mut told = Vec::new();
    let filter = DeadLetterFilter::default();
    consumer.retry_dead_letters(&filter, "mended", |_, r| told.push(r.clone())).await.map(|()| told)
}

#[tokio::test]
async fn a_retried_letter_has_its_effect_with_its_end_or_neither() {
    let world = World::new(1).await;
    let store = store(&world);
    all_dead(&world, &store).await;
    let told = retry_all(&retrier(&world, &store, 3)).await.unwrap();
    let failed = told.iter().filter(|r| matches!(r, Retried::Failed(why) if why == &["not now"])).count();
    assert_eq!((told.len(), failed), (10, 4));
    assert_eq!((store.effects().len(), world.dead().await.len()), (6, 4), "what failed left nothing");
    // Two at once, dropped at any moment: each letter has one effect in the end.
    let consumer = retrier(&world, &store, 1000);
    for polls in 0..12 {
        let both = async { tokio::join!(retry_all(&consumer), retry_all(&consumer)) };
        let mut both = Box::pin(both);
        for _ in 0..polls {
            if futures_util::FutureExt::now_or_never(&mut both).is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // n = 0 never succeeds with this handler.
    assert_eq!(retry_all(&consumer).await.unwrap().len(), 1);
    retry_all(&retrier(&world, &store, 7_000_000)).await.unwrap();
    assert_eq!(world.dead().await.len(), 1, "0 is a multiple of everything");
    let mut effects = store.effects();
    effects.sort();
    let mut expected: Vec<String> = (1..10).map(|n| format!("k{} {n}", n % 2)).collect();
    expected.sort();
    assert_eq!(effects, expected);
    // A worker sees none of them again.
    let worker = start(&world, &store, 0).await;
    world.publish(10, 1, 2).await;
    until("the new one", || async { store.effects().len() == 10 }).await;
    worker.shutdown().await.unwrap();
    assert!(store.effects().iter().all(|e| e != "k0 0"));
}

#[tokio::test]
async fn the_letter_tells_what_became_of_a_retry_whose_answer_was_lost() {
    let world = World::new(1).await;
    let store = store(&world);
    all_dead(&world, &store).await;
    let consumer = retrier(&world, &store, 1000);
    let second = world.dead().await[1].id;
    store.lose_next_answer(Lost::Committed);
    assert_eq!(consumer.retry_dead_letter(second, "mended").await.unwrap().1, Retried::Handled);
    let third = world.dead().await[1].id;
    store.lose_next_answer(Lost::RolledBack);
    let unknown = consumer.retry_dead_letter(third, "mended").await.unwrap_err();
    assert_eq!(unknown.effect(), eb_contract::Effect::Unknown);
    assert_eq!((store.effects(), world.dead().await.len()), (vec!["k1 1".to_owned()], 9));
    assert_eq!(consumer.retry_dead_letter(third, "mended").await.unwrap().1, Retried::Handled);
    assert_eq!(store.effects(), ["k1 1", "k0 2"]);
}
