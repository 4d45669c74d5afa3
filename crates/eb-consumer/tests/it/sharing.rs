//! Workers that share partitions, lose leases, and follow a topic through resharding.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use eb_consumer::{AfterMax, HealthStatus, LeasePolicy, Limits, RetryPolicy, RunningConsumer, Stores};
use eb_contract::stores::{Claim, Heartbeat, Lease, LeaseInfo, LeaseKey, LeaseStore, Renewal, WorkPhase};
use eb_contract::{BoxFuture, ConsumerName, Cut, EventBusReader, PartitionId, Result, StartAt, Topic};
use eb_memory::{MemoryConfig, MemoryLeases};
use tokio::sync::watch;

use crate::support::{World, name, number, outage, quick_retries, topic, transient, until};

fn held(worker: &RunningConsumer) -> BTreeSet<u32> {
    worker.partitions().iter().map(|p| p.partition_id.0).collect()
}

async fn heads(world: &World) -> Vec<(u32, u64)> {
    let reader = world.bus.reader();
    let mut heads = Vec::new();
    for p in reader.partitions(&topic()).await.unwrap().partitions {
        let head = reader.head(&topic(), p.id).await.unwrap();
        heads.push((p.id.0, head.last.and_then(|o| o.as_u64()).map_or(0, |n| n + 1)));
    }
    heads
}

#[tokio::test]
async fn partitions_are_shared_fairly_and_those_of_a_killed_worker_move_with_nothing_skipped() {
    let world = World::new(8).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(world.worker(|_| Ok(())).await);
    }
    let shared = || async {
        let mut counts: Vec<_> = workers.iter().map(|w| held(w).len()).collect();
        counts.sort_unstable();
        counts == [2, 3, 3]
    };
    until("a fair share", shared).await;
    let all: Vec<_> = workers.iter().flat_map(held).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 8, "no partition twice: {all:?}");
    world.publish(0, 400, 40).await;
    world.seen.until(100).await;
    // A crash: nothing is given back.
    drop(workers.pop());
    world.publish(400, 400, 40).await;
    world.seen.until(800).await;
    until("all partitions", || async { workers.iter().map(|w| held(w).len()).sum::<usize>() == 8 }).await;
    for (partition, head) in heads(&world).await {
        if head > 0 {
            world.until_cut(partition, head).await;
        }
    }
    for worker in workers {
        worker.shutdown().await.unwrap();
    }
    world.seen.assert_all_in_order(800, 40);
}

#[tokio::test]
async fn a_worker_that_joins_gets_its_share_and_one_that_leaves_gives_it_back_at_once() {
    let world = World::new(4).await;
    let long = LeasePolicy { time_to_live: Duration::from_secs(600), ..world_leases() };
    let first = world.start(world.builder().leases(long.clone()), |_| Ok(())).await;
    until("everything", || async { held(&first).len() == 4 }).await;
    let second = world.start(world.builder().leases(long), |_| Ok(())).await;
    until("a half each", || async { held(&first).len() == 2 && held(&second).len() == 2 }).await;
    world.publish(0, 100, 20).await;
    world.seen.until(100).await;
    second.shutdown().await.unwrap();
    until("everything again", || async { held(&first).len() == 4 }).await;
    first.shutdown().await.unwrap();
    world.seen.assert_all_in_order(100, 20);
    assert!(world.seen.look().calls.values().all(|n| *n == 1), "giving up gracefully repeats nothing");
    let leases = world.leases.list(Some(&name())).await.unwrap();
    assert!(leases.iter().all(|l| l.left.is_none()), "{leases:?}");
}

fn world_leases() -> LeasePolicy {
    let ms = Duration::from_millis;
    LeasePolicy { heartbeat: ms(50), rebalance: ms(30), grace: ms(2000), ..LeasePolicy::default() }
}

