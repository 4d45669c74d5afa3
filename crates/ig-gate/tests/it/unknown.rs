//! Publishes whose outcome nobody knows.

use std::time::Duration;

use eb_contract::stores::AdmissionIndex as _;
use eb_contract::{Cut, Effect, Error, ErrorKind, Retry};
use eb_memory::Fate;
use ig_gate::{Decision, GateErrorCode, HealthStatus, ReasonCode};

use crate::support::{TRAFFIC, World, decision, event, is_pending, until};

#[tokio::test]
async fn an_unknown_outcome_that_is_in_the_log_ends_as_admitted() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-0")).await.unwrap();
    world.unknown(true);
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::PublishOutcomeUnknown);
    assert!(error.is_retryable());
    until(|| world.index.approximate_len() == 2).await;
    let again = loop {
        match gate.admit(event("e-1")).await {
            Ok(receipt) => break receipt,
            Err(error) => assert_eq!(error.code(), GateErrorCode::PublishOutcomeUnknown),
        }
        tokio::task::yield_now().await;
    };
    let log = world.log(TRAFFIC).await;
    assert_eq!(log.len(), 2);
    assert_eq!((again.decision, again.eb_ref.as_ref()), (Decision::Duplicate, Some(&log[1].eb_ref)));
}

#[tokio::test]
async fn an_unknown_outcome_that_is_not_in_the_log_ends_as_never_published() {
    let world = World::new().await;
    let gate = world.open().await;
    world.unknown(false);
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(error.code(), GateErrorCode::PublishOutcomeUnknown);
    let receipt = loop {
        match gate.admit(event("e-1")).await {
            Ok(receipt) => break receipt,
            Err(error) => assert_eq!(error.code(), GateErrorCode::PublishOutcomeUnknown),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(receipt.decision, Decision::Admit);
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_cannot_tell_the_key_stays_blocked_and_nothing_else_does() {
    let world = World::new().await;
    let gate = world.open().await;
    let down = Error::new(ErrorKind::Unavailable, "probe", "no reply");
    world.unknown(true);
    let first = gate.admit(event("e-1"));
    world.bus.faults().outage(down);
    assert_eq!(first.await.unwrap_err().code(), GateErrorCode::PublishOutcomeUnknown);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let again = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(again.code(), GateErrorCode::PublishOutcomeUnknown, "time alone proves nothing");
    assert_eq!(gate.admit(event("e-2")).await.unwrap_err().code(), GateErrorCode::EbUnavailable);
    assert_eq!(gate.health().await.status, HealthStatus::Failing);
    world.bus.faults().recover();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(decision(gate.admit(event("e-1")).await), Decision::Duplicate);
    assert_eq!(decision(gate.admit(event("e-2")).await), Decision::Admit);
    assert_eq!(world.log(TRAFFIC).await.len(), 2);
}

#[tokio::test]
async fn another_payload_after_an_unknown_outcome_is_judged_by_the_log() {
    let world = World::new().await;
    let gate = world.open().await;
    world.unknown(true);
    gate.admit(event("e-1")).await.unwrap_err();
    until(|| world.index.approximate_len() == 1).await;
    let other = event("e-1").payload(r#"{"merchant_id":"m-1","n":2}"#);
    let receipt = loop {
        match gate.admit(other.clone()).await {
            Ok(receipt) => break receipt,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(receipt.reason_codes, [ReasonCode::PayloadHashMismatch]);
}

#[tokio::test]
async fn an_unknown_outcome_at_a_crash_is_found_at_the_next_open() {
    for appended in [true, false] {
        let mut world = World::new().await;
        let gate = world.open().await;
        world.unknown(appended);
        let first = gate.admit(event("e-1"));
        world.bus.faults().outage(Error::new(ErrorKind::Unavailable, "read", "gone"));
        assert_eq!(first.await.unwrap_err().code(), GateErrorCode::PublishOutcomeUnknown);
        let closed = gate.close().await.unwrap_err();
        assert_eq!(closed.code(), GateErrorCode::PublishOutcomeUnknown);
        drop(gate);
        world.bus.faults().recover();
        world.crash();
        let gate = world.open().await;
        let expected = if appended { Decision::Duplicate } else { Decision::Admit };
        assert_eq!(decision(gate.admit(event("e-1")).await), expected);
        assert_eq!(world.log(TRAFFIC).await.len(), 1);
    }
}

#[tokio::test]
async fn a_checkpoint_never_passes_an_unknown_outcome() {
    let mut world = World::new().await;
    let gate = world.open().await;
    world.unknown(true);
    let first = gate.admit(event("e-1"));
    assert!(first.await.is_err());
    gate.admit(event("e-2")).await.unwrap();
    // Waits for the reconciliation of e-1.
    gate.checkpoint().await.unwrap();
    drop(gate);
    world.crash();
    assert_eq!(world.index.approximate_len(), 2, "the checkpoint came only with both entries");
    let gate = world.open().await;
    assert_eq!(decision(gate.admit(event("e-1")).await), Decision::Duplicate);
}

#[tokio::test]
async fn an_unknown_outcome_of_a_poisoned_partition_says_that_the_bus_must_be_opened_anew() {
    let world = World::new().await;
    let gate = world.open().await;
    let poisoned = Error::new(ErrorKind::Poisoned, "publish", "a sync failed").with_effect(Effect::Unknown);
    world.bus.faults().next_records([Fate::Fail(poisoned)]);
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), (GateErrorCode::PublishOutcomeUnknown, Retry::AfterReopen));
}

#[tokio::test]
async fn an_unknown_outcome_that_was_found_counts_towards_the_checkpoint() {
    let world = World::new().await;
    let gate = world.open().await;
    world.unknown(true);
    gate.admit(event("e-1")).await.unwrap_err();
    gate.close().await.unwrap();
    let stored = world.index.inner.reopen_after_crash();
    assert_eq!(stored.approximate_len(), 1, "closing commits what was found in the log");
    let checkpoint = stored.checkpoint().await.unwrap().unwrap();
    let log = world.log(TRAFFIC).await;
    let cut = checkpoint.cuts.iter().find(|c| c.topic == log[0].eb_ref.topic).unwrap();
    assert_eq!(cut.cut, Cut::past(log[0].eb_ref.offset));
}

#[tokio::test]
async fn closing_and_the_background_do_not_settle_one_key_twice() {
    let world = World::new().await;
    let gate = world.open().await;
    world.unknown(true);
    world.index.slow_confirm(true);
    gate.admit(event("e-1")).await.unwrap_err();
    until(|| world.index.confirming() == 1).await;
    let mut closing = Box::pin(gate.close());
    for _ in 0..100 {
        is_pending(&mut closing).await;
        tokio::task::yield_now().await;
    }
    world.index.slow_confirm(false);
    // The background is done first.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    closing.await.unwrap();
    let health = gate.health().await;
    let blocked = health.checks.into_iter().find(|c| c.name == "blocked keys").unwrap();
    assert_eq!(blocked.status, HealthStatus::Ready, "{blocked:?}");
}
