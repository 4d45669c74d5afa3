//! Dropped futures.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use eb_contract::{BoxFuture, EventBusReaderExt, PartitionId, ReadLimit, Record, StartAt};

use crate::bus::order::{numbers_by_key, rises};
use crate::bus::{Acked, BusCase, Reading, same};
use crate::events::{key, number, record};
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome};

/// Polls a future up to `times` times, letting others run in between, and drops it if it is not done by then.
async fn poll_some<T>(mut future: BoxFuture<'_, T>, times: usize) -> Option<T> {
    for _ in 0..times {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = polled {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

pub(crate) async fn a_dropped_publish_hurts_nobody(case: &mut BusCase) -> Outcome {
    let topic = case.topic("dropped").await?;
    let publisher = case.publisher();
    let mut acked = Vec::new();
    let mut n = 0;
    for round in 0..20 {
        // Dropped before its first poll, after a few polls, and awaited, in changing order.
        for way in [round % 3, (round + 1) % 3, (round + 2) % 3] {
            let call = publisher.publish(&topic, record("k", n));
            let answer = match way {
                0 => None,
                1 => poll_some(call, 1 + round % 4).await,
                _ => Some(call.await),
            };
            if let Some(at) = answer {
                acked.push(Acked { at: at?, record: record("k", n) });
            }
            n += 1;
        }
        drop(publisher.publish_batch(&topic, vec![record("k", n), record("k", n + 1)]));
        n += 2;
    }
    acked.push(case.publish(&topic, record("k", n)).await?);
    let read = case.read_topic(&topic, &acked).await?;
    let log: Vec<&Record> = read.values().flatten().collect();
    for a in &acked {
        let found = log.iter().find(|r| r.eb_ref == a.at);
        let found = found.ok_or_else(|| Failure::new(format!("ACKed and not there: {}", a.at)))?;
        same(found, a)?;
    }
    let numbers = numbers_by_key(log)?.remove(&key("k")).unwrap_or_default();
    ensure!(rises(&numbers), "each record at most once, in the order of the calls: {numbers:?}");
    Ok(())
}

pub(crate) async fn a_dropped_read_keeps_its_place(case: &mut BusCase) -> Outcome {
    const COUNT: usize = 60;
    let topic = case.topic("dropped-reads").await?;
    let partition = case.partition_of(&topic, "k").await?;
    let mut reading = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    let (publisher, of_publisher) = (case.publisher(), topic.clone());
    let publishing = tokio::spawn(async move {
        for n in 0..COUNT {
            publisher.publish(&of_publisher, record("k", n)).await?;
            tokio::task::yield_now().await;
        }
        Outcome::Ok(())
    });
    let limit = ReadLimit::records(4).waiting(case.pace.visible_within);
    let mut got: Vec<Record> = Vec::new();
    let mut round = 0;
    while got.len() < COUNT * 3 / 4 {
        round += 1;
        let before = reading.cursor.position();
        // Never polled, polled a little, and every sixth time to the end.
        let to_the_end = round % 6 == 5;
        let reading_on = reading.cursor.next(limit);
        let read = if to_the_end { Some(reading_on.await) } else { poll_some(reading_on, round % 6).await };
        match read {
            Some(batch) => {
                let batch = batch?;
                reading.check(before, &limit, &batch)?;
                ensure!(!to_the_end || !batch.records.is_empty(), "nothing came in {:?}", limit.wait);
                got.extend(batch.records);
            }
            None => ensure!(
                reading.cursor.position() == before,
                "a dropped read moved the cursor from `{before}` to `{}`",
                reading.cursor.position()
            ),
        }
        tokio::task::yield_now().await;
    }
    publishing.await??;
    // Also at the head, where a read waits for what is to come.
    got.extend(reading.take(COUNT - got.len()).await?);
    for _ in 0..3 {
        ensure!(poll_some(reading.cursor.next(limit), 3).await.is_none(), "a read at the head did not wait");
    }
    case.publish(&topic, record("k", COUNT)).await?;
    got.extend(reading.take(1).await?);
    reading.expect_head().await?;
    let numbers: Vec<_> = got.iter().filter_map(|r| number(&r.envelope)).collect();
    ensure_eq!(numbers, (0..=COUNT).collect::<Vec<_>>(), "what came, through all dropped reads");
    Ok(())
}

pub(crate) async fn a_dropped_topic_tail_turn_loses_nothing(case: &mut BusCase) -> Outcome {
    let topic = case.topic("dropped-turns").await?;
    let reader = case.reader();
    let limit = ReadLimit::records(3).waiting(Duration::from_millis(200));
    let mut tail = reader.tail_topic(&topic, StartAt::Earliest, limit).await?;
    let mut acked = Vec::new();
    let mut got: Vec<(PartitionId, Record)> = Vec::new();
    for n in 0..40 {
        acked.push(case.publish(&topic, record(format!("k{}", n % 6), n)).await?);
        if let Some(Some(turn)) = poll_some(Box::pin(tail.next()), n % 3).await {
            let (partition, batch) = turn?;
            got.extend(batch.records.into_iter().map(|r| (partition, r)));
        }
    }
    while got.len() < acked.len() {
        let turn = tail.next().await.ok_or_else(|| Failure::new("the tail ended on open partitions"))?;
        let (partition, batch) = turn?;
        got.extend(batch.records.into_iter().map(|r| (partition, r)));
    }
    ensure_eq!(got.len(), acked.len(), "records that came");
    for a in &acked {
        let mut found = got.iter().filter(|(_, r)| r.eb_ref == a.at);
        match (found.next(), found.next()) {
            (Some((partition, r)), None) => {
                ensure_eq!(*partition, a.at.partition_id, "the partition of a turn");
                same(r, a)?;
            }
            (None, _) => return Err(Failure::new(format!("{} never came", a.at))),
            (Some(_), Some(_)) => return Err(Failure::new(format!("{} came twice", a.at))),
        }
    }
    Ok(())
}
