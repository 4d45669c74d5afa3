//! How consumers stand, by what the stores and the bus tell of them: also of those that run elsewhere, or not at all.
//!
//! | | where it is known from |
//! |---|---|
//! | committed, head, lag | the checkpoint store and the bus; of a group's lag: the service |
//! | who holds it | the lease store |
//! | phase, in flight, retries | what the holder said with its last heartbeat ([`WorkReport`]), at most a heartbeat old and gone with its lease; what a group has in flight, and handed out again: the service |
//! | dead letters | the dead-letter store |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eb_contract::stores::{Checkpoint, Lease, LeaseInfo, Reported, WorkReport};
use eb_contract::{
    ConsumerName, Cut, EventBusGroups, EventBusReader, GroupBacklog, Head, PartitionId, Result, Timestamp,
    Topic,
};

use crate::builder::ConsumerSource;
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
    /// Records between the two: exact where offsets count records, 0 at the head on every bus, else `None`. Of a group: what was not
    /// acknowledged, where the service can count it.
    pub lag: Option<u64>,
    /// Who holds the partition and for how long still; `None` where nobody does.
    pub holder: Option<(Lease, Duration)>,
    /// What the holder last said of its work; `None` where nobody holds it, or has said anything yet.
    pub reported: Option<Reported>,
    /// What a group of the service has pending; `None` where a log is read.
    pub group: Option<GroupBacklog>,
    /// Open dead letters of the consumer, all its partitions together.
    pub dead_letters: u64,
}

impl PartitionOverview {
    /// Records that were read, or handed out by a group, and are not finished.
    #[must_use]
    pub fn in_flight(&self) -> Option<u64> {
        match &self.group {
            Some(group) => Some(group.pending),
            None => self.work().map(|w| w.in_flight),
        }
    }

    /// Attempts that the holder had to repeat. Of a group that nobody reports of: the pending records that were handed out more than once.
    #[must_use]
    pub fn retries(&self) -> Option<u64> {
        let reported = self.work().map(|w| w.retries);
        reported.or(self.group.as_ref().map(|group| group.redelivered))
    }

    fn work(&self) -> Option<&WorkReport> {
        self.reported.as_ref().map(|r| &r.work)
    }
}

type Place = (ConsumerName, Topic, PartitionId);

/// What is known of a partition.
#[derive(Default)]
struct Known {
    checkpoint: Option<Checkpoint>,
    lease: Option<LeaseInfo>,
    group: Option<GroupBacklog>,
}

/// Looks at one consumer, or at all that have a checkpoint, a lease or a group. Sorted by consumer, topic, partition.
///
/// Dropping the future leaves nothing behind.
///
/// # Errors
/// When a store cannot tell, or the service of its groups. A head that cannot be read is left out instead.
pub async fn overview(
    source: &ConsumerSource,
    stores: &Stores,
    consumer: Option<&ConsumerName>,
) -> Result<Vec<PartitionOverview>> {
    let reader = &**source.reader();
    let mut all: BTreeMap<Place, Known> = BTreeMap::new();
    for c in stores.checkpoints.list(consumer).await? {
        let key = (c.consumer.clone(), c.topic.clone(), c.partition_id);
        all.entry(key).or_default().checkpoint = Some(c);
    }
    for l in stores.leases.list(consumer).await? {
        let key = (l.key.consumer.clone(), l.key.topic.clone(), l.key.partition_id);
        all.entry(key).or_default().lease = Some(l);
    }
    if let ConsumerSource::Groups { groups, reader } = source {
        for (key, backlog) in backlogs(&**groups, &**reader, consumer).await? {
            all.entry(key).or_default().group = Some(backlog);
        }
    }
    let consumers: BTreeSet<_> = all.keys().map(|k| k.0.clone()).collect();
    let mut letters = BTreeMap::new();
    for consumer in consumers {
        let open = stores.dead_letters.count_open(Some(&consumer)).await?;
        letters.insert(consumer, open);
    }
    let mut heads: BTreeMap<(Topic, PartitionId), Option<Head>> = BTreeMap::new();
    let mut rows = Vec::with_capacity(all.len());
    for ((consumer, topic, partition_id), Known { checkpoint, lease, group }) in all {
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
        let undone = group.as_ref().and_then(|g| Some(g.undelivered? + g.pending));
        rows.push(PartitionOverview {
            lag: undone.or_else(|| head.and_then(|head| lag(committed.unwrap_or(Cut::Begin), &head))),
            dead_letters: letters.get(&consumer).copied().unwrap_or(0),
            committed,
            committed_at: checkpoint.and_then(|c| c.committed_at),
            head: head.map(|h| h.cut),
            reported: lease.as_ref().and_then(|l| l.reported),
            holder: lease.and_then(|l| l.left.map(|left| (l.lease, left))),
            group,
            consumer,
            topic,
            partition_id,
        });
    }
    Ok(rows)
}

/// The groups of a service, on all topics.
async fn backlogs(
    groups: &dyn EventBusGroups,
    reader: &dyn EventBusReader,
    consumer: Option<&ConsumerName>,
) -> Result<Vec<(Place, GroupBacklog)>> {
    let mut all = Vec::new();
    for topic in reader.topics().await? {
        for partition in reader.partitions(&topic).await?.partitions {
            for group in groups.groups(&topic, partition.id).await? {
                if consumer.is_some_and(|wanted| *wanted != group) {
                    continue;
                }
                if let Some(backlog) = groups.backlog(&group, &topic, partition.id).await? {
                    all.push(((group, topic.clone(), partition.id), backlog));
                }
            }
        }
    }
    Ok(all)
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
