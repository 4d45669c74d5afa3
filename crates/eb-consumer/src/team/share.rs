//! Who should have how many partitions, and which.

use std::collections::BTreeSet;

use eb_contract::PartitionId;
use eb_contract::stores::LeaseInfo;

/// What a worker should change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Partitions to claim, in this order, until so many are held.
    pub(crate) claim: Vec<PartitionId>,
    pub(crate) room: usize,
    /// Partitions to give up.
    pub(crate) give_up: Vec<PartitionId>,
}

/// How many of `partitions` belong to `me` among `workers` (sorted): the first get one more where it does not come out even. One that the
/// others do not know of yet counts itself.
pub(crate) fn share(partitions: usize, workers: &[String], me: &str) -> usize {
    let known = workers.iter().any(|w| w == me);
    let count = workers.len() + usize::from(!known);
    let rank = workers.iter().filter(|w| w.as_str() < me).count();
    partitions / count + usize::from(rank < partitions % count)
}

/// What to claim and what to give up.
///
/// Eligible partitions come first to those whose rank they have, so that workers that start together reach for different ones.
pub(crate) fn plan(
    eligible: &BTreeSet<PartitionId>,
    held: &BTreeSet<PartitionId>,
    leases: &[LeaseInfo],
    workers: &[String],
    me: &str,
) -> Plan {
    let share = share(eligible.union(held).count(), workers, me);
    if held.len() > share {
        // Those with the highest numbers: the others reach for them from behind.
        return Plan {
            give_up: held.iter().rev().take(held.len() - share).copied().collect(),
            ..Plan::default()
        };
    }
    let room = share - held.len();
    if room == 0 {
        return Plan::default();
    }
    let taken: BTreeSet<_> = leases
        .iter()
        .filter(|l| l.left.is_some() && l.lease.owner != me)
        .map(|l| l.key.partition_id)
        .collect();
    let mut free: Vec<_> =
        eligible.iter().copied().filter(|p| !held.contains(p) && !taken.contains(p)).collect();
    let rank = workers.iter().filter(|w| w.as_str() < me).count();
    if !free.is_empty() {
        let start = rank * free.len() / workers.len().max(1) % free.len();
        free.rotate_left(start);
    }
    Plan { claim: free, room, give_up: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_worker_that_nobody_knows_yet_counts_itself() {
        let workers = ["a".to_owned(), "c".to_owned()];
        assert_eq!([share(7, &workers, "b"), share(1, &[], "x")], [2, 1]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_differ_by_one_at_most(partitions in 0usize..500, count in 1usize..40) {
            let workers: Vec<_> = (0..count).map(|n| format!("w{n:03}")).collect();
            let shares: Vec<_> = workers.iter().map(|w| share(partitions, &workers, w)).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), partitions);
            prop_assert!(shares.iter().all(|s| *s <= partitions.div_ceil(count) && *s >= partitions / count));
        }

        #[test]
        fn workers_that_follow_their_plans_come_to_rest_with_everything_held(
            partitions in 0u32..30,
            count in 1usize..8,
            first in proptest::collection::vec(0usize..8, 30),
        ) {
            let workers: Vec<_> = (0..count).map(|n| format!("w{n}")).collect();
            let eligible: BTreeSet<_> = (0..partitions).map(PartitionId).collect();
            let mut held: Vec<BTreeSet<PartitionId>> = vec![BTreeSet::new(); count];
            for p in &eligible {
                if let Some(of) = held.get_mut(first[p.0 as usize]) {
                    of.insert(*p);
                }
            }
            for _ in 0..3 {
                for me in 0..count {
                    let mine = held[me].clone();
                    let taken: BTreeSet<_> = held.iter().flatten().copied().collect();
                    let free: BTreeSet<_> = eligible.iter().copied().filter(|p| mine.contains(p) || !taken.contains(p)).collect();
                    let all = eligible.clone();
                    let mut plan = plan(&all, &mine, &[], &workers, &workers[me]);
                    plan.claim.retain(|p| free.contains(p));
                    plan.claim.truncate(plan.room);
                    held[me].extend(plan.claim);
                    held[me].retain(|p| !plan.give_up.contains(p));
                }
            }
            prop_assert_eq!(held.iter().map(BTreeSet::len).sum::<usize>(), eligible.len());
            for (me, mine) in held.iter().enumerate() {
                prop_assert_eq!(mine.len(), share(eligible.len(), &workers, &workers[me]));
            }
        }
    }
}
