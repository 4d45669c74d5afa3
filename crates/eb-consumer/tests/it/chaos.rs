//! Workers that die at any moment, handlers that fail at random, leases that are lost, stores that go away: what holds all the same.

use std::time::Duration;

use eb_consumer::{CommitPolicy, LeasePolicy, Limits};
use parking_lot::Mutex;

use crate::support::{World, number, outage, transient};

const PARTITIONS: u32 = 3;
const KEYS: u64 = 12;
const EVENTS: u64 = 600;
/// The room of a partition: what one crash may bring again.
const ROOM: usize = 24;

/// `EB_TEST_SEED` repeats a run.
fn seed() -> u64 {
    let given = std::env::var("EB_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("EB_TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_handled_in_order_and_twice_only_within_the_bound_whatever_dies() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::new(PARTITIONS).await;
    let ms = Duration::from_millis;
    let builder = || {
        world
            .builder()
            .limits(Limits { partition_records: ROOM, read_records: 7, ..Limits::default() })
            .commit(CommitPolicy {
                records: 5,
                interval: ms(5),
                retry: ms(2),
                retry_max: ms(20),
                ..CommitPolicy::default()
            })
            .leases(LeasePolicy {
                time_to_live: ms(150),
                heartbeat: ms(30),
                rebalance: ms(20),
                retry_failed: ms(30),
                grace: ms(200),
                ..LeasePolicy::default()
            })
    };
    let luck = std::sync::Arc::new(Mutex::new(fastrand::Rng::with_seed(rng.u64(..))));
    let mut workers = Vec::new();
    let (mut published, mut deaths) = (0, 0);
    while published < EVENTS {
        let more = rng.u64(1..=60).min(EVENTS - published);
        world.publish(published, more, KEYS).await;
        published += more;
        match rng.u8(0..6) {
            0 | 1 if workers.len() < 4 => {
                let luck = std::sync::Arc::clone(&luck);
                let answer = move |event: &eb_consumer::RawEvent| match luck.lock().u8(0..20) {
                    0..=2 => Err(transient()),
                    3 => panic!("at random, number {}", number(event)),
                    _ => Ok(()),
                };
                workers.push(world.start(builder(), answer).await);
            }
            2 if !workers.is_empty() => {
                deaths += 1;
                drop(workers.swap_remove(rng.usize(0..workers.len())));
            }
            3 if !workers.is_empty() => {
                let worker = workers.swap_remove(rng.usize(0..workers.len()));
                deaths += u32::from(worker.shutdown().await.is_err());
            }
            4 => {
                world.leases.outage(outage());
                // How long it lasts is what the case is about: nothing is waited for.
                tokio::time::sleep(ms(rng.u64(0..250))).await;
                world.leases.recover();
                // Each worker may have lost each of its partitions.
                deaths += PARTITIONS;
            }
            _ => {
                world.processed.outage(outage());
                world.checkpoints.outage(outage());
                // As above.
                tokio::time::sleep(ms(rng.u64(0..60))).await;
                world.processed.recover();
                world.checkpoints.recover();
            }
        }
    }
    let last = world.worker(|_| Ok(())).await;
    world.seen.until(EVENTS as usize).await;
    workers.push(last);
    for worker in workers {
        deaths += u32::from(worker.shutdown().await.is_err());
    }
    world.seen.assert_all_in_order(EVENTS, KEYS);
    assert!(world.dead().await.is_empty());
    let again: u32 = world.seen.look().done.values().map(|n| n - 1).sum();
    let bound = deaths * PARTITIONS * ROOM as u32;
    println!("{deaths} deaths, {again} events handled again, the bound is {bound}");
    assert!(again <= bound, "{again} events were handled again, {deaths} deaths allow {bound}");
}
