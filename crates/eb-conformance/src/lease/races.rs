//! Many who want one lease, and many calls against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::stores::{Claim, Lease, Renewal, WorkReport};
use eb_contract::{ConsumerName, PartitionId};
use futures_util::future::{join_all, try_join_all};

use crate::lease::{LeaseCase, MINUTE, consumer, key, reports, topic};
use crate::outcome::{ensure, ensure_eq};
use crate::random::Random;
use crate::{Failure, Outcome, SEED_VARIABLE};

pub(crate) async fn of_many_who_race_one_gets_it(case: &mut LeaseCase) -> Outcome {
    let stores = [case.store(), case.open.second().await?];
    for round in 0..5 {
        let owners: Vec<String> = (0..16).map(|n| format!("worker-{n}")).collect();
        let wanted = key(round);
        let claims = join_all(owners.iter().enumerate().map(|(n, owner)| {
            let (store, owner, wanted) = (stores[n % 2].clone(), owner.clone(), wanted.clone());
            tokio::spawn(async move { store.claim(&wanted, &owner, MINUTE).await })
        }))
        .await;
        let mut holders = BTreeSet::new();
        let mut told = BTreeSet::new();
        for claim in claims {
            match claim?? {
                Claim::Held(lease) => _ = holders.insert((lease.owner, lease.epoch)),
                Claim::Taken { by, .. } => _ = told.insert((by.owner, by.epoch)),
            }
        }
        ensure_eq!(holders.len(), 1, "holders of one lease ({holders:?})");
        ensure_eq!(told, holders, "whom the others were told of");
    }
    Ok(())
}

pub(crate) async fn one_holds_it_at_any_time(case: &mut LeaseCase) -> Outcome {
    let stores = [case.store(), case.open.second().await?];
    let busy = Arc::new(AtomicBool::new(false));
    let rounds = (case.pace.operations / 10).max(3);
    let worker = |n: usize| {
        let (store, busy) = (stores[n % 2].clone(), busy.clone());
        async move {
            let mut epochs = Vec::new();
            while epochs.len() < rounds {
                let Claim::Held(lease) = store.claim(&key(0), &format!("worker-{n}"), MINUTE).await? else {
                    tokio::task::yield_now().await;
                    continue;
                };
                ensure!(!busy.swap(true, Ordering::SeqCst), "worker {n} holds {lease:?} beside another");
                tokio::task::yield_now().await;
                busy.store(false, Ordering::SeqCst);
                store.release(&key(0), &lease).await?;
                epochs.push(lease.epoch);
            }
            Ok::<_, Failure>(epochs)
        }
    };
    let epochs = try_join_all((0..6).map(|n| tokio::spawn(worker(n)))).await?;
    let mut all = BTreeSet::new();
    for epochs in epochs {
        let epochs = epochs?;
        ensure!(epochs.is_sorted_by(|a, b| a < b), "epochs of one worker: {epochs:?}");
        for epoch in epochs {
            ensure!(all.insert(epoch), "epoch {epoch} was given twice");
        }
    }
    Ok(())
}

/// What the model knows of a lease.
struct Held {
    lease: Lease,
    end: Option<u64>,
    report: Option<WorkReport>,
}

