//! Workers that die under a record, again and again: a worker that is dropped is one that was killed.

use std::sync::Arc;
use std::time::Duration;

use eb_consumer::{
    AfterMax, BuildError, CommitPolicy, ConsumerBuilder, HandlerResult, Limits, OnTheirOwn, RawEvent,
    RetryPolicy, RunningConsumer,
};
use eb_contract::stores::DeadReason;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::support::{World, number, outage, quick_retries, transient, until};

/// How often a worker may end under the deadly event in all, with the usual limit of 3: twice that, and once for each time the stored cut could move
/// meanwhile.
const MOST: u32 = 12;

fn impatient(builder: ConsumerBuilder<OnTheirOwn>) -> ConsumerBuilder<OnTheirOwn> {
    let ms = Duration::from_millis;
    builder.leases(eb_consumer::LeasePolicy {
        time_to_live: ms(150),
        heartbeat: ms(30),
        rebalance: ms(20),
        retry_failed: ms(30),
        ..eb_consumer::LeasePolicy::default()
    })
}

/// A worker whose process ends where `kills` says so: then it tells, and the call never comes back.
async fn mortal<F>(
    world: &World,
    builder: ConsumerBuilder<OnTheirOwn>,
    kills: F,
) -> (RunningConsumer, mpsc::UnboundedReceiver<u64>)
where
    F: Fn(&RawEvent) -> bool + Send + Sync + 'static,
{
    let (tell, told) = mpsc::unbounded_channel();
    let seen = Arc::clone(&world.seen);
    let kills = Arc::new(kills);
    let handler = move |event: RawEvent| {
        let (tell, seen, kills) = (tell.clone(), Arc::clone(&seen), Arc::clone(&kills));
        async move {
            seen.begun(&event);
            if kills(&event) {
                // Nobody listens any more where others have ended it already.
                _ = tell.send(number(&event));
                std::future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
            seen.done(&event);
            Ok(())
        }
    };
    (impatient(builder).otherwise(handler).build().unwrap().start().await.unwrap(), told)
}

/// Until the handler was called.
async fn called(told: &mut mpsc::UnboundedReceiver<()>) {
    let call = tokio::time::timeout(Duration::from_secs(30), told.recv());
    call.await.expect("the handler is called").expect("the worker lives");
}

/// Starts workers until one outlives its events, and says how many died.
async fn live_and_die<F>(
    world: &World,
    builder: impl Fn() -> ConsumerBuilder<OnTheirOwn>,
    events: u64,
    kills: F,
) -> u32
where
    F: Fn(&RawEvent) -> bool + Send + Sync + Copy + 'static,
{
    let mut deaths = 0;
    loop {
        let (worker, mut told) = mortal(world, builder(), kills).await;
        tokio::select! {
            Some(_) = told.recv() => {
                deaths += 1;
                assert!(deaths <= 50, "it dies for ever");
                drop(worker);
            }
            () = world.until_cut(0, events) => {
                worker.shutdown().await.unwrap();
                return deaths;
            }
        }
    }
}

#[tokio::test]
async fn an_event_that_ends_its_process_again_and_again_is_given_up_and_all_others_are_handled() {
    let world = World::new(1).await;
    world.publish(0, 60, 7).await;
    let deaths = live_and_die(&world, || world.builder(), 60, |event| number(event) == 23).await;
    assert!((3..=MOST).contains(&deaths), "{deaths} died");
    let dead = world.dead().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    let letter = &dead[0].letter;
    assert_eq!((letter.event_id.as_deref(), letter.reason), (Some("e23"), DeadReason::AttemptsExhausted));
    assert_eq!(letter.attempts, 3);
    assert!(letter.failures[0].errors[0].contains("process ended"), "{:?}", letter.failures);
    let seen = world.seen.look();
    assert_eq!((seen.done.len(), seen.calls["e23"]), (59, deaths));
    // And on as usual: nothing is left of it.
    world.publish(60, 60, 7).await;
    assert_eq!(live_and_die(&world, || world.builder(), 120, |_| false).await, 0);
    world.seen.until(119).await;
}

#[tokio::test]
async fn several_deadly_events_are_told_apart_from_those_beside_them() {
    let world = World::new(1).await;
    world.publish(0, 40, 40).await;
    let retry = RetryPolicy { max_crashes: Some(1), ..quick_retries() };
    let deadly = |event: &RawEvent| [4, 5, 31].contains(&number(event));
    let deaths = live_and_die(&world, || world.builder().retry(retry), 40, deadly).await;
    let dead: Vec<_> = world.dead().await.into_iter().map(|l| l.letter.event_id.unwrap()).collect();
    assert_eq!(dead, ["e4", "e5", "e31"]);
    assert!(deaths <= 6, "{deaths} died");
    assert_eq!(world.seen.look().done.len(), 37);
}

#[tokio::test]
async fn a_deadly_event_parks_its_key_or_halts_its_partition_where_used_up_attempts_do() {
    let world = World::new(1).await;
    world.publish(0, 6, 2).await;
    let retry =
        RetryPolicy { max_crashes: Some(1), after_max: AfterMax::DeadLetterAndPark, ..quick_retries() };
    live_and_die(&world, || world.builder().retry(retry), 6, |event| number(event) == 2).await;
    let dead: Vec<_> =
        world.dead().await.into_iter().map(|l| (l.letter.event_id.unwrap(), l.letter.reason)).collect();
    let expected =
        [("e2".to_owned(), DeadReason::AttemptsExhausted), ("e4".to_owned(), DeadReason::KeyParked)];
    assert_eq!(dead, expected);

    let world = World::new(1).await;
    world.publish(0, 6, 2).await;
    let retry = RetryPolicy { after_max: AfterMax::Halt, ..retry };
    for _ in 0..2 {
        let (worker, mut told) =
            mortal(&world, world.builder().retry(retry), |event| number(event) == 2).await;
        told.recv().await.unwrap();
        drop(worker);
    }
    let (worker, _told) = mortal(&world, world.builder().retry(retry), |event| number(event) == 2).await;
    until("the halt", || async {
        worker
            .partitions()
            .first()
            .and_then(|p| p.problem.clone())
            .is_some_and(|why| why.contains("process ended"))
    })
    .await;
    worker.shutdown().await.unwrap();
    // Somebody has seen to it, and starts it again.
    assert_eq!(live_and_die(&world, || world.builder().retry(retry), 6, |_| false).await, 0);
    assert!(world.dead().await.is_empty() && world.seen.look().done.len() == 6);
}

#[tokio::test]
async fn workers_that_are_killed_at_random_give_no_event_up() {
    let world = World::new(1).await;
    let mut rng = fastrand::Rng::new();
    let (mut published, mut workers) = (0, 0);
    while published < 300 {
        world.publish(published, 20, 5).await;
        published += 20;
        let small =
            CommitPolicy { records: 3, interval: Duration::from_millis(5), ..CommitPolicy::default() };
        let limits = Limits { partition_records: 30, read_records: 7, ..Limits::default() };
        let builder = world.builder().commit(small).limits(limits);
        let (worker, _told) = mortal(&world, builder, |_| false).await;
        let calls: u32 = world.seen.look().calls.values().sum();
        let more = rng.u32(1..25);
        // It may have come to the head before.
        _ = tokio::time::timeout(
            Duration::from_millis(300),
            until("calls", || async { world.seen.look().calls.values().sum::<u32>() >= calls + more }),
        )
        .await;
        drop(worker);
        workers += 1;
    }
    assert_eq!(live_and_die(&world, || world.builder(), 300, |_| false).await, 0, "after {workers} workers");
    world.seen.assert_all_in_order(300, 5);
    assert!(world.dead().await.is_empty());
}

#[tokio::test]
async fn an_event_that_fails_and_is_tried_again_is_not_taken_for_the_deadly_one_beside_it() {
    let world = World::new(1).await;
    world.publish(0, 12, 3).await;
    let stuck = Arc::new(Mutex::new(true));
    let mut deaths = 0;
    while world.dead().await.is_empty() {
        let (tell, mut told) = mpsc::unbounded_channel::<()>();
        let flag = Arc::clone(&stuck);
        let handler = move |event: RawEvent| {
            let (tell, flag) = (tell.clone(), Arc::clone(&flag));
            async move {
                match number(&event) {
                    0 if *flag.lock() => Err(transient()),
                    7 => {
                        _ = tell.send(());
                        std::future::pending::<HandlerResult>().await
                    }
                    _ => Ok(()),
                }
            }
        };
        let worker = impatient(world.builder()).otherwise(handler).build().unwrap().start().await.unwrap();
        tokio::select! {
            Some(()) = told.recv() => {
                deaths += 1;
                drop(worker);
            }
            () = until("a letter", || async { !world.dead().await.is_empty() }) => worker.shutdown().await.unwrap(),
        }
        assert!(deaths <= MOST, "it dies for ever");
    }
    *stuck.lock() = false;
    live_and_die(&world, || world.builder(), 12, |_| false).await;
    let dead: Vec<_> = world.dead().await.into_iter().map(|l| l.letter.event_id.unwrap()).collect();
    assert_eq!(dead, ["e7"]);
}

#[tokio::test]
async fn restarts_that_finish_what_runs_count_for_nothing_and_neither_does_a_lease_that_the_living_lost() {
    let world = World::new(1).await;
    world.publish(0, 1, 1).await;
    let retry = RetryPolicy { max_crashes: Some(1), ..quick_retries() };
    let leases = |ms| eb_consumer::LeasePolicy {
        time_to_live: Duration::from_millis(300),
        heartbeat: Duration::from_millis(50),
        rebalance: Duration::from_millis(20),
        grace: Duration::from_millis(ms),
        ..eb_consumer::LeasePolicy::default()
    };
    for round in 0..4 {
        let (tell, mut told) = mpsc::unbounded_channel::<()>();
        let handler = move |_: RawEvent| {
            let tell = tell.clone();
            async move {
                _ = tell.send(());
                std::future::pending::<HandlerResult>().await
            }
        };
        let builder = world.builder().retry(retry).leases(leases(1)).otherwise(handler);
        let worker = builder.build().unwrap().start().await.unwrap();
        called(&mut told).await;
        if round % 2 == 0 {
            world.leases.outage(outage());
            until("the end of the lease", || async { worker.partitions().is_empty() }).await;
            world.leases.recover();
            called(&mut told).await;
        }
        worker.shutdown().await.unwrap();
    }
    assert_eq!(live_and_die(&world, || world.builder().retry(retry), 1, |_| false).await, 0);
    assert!(world.dead().await.is_empty());
}

#[tokio::test]
async fn nothing_is_called_under_care_that_could_not_be_noted_before() {
    let world = World::new(1).await;
    world.publish(0, 3, 1).await;
    let retry = RetryPolicy { max_crashes: Some(1), ..quick_retries() };
    let (worker, mut told) = mortal(&world, world.builder().retry(retry), |_| true).await;
    told.recv().await.unwrap();
    drop(worker);
    // The next one works with care, and the registers go away under it.
    let (registers, flag) = (world.registers.clone(), Mutex::new(false));
    let worker = impatient(world.builder().retry(retry));
    let worker = world
        .start(worker, move |_| {
            if !std::mem::replace(&mut *flag.lock(), true) {
                registers.outage(Some(outage()));
            }
            Ok(())
        })
        .await;
    until("the trouble", || async {
        worker.health().checks.iter().any(|c| c.detail.contains("noting crashes"))
    })
    .await;
    assert_eq!(world.seen.look().done.into_keys().collect::<Vec<_>>(), ["e0"]);
    world.registers.outage(None);
    world.until_cut(0, 3).await;
    worker.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_a_limit_nothing_is_noted_and_a_limit_of_none_at_all_is_refused() {
    let world = World::new(1).await;
    world.publish(0, 2, 1).await;
    let never = RetryPolicy { max_crashes: None, ..quick_retries() };
    let worker = world.start(world.builder().retry(never), |_| Ok(())).await;
    world.until_cut(0, 2).await;
    worker.shutdown().await.unwrap();
    let zero = RetryPolicy { max_crashes: Some(0), ..quick_retries() };
    let wrong = world.builder().retry(zero).otherwise(|_| async { Ok(()) }).build();
    let Err(BuildError { what, .. }) = wrong else { panic!("no crashes at all") };
    assert!(what.contains("at least 1"), "{what}");
}
