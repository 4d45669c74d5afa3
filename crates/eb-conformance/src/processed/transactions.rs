//! Marks and checkpoints as one, and a handler's effects with them.

use std::sync::Arc;

use eb_contract::Cut;
use eb_contract::stores::{Checkpoint, DeadLetterFilter, DeadLetterId, DeadLetterStore, Resolution};

use crate::dead_letter::letter;
use crate::outcome::{ensure, ensure_eq, refused};
use crate::processed::{Line, ProcessedCase, lease, mark, marks, next};
use crate::{Failure, Outcome};

async fn stored(case: &ProcessedCase, line: &Line) -> Outcome<Option<Checkpoint>> {
    let Some(checkpoints) = case.open.checkpoints() else {
        return Err(Failure::new("the factory offers checkpoints but does not show them"));
    };
    let c = &line.stored;
    Ok(checkpoints.load(&c.consumer, &c.topic, c.partition_id).await?)
}

pub(crate) async fn a_step_commits_its_checkpoint(case: &mut ProcessedCase) -> Outcome {
    ensure_eq!(case.store().keeps_checkpoints(), true, "whether the store keeps checkpoints");
    let mut line = Line::new(0);
    for n in 0..4 {
        case.step(&mut line, marks([n]), next(n + 1)).await?;
        ensure_eq!(stored(case, &line).await?, Some(line.stored.clone()), "the checkpoint after step {n}");
    }
    Ok(())
}

pub(crate) async fn a_refused_checkpoint_records_no_mark(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([0]), next(5)).await?;
    let good = line.step(marks([7]), next(6));
    let bent = |change: fn(&mut Checkpoint)| {
        let mut step = good.clone();
        change(&mut step.checkpoint);
        step
    };
    let steps = [
        ("version_conflict", bent(|c| c.version = 0)),
        ("version_conflict", bent(|c| c.version += 1)),
        ("backward_commit", bent(|c| c.cut = next(4))),
        ("wrong_incarnation", bent(|c| c.bus_incarnation = crate::checkpoint::incarnation("life-2"))),
    ];
    for (code, step) in steps {
        refused(code, case.store().record(&step, &line.lease).await, code)?;
    }
    let stale = case.store().record(&good, &lease("worker", 0)).await;
    refused("a stale lease", stale, "fenced")?;
    case.expect_marked(&line, &[mark(7)], false, "refused").await?;
    ensure_eq!(stored(case, &line).await?, Some(line.stored.clone()), "the checkpoint after refusals");
    case.step(&mut line, marks([7]), next(6)).await
}

pub(crate) async fn effects_marks_and_checkpoint_come_together(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    for n in 0..3 {
        let mut transaction = case.open.begin().await?;
        transaction.save().await?;
        transaction.write(&format!("effect {n}")).await?;
        ensure_eq!(case.open.effects().await?.len(), n as usize, "effects before the commit");
        let step = line.step(marks([n]), next(n + 1));
        let stored = transaction.commit(&step, &line.lease).await?;
        line.recorded(&step, Some(stored))?;
    }
    let expected: Vec<String> = (0..3).map(|n| format!("effect {n}")).collect();
    ensure_eq!(case.open.effects().await?, expected, "effects");
    ensure_eq!(stored(case, &line).await?, Some(line.stored.clone()), "the checkpoint");
    case.expect_marked(&line, &marks(0..3), true, "handled").await
}

pub(crate) async fn undoing_takes_back_one_record_alone(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let mut transaction = case.open.begin().await?;
    for n in 0..4 {
        transaction.save().await?;
        transaction.write(&format!("effect {n}")).await?;
        if n % 2 == 1 {
            transaction.undo().await?;
        }
    }
    // Tried again in the same transaction.
    transaction.save().await?;
    transaction.write("effect 1, again").await?;
    transaction.undo().await?;
    transaction.write("effect 1, the third time").await?;
    let step = line.step(marks([0, 1, 2]), next(3));
    let stored = transaction.commit(&step, &line.lease).await?;
    line.recorded(&step, Some(stored))?;
    let expected = ["effect 0", "effect 1, the third time", "effect 2"].map(String::from).to_vec();
    ensure_eq!(case.open.effects().await?, expected, "effects");
    Ok(())
}

