//! Ready, degraded, failing.

use eb_contract::{Error, ErrorKind};
use ig_gate::{Gate, HealthStatus};

use crate::support::{World, event};

async fn status_of(gate: &Gate, name: &str) -> HealthStatus {
    let health = gate.health().await;
    health.checks.into_iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name}")).status
}

#[tokio::test]
async fn a_gate_whose_parts_answer_is_ready() {
    let world = World::new().await;
    let gate = world.open().await;
    let health = gate.health().await;
    assert_eq!(health.status, HealthStatus::Ready, "{health:?}");
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["status"], "ready");
}

#[tokio::test]
async fn a_bus_or_index_that_does_not_answer_is_failing() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().outage(Error::new(ErrorKind::Unavailable, "probe", "down"));
    assert_eq!(status_of(&gate, "bus fp.bus.traffic.v1").await, HealthStatus::Failing);
    world.bus.faults().recover();
    world.index.inner.outage(Error::new(ErrorKind::Io, "probe", "gone"));
    assert_eq!(status_of(&gate, "index").await, HealthStatus::Failing);
    assert_eq!(gate.health().await.status, HealthStatus::Failing);
    world.index.inner.recover();
    assert_eq!(gate.health().await.status, HealthStatus::Ready);
}

#[tokio::test]
async fn a_gate_that_can_admit_but_not_quarantine_is_degraded() {
    let world = World::new().await;
    let gate = world.open().await;
    world.evidence.faults().outage(Error::new(ErrorKind::StorageFull, "probe", "full"));
    assert_eq!(gate.health().await.status, HealthStatus::Degraded);
}

#[tokio::test]
async fn a_recent_failure_shows() {
    let world = World::new().await;
    let gate = world.open().await;
    world.bus.faults().fail_next(1, &Error::new(ErrorKind::Unavailable, "publish", "down for a moment"));
    gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!(status_of(&gate, "recent errors").await, HealthStatus::Degraded);
}

#[tokio::test]
async fn a_closed_gate_is_failing() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.close().await.unwrap();
    assert_eq!(gate.health().await.status, HealthStatus::Failing);
}
