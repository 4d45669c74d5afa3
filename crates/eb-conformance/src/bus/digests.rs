//! Digests: the same facts, the same digest.

use std::cmp::Ordering;

use eb_contract::digest::{KeySequenceDigest, PartitionDigest};
use eb_contract::{EbRef, Offset, PartitionId, PublishRecord, Record, Timestamp};

use crate::Outcome;
use crate::bus::BusCase;
use crate::events::{key, odd_envelopes, record};
use crate::outcome::{ensure, ensure_eq};

/// The facts as any other bus would hold them: only the keys, the bytes and their order matter.
fn as_records(case: &BusCase, facts: &[PublishRecord]) -> Outcome<Vec<Record>> {
    let topic = eb_contract::Topic::new("model")?;
    let with_place = |(fact, n): (&PublishRecord, u64)| Record {
        eb_ref: EbRef {
            topic: topic.clone(),
            partition_id: PartitionId(0),
            offset: Offset::from_u64(case.caps.offset_kind, n),
            published_at_utc: Timestamp::EPOCH,
        },
        partition_key: fact.partition_key.clone(),
        envelope: fact.envelope.clone(),
    };
    Ok(facts.iter().zip(0u64..).map(with_place).collect())
}

pub(crate) async fn digests_equal_those_of_a_plain_model(case: &mut BusCase) -> Outcome {
    let topic = case.topic("digests").await?;
    let mut facts: Vec<PublishRecord> = (0..40).map(|n| record(format!("k{}", n % 5), n)).collect();
    facts.extend(odd_envelopes().into_iter().map(|e| PublishRecord::new(key("odd"), e)));
    facts.extend(case.odd_keys().into_iter().map(|k| PublishRecord::new(k, crate::events::envelope(7))));
    let mut acked = Vec::new();
    for part in facts.chunks(9) {
        acked.extend(case.publish_batch(&topic, part.to_vec()).await?);
    }
    let read = case.read_topic(&topic, &acked).await?;

    let mut sequences = KeySequenceDigest::default();
    for (partition, records) in &read {
        // Among different keys nobody promises an order: it is the one that the ACKs tell.
        let mut of_partition: Vec<_> = acked.iter().filter(|a| a.at.partition_id == *partition).collect();
        of_partition.sort_by(|a, b| a.offset().partial_cmp(&b.offset()).unwrap_or(Ordering::Equal));
        let of_partition: Vec<_> = of_partition.into_iter().map(|a| a.record.clone()).collect();
        let (mut got, mut expected) = (PartitionDigest::default(), PartitionDigest::default());
        records.iter().for_each(|r| got.add(r));
        as_records(case, &of_partition)?.iter().for_each(|r| expected.add(r));
        ensure_eq!(got.finish(), expected.finish(), "the digest of partition {partition}");
        records.iter().for_each(|r| sequences.add(r));
    }
    let mut expected = KeySequenceDigest::default();
    as_records(case, &facts)?.iter().for_each(|r| expected.add(r));
    ensure_eq!(sequences.finish(), expected.finish(), "the digest over per-key sequences");

    // A late copy changes the log and not the facts; another fact changes both.
    acked.push(case.publish(&topic, facts[0].clone()).await?);
    let digest = |read: &std::collections::BTreeMap<PartitionId, Vec<Record>>| {
        let mut all = KeySequenceDigest::default();
        read.values().flatten().for_each(|r| all.add(r));
        all.finish()
    };
    ensure_eq!(
        digest(&case.read_topic(&topic, &acked).await?),
        expected.finish(),
        "the digest with a late copy"
    );
    acked.push(case.publish(&topic, record("k0", 1000)).await?);
    let more = digest(&case.read_topic(&topic, &acked).await?);
    ensure!(more != expected.finish(), "another fact left the digest as it was");
    Ok(())
}
