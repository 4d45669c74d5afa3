//! Retention, and going back on purpose.

use std::time::Duration;

use eb_contract::stores::Seen;
use eb_contract::{Cut, Timestamp};

use crate::Outcome;
use crate::outcome::{ensure, ensure_eq, refused};
use crate::processed::{Line, ProcessedCase, consumer, copy_at, mark, mark_of, marks, next};

const HOUR: Duration = Duration::from_secs(3600);

fn ago(case: &ProcessedCase, time: Duration) -> Timestamp {
    let micros = case.open.now().as_micros() - i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH)
}

/// Forgets until nothing is left to forget; how many, and in how many calls.
async fn forget(case: &ProcessedCase, before: Timestamp, limit: usize) -> Outcome<u64> {
    let mut total = 0;
    loop {
        let gone = case.store().forget_before(&consumer("scorer"), before, limit).await?;
        ensure!(gone <= limit as u64, "{gone} were forgotten where at most {limit} were asked for");
        if gone == 0 {
            return Ok(total);
        }
        total += gone;
    }
}

pub(crate) async fn old_marks_before_the_checkpoint_are_forgotten(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks(0..10), next(10)).await?;
    case.open.pass(HOUR).await?;
    case.step(&mut line, marks(10..15), next(15)).await?;
    // The step that says that the cut before it was stored.
    case.step(&mut line, vec![], next(15)).await?;
    ensure_eq!(forget(case, ago(case, HOUR * 2), 100).await?, 0, "marks forgotten before their time");
    ensure_eq!(forget(case, ago(case, HOUR / 2), 3).await?, 10, "marks that are older than half an hour");
    let copies: Vec<_> = (0..15).map(|n| mark_of(100 + n, n)).collect();
    let seen = case.seen_by_event(&line, &copies).await?;
    ensure_eq!(seen[..10], vec![Seen::No; 10], "copies of forgotten events");
    let kept: Vec<Seen> = (10..15).map(|n| copy_at(0, n)).collect();
    ensure_eq!(seen[10..], kept, "copies of younger ones");
    case.open.reopen().await?;
    ensure_eq!(case.seen_by_event(&line, &copies).await?, seen, "the same after reopening");
    case.step(&mut line, marks([15]), next(16)).await
}

pub(crate) async fn the_oldest_are_forgotten_first(case: &mut ProcessedCase) -> Outcome {
    let mut lines = [Line::new(0), Line::new(1)];
    for n in 0..4 {
        let line = &mut lines[(n % 2) as usize];
        case.step(line, marks([n]), next(n + 1)).await?;
        case.open.pass(HOUR).await?;
    }
    for line in &mut lines {
        let cut = line.stored.cut;
        case.step(line, vec![], cut).await?;
    }
    for n in 0..4 {
        let gone = case.store().forget_before(&consumer("scorer"), ago(case, HOUR / 2), 1).await?;
        ensure_eq!(gone, 1, "forgotten");
        let mut known = Vec::new();
        for event in 0..4 {
            let seen = case.seen_by_event(&lines[0], &[mark_of(100, event)]).await?;
            known.push(seen != vec![Seen::No]);
        }
        let expected: Vec<bool> = (0..4).map(|event| event > n).collect();
        ensure_eq!(known, expected, "which events are known when {} are forgotten", n + 1);
    }
    Ok(())
}

pub(crate) async fn a_mark_past_the_checkpoint_is_kept_however_old(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([0, 5, 6]), next(1)).await?;
    case.step(&mut line, vec![], next(1)).await?;
    case.open.pass(HOUR).await?;
    ensure_eq!(forget(case, ago(case, HOUR / 2), 100).await?, 1, "marks before the checkpoint");
    case.expect_marked(&line, &marks([5, 6]), true, "past the checkpoint").await?;
    case.open.reopen().await?;
    case.expect_marked(&line, &marks([5, 6]), true, "past the checkpoint, reopened").await
}

