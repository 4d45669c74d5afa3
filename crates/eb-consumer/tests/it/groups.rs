//! A service that keeps groups, in memory, and consumers on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eb_consumer::{BuildError, ConsumerBuilder, ConsumerSource, OnTheirOwn, Ordering, RunningConsumer};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, Delivery, DeliveryLimit, EbRef, Effect, Error, ErrorKind,
    EventBusGroups, EventBusReader, EventBusReaderExt, GroupBacklog, GroupMember, PartitionId, Record,
    Result, StartAt, Topic,
};
use eb_memory::MemoryBus;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::{World, number, outage, topic, transient, until};

/// Groups over a bus of memory: what a member was handed stays pending until it is acknowledged.
#[derive(Clone)]
struct Groups {
    bus: Arc<MemoryBus>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<u32, Group>,
    refuse_acks: bool,
    /// Members that joined in an earlier one are worth nothing.
    generation: u64,
    /// The next answer with new records is lost, and the generation over.
    lose_next: bool,
    claimed: u64,
}

#[derive(Default)]
struct Group {
    next: u64,
    pending: BTreeMap<u64, (String, Instant, Record, u64)>,
}

struct Member {
    groups: Groups,
    incarnation: BusIncarnation,
    partition: u32,
    name: String,
    generation: u64,
}

fn offset(record: &EbRef) -> u64 {
    record.offset.as_u64().unwrap()
}

impl Groups {
    fn new(world: &World) -> Self {
        Self { bus: Arc::clone(&world.bus), state: Arc::default() }
    }

    fn source(&self) -> ConsumerSource {
        ConsumerSource::Groups { groups: Arc::new(self.clone()), reader: Arc::new(self.bus.reader()) }
    }

    /// Whether this answer is lost.
    fn loses(&self) -> bool {
        let mut state = self.state.lock();
        let loses = std::mem::take(&mut state.lose_next);
        state.generation += u64::from(loses);
        loses
    }

    fn left(&self) -> usize {
        self.state.lock().partitions.values().map(|g| g.pending.len()).sum()
    }

    fn holders(&self) -> BTreeSet<String> {
        self.state.lock().partitions.values().flat_map(|g| g.pending.values().map(|p| p.0.clone())).collect()
    }
}

impl EventBusGroups for Groups {
    fn join<'a>(
        &'a self,
        _group: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
        member: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn GroupMember>>> {
        Box::pin(async move {
            let incarnation = self.bus.reader().partitions(topic).await?.incarnation;
            let member = Member {
                groups: self.clone(),
                incarnation,
                partition: partition.0,
                name: member.to_owned(),
                generation: self.state.lock().generation,
            };
            Ok(Box::new(member) as Box<dyn GroupMember>)
        })
    }

    fn groups<'a>(
        &'a self,
        _topic: &'a Topic,
        _partition: PartitionId,
    ) -> BoxFuture<'a, Result<Vec<ConsumerName>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn backlog<'a>(
        &'a self,
        _group: &'a ConsumerName,
        _topic: &'a Topic,
        _partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<GroupBacklog>>> {
        Box::pin(async { Ok(None) })
    }
}

fn poisoned() -> Error {
    Error::new(ErrorKind::Poisoned, "test", "the connection is worth nothing").with_effect(Effect::Unknown)
}

impl Member {
    fn check(&self) -> Result<()> {
        if self.groups.state.lock().generation == self.generation { Ok(()) } else { Err(poisoned()) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Group) -> T) -> T {
        work(self.groups.state.lock().partitions.entry(self.partition).or_default())
    }
}

impl GroupMember for Member {
    fn incarnation(&self) -> &BusIncarnation {
        &self.incarnation
    }

    fn pending<'a>(
        &'a self,
        after: Option<&'a EbRef>,
        limit: DeliveryLimit,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            let from = after.map_or(0, |r| offset(r) + 1);
            Ok(self.with(|g| {
                let mine =
                    g.pending.range_mut(from..).filter(|(_, p)| p.0 == self.name).take(limit.max_records);
                mine.map(|(_, p)| {
                    p.3 += 1;
                    Delivery { record: p.2.clone(), deliveries: p.3 }
                })
                .collect()
            }))
        })
    }

    fn claim(&self, idle: Duration, limit: DeliveryLimit) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            let claimed: Vec<_> = self.with(|g| {
                let idle = g.pending.values_mut().filter(|p| p.0 != self.name && p.1.elapsed() >= idle);
                idle.take(limit.max_records)
                    .map(|p| {
                        (p.0, p.1) = (self.name.clone(), Instant::now());
                        p.3 += 1;
                        Delivery { record: p.2.clone(), deliveries: p.3 }
                    })
                    .collect()
            });
            self.groups.state.lock().claimed += claimed.len() as u64;
            Ok(claimed)
        })
    }

    fn next(&self, limit: DeliveryLimit) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            self.check()?;
            let until = Instant::now() + limit.wait.min(Duration::from_millis(20));
            loop {
                let from = self.with(|g| g.next);
                let (reader, topic) = (self.groups.bus.reader(), topic());
                let all = reader.read_to_head(&topic, PartitionId(self.partition), StartAt::Earliest).await?;
                let fresh: Vec<_> = self.with(|g| {
                    let fresh = all
                        .into_iter()
                        .filter(|r| offset(&r.eb_ref) >= from.max(g.next))
                        .take(limit.max_records);
                    let fresh: Vec<_> = fresh.collect();
                    for record in &fresh {
                        g.next = offset(&record.eb_ref) + 1;
                        let pending = (self.name.clone(), Instant::now(), record.clone(), 1);
                        g.pending.insert(offset(&record.eb_ref), pending);
                    }
                    fresh
                });
                if !fresh.is_empty() && self.groups.loses() {
                    return Err(poisoned());
                }
                if !fresh.is_empty() || Instant::now() >= until {
                    return Ok(fresh.into_iter().map(|record| Delivery { record, deliveries: 1 }).collect());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    }

    fn acknowledge<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            self.check()?;
            if self.groups.state.lock().refuse_acks {
                return Err(outage());
            }
            Ok(self
                .with(|g| records.iter().filter(|r| g.pending.remove(&offset(r)).is_some()).count() as u64))
        })
    }

    fn keep<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.with(|g| {
                for record in records {
                    if let Some(p) = g.pending.get_mut(&offset(record)).filter(|p| p.0 == self.name) {
                        p.1 = Instant::now();
                    }
                }
            });
            if records.is_empty() {
                Err(Error::new(ErrorKind::InvalidInput, "keep", "nothing"))
            } else {
                Ok(())
            }
        })
    }
}

