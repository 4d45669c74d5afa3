//! Every error: never a receipt, never a quarantine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eb_contract::stores::AdmissionIndex as _;
use eb_contract::{Error, ErrorKind, Retry};
use eb_memory::{Fate, MemoryAdmissionIndex, MemoryConfig};
use ig_gate::{Decision, GateErrorCode};

use crate::support::{TRAFFIC, World, decision, event, is_pending, until};

#[tokio::test]
async fn a_publish_failure_is_an_error_and_the_event_can_be_sent_again() {
    let world = World::new().await;
    let gate = world.open().await;
    let down = Error::new(ErrorKind::Unavailable, "publish", "the bus is down");
    world.bus.faults().fail_next(1, &down);
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::EbUnavailable);
    assert!(error.is_retryable());
    assert!(world.log(TRAFFIC).await.is_empty());
    assert!(gate.quarantine().list(None, 10).await.unwrap().records.is_empty(), "a failure is no quarantine");
    assert_eq!(decision(gate.admit(event("e-1")).await), Decision::Admit);
}

#[tokio::test]
async fn a_final_publish_failure_says_that_no_retry_helps() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().fail_next(1, &Error::new(ErrorKind::Fenced, "publish", "another writer took over"));
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), (GateErrorCode::EbUnavailable, Retry::Never));
    assert!(error.to_string().starts_with("EB_UNAVAILABLE: "), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[tokio::test]
async fn throttling_passes_on_when_to_come_back() {
    let world = World::new().await;
    let gate = world.open().await;
    let after = Duration::from_millis(70);
    let busy = Error::new(ErrorKind::Throttled { after: Some(after) }, "publish", "slow down");
    world.bus.faults().fail_next(1, &busy);
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), (GateErrorCode::EbThrottled, Retry::After(after)));
    let json = serde_json::to_value(&error).unwrap();
    assert_eq!((&json["code"], &json["retryable"]), (&"EB_THROTTLED".into(), &true.into()));
}

#[tokio::test]
async fn an_index_that_cannot_answer_publishes_nothing() {
    let world = World::new().await;
    let gate = world.open().await;
    world.index.inner.outage(Error::new(ErrorKind::Io, "reserve", "the disk is gone"));
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::IndexUnavailable);
    assert!(error.is_retryable());
    assert!(world.log(TRAFFIC).await.is_empty());
    world.index.inner.recover();
    assert_eq!(decision(gate.admit(event("e-1")).await), Decision::Admit);
}

#[tokio::test]
async fn an_index_that_does_not_take_an_acked_event_makes_no_second_admission() {
    let world = World::new().await;
    let gate = world.open().await;
    world.index.refuse_confirm.store(true, Ordering::SeqCst);
    let first = gate.admit(event("e-1")).await.unwrap();
    assert_eq!(first.decision, Decision::Admit, "it is in the log");
    let again = gate.admit(event("e-1")).await.unwrap();
    assert_eq!((again.decision, again.eb_ref), (Decision::Duplicate, first.eb_ref.clone()));
    world.index.refuse_confirm.store(false, Ordering::SeqCst);
    until(|| world.index.inner.reopen().approximate_len() == 1).await;
    let later = gate.admit(event("e-1")).await.unwrap();
    assert_eq!((later.decision, later.eb_ref), (Decision::Duplicate, first.eb_ref));
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
    gate.close().await.unwrap();
}

#[tokio::test]
async fn evidence_that_cannot_be_stored_is_an_error_not_a_receipt() {
    let world = World::new().await;
    let gate = world.open().await;
    world.evidence.faults().next_records([Fate::Fail(Error::new(ErrorKind::StorageFull, "publish", "full"))]);
    let error = gate.admit("no envelope").await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::EvidenceUnavailable);
    assert!(error.is_retryable());
    assert_eq!(decision(gate.admit("no envelope").await), Decision::Quarantine);
}

#[tokio::test]
async fn a_closed_gate_says_so() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.close().await.unwrap();
    gate.close().await.unwrap();
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::GateClosed);
    assert!(world.log(TRAFFIC).await.is_empty());
}

#[tokio::test]
async fn close_finishes_what_is_in_flight() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().hold();
    let mut first = gate.admit(event("e-1"));
    let never_polled = gate.admit(event("e-2"));
    is_pending(&mut first).await;
    let mut closing = Box::pin(gate.close());
    is_pending(&mut closing).await;
    world.bus.faults().release();
    closing.await.unwrap();
    assert_eq!(decision(first.await), Decision::Admit);
    assert_eq!(decision(never_polled.await), Decision::Admit);
    assert_eq!(world.index.inner.reopen_after_crash().approximate_len(), 2, "the checkpoint holds both");
}

