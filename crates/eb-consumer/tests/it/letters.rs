//! Dead letters, tried again.

use eb_consumer::{AfterMax, EventConsumer, Retried, RetryPolicy};
use eb_contract::ErrorKind;
use eb_contract::stores::{DeadLetterFilter, DeadLetterId, DeadLetterStore, Resolution};

use crate::support::{World, number, quick_retries, transient};

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