fn builder(world: &World, groups: &Groups) -> ConsumerBuilder<OnTheirOwn> {
    world.builder().source(groups.source())
}

async fn all_acknowledged(groups: &Groups) {
    until("all acknowledgements", || async { groups.left() == 0 }).await;
}

#[tokio::test]
async fn records_are_acknowledged_once_their_marks_are_stored_and_order_per_key_holds() {
    let world = World::new(2).await;
    let groups = Groups::new(&world);
    world.publish(0, 200, 10).await;
    let worker = world
        .start(builder(&world, &groups), |event| {
            if event.attempt() == 1 && number(event).is_multiple_of(5) { Err(transient()) } else { Ok(()) }
        })
        .await;
    world.seen.until(200).await;
    all_acknowledged(&groups).await;
    worker.shutdown().await.unwrap();
    world.seen.assert_all_in_order(200, 10);
}

#[tokio::test]
async fn what_a_dead_worker_had_pending_is_taken_over_in_order_and_what_it_had_handled_is_not_handled_again()
{
    let world = World::new(1).await;
    let groups = Groups::new(&world);
    world.publish(0, 40, 4).await;
    groups.state.lock().refuse_acks = true;
    let worker = world
        .start(builder(&world, &groups), |event| if number(event) < 20 { Ok(()) } else { Err(transient()) })
        .await;
    world.seen.until(20).await;
    // The first step is stored, and stays unacknowledged.
    until("a stored cut", || async { world.cut(0).await.is_some() }).await;
    let cut = world.cut(0).await.and_then(|c| c.offset()?.as_u64()).unwrap();
    assert_eq!(groups.left(), 40);
    let dead = groups.holders();
    drop(worker);
    groups.state.lock().refuse_acks = false;
    world.publish(40, 20, 4).await;
    let worker = world.start(builder(&world, &groups), |_| Ok(())).await;
    world.seen.until(60).await;
    all_acknowledged(&groups).await;
    worker.shutdown().await.unwrap();
    assert!(groups.state.lock().claimed >= 20, "they were pending for {dead:?}");
    world.seen.assert_all_in_order(60, 4);
    let done = world.seen.look().done;
    assert!(
        (0..cut).all(|n| done[&format!("e{n}")] == 1),
        "what was recorded is acknowledged without being handled again"
    );
}

#[tokio::test]
async fn without_an_order_several_workers_share_a_partition_and_the_dead_ones_records_are_claimed() {
    let world = World::new(1).await;
    let groups = Groups::new(&world);
    let unordered = || {
        let limits = eb_consumer::Limits { partition_records: 20, read_records: 5, ..Default::default() };
        let builder = builder(&world, &groups).ordering(Ordering::Unordered).limits(limits);
        builder.take_over_after(Duration::from_millis(300))
    };
    let stuck: RunningConsumer = {
        let consumer = unordered().otherwise(|_| std::future::pending());
        consumer.build().unwrap().start().await.unwrap()
    };
    world.publish(0, 100, 10).await;
    until("the first worker", || async { !groups.holders().is_empty() }).await;
    let other = world.start(unordered(), |_| Ok(())).await;
    world.seen.until(80).await;
    drop(stuck);
    world.seen.until(100).await;
    all_acknowledged(&groups).await;
    other.shutdown().await.unwrap();
    assert!(world.seen.look().done.values().all(|n| *n == 1));
    assert!(world.cut(0).await.is_none(), "without an order there is no cut");
    let refused = world.builder().ordering(Ordering::Unordered).otherwise(|_| async { Ok(()) }).build();
    let Err(BuildError { what, .. }) = refused else { panic!("a log has an order") };
    assert!(what.contains("unordered takes a source with groups"), "{what}");
}

#[tokio::test]
async fn a_member_that_has_to_join_anew_gets_what_it_was_handed_unseen_also_while_a_key_is_tried_again_for_ever()
 {
    let world = World::new(1).await;
    let groups = Groups::new(&world);
    let stuck = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&stuck);
    let worker = world
        .start(world.builder().source(groups.source()), move |event| {
            if event.partition_key().as_str() == "k0" && flag.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(transient());
            }
            Ok(())
        })
        .await;
    world.publish(0, 6, 2).await;
    world.seen.until(3).await;
    groups.state.lock().lose_next = true;
    world.publish(6, 6, 2).await;
    world.seen.until(6).await;
    assert_eq!(groups.state.lock().generation, 1, "an answer was lost");
    stuck.store(false, std::sync::atomic::Ordering::SeqCst);
    until("every acknowledgement", || async { groups.left() == 0 }).await;
    worker.shutdown().await.unwrap();
    world.seen.assert_all_in_order(12, 2);
    assert!(world.seen.look().done.values().all(|n| *n == 1), "nothing is handled twice");
}
