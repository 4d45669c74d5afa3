//! An index that several gates share: reservations with start cuts, other gates' events, their crashes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex as _, AdmissionKey, OpenReservation, PolicyRev, ReservationId,
    ReserveRequest,
};
use eb_contract::{
    Cut, EbRef, EnvelopeRef, EventBusPublisher as _, EventBusReader as _, PartitionId, PartitionKey,
    PublishRecord, Timestamp,
};
use futures_util::future::join_all;
use ig_gate::{Decision, Gate, GateErrorCode};

use crate::support::{Event, TRAFFIC, World, event, first_partition, topic, until};

async fn shared() -> (World, Gate) {
    let world = World::new().await;
    world.index.shared.store(true, Ordering::SeqCst);
    let gate = world.open().await;
    (world, gate)
}

/// What the index would know the event by, found out by a gate of its own.
pub(crate) async fn identity(event: &Event) -> (AdmissionKey, [u8; 32]) {
    let world = World::new().await;
    world.open().await.admit(event.bytes()).await.unwrap();
    let entry = world.index.scan(None, 1).await.unwrap().remove(0);
    (entry.key, entry.payload_hash)
}

pub(crate) async fn reserve_elsewhere(world: &World, event: &Event, reserved_at: Timestamp) -> AdmissionKey {
    reserve_elsewhere_from(world, event, reserved_at, Vec::new()).await
}

pub(crate) async fn reserve_elsewhere_from(
    world: &World,
    event: &Event,
    reserved_at: Timestamp,
    start: Vec<(PartitionId, Cut)>,
) -> AdmissionKey {
    let (key, payload_hash) = identity(event).await;
    let policy = PolicyRev { policy_id: "p".into(), revision: "1".into(), content_digest: "0".repeat(64) };
    let request = ReserveRequest { key, payload_hash, topic: topic(TRAFFIC), start, policy: policy.into() };
    let mut known = world.index.reservations.lock();
    let number = 900 + known.elsewhere.len() as u64;
    known.elsewhere.push(OpenReservation {
        reservation: ReservationId(number),
        request,
        owner: "gate-b".to_owned(),
        reserved_at,
        renewed_at: reserved_at,
    });
    key
}

