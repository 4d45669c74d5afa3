//! Who should have how many partitions, and which.

use std::collections::{BTreeMap, BTreeSet};

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

/// How many of `partitions` belong to `me` among the workers, given how many each holds now: all as many, and where it does not come out even
/// one more to those who hold the most, by name where that says nothing. So a worker that joins takes what others have too much, and nothing
/// else moves.
fn share(partitions: usize, holds: &BTreeMap<&str, usize>, me: &str) -> usize {
    let mine = holds.get(me).copied().unwrap_or(0);
    let before = |(name, count): &(&&str, &usize)| **count > mine || **count == mine && **name < me;
    let rank = holds.iter().filter(|(name, _)| **name != me).filter(before).count();
    let count = holds.len() + usize::from(!holds.contains_key(me));
    partitions / count + usize::from(rank < partitions % count)
}

/// How many partitions each worker holds: the others as the leases tell, `me` as it knows itself. One that the others do not know of yet
/// counts itself.
fn holdings<'w>(
    held: &BTreeSet<PartitionId>,
    leases: &'w [LeaseInfo],
    workers: &'w [String],
    me: &'w str,
) -> BTreeMap<&'w str, usize> {
    let mut holds: BTreeMap<&str, usize> = workers.iter().map(|w| (w.as_str(), 0)).collect();
    for lease in leases.iter().filter(|l| l.left.is_some()) {
        if let Some(count) = holds.get_mut(lease.lease.owner.as_str()) {
            *count += 1;
        }
    }
    holds.insert(me, held.len());
    holds
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
    let share = share(eligible.union(held).count(), &holdings(held, leases, workers, me), me);
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
    use std::time::Duration;

    use eb_contract::stores::{Lease, LeaseKey};
    use eb_contract::{ConsumerName, Topic};
    use proptest::prelude::*;

    use super::*;

    /// The leases of workers that hold these.
    fn leases(held: &BTreeMap<String, BTreeSet<PartitionId>>) -> Vec<LeaseInfo> {
        let lease = |owner: &String, partition_id: PartitionId| LeaseInfo {
            key: LeaseKey {
                consumer: ConsumerName::new("ledger").unwrap(),
                topic: Topic::new("t").unwrap(),
                partition_id,
            },
            lease: Lease { owner: owner.clone(), epoch: 1 },
            left: Some(Duration::from_secs(9)),
            reported: None,
        };
        held.iter().flat_map(|(owner, all)| all.iter().map(move |p| lease(owner, *p))).collect()
    }

    /// Lets each worker look once and do what its plan says; whoever claims what is taken gets nothing.
    fn round(eligible: &BTreeSet<PartitionId>, held: &mut BTreeMap<String, BTreeSet<PartitionId>>) {
        let workers: Vec<String> = held.keys().cloned().collect();
        for me in &workers {
            let plan = plan(eligible, &held[me], &leases(held), &workers, me);
            let taken: BTreeSet<_> = held.values().flatten().copied().collect();
            let mine = held.get_mut(me).unwrap();
            mine.retain(|p| !plan.give_up.contains(p));
            mine.extend(plan.claim.into_iter().take(plan.room).filter(|p| !taken.contains(p)));
        }
    }

    fn settle(eligible: &BTreeSet<PartitionId>, held: &mut BTreeMap<String, BTreeSet<PartitionId>>) {
        (0..8).for_each(|_| round(eligible, held));
    }

    fn expect_fair(
        eligible: &BTreeSet<PartitionId>,
        held: &BTreeMap<String, BTreeSet<PartitionId>>,
    ) -> std::result::Result<(), TestCaseError> {
        let all: Vec<_> = held.values().flatten().copied().collect();
        prop_assert_eq!(all.len(), eligible.len(), "each is held once");
        prop_assert_eq!(&all.iter().copied().collect::<BTreeSet<_>>(), eligible);
        let counts: Vec<_> = held.values().map(BTreeSet::len).collect();
        let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{:?}", counts);
        Ok(())
    }

    #[test]
    fn a_worker_that_nobody_knows_yet_counts_itself() {
        let two = BTreeMap::from([("a", 0), ("c", 0)]);
        assert_eq!([share(7, &two, "b"), share(1, &BTreeMap::new(), "x")], [2, 1]);
    }

    #[test]
    fn one_partition_stays_where_it_is_whoever_joins() {
        let eligible = BTreeSet::from([PartitionId(0)]);
        let mut held = BTreeMap::from([("m".to_owned(), eligible.clone())]);
        for name in ["z", "a", "k"] {
            held.insert(name.to_owned(), BTreeSet::new());
            settle(&eligible, &mut held);
            assert_eq!(held["m"], eligible, "{name} has joined");
        }
    }

    proptest! {
        #[test]
        fn shares_add_up_and_differ_by_one_at_most(
            partitions in 0usize..500,
            holds in proptest::collection::vec(0usize..20, 1..40),
        ) {
            let names: Vec<_> = (0..holds.len()).map(|n| format!("w{n:03}")).collect();
            let holds: BTreeMap<&str, usize> = names.iter().map(String::as_str).zip(holds).collect();
            let shares: Vec<_> = holds.keys().map(|w| share(partitions, &holds, w)).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), partitions);
            let count = holds.len();
            prop_assert!(shares.iter().all(|s| *s <= partitions.div_ceil(count) && *s >= partitions / count));
        }

        #[test]
        fn workers_that_follow_their_plans_come_to_rest_with_everything_held(
            partitions in 0u32..30,
            count in 1usize..8,
            first in proptest::collection::vec(0usize..8, 30),
        ) {
            let eligible: BTreeSet<_> = (0..partitions).map(PartitionId).collect();
            let mut held: BTreeMap<_, BTreeSet<_>> = (0..count).map(|n| (format!("w{n}"), BTreeSet::new())).collect();
            for p in &eligible {
                if let Some(of) = held.get_mut(&format!("w{}", first[p.0 as usize])) {
                    of.insert(*p);
                }
            }
            settle(&eligible, &mut held);
            expect_fair(&eligible, &held)?;
            let before = held.clone();
            settle(&eligible, &mut held);
            prop_assert_eq!(before, held, "at rest");
        }

        #[test]
        fn whoever_joins_or_leaves_moves_nothing_between_the_others(
            partitions in 0u32..30,
            count in 1usize..8,
            joins in any::<bool>(),
            which in 0usize..9,
        ) {
            let eligible: BTreeSet<_> = (0..partitions).map(PartitionId).collect();
            // Odd names, so that another may come before, between and behind them.
            let mut held: BTreeMap<_, BTreeSet<_>> = (0..count).map(|n| (format!("w{}", 2 * n + 1), BTreeSet::new())).collect();
            settle(&eligible, &mut held);
            let before = held.clone();
            if joins {
                held.insert(format!("w{}", 2 * which), BTreeSet::new());
            } else if count > 1 {
                held.remove(&format!("w{}", 2 * (which % count) + 1));
            }
            settle(&eligible, &mut held);
            expect_fair(&eligible, &held)?;
            for (name, mine) in &held {
                let Some(had) = before.get(name) else { continue };
                if joins {
                    prop_assert!(mine.is_subset(had), "{} got {:?}, which it had not", name, mine.difference(had));
                } else {
                    prop_assert!(mine.is_superset(had), "{} lost {:?}", name, had.difference(mine));
                }
            }
        }
    }
}