/// Times end on fives and pass in tens of seconds, so that the real seconds that a test takes never decide.
pub(crate) async fn random_calls_agree_with_a_plain_model(case: &mut LeaseCase) -> Outcome {
    println!("{SEED_VARIABLE}={}", case.seed);
    let mut random = Random::new(case.seed);
    let store = case.store();
    let (of, on) = (consumer("scorer"), topic("fp.bus.traffic.v1"));
    let mut now = 0;
    let mut leases: BTreeMap<u32, Held> = BTreeMap::new();
    let mut alive: BTreeMap<String, u64> = BTreeMap::new();
    for op in 0..case.pace.operations {
        let what = format!("operation {op} of {SEED_VARIABLE}={}", case.seed);
        let owner = ["a", "b", "c"][random.below(3)].to_owned();
        let partition = random.below(3) as u32;
        let seconds = [25, 65, 125][random.below(3)];
        let time = Duration::from_secs(seconds);
        match random.below(10) {
            0..4 => {
                let claim = store.claim(&key(partition), &owner, time).await?;
                let before = leases.get(&partition);
                let lasting = before.filter(|h| h.end.is_some_and(|end| end > now));
                match (claim, lasting) {
                    (Claim::Held(lease), Some(h)) if h.lease.owner == owner => {
                        ensure_eq!(lease, h.lease, "{what}: claimed again");
                        let end = h.end.max(Some(now + seconds));
                        leases.insert(partition, Held { lease, end, report: h.report });
                    }
                    (Claim::Taken { by, .. }, Some(h)) if h.lease.owner != owner => {
                        ensure_eq!(by, h.lease, "{what}: the holder");
                    }
                    (Claim::Held(lease), None) => {
                        let last = before.map_or(0, |h| h.lease.epoch);
                        ensure!(lease.epoch > last, "{what}: epoch {} after {last}", lease.epoch);
                        leases.insert(partition, Held { lease, end: Some(now + seconds), report: None });
                    }
                    (claim, _) => return Err(Failure::new(format!("{what}: {claim:?} for {owner}"))),
                }
            }
            4..7 => {
                let mut report = || (random.below(3) > 0).then(|| reports::report(random.below(100) as u64));
                let renewal = |(p, h): (&u32, &Held)| Renewal {
                    partition_id: PartitionId(*p),
                    lease: h.lease.clone(),
                    report: report(),
                };
                let asked: Vec<_> = leases.iter().map(renewal).collect();
                let beat = store.heartbeat(&of, &on, &owner, time, &asked).await?;
                let end = alive.entry(owner.clone()).or_default();
                *end = (now + seconds).max(*end);
                alive.retain(|_, end| *end > now);
                let living: Vec<String> = alive.keys().cloned().collect();
                ensure_eq!(beat.workers, living, "{what}: who lives");
                ensure_eq!(beat.renewed.len(), asked.len(), "{what}: answers");
                for ((h, renewed), asked) in leases.values_mut().zip(beat.renewed).zip(asked) {
                    let may = h.lease.owner == owner && h.end.is_some_and(|end| end > now);
                    ensure_eq!(renewed.is_ok(), may, "{what}: whether {:?} is renewed for {owner}", h.lease);
                    if may {
                        h.end = h.end.max(Some(now + seconds));
                        h.report = asked.report.or(h.report);
                    }
                }
            }
            7 => {
                if let Some(h) = leases.get_mut(&partition) {
                    store.release(&key(partition), &h.lease).await?;
                    h.end = None;
                }
            }
            8 => {
                case.open.pass(Duration::from_secs(10)).await?;
                now += 10;
            }
            _ => {
                store.leave(&of, &on, &owner).await?;
                alive.remove(&owner);
                leases.values_mut().filter(|h| h.lease.owner == owner).for_each(|h| h.end = None);
            }
        }
        same_list(case, &of, &leases, now).await.map_err(|e| Failure::new(format!("{what}: {e}")))?;
    }
    Ok(())
}

/// Holds the store's list against what is known to be held, by whom, and what was last reported of it.
async fn same_list(case: &LeaseCase, of: &ConsumerName, leases: &BTreeMap<u32, Held>, now: u64) -> Outcome {
    let list = case.store().list(Some(of)).await?;
    let told = list
        .into_iter()
        .map(|i| (i.key.partition_id.0, i.lease, i.left.is_some(), i.reported.map(|reported| reported.work)));
    let got: Vec<_> = told.collect();
    let lasts = |h: &Held| h.end.is_some_and(|end| end > now);
    let known = |(p, h): (&u32, &Held)| (*p, h.lease.clone(), lasts(h), h.report.filter(|_| lasts(h)));
    let expected: Vec<_> = leases.iter().map(known).collect();
    ensure_eq!(got, expected, "the list");
    Ok(())
}
