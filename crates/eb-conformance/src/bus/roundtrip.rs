//! Bytes in, bytes out.

use eb_contract::{Cut, Effect, EnvelopeLimits, PublishRecord};

use crate::Outcome;
use crate::bus::{Acked, BusCase};
use crate::events::{envelope, envelope_of, key, nested, odd_envelopes, record};
use crate::outcome::{ensure, ensure_eq, refused};

pub(crate) async fn what_goes_in_comes_back_byte_for_byte(case: &mut BusCase) -> Outcome {
    let topic = case.topic("bytes").await?;
    let mut acked = Vec::new();
    for (n, odd) in odd_envelopes().into_iter().enumerate() {
        acked.push(case.publish(&topic, PublishRecord::new(key(format!("k{}", n % 3)), odd)).await?);
    }
    let batch = odd_envelopes().into_iter().map(|e| PublishRecord::new(key("batch"), e)).collect();
    acked.extend(case.publish_batch(&topic, batch).await?);
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn deep_and_large_payloads_come_back_whole(case: &mut BusCase) -> Outcome {
    let topic = case.topic("large").await?;
    let limit = case.caps.max_envelope_bytes;
    let mut acked = Vec::new();
    for depth in [2, EnvelopeLimits::MAX_DEPTH - 1, EnvelopeLimits::MAX_DEPTH] {
        acked.push(case.publish(&topic, PublishRecord::new(key("deep"), nested(depth))).await?);
    }
    // Around powers of two, where buffers end, and up to the limit to the byte.
    let sizes = [4095, 4096, 4097, 65_535, 65_536, 65_537, 262_144, limit - 1, limit];
    for (n, size) in sizes.into_iter().filter(|s| *s <= limit).enumerate() {
        acked.push(case.publish(&topic, PublishRecord::new(key("large"), envelope_of(size, n))).await?);
    }
    acked.push(case.publish(&topic, record("small", 1)).await?);
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn one_byte_over_the_limit_is_refused_and_leaves_no_trace(case: &mut BusCase) -> Outcome {
    let topic = case.topic("over").await?;
    let limit = case.caps.max_envelope_bytes;
    let over = PublishRecord::new(key("k"), envelope_of(limit + 1, 0));
    ensure_eq!(over.envelope.len(), limit + 1, "the suite's own arithmetic");
    let mut acked = vec![case.publish(&topic, record("k", 1)).await?];
    let error = refused("publish", case.publisher().publish(&topic, over.clone()).await, "too_large")?;
    ensure_eq!(error.effect(), Effect::None, "the effect of a refused record");
    ensure!(!error.is_retryable(), "a record that is too large is too large the next time, too");
    let answers = case.publisher().publish_batch(&topic, vec![over]).await;
    ensure_eq!(answers.len(), 1, "answers of a batch of one");
    for answer in answers {
        refused("publish_batch", answer, "too_large")?;
    }
    acked.push(case.publish(&topic, record("k", 2)).await?);
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn any_key_comes_back_as_it_was(case: &mut BusCase) -> Outcome {
    let topic = case.topic("keys").await?;
    let mut acked = Vec::new();
    for (n, odd) in case.odd_keys().into_iter().enumerate() {
        acked.push(case.publish(&topic, PublishRecord::new(odd, envelope(n))).await?);
    }
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn a_key_longer_than_the_backend_counts_is_refused_alone(case: &mut BusCase) -> Outcome {
    let topic = case.topic("long-keys").await?;
    // Each has the most characters that a key may have.
    let keys = [key("a"), key("𝕏".repeat(256)), key("b"), key("ä".repeat(256))];
    let records: Vec<_> = keys.iter().map(|k| PublishRecord::new(k.clone(), envelope(1))).collect();
    let answers = case.publisher().publish_batch(&topic, records.clone()).await;
    ensure_eq!(answers.len(), records.len(), "answers of a batch");
    let mut acked = Vec::new();
    for (answer, record) in answers.into_iter().zip(records) {
        if case.takes(&record.partition_key) {
            acked.push(Acked { at: answer?, record });
        } else {
            let error = refused("a key that is too long for the backend", answer, "invalid_input")?;
            ensure_eq!(error.effect(), Effect::None, "the effect of a refused record");
        }
    }
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn the_same_envelope_twice_is_two_records_in_order(case: &mut BusCase) -> Outcome {
    let topic = case.topic("twice").await?;
    let mut acked = Vec::new();
    for n in [1, 1, 2, 1] {
        acked.push(case.publish(&topic, record("k", n)).await?);
    }
    acked.extend(case.publish_batch(&topic, vec![record("k", 3), record("k", 3), record("k", 1)]).await?);
    ensure!(
        acked.windows(2).all(|w| w[0].offset() < w[1].offset()),
        "the offsets of one envelope published again and again rise: {:?}",
        acked.iter().map(Acked::offset).collect::<Vec<_>>()
    );
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn an_ack_names_the_record_that_is_read_there(case: &mut BusCase) -> Outcome {
    let topic = case.topic("acks").await?;
    let mut acked = Vec::new();
    for n in 0..10 {
        acked.push(case.publish(&topic, record(format!("k{}", n % 4), n)).await?);
    }
    for a in &acked {
        case.expect_first(&topic, Cut::Next(a.offset()), a).await?;
    }
    Ok(())
}
