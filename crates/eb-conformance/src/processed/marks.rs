//! The first guard: by place.

use std::time::Duration;

use eb_contract::stores::{Checkpoint, Mark, Seen};
use eb_contract::{Cut, Offset, OffsetKind, PartitionId};
use futures_util::FutureExt;
use futures_util::future::try_join_all;

use crate::Outcome;
use crate::outcome::{ensure, ensure_eq, refused};
use crate::processed::{Line, ProcessedCase, consumer, incarnation, mark, mark_of, marks, next, topic};

pub(crate) async fn a_record_that_was_not_marked_is_not_seen(case: &mut ProcessedCase) -> Outcome {
    let line = Line::new(0);
    ensure_eq!(case.seen(&line, &[]).await?, vec![], "what is known of no records");
    case.expect_marked(&line, &marks([0, 1, 99]), false, "an empty store").await
}

pub(crate) async fn a_marked_record_is_seen_and_no_other(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([3, 1, 10]), Cut::Begin).await?;
    let seen = case.seen(&line, &marks([0, 1, 2, 3, 9, 10, 11, 100])).await?;
    let here: Vec<bool> = seen.iter().map(|s| *s == Seen::Here).collect();
    ensure_eq!(here, vec![false, true, false, true, false, true, false, false], "which are seen");
    Ok(())
}

pub(crate) async fn a_mark_past_the_checkpoint_is_kept_while_the_cut_moves(
    case: &mut ProcessedCase,
) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([7, 50]), next(0)).await?;
    for n in 0..7 {
        case.step(&mut line, marks([n]), next(if n == 6 { 8 } else { n + 1 })).await?;
        case.expect_marked(&line, &marks([50]), true, "far past the cut").await?;
        if n < 6 {
            case.expect_marked(&line, &marks([7]), true, "past the cut").await?;
        }
    }
    case.expect_marked(&line, &marks([8, 9, 49, 51]), false, "never marked").await
}

pub(crate) async fn what_lies_behind_the_stored_cut_is_known_though_the_step_went_further(
    case: &mut ProcessedCase,
) -> Outcome {
    // The marks are recorded, and a crash comes before the checkpoint is: the next life starts from the old cut.
    let mut line = Line::new(0);
    case.step(&mut line, marks(0..5), next(5)).await?;
    let before = line.clone();
    case.step(&mut line, marks(5..9), next(9)).await?;
    case.open.reopen().await?;
    case.expect_marked(&before, &marks(5..9), true, "behind the cut that was stored before").await
}

pub(crate) async fn a_mark_again_changes_nothing(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![mark_of(1, 7), mark_of(2, 8)], Cut::Begin).await?;
    // The same place with another event, twice within one step.
    case.step(&mut line, vec![mark_of(1, 9), mark_of(1, 9), mark_of(3, 10)], Cut::Begin).await?;
    case.expect_marked(&line, &marks([1, 2, 3]), true, "marked again").await?;
    let asked = [mark_of(20, 7), mark_of(21, 9)];
    let seen = case.seen_by_event(&line, &asked).await?;
    ensure_eq!(seen, vec![crate::processed::copy_at(0, 1), Seen::No], "the first event of the place stays");
    Ok(())
}

pub(crate) async fn scopes_that_look_alike_never_mix(case: &mut ProcessedCase) -> Outcome {
    let places = [
        ("a", "b.c", 0, "life"),
        ("a.b", "c", 0, "life"),
        ("a", "b-c", 0, "life"),
        ("a-b", "c", 0, "life"),
        ("A", "b.c", 0, "life"),
        ("a", "b.c", 10, "life"),
        ("a", "b.c", 1, "life"),
        ("a", "b.c", 11, "life/2"),
        ("a", "b.c", 12, "../life%/:"),
    ];
    let mut lines = Vec::new();
    for (n, (of, on, partition, life)) in (0..).zip(places) {
        let stored = Checkpoint {
            consumer: consumer(of),
            topic: topic(on),
            partition_id: PartitionId(partition),
            bus_incarnation: incarnation(life),
            ..Line::new(0).stored
        };
        let mut line = Line { stored, ..Line::new(0) };
        case.step(&mut line, marks([n]), Cut::Begin).await?;
        lines.push(line);
    }
    for (n, line) in lines.iter().enumerate() {
        let seen = case.seen_by_event(line, &marks(0..lines.len() as u64)).await?;
        let here: Vec<usize> = (0..seen.len()).filter(|i| seen[*i] == Seen::Here).collect();
        ensure_eq!(here, vec![n], "what {:?} has seen", line.scope());
    }
    Ok(())
}

