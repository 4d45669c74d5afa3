//! How much one read brings.

use eb_contract::{PublishRecord, ReadLimit, StartAt};

use crate::Outcome;
use crate::bus::{BusCase, Reading, same};
use crate::events::{envelope_of, key};
use crate::outcome::{ensure, ensure_eq};

pub(crate) async fn a_read_brings_no_more_records_than_asked_for(case: &mut BusCase) -> Outcome {
    let topic = case.topic("records").await?;
    let acked = case.publish_run(&topic, "k", 0, 20).await?;
    let partition = acked[0].at.partition_id;
    Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    let mut reading = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    let mut seen = 0;
    for max_records in [1, 0, 2, 5, 0, 1, 100] {
        let limit = ReadLimit::records(max_records).waiting(case.pace.visible_within);
        // `step` checks the number against the limit, 0 counting as 1.
        let batch = reading.step(limit).await?;
        ensure!(!batch.records.is_empty(), "no records for a limit of {max_records}");
        batch.records.iter().zip(&acked[seen..]).try_for_each(|(r, a)| same(r, a))?;
        seen += batch.records.len();
    }
    if case.pace.immediate {
        ensure_eq!(seen, acked.len(), "records in seven reads of 1, 1, 2, 5, 1, 1 and the rest");
    }
    Ok(())
}

pub(crate) async fn a_read_brings_about_the_bytes_asked_for_and_at_least_one_record(
    case: &mut BusCase,
) -> Outcome {
    const SIZE: usize = 10_000;
    let topic = case.topic("read-bytes").await?;
    let mut acked = Vec::new();
    for n in 0..30 {
        acked.push(case.publish(&topic, PublishRecord::new(key("k"), envelope_of(SIZE, n))).await?);
    }
    let partition = acked[0].at.partition_id;
    Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    let mut reading = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    let mut seen = 0;
    for max_bytes in [0, 1, SIZE - 1, SIZE, 3 * SIZE, 5 * SIZE + 1] {
        let limit = ReadLimit { max_records: 1000, max_bytes, wait: case.pace.visible_within };
        let batch = reading.step(limit).await?;
        ensure!(!batch.records.is_empty(), "no record for a limit of {max_bytes} bytes");
        let bytes: usize = batch.records.iter().map(|r| r.envelope.len()).sum();
        ensure!(bytes <= max_bytes + SIZE, "{bytes} bytes of envelopes for a limit of {max_bytes}");
        batch.records.iter().zip(&acked[seen..]).try_for_each(|(r, a)| same(r, a))?;
        seen += batch.records.len();
    }
    Ok(())
}
