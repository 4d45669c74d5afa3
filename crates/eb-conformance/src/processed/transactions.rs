//! Marks and checkpoints as one, and a handler's effects with them.

use eb_contract::Cut;
use eb_contract::stores::Checkpoint;

use crate::outcome::{ensure_eq, refused};
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
