//! The engine away or failing for a while, under callers: the gate says so, admits nothing without an ACK and nothing
//! twice, and goes on by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use canonical_envelope::Envelope;
use eb_contract::EbRef;
use eb_system_tests::shared::Setup;
use eb_testkit::services::LocalStack;
use ig_gate::{Decision, Gate, HealthStatus, Receipt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Place, all_records, create_streams, place};

/// Callers that send every event until it has a receipt.
struct Callers {
    receipts: Mutex<Vec<(usize, Receipt)>>,
    answered: watch::Sender<usize>,
    refused: watch::Sender<usize>,
    next: AtomicUsize,
    events: Vec<Bytes>,
}

impl Callers {
    fn start(gate: &Arc<Gate>, setup: &Setup) -> (Arc<Self>, JoinSet<()>) {
        let callers = Arc::new(Self {
            receipts: Mutex::default(),
            answered: watch::Sender::new(0),
            refused: watch::Sender::new(0),
            next: AtomicUsize::new(0),
            events: setup.events().collect(),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..setup.window {
            let (callers, gate) = (callers.clone(), gate.clone());
            tasks.spawn(async move { callers.work(&gate).await });
        }
        (callers, tasks)
    }

    async fn work(&self, gate: &Gate) {
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(event) = self.events.get(place) else { return };
            loop {
                match gate.admit(event.clone()).await {
                    Ok(receipt) => {
                        self.receipts.lock().push((place, receipt));
                        break;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "event {place}: {error}");
                        self.refused.send_modify(|n| *n += 1);
                        // A caller's own back-off.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            self.answered.send_modify(|n| *n += 1);
        }
    }

    async fn until_answered(&self, count: usize) {
        self.answered.subscribe().wait_for(|n| *n >= count).await.expect("the sender is here");
    }

    async fn until_refused(&self, more: usize) {
        let mut refused = self.refused.subscribe();
        let until = *refused.borrow_and_update() + more;
        refused.wait_for(|n| *n >= until).await.expect("the sender is here");
    }

    /// Every event has one place, was admitted once at most, and lies there. Gives back how many it was told as
    /// admitted, and how many copies the log holds besides.
    async fn check(&self, setup: &Setup) -> (usize, usize) {
        let records = all_records(setup).await;
        let lies: BTreeMap<String, _> = records.iter().map(|r| (r.eb_ref.to_string(), r)).collect();
        let receipts = self.receipts.lock();
        let mut places: BTreeMap<usize, &EbRef> = BTreeMap::new();
        let mut admitted: BTreeMap<usize, usize> = BTreeMap::new();
        for (place, receipt) in receipts.iter() {
            let eb_ref = receipt.eb_ref.as_ref().unwrap_or_else(|| panic!("event {place} has no place"));
            assert_eq!(*places.entry(*place).or_insert(eb_ref), eb_ref, "event {place} has two places");
            if receipt.decision == Decision::Admit {
                *admitted.entry(*place).or_default() += 1;
            }
            let record = lies.get(&eb_ref.to_string()).unwrap_or_else(|| panic!("nothing is at {eb_ref}"));
            let mut canonical = Vec::new();
            Envelope::parse(&self.events[*place]).unwrap().write_canonical(&mut canonical);
            assert_eq!(record.envelope.as_bytes(), canonical, "event {place} is not at {eb_ref}");
        }
        assert_eq!(places.len(), self.events.len(), "each event has a receipt");
        assert!(admitted.values().all(|times| *times == 1), "an event was admitted twice");
        (admitted.len(), records.len() - places.len())
    }
}

/// A LocalStack, streams on it, and a gate that waits so long for its answers.
async fn on_localstack(
    name: &str,
    count: usize,
    window: usize,
    patience_ms: u64,
) -> (LocalStack, Place, Arc<Gate>) {
    let localstack = tokio::task::block_in_place(LocalStack::start).expect("a LocalStack to test with");
    let mut place = place(name, eb_testkit::seed());
    place.setup.kinesis = localstack.url();
    (place.setup.count, place.setup.window) = (count, window);
    place.setup.patience_ms = patience_ms;
    create_streams(&place.setup, 3).await;
    let gate = Arc::new(place.setup.gate().await.unwrap());
    (localstack, place, gate)
}

async fn until_health(gate: &Gate, wanted: impl Fn(HealthStatus) -> bool) -> ig_gate::Health {
    loop {
        let health = gate.health().await;
        if wanted(health.status) {
            return health;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_localstack_does_not_answer_nothing_is_admitted_and_then_the_gate_goes_on_by_itself() {
    let (localstack, place, gate) = on_localstack("away", 300, 32, 800).await;
    until_health(&gate, |status| status == HealthStatus::Ready).await;
    let (callers, mut tasks) = Callers::start(&gate, &place.setup);
    for part in 1..=2 {
        callers.until_answered(part * 75).await;
        let away = localstack.pause().unwrap();
        callers.until_refused(place.setup.window).await;
        let health = until_health(&gate, |status| status == HealthStatus::Failing).await;
        let failing = health.checks.iter().filter(|check| check.status == HealthStatus::Failing);
        assert!(
            failing.clone().count() > 0 && failing.clone().all(|c| c.name.starts_with("bus ")),
            "{health:?}"
        );
        drop(away);
        // What has failed of late is still told as degraded.
        until_health(&gate, |status| status < HealthStatus::Failing).await;
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let (admitted, copies) = callers.check(&place.setup).await;
    println!(
        "{admitted} told as admitted, {copies} copies in the log, {} calls refused",
        *callers.refused.borrow()
    );
    gate.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_throttling_that_comes_and_goes_every_event_is_admitted_once() {
    let (localstack, place, gate) = on_localstack("throttled", 600, 64, 30_000).await;
    let (callers, mut tasks) = Callers::start(&gate, &place.setup);
    for part in 1..10 {
        callers.until_answered(part * 60).await;
        let probability = if part % 2 == 1 { 0.5 } else { 0.0 };
        tokio::task::block_in_place(|| localstack.fail_writes(probability)).unwrap();
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let (admitted, copies) = callers.check(&place.setup).await;
    assert_eq!((admitted, copies), (600, 0), "what is throttled is not written");
    gate.close().await.unwrap();
}