#[tokio::test]
async fn events_are_reserved_in_batches_with_start_cuts_and_keep_their_order() {
    let (world, gate) = shared().await;
    gate.admit(event("first")).await.unwrap();
    let calls: Vec<_> = (0..100)
        .map(|n| gate.admit(event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":"m","n":{n}}}"#))))
        .collect();
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().decision, Decision::Admit);
    }
    let ids: Vec<_> = world
        .log(TRAFFIC)
        .await
        .iter()
        .skip(1)
        .map(|r| {
            serde_json::from_slice::<serde_json::Value>(r.envelope.as_bytes()).unwrap()["payload"]["n"]
                .clone()
        })
        .collect();
    assert_eq!(ids, (0..100).map(serde_json::Value::from).collect::<Vec<_>>());
    let asked = world.index.reservations.lock().asked.clone();
    assert!(
        asked.iter().all(|r| !r.start.is_empty()),
        "each reservation says where a recovering gate starts to read"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_another_gate_is_publishing_waits_for_its_outcome() {
    let (world, gate) = shared().await;
    let first = event("e-1");
    let key = reserve_elsewhere(&world, &first, Timestamp::now()).await;
    let waiting = gate.admit(first.bytes());
    let behind = gate.admit(event("e-2"));
    let task = tokio::spawn(waiting);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!task.is_finished());
    let record =
        PublishRecord::new(PartitionKey::new("m-1").unwrap(), EnvelopeRef::new(first.bytes()).unwrap());
    let eb_ref = world.bus.publisher().publish(&topic(TRAFFIC), record).await.unwrap();
    let (_, payload_hash) = identity(&first).await;
    world.index.apply(vec![AdmissionEntry { key, payload_hash, eb_ref: eb_ref.clone() }]).await.unwrap();
    world.index.reservations.lock().elsewhere.clear();
    let receipt = task.await.unwrap().unwrap();
    assert_eq!((receipt.decision, receipt.eb_ref), (Decision::Duplicate, Some(eb_ref)));
    assert_eq!(behind.await.unwrap().decision, Decision::Admit);
}

#[tokio::test]
async fn a_crashed_gates_event_that_is_in_the_log_is_admitted() {
    let (world, gate) = shared().await;
    let first = event("e-1");
    reserve_elsewhere(&world, &first, Timestamp::now()).await;
    world.index.reservations.lock().lease_ended = true;
    let record =
        PublishRecord::new(PartitionKey::new("m-1").unwrap(), EnvelopeRef::new(first.bytes()).unwrap());
    let eb_ref = world.bus.publisher().publish(&topic(TRAFFIC), record).await.unwrap();
    let receipt = gate.admit(first).await.unwrap();
    assert_eq!((receipt.decision, receipt.eb_ref), (Decision::Duplicate, Some(eb_ref)));
}

#[tokio::test]
async fn a_crashed_gates_event_that_is_not_in_the_log_is_published_after_the_deadline() {
    let (world, gate) = shared().await;
    let first = event("e-1");
    reserve_elsewhere(&world, &first, Timestamp::EPOCH).await;
    world.index.reservations.lock().lease_ended = true;
    assert_eq!(gate.admit(first).await.unwrap().decision, Decision::Admit);
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_never_tells_ends_as_an_unknown_outcome() {
    let (world, gate) = shared().await;
    let first = event("e-1");
    reserve_elsewhere(&world, &first, Timestamp::now()).await;
    let error = gate.admit(first).await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::PublishOutcomeUnknown);
    assert!(world.log(TRAFFIC).await.is_empty());
    assert_eq!(gate.admit(event("e-2")).await.unwrap().decision, Decision::Admit);
}

pub(crate) fn keyed(key: &str, n: u32) -> Event {
    event(&format!("{key}-{n}")).payload(&format!(r#"{{"merchant_id":"{key}","n":{n}}}"#))
}

#[tokio::test(start_paused = true)]
async fn events_that_wait_for_another_gate_take_no_room_from_others() {
    let mut world = World::new().await;
    world.index.shared.store(true, Ordering::SeqCst);
    world.config.max_in_flight = 2;
    let gate = world.open().await;
    let elsewhere = [keyed("a", 0), keyed("b", 0)];
    for event in &elsewhere {
        reserve_elsewhere(&world, event, Timestamp::now()).await;
    }
    let waiting: Vec<_> = elsewhere.into_iter().map(|e| tokio::spawn(gate.admit(e))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let other = tokio::time::timeout(Duration::from_secs(10), gate.admit(keyed("c", 0))).await;
    assert_eq!(other.expect("it waits for the other gate's events").unwrap().decision, Decision::Admit);
    world.index.reservations.lock().elsewhere.clear();
    for task in waiting {
        assert_eq!(task.await.unwrap().unwrap().decision, Decision::Admit);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_behind_one_of_another_gate_is_reserved_anew_when_its_turn_comes() {
    let (world, gate) = shared().await;
    let (first, second) = (keyed("a", 0), keyed("a", 1));
    reserve_elsewhere(&world, &first, Timestamp::now()).await;
    let (second_key, _) = identity(&second).await;
    let tasks = [tokio::spawn(gate.admit(first)), tokio::spawn(gate.admit(second))];
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.index.reservations.lock().elsewhere.clear();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().decision, Decision::Admit);
    }
    let asked = world.index.reservations.lock().asked.iter().filter(|r| r.key == second_key).count();
    assert_eq!(asked, 2, "a reservation from before the wait may have ended with its lease");
}

#[tokio::test(start_paused = true)]
async fn events_behind_one_of_another_gate_are_bounded_too() {
    let mut world = World::new().await;
    world.index.shared.store(true, Ordering::SeqCst);
    world.config.max_waiting = 4;
    let gate = world.open().await;
    let first = keyed("a", 0);
    reserve_elsewhere(&world, &first, Timestamp::now()).await;
    let mut tasks = Vec::new();
    for n in 0..10 {
        tasks.push(tokio::spawn(gate.admit(keyed("a", n))));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.index.reservations.lock().elsewhere.clear();
    let mut admitted = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => admitted += 1,
            Err(error) => assert_eq!(error.code(), GateErrorCode::EbThrottled),
        }
    }
    assert_eq!(admitted, 4);
}

/// On a paused clock: how long it takes is not how often is looked.
#[tokio::test(start_paused = true)]
async fn the_events_of_a_crashed_gate_are_settled_in_one_look_at_the_log() {
    let (world, gate) = shared().await;
    world.index.reservations.lock().lease_ended = true;
    let events: Vec<_> = (0..5).map(|n| keyed(&format!("m-{n}"), n)).collect();
    for (n, event) in events.iter().enumerate() {
        reserve_elsewhere(&world, event, Timestamp::now()).await;
        let key = PartitionKey::new(format!("m-{n}")).unwrap();
        let record = PublishRecord::new(key, EnvelopeRef::new(event.bytes()).unwrap());
        world.bus.publisher().publish(&topic(TRAFFIC), record).await.unwrap();
    }
    let calls: Vec<_> = events.into_iter().map(|e| gate.admit(e)).collect();
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().decision, Decision::Duplicate);
    }
    // Opening the gate looked as well, and so did the sweep for reservations that nobody asks for.
    assert!(world.index.reservations.lock().looked <= 3);
}

pub(crate) async fn publish_elsewhere(world: &World, event: &Event, key: &str) -> EbRef {
    let key = PartitionKey::new(key.to_owned()).unwrap();
    let record = PublishRecord::new(key, EnvelopeRef::new(event.bytes()).unwrap());
    world.bus.publisher().publish(&topic(TRAFFIC), record).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn events_of_others_go_on_while_the_log_is_read_for_a_crashed_gates_event() {
    let (world, gate) = shared().await;
    world.index.reservations.lock().lease_ended = true;
    let crashed = keyed("a", 0);
    reserve_elsewhere(&world, &crashed, Timestamp::now()).await;
    let eb_ref = publish_elsewhere(&world, &crashed, "a").await;
    world.index.slow_looks(true);
    let waiting = tokio::spawn(gate.admit(crashed));
    tokio::time::sleep(Duration::from_millis(10)).await;
    for n in 0..20 {
        let other = tokio::time::timeout(Duration::from_secs(10), gate.admit(keyed("b", n))).await;
        assert_eq!(other.expect("it waits for the look").unwrap().decision, Decision::Admit);
    }
    let behind = tokio::spawn(gate.admit(keyed("a", 1)));
    assert!(!waiting.is_finished());
    world.index.slow_looks(false);
    assert_eq!(waiting.await.unwrap().unwrap().eb_ref, Some(eb_ref));
    assert_eq!(behind.await.unwrap().unwrap().decision, Decision::Admit, "its lane was held up in order");
}

#[tokio::test]
async fn events_of_a_crashed_gate_count_towards_the_checkpoint() {
    let (world, gate) = shared().await;
    world.index.reservations.lock().lease_ended = true;
    for n in 0..3 {
        reserve_elsewhere(&world, &keyed("a", n), Timestamp::now()).await;
        publish_elsewhere(&world, &keyed("a", n), "a").await;
        assert_eq!(gate.admit(keyed("a", n)).await.unwrap().decision, Decision::Duplicate);
    }
    gate.close().await.unwrap();
    let stored = world.index.checkpoint().await.unwrap().unwrap();
    let cut = stored.cuts.iter().find(|c| c.topic == topic(TRAFFIC)).unwrap().cut;
    let head = world.bus.reader().head(&topic(TRAFFIC), first_partition()).await.unwrap().cut;
    assert_eq!(cut, head, "whoever opens next reads them again for nothing");
}

#[tokio::test]
async fn old_reservations_that_nobody_asks_for_are_settled_all_the_same() {
    let world = World::new().await;
    world.index.shared.store(true, Ordering::SeqCst);
    let (published, absent, young) = (keyed("a", 0), keyed("b", 0), keyed("c", 0));
    let published_key = reserve_elsewhere(&world, &published, Timestamp::EPOCH).await;
    reserve_elsewhere(&world, &absent, Timestamp::EPOCH).await;
    let young_key = reserve_elsewhere(&world, &young, Timestamp::now()).await;
    world.index.reservations.lock().lease_ended = true;
    let gate = world.open().await;
    // After opening, so that only the sweep can find it.
    publish_elsewhere(&world, &published, "a").await;
    let open =
        || -> Vec<_> { world.index.reservations.lock().elsewhere.iter().map(|r| r.request.key).collect() };
    until(|| open() == [young_key]).await;
    let found = world.index.get(published_key).await.unwrap();
    assert!(found.is_none() || found.unwrap().eb_ref.offset.as_u64() == Some(0));
    assert_eq!(gate.admit(absent).await.unwrap().decision, Decision::Admit);
}

#[tokio::test]
async fn a_gate_whose_key_was_taken_over_while_it_was_publishing_answers_with_what_stands() {
    let (world, gate) = shared().await;
    let event = keyed("a", 0);
    let (key, payload_hash) = identity(&event).await;
    let first = publish_elsewhere(&world, &event, "a").await;
    world.bus.faults().hold();
    let slow = tokio::spawn(gate.admit(event.clone()));
    until(|| world.bus.faults().held() == 1).await;
    // Another gate took the reservation over and admitted the event; then the slow publish lands after all.
    world.index.apply(vec![AdmissionEntry { key, payload_hash, eb_ref: first.clone() }]).await.unwrap();
    world.bus.faults().release();
    let receipt = slow.await.unwrap().unwrap();
    assert_eq!((receipt.decision, receipt.eb_ref), (Decision::Duplicate, Some(first.clone())));
    assert_eq!(world.log(TRAFFIC).await.len(), 2, "the log holds a copy");
    assert_eq!(gate.admit(event).await.unwrap().eb_ref, Some(first));
}

#[tokio::test]
async fn a_receipts_place_stays_whichever_copy_a_later_look_at_the_log_finds_first() {
    let (world, gate) = shared().await;
    let event = keyed("a", 0);
    // A copy whose ACK was lost lies in the log before the record that a receipt was given for.
    publish_elsewhere(&world, &event, "a").await;
    let admitted = gate.admit(event.clone()).await.unwrap();
    assert_eq!(admitted.decision, Decision::Admit);
    gate.close().await.unwrap();
    for _ in 0..2 {
        world.index.reservations.lock().lease_ended = true;
        reserve_elsewhere(&world, &event, Timestamp::EPOCH).await;
        let gate = world.open().await;
        until(|| world.index.reservations.lock().elsewhere.is_empty()).await;
        assert_eq!(gate.admit(event.clone()).await.unwrap().eb_ref, admitted.eb_ref);
        gate.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_checkpoint_does_not_wait_for_an_event_that_another_gate_is_publishing() {
    let (world, gate) = shared().await;
    let elsewhere = keyed("a", 0);
    reserve_elsewhere(&world, &elsewhere, Timestamp::now()).await;
    let waiting = tokio::spawn(gate.admit(elsewhere));
    gate.admit(keyed("b", 0)).await.unwrap();
    gate.checkpoint().await.unwrap();
    assert!(!waiting.is_finished());
    world.index.reservations.lock().elsewhere.clear();
    waiting.await.unwrap().unwrap();
}