#[tokio::test]
async fn a_lease_lost_in_the_middle_of_a_handler_stops_it_and_the_next_holder_goes_on_from_the_stored_cut() {
    let world = World::new(1).await;
    world.publish(0, 6, 1).await;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let dropped = Arc::new(AtomicBool::new(false));
    struct OnDrop(Arc<AtomicBool>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Arc::clone(&dropped);
    let short = LeasePolicy { time_to_live: Duration::from_millis(300), ..world_leases() };
    let consumer = world.builder().leases(short).otherwise(move |event| {
        let (begun, flag) = (begun.clone(), Arc::clone(&flag));
        async move {
            if number(&event) == 3 {
                let _dropped = OnDrop(flag);
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let worker = consumer.build().unwrap().start().await.unwrap();
    begins.recv().await.unwrap();
    world.until_cut(0, 3).await;
    world.leases.outage(outage());
    until("the end of the lease", || async { dropped.load(Ordering::SeqCst) && held(&worker).is_empty() })
        .await;
    assert_ne!(worker.health().status, HealthStatus::Ready);
    drop(worker);
    world.leases.recover();
    let next = world.worker(|_| Ok(())).await;
    world.until_cut(0, 6).await;
    next.shutdown().await.unwrap();
    let calls = world.seen.look().calls;
    assert_eq!(
        calls.keys().cloned().collect::<Vec<_>>(),
        ["e3", "e4", "e5"],
        "what was recorded is not repeated"
    );
}

#[tokio::test]
async fn a_worker_whose_partition_was_taken_over_commits_nothing_more() {
    let world = World::new(1).await;
    let worker = world.worker(|_| Ok(())).await;
    world.publish(0, 3, 1).await;
    world.until_cut(0, 3).await;
    // Another holder, as the stores of effects see it: a higher epoch.
    let stored =
        eb_contract::stores::CheckpointStore::load(&world.checkpoints, &name(), &topic(), PartitionId(0))
            .await;
    let mut stored = stored.unwrap().unwrap();
    let lease = eb_contract::stores::Lease {
        owner: "other".to_owned(),
        epoch: stored.lease.as_ref().unwrap().epoch + 1,
    };
    stored.cut = Cut::Next(eb_contract::Offset::from_u64(eb_contract::OffsetKind::MemoryIndex, 5));
    let done = eb_contract::stores::CheckpointStore::commit(&world.checkpoints, &[stored], &lease).await;
    assert!(done[0].is_ok());
    world.publish(3, 5, 1).await;
    // Fenced, it starts over with a new lease from where the other one has got to.
    world.until_cut(0, 8).await;
    worker.shutdown().await.unwrap();
    let key = LeaseKey { consumer: name(), topic: topic(), partition_id: PartitionId(0) };
    let leases = world.leases.list(None).await.unwrap();
    assert!(leases.iter().any(|l| l.key == key && l.lease.epoch > lease.epoch), "{leases:?}");
}

#[tokio::test]
async fn a_reset_checkpoint_is_followed() {
    let world = World::new(1).await;
    let worker = world.worker(|_| Ok(())).await;
    world.publish(0, 4, 1).await;
    world.until_cut(0, 4).await;
    reset_to(&world, 6).await;
    world.publish(4, 4, 1).await;
    world.until_cut(0, 8).await;
    worker.shutdown().await.unwrap();
    let seen = world.seen.look();
    assert!(seen.done.contains_key("e6") && seen.done.contains_key("e7"));
}

#[tokio::test]
async fn children_are_read_after_all_their_parents_and_no_key_goes_back() {
    let config = MemoryConfig { resharding: true, retention: true, ..MemoryConfig::default() };
    let world = World::on(config, 2).await;
    world.publish(0, 200, 20).await;
    let [a, b] = world.bus.faults().split(&topic(), PartitionId(0)).unwrap();
    world.publish(200, 200, 20).await;
    let merged = world.bus.faults().merge(&topic(), b, PartitionId(1)).unwrap();
    world.publish(400, 200, 20).await;
    let calls = std::sync::atomic::AtomicU32::new(0);
    let workers =
        [
            world
                .worker(move |_| {
                    if crate::support::tick(&calls).is_multiple_of(9) { Err(transient()) } else { Ok(()) }
                })
                .await,
            world.worker(|_| Ok(())).await,
        ];
    world.seen.until(600).await;
    for (partition, closed) in [(0, true), (1, true), (a.0, false), (b.0, true), (merged.0, false)] {
        until("the end of the parents", || async {
            let cut = world.cut(partition).await;
            cut.is_some() && (!closed || cut == Some(Cut::End))
        })
        .await;
    }
    world.bus.faults().split(&topic(), merged).unwrap();
    world.publish(600, 100, 20).await;
    world.seen.until(700).await;
    for worker in workers {
        worker.shutdown().await.unwrap();
    }
    world.seen.assert_all_in_order(700, 20);
    assert!(world.seen.look().done.values().all(|n| *n == 1));
}

#[tokio::test]
async fn a_new_consumer_that_starts_at_the_head_leaves_out_what_was_there_also_where_shards_had_been_split() {
    let config = MemoryConfig { resharding: true, retention: true, ..MemoryConfig::default() };
    let world = World::on(config, 1).await;
    world.publish(0, 10, 5).await;
    world.bus.faults().split(&topic(), PartitionId(0)).unwrap();
    world.publish(10, 10, 5).await;
    let worker = world.start(world.builder().start_at(StartAt::Latest), |_| Ok(())).await;
    world.publish(20, 10, 5).await;
    world.seen.until(10).await;
    worker.shutdown().await.unwrap();
    // The place was written down: it is not resolved anew.
    world.publish(30, 5, 5).await;
    let worker = world.start(world.builder().start_at(StartAt::Latest), |_| Ok(())).await;
    world.seen.until(15).await;
    worker.shutdown().await.unwrap();
    let mut seen: Vec<u64> = world.seen.look().done.keys().map(|id| id[1..].parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (20..35).collect::<Vec<_>>());
}

#[tokio::test]
async fn while_the_stores_are_away_handling_stops_at_the_room_and_goes_on_afterwards() {
    let world = World::new(1).await;
    world.publish(0, 10, 5).await;
    let limits = eb_consumer::Limits { partition_records: 50, read_records: 10, ..Default::default() };
    let leases = LeasePolicy { time_to_live: Duration::from_secs(60), ..world_leases() };
    let worker = world.start(world.builder().limits(limits).leases(leases), |_| Ok(())).await;
    world.until_cut(0, 10).await;
    world.checkpoints.outage(outage());
    world.processed.outage(outage());
    world.publish(10, 200, 5).await;
    until("the trouble", || async { worker.health().status != HealthStatus::Ready }).await;
    assert!(world.seen.look().done.len() <= 60, "no more than there is room for");

    world.checkpoints.recover();
    world.processed.recover();
    world.until_cut(0, 210).await;
    worker.shutdown().await.unwrap();
    world.seen.assert_all_in_order(210, 5);
    assert!(world.seen.look().done.values().all(|n| *n == 1));
}

#[tokio::test]
async fn what_a_worker_is_at_is_seen_from_elsewhere_and_gone_with_it() {
    let world = World::new(1).await;
    let limits = Limits { partition_records: 6, read_records: 6, ..Limits::default() };
    let stuck = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&stuck);
    let worker = world.start(world.builder().limits(limits), move |event| {
        if event.partition_key().as_str() == "k0" && flag.load(Ordering::SeqCst) {
            return Err(transient());
        }
        Ok(())
    });
    let worker = worker.await;
    // As another process sees it: through the stores alone.
    let row = || async {
        eb_consumer::overview(&world.source(), &world.stores(), Some(&name())).await.unwrap().pop()
    };
    let work = || async { row().await.and_then(|row| row.reported).map(|reported| reported.work) };
    world.publish(0, 30, 3).await;
    until("a partition at its bound", || async {
        work().await.is_some_and(|w| w.phase == WorkPhase::Paused && w.keys_retrying == 1 && w.retries > 2)
    })
    .await;
    let there = row().await.unwrap();
    assert_eq!((there.in_flight(), there.lag), (Some(2), Some(30)), "{there:?}");
    assert_eq!(there.holder.unwrap().0.owner, worker.owner());
    stuck.store(false, Ordering::SeqCst);
    until("nothing in flight", || async {
        work().await.is_some_and(|w| (w.phase, w.in_flight, w.keys_retrying) == (WorkPhase::Running, 0, 0))
    })
    .await;
    worker.shutdown().await.unwrap();
    let gone = row().await.unwrap();
    assert_eq!((gone.holder, gone.reported, gone.lag), (None, None, Some(0)));
}

#[tokio::test]
async fn a_halted_partition_says_so_to_everybody() {
    let world = World::new(1).await;
    world.publish(0, 4, 1).await;
    let retry = RetryPolicy { max_attempts: Some(2), after_max: AfterMax::Halt, ..quick_retries() };
    let worker = world.start(world.builder().retry(retry), |_| Err(transient())).await;
    until("the halt", || async {
        let rows = eb_consumer::overview(&world.source(), &world.stores(), None).await.unwrap();
        rows.iter()
            .any(|r| r.reported.is_some_and(|r| r.work.phase == WorkPhase::Halted && r.work.retries == 1))
    })
    .await;
    worker.shutdown().await.unwrap();
}

/// Leases whose store is slow to release: whatever else is asked in the meantime comes first.
struct SlowRelease {
    inner: MemoryLeases,
    claims: watch::Sender<u64>,
    fenced: AtomicU32,
    beats: AtomicU32,
}

impl LeaseStore for SlowRelease {
    fn claim<'a>(
        &'a self,
        key: &'a LeaseKey,
        owner: &'a str,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<Claim>> {
        let claim = self.inner.claim(key, owner, time_to_live);
        self.claims.send_modify(|n| *n += 1);
        claim
    }

    fn heartbeat<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
        time_to_live: Duration,
        held: &'a [Renewal],
    ) -> BoxFuture<'a, Result<Heartbeat>> {
        Box::pin(async move {
            let beat = self.inner.heartbeat(consumer, topic, owner, time_to_live, held).await?;
            self.beats.fetch_add(1, Ordering::SeqCst);
            let fenced = beat.renewed.iter().filter(|renewed| renewed.is_err()).count();
            self.fenced.fetch_add(u32::try_from(fenced).unwrap(), Ordering::SeqCst);
            Ok(beat)
        })
    }

    fn release<'a>(&'a self, key: &'a LeaseKey, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut claims = self.claims.subscribe();
            // Not for ever: a claim that waits for the release is what it should be.
            _ = tokio::time::timeout(Duration::from_millis(300), claims.changed()).await;
            self.inner.release(key, lease).await
        })
    }

    fn leave<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        self.inner.leave(consumer, topic, owner)
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<LeaseInfo>>> {
        self.inner.list(consumer)
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.probe()
    }
}