pub(crate) async fn only_the_subscribers_own_marks_are_forgotten(case: &mut ProcessedCase) -> Outcome {
    let mut mine = Line::new(0);
    let mut theirs = Line::new(0);
    theirs.stored.consumer = consumer("scorer2");
    for line in [&mut mine, &mut theirs] {
        case.step(line, marks([0]), next(1)).await?;
        case.step(line, vec![], next(1)).await?;
    }
    case.open.pass(HOUR).await?;
    ensure_eq!(forget(case, ago(case, HOUR / 2), 100).await?, 1, "marks of one subscriber");
    let seen = case.seen_by_event(&theirs, &[mark_of(9, 0)]).await?;
    ensure_eq!(seen, vec![copy_at(0, 0)], "what the other subscriber knows");
    Ok(())
}

pub(crate) async fn marks_without_a_checkpoint_are_forgotten_by_age(case: &mut ProcessedCase) -> Outcome {
    let line = Line::new(0);
    if let Err(e) = case.store().mark(&line.scope(), &marks([1, 2])).await {
        ensure_eq!(e.kind().code(), "unsupported", "the refusal ({e})");
        return Ok(());
    }
    case.open.pass(HOUR).await?;
    case.store().mark(&line.scope(), &marks([3])).await?;
    ensure_eq!(forget(case, ago(case, HOUR / 2), 1).await?, 2, "old marks alone");
    case.expect_marked(&line, &marks([1, 2]), false, "forgotten").await?;
    case.expect_marked(&line, &marks([3]), true, "young").await
}

pub(crate) async fn marks_behind_a_cut_are_forgotten_on_purpose(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let mut beside = Line::new(1);
    case.step(&mut line, marks([2, 3, 9, 10, 11]), Cut::Begin).await?;
    case.step(&mut beside, marks([10]), Cut::Begin).await?;
    ensure_eq!(case.store().forget_from(&line.scope(), &next(10)).await?, 2, "marks behind the cut");
    case.expect_marked(&line, &marks([2, 3, 9]), true, "before the cut").await?;
    case.expect_marked(&line, &marks([10, 11]), false, "behind the cut").await?;
    case.expect_marked(&beside, &marks([10]), true, "of another partition").await?;
    let copy = case.seen_by_event(&line, &[mark_of(50, 11), mark_of(50, 9)]).await?;
    ensure_eq!(copy, vec![Seen::No, copy_at(0, 9)], "copies of what was forgotten, and of what was not");
    ensure_eq!(case.store().forget_from(&line.scope(), &next(10)).await?, 0, "marks behind the cut, again");
    case.open.reopen().await?;
    case.expect_marked(&line, &marks([10, 11]), false, "behind the cut, reopened").await?;
    // They can be handled and marked again.
    case.step(&mut line, marks([10]), Cut::Begin).await?;
    case.open.reopen().await?;
    case.expect_marked(&line, &marks([10]), true, "marked again").await?;
    case.expect_marked(&line, &marks([11]), false, "not marked again").await
}

pub(crate) async fn going_back_behind_the_checkpoint_makes_its_records_new(
    case: &mut ProcessedCase,
) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks(0..5), next(5)).await?;
    case.step(&mut line, marks(5..8), next(8)).await?;
    if let Some(checkpoints) = case.open.checkpoints() {
        let reset = crate::checkpoint::reset_of(&line.stored, next(3), "again from 3");
        line.stored = checkpoints.reset(&reset).await?;
    } else {
        line.stored.version += 1;
        line.stored.cut = next(3);
    }
    case.store().forget_from(&line.scope(), &next(3)).await?;
    case.expect_marked(&line, &marks(3..8), false, "to be handled again").await?;
    case.step(&mut line, marks([4, 6]), next(3)).await?;
    case.step(&mut line, marks([3]), next(5)).await?;
    case.open.reopen().await?;
    case.expect_marked(&line, &marks([6]), true, "handled again").await?;
    case.expect_marked(&line, &marks([5, 7]), false, "not yet handled again").await
}

pub(crate) async fn a_cut_of_another_kind_forgets_nothing(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([2]), Cut::Begin).await?;
    let other = Cut::After(eb_contract::Offset::redis(1, 1));
    refused("a cut of another kind", case.store().forget_from(&line.scope(), &other).await, "invalid_input")?;
    case.expect_marked(&line, &[mark(2)], true, "after a refusal").await
}
