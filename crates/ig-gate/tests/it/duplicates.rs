//! Duplicates while the first is in flight, and callers that go away.

use eb_contract::stores::AdmissionIndex as _;
use eb_contract::{Error, ErrorKind};
use eb_memory::Fate;
use ig_gate::{Decision, GateErrorCode, ReasonCode};

use crate::support::{TRAFFIC, World, decision, event, is_pending, until};

#[tokio::test]
async fn a_duplicate_in_flight_waits_for_the_first_and_gets_its_place() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    let mut first = gate.admit(event("e-1"));
    let mut again = gate.admit(event("e-1"));
    is_pending(&mut first).await;
    is_pending(&mut again).await;
    assert_eq!(world.bus.faults().held(), 1, "only the first was published");
    world.bus.faults().release();
    let (first, again) = (first.await.unwrap(), again.await.unwrap());
    assert_eq!((first.decision, again.decision), (Decision::Admit, Decision::Duplicate));
    assert_eq!(first.eb_ref, again.eb_ref);
}

#[tokio::test]
async fn a_duplicate_never_depends_on_the_first_callers_polling() {
    let world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1"));
    let again = gate.admit(event("e-1")).await.unwrap();
    assert_eq!(again.decision, Decision::Duplicate);
    assert_eq!(first.await.unwrap().eb_ref, again.eb_ref);
}

#[tokio::test]
async fn another_payload_in_flight_is_quarantined_once_the_first_is_admitted() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    let first = gate.admit(event("e-1"));
    let mut other = gate.admit(event("e-1").payload(r#"{"merchant_id":"m-1","n":2}"#));
    is_pending(&mut other).await;
    world.bus.faults().release();
    let receipt = other.await.unwrap();
    assert_eq!(receipt.reason_codes, [ReasonCode::PayloadHashMismatch]);
    assert_eq!(decision(first.await), Decision::Admit);
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test]
async fn when_the_first_fails_its_duplicates_are_told_so_and_the_key_is_free() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    world.bus.faults().next_records([Fate::Fail(Error::new(ErrorKind::Unavailable, "publish", "down"))]);
    let first = gate.admit(event("e-1"));
    let again = gate.admit(event("e-1"));
    let other = gate.admit(event("e-1").payload(r#"{"merchant_id":"m-1","n":2}"#));
    world.bus.faults().release();
    for answer in [first, again, other] {
        assert_eq!(answer.await.unwrap_err().code(), GateErrorCode::EbUnavailable);
    }
    assert_eq!(decision(gate.admit(event("e-1")).await), Decision::Admit);
}

#[tokio::test]
async fn an_admission_dropped_at_once_is_admitted_all_the_same() {
    let world = World::new().await;
    let gate = world.open().await;
    drop(gate.admit(event("e-1")));
    let again = gate.admit(event("e-1")).await.unwrap();
    assert_eq!(again.decision, Decision::Duplicate);
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test]
async fn an_admission_dropped_while_its_publish_is_under_way_reaches_the_index() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    let mut first = gate.admit(event("e-1"));
    is_pending(&mut first).await;
    drop(first);
    let mut again = gate.admit(event("e-1"));
    is_pending(&mut again).await;
    world.bus.faults().release();
    assert_eq!(decision(again.await), Decision::Duplicate);
    until(|| world.index.approximate_len() == 1).await;
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test]
async fn a_dropped_admission_reaches_the_index_though_nobody_asks_for_it() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    drop(gate.admit(event("e-1")));
    world.bus.faults().release();
    until(|| world.index.approximate_len() == 1).await;
}

#[tokio::test]
async fn an_admission_dropped_while_it_waits_for_the_index_is_decided_in_its_turn() {
    let world = World::new().await;
    let gate = world.open().await;
    world.index.slow(true);
    let mut first = gate.admit(event("e-1"));
    is_pending(&mut first).await;
    drop(first);
    world.index.slow(false);
    assert_eq!(decision(gate.admit(event("e-1")).await), Decision::Duplicate);
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_of_one_event_share_one_place() {
    let world = World::new().await;
    let gate = world.open().await;
    for round in 0..50 {
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.admit(event(&format!("e-{round}"))).await })
            })
            .collect();
        let mut receipts = Vec::new();
        for call in calls {
            receipts.push(call.await.unwrap().unwrap());
        }
        assert_eq!(receipts.iter().filter(|r| r.decision == Decision::Admit).count(), 1);
        assert!(receipts.iter().all(|r| r.eb_ref == receipts[0].eb_ref));
    }
    assert_eq!(world.log(TRAFFIC).await.len(), 50);
}

#[tokio::test]
async fn the_bytes_of_duplicates_that_wait_are_bounded_too() {
    let mut world = World::new().await;
    let padded = event("e-1").payload(&format!(r#"{{"merchant_id":"m-1","n":"{}"}}"#, "x".repeat(10_000)));
    world.config.max_waiting_bytes = 35_000;
    let gate = world.open().await;
    world.bus.faults().hold();
    let first = gate.admit(padded.clone());
    let mut again: Vec<_> = (0..3).map(|_| gate.admit(padded.clone())).collect();
    for one in &mut again {
        is_pending(one).await;
    }
    let refused = gate.admit(padded.clone()).await.unwrap_err();
    assert_eq!(refused.code(), GateErrorCode::EbThrottled);
    again.pop();
    let last = gate.admit(padded.clone());
    world.bus.faults().release();
    assert_eq!(decision(first.await), Decision::Admit);
    for one in again.into_iter().chain([last]) {
        assert_eq!(decision(one.await), Decision::Duplicate);
    }
}

#[tokio::test]
async fn an_input_counts_with_its_white_space_while_it_is_in_flight() {
    let mut world = World::new().await;
    (world.config.max_in_flight, world.config.max_in_flight_bytes) = (10, 10_000);
    let gate = world.open().await;
    world.bus.faults().hold();
    let spaced = |id: &str| {
        let mut bytes = event(id).bytes().to_vec();
        bytes.splice(1..1, std::iter::repeat_n(b' ', 9_000));
        gate.admit(bytes)
    };
    let (mut first, mut second) = (spaced("e-1"), spaced("e-2"));
    is_pending(&mut first).await;
    is_pending(&mut second).await;
    assert_eq!(world.bus.faults().held(), 1, "the second waits for room");
    world.bus.faults().release();
    assert_eq!(decision(first.await), Decision::Admit);
    assert_eq!(decision(second.await), Decision::Admit);
}
