//! What there is to share: the partitions of a topic that may be read now, and who holds them.

use std::collections::{BTreeMap, BTreeSet};

use eb_contract::stores::{Checkpoint, Lease, LeaseInfo};
use eb_contract::{
    BusIncarnation, Cut, Error, ErrorKind, PartitionId, PartitionInfo, Result, StartAt, Topic,
    TopicPartitions,
};

use crate::context::Context;

/// A look at a topic.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) incarnation: BusIncarnation,
    /// May be read now; with whether it came out of partitions that the consumer has processed.
    pub(crate) eligible: BTreeMap<PartitionId, bool>,
    pub(crate) leases: Vec<LeaseInfo>,
}

pub(crate) async fn survey(ctx: &Context, topic: &Topic) -> Result<Survey> {
    let TopicPartitions { incarnation, partitions } = ctx.source.reader().partitions(topic).await?;
    let resharded = partitions.iter().any(|p| p.closed || !p.parents.is_empty());
    let checkpoints = if resharded { cuts(ctx, topic).await? } else { BTreeMap::new() };
    let leases = if ctx.in_order { ctx.stores.leases.list(Some(&ctx.consumer)).await? } else { Vec::new() };
    let leases = leases.into_iter().filter(|l| l.key.topic == *topic).collect();
    Ok(Survey { incarnation, eligible: eligible(&partitions, &checkpoints), leases })
}

async fn cuts(ctx: &Context, topic: &Topic) -> Result<BTreeMap<PartitionId, Cut>> {
    let all = ctx.stores.checkpoints.list(Some(&ctx.consumer)).await?;
    Ok(all.into_iter().filter(|c| c.topic == *topic).map(|c| (c.partition_id, c.cut)).collect())
}

/// Which partitions may be read: those not processed to their end whose parents all are, or are gone.
fn eligible(partitions: &[PartitionInfo], cuts: &BTreeMap<PartitionId, Cut>) -> BTreeMap<PartitionId, bool> {
    let ended = |id: &PartitionId| matches!(cuts.get(id), Some(Cut::End));
    let listed: BTreeSet<_> = partitions.iter().map(|p| p.id).collect();
    partitions
        .iter()
        .filter(|p| !ended(&p.id))
        .filter(|p| p.parents.iter().all(|parent| ended(parent) || !listed.contains(parent)))
        .map(|p| (p.id, p.parents.iter().any(|parent| cuts.contains_key(parent))))
        .collect()
}

/// Writes down where a consumer that is new to a topic starts, unless that is at the oldest record: resolved once, for all partitions, and children
/// before their parents. So a partition without a checkpoint whose parents have one came later, and is read from its beginning.
pub(crate) async fn write_down_start(ctx: &Context, topic: &Topic) -> Result<()> {
    if matches!(ctx.start, StartAt::Earliest) || !ctx.in_order {
        return Ok(());
    }
    let TopicPartitions { incarnation, partitions } = ctx.source.reader().partitions(topic).await?;
    let known = cuts(ctx, topic).await?;
    let new = |p: &&PartitionInfo| {
        !known.contains_key(&p.id) && !p.parents.iter().any(|parent| known.contains_key(parent))
    };
    let lease = Lease { owner: "start".to_owned(), epoch: 0 };
    for partition in children_first(&partitions).into_iter().filter(new) {
        let cut = if partition.closed && matches!(ctx.start, StartAt::Latest) {
            Cut::End
        } else {
            ctx.source.reader().cursor(topic, partition.id, ctx.start).await?.position()
        };
        let checkpoint = Checkpoint {
            consumer: ctx.consumer.clone(),
            topic: topic.clone(),
            partition_id: partition.id,
            cut,
            caught_up_at: None,
            version: 0,
            bus_incarnation: incarnation.clone(),
            lease: None,
            committed_at: None,
        };
        let answer = ctx.stores.checkpoints.commit(std::slice::from_ref(&checkpoint), &lease).await.pop();
        match answer {
            Some(Ok(_)) => {}
            // Another worker was first.
            Some(Err(e)) if matches!(e.kind(), ErrorKind::VersionConflict { .. } | ErrorKind::Fenced) => {}
            Some(Err(e)) => return Err(e),
            None => {
                let kind = ErrorKind::ProtocolViolation;
                return Err(Error::new(kind, "commit", "the store answered nothing"));
            }
        }
    }
    Ok(())
}

fn children_first(partitions: &[PartitionInfo]) -> Vec<&PartitionInfo> {
    let by_id: BTreeMap<_, _> = partitions.iter().map(|p| (p.id, p)).collect();
    let mut depths: BTreeMap<PartitionId, usize> = BTreeMap::new();
    // As many rounds as there are generations; bounded by the number of partitions, also should parents go round in a circle.
    for _ in 0..=partitions.len() {
        let before = depths.clone();
        for p in partitions {
            let above = p.parents.iter().filter(|id| by_id.contains_key(id)).filter_map(|id| before.get(id));
            depths.insert(p.id, above.max().map_or(0, |d| (d + 1).min(partitions.len())));
        }
        if depths == before {
            break;
        }
    }
    let mut sorted: Vec<_> = partitions.iter().collect();
    sorted.sort_by_key(|p| std::cmp::Reverse(depths.get(&p.id).copied().unwrap_or(0)));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u32, parents: &[u32], closed: bool) -> PartitionInfo {
        let parents = parents.iter().copied().map(PartitionId).collect();
        PartitionInfo { parents, closed, ..PartitionInfo::open(PartitionId(id)) }
    }

    #[test]
    fn a_child_is_eligible_once_all_its_parents_are_at_their_end_or_gone() {
        let tree = [
            info(0, &[], true),
            info(1, &[], true),
            info(2, &[0, 1], true),
            info(3, &[2], false),
            info(4, &[9], false),
        ];
        let at = |cuts: &[(u32, Cut)]| {
            let cuts = cuts.iter().map(|(p, c)| (PartitionId(*p), *c)).collect();
            eligible(&tree, &cuts).into_iter().map(|(p, child)| (p.0, child)).collect::<Vec<_>>()
        };
        assert_eq!(at(&[]), [(0, false), (1, false), (4, false)]);
        assert_eq!(at(&[(0, Cut::End)]), [(1, false), (4, false)]);
        assert_eq!(at(&[(0, Cut::End), (1, Cut::End)]), [(2, true), (4, false)]);
        assert_eq!(at(&[(0, Cut::End), (1, Cut::End), (2, Cut::End)]), [(3, true), (4, false)]);
        let order: Vec<_> = children_first(&tree).iter().map(|p| p.id.0).collect();
        assert_eq!(order, [3, 2, 0, 1, 4]);
    }
}
