//! What rolls back on its own: each is provoked.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Error, ErrorKind, EventBusPublisher};
use eb_rollout::{Phase, RolloutBus, RolloutConfig, Triggers};
use tokio::time::Instant;

use crate::bent::{Bend, bent};
use crate::support::{World, advance_to, event, make_topic, publish, quick, topic};

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "test", "the bus is gone")
}

fn config(triggers: Triggers) -> RolloutConfig {
    // Minutes of the clock pass in these tests: what runs all the time runs less often.
    let mut config = RolloutConfig { triggers, lease: Duration::from_millis(400), ..quick() };
    config.mirror.idle = Duration::from_millis(50);
    config
}

fn none() -> Triggers {
    Triggers {
        check_every: Duration::from_millis(500),
        on_finding: false,
        unavailable_for: None,
        p99_ratio: None,
        ..Triggers::default()
    }
}

/// Why the rollout is in baseline again.
async fn rolled_back(bus: &RolloutBus) -> String {
    loop {
        let status = bus.control().status().await.unwrap();
        if status.state.phase == Phase::Baseline && status.state.switching.is_none() {
            return status.state.reason;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_differing_event_rolls_back() {
    for phase in [Phase::DualWrite, Phase::NewPrimary] {
        let world = World::plain();
        let bus = world.open(config(Triggers { on_finding: true, ..none() })).await;
        make_topic(&bus, 1).await;
        let publisher = bus.publisher();
        advance_to(&bus, phase).await;
        publish(&publisher, "k", 0).await;
        let mirror = if phase == Phase::DualWrite { &world.new } else { &world.old };
        while bus.control().status().await.unwrap().mirror.is_none_or(|m| m.topics.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        mirror.publisher().publish(&topic(), event("intruder", 0)).await.unwrap();
        publish(&publisher, "k", 1).await;
        let why = rolled_back(&bus).await;
        assert!(why.starts_with("trigger: an event in the mirror is not the primary's"), "{why}");
        publish(&publisher, "k", 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_bus_that_is_gone_for_longer_than_thirty_seconds_rolls_back_and_not_before() {
    for phase in [Phase::DualWrite, Phase::NewPrimary] {
        let world = World::plain();
        let bus =
            world.open(config(Triggers { unavailable_for: Some(Duration::from_secs(30)), ..none() })).await;
        make_topic(&bus, 1).await;
        let publisher = bus.publisher();
        publish(&publisher, "k", 0).await;
        advance_to(&bus, phase).await;
        // An outage that ends in time changes nothing.
        world.new.faults().outage(gone());
        tokio::time::sleep(Duration::from_secs(25)).await;
        world.new.faults().recover();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(bus.control().status().await.unwrap().state.phase, phase);
        let began = Instant::now();
        world.new.faults().outage(gone());
        let why = rolled_back(&bus).await;
        let took = began.elapsed();
        assert!(why.contains("unavailable for"), "{why}");
        assert!((30..36).contains(&took.as_secs()), "after {took:?} in {phase}");
        publish(&publisher, "k", 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn publishing_that_takes_too_much_longer_than_on_the_old_bus_rolls_back() {
    for phase in [Phase::DualWrite, Phase::NewPrimary] {
        let (world, old_bend, new_bend) =
            (World::plain(), Arc::new(Bend::default()), Arc::new(Bend::default()));
        *old_bend.delay.lock() = Duration::from_millis(2);
        *new_bend.delay.lock() = Duration::from_millis(3);
        let mut parts = world.parts();
        parts.old.publisher = bent(&world.old, &old_bend);
        parts.new.publisher = bent(&world.new, &new_bend);
        let triggers =
            Triggers { p99_ratio: Some(3.0), window: Duration::from_secs(5), min_samples: 20, ..none() };
        let bus = Arc::new(RolloutBus::open(parts, config(triggers)).await.unwrap());
        make_topic(&bus, 1).await;
        let publisher = Arc::new(bus.publisher());
        let publishing = {
            let publisher = publisher.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    if publisher.publish(&topic(), event("k", n)).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        };
        // The old bus is known well enough.
        tokio::time::sleep(Duration::from_secs(12)).await;
        advance_to(&bus, phase).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(bus.control().status().await.unwrap().state.phase, phase, "a little slower is fine");
        *new_bend.delay.lock() = Duration::from_millis(30);
        let why = rolled_back(&bus).await;
        assert!(why.contains("p99"), "{why}");
        publishing.abort();
        let _ = publishing.await;
        publisher.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_bus_that_answers_and_takes_nothing_is_unavailable_too() {
    let world = World::plain();
    let bus = world.open(config(Triggers { unavailable_for: Some(Duration::from_secs(30)), ..none() })).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::NewPrimary).await;
    // Nobody publishes for a while after one failure: nothing is known then.
    world.new.faults().fail_next(1, &gone());
    publisher.publish(&topic(), event("k", 1)).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bus.control().status().await.unwrap().state.phase, Phase::NewPrimary);
    publish(&publisher, "k", 1).await;
    // As a server whose disk is full: what lies there can be read.
    world.new.faults().fail_next(100_000, &gone());
    let began = Instant::now();
    let mut tries = 0;
    while publisher.publish(&topic(), event("k", 2)).await.is_err() {
        tries += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = began.elapsed();
    let why = rolled_back(&bus).await;
    assert!(why.contains("unavailable for"), "{why}");
    assert!((30..36).contains(&took.as_secs()), "after {took:?} and {tries} tries");
}
