//! Order per key, fixed at the call.

use std::collections::BTreeMap;

use eb_contract::{EventBusPublisher, PartitionKey, Record};
use futures_util::future::join_all;

use crate::bus::{Acked, BusCase};
use crate::events::{number, record};
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome};

/// The numbers of a log's records, per key, in order.
pub(crate) fn numbers_by_key<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> Outcome<BTreeMap<PartitionKey, Vec<usize>>> {
    let mut all: BTreeMap<PartitionKey, Vec<usize>> = BTreeMap::new();
    for r in records {
        let n = number(&r.envelope).ok_or_else(|| Failure::new(format!("no number at {}", r.eb_ref)))?;
        all.entry(r.partition_key.clone()).or_default().push(n);
    }
    Ok(all)
}

pub(crate) fn rises<T: PartialOrd>(list: &[T]) -> bool {
    list.windows(2).all(|w| w[0] < w[1])
}

pub(crate) async fn order_is_fixed_when_publish_is_called(case: &mut BusCase) -> Outcome {
    let topic = case.topic("call-order").await?;
    let publisher = case.publisher();
    let mut calls: Vec<_> = (0..24).map(|n| Some(publisher.publish(&topic, record("k", n)))).collect();
    // Some are never polled; the others in the reverse order of the calls.
    for n in [3, 4, 11, 23] {
        calls[n] = None;
    }
    let mut acked = Vec::new();
    for (n, call) in calls.into_iter().enumerate().rev() {
        if let Some(call) = call {
            acked.push(Acked { at: call.await?, record: record("k", n) });
        }
    }
    acked.reverse();
    ensure!(
        rises(&acked.iter().map(Acked::offset).collect::<Vec<_>>()),
        "offsets do not follow the order of the calls"
    );
    let read = case.read_topic(&topic, &acked).await?;
    let numbers = numbers_by_key(read.values().flatten())?;
    for of_key in numbers.values() {
        ensure!(rises(of_key), "the log has the calls in the order {of_key:?}");
        let missing = acked.iter().find(|a| number(&a.record.envelope).is_none_or(|n| !of_key.contains(&n)));
        ensure!(missing.is_none(), "ACKed and not there: {:?}", missing.map(|a| &a.at));
    }
    Ok(())
}

pub(crate) async fn batches_and_single_records_share_one_order(case: &mut BusCase) -> Outcome {
    let topic = case.topic("mixed-order").await?;
    let publisher = case.publisher();
    let (mut singles, mut batches, mut n) = (Vec::new(), Vec::new(), 0);
    for round in 0..8 {
        singles.push((n, publisher.publish(&topic, record("k", n))));
        let size = 1 + round % 4;
        let batch = (n + 1..=n + size).flat_map(|i| [record("k", i), record("other", i)]).collect();
        batches.push(publisher.publish_batch(&topic, batch));
        n += size + 1;
    }
    let mut acked = Vec::new();
    for answers in join_all(batches).await {
        for answer in answers {
            answer?;
        }
    }
    for (n, single) in singles.into_iter().rev() {
        acked.push(Acked { at: single.await?, record: record("k", n) });
    }
    let read = case.read_topic(&topic, &acked).await?;
    let numbers = numbers_by_key(read.values().flatten())?;
    let of_k = numbers.get(&crate::events::key("k")).cloned().unwrap_or_default();
    ensure_eq!(of_k, (0..n).collect::<Vec<_>>(), "the records of the key as they lie in the log");
    ensure!(numbers.values().all(|list| rises(list)), "the order of the other key");
    Ok(())
}

pub(crate) async fn a_later_publish_never_needs_an_earlier_one_to_be_polled(case: &mut BusCase) -> Outcome {
    let topic = case.topic("unpolled").await?;
    let publisher = case.publisher();
    let first = publisher.publish(&topic, record("k", 0));
    let other = publisher.publish(&topic, record("other", 1));
    let batch = publisher.publish_batch(&topic, vec![record("k", 2), record("k", 3)]);
    let last = Acked { at: publisher.publish(&topic, record("k", 4)).await?, record: record("k", 4) };
    let mut acked = vec![last];
    for (n, answer) in batch.await.into_iter().enumerate() {
        acked.push(Acked { at: answer?, record: record("k", n + 2) });
    }
    acked.push(Acked { at: other.await?, record: record("other", 1) });
    acked.push(Acked { at: first.await?, record: record("k", 0) });
    case.expect_topic(&topic, &acked).await
}

/// Publishes numbered records of a key of its own, a few in flight at a time.
async fn publish_in_flight(
    publisher: &dyn EventBusPublisher,
    topic: &eb_contract::Topic,
    key: &str,
    count: usize,
) -> Outcome<Vec<Acked>> {
    let mut acked = Vec::with_capacity(count);
    for start in (0..count).step_by(5) {
        let numbers = start..count.min(start + 5);
        let calls: Vec<_> = numbers.clone().map(|n| publisher.publish(topic, record(key, n))).collect();
        for (n, answer) in numbers.zip(join_all(calls).await) {
            acked.push(Acked { at: answer?, record: record(key, n) });
        }
    }
    Ok(acked)
}

pub(crate) async fn many_publishers_and_topics_never_mix(case: &mut BusCase) -> Outcome {
    let topics = [case.topic("mix-a").await?, case.topic("mix-b").await?, case.topic("mix-c").await?];
    let mut tasks = Vec::new();
    for task in 0..12 {
        let (publisher, topic) = (case.publisher(), topics[task % topics.len()].clone());
        tasks.push(tokio::spawn(async move {
            let acked = publish_in_flight(&*publisher, &topic, &format!("key-{task}"), 25).await?;
            Outcome::Ok((task % 3, acked))
        }));
    }
    let mut by_topic: [Vec<Acked>; 3] = Default::default();
    for task in tasks {
        let (topic, acked) = task.await??;
        by_topic[topic].extend(acked);
    }
    for (topic, acked) in topics.iter().zip(&by_topic) {
        case.expect_topic(topic, acked).await?;
        let read = case.read_topic(topic, acked).await?;
        for (key, numbers) in numbers_by_key(read.values().flatten())? {
            ensure_eq!(numbers, (0..25).collect::<Vec<_>>(), "the order of {key} in {topic}");
        }
    }
    Ok(())
}

pub(crate) async fn two_publisher_handles_never_share_an_offset(case: &mut BusCase) -> Outcome {
    let topic = case.topic("handles").await?;
    let second = case.bus.second_publisher().await?;
    let first = case.publisher();
    let (a, b) = tokio::join!(
        publish_in_flight(&*first, &topic, "first", 40),
        publish_in_flight(&*second, &topic, "second", 40)
    );
    let acked: Vec<_> = a?.into_iter().chain(b?).collect();
    case.expect_topic(&topic, &acked).await?;
    second.close().await?;
    let more = case.publish(&topic, record("first", 40)).await?;
    case.expect_first(&topic, eb_contract::Cut::Next(more.offset()), &more).await
}
