//! Who lives, and what is renewed.

use std::time::Duration;

use eb_contract::PartitionId;

use crate::Outcome;
use crate::lease::{LeaseCase, MINUTE, consumer, key, lease, topic};
use crate::outcome::{ensure, ensure_eq, refused};

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

pub(crate) async fn a_heartbeat_renews_what_is_held(case: &mut LeaseCase) -> Outcome {
    let held =
        [(PartitionId(0), case.hold(&key(0), "a").await?), (PartitionId(1), case.hold(&key(1), "a").await?)];
    for _ in 0..3 {
        case.open.pass(Duration::from_secs(40)).await?;
        let beat = case.beat("a", &held).await?;
        ensure_eq!(beat.renewed.len(), 2, "answers to two leases");
        ensure!(beat.renewed.iter().all(Result::is_ok), "renewed: {:?}", beat.renewed);
    }
    for (partition, lease) in &held {
        case.taken(&key(partition.0), "b", lease).await?;
    }
    Ok(())
}

pub(crate) async fn a_heartbeat_answers_each_lease_in_its_place(case: &mut LeaseCase) -> Outcome {
    let mine = case.hold(&key(0), "a").await?;
    let theirs = case.hold(&key(1), "b").await?;
    let old = lease("a", mine.epoch - 1);
    let newer = lease("a", mine.epoch + 1);
    let held = [
        (PartitionId(1), lease("a", theirs.epoch)),
        (PartitionId(0), mine.clone()),
        (PartitionId(0), old),
        (PartitionId(7), mine.clone()),
        (PartitionId(0), newer),
        // Not the caller's to renew.
        (PartitionId(1), theirs),
        (PartitionId(0), mine),
    ];
    let beat = case.beat("a", &held).await?;
    ensure_eq!(beat.renewed.len(), held.len(), "answers");
    for (n, answer) in beat.renewed.into_iter().enumerate() {
        if n == 1 || n == 6 {
            answer?;
        } else {
            refused(&format!("renewal {n}"), answer, "fenced")?;
        }
    }
    Ok(())
}

pub(crate) async fn an_ended_lease_is_not_renewed(case: &mut LeaseCase) -> Outcome {
    let ended = case.hold(&key(0), "a").await?;
    let released = case.hold(&key(1), "a").await?;
    case.store().release(&key(1), &released).await?;
    case.open.pass(Duration::from_secs(61)).await?;
    let beat = case.beat("a", &[(PartitionId(0), ended.clone()), (PartitionId(1), released)]).await?;
    for answer in beat.renewed {
        refused("a lease that has ended", answer, "fenced")?;
    }
    let next = case.hold(&key(0), "b").await?;
    let beat = case.beat("a", &[(PartitionId(0), ended)]).await?;
    refused("a lease that was taken over", beat.renewed.into_iter().next().unwrap_or(Ok(())), "fenced")?;
    case.taken(&key(0), "a", &next).await?;
    Ok(())
}

pub(crate) async fn the_living_workers_are_those_of_the_same_consumer_and_topic(
    case: &mut LeaseCase,
) -> Outcome {
    let store = case.store();
    for worker in ["b", "a", "c \"x\""] {
        case.beat(worker, &[]).await?;
    }
    store.heartbeat(&consumer("other"), &topic("fp.bus.traffic.v1"), "d", MINUTE, &[]).await?;
    store.heartbeat(&consumer("scorer"), &topic("fp.bus.control.v1"), "e", MINUTE, &[]).await?;
    ensure_eq!(case.beat("B", &[]).await?.workers, names(&["B", "a", "b", "c \"x\""]), "who lives");
    let others = store.heartbeat(&consumer("other"), &topic("fp.bus.traffic.v1"), "d", MINUTE, &[]).await?;
    ensure_eq!(others.workers, names(&["d"]), "who lives of another consumer");
    Ok(())
}

pub(crate) async fn a_worker_that_falls_silent_is_gone(case: &mut LeaseCase) -> Outcome {
    case.beat("a", &[]).await?;
    case.open.pass(Duration::from_secs(40)).await?;
    ensure_eq!(case.beat("b", &[]).await?.workers, names(&["a", "b"]), "who lives after 40 s");
    case.open.pass(Duration::from_secs(21)).await?;
    ensure_eq!(case.beat("b", &[]).await?.workers, names(&["b"]), "who lives when a was silent for a minute");
    ensure_eq!(case.beat("a", &[]).await?.workers, names(&["a", "b"]), "who lives when a is back");
    Ok(())
}

pub(crate) async fn whoever_leaves_is_gone_and_its_leases_are_free(case: &mut LeaseCase) -> Outcome {
    case.beat("a", &[]).await?;
    case.beat("b", &[]).await?;
    let mine = [case.hold(&key(0), "a").await?, case.hold(&key(1), "a").await?];
    let theirs = case.hold(&key(2), "b").await?;
    let elsewhere = eb_contract::stores::LeaseKey { topic: topic("fp.bus.control.v1"), ..key(0) };
    let kept = case.hold(&elsewhere, "a").await?;
    case.store().leave(&consumer("scorer"), &topic("fp.bus.traffic.v1"), "a").await?;
    ensure_eq!(case.beat("b", &[]).await?.workers, names(&["b"]), "who lives");
    case.taken(&key(2), "c", &theirs).await?;
    case.taken(&elsewhere, "c", &kept).await?;
    for (n, was) in (0..).zip(mine) {
        let next = case.hold(&key(n), "b").await?;
        ensure!(next.epoch > was.epoch, "epoch {} after {}", next.epoch, was.epoch);
    }
    // Again, and somebody who never was.
    case.store().leave(&consumer("scorer"), &topic("fp.bus.traffic.v1"), "a").await?;
    case.store().leave(&consumer("nobody"), &topic("fp.bus.traffic.v1"), "a").await?;
    Ok(())
}