pub(crate) async fn a_dropped_transaction_leaves_nothing(case: &mut ProcessedCase) -> Outcome {
    for _ in 0..20 {
        let mut transaction = case.open.begin().await?;
        transaction.save().await?;
        transaction.write("never").await?;
        drop(transaction);
    }
    ensure_eq!(case.open.effects().await?, Vec::<String>::new(), "effects");
    let mut line = Line::new(0);
    case.step(&mut line, marks([0]), next(1)).await
}

pub(crate) async fn a_refused_commit_leaves_no_effect(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line { lease: lease("b", 5), ..Line::new(0) };
    case.step(&mut line, marks([0]), next(1)).await?;
    for (code, owner, cut) in
        [("fenced", lease("a", 4), next(2)), ("backward_commit", line.lease.clone(), Cut::Begin)]
    {
        let mut transaction = case.open.begin().await?;
        transaction.save().await?;
        transaction.write("never").await?;
        let answer = transaction.commit(&line.step(marks([1]), cut), &owner).await;
        let refusal = refused(code, answer, code)?;
        ensure_eq!(refusal.effect(), eb_contract::Effect::None, "the effect of a refusal");
    }
    ensure_eq!(case.open.effects().await?, Vec::<String>::new(), "effects");
    case.expect_marked(&line, &[mark(1)], false, "refused").await?;
    case.step(&mut line, marks([1]), next(2)).await
}

pub(crate) async fn of_two_transactions_on_one_partition_one_commits(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![], next(0)).await?;
    let (mut first, mut second) = (case.open.begin().await?, case.open.begin().await?);
    first.write("first").await?;
    second.write("second").await?;
    let step = line.step(marks([0]), next(1));
    let answers = tokio::join!(first.commit(&step, &line.lease), second.commit(&step, &line.lease));
    let (winner, answer, loser) = match answers {
        (Ok(stored), lost) => ("first", stored, lost),
        (lost, Ok(stored)) => ("second", stored, lost),
        (Err(a), Err(b)) => return Err(Failure::new(format!("neither is committed: {a}; {b}"))),
    };
    refused("the later of two steps from one version", loser, "version_conflict")?;
    ensure_eq!(case.open.effects().await?, vec![winner.to_owned()], "effects");
    line.recorded(&step, Some(answer))?;
    case.expect_marked(&line, &[mark(0)], true, "handled").await
}

fn letters(case: &ProcessedCase) -> Outcome<Arc<dyn DeadLetterStore>> {
    let none = || Failure::new("the factory offers transactions but does not show their dead letters");
    case.open.dead_letters().ok_or_else(none)
}

/// The lines that open letters are about.
async fn open(case: &ProcessedCase) -> Outcome<Vec<u64>> {
    let list = letters(case)?.list(&DeadLetterFilter::default(), 100).await?;
    Ok(list.iter().filter_map(|l| l.letter.record.eb_ref.offset.as_u64()).collect())
}

/// Puts a letter about line 0 by a step that marks it.
async fn dead(case: &ProcessedCase, line: &mut Line) -> Outcome<DeadLetterId> {
    let mut transaction = case.open.begin().await?;
    transaction.bury(&[letter(0)]).await?;
    let step = line.step(marks([0]), next(1));
    let stored = transaction.commit(&step, &line.lease).await?;
    line.recorded(&step, Some(stored))?;
    let list = letters(case)?.list(&DeadLetterFilter::default(), 2).await?;
    ensure_eq!(list.len(), 1, "letters after one was put");
    Ok(list[0].id)
}

pub(crate) async fn letters_come_with_the_commit_and_not_before(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let mut transaction = case.open.begin().await?;
    transaction.save().await?;
    transaction.write("effect 1").await?;
    transaction.bury(&[letter(0), letter(2)]).await?;
    ensure_eq!(open(case).await?, Vec::<u64>::new(), "letters before the commit");
    let step = line.step(marks([0, 1, 2]), next(3));
    let stored = transaction.commit(&step, &line.lease).await?;
    line.recorded(&step, Some(stored))?;
    ensure_eq!(open(case).await?, vec![0, 2], "letters after the commit");
    case.expect_marked(&line, &marks(0..3), true, "handled or buried").await?;
    ensure_eq!(case.open.effects().await?, vec!["effect 1".to_owned()], "effects");
    // The same record once more (after a reset, say): the letter that is open stays the one.
    let mut transaction = case.open.begin().await?;
    transaction.bury(&[letter(2), letter(3)]).await?;
    transaction.commit(&line.step(marks([3]), next(4)), &line.lease).await?;
    ensure_eq!(open(case).await?, vec![0, 2, 3], "letters after one was put again");
    Ok(())
}

