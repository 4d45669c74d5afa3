//! When the index's checkpoint is committed, and what it may claim.

use std::time::Duration;

use eb_contract::Offset;
use eb_contract::stores::AdmissionIndex as _;
use eb_memory::{MemoryAdmissionIndex, MemoryConfig};

use crate::support::{TRAFFIC, World, event, is_pending, topic, until};

async fn committed(world: &World) -> Option<u64> {
    let checkpoint = world.index.checkpoint().await.unwrap().unwrap();
    let cut = checkpoint.cuts.into_iter().find(|c| c.topic == topic(TRAFFIC)).unwrap();
    cut.cut.offset().and_then(Offset::as_u64)
}

#[tokio::test]
async fn a_checkpoint_waits_for_the_publishes_that_were_in_flight() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-0")).await.unwrap();
    world.bus.faults().hold();
    let mut held = gate.admit(event("e-1"));
    is_pending(&mut held).await;
    let mut checkpoint = Box::pin(gate.checkpoint());
    is_pending(&mut checkpoint).await;
    assert_eq!(committed(&world).await, None);
    world.bus.faults().release();
    checkpoint.await.unwrap();
    assert_eq!(committed(&world).await, Some(1), "what was ACKed when it was taken");
    held.await.unwrap();
    gate.checkpoint().await.unwrap();
    assert_eq!(committed(&world).await, Some(2));
}

#[tokio::test]
async fn a_checkpoint_is_committed_after_so_many_admissions() {
    let world = World::with(MemoryConfig::default(), 1, MemoryAdmissionIndex::with_max_lag(40)).await;
    let gate = world.open().await;
    for n in 0..10 {
        gate.admit(event(&format!("e-{n}"))).await.unwrap();
    }
    loop {
        if committed(&world).await == Some(10) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_committed_after_so_much_time() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-0")).await.unwrap();
    assert_eq!(committed(&world).await, None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(committed(&world).await, Some(1));
    drop(gate);
}

#[tokio::test]
async fn a_gate_that_is_dropped_ends_its_background_work() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-0")).await.unwrap();
    drop(gate);
    until(|| std::sync::Arc::strong_count(&world.index) == 1).await;
}

#[tokio::test]
async fn of_two_checkpoints_at_once_the_newer_one_stays() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-0")).await.unwrap();
    let let_go = world.index.hold_next_checkpoint();
    let mut older = Box::pin(gate.checkpoint());
    is_pending(&mut older).await;
    gate.admit(event("e-1")).await.unwrap();
    let other = gate.clone();
    let newer = tokio::spawn(async move { other.checkpoint().await });
    tokio::task::yield_now().await;
    let_go.send(()).unwrap();
    older.await.unwrap();
    newer.await.unwrap().unwrap();
    assert_eq!(committed(&world).await, Some(2));
}
