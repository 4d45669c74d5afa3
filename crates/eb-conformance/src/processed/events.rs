//! The second guard: by event.

use eb_contract::Cut;
use eb_contract::stores::{Checkpoint, Seen};

use crate::Outcome;
use crate::outcome::ensure_eq;
use crate::processed::{
    Line, ProcessedCase, consumer, copy_at, event, incarnation, mark, mark_of, marks, next, topic,
};

pub(crate) async fn a_copy_further_on_is_known_by_its_event(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![mark_of(3, 70), mark_of(4, 71)], next(5)).await?;
    let asked = [mark_of(9, 70), mark_of(10, 71), mark_of(11, 72), mark_of(3, 70)];
    let seen = case.seen_by_event(&line, &asked).await?;
    ensure_eq!(seen[..3], [copy_at(0, 3), copy_at(0, 4), Seen::No], "copies");
    let plain = case.seen(&line, &asked[..3]).await?;
    ensure_eq!(plain, vec![Seen::No; 3], "copies, by place alone");
    Ok(())
}

pub(crate) async fn a_copy_in_a_child_of_the_partition_is_known(case: &mut ProcessedCase) -> Outcome {
    let (mut parent, child) = (Line::new(0), Line::new(7));
    case.seen_by_event(&child, &[mark_of(0, 70)]).await?;
    case.step(&mut parent, vec![mark_of(3, 70)], Cut::End).await?;
    ensure_eq!(
        case.seen_by_event(&child, &[mark_of(0, 70)]).await?,
        vec![copy_at(0, 3)],
        "a copy in a child"
    );
    Ok(())
}

pub(crate) async fn a_mark_is_never_its_own_copy(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks(0..3), next(3)).await?;
    for n in 3..6 {
        case.step(&mut line, marks([n]), next(n + 1)).await?;
    }
    // Before the checkpoint, where the place may be forgotten and the event not.
    for seen in case.seen_by_event(&line, &marks(0..6)).await? {
        ensure_eq!(matches!(seen, Seen::Copy { .. }), false, "a record answered as a copy of itself");
    }
    Ok(())
}

pub(crate) async fn a_copy_is_known_long_after_the_checkpoint_has_passed(
    case: &mut ProcessedCase,
) -> Outcome {
    let mut line = Line::new(0);
    for n in 0..30 {
        case.step(&mut line, marks([n]), next(n + 1)).await?;
    }
    let copies: Vec<_> = (0..30).map(|n| mark_of(100 + n, n)).collect();
    let expected: Vec<_> = (0..30).map(|n| copy_at(0, n)).collect();
    ensure_eq!(
        case.seen_by_event(&line, &copies).await?,
        expected,
        "copies of what lies before the checkpoint"
    );
    case.open.reopen().await?;
    ensure_eq!(case.seen_by_event(&line, &copies).await?, expected, "the same after reopening");
    Ok(())
}

pub(crate) async fn a_copy_that_was_marked_itself_is_seen_where_it_is(case: &mut ProcessedCase) -> Outcome {
    // The consumer marks a copy that it skips, so that its checkpoint can pass it.
    let mut line = Line::new(0);
    case.step(&mut line, vec![mark_of(1, 70)], Cut::Begin).await?;
    case.step(&mut line, vec![mark_of(5, 70)], Cut::Begin).await?;
    let seen = case.seen_by_event(&line, &[mark_of(1, 70), mark_of(5, 70), mark_of(8, 70)]).await?;
    ensure_eq!(seen[..2], [Seen::Here, Seen::Here], "both records of the event");
    ensure_eq!(matches!(seen[2], Seen::Copy { .. }), true, "a third record of the event: {:?}", seen[2]);
    Ok(())
}

pub(crate) async fn events_of_other_subscribers_topics_and_lives_are_no_copies(
    case: &mut ProcessedCase,
) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![mark_of(1, 70)], Cut::Begin).await?;
    let like = |change: fn(&mut Checkpoint)| {
        let mut other = line.clone();
        change(&mut other.stored);
        other
    };
    let others = [
        like(|c| c.consumer = consumer("another")),
        like(|c| c.topic = topic("fp.bus.control.v1")),
        like(|c| c.bus_incarnation = incarnation("life-2")),
    ];
    for other in others {
        let seen = case.seen_by_event(&other, &[mark_of(8, 70)]).await?;
        ensure_eq!(seen, vec![Seen::No], "what {:?} knows", other.scope());
    }
    Ok(())
}

pub(crate) async fn event_ids_alone_are_no_guard(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![mark(1)], Cut::Begin).await?;
    let mut twin = mark_of(2, 99);
    if let Some(e) = &mut twin.event {
        e.event_id = event(1).event_id;
    }
    ensure_eq!(case.seen_by_event(&line, &[twin]).await?, vec![Seen::No], "another event of the same id");
    // Keys that differ in any one byte are others.
    for at in 0..32 {
        let mut near = mark_of(3, 1);
        if let Some(e) = &mut near.event {
            e.dedupe[at] ^= 1;
        }
        ensure_eq!(
            case.seen_by_event(&line, &[near]).await?,
            vec![Seen::No],
            "a key that differs in byte {at}"
        );
    }
    Ok(())
}
