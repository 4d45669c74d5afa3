//! Reservations in an index that several gates share: renewed while their publishes are under way, and read for where
//! they began.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use eb_contract::stores::{AdmissionIndex as _, ReservationId};
use eb_contract::{Cut, Timestamp};
use eb_memory::{MemoryAdmissionIndex, MemoryConfig};
use ig_gate::Decision;

use crate::shared_index::{keyed, publish_elsewhere, reserve_elsewhere, reserve_elsewhere_from};
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
        gate.admit(keyed("a", n)).await.unwrap();
        tokio::time::sleep(LEASE / 10).await;
    }
    assert_eq!(renewed(&world), []);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_not_held_against_other_gates() {
    let world = shared().await;
    let gate = world.open().await;
    world.unknown(false);
    gate.admit(keyed("a", 1)).await.unwrap_err();
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(renewed(&world), [], "whoever wants it may look for it");
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
