//! Each trigger, provoked on real servers under a gate that goes on admitting: seen to roll back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eb_contract::{EnvelopeRef, PartitionKey, PublishRecord, Topic};
use eb_profile::Platform;
use eb_rollout::{Phase, Status};
use eb_system_tests::rollout::{TOPIC, event};
use ig_gate::{Decision, Gate};
use tokio::task::JoinHandle;

use super::place::{PATIENCE, Place, Route};

/// A caller that sends events one after the other, each until it is admitted.
struct Caller {
    stop: Arc<AtomicBool>,
    admitted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Caller {
    fn start(gate: Gate) -> Self {
        let (stop, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, count) = (stop.clone(), admitted.clone());
        let task = tokio::spawn(async move {
            for n in 0.. {
                loop {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    // Several keys, since a Kinesis takes those of one key one by one.
                    match gate.admit(event(&format!("caller-{}", n % 16), n / 16)).await {
                        Ok(receipt) => {
                            assert_ne!(receipt.decision, Decision::Quarantine, "{receipt:?}");
                            break;
                        }
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, admitted, task }
    }

    async fn until_admitted(&self, more: u64) {
        let (wanted, deadline) = (self.admitted.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
        while self.admitted.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "nothing is admitted any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

async fn advance_to(platform: &Platform, to: Phase) {
    let (control, deadline) = (platform.rollout().unwrap(), Instant::now() + PATIENCE);
    while Place::status(platform).await.state.phase < to {
        if let Err(error) = control.advance("a test").await {
            assert!(Instant::now() < deadline, "{error}");
        }
    }
}

/// Why the rollout is in baseline again, by itself; and how long that took.
async fn rolled_back(platform: &Platform, since: Instant) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Status { state, mirror, .. } = Place::status(platform).await;
        if state.phase == Phase::Baseline && state.switching.is_none() {
            println!("{:?} after it was provoked: {}", since.elapsed(), state.reason);
            return state.reason;
        }
        assert!(Instant::now() < deadline, "no trigger: {state:?}, {mirror:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A platform with a gate and a caller, in a phase.
async fn running(route: Route, triggers: &str, phase: Phase) -> (Place, Platform, Caller) {
    let place = tokio::task::block_in_place(|| Place::new(route, triggers));
    let platform = place.open("gate").await;
    let caller = Caller::start(platform.gate().await.unwrap().clone());
    caller.until_admitted(20).await;
    advance_to(&platform, phase).await;
    while Place::status(&platform).await.mirror.is_none_or(|m| m.copied == 0) {
        caller.until_admitted(1).await;
    }
    (place, platform, caller)
}

fn topic() -> Topic {
    Topic::new(TOPIC).unwrap()
}

async fn end(platform: Platform, caller: Caller) {
    // Nothing of it stops the platform.
    caller.until_admitted(20).await;
    caller.end().await;
    platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_on_the_new_bus_that_is_nobodys_rolls_back() {
    let (place, platform, caller) =
        running(Route::FilesToRedis, "{p99_ratio_percent: 0}", Phase::DualWrite).await;
    let began = Instant::now();
    let record = PublishRecord::new(
        PartitionKey::new("caller").unwrap(),
        EnvelopeRef::new(r#"{"event_id":"intruder"}"#).unwrap(),
    );
    place.new.intrude(&topic(), record).await;
    let why = rolled_back(&platform, began).await;
    assert!(why.starts_with("trigger: an event in the mirror is not the primary's"), "{why}");
    end(platform, caller).await;
}

/// The service says of each copy that it has it, and where; who reads the log does not find it, then or when it was copied again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_new_bus_has_acked_and_does_not_hold_rolls_back() {
    let triggers = "{unavailable_ms: 0, p99_ratio_percent: 0}";
    let (place, platform, caller) = running(Route::FilesToKinesis, triggers, Phase::DualWrite).await;
    let began = Instant::now();
    place.new.lead_astray(&topic(), 3).await;
    let why = rolled_back(&platform, began).await;
    assert!(why.starts_with("trigger: an event is missing in the mirror"), "{why}");
    end(platform, caller).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_bus_that_is_gone_for_longer_than_it_may_rolls_back_in_every_mirrored_phase() {
    for phase in [Phase::DualWrite, Phase::NewPrimary] {
        let triggers = "{unavailable_ms: 2000, p99_ratio_percent: 0}";
        let (mut place, platform, caller) = running(Route::FilesToRedis, triggers, phase).await;
        let began = Instant::now();
        tokio::task::block_in_place(|| place.new.go());
        let why = rolled_back(&platform, began).await;
        assert!(why.contains("the new bus has been unavailable for"), "{phase}: {why}");
        tokio::task::block_in_place(|| place.new.come_back());
        end(platform, caller).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_bus_that_is_much_slower_than_the_old_one_rolls_back() {
    let triggers =
        "{unavailable_ms: 0, p99_ratio_percent: 300, p99_floor_ms: 40, window_ms: 1500, min_samples: 10}";
    let (place, platform, caller) = running(Route::FilesToRedis, triggers, Phase::NewPrimary).await;
    let began = Instant::now();
    let slow = async {
        // It answers, and takes its time.
        loop {
            let halted = place.new.halt();
            tokio::time::sleep(Duration::from_millis(150)).await;
            drop(halted);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let why = tokio::select! {
        why = rolled_back(&platform, began) => why,
        () = slow => unreachable!("it never ends"),
    };
    assert!(why.contains("p99 of"), "{why}");
    end(platform, caller).await;
}