#[tokio::test]
async fn a_partition_is_claimed_anew_only_once_it_was_released() {
    let world = World::new(1).await;
    let leases = Arc::new(SlowRelease {
        inner: world.leases.clone(),
        claims: watch::Sender::new(0),
        fenced: AtomicU32::new(0),
        beats: AtomicU32::new(0),
    });
    let stores = Stores { leases: Arc::clone(&leases) as Arc<dyn LeaseStore>, ..world.stores() };
    // None ends by itself, however busy the machine is: what is counted is what the worker gives back.
    let long = LeasePolicy { time_to_live: Duration::from_secs(600), ..world_leases() };
    let worker = world.start(world.builder().stores(stores).leases(long), |_| Ok(())).await;
    for round in 1..4 {
        world.publish((round - 1) * 4, 4, 1).await;
        world.until_cut(0, round * 4).await;
        // The partition is given up, released, and opened anew where the checkpoint says.
        reset_to(&world, round * 4).await;
    }
    world.publish(12, 4, 1).await;
    world.until_cut(0, 16).await;
    let beats = leases.beats.load(Ordering::SeqCst);
    until("a few heartbeats", || async { leases.beats.load(Ordering::SeqCst) > beats + 3 }).await;
    worker.shutdown().await.unwrap();
    assert_eq!(leases.fenced.load(Ordering::SeqCst), 0, "leases that were released while they were held");
}

