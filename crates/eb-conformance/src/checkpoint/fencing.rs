//! Fencing: a stale owner never commits.

use eb_contract::stores::Checkpoint;

use crate::Outcome;
use crate::checkpoint::{CheckpointCase, fresh, lease, next};
use crate::outcome::{ensure_eq, refused};

pub(crate) async fn a_lower_epoch_is_fenced(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit_as(&fresh(0, next(1)), &lease("new", 10)).await?;
    for (owner, epoch) in [("old", 9), ("new", 9), ("old", 0)] {
        let late = Checkpoint { cut: next(2), ..stored.clone() };
        refused(
            &format!("epoch {epoch} of {owner}"),
            case.commit_as(&late, &lease(owner, epoch)).await,
            "fenced",
        )?;
    }
    case.expect_stored(&stored).await?;
    case.commit_as(&stored, &lease("new", 10)).await?;
    Ok(())
}

pub(crate) async fn another_owner_of_the_same_epoch_is_fenced(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit_as(&fresh(0, next(1)), &lease("a", 3)).await?;
    let late = Checkpoint { cut: next(2), ..stored.clone() };
    refused("another owner of epoch 3", case.commit_as(&late, &lease("b", 3)).await, "fenced")?;
    case.expect_stored(&stored).await
}

pub(crate) async fn a_higher_epoch_takes_over(case: &mut CheckpointCase) -> Outcome {
    let first = case.commit_as(&fresh(0, next(1)), &lease("a", 1)).await?;
    let second = case.commit_as(&Checkpoint { cut: next(2), ..first }, &lease("b", 2)).await?;
    ensure_eq!(second.lease, Some(lease("b", 2)), "who committed last");
    let late = Checkpoint { cut: next(3), ..second.clone() };
    refused("the former owner", case.commit_as(&late, &lease("a", 1)).await, "fenced")?;
    case.expect_stored(&second).await?;
    let third = case.commit_as(&late, &lease("a", u64::from(u32::MAX))).await?;
    case.expect_stored(&third).await
}

pub(crate) async fn a_lease_has_an_owner(case: &mut CheckpointCase) -> Outcome {
    for owner in [String::new(), "o".repeat(257)] {
        let answer = case.commit_as(&fresh(0, next(1)), &lease(&owner, 1)).await;
        refused(&format!("an owner of {} characters", owner.len()), answer, "invalid_input")?;
    }
    ensure_eq!(case.load(&fresh(0, next(1))).await?, None, "what refused commits have left");
    let stored = case.commit_as(&fresh(0, next(1)), &lease(&"ä".repeat(256), 1)).await?;
    case.expect_stored(&stored).await
}

pub(crate) async fn fencing_outlives_reopening(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit_as(&fresh(0, next(1)), &lease("new", 10)).await?;
    case.open.reopen().await?;
    let late = Checkpoint { cut: next(2), ..stored.clone() };
    refused("a lower epoch", case.commit_as(&late, &lease("old", 9)).await, "fenced")?;
    refused("another owner", case.commit_as(&late, &lease("old", 10)).await, "fenced")?;
    case.expect_stored(&stored).await
}
