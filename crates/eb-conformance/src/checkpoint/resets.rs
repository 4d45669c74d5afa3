//! Resets: the one way back, with a reason.

use eb_contract::stores::{Checkpoint, ResetRequest};
use eb_contract::{Cut, Timestamp};

use crate::Outcome;
use crate::checkpoint::{CheckpointCase, fresh, incarnation, lease, next, reset_of};
use crate::outcome::{ensure, ensure_eq, refused};

pub(crate) async fn a_reset_needs_a_reason(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit(&fresh(0, next(10))).await?;
    for reason in [String::new(), "x".repeat(1025)] {
        let request = reset_of(&stored, next(1), &reason);
        let answer = case.store().reset(&request).await;
        refused(&format!("a reason of {} characters", reason.len()), answer, "invalid_input")?;
    }
    case.expect_stored(&stored).await?;
    case.store().reset(&reset_of(&stored, next(1), &"ä".repeat(1024))).await?;
    Ok(())
}

pub(crate) async fn a_reset_goes_back_and_the_running_consumer_conflicts(
    case: &mut CheckpointCase,
) -> Outcome {
    let stored = case.commit(&fresh(0, next(10))).await?;
    for to in [next(3), Cut::Begin, next(500), Cut::End, next(10)] {
        let before = case.load(&stored).await?.map_or(0, |c| c.version);
        let reset = case.store().reset(&reset_of(&stored, to, "replay after a wrong model")).await?;
        ensure!(reset.cut == to, "reset to `{to}`, stored `{}`", reset.cut);
        ensure!(reset.version > before, "version {} after {before}", reset.version);
        case.expect_stored(&reset).await?;
        let running = Checkpoint { cut: next(11), ..stored.clone() };
        refused("the consumer that still runs", case.commit(&running).await, "version_conflict")?;
        case.expect_stored(&reset).await?;
    }
    let reset = case.load(&stored).await?.ok_or_else(|| crate::Failure::new("the checkpoint is gone"))?;
    let on = case.commit(&Checkpoint { cut: next(11), ..reset }).await?;
    case.expect_stored(&on).await
}

pub(crate) async fn a_reset_creates_what_is_not_there(case: &mut CheckpointCase) -> Outcome {
    let like = fresh(4, Cut::Begin);
    let reset = case.store().reset(&reset_of(&like, next(50), "start here")).await?;
    ensure!(reset.version > 0, "the version of a checkpoint made by a reset is {}", reset.version);
    case.expect_stored(&reset).await?;
    refused("a first commit", case.commit(&fresh(4, next(51))).await, "version_conflict")?;
    let on = case.commit(&Checkpoint { cut: next(51), ..reset }).await?;
    case.expect_stored(&on).await
}

pub(crate) async fn a_reset_keeps_stale_owners_fenced(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit_as(&fresh(0, next(10)), &lease("new", 5)).await?;
    let reset = case.store().reset(&reset_of(&stored, next(2), "replay")).await?;
    let on = Checkpoint { cut: next(3), ..reset };
    refused("a lower epoch", case.commit_as(&on, &lease("old", 4)).await, "fenced")?;
    refused("another owner", case.commit_as(&on, &lease("old", 5)).await, "fenced")?;
    let stored = case.commit_as(&on, &lease("new", 5)).await?;
    case.expect_stored(&stored).await
}

pub(crate) async fn a_reset_moves_into_another_incarnation(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit(&fresh(0, next(10))).await?;
    let request = ResetRequest {
        bus_incarnation: incarnation("life-2"),
        ..reset_of(&stored, Cut::Begin, "the log was made anew")
    };
    let reset = case.store().reset(&request).await?;
    ensure_eq!(reset.bus_incarnation, incarnation("life-2"), "the incarnation after the reset");
    case.expect_stored(&reset).await?;
    let old = Checkpoint { bus_incarnation: incarnation("life-1"), cut: next(11), ..reset.clone() };
    refused("the old incarnation", case.commit(&old).await, "wrong_incarnation")?;
    let on = case.commit(&Checkpoint { cut: next(1), ..reset }).await?;
    case.expect_stored(&on).await
}

/// `caught_up_at` says that nothing was missed up to then, which a reset makes untrue.
pub(crate) async fn a_reset_forgets_when_the_consumer_was_caught_up(case: &mut CheckpointCase) -> Outcome {
    let caught_up_at = Timestamp::from_micros(5_000_000);
    let stored = case.commit(&Checkpoint { caught_up_at, ..fresh(0, next(10)) }).await?;
    ensure_eq!(stored.caught_up_at, caught_up_at, "caught_up_at as committed");
    let reset = case.store().reset(&reset_of(&stored, next(2), "replay")).await?;
    ensure_eq!(reset.caught_up_at, None, "caught_up_at after the reset");
    case.expect_stored(&reset).await
}

pub(crate) async fn a_reset_outlives_reopening(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit(&fresh(0, next(10))).await?;
    let reset = case.store().reset(&reset_of(&stored, next(2), "replay")).await?;
    case.open.reopen().await?;
    case.expect_stored(&reset).await?;
    let running = Checkpoint { cut: next(11), ..stored };
    refused("the consumer that still runs", case.commit(&running).await, "version_conflict")?;
    Ok(())
}

pub(crate) async fn resets_leave_their_history(case: &mut CheckpointCase) -> Outcome {
    let like = fresh(0, Cut::Begin);
    let other = fresh(1, Cut::Begin);
    case.store().reset(&reset_of(&like, next(10), "made here")).await?;
    let first = case.store().reset(&reset_of(&like, next(4), "went back: \"twice\"\nas told")).await?;
    case.commit(&Checkpoint { cut: next(6), ..first }).await?;
    let last = case.store().reset(&reset_of(&like, next(1), "once more")).await?;
    let history = case.open.reset_history(&like.consumer, &like.topic, like.partition_id).await?;
    let expected = [
        (None, "made here"),
        (Some(next(10)), "went back: \"twice\"\nas told"),
        (Some(next(6)), "once more"),
    ];
    let expected: Vec<_> = expected.map(|(cut, reason)| (cut, reason.to_owned())).into();
    ensure_eq!(history, expected, "the history of resets");
    case.expect_stored(&last).await?;
    let none = case.open.reset_history(&other.consumer, &other.topic, other.partition_id).await?;
    ensure_eq!(none, vec![], "the history of another partition");
    Ok(())
}