pub(crate) async fn another_life_of_the_bus_has_seen_nothing(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([1, 2]), Cut::Begin).await?;
    let mut scope = line.scope();
    scope.bus_incarnation = incarnation("life-2");
    let seen = case.store().seen(&scope, &marks([1, 2, 3]), true).await?;
    ensure_eq!(seen, vec![Seen::No; 3], "what is known in another life");
    Ok(())
}

pub(crate) async fn offsets_of_every_kind_are_told_apart(case: &mut ProcessedCase) -> Outcome {
    let kinds: [(OffsetKind, [&str; 4]); 4] = [
        (OffsetKind::FileLine, ["9", "10", "99", "18446744073709551614"]),
        (OffsetKind::RedisStreamId, ["9-10", "9-9", "10-9", "1769680800000-18446744073709551615"]),
        (
            OffsetKind::KinesisSequence,
            [
                "9",
                "10",
                "49590338271490256608559692538361571095921575989136588898",
                "49590338271490256608559692538361571095921575989136588899",
            ],
        ),
        (OffsetKind::External, ["0", "1", "10", "100"]),
    ];
    for (n, (kind, texts)) in (0..).zip(kinds) {
        let at =
            |text: &str| -> Outcome<Mark> { Ok(Mark { offset: Offset::parse(kind, text)?, event: None }) };
        let all = texts.iter().map(|text| at(text)).collect::<Outcome<Vec<_>>>()?;
        let mut line = Line::new(n);
        let first = Cut::past(all[0].offset);
        case.step(&mut line, vec![all[2].clone(), all[0].clone()], first).await?;
        case.expect_marked(&line, &[all[2].clone()], true, kind.as_str()).await?;
        case.expect_marked(&line, &[all[1].clone(), all[3].clone()], false, kind.as_str()).await?;
    }
    Ok(())
}

pub(crate) async fn an_offset_of_another_kind_is_refused(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([5]), next(1)).await?;
    let redis = Mark { offset: Offset::redis(7, 0), event: None };
    let step = line.step(vec![mark(6), redis], next(1));
    refused(
        "a step with two kinds of offsets",
        case.store().record(&step, &line.lease).await,
        "invalid_input",
    )?;
    case.expect_marked(&line, &[mark(6)], false, "a refused step").await
}

pub(crate) async fn a_record_without_an_event_is_marked_by_place(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    let bare = |n| Mark { event: None, ..mark(n) };
    case.step(&mut line, vec![bare(4), mark(5)], Cut::Begin).await?;
    let seen = case.seen_by_event(&line, &[bare(4), mark(4), bare(5), bare(6)]).await?;
    ensure_eq!(seen, vec![Seen::Here, Seen::Here, Seen::Here, Seen::No], "records without events");
    Ok(())
}

pub(crate) async fn answers_stand_in_the_place_of_their_questions(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks((0..200).filter(|n| n % 3 == 0)), Cut::Begin).await?;
    let asked: Vec<u64> = (0..200).rev().chain([7, 7, 6, 6]).collect();
    let seen = case.seen(&line, &marks(asked.iter().copied())).await?;
    let expected: Vec<Seen> = asked.iter().map(|n| if n % 3 == 0 { Seen::Here } else { Seen::No }).collect();
    ensure_eq!(seen, expected, "the answers");
    Ok(())
}

pub(crate) async fn a_step_without_marks_is_a_step(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![], next(3)).await?;
    case.step(&mut line, vec![], next(3)).await?;
    case.step(&mut line, marks([3]), next(4)).await
}

pub(crate) async fn everything_is_there_after_reopening(case: &mut ProcessedCase) -> Outcome {
    let mut lines: Vec<Line> = (0..5).map(Line::new).collect();
    for line in &mut lines {
        for n in 0..10 {
            case.step(line, marks([n, n + 20]), next(n)).await?;
        }
    }
    for _ in 0..2 {
        case.open.reopen().await?;
        for line in &mut lines {
            case.expect_marked(line, &marks(9..10), true, "behind the cut").await?;
            case.expect_marked(line, &marks(20..30), true, "far behind the cut").await?;
            case.expect_marked(line, &marks(10..20), false, "never marked").await?;
            let cut = line.stored.cut;
            case.step(line, vec![], cut).await?;
        }
    }
    Ok(())
}