pub(crate) async fn a_refused_or_dropped_transaction_leaves_no_letter(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line { lease: lease("b", 5), ..Line::new(0) };
    case.step(&mut line, marks([0]), next(1)).await?;
    let mut transaction = case.open.begin().await?;
    transaction.bury(&[letter(1)]).await?;
    drop(transaction);
    for (code, owner, cut) in
        [("fenced", lease("a", 4), next(2)), ("backward_commit", line.lease.clone(), Cut::Begin)]
    {
        let mut transaction = case.open.begin().await?;
        transaction.bury(&[letter(1)]).await?;
        let answer = transaction.commit(&line.step(marks([1]), cut), &owner).await;
        refused(code, answer, code)?;
    }
    ensure_eq!(open(case).await?, Vec::<u64>::new(), "letters of transactions that were not committed");
    Ok(())
}

pub(crate) async fn a_retried_letter_ends_with_its_effect_and_its_mark(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let id = dead(case, &mut line).await?;
    // A store may have lost the mark behind the checkpoint, or somebody has put the letter in another way.
    case.store().forget_from(&line.scope(), &Cut::Begin).await?;
    let mut transaction = case.open.begin().await?;
    transaction.write("effect 0").await?;
    ensure_eq!(case.open.effects().await?, Vec::<String>::new(), "effects before the commit");
    ensure_eq!(open(case).await?, vec![0], "letters before the commit");
    let ended = transaction.resolve(id, (&line.scope(), &mark(0)), "mended \"\u{1F980}\"").await?;
    let end = ended.resolved.map(|end| (end.how, end.reason));
    ensure_eq!(
        end,
        Some((Resolution::Handled, "mended \"\u{1F980}\"".to_owned())),
        "what became of the letter"
    );
    ensure_eq!(open(case).await?, Vec::<u64>::new(), "open letters");
    ensure!(letters(case)?.get(id).await?.resolved.is_some(), "the letter is still open");
    ensure_eq!(case.open.effects().await?, vec!["effect 0".to_owned()], "effects");
    case.expect_marked(&line, &[mark(0)], true, "retried").await
}

pub(crate) async fn of_two_retries_of_a_letter_one_has_its_effect(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let id = dead(case, &mut line).await?;
    let (scope, of) = (line.scope(), mark(0));
    let (mut first, mut second) = (case.open.begin().await?, case.open.begin().await?);
    first.write("first").await?;
    second.write("second").await?;
    let both = tokio::join!(
        first.resolve(id, (&scope, &of), "by the first"),
        second.resolve(id, (&scope, &of), "by the second")
    );
    let (winner, loser) = match both {
        (Ok(_), lost) => ("first", lost),
        (lost, Ok(_)) => ("second", lost),
        (Err(a), Err(b)) => return Err(Failure::new(format!("neither is committed: {a}; {b}"))),
    };
    let refusal = refused("the later of two retries", loser, "already_exists")?;
    ensure_eq!(refusal.effect(), eb_contract::Effect::None, "the effect of a refusal");
    ensure_eq!(case.open.effects().await?, vec![winner.to_owned()], "effects");
    let mut late = case.open.begin().await?;
    late.write("late").await?;
    let late = late.resolve(id, (&scope, &of), "once more").await;
    refused("a retry of a resolved letter", late, "already_exists")?;
    let mut lost = case.open.begin().await?;
    lost.write("lost").await?;
    let lost = lost.resolve(DeadLetterId(u64::MAX >> 2), (&scope, &of), "no such letter").await;
    refused("a retry of a letter that is not there", lost, "not_found")?;
    ensure_eq!(case.open.effects().await?, vec![winner.to_owned()], "effects in the end");
    Ok(())
}

pub(crate) async fn a_dropped_retry_leaves_the_letter_open(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let id = dead(case, &mut line).await?;
    for _ in 0..5 {
        let mut transaction = case.open.begin().await?;
        transaction.write("never").await?;
        drop(transaction);
    }
    let mut transaction = case.open.begin().await?;
    transaction.write("never").await?;
    let scope = line.scope();
    refused(
        "a retry without a reason",
        transaction.resolve(id, (&scope, &mark(0)), " ").await,
        "invalid_input",
    )?;
    ensure_eq!(open(case).await?, vec![0], "open letters");
    ensure_eq!(case.open.effects().await?, Vec::<String>::new(), "effects");
    Ok(())
}
