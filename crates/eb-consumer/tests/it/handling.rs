//! Handling, retrying, giving up.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use eb_consumer::{
    AfterMax, BuildError, ConsumerError, EventConsumer, HandlerError, HealthStatus, Limits, Phase, RawEvent,
    RetryPolicy, Unhandled,
};
use eb_contract::Cut;
use eb_contract::stores::DeadReason;
use serde::Deserialize;

use crate::support::{TYPE, World, envelope, number, outage, quick_retries, tick, topic, transient, until};

#[tokio::test]
async fn a_handler_that_fails_twice_and_then_every_fifth_time_gets_every_event_in_the_order_of_its_key() {
    let world = World::new(3).await;
    world.publish(0, 300, 10).await;
    let calls = AtomicU32::new(0);
    let worker = world
        .worker(move |event| {
            let call = tick(&calls);
            if event.attempt() <= 2 && number(event).is_multiple_of(7) || call.is_multiple_of(5) {
                Err(transient())
            } else {
                Ok(())
            }
        })
        .await;
    world.seen.until(300).await;
    worker.shutdown().await.unwrap();
    world.seen.assert_all_in_order(300, 10);
    assert!(world.seen.look().done.values().all(|n| *n == 1), "each event succeeded once");
    assert!(world.dead().await.is_empty());
    let total: u64 = {
        let mut total = 0;
        for p in 0..3 {
            total += world.cut(p).await.and_then(|c| c.offset()?.as_u64()).unwrap_or(0);
        }
        total
    };
    assert_eq!(total, 300, "the cuts lie behind everything");
}

#[tokio::test]
async fn a_restarted_consumer_goes_on_where_it_stopped() {
    let world = World::new(1).await;
    world.publish(0, 20, 2).await;
    let worker = world.worker(|_| Ok(())).await;
    world.seen.until(20).await;
    worker.shutdown().await.unwrap();
    world.publish(20, 20, 2).await;
    let worker = world.worker(|_| Ok(())).await;
    world.seen.until(40).await;
    worker.shutdown().await.unwrap();
    assert!(world.seen.look().calls.values().all(|n| *n == 1));
}

#[derive(Deserialize)]
struct Authorised {
    n: u64,
}

