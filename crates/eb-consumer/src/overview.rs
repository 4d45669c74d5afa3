//! How consumers stand, by what the stores and the bus tell of them: also of those that run elsewhere, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eb_contract::stores::{Checkpoint, Lease};
use eb_contract::{ConsumerName, Cut, EventBusReader, Head, PartitionId, Result, Timestamp, Topic};

use crate::context::Stores;

/// One partition of one consumer.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionOverview {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition_id: PartitionId,
    /// The stored cut; `None` where there is no checkpoint yet.
    pub committed: Option<Cut>,
    /// When it was stored.
    pub committed_at: Option<Timestamp>,
    /// Where the partition ends; `None` when the bus cannot tell, or no longer has it.
    pub head: Option<Cut>,
    /// Records between the two: exact where offsets count records, 0 at the head on every bus, else `None`.
    pub lag: Option<u64>,
    /// Who holds the partition and for how long still; `None` where nobody does.
    pub holder: Option<(Lease, Duration)>,
    /// Open dead letters of the consumer, all its partitions together.
    pub dead_letters: u64,
}

type Place = (ConsumerName, Topic, PartitionId);
/// A checkpoint, and a lease with the time that it still has.
type Known = (Option<Checkpoint>, Option<(Lease, Duration)>);

/// Looks at one consumer, or at all that have a checkpoint or a lease. Sorted by consumer, topic, partition.
///
/// Dropping the future leaves nothing behind.
///
/// # Errors
/// When a store cannot tell. A head that cannot be read is left out instead.
pub async fn overview(
    reader: &dyn EventBusReader,
    stores: &Stores,
    consumer: Option<&ConsumerName>,
) -> Result<Vec<PartitionOverview>> {
    let checkpoints = stores.checkpoints.list(consumer).await?;
    let leases = stores.leases.list(consumer).await?;
    let mut all: BTreeMap<Place, Known> = BTreeMap::new();
    for c in checkpoints {
        let key = (c.consumer.clone(), c.topic.clone(), c.partition_id);
        all.entry(key).or_default().0 = Some(c);
    }
    for l in leases {
        let key = (l.key.consumer, l.key.topic, l.key.partition_id);
        all.entry(key).or_default().1 = l.left.map(|left| (l.lease, left));
    }
    let consumers: BTreeSet<_> = all.keys().map(|k| k.0.clone()).collect();
    let mut letters = BTreeMap::new();
    for consumer in consumers {
        let open = stores.dead_letters.count_open(Some(&consumer)).await?;
        letters.insert(consumer, open);
    }
    let mut heads: BTreeMap<(Topic, PartitionId), Option<Head>> = BTreeMap::new();
    let mut rows = Vec::with_capacity(all.len());
    for ((consumer, topic, partition_id), (checkpoint, holder)) in all {
        let place = (topic.clone(), partition_id);
        let head = match heads.get(&place) {
            Some(head) => *head,
            None => {
                let head = reader.head(&topic, partition_id).await.ok();
                heads.insert(place, head);
                head
            }
        };
        let committed = checkpoint.as_ref().map(|c| c.cut);
        rows.push(PartitionOverview {
            lag: head.and_then(|head| lag(committed.unwrap_or(Cut::Begin), &head)),
            dead_letters: letters.get(&consumer).copied().unwrap_or(0),
            committed,
            committed_at: checkpoint.and_then(|c| c.committed_at),
            head: head.map(|h| h.cut),
            holder,
            consumer,
            topic,
            partition_id,
        });
    }
    Ok(rows)
}

/// How many records lie between a cut and the head, where that can be told.
fn lag(committed: Cut, head: &Head) -> Option<u64> {
    if matches!(committed, Cut::End) {
        return Some(0);
    }
    let Some(last) = head.last else { return Some(0) };
    if committed.is_before(&last) == Some(false) {
        return Some(0);
    }
    if !last.kind().is_dense() {
        return None;
    }
    let next = match committed.canonical() {
        Cut::Begin => 0,
        Cut::Next(next) => next.as_u64()?,
        Cut::After(_) | Cut::End => return None,
    };
    Some(last.as_u64()? + 1 - next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eb_contract::{Offset, OffsetKind};

    #[test]
    fn lag_counts_records_where_offsets_do_and_else_says_only_when_there_is_none() {
        let dense = |n| Offset::from_u64(OffsetKind::MemoryIndex, n);
        let head = |last: Option<Offset>| Head {
            cut: last.map_or(Cut::Begin, Cut::past),
            last,
            last_published_at: None,
        };
        assert_eq!(lag(Cut::Begin, &head(Some(dense(9)))), Some(10));
        assert_eq!(lag(Cut::Next(dense(7)), &head(Some(dense(9)))), Some(3));
        assert_eq!(lag(Cut::After(dense(9)), &head(Some(dense(9)))), Some(0));
        assert_eq!(lag(Cut::Begin, &head(None)), Some(0));
        assert_eq!(lag(Cut::End, &head(Some(dense(9)))), Some(0));
        let id = |text| Offset::parse(OffsetKind::RedisStreamId, text).unwrap();
        assert_eq!(lag(Cut::After(id("7-1")), &head(Some(id("9-0")))), None);
        assert_eq!(lag(Cut::After(id("9-0")), &head(Some(id("9-0")))), Some(0));
    }
}