#[tokio::test]
async fn a_checkpoint_that_falls_too_far_behind_stops_admissions_until_it_catches_up() {
    let world = World::with(MemoryConfig::default(), 1, MemoryAdmissionIndex::with_max_lag(8)).await;
    let gate = world.open().await;
    world.index.refuse_checkpoint.store(true, Ordering::SeqCst);
    let mut admitted = 0;
    let error = loop {
        match gate.admit(event(&format!("e-{admitted}"))).await {
            Ok(_) => admitted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), admitted), (GateErrorCode::GateUnhealthy, 8));
    assert!(error.is_retryable());
    world.index.refuse_checkpoint.store(false, Ordering::SeqCst);
    gate.checkpoint().await.unwrap();
    assert_eq!(decision(gate.admit(event("e-8")).await), Decision::Admit);
}

#[tokio::test]
async fn past_the_bound_on_waiting_the_answer_is_to_come_back_later() {
    let mut world = World::new().await;
    (world.config.max_in_flight, world.config.max_waiting) = (2, 2);
    let gate = world.open().await;
    world.bus.faults().hold();
    let mut held: Vec<_> = (0..8).map(|n| gate.admit(event(&format!("e-{n}")))).collect();
    let last = held.pop().unwrap();
    let error = last.await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::EbThrottled);
    world.bus.faults().release();
    let mut admitted = 0;
    for answer in held {
        match answer.await {
            Ok(receipt) => {
                assert_eq!(receipt.decision, Decision::Admit);
                admitted += 1;
            }
            Err(error) => assert_eq!(error.code(), GateErrorCode::EbThrottled),
        }
    }
    assert_eq!(world.log(TRAFFIC).await.len(), admitted);
    assert!(admitted >= 4, "two in flight and two waiting at least: {admitted}");
}

#[tokio::test]
async fn more_events_at_once_than_the_index_may_lag_find_a_busy_gate_and_not_a_sick_one() {
    let world = World::with(MemoryConfig::default(), 1, MemoryAdmissionIndex::with_max_lag(16)).await;
    let gate = world.open().await;
    let calls: Vec<_> = (0..64).map(|n| gate.admit(event(&format!("e-{n}")))).collect();
    let mut admitted = 0;
    for call in calls {
        match call.await {
            Ok(_) => admitted += 1,
            Err(error) => {
                assert_eq!(error.code(), GateErrorCode::EbThrottled, "{error}");
                assert!(matches!(error.retry(), Retry::After(_)));
            }
        }
    }
    assert_eq!(admitted, 16);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_stored_is_not_tried_again_for_every_refused_event() {
    let world = World::with(MemoryConfig::default(), 1, MemoryAdmissionIndex::with_max_lag(8)).await;
    let gate = world.open().await;
    world.index.refuse_checkpoint.store(true, Ordering::SeqCst);
    for n in 0..8 {
        gate.admit(event(&format!("e-{n}"))).await.unwrap();
    }
    let tried = world.index.checkpoints.load(Ordering::SeqCst);
    for _ in 0..100 {
        let error = gate.admit(event("e-8")).await.unwrap_err();
        assert_eq!(error.code(), GateErrorCode::GateUnhealthy);
        tokio::task::yield_now().await;
    }
    let tried = world.index.checkpoints.load(Ordering::SeqCst) - tried;
    assert!(tried <= 2, "no time has passed, and it was tried {tried} times");
    world.index.refuse_checkpoint.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(decision(gate.admit(event("e-8")).await), Decision::Admit);
}

#[tokio::test]
async fn past_the_bound_on_waiting_bytes_the_answer_is_to_come_back_later() {
    let mut world = World::new().await;
    world.config.max_in_flight = 1;
    let bytes = event("e-0").bytes().len();
    world.config.max_waiting_bytes = 2 * bytes;
    let gate = world.open().await;
    world.bus.faults().hold();
    let calls: Vec<_> = (0..4).map(|n| gate.admit(event(&format!("e-{n}")))).collect();
    world.bus.faults().release();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    let refused = answers.pop().unwrap().unwrap_err();
    assert_eq!(refused.code(), GateErrorCode::EbThrottled, "one is in flight, and two wait");
    assert!(answers.into_iter().all(|a| decision(a) == Decision::Admit));
    assert_eq!(
        decision(gate.admit(event("e-3")).await),
        Decision::Admit,
        "what waited has given its bytes back"
    );
}

#[tokio::test]
async fn past_the_bound_on_bytes_of_evidence_the_answer_is_to_come_back_later() {
    let mut world = World::new().await;
    world.config.max_waiting_bytes = 100;
    let gate = world.open().await;
    let large = "x".repeat(1000);
    let first = gate.admit(large.clone());
    let error = gate.admit("bad").await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::EbThrottled, "the large one waits alone");
    assert_eq!(decision(first.await), Decision::Quarantine);
    let two = [gate.admit("bad"), gate.admit("worse")];
    for call in two {
        assert_eq!(decision(call.await), Decision::Quarantine);
    }
}