#[tokio::test]
async fn payloads_are_decoded_and_one_that_is_not_what_it_should_be_is_a_dead_letter_with_the_reason() {
    let world = World::new(1).await;
    world.publish_one("a", envelope(TYPE, "good", r#"{"n":41}"#)).await;
    world.publish_one("a", envelope(TYPE, "bad", r#"{"n":"many"}"#)).await;
    world.publish_one("a", envelope("card.transaction.declined", "other", r#"{"n":1}"#)).await;
    let (sum, mut sums) = tokio::sync::mpsc::unbounded_channel();
    let consumer = world
        .builder()
        .on(TYPE, move |event: eb_consumer::Event<Authorised>| {
            let sum = sum.clone();
            async move {
                assert_eq!(
                    (event.event_id(), event.attempt(), event.envelope().event_type()),
                    ("good", 1, TYPE)
                );
                sum.send(event.payload.n).unwrap();
                Ok(())
            }
        })
        .unhandled(Unhandled::Skip)
        .build()
        .unwrap();
    let worker = consumer.start().await.unwrap();
    assert_eq!(sums.recv().await, Some(41));
    world.until_cut(0, 3).await;
    worker.shutdown().await.unwrap();
    let dead = world.dead().await;
    assert_eq!(dead.len(), 1, "the skipped one is none");
    let letter = &dead[0].letter;
    assert_eq!(
        (letter.reason, letter.event_id.as_deref(), letter.attempts),
        (DeadReason::Undecodable, Some("bad"), 1)
    );
    assert!(letter.failures[0].errors[0].contains("invalid type: string"), "{:?}", letter.failures);
}

#[tokio::test]
async fn events_without_a_handler_are_dead_letters_where_that_was_chosen_and_the_choice_has_to_be_made() {
    let world = World::new(1).await;
    world.publish(0, 1, 1).await;
    let build = |builder: eb_consumer::ConsumerBuilder<eb_consumer::OnTheirOwn>| {
        builder.on_raw("some.other.type", |_| async { Ok(()) })
    };
    let Err(BuildError { what, .. }) = build(world.builder()).build() else { panic!("nobody chose") };
    assert!(what.contains("Unhandled::Skip"), "{what}");
    let worker =
        build(world.builder()).unhandled(Unhandled::DeadLetter).build().unwrap().start().await.unwrap();
    world.until_cut(0, 1).await;
    worker.shutdown().await.unwrap();
    assert!(world.dead().await[0].letter.failures[0].errors[0].contains(TYPE));
}

#[tokio::test]
async fn a_permanent_failure_is_a_dead_letter_at_once_and_a_panic_is_tried_again() {
    let world = World::new(1).await;
    world.publish(0, 4, 1).await;
    let worker = world
        .worker(|event| match (number(event), event.attempt()) {
            (1, _) => Err(HandlerError::permanent("no such account")),
            (2, 1) => panic!("out of cheese"),
            (3, 1) => Err(std::io::Error::other("nobody knows").into()),
            _ => Ok(()),
        })
        .await;
    world.until_cut(0, 4).await;
    worker.shutdown().await.unwrap();
    let seen = world.seen.look();
    assert_eq!(seen.calls.values().copied().collect::<Vec<_>>(), [1, 1, 2, 2]);
    let dead = world.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].letter.reason, dead[0].letter.attempts), (DeadReason::Permanent, 1));
    assert_eq!(dead[0].letter.failures[0].errors, ["no such account"]);
}

#[tokio::test]
async fn a_handler_that_panics_for_good_ends_among_the_dead_letters_and_takes_nobody_with_it() {
    let world = World::new(1).await;
    world.publish(0, 10, 2).await;
    let retry = RetryPolicy { max_attempts: Some(3), ..quick_retries() };
    let worker = world
        .start(world.builder().retry(retry), |event| {
            assert!(number(event) != 4, "the fourth one");
            Ok(())
        })
        .await;
    world.until_cut(0, 10).await;
    assert_eq!(worker.health().status, HealthStatus::Ready);
    worker.shutdown().await.unwrap();
    let dead = world.dead().await;
    assert_eq!(
        (dead.len(), dead[0].letter.reason, dead[0].letter.attempts),
        (1, DeadReason::AttemptsExhausted, 3)
    );
    assert!(dead[0].letter.failures[2].errors[0].contains("the handler panicked: the fourth one"));
    assert_eq!(world.seen.look().done.len(), 9);
}

#[tokio::test]
async fn while_the_dead_letter_store_is_down_the_source_is_not_told_and_nothing_is_lost() {
    let world = World::new(1).await;
    let worker = world
        .worker(|event| if number(event) == 0 { Err(HandlerError::permanent("no")) } else { Ok(()) })
        .await;
    until("the partition", || async {
        worker.partitions().first().is_some_and(|p| p.phase == Phase::Running)
    })
    .await;
    world.letters.outage(outage());
    world.publish(0, 6, 2).await;
    // Key 1 goes on; key 0 waits for its letter.
    world.seen.until(3).await;
    until("the trouble", || async { worker.health().status == HealthStatus::Degraded }).await;
    let status = worker.partitions().remove(0);
    assert_eq!((status.dying, status.in_flight), (1, 3));
    assert!(
        world.cut(0).await.is_none_or(|cut| cut == Cut::Begin || cut.offset().unwrap().as_u64() == Some(0))
    );
    world.letters.recover();
    world.until_cut(0, 6).await;
    until("health", || async { worker.health().status == HealthStatus::Ready }).await;
    worker.shutdown().await.unwrap();
    assert_eq!(world.dead().await.len(), 1);
    assert_eq!(world.seen.look().done.len(), 5);
}

#[tokio::test]
async fn a_stuck_key_stops_its_partition_only_when_the_room_is_full() {
    let world = World::new(1).await;
    world.publish(0, 100, 10).await;
    let stuck = Arc::new(AtomicU32::new(1));
    let limits = Limits { partition_records: 40, read_records: 8, ..Limits::default() };
    let held = Arc::clone(&stuck);
    let worker = world
        .start(world.builder().limits(limits), move |event| {
            if number(event) == 0 && held.load(std::sync::atomic::Ordering::SeqCst) == 1 {
                Err(transient())
            } else {
                Ok(())
            }
        })
        .await;
    // The first 40 but those of key 0.
    world.seen.until(36).await;
    until("the marks", || async { worker.partitions()[0].unrecorded == 0 }).await;
    let status = worker.partitions().remove(0);
    assert_eq!((status.in_flight, status.retrying), (4, 1), "no more is read than there is room for");
    assert_eq!(world.seen.look().done.len(), 36);
    stuck.store(0, std::sync::atomic::Ordering::SeqCst);
    world.until_cut(0, 100).await;
    worker.shutdown().await.unwrap();
    world.seen.assert_all_in_order(100, 10);
    assert!(world.seen.look().done.values().all(|n| *n == 1));
}

#[tokio::test]
async fn a_halted_partition_says_so_and_the_others_go_on() {
    let world = World::new(4).await;
    world.publish(0, 80, 16).await;
    let retry = RetryPolicy { max_attempts: Some(2), after_max: AfterMax::Halt, ..quick_retries() };
    let worker = world
        .start(
            world.builder().retry(retry),
            |event| if number(event) == 5 { Err(transient()) } else { Ok(()) },
        )
        .await;
    until("the halt", || async { worker.health().status == HealthStatus::Failing }).await;
    let halted: Vec<_> = worker.partitions().into_iter().filter(|p| p.phase == Phase::Halted).collect();
    assert_eq!(halted.len(), 1);
    assert!(
        halted[0].problem.as_ref().unwrap().contains("failed 2 times: not now"),
        "{:?}",
        halted[0].problem
    );
    let others = world.bus.reader();
    for p in 0..4 {
        if eb_contract::PartitionId(p) != halted[0].partition_id {
            let head = eb_contract::EventBusReader::head(&others, &topic(), eb_contract::PartitionId(p))
                .await
                .unwrap();
            if let Some(last) = head.last {
                world.until_cut(p, last.as_u64().unwrap() + 1).await;
            }
        }
    }
    worker.shutdown().await.unwrap();
    assert!(!world.seen.look().done.contains_key("e5"));
}

#[tokio::test]
async fn a_parked_key_puts_its_events_behind_the_letter_also_after_a_restart() {
    let world = World::new(1).await;
    world.publish(0, 6, 2).await;
    let retry =
        RetryPolicy { max_attempts: Some(1), after_max: AfterMax::DeadLetterAndPark, ..quick_retries() };
    let answer = |event: &RawEvent| if number(event) == 0 { Err(transient()) } else { Ok(()) };
    let worker = world.start(world.builder().retry(retry), answer).await;
    world.until_cut(0, 6).await;
    worker.shutdown().await.unwrap();
    world.publish(6, 2, 2).await;
    let worker = world.start(world.builder().retry(retry), answer).await;
    world.until_cut(0, 8).await;
    worker.shutdown().await.unwrap();
    let dead = world.dead().await;
    let ids: Vec<_> = dead.iter().map(|d| (d.letter.event_id.as_deref().unwrap(), d.letter.reason)).collect();
    let parked = DeadReason::KeyParked;
    assert_eq!(ids, [("e0", DeadReason::AttemptsExhausted), ("e2", parked), ("e4", parked), ("e6", parked)]);
    assert_eq!(world.seen.look().done.len(), 4, "key 1 went on");
}

#[tokio::test]
async fn a_consumer_without_its_bus_does_not_start_and_says_why_and_a_degraded_one_runs_on_its_substitute() {
    let world = World::new(1).await;
    let broken = World::new(1).await;
    broken.bus.faults().outage(outage());
    let builder =
        |b: eb_consumer::ConsumerBuilder<eb_consumer::OnTheirOwn>| b.otherwise(|_| async { Ok(()) });
    let required = builder(broken.builder()).build().unwrap().start().await;
    let Err(error @ ConsumerError::CannotStart { .. }) = required else { panic!("it started") };
    assert_eq!(
        error.to_string(),
        "consumer `ledger` cannot start: its bus cannot be used, and it is required: test: away for a while"
    );
    let worker = builder(broken.builder())
        .degraded(world.source(), world.stores())
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let health = worker.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.checks[0].detail.contains("substitute"), "{health:?}");
    world.publish(0, 3, 1).await;
    world.until_cut(0, 3).await;
    worker.shutdown().await.unwrap();
    let Err(BuildError { what, .. }) =
        EventConsumer::builder("x").topic(topic()).otherwise(|_| async { Ok(()) }).build()
    else {
        panic!("it has no source")
    };
    assert!(what.contains("no source"), "{what}");
}

#[tokio::test]
async fn shutting_down_lets_handlers_finish_within_the_grace_and_leaves_the_rest_to_the_next() {
    let world = World::new(1).await;
    world.publish(0, 4, 4).await;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let pass = Arc::clone(&gate);
    let limits = Limits { concurrency: 2, ..Limits::default() };
    let consumer = world.builder().limits(limits).otherwise(move |_| {
        let (begun, pass) = (begun.clone(), Arc::clone(&pass));
        async move {
            begun.send(()).unwrap();
            pass.acquire().await.unwrap().forget();
            Ok(())
        }
    });
    let worker = consumer.build().unwrap().start().await.unwrap();
    begins.recv().await.unwrap();
    begins.recv().await.unwrap();
    worker.stop();
    until("the end of reading", || async { worker.partitions()[0].phase == Phase::Draining }).await;
    gate.add_permits(2);
    worker.shutdown().await.unwrap();
    assert!(begins.try_recv().is_err(), "nothing new was begun");
    world.until_cut(0, 2).await;
    let worker = world.worker(|_| Ok(())).await;
    world.seen.until(2).await;
    worker.shutdown().await.unwrap();
    assert_eq!(world.seen.look().calls.keys().cloned().collect::<Vec<_>>(), ["e2", "e3"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_end_is_dropped_when_the_grace_is_over() {
    let world = World::new(1).await;
    world.publish(0, 1, 1).await;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let consumer = world.builder().otherwise(move |_| {
        let begun = begun.clone();
        async move {
            begun.send(()).unwrap();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        }
    });
    let worker = consumer.build().unwrap().start().await.unwrap();
    begins.recv().await.unwrap();
    worker.shutdown().await.unwrap();
    assert!(
        world.cut(0).await.is_none_or(|cut| cut == Cut::Begin || cut.offset().unwrap().as_u64() == Some(0))
    );
}

#[tokio::test]
async fn a_handler_that_never_returns_is_dropped_at_its_limit_and_tried_again_while_other_keys_go_on() {
    let world = World::new(1).await;
    world.publish(0, 20, 4).await;
    let (seen, calls) = (Arc::clone(&world.seen), Arc::new(AtomicU32::new(0)));
    let limits = Limits { handler_time: Some(Duration::from_millis(30)), ..Limits::default() };
    let retry = RetryPolicy { max_attempts: Some(3), after_max: AfterMax::DeadLetter, ..quick_retries() };
    let consumer = world.builder().limits(limits).retry(retry).otherwise(move |event| {
        let (seen, calls) = (Arc::clone(&seen), Arc::clone(&calls));
        async move {
            // The first returns at its second attempt, another never.
            if number(&event) == 0 && tick(&calls) < 2 || number(&event) == 5 {
                std::future::pending::<()>().await;
            }
            seen.done(&event);
            Ok(())
        }
    });
    let worker = consumer.build().unwrap().start().await.unwrap();
    world.until_cut(0, 20).await;
    worker.shutdown().await.unwrap();
    let dead = world.dead().await;
    assert_eq!((dead.len(), dead[0].letter.attempts), (1, 3));
    assert_eq!(dead[0].letter.failures[0].errors, ["the handler ran longer than 30ms and was dropped"]);
    assert_eq!(world.seen.look().done.len(), 19);
}

#[tokio::test(start_paused = true)]
async fn of_a_handler_that_does_not_return_the_health_tells() {
    let world = World::new(1).await;
    let worker =
        world.builder().otherwise(|_| std::future::pending()).build().unwrap().start().await.unwrap();
    world.publish(0, 1, 1).await;
    until("the handler", || async { worker.partitions().iter().any(|p| p.in_flight == 1) }).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    let told = || worker.health().checks.iter().any(|c| c.detail.contains("a handler has been running for"));
    assert!(!told(), "{:?}", worker.health());
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(told(), "{:?}", worker.health());
}
