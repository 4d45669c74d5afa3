//! Handles that were closed.

use eb_contract::{Effect, EventBusReaderExt, ReadLimit, StartAt};
use futures_util::future::join_all;

use crate::Outcome;
use crate::bus::{Acked, BusCase, Reading};
use crate::events::record;
use crate::outcome::{ensure_eq, refused};

pub(crate) async fn a_closed_publisher_refuses(case: &mut BusCase) -> Outcome {
    let topic = case.topic("closed").await?;
    let acked = vec![case.publish(&topic, record("k", 1)).await?];
    let publisher = case.publisher();
    publisher.close().await?;
    publisher.close().await?;
    let error = refused("publish", publisher.publish(&topic, record("k", 2)).await, "closed")?;
    ensure_eq!(error.effect(), Effect::None, "the effect of a refused publish");
    let answers = publisher.publish_batch(&topic, vec![record("k", 3), record("j", 4)]).await;
    ensure_eq!(answers.len(), 2, "answers of a batch");
    for answer in answers {
        let error = refused("publish_batch", answer, "closed")?;
        ensure_eq!(error.effect(), Effect::None, "the effect of a refused record");
    }
    refused("probe", publisher.probe(&topic).await, "closed")?;
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn closing_finishes_what_was_called_before(case: &mut BusCase) -> Outcome {
    let topic = case.topic("finish").await?;
    let publisher = case.publisher();
    let calls: Vec<_> = (0..20).map(|n| publisher.publish(&topic, record("k", n))).collect();
    publisher.close().await?;
    let mut acked = Vec::new();
    for (n, answer) in join_all(calls).await.into_iter().enumerate() {
        acked.push(Acked { at: answer?, record: record("k", n) });
    }
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn a_closed_reader_refuses_also_through_its_cursors(case: &mut BusCase) -> Outcome {
    let topic = case.topic("closed-reader").await?;
    let at = case.publish(&topic, record("k", 1)).await?.at;
    let reader = case.reader();
    let mut fresh = reader.cursor(&topic, at.partition_id, StartAt::Earliest).await?;
    let mut used = reader.cursor(&topic, at.partition_id, StartAt::Earliest).await?;
    used.next(ReadLimit::default().waiting(case.pace.visible_within)).await?;
    reader.close().await?;
    reader.close().await?;
    refused("topics", reader.topics().await, "closed")?;
    refused("partitions", reader.partitions(&topic).await, "closed")?;
    refused("head", reader.head(&topic, at.partition_id).await, "closed")?;
    refused("cursor", reader.cursor(&topic, at.partition_id, StartAt::Earliest).await, "closed")?;
    refused("read", reader.read(&topic, at.partition_id, StartAt::Earliest, 1).await, "closed")?;
    refused("next of an unused cursor", fresh.next(ReadLimit::default()).await, "closed")?;
    refused("next of a used cursor", used.next(ReadLimit::default()).await, "closed")?;
    Ok(())
}

pub(crate) async fn closing_wakes_a_waiting_read(case: &mut BusCase) -> Outcome {
    let topic = case.topic("close-wait").await?;
    let acked = case.publish_run(&topic, "k", 0, 1).await?;
    let mut reading = Reading::open(case, &topic, acked[0].at.partition_id, StartAt::Earliest).await?;
    reading.take(1).await?;
    let reader = case.reader();
    // Longer than the scenario may take: only the closing can end it.
    let limit = ReadLimit::default().waiting(case.pace.deadline * 2);
    let closing = async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        reader.close().await
    };
    let (read, closed) = tokio::join!(reading.cursor.next(limit), closing);
    closed?;
    refused("the waiting read", read, "closed")?;
    Ok(())
}
