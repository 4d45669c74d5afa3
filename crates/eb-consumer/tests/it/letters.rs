//! Dead letters, tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use eb_consumer::{AfterMax, CommitPolicy, EventConsumer, HandlerError, RawEvent, Retried, RetryPolicy};
use eb_contract::ErrorKind;
use eb_contract::stores::{DeadLetterFilter, DeadLetterId, DeadLetterStore, Resolution};

use crate::support::{World, number, outage, quick_retries, transient, until};

async fn broken_world() -> World {
    let world = World::new(1).await;
    world.publish(0, 6, 2).await;
    let retry =
        RetryPolicy { max_attempts: Some(1), after_max: AfterMax::DeadLetterAndPark, ..quick_retries() };
    let worker = world
        .start(
            world.builder().retry(retry),
            |event| if number(event) == 0 { Err(transient()) } else { Ok(()) },
        )
        .await;
    world.until_cut(0, 6).await;
    worker.shutdown().await.unwrap();
    world
}

fn mended(world: &World, fails: u64) -> EventConsumer {
    let seen = std::sync::Arc::clone(&world.seen);
    let handler = move |event: eb_consumer::RawEvent| {
        let seen = std::sync::Arc::clone(&seen);
        async move {
            if number(&event) == fails {
                return Err(transient());
            }
            seen.done(&event);
            Ok(())
        }
    };
    world.builder().otherwise(handler).build().unwrap()
}

async fn retry_all(consumer: &EventConsumer) -> Vec<(u64, Retried)> {
    let mut told = Vec::new();
    let filter = DeadLetterFilter::default();
    consumer.retry_dead_letters(&filter, "mended", |l, r| told.push((l.id.0, r.clone()))).await.unwrap();
    told
}

#[tokio::test]
async fn a_parked_key_is_tried_again_in_its_order_and_goes_on_afterwards() {
    let world = broken_world().await;
    let told = retry_all(&mended(&world, 2)).await;
    let first = told[0].0;
    assert_eq!(told[0].1, Retried::Handled);
    assert!(matches!(&told[1].1, Retried::Failed(errors) if errors == &["not now"]), "{told:?}");
    assert_eq!(told[2].1, Retried::Behind(DeadLetterId(first + 1)), "what lies behind it waits");
    let told = retry_all(&mended(&world, 99)).await;
    assert!(told.len() == 2 && told.iter().all(|(_, r)| *r == Retried::Handled), "{told:?}");
    assert_eq!(world.letters.count_open(None).await.unwrap(), 0);
    world.publish(6, 2, 2).await;
    let worker = world.worker(|_| Ok(())).await;
    world.seen.until(8).await;
    worker.shutdown().await.unwrap();
    assert!(world.seen.look().done.values().all(|n| *n == 1));
}

#[tokio::test]
async fn one_letter_is_tried_by_its_name_and_a_resolved_one_not_again() {
    let world = broken_world().await;
    let consumer = mended(&world, 99);
    let letters = world.dead().await;
    let (_, retried) = consumer.retry_dead_letter(letters[1].id, "by hand").await.unwrap();
    assert_eq!(retried, Retried::Behind(letters[0].id));
    world.letters.resolve(letters[0].id, Resolution::Dropped, "nobody wants it").await.unwrap();
    let (_, retried) = consumer.retry_dead_letter(letters[1].id, "by hand").await.unwrap();
    assert_eq!(retried, Retried::Handled);
    let again = consumer.retry_dead_letter(letters[1].id, "by hand").await.unwrap_err();
    assert_eq!(*again.kind(), ErrorKind::AlreadyExists);
    let none = consumer.retry_dead_letter(DeadLetterId(u64::MAX >> 1), "by hand").await.unwrap_err();
    assert_eq!(*none.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_letter_whose_record_is_handled_after_all_by_the_next_holder_is_resolved_by_it() {
    let world = World::new(1).await;
    world.publish(0, 6, 2).await;
    // It puts letters, and no marks: what a worker leaves that dies, or loses its lease, between the two.
    let never = CommitPolicy { interval: Duration::from_secs(3600), ..CommitPolicy::default() };
    let fails = |event: &RawEvent| match number(event) {
        1 | 2 => Err(HandlerError::permanent("no such account")),
        _ => Ok(()),
    };
    let worker = world.start(world.builder().commit(never), fails).await;
    until("letters", || async { world.letters.count_open(None).await.unwrap() == 2 }).await;
    drop(worker);
    let worker = world
        .worker(|event| if number(event) == 2 { Err(HandlerError::permanent("still")) } else { Ok(()) })
        .await;
    world.until_cut(0, 6).await;
    worker.shutdown().await.unwrap();
    let all = DeadLetterFilter { resolved_too: true, ..DeadLetterFilter::default() };
    let letters = world.letters.list(&all, 10).await.unwrap();
    let ends: BTreeMap<_, _> = letters
        .iter()
        .map(|l| (l.letter.event_id.clone().unwrap(), l.resolved.as_ref().map(|r| r.how)))
        .collect();
    let expected = [("e1".to_owned(), Some(Resolution::Handled)), ("e2".to_owned(), None)];
    assert_eq!(
        (letters.len(), ends),
        (2, BTreeMap::from(expected)),
        "one letter of each, open where it failed again"
    );
}

#[tokio::test]
async fn no_letter_is_begun_that_could_come_after_the_next_holder_has_looked() {
    let world = World::new(1).await;
    world.publish(0, 1, 1).await;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let builder = world.builder().otherwise(move |event: RawEvent| {
        let begun = begun.clone();
        async move {
            begun.send(()).unwrap();
            let ends = event.hold().expect("a lease").ends();
            let last = ends.checked_sub(Duration::from_millis(60)).unwrap();
            tokio::time::sleep_until(last.into()).await;
            Err(HandlerError::permanent("too late"))
        }
    });
    let worker = builder.build().unwrap().start().await.unwrap();
    begins.recv().await.unwrap();
    world.leases.outage(outage());
    until("the end of the lease", || async { worker.partitions().is_empty() }).await;
    assert!(world.dead().await.is_empty(), "the next holder may have begun with its record");
}
