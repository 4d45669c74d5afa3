//! From replay to following, without a gap.

use std::time::Duration;

use eb_contract::{EventBusReaderExt, ReadLimit, ReadState, StartAt};
use futures_util::StreamExt;

use crate::bus::{BusCase, Reading, same};
use crate::events::{number, record};
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome};

pub(crate) async fn what_is_acked_can_be_read_at_once(case: &mut BusCase) -> Outcome {
    let topic = case.topic("at-once").await?;
    let partition = case.partition_of(&topic, "k").await?;
    let mut reading = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    for n in 0..30 {
        let a = case.publish(&topic, record("k", n)).await?;
        let batch = reading.step(ReadLimit::default()).await?;
        ensure_eq!(batch.records.len(), 1, "records that a read brings right after the ACK of {}", a.at);
        same(&batch.records[0], &a)?;
        ensure_eq!(batch.state, ReadState::CaughtUp, "the state at the head");
    }
    Ok(())
}

pub(crate) async fn a_waiting_read_brings_the_next_record(case: &mut BusCase) -> Outcome {
    let topic = case.topic("wake-up").await?;
    let before = case.publish_run(&topic, "k", 0, 2).await?;
    let mut reading = Reading::open(case, &topic, before[0].at.partition_id, StartAt::Earliest).await?;
    reading.take(2).await?;
    let limit = ReadLimit::default().waiting(case.pace.visible_within);
    for n in 2..6 {
        let publisher = case.publisher();
        let publishing = async {
            // Lets the read below get as far as waiting.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            publisher.publish(&topic, record("k", n)).await
        };
        let (batch, published) = tokio::join!(reading.step(limit), publishing);
        let (batch, at) = (batch?, published?);
        ensure_eq!(batch.records.len(), 1, "records that the waiting read brought");
        ensure_eq!(batch.records[0].eb_ref, at, "the record that the waiting read brought");
    }
    Ok(())
}

pub(crate) async fn a_wait_at_the_head_ends_empty_handed(case: &mut BusCase) -> Outcome {
    let topic = case.topic("idle").await?;
    let acked = case.publish_run(&topic, "k", 0, 2).await?;
    let mut reading = Reading::open(case, &topic, acked[0].at.partition_id, StartAt::Earliest).await?;
    reading.take(2).await?;
    for _ in 0..3 {
        let batch = reading.step(ReadLimit::default().waiting(Duration::from_millis(30))).await?;
        ensure!(batch.records.is_empty(), "records came at the head where none were published");
        ensure_eq!(batch.state, ReadState::CaughtUp, "the state at the head");
    }
    Ok(())
}

pub(crate) async fn following_has_no_gap_where_replay_ends(case: &mut BusCase) -> Outcome {
    let topic = case.topic("catch-up").await?;
    let (early, count) = (case.pace.records / 2, case.pace.records * 2);
    let mut first = case.publish_run(&topic, "k", 0, early / 2).await?;
    let mut reading = Reading::open(case, &topic, first[0].at.partition_id, StartAt::Earliest).await?;
    let mut numbers = Vec::new();
    // One step at a time: caught up, something comes, and only then the waiting read.
    while first.len() < early {
        numbers.extend(
            reading.take(first.len() - numbers.len()).await?.iter().filter_map(|r| number(&r.envelope)),
        );
        reading.expect_head().await?;
        first.extend(case.publish_run(&topic, "k", first.len(), (early - first.len()).min(2)).await?);
    }
    // And all at once, with replay and following meeting wherever they meet.
    let (publisher, of_publisher) = (case.publisher(), topic.clone());
    let publishing = tokio::spawn(async move {
        for n in early..count {
            publisher.publish(&of_publisher, record("k", n)).await?;
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        Outcome::Ok(())
    });
    let mut caught_up = 0;
    while numbers.len() < count {
        // Small reads, alternately waiting or not.
        let wait = if caught_up % 2 == 0 { Duration::ZERO } else { case.pace.visible_within };
        let batch = reading.step(ReadLimit::records(7).waiting(wait)).await?;
        caught_up += usize::from(batch.state == ReadState::CaughtUp);
        ensure!(
            !(batch.records.is_empty() && !wait.is_zero() && batch.state == ReadState::CaughtUp),
            "a waiting read came back empty at {} of {count} records",
            numbers.len()
        );
        if batch.records.is_empty() {
            tokio::task::yield_now().await;
        }
        numbers.extend(batch.records.iter().filter_map(|r| number(&r.envelope)));
    }
    publishing.await??;
    reading.expect_head().await?;
    ensure_eq!(numbers, (0..count).collect::<Vec<_>>(), "what came while following");
    Ok(())
}

pub(crate) async fn a_tail_stream_goes_on_where_replay_ends(case: &mut BusCase) -> Outcome {
    const COUNT: usize = 40;
    let topic = case.topic("tail").await?;
    let first = case.publish_run(&topic, "k", 0, COUNT / 2).await?;
    let limit = ReadLimit::records(6).waiting(case.pace.visible_within);
    let reader = case.reader();
    let mut stream = reader.tail(&topic, first[0].at.partition_id, StartAt::Earliest, limit).await?;
    let mut numbers = Vec::new();
    let mut published = COUNT / 2;
    while numbers.len() < COUNT {
        if numbers.len() >= published {
            case.publish(&topic, record("k", published)).await?;
            published += 1;
        }
        let batch =
            stream.next().await.ok_or_else(|| Failure::new("the stream ended on an open partition"))?;
        numbers.extend(batch?.records.iter().filter_map(|r| number(&r.envelope)));
    }
    ensure_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "what the stream brought");
    Ok(())
}

pub(crate) async fn a_topic_tail_brings_every_partition(case: &mut BusCase) -> Outcome {
    const COUNT: usize = 60;
    let topic = case.bus.create_topic("tail-all", case.partitions.max(3)).await?;
    let reader = case.reader();
    let limit = ReadLimit::records(8).waiting(Duration::from_millis(200));
    let mut acked = Vec::new();
    for n in 0..COUNT / 2 {
        acked.push(case.publish(&topic, record(format!("k{}", n % 9), n)).await?);
    }
    let mut tail = reader.tail_topic(&topic, StartAt::Earliest, limit).await?;
    let mut got = Vec::new();
    while got.len() < COUNT {
        if acked.len() < COUNT {
            let n = acked.len();
            acked.push(case.publish(&topic, record(format!("k{}", n % 9), n)).await?);
        }
        let turn = tail.next().await.ok_or_else(|| Failure::new("the tail ended on open partitions"))?;
        got.extend(turn?.1.records);
    }
    got.sort_by_key(|r| number(&r.envelope));
    ensure_eq!(got.len(), COUNT, "records that came");
    got.iter().zip(&acked).try_for_each(|(r, a)| same(r, a))
}
