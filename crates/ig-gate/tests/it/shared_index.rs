//! An index that several gates share: reservations with start cuts, other gates' events, their crashes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex as _, AdmissionKey, OpenReservation, PolicyRev, ReservationId,
    ReserveRequest,
};
use eb_contract::{EnvelopeRef, EventBusPublisher as _, PartitionKey, PublishRecord, Timestamp};
use futures_util::future::join_all;
use ig_gate::{Decision, Gate, GateErrorCode};

use crate::support::{Event, TRAFFIC, World, event, topic};

async fn shared() -> (World, Gate) {
    let world = World::new().await;
    world.index.shared.store(true, Ordering::SeqCst);
    let gate = world.open().await;
    (world, gate)
}

/// What the index would know the event by, found out by a gate of its own.
async fn identity(event: &Event) -> (AdmissionKey, [u8; 32]) {
    let world = World::new().await;
    world.open().await.admit(event.bytes()).await.unwrap();
    let entry = world.index.scan(None, 1).await.unwrap().remove(0);
    (entry.key, entry.payload_hash)
}

async fn reserve_elsewhere(world: &World, event: &Event, reserved_at: Timestamp) -> AdmissionKey {
    let (key, payload_hash) = identity(event).await;
    let policy = PolicyRev { policy_id: "p".into(), revision: "1".into(), content_digest: "0".repeat(64) };
    let request = ReserveRequest { key, payload_hash, topic: topic(TRAFFIC), start: Vec::new(), policy };
    world.index.reservations.lock().elsewhere.push(OpenReservation {
        reservation: ReservationId(900),
        request,
        owner: "gate-b".to_owned(),
        reserved_at,
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

fn keyed(key: &str, n: u32) -> Event {
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

#[tokio::test]
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
    // Opening the gate looked once as well.
    assert_eq!(world.index.reservations.lock().looked, 2);
}