pub(crate) async fn a_second_opening_sees_what_the_first_has_recorded(case: &mut ProcessedCase) -> Outcome {
    let second = case.open.second().await?;
    let mut line = Line::new(0);
    for n in 0..5 {
        case.step(&mut line, marks([n, 100 + n]), next(n)).await?;
        let seen = second.seen(&line.scope(), &marks([n, 100 + n, n + 1]), true).await?;
        ensure_eq!(
            seen,
            vec![Seen::Here, Seen::Here, Seen::No],
            "what the second opening knows after step {n}"
        );
    }
    // The lease moves on to the second, and back.
    for (epoch, n) in [(2, 5), (3, 6)] {
        line.lease = crate::processed::lease(&format!("worker {epoch}"), epoch);
        let store = if epoch == 2 { second.clone() } else { case.store() };
        let step = line.step(marks([n]), next(5));
        let stored = store.record(&step, &line.lease).await?;
        line.recorded(&step, stored)?;
    }
    case.expect_marked(&line, &marks([5, 6, 104]), true, "of both").await
}

pub(crate) async fn many_partitions_at_once_never_mix(case: &mut ProcessedCase) -> Outcome {
    let workers = (0..8).map(|partition| {
        let store = case.store();
        tokio::spawn(async move {
            let mut line = Line::new(partition);
            for n in 0..10 {
                let step = line.step(marks([n * 8 + u64::from(partition)]), next(0));
                let stored = store.record(&step, &line.lease).await?;
                line.recorded(&step, stored)?;
            }
            Ok::<_, crate::Failure>(line)
        })
    });
    for line in try_join_all(workers).await? {
        let line = line?;
        let own = u64::from(line.stored.partition_id.0);
        let seen = case.seen(&line, &marks(0..80)).await?;
        let expected: Vec<Seen> = (0..80).map(|n| if n % 8 == own { Seen::Here } else { Seen::No }).collect();
        ensure_eq!(seen, expected, "the marks of partition {own}");
    }
    Ok(())
}

pub(crate) async fn a_dropped_step_is_recorded_whole_or_not_at_all(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, vec![], next(0)).await?;
    for n in 0..20_u64 {
        let store = case.store();
        let three = marks([n * 10, n * 10 + 1, n * 10 + 2]);
        let step = line.step(three.clone(), next(0));
        let recording = store.record(&step, &line.lease);
        // Dropped in time, after one poll, or before the first.
        match n % 3 {
            0 => drop(tokio::time::timeout(Duration::from_micros(n * 20), recording).await),
            1 => drop(recording.now_or_never()),
            _ => drop(recording),
        }
        // What was dropped may still get done, so the version is found out by trying.
        let mut stored = None;
        for version in [line.stored.version, line.stored.version + 1, line.stored.version] {
            let whole = case.seen(&line, &three).await?;
            ensure!(whole.iter().all(|s| *s == whole[0]), "after a dropped step: {whole:?}");
            line.stored.version = version;
            let step = line.step(three.clone(), next(0));
            match case.store().record(&step, &line.lease).await {
                Ok(answer) => {
                    stored = Some((step, answer));
                    break;
                }
                Err(e) if e.kind().code() == "version_conflict" => {}
                Err(e) => return Err(e.into()),
            }
        }
        let Some((step, answer)) = stored else { return Err(crate::Failure::new("no version is taken")) };
        line.recorded(&step, answer)?;
        case.expect_marked(&line, &three, true, "recorded again").await?;
    }
    Ok(())
}

pub(crate) async fn marks_alone_are_recorded_or_refused(case: &mut ProcessedCase) -> Outcome {
    let line = Line::new(0);
    match case.store().mark(&line.scope(), &marks([1, 2])).await {
        Ok(()) => {
            case.store().mark(&line.scope(), &marks([2, 3])).await?;
            case.open.reopen().await?;
            case.expect_marked(&line, &marks([1, 2, 3]), true, "marked alone").await?;
            let seen = case.seen_by_event(&line, &[mark_of(9, 1)]).await?;
            ensure_eq!(seen, vec![crate::processed::copy_at(0, 1)], "a copy of what was marked alone");
        }
        Err(e) => {
            ensure_eq!(e.kind().code(), "unsupported", "the refusal ({e})");
            case.expect_marked(&line, &marks([1, 2]), false, "refused").await?;
        }
    }
    Ok(())
}

pub(crate) async fn a_probe_leaves_nothing_behind(case: &mut ProcessedCase) -> Outcome {
    let mut line = Line::new(0);
    case.step(&mut line, marks([0]), next(0)).await?;
    case.store().probe().await?;
    case.expect_marked(&line, &marks([0]), true, "after a probe").await?;
    case.step(&mut line, marks([1]), next(2)).await
}
