//! What becomes of dead letters.

use eb_contract::stores::{DeadLetterFilter, Resolution};

use crate::Outcome;
use crate::dead_letter::{DeadLetterCase, letter, whole};
use crate::outcome::{ensure_eq, refused};

pub(crate) async fn a_resolved_letter_stays_as_history(case: &mut DeadLetterCase) -> Outcome {
    for (n, how) in (0..).zip([Resolution::Handled, Resolution::Dropped]) {
        let put = letter(n);
        let id = case.put(&put).await?;
        let reason = format!("because \"{n}\" \n\u{0} é");
        let resolved = case.store().resolve(id, how, &reason).await?;
        whole(&resolved, &put)?;
        let told = resolved.resolved.as_ref().map(|r| (r.how, r.reason.clone()));
        ensure_eq!(told, Some((how, reason)), "what became of it");
        case.open.reopen().await?;
        ensure_eq!(case.store().get(id).await?, resolved, "the letter after reopening");
        let open = case.store().list(&DeadLetterFilter::default(), 10).await?;
        ensure_eq!(open, vec![], "open letters");
    }
    Ok(())
}

pub(crate) async fn a_letter_is_resolved_once(case: &mut DeadLetterCase) -> Outcome {
    let id = case.put(&letter(1)).await?;
    let first = case.store().resolve(id, Resolution::Handled, "first").await?;
    for _ in 0..2 {
        let again = case.store().resolve(id, Resolution::Dropped, "second").await;
        refused("resolving it again", again, "already_exists")?;
        case.open.reopen().await?;
    }
    ensure_eq!(case.store().get(id).await?, first, "the letter");
    Ok(())
}

pub(crate) async fn of_two_who_resolve_one_succeeds(case: &mut DeadLetterCase) -> Outcome {
    let stores = [case.store(), case.open.second().await?];
    for n in 0..5 {
        let id = case.put(&letter(n)).await?;
        let (a, b) = tokio::join!(
            stores[0].resolve(id, Resolution::Handled, "a"),
            stores[1].resolve(id, Resolution::Dropped, "b")
        );
        let (won, lost) = if a.is_ok() { (a?, b) } else { (b?, a) };
        refused("the later of two", lost, "already_exists")?;
        ensure_eq!(case.store().get(id).await?, won, "the letter");
    }
    Ok(())
}

pub(crate) async fn a_resolution_needs_a_reason(case: &mut DeadLetterCase) -> Outcome {
    let id = case.put(&letter(1)).await?;
    for reason in ["", " \n", &"é".repeat(1025)] {
        let refusal = case.store().resolve(id, Resolution::Dropped, reason).await;
        refused("a resolution without a fit reason", refusal, "invalid_input")?;
    }
    ensure_eq!(case.store().get(id).await?.resolved, None, "what became of it");
    case.store().resolve(id, Resolution::Dropped, &"é".repeat(1024)).await?;
    Ok(())
}
