//! Times: information on a record, and places to start from.

use std::time::Duration;

use eb_contract::{StartAt, Timestamp};

use crate::Outcome;
use crate::bus::{BusCase, Reading, same};
use crate::events::record;
use crate::outcome::{ensure, ensure_eq};

/// How far clocks may lie apart before a time is nonsense.
const SKEW: Duration = Duration::from_secs(60);

pub(crate) async fn a_time_seeks_to_the_first_record_at_or_after_it(case: &mut BusCase) -> Outcome {
    let topic = case.topic("times").await?;
    let mut acked = case.publish_run(&topic, "k", 0, 15).await?;
    let batch = (15..20).map(|n| record("k", n)).collect();
    acked.extend(case.publish_batch(&topic, batch).await?);
    acked.extend(case.publish_run(&topic, "k", 20, 10).await?);
    let partition = acked[0].at.partition_id;
    let log = Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    let times: Vec<_> = log.iter().map(|r| r.eb_ref.published_at_utc).collect();
    let mut starts = vec![Timestamp::EPOCH];
    for t in &times {
        starts.extend([*t, t.saturating_add(Duration::from_micros(1))]);
        starts.extend(Timestamp::from_micros(t.as_micros() - 1));
    }
    for start in starts {
        let first = times.iter().position(|t| *t >= start).unwrap_or(times.len());
        let mut reading = Reading::open(case, &topic, partition, StartAt::Timestamp(start)).await?;
        let count = (log.len() - first).min(2);
        let got = reading.take(count).await?;
        let offsets =
            |records: &[eb_contract::Record]| records.iter().map(|r| r.eb_ref.offset).collect::<Vec<_>>();
        ensure_eq!(offsets(&got), offsets(&log[first..first + count]), "what comes from {start:?}");
        if count == 0 {
            reading.expect_head().await?;
        }
    }
    Ok(())
}

pub(crate) async fn a_time_past_the_head_brings_only_what_comes_later(case: &mut BusCase) -> Outcome {
    let topic = case.topic("future").await?;
    let before = case.publish_run(&topic, "k", 0, 3).await?;
    let partition = before[0].at.partition_id;
    // Past every record there is means the head as it is now, however far past it lies.
    let log = Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(3).await?;
    let past = log[2].eb_ref.published_at_utc.saturating_add(Duration::from_micros(1));
    let mut readings = Vec::new();
    for start in [past, Timestamp::now().saturating_add(Duration::from_secs(3600)), Timestamp::MAX] {
        let mut reading = Reading::open(case, &topic, partition, StartAt::Timestamp(start)).await?;
        reading.expect_head().await?;
        readings.push(reading);
    }
    let after = case.publish_run(&topic, "k", 3, 2).await?;
    for mut reading in readings {
        let got = reading.take(2).await?;
        got.iter().zip(&after).try_for_each(|(r, a)| same(r, a))?;
    }
    Ok(())
}

pub(crate) async fn published_times_are_sane(case: &mut BusCase) -> Outcome {
    let topic = case.topic("clock").await?;
    let before = Timestamp::now();
    let acked = case.publish_run(&topic, "k", 0, 12).await?;
    let after = Timestamp::now();
    let sane = |t: Timestamp| before.saturating_since(t) <= SKEW && t.saturating_since(after) <= SKEW;
    let partition = acked[0].at.partition_id;
    let log = Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    for (r, a) in log.iter().zip(&acked) {
        let (of_ack, of_read) = (a.at.published_at_utc, r.eb_ref.published_at_utc);
        ensure!(sane(of_ack) && sane(of_read), "{}: ACK at {of_ack:?}, read as {of_read:?}", a.at);
        if case.pace.immediate {
            ensure_eq!(of_read, of_ack, "the time read at {} against its ACK's", a.at);
        }
    }
    let falls = log.windows(2).find(|w| w[0].eb_ref.published_at_utc > w[1].eb_ref.published_at_utc);
    ensure!(falls.is_none(), "published_at goes back at {:?}", falls.map(|w| &w[1].eb_ref));
    Ok(())
}