#[tokio::test]
async fn a_bus_that_cannot_tell_its_partitions_is_a_trouble_that_no_heartbeat_ends() {
    let world = World::new(1).await;
    let leases = Arc::new(SlowRelease {
        inner: world.leases.clone(),
        claims: watch::Sender::new(0),
        fenced: AtomicU32::new(0),
        beats: AtomicU32::new(0),
    });
    let stores = Stores { leases: Arc::clone(&leases) as Arc<dyn LeaseStore>, ..world.stores() };
    let worker = world.builder().stores(stores);
    // Heartbeats come often between two looks at the partitions.
    let rarely = LeasePolicy { rebalance: Duration::from_millis(400), ..world_leases() };
    let worker = world.start(worker.leases(rarely), |_| Ok(())).await;
    let troubled = || worker.health().checks.iter().any(|c| c.name == "partitions fp.bus.traffic.v1");
    world.bus.faults().outage(outage());
    until("the trouble", || async { troubled() }).await;
    let beats = leases.beats.load(Ordering::SeqCst);
    until("a few heartbeats", || async {
        assert!(troubled(), "it is as it was");
        leases.beats.load(Ordering::SeqCst) > beats + 3
    })
    .await;
    world.bus.faults().recover();
    until("its end", || async { !troubled() }).await;
    worker.shutdown().await.unwrap();
}

async fn reset_to(world: &World, n: u64) {
    let request = eb_contract::stores::ResetRequest {
        consumer: name(),
        topic: topic(),
        partition_id: PartitionId(0),
        cut: Cut::Next(eb_contract::Offset::from_u64(eb_contract::OffsetKind::MemoryIndex, n)),
        bus_incarnation: world.bus.reader().partitions(&topic()).await.unwrap().incarnation,
        reason: "a test".to_owned(),
    };
    eb_contract::stores::CheckpointStore::reset(&world.checkpoints, &request).await.unwrap();
}
