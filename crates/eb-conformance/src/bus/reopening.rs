//! Closing and opening the same data again.

use eb_contract::{Cut, ReadLimit, Record, StartAt};

use crate::bus::{BusCase, Reading, same};
use crate::events::{envelope_of, key, record};
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome};

pub(crate) async fn reopening_in_the_middle_loses_and_repeats_nothing(case: &mut BusCase) -> Outcome {
    let topic = case.topic("reopen").await?;
    let other = case.topic("reopen-other").await?;
    let (mut acked, mut of_other) = (Vec::new(), Vec::new());
    for round in 0..4 {
        acked.extend(case.publish_run(&topic, "k", round * 10, 6).await?);
        let batch = (0..4).map(|i| record(format!("j{i}"), round * 10 + i)).collect();
        acked.extend(case.publish_batch(&topic, batch).await?);
        of_other.push(
            case.publish(&other, eb_contract::PublishRecord::new(key("k"), envelope_of(5000, round))).await?,
        );
        case.reopen().await?;
        case.expect_topic(&topic, &acked).await?;
        case.expect_topic(&other, &of_other).await?;
    }
    // Twice in a row, with nothing in between.
    case.reopen().await?;
    case.reopen().await?;
    acked.extend(case.publish_run(&topic, "k", 100, 2).await?);
    let of_k: Vec<_> = acked.iter().filter(|a| a.record.partition_key == key("k")).collect();
    let falls = of_k.windows(2).find(|w| w[0].offset() >= w[1].offset());
    ensure!(falls.is_none(), "an offset was given again after reopening: {:?}", falls.map(|w| &w[1].at));
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn a_stored_cut_resumes_after_reopening(case: &mut BusCase) -> Outcome {
    let topic = case.topic("stored-cut").await?;
    let mut acked = case.publish_run(&topic, "k", 0, 12).await?;
    let partition = acked[0].at.partition_id;
    let mut cuts = Vec::new();
    let mut reading = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    for n in 1..=12 {
        reading.take(1).await?;
        // As a checkpoint stores it.
        cuts.push((n, Cut::past(acked[n - 1].offset())));
        ensure!(reading.cursor.position() == cuts[n - 1].1, "the cursor's place after {n} records");
    }
    drop(reading);
    case.reopen().await?;
    acked.extend(case.publish_run(&topic, "k", 12, 3).await?);
    for (n, cut) in cuts {
        let mut reading = Reading::open(case, &topic, partition, cut).await?;
        let got = reading.take(acked.len() - n).await?;
        got.iter().zip(&acked[n..]).try_for_each(|(r, a)| same(r, a))?;
        reading.expect_head().await?;
    }
    Ok(())
}

/// A reader may only hand out what is durable: whatever it has shown must still be there after reopening, also
/// records whose publisher never waited for the ACK.
pub(crate) async fn what_a_reader_saw_is_there_after_reopening(case: &mut BusCase) -> Outcome {
    let topic = case.topic("seen").await?;
    let partition = case.partition_of(&topic, "k").await?;
    let mut reading = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    let publisher = case.publisher();
    let mut seen: Vec<Record> = Vec::new();
    let mut acked = Vec::new();
    for n in 0..60 {
        let call = publisher.publish(&topic, record("k", n));
        if n % 4 == 0 {
            acked.push(crate::bus::Acked { at: call.await?, record: record("k", n) });
        } else {
            drop(call);
        }
        seen.extend(reading.step(ReadLimit::default()).await?.records);
    }
    seen.extend(reading.rest().await?);
    drop(reading);
    case.reopen().await?;
    let log = case.read_topic(&topic, &acked).await?.remove(&partition).unwrap_or_default();
    for r in &seen {
        let still = log.iter().find(|l| l.eb_ref == r.eb_ref);
        let still = still.ok_or_else(|| Failure::new(format!("{} was read, and is gone", r.eb_ref)))?;
        ensure_eq!(still.envelope, r.envelope, "the envelope at {}, read before and after", r.eb_ref);
        ensure_eq!(still.partition_key, r.partition_key, "the key at {}", r.eb_ref);
    }
    for a in &acked {
        let there = log.iter().find(|l| l.eb_ref == a.at);
        same(there.ok_or_else(|| Failure::new(format!("{} was ACKed, and is gone", a.at)))?, a)?;
    }
    Ok(())
}

pub(crate) async fn the_incarnation_outlives_reopening(case: &mut BusCase) -> Outcome {
    let topic = case.topic("life").await?;
    let other = case.topic("other-life").await?;
    let before = case.reader().partitions(&topic).await?;
    case.publish(&topic, record("k", 1)).await?;
    ensure_eq!(case.reader().partitions(&topic).await?, before, "the partitions after a publish");
    case.reopen().await?;
    ensure_eq!(case.reader().partitions(&topic).await?, before, "the partitions after reopening");
    ensure!(case.reader().topics().await?.contains(&other), "an empty topic is gone after reopening");
    Ok(())
}
