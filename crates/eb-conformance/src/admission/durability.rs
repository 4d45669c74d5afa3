//! Checkpoints, policies, closing and crashes.

use eb_contract::stores::Confirmation;
use eb_contract::stores::ReservationId;

use crate::Outcome;
use crate::admission::{
    AdmissionCase, checkpoint_at, dense, entry, entry_at, epoch, key, request, same_entry,
};
use crate::outcome::{ensure, ensure_eq, refused, same_list};

pub(crate) async fn a_checkpoint_comes_back_as_stored(case: &mut AdmissionCase) -> Outcome {
    ensure_eq!(case.index().checkpoint().await?, None, "the checkpoint of a new index");
    for offset in [0, 9, 10, 4] {
        // The gate decides where it stands, also after it has rebuilt the index.
        case.index().commit_checkpoint(checkpoint_at(offset)).await?;
        ensure_eq!(case.index().checkpoint().await?, Some(checkpoint_at(offset)), "the checkpoint");
    }
    Ok(())
}

pub(crate) async fn policies_are_remembered_in_order(case: &mut AdmissionCase) -> Outcome {
    let index = case.index();
    ensure_eq!(index.policy_history().await?, vec![], "the policies of a new index");
    let history = [epoch("r1", 1_000_000, 0), epoch("r2", 2_000_000, 10), epoch("r1", 3_000_000, 20)];
    for (n, policy) in history.iter().enumerate() {
        index.record_policy(policy.clone()).await?;
        index.record_policy(policy.clone()).await?;
        ensure_eq!(index.policy_history().await?, history[..=n], "the policies so far");
    }
    Ok(())
}

pub(crate) async fn everything_is_there_after_a_clean_close(case: &mut AdmissionCase) -> Outcome {
    let mut all: Vec<_> = (0..40).map(entry).collect();
    case.admit(&all[..20]).await?;
    case.index().commit_checkpoint(checkpoint_at(20)).await?;
    case.admit(&all[20..30]).await?;
    case.index().apply(all[30..].to_vec()).await?;
    case.index().record_policy(epoch("r1", 1_000_000, 0)).await?;
    for round in 0..2u64 {
        case.open.reopen().await?;
        ensure_eq!(
            case.index().checkpoint().await?,
            Some(checkpoint_at(20)),
            "the checkpoint after reopening"
        );
        let policies = case.index().policy_history().await?;
        ensure_eq!(policies, vec![epoch("r1", 1_000_000, 0)], "the policies after reopening");
        for e in &all {
            case.expect_entry(e).await?;
        }
        all.push(entry(40 + round));
        case.admit(&all[all.len() - 1..]).await?;
    }
    all.sort_by_key(|e| e.key);
    same_list("all entries", &case.scan_all(9).await?, &all)?;
    Ok(())
}

pub(crate) async fn a_checkpoint_is_never_there_without_its_entries(case: &mut AdmissionCase) -> Outcome {
    let mut kept = 0;
    for round in 1..=4u64 {
        let entries: Vec<_> = (round * 100..round * 100 + 30).map(entry).collect();
        case.admit(&entries[..20]).await?;
        case.index().apply(entries[20..].to_vec()).await?;
        if round % 2 == 1 {
            case.index().commit_checkpoint(checkpoint_at(round)).await?;
            kept = round;
        }
        // Not covered by any checkpoint: may be there afterwards or not.
        case.admit(&[entry(round * 1000)]).await?;
        case.open.crash().await?;
        ensure_eq!(
            case.index().checkpoint().await?,
            Some(checkpoint_at(kept)),
            "the checkpoint after a crash"
        );
        for round in (1..=kept).step_by(2) {
            for n in round * 100..round * 100 + 30 {
                let got = case.index().get(entry(n).key).await?;
                same_entry("get after a crash", got.as_ref(), &entry(n))?;
            }
        }
        // What is there is whole and true.
        for e in case.scan_all(50).await? {
            let known = (1..=4000).find(|n| entry(*n).key == e.key);
            ensure!(known.is_some_and(|n| entry(n) == e), "an entry that nobody made: {e:?}");
        }
        // The gate reads the rest from the log.
        case.index().apply(entries).await?;
        case.index().apply(vec![entry(round * 1000)]).await?;
    }
    Ok(())
}

pub(crate) async fn a_policy_outlives_a_crash(case: &mut AdmissionCase) -> Outcome {
    case.index().record_policy(epoch("r1", 1_000_000, 0)).await?;
    case.open.crash().await?;
    case.index().record_policy(epoch("r2", 2_000_000, 5)).await?;
    case.open.crash().await?;
    let expected = vec![epoch("r1", 1_000_000, 0), epoch("r2", 2_000_000, 5)];
    ensure_eq!(case.index().policy_history().await?, expected, "the policies after crashes");
    Ok(())
}

pub(crate) async fn what_a_crash_lost_can_be_applied_again(case: &mut AdmissionCase) -> Outcome {
    let all: Vec<_> = (0..30).map(entry).collect();
    case.admit(&all).await?;
    // A later copy of the first event, as an unknown outcome leaves it.
    let copy = entry_at(all[0].key, 0, dense(500));
    case.open.crash().await?;
    let mut log = all.clone();
    log.push(copy);
    case.index().apply(log).await?;
    for e in &all {
        case.expect_entry(e).await?;
    }
    case.index().commit_checkpoint(checkpoint_at(501)).await?;
    case.open.crash().await?;
    for e in &all {
        case.expect_entry(e).await?;
    }
    Ok(())
}

pub(crate) async fn a_closed_index_refuses(case: &mut AdmissionCase) -> Outcome {
    case.admit(&[entry(1)]).await?;
    let index = case.index();
    index.close().await?;
    let confirmation = Confirmation { reservation: ReservationId(1), entry: entry(2) };
    refused("reserve", index.reserve(&[request(key(9, 9))]).await, "closed")?;
    refused("confirm", index.confirm(vec![confirmation]).await, "closed")?;
    refused("renew", index.renew(vec![ReservationId(1)]).await, "closed")?;
    refused("release", index.release(vec![ReservationId(1)]).await, "closed")?;
    refused("apply", index.apply(vec![entry(2)]).await, "closed")?;
    refused("checkpoint", index.checkpoint().await, "closed")?;
    refused("commit_checkpoint", index.commit_checkpoint(checkpoint_at(1)).await, "closed")?;
    refused("get", index.get(entry(1).key).await, "closed")?;
    refused("find_event", index.find_event(entry(1).key.event).await, "closed")?;
    refused("scan", index.scan(None, 1).await, "closed")?;
    refused("open_reservations", index.open_reservations().await, "closed")?;
    refused("record_policy", index.record_policy(epoch("r1", 1, 0)).await, "closed")?;
    refused("policy_history", index.policy_history().await, "closed")?;
    refused("probe", index.probe().await, "closed")?;
    Ok(())
}
