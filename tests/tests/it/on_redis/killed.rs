//! Redis killed and started again under callers of a gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eb_profile::Purpose;
use eb_testkit::events::{Generator, Mix};
use eb_testkit::services::Signal;
use eb_testkit::{Budget, Rng};
use ig_gate::Gate;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Index, Place, Receipts};

const CALLERS: usize = 64;

/// Callers that send every event until it has a receipt.
struct Callers {
    events: Vec<Bytes>,
    next: AtomicUsize,
    receipts: Mutex<Receipts>,
    answered: watch::Sender<usize>,
    refused: AtomicUsize,
}

impl Callers {
    async fn work(&self, gate: &Gate) {
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(event) = self.events.get(place) else { return };
            loop {
                match gate.admit(event.clone()).await {
                    Ok(receipt) => {
                        self.receipts.lock().take(place, &receipt);
                        break;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "event {place}: {error}");
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        // A caller's own back-off.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            self.answered.send_modify(|n| *n += 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ack_is_at_its_place_after_redis_was_killed_under_a_gate() {
    let mut budget = Budget::new(1, Duration::from_secs(10), 20);
    let mut rng = Rng::new(budget.seed);
    let (mut kills, mut refused, mut copies, mut sent) = (0, 0, 0, 0);
    while budget.again() {
        let mut place = Place::new();
        let platform = place.open("gate", &Index::Shared, Purpose::Writing).await;
        let gate = platform.gate().await.unwrap().clone();
        let events: Vec<_> = Generator::new(rng.next_u64(), Mix::CLEAN).take(4_000).collect();
        let callers = Arc::new(Callers {
            events: events.iter().map(|event| Bytes::from(event.bytes.clone())).collect(),
            next: AtomicUsize::new(0),
            receipts: Mutex::new(Receipts::new(events)),
            answered: watch::Sender::new(0),
            refused: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let (callers, gate) = (callers.clone(), gate.clone());
            tasks.spawn(async move { callers.work(&gate).await });
        }
        let mut answered = callers.answered.subscribe();
        for _ in 0..3 {
            let more = usize::try_from(rng.range(100..900)).unwrap();
            let until = *answered.borrow_and_update() + more;
            answered.wait_for(|n| *n >= until).await.unwrap();
            tokio::task::block_in_place(|| {
                place.redis.stop(Signal::Kill).unwrap();
                place.redis.restart().unwrap();
            });
            kills += 1;
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        drop(gate);
        platform.close().await.unwrap();
        // Killed once more: what is read is what the append-only file holds.
        tokio::task::block_in_place(|| {
            place.redis.stop(Signal::Kill).unwrap();
            place.redis.restart().unwrap();
        });
        let reading = place.open("gate", &Index::Shared, Purpose::Reading).await;
        let Callers { receipts, refused: of_callers, .. } = Arc::into_inner(callers).unwrap();
        let receipts = receipts.into_inner();
        assert_eq!(receipts.answers, receipts.events.len());
        copies += receipts.check(&reading).await;
        sent += receipts.events.len();
        refused += of_callers.into_inner();
    }
    println!("{sent} events, {kills} kills of Redis, {refused} calls refused, {copies} copies in the logs");
}
