//! Batches: one answer per record, in its place.

use eb_contract::{Effect, PublishRecord};

use crate::Outcome;
use crate::bus::{Acked, BusCase};
use crate::events::{envelope_of, key, record};
use crate::outcome::{ensure, ensure_eq, refused};

pub(crate) async fn a_batch_answers_each_record_in_its_place(case: &mut BusCase) -> Outcome {
    let topic = case.topic("batch").await?;
    let mut acked = Vec::new();
    for (round, size) in [1usize, 2, 30, 60].into_iter().enumerate() {
        let records = (0..size).map(|i| record(format!("k{}", i % 7), round * 1000 + i)).collect();
        acked.extend(case.publish_batch(&topic, records).await?);
    }
    // Each ACK names the place of its own record, not of a neighbour.
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn an_empty_batch_answers_nothing(case: &mut BusCase) -> Outcome {
    let topic = case.topic("nothing").await?;
    let answers = case.publisher().publish_batch(&topic, Vec::new()).await;
    ensure!(answers.is_empty(), "{} answers to an empty batch", answers.len());
    let acked = vec![case.publish(&topic, record("k", 1)).await?];
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn a_record_that_fails_stops_its_key_and_no_other(case: &mut BusCase) -> Outcome {
    let topic = case.topic("failing").await?;
    let over = PublishRecord::new(key("a"), envelope_of(case.caps.max_envelope_bytes + 1, 0));
    let records = vec![
        record("a", 1),
        record("b", 2),
        over,
        record("a", 4),
        record("b", 5),
        record("c", 6),
        record("a", 7),
        record("b", 8),
    ];
    let answers = case.publisher().publish_batch(&topic, records.clone()).await;
    ensure_eq!(answers.len(), records.len(), "answers of a batch");
    let expected = ["", "", "too_large", "not_attempted", "", "", "not_attempted", ""];
    let mut acked = Vec::new();
    for (i, (answer, record)) in answers.into_iter().zip(records).enumerate() {
        match expected[i] {
            "" => {
                let at = answer.map_err(|e| crate::Failure::new(format!("record {i} of the batch: {e}")))?;
                acked.push(Acked { at, record });
            }
            code => {
                let error = refused(&format!("record {i} of the batch"), answer, code)?;
                ensure_eq!(error.effect(), Effect::None, "the effect of record {i}");
            }
        }
    }
    let of_b: Vec<_> = acked.iter().filter(|a| a.record.partition_key == key("b")).collect();
    ensure!(of_b.windows(2).all(|w| w[0].offset() < w[1].offset()), "the order of another key");
    // The key is not blocked for good.
    acked.push(case.publish(&topic, record("a", 9)).await?);
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn a_batch_over_the_limit_is_refused_whole(case: &mut BusCase) -> Outcome {
    let topic = case.topic("too-many").await?;
    let limit = case.caps.max_batch_records;
    let records: Vec<_> = (0..=limit).map(|n| record("k", n)).collect();
    let answers = case.publisher().publish_batch(&topic, records).await;
    ensure_eq!(answers.len(), limit + 1, "answers of a batch");
    for answer in answers {
        let error = refused("a batch with one record too many", answer, "too_large")?;
        ensure_eq!(error.effect(), Effect::None, "the effect");
    }
    let acked = vec![case.publish(&topic, record("k", 1)).await?];
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn the_largest_batch_is_taken(case: &mut BusCase) -> Outcome {
    let topic = case.topic("most").await?;
    let records = (0..case.caps.max_batch_records).map(|n| record(format!("k{}", n % 50), n)).collect();
    let acked = case.publish_batch(&topic, records).await?;
    case.expect_topic(&topic, &acked).await
}
