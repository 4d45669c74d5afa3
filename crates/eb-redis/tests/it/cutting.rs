//! Connections that break anywhere: what is said to have had no effect is not in the log, and nothing overtakes.

use std::time::Duration;

use eb_contract::{Effect, ErrorKind, EventBusPublisher, EventBusReader, PartitionId};
use eb_redis::{PublishConfig, RedisConfig, Timeouts};

use crate::common::{expect_acked, expect_order, number, patient, read_all, record};
use crate::proxy::{Held, Plan, behind, behind_as};

#[tokio::test]
async fn a_connection_cut_anywhere_in_a_group_loses_no_ack_and_breaks_no_order() {
    let (proxy, bus, direct, topic) = behind(patient()).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    // A request of three records has some 450 bytes, its answer some 230: each boundary of the protocol and what lies
    // between, densely at the ends.
    let near = (0..24).chain((24..420).step_by(17)).chain(420..520);
    let plans = near.clone().map(Plan::CutRequest).chain((0..240).step_by(5).map(Plan::CutAnswer));
    let (mut acked, mut refused, mut unknown) = (Vec::new(), Vec::new(), 0);
    let mut n = 1;
    for plan in plans {
        proxy.plan(plan);
        let batch = [record("k", n), record("j", n), record("k", n + 1)];
        let answers = publisher.publish_batch(&topic, batch.to_vec()).await;
        n += 2;
        for (answer, record) in answers.into_iter().zip(batch) {
            match answer {
                Ok(at) => acked.push((at, record)),
                Err(e) if e.effect() == Effect::Unknown => {
                    assert_eq!(*e.kind(), ErrorKind::Unavailable, "{plan:?}: {e}");
                    unknown += 1;
                }
                Err(_) => refused.push(record),
            }
        }
        // What comes next works again, over a new connection.
        proxy.plan(Plan::Pass);
        let after = record("k", n);
        acked.push((publisher.publish(&topic, after.clone()).await.unwrap(), after));
        n += 1;
    }
    let log = read_all(&direct.reader(), &topic, 0).await;
    expect_acked(&log, &acked);
    expect_order(&log);
    for record in refused {
        assert!(log.iter().all(|r| r.envelope != record.envelope), "said not to be there: {record:?}");
    }
    assert!(unknown > 150, "most cuts leave the outcome unknown: {unknown}");
    // A group is there whole or not at all.
    let there: std::collections::HashSet<_> =
        log.iter().map(|r| (r.partition_key.as_str().to_owned(), number(&r.envelope))).collect();
    for (key, m) in &there {
        if key == "j" {
            assert!(there.contains(&("k".to_owned(), *m)) && there.contains(&("k".to_owned(), m + 1)), "{m}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_broke_while_it_was_idle_costs_nothing() {
    let (proxy, bus, direct, topic) = behind(patient()).await;
    let (publisher, other) = (bus.publisher(), direct.reader());
    for n in 0..10 {
        publisher.publish(&topic, record("k", n)).await.unwrap();
        proxy.cut_all().await;
        // What came before the answers to these calls, the end of a connection among it, has been seen by its task.
        for _ in 0..2 {
            other.head(&topic, PartitionId(0)).await.unwrap();
        }
    }
    assert_eq!(read_all(&other, &topic, 0).await.len(), 10);
}

#[tokio::test]
async fn an_append_that_was_lost_on_the_way_never_lands_behind_a_later_one() {
    // Answers that do come are not late, and the one that does not is waited for.
    let timeouts = Timeouts { answer: Duration::from_secs(4), ..patient() };
    let (proxy, bus, direct, topic) = behind(timeouts).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    proxy.plan(Plan::Hold);
    let lost = publisher.publish(&topic, record("k", 1));
    proxy.until(Held::Kept).await;
    // These two wait in line while the first is on its way.
    let (same, other) =
        (publisher.publish(&topic, record("k", 2)), publisher.publish(&topic, record("j", 3)));
    let e = lost.await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Timeout, Effect::Unknown), "{e}");
    let e = same.await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::NotAttempted, Effect::None), "{e}");
    other.await.unwrap();
    publisher.publish(&topic, record("k", 4)).await.unwrap();
    // Only now do its bytes arrive.
    proxy.held.send_replace(Held::Released);
    proxy.until(Held::Gone).await;
    publisher.publish(&topic, record("k", 5)).await.unwrap();
    let log = read_all(&direct.reader(), &topic, 0).await;
    let numbers: Vec<_> = log.iter().map(|r| number(&r.envelope)).collect();
    assert_eq!(numbers, [0, 3, 4, 5], "the lost append was ended before anything else was sent");
}

#[tokio::test]
async fn a_server_that_hangs_costs_all_partitions_together_the_patience_of_one() {
    const PARTITIONS: usize = 16;
    let publish = PublishConfig { give_up_after: Duration::ZERO, ..PublishConfig::default() };
    let timeouts = Timeouts { connect: Duration::from_secs(2), ..patient() };
    let (proxy, bus, _direct, topic) =
        behind_as(PARTITIONS as u32, |config| RedisConfig { publish, timeouts, ..config }).await;
    let publisher = bus.publisher();
    let all = || {
        let calls = (0..200).map(|n| publisher.publish(&topic, record(&format!("key-{n}"), n)));
        futures_of(calls.collect())
    };
    let partitions: std::collections::HashSet<_> =
        all().await.into_iter().map(|answer| answer.unwrap().partition_id).collect();
    assert_eq!(partitions.len(), PARTITIONS);
    proxy.plan(Plan::Deaf);
    proxy.cut_all().await;
    let before = proxy.taken();
    for answer in all().await {
        let e = answer.unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{e}");
        assert_eq!((e.effect(), e.operation()), (Effect::None, "publish"), "{e}");
    }
    let tried = proxy.taken() - before;
    assert!(tried <= 3, "{tried} attempts, one after the other");
    proxy.plan(Plan::Pass);
    for answer in all().await {
        answer.unwrap();
    }
}

/// Waits for all of them.
async fn futures_of<T: Send + 'static>(calls: Vec<eb_contract::BoxFuture<'static, T>>) -> Vec<T> {
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    answers
}
