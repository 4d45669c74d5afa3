//! Reservations in an index that several gates share: renewed while their publishes are under way, and read for where
//! they began.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use eb_contract::stores::{AdmissionEntry, AdmissionIndex as _, ReservationId};
use eb_contract::{
    BoxFuture, Capabilities, Cut, EbRef, Error, ErrorKind, EventBusPublisher, EventBusReader as _,
    PublishRecord, Result, Timestamp, Topic,
};
use eb_memory::{MemoryAdmissionIndex, MemoryConfig};
use ig_gate::{Decision, Gate, GateErrorCode, GateParts};

use crate::shared_index::{identity, keyed, publish_elsewhere, reserve_elsewhere, reserve_elsewhere_from};
use crate::support::{LEASE, TRAFFIC, World, first_partition, topic, until};

async fn shared() -> World {
    let world = World::new().await;
    world.index.shared.store(true, Ordering::SeqCst);
    world
}

fn renewed(world: &World) -> Vec<HashSet<ReservationId>> {
    let known = world.index.reservations.lock();
    known.renewed.iter().map(|call| call.iter().copied().collect()).collect()
}

#[tokio::test(start_paused = true)]
async fn reservations_are_renewed_together_for_as_long_as_their_publishes_are_under_way() {
    let world = shared().await;
    let gate = world.open().await;
    gate.admit(keyed("a", 0)).await.unwrap();
    world.bus.faults().hold();
    let slow: Vec<_> = (1..=3).map(|n| tokio::spawn(gate.admit(keyed("a", n)))).collect();
    until(|| world.bus.faults().held() == 3).await;
    tokio::time::sleep(LEASE * 3).await;
    let calls = renewed(&world);
    assert!(calls.len() >= 6, "twice in each lease at the least: one call may fail: {calls:?}");
    assert!(calls.iter().all(|call| *call == calls[0]) && calls[0].len() == 3, "{calls:?}");
    world.bus.faults().release();
    for task in slow {
        assert_eq!(task.await.unwrap().unwrap().decision, Decision::Admit);
    }
    world.index.reservations.lock().renewed.clear();
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(renewed(&world), [], "nothing is under way any more");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_made_again_before_the_lease_ends() {
    let world = shared().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    let slow = tokio::spawn(gate.admit(keyed("a", 1)));
    until(|| world.bus.faults().held() == 1).await;
    world.index.refuse_confirm.store(true, Ordering::SeqCst);
    tokio::time::sleep(LEASE).await;
    assert!(renewed(&world).len() >= 3);
    world.index.refuse_confirm.store(false, Ordering::SeqCst);
    world.bus.faults().release();
    assert_eq!(slow.await.unwrap().unwrap().decision, Decision::Admit);
}

#[tokio::test(start_paused = true)]
async fn quick_publishes_cost_no_renewals() {
    let world = shared().await;
    let gate = world.open().await;
    for n in 0..100 {
        // Each is under way for a while, so that every look for what is due finds some.
        world.bus.faults().hold();
        let quick = tokio::spawn(gate.admit(keyed("a", n)));
        tokio::time::sleep(LEASE / 10).await;
        world.bus.faults().release();
        quick.await.unwrap().unwrap();
    }
    assert_eq!(renewed(&world), []);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_not_held_against_other_gates() {
    let world = shared().await;
    let gate = world.open().await;
    world.unknown(false);
    gate.admit(keyed("a", 1)).await.unwrap_err();
    // Nobody can tell what became of it, so its key stays blocked.
    world.bus.faults().outage(Error::new(ErrorKind::Unavailable, "read", "gone"));
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(renewed(&world), [], "whoever wants it may look for it");
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_while_it_waits_is_not_renewed() {
    let world = shared().await;
    let gate = world.open().await;
    reserve_elsewhere(&world, &keyed("a", 0), Timestamp::now()).await;
    let waiting = [tokio::spawn(gate.admit(keyed("a", 0))), tokio::spawn(gate.admit(keyed("a", 1)))];
    tokio::time::sleep(LEASE * 3).await;
    assert!(!world.index.reservations.lock().released.is_empty(), "the second waits behind the first");
    assert_eq!(renewed(&world), []);
    world.index.reservations.lock().elsewhere.clear();
    for task in waiting {
        assert_eq!(task.await.unwrap().unwrap().decision, Decision::Admit);
    }
}

#[tokio::test]
async fn an_unknown_outcome_that_was_found_gives_its_reservation_back() {
    let world = shared().await;
    let gate = world.open().await;
    world.unknown(true);
    gate.admit(keyed("a", 1)).await.unwrap_err();
    until(|| world.index.reservations.lock().released.len() == 1).await;
    assert_eq!(gate.admit(keyed("a", 1)).await.unwrap().decision, Decision::Duplicate);
}

#[tokio::test]
async fn a_checkpoint_waits_for_no_publish() {
    let world = shared().await;
    let gate = world.open().await;
    gate.admit(keyed("a", 0)).await.unwrap();
    world.bus.faults().hold();
    let slow = tokio::spawn(gate.admit(keyed("a", 1)));
    until(|| world.bus.faults().held() == 1).await;
    gate.checkpoint().await.unwrap();
    assert!(!slow.is_finished(), "its reservation says where to look for it");
    world.bus.faults().release();
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn opening_reads_from_where_a_reservation_began_though_the_checkpoint_lies_behind() {
    let world = shared().await;
    let gate = world.open().await;
    gate.admit(keyed("a", 0)).await.unwrap();
    let crashed = keyed("a", 1);
    let head = world.bus.reader().head(&topic(TRAFFIC), first_partition()).await.unwrap().cut;
    let start = vec![(first_partition(), head)];
    let key = reserve_elsewhere_from(&world, &crashed, Timestamp::now(), start).await;
    let there = publish_elsewhere(&world, &crashed, "a").await;
    gate.admit(keyed("a", 2)).await.unwrap();
    gate.close().await.unwrap();
    assert_eq!(world.index.get(key).await.unwrap(), None);
    let _gate = world.open().await;
    assert_eq!(world.index.get(key).await.unwrap().map(|e| e.eb_ref), Some(there));
}

#[tokio::test]
async fn opening_reads_from_where_the_oldest_of_several_reservations_began() {
    let world = shared().await;
    let gate = world.open().await;
    let head = async || world.bus.reader().head(&topic(TRAFFIC), first_partition()).await.unwrap().cut;
    let mut crashed = Vec::new();
    for n in 0..3 {
        let event = keyed("a", n);
        let start = vec![(first_partition(), head().await)];
        let key = reserve_elsewhere_from(&world, &event, Timestamp::now(), start).await;
        crashed.push((key, publish_elsewhere(&world, &event, "a").await));
        gate.admit(keyed("b", n)).await.unwrap();
    }
    gate.close().await.unwrap();
    // In whatever order the index tells of them.
    world.index.reservations.lock().elsewhere.rotate_left(1);
    let _gate = world.open().await;
    for (key, there) in crashed {
        assert_eq!(world.index.get(key).await.unwrap().map(|e| e.eb_ref), Some(there));
    }
}

#[tokio::test]
async fn a_child_that_one_reservation_names_is_read_from_its_beginning_for_an_older_one() {
    let world = World::with(MemoryConfig::stream_like(), 1, MemoryAdmissionIndex::new()).await;
    world.index.shared.store(true, Ordering::SeqCst);
    let gate = world.open().await;
    let old = keyed("a", 1);
    let start = vec![(first_partition(), Cut::Begin)];
    let key = reserve_elsewhere_from(&world, &old, Timestamp::now(), start.clone()).await;
    world.bus.faults().split(&topic(TRAFFIC), first_partition()).unwrap();
    let there = publish_elsewhere(&world, &old, "a").await;
    let behind = gate.admit(keyed("a", 2)).await.unwrap().eb_ref.unwrap();
    let named = [start, vec![(there.partition_id, Cut::past(behind.offset))]].concat();
    reserve_elsewhere_from(&world, &keyed("a", 3), Timestamp::now(), named).await;
    world.index.reservations.lock().elsewhere.reverse();
    gate.close().await.unwrap();
    let _gate = world.open().await;
    assert_eq!(world.index.get(key).await.unwrap().map(|e| e.eb_ref), Some(there));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_looked_for_from_its_reservation_though_the_checkpoint_lies_behind() {
    let world = shared().await;
    let gate = world.open().await;
    world.unknown(true);
    gate.admit(keyed("a", 1)).await.unwrap_err();
    // The first look fails, and the next one comes a while later.
    world.bus.faults().fail_next_read(Error::new(ErrorKind::Unavailable, "read", "gone"));
    gate.admit(keyed("b", 1)).await.unwrap();
    gate.checkpoint().await.unwrap();
    tokio::time::sleep(LEASE).await;
    assert_eq!(gate.admit(keyed("a", 1)).await.unwrap().decision, Decision::Duplicate);
    assert_eq!(world.log(TRAFFIC).await.len(), 2);
}

#[tokio::test]
async fn of_two_copies_a_look_names_the_one_that_the_index_has_come_to_know_meanwhile() {
    let world = shared().await;
    let gate = world.open().await;
    let event = keyed("a", 0);
    let (key, payload_hash) = identity(&event).await;
    reserve_elsewhere(&world, &event, Timestamp::now()).await;
    world.index.reservations.lock().lease_ended = true;
    publish_elsewhere(&world, &event, "a").await;
    let second = publish_elsewhere(&world, &event, "a").await;
    world.index.slow_looks(true);
    let waiting = tokio::spawn(gate.admit(event));
    until(|| world.index.reservations.lock().asked.iter().any(|r| r.key == key)).await;
    // A third gate has looked as well, or the first one was alive after all. The answer that said "in flight" is older.
    let entry = AdmissionEntry { key, payload_hash, eb_ref: second.clone() };
    world.index.inner.apply(vec![entry]).await.unwrap();
    world.index.slow_looks(false);
    assert_eq!(waiting.await.unwrap().unwrap().eb_ref, Some(second));
}

#[tokio::test]
async fn a_reservation_counts_as_old_only_from_when_it_was_last_renewed() {
    let world = shared().await;
    let pending = keyed("a", 0);
    reserve_elsewhere(&world, &pending, Timestamp::EPOCH).await;
    {
        let mut known = world.index.reservations.lock();
        known.elsewhere[0].renewed_at = Timestamp::now();
        known.lease_ended = true;
    }
    let gate = world.open().await;
    let waiting = tokio::spawn(gate.admit(pending));
    // Another event's look at the log is over, and with it this one's.
    let gone = keyed("b", 0);
    reserve_elsewhere(&world, &gone, Timestamp::EPOCH).await;
    assert_eq!(gate.admit(gone).await.unwrap().decision, Decision::Admit);
    assert!(!waiting.is_finished(), "its gate was at work on it a moment ago");
    assert_eq!(world.index.reservations.lock().elsewhere.len(), 1);
    waiting.abort();
}

#[tokio::test]
async fn opening_reads_the_children_of_a_shard_that_was_split_after_a_reservation() {
    let world = World::with(MemoryConfig::stream_like(), 1, MemoryAdmissionIndex::new()).await;
    world.index.shared.store(true, Ordering::SeqCst);
    let gate = world.open().await;
    gate.admit(keyed("a", 0)).await.unwrap();
    let crashed = keyed("a", 1);
    let start = vec![(first_partition(), Cut::Begin)];
    let key = reserve_elsewhere_from(&world, &crashed, Timestamp::now(), start).await;
    world.bus.faults().split(&topic(TRAFFIC), first_partition()).unwrap();
    let there = publish_elsewhere(&world, &crashed, "a").await;
    assert_ne!(there.partition_id, first_partition());
    // Another gate goes on behind it, and its checkpoint says so.
    let behind = gate.admit(keyed("a", 2)).await.unwrap().eb_ref.unwrap();
    assert_eq!(behind.partition_id, there.partition_id);
    gate.close().await.unwrap();
    assert_eq!(world.index.get(key).await.unwrap(), None);
    let gate = world.open().await;
    let found = world.index.get(key).await.unwrap().expect("opening has read the child from its beginning");
    assert_eq!(found.eb_ref, there);
    assert_eq!(gate.admit(crashed).await.unwrap().eb_ref, Some(there));
}

#[tokio::test]
async fn of_two_copies_of_an_unknown_outcome_the_first_counts() {
    let world = shared().await;
    let gate = world.open().await;
    world.unknown(true);
    gate.admit(keyed("a", 1)).await.unwrap_err();
    // Before anybody has looked.
    publish_elsewhere(&world, &keyed("a", 1), "a").await;
    let (key, _) = identity(&keyed("a", 1)).await;
    let log = world.log(TRAFFIC).await;
    assert_eq!(log.len(), 2);
    while world.index.get(key).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let known = gate.admit(keyed("a", 1)).await.unwrap();
    assert_eq!((known.decision, known.eb_ref.as_ref()), (Decision::Duplicate, Some(&log[0].eb_ref)));
}

/// A bus that others write to as well, and on which a lost request may land late.
struct LandsLate {
    inner: Box<dyn EventBusPublisher>,
    capabilities: Capabilities,
}

impl EventBusPublisher for LandsLate {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        self.inner.publish(topic, record)
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        self.inner.publish_batch(topic, records)
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        self.inner.probe(topic)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.inner.close()
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_lost_request_may_land_late_its_key_stays_blocked_until_the_deadline() {
    let world = shared().await;
    let inner = Box::new(world.bus.publisher());
    let mut capabilities = inner.capabilities().clone();
    (capabilities.multi_writer, capabilities.probe_settles) = (true, false);
    let publisher = Arc::new(LandsLate { inner, capabilities });
    let gate = Gate::open(GateParts { publisher, ..world.parts() }).await.unwrap();
    let deadline = world.config.unknown_deadline;
    world.unknown(false);
    gate.admit(keyed("a", 1)).await.unwrap_err();
    tokio::time::sleep(deadline * 3 / 4).await;
    let blocked = gate.admit(keyed("a", 1)).await.unwrap_err();
    assert_eq!(blocked.code(), GateErrorCode::PublishOutcomeUnknown);
    assert_eq!(gate.admit(keyed("a", 2)).await.unwrap().decision, Decision::Admit, "no other waits for it");
    tokio::time::sleep(deadline / 2).await;
    assert_eq!(gate.admit(keyed("a", 1)).await.unwrap().decision, Decision::Admit);
}
