//! Whoever was overtaken records nothing.

use eb_contract::Cut;

use crate::Outcome;
use crate::outcome::refused;
use crate::processed::{Line, ProcessedCase, lease, mark, marks, next};

pub(crate) async fn a_stale_lease_records_nothing(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line { lease: lease("b", 7), ..Line::new(0) };
    case.step(&mut line, marks([1]), Cut::Begin).await?;
    for stale in [lease("a", 6), lease("b", 6), lease("a", 7), lease("a", 0)] {
        let step = line.step(marks([2]), Cut::Begin);
        refused(&format!("a step under {stale:?}"), case.store().record(&step, &stale).await, "fenced")?;
    }
    case.expect_marked(&line, &[mark(2)], false, "fenced").await?;
    case.step(&mut line, marks([3]), Cut::Begin).await
}

pub(crate) async fn a_higher_epoch_takes_over(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line { lease: lease("a", 9), ..Line::new(0) };
    case.step(&mut line, marks([1]), Cut::Begin).await?;
    let before = line.lease.clone();
    line.lease = lease("b", 10);
    case.step(&mut line, vec![], next(1)).await?;
    let step = line.step(marks([2]), next(1));
    refused("a step of whom was overtaken", case.store().record(&step, &before).await, "fenced")?;
    // Above 2⁶³ too.
    line.lease = lease("c", u64::MAX);
    case.step(&mut line, marks([3]), next(1)).await?;
    let step = line.step(marks([2]), next(1));
    let overtaken = case.store().record(&step, &lease("b", u64::MAX - 1)).await;
    refused("a step below the last epoch", overtaken, "fenced")?;
    case.expect_marked(&line, &[mark(2)], false, "fenced").await
}

pub(crate) async fn fencing_is_of_one_partition(case: &mut ProcessedCase) -> Outcome {
    let mut high = Line { lease: lease("a", 9), ..Line::new(0) };
    case.step(&mut high, marks([1]), Cut::Begin).await?;
    let mut low = Line { lease: lease("b", 2), ..Line::new(1) };
    case.step(&mut low, marks([1]), Cut::Begin).await
}

pub(crate) async fn fencing_outlives_reopening(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line { lease: lease("b", 7), ..Line::new(0) };
    case.step(&mut line, vec![], Cut::Begin).await?;
    case.open.reopen().await?;
    let step = line.step(marks([2]), Cut::Begin);
    refused("a stale lease", case.store().record(&step, &lease("a", 6)).await, "fenced")?;
    refused("another owner", case.store().record(&step, &lease("a", 7)).await, "fenced")?;
    case.expect_marked(&line, &[mark(2)], false, "fenced").await?;
    case.step(&mut line, marks([3]), Cut::Begin).await
}

pub(crate) async fn a_second_opening_fences_the_first(case: &mut ProcessedCase) -> Outcome {
    let second = case.open.second().await?;
    let mut line = Line::new(0);
    case.step(&mut line, marks([1]), next(1)).await?;
    let stale = line.lease.clone();
    line.lease = lease("other", 2);
    let step = line.step(marks([2]), next(1));
    let stored = second.record(&step, &line.lease).await?;
    line.recorded(&step, stored)?;
    let step = line.step(marks([3]), next(1));
    refused("a step of whom was overtaken", case.store().record(&step, &stale).await, "fenced")?;
    case.expect_marked(&line, &[mark(3)], false, "fenced").await?;
    case.expect_marked(&line, &marks([1, 2]), true, "of both owners").await
}

pub(crate) async fn a_lease_has_an_owner(case: &mut ProcessedCase) -> Outcome {
    let line = Line::new(0);
    let step = line.step(marks([1]), Cut::Begin);
    for owner in ["", &"é".repeat(257)] {
        let refusal = case.store().record(&step, &lease(owner, 1)).await;
        refused("a step without a valid owner", refusal, "invalid_input")?;
    }
    case.expect_marked(&line, &[mark(1)], false, "refused").await
}
