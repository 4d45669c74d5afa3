//! Commits: versions, direction, wholeness.

use std::collections::BTreeMap;
use std::time::Duration;

use eb_contract::stores::Checkpoint;
use eb_contract::{Cut, ErrorKind, Offset, OffsetKind, Timestamp};

use crate::checkpoint::{CheckpointCase, after, fresh, incarnation, lease, next};
use crate::outcome::{ensure, ensure_eq, refused};
use crate::random::{Random, SEED_VARIABLE};
use crate::{Failure, Outcome};

pub(crate) async fn an_unknown_checkpoint_is_none(case: &mut CheckpointCase) -> Outcome {
    ensure_eq!(case.load(&fresh(0, Cut::Begin)).await?, None, "a checkpoint that nobody committed");
    case.commit(&fresh(0, next(5))).await?;
    ensure_eq!(case.load(&fresh(1, Cut::Begin)).await?, None, "the checkpoint of another partition");
    let nothing = case.store().commit(&[], &lease("worker", 1)).await;
    ensure!(nothing.is_empty(), "{} answers to an empty commit", nothing.len());
    Ok(())
}

pub(crate) async fn what_is_committed_is_loaded_back_whole(case: &mut CheckpointCase) -> Outcome {
    let before = Timestamp::now();
    let caught_up_at = Timestamp::from_micros(1_700_000_000_123_456);
    let wanted = Checkpoint { caught_up_at, ..fresh(3, next(42)) };
    let stored = case.commit_as(&wanted, &lease("worker-ä \"1\"", 7)).await?;
    let sane = |at: Timestamp| before.saturating_since(at) <= Duration::from_secs(60);
    ensure!(stored.committed_at.is_some_and(sane), "committed_at is {:?}", stored.committed_at);
    let expected = Checkpoint {
        version: stored.version,
        lease: Some(lease("worker-ä \"1\"", 7)),
        committed_at: stored.committed_at,
        ..wanted
    };
    ensure!(stored.version > 0, "the first version is {}", stored.version);
    ensure_eq!(stored, expected, "the answer to a commit");
    case.expect_stored(&expected).await
}

pub(crate) async fn every_form_of_cut_comes_back(case: &mut CheckpointCase) -> Outcome {
    let cuts = [
        Cut::Begin,
        Cut::End,
        next(0),
        next(u64::MAX),
        after("0"),
        after("18446744073709551616"),
        after("49590338271490256608559692538361571095921575989136588898"),
        after(&"9".repeat(129)),
        Cut::Next(Offset::parse(OffsetKind::KinesisSequence, "77").map_err(|e| Failure::new(e.to_string()))?),
        Cut::After(Offset::redis(1_700_000_000_000, 18_446_744_073_709_551_615)),
        Cut::After(Offset::from_u64(OffsetKind::External, 9)),
    ];
    for (partition, cut) in (0..).zip(cuts) {
        let stored = case.commit(&fresh(partition, cut)).await?;
        ensure!(stored.cut == cut, "committed `{cut}`, stored `{}`", stored.cut);
        case.expect_stored(&stored).await?;
        let again = case.load(&stored).await?.map(|c| c.cut.to_string());
        ensure_eq!(again, Some(stored.cut.to_string()), "the text of the cut");
    }
    Ok(())
}

pub(crate) async fn the_first_commit_expects_version_zero(case: &mut CheckpointCase) -> Outcome {
    let wrong = Checkpoint { version: 1, ..fresh(0, next(1)) };
    let error =
        refused("a first commit that expects version 1", case.commit(&wrong).await, "version_conflict")?;
    ensure_eq!(error.kind(), &ErrorKind::VersionConflict { current: 0 }, "the version named");
    ensure_eq!(case.load(&wrong).await?, None, "what a refused first commit has left");
    case.commit(&fresh(0, next(1))).await?;
    Ok(())
}

pub(crate) async fn a_stale_version_conflicts_and_names_the_current_one(
    case: &mut CheckpointCase,
) -> Outcome {
    let first = case.commit(&fresh(0, next(1))).await?;
    let second = case.commit(&Checkpoint { cut: next(2), ..first.clone() }).await?;
    ensure!(second.version > first.version, "version {} after {}", second.version, first.version);
    for stale in [0, first.version, second.version + 1] {
        let late = Checkpoint { cut: next(3), version: stale, ..first.clone() };
        let error = refused(&format!("version {stale}"), case.commit(&late).await, "version_conflict")?;
        let current = ErrorKind::VersionConflict { current: second.version };
        ensure_eq!(error.kind(), &current, "the version named");
    }
    case.expect_stored(&second).await
}

pub(crate) async fn a_cut_that_goes_back_is_refused(case: &mut CheckpointCase) -> Outcome {
    let steps = [
        (next(10), next(9)),
        (next(100), next(99)),
        (next(5), Cut::Begin),
        (Cut::End, next(1_000_000)),
        (after("100"), after("99")),
        (
            after("10000000000000000000000000000000000000000"),
            after("9999999999999999999999999999999999999999"),
        ),
        (Cut::After(Offset::redis(10, 2)), Cut::After(Offset::redis(9, 10))),
        (Cut::After(Offset::redis(10, 10)), Cut::After(Offset::redis(10, 9))),
    ];
    for (partition, (from, to)) in (0..).zip(steps) {
        let stored = case.commit(&fresh(partition, from)).await?;
        let back = case.commit(&Checkpoint { cut: to, ..stored.clone() }).await;
        let error = refused(&format!("from `{from}` back to `{to}`"), back, "backward_commit")?;
        let named = matches!(error.kind(), ErrorKind::BackwardCommit { current } if *current == from);
        ensure!(named, "from `{from}` back to `{to}`: named {:?}", error.kind());
        case.expect_stored(&stored).await?;
        case.commit(&stored).await?;
    }
    Ok(())
}

pub(crate) async fn cuts_advance_as_numbers(case: &mut CheckpointCase) -> Outcome {
    let dense = [Cut::Begin, next(0), next(9), next(10), next(99), next(100), next(u64::MAX), Cut::End];
    let big = "9".repeat(60);
    let sparse = [Cut::Begin, after("9"), after("10"), after("99"), after("100"), after(&big), Cut::End];
    let redis = [Offset::redis(9, 99), Offset::redis(9, 100), Offset::redis(10, 0), Offset::redis(100, 9)];
    let redis = redis.map(Cut::After);
    for (partition, cuts) in (0..).zip([&dense[..], &sparse, &redis]) {
        let mut version = 0;
        for cut in cuts {
            let step = Checkpoint { version, ..fresh(partition, *cut) };
            let stored = case.commit(&step).await.map_err(|e| Failure::new(format!("on to `{cut}`: {e}")))?;
            ensure!(stored.version > version, "version {} after {version}", stored.version);
            version = stored.version;
            case.expect_stored(&stored).await?;
        }
    }
    Ok(())
}

pub(crate) async fn the_same_cut_again_raises_the_version(case: &mut CheckpointCase) -> Outcome {
    let mut stored = case.commit(&fresh(0, next(7))).await?;
    for _ in 0..3 {
        let again = case.commit(&stored).await?;
        ensure!(again.version > stored.version, "version {} after {}", again.version, stored.version);
        ensure!(again.cut == next(7), "the cut is now `{}`", again.cut);
        stored = again;
        case.expect_stored(&stored).await?;
    }
    Ok(())
}

pub(crate) async fn a_cut_of_another_kind_is_refused(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit(&fresh(0, next(7))).await?;
    let other = Checkpoint { cut: after("1000"), ..stored.clone() };
    refused("a cut of another kind", case.commit(&other).await, "invalid_input")?;
    case.expect_stored(&stored).await
}

pub(crate) async fn another_incarnation_is_refused(case: &mut CheckpointCase) -> Outcome {
    let stored = case.commit(&fresh(0, next(7))).await?;
    let other = Checkpoint { cut: next(8), bus_incarnation: incarnation("life-2"), ..stored.clone() };
    refused("another incarnation", case.commit(&other).await, "wrong_incarnation")?;
    case.expect_stored(&stored).await
}

pub(crate) async fn caught_up_at_never_goes_back(case: &mut CheckpointCase) -> Outcome {
    let at = |micros| Timestamp::from_micros(micros);
    let mut stored = case.commit(&fresh(0, next(1))).await?;
    ensure_eq!(stored.caught_up_at, None, "caught_up_at before the consumer ever was");
    let steps = [(at(5_000_000), at(5_000_000)), (at(4_999_999), at(5_000_000)), (None, at(5_000_000))];
    for (n, (given, expected)) in (2..).zip(steps.into_iter().chain([(at(5_000_001), at(5_000_001))])) {
        stored = case.commit(&Checkpoint { cut: next(n), caught_up_at: given, ..stored }).await?;
        ensure_eq!(stored.caught_up_at, expected, "caught_up_at after committing {given:?}");
        case.expect_stored(&stored).await?;
    }
    Ok(())
}

pub(crate) async fn many_partitions_commit_at_once(case: &mut CheckpointCase) -> Outcome {
    let mut all: Vec<_> = (0..40).map(|p| fresh(p, next(u64::from(p)))).collect();
    for round in 0..3u64 {
        let answers = case.store().commit(&all, &lease("worker", 1)).await;
        ensure_eq!(answers.len(), all.len(), "answers of a commit");
        let mut stored = Vec::new();
        for (answer, wanted) in answers.into_iter().zip(&all) {
            let c = answer?;
            ensure_eq!(c.partition_id, wanted.partition_id, "the partition that an answer is about");
            ensure!(c.cut == wanted.cut, "the cut of partition {} is `{}`", c.partition_id, c.cut);
            case.expect_stored(&c).await?;
            stored.push(c);
        }
        for c in &mut stored {
            c.cut = next(u64::from(c.partition_id.0) + 10 * (round + 1));
        }
        all = stored;
    }
    Ok(())
}

pub(crate) async fn one_refused_checkpoint_never_harms_the_others(case: &mut CheckpointCase) -> Outcome {
    let mut before = Vec::new();
    for p in 0..3 {
        before.push(case.commit(&fresh(p, next(10))).await?);
    }
    let mut wanted: Vec<_> = before.iter().map(|c| Checkpoint { cut: next(11), ..c.clone() }).collect();
    wanted[1].version += 5;
    let answers = case.store().commit(&wanted, &lease("worker", 1)).await;
    ensure_eq!(answers.len(), 3, "answers of a commit");
    let mut answers = answers.into_iter();
    let mut take = || answers.next().ok_or_else(|| Failure::new("an answer is missing"));
    let (first, second, third) = (take()?, take()?, take()?);
    refused("the stale one of three", second, "version_conflict")?;
    case.expect_stored(&before[1]).await?;
    // Either each stands alone, or all fail together; never something in between.
    ensure_eq!(first.is_ok(), third.is_ok(), "whether the first and the third were committed");
    for (answer, before) in [(first, &before[0]), (third, &before[2])] {
        match answer {
            Ok(stored) => {
                ensure!(stored.cut == next(11), "committed, yet the cut is `{}`", stored.cut);
                case.expect_stored(&stored).await?;
            }
            Err(e) => {
                refused::<()>("an innocent one of three", Err(e), "not_attempted")?;
                case.expect_stored(before).await?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn of_concurrent_commits_exactly_one_wins_each_version(
    case: &mut CheckpointCase,
) -> Outcome {
    const WRITERS: u64 = 8;
    for round in 0..4u64 {
        let current = case.load(&fresh(0, Cut::Begin)).await?;
        let version = current.map_or(0, |c| c.version);
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            let store = case.store();
            let mine = Checkpoint { version, ..fresh(0, next(round * 100 + writer)) };
            tasks.push(tokio::spawn(async move {
                let answers = store.commit(std::slice::from_ref(&mine), &lease("worker", 1)).await;
                answers.into_iter().next()
            }));
        }
        let mut winners = Vec::new();
        for task in tasks {
            match task.await?.ok_or_else(|| Failure::new("a commit without an answer"))? {
                Ok(stored) => winners.push(stored),
                Err(e) => {
                    refused::<()>("a commit that lost", Err(e), "version_conflict")?;
                }
            }
        }
        ensure_eq!(winners.len(), 1, "winners among {WRITERS} commits that expect version {version}");
        case.expect_stored(&winners[0]).await?;
    }
    Ok(())
}

pub(crate) async fn a_dropped_commit_is_done_or_not_done(case: &mut CheckpointCase) -> Outcome {
    let mut stored = case.commit(&fresh(0, next(0))).await?;
    for n in 1..20 {
        let store = case.store();
        let step = [Checkpoint { cut: next(n), ..stored.clone() }];
        let worker = lease("worker", 1);
        let committing = store.commit(&step, &worker);
        if n % 2 == 0 {
            // Dropped before it is polled, or while it is under way.
            let nothing = tokio::time::timeout(Duration::ZERO, committing).await;
            drop(nothing);
        } else {
            drop(committing);
        }
        // What was dropped may still get done: a new commit on what is stored must come through in the end.
        let mut tries = 0;
        stored = loop {
            let now = case.load(&stored).await?.ok_or_else(|| Failure::new("the checkpoint is gone"))?;
            let whole = now.cut == stored.cut && now.version == stored.version
                || now.cut == next(n) && now.version > stored.version;
            ensure!(whole, "after a dropped commit of `{}` there is {now:?}", next(n));
            match case.commit(&Checkpoint { cut: next(n), ..now }).await {
                Ok(stored) => break stored,
                Err(e) if e.kind().code() == "version_conflict" && tries < 3 => tries += 1,
                Err(e) => return Err(e.into()),
            }
        };
    }
    case.expect_stored(&stored).await
}

pub(crate) async fn everything_is_there_after_reopening(case: &mut CheckpointCase) -> Outcome {
    let mut all = Vec::new();
    for p in 0..12 {
        let cut =
            if p % 2 == 0 { next(u64::from(p)) } else { after(&format!("1{}", "0".repeat(p as usize))) };
        let first = case.commit(&fresh(p, cut)).await?;
        all.push(case.commit(&Checkpoint { caught_up_at: Timestamp::from_micros(77), ..first }).await?);
    }
    case.open.reopen().await?;
    for stored in &mut all {
        case.expect_stored(stored).await?;
        // The version goes on where it was.
        *stored = case.commit(stored).await?;
    }
    case.open.reopen().await?;
    for stored in &all {
        case.expect_stored(stored).await?;
    }
    Ok(())
}

pub(crate) async fn random_commits_agree_with_a_plain_model(case: &mut CheckpointCase) -> Outcome {
    println!("{SEED_VARIABLE}={}", case.seed);
    let mut random = Random::new(case.seed);
    let mut model: BTreeMap<u32, Checkpoint> = BTreeMap::new();
    let mut cuts: BTreeMap<u32, u64> = BTreeMap::new();
    for op in 0..case.pace.operations {
        let what = format!("operation {op} of {SEED_VARIABLE}={}", case.seed);
        let p = random.below(4) as u32;
        let known = model.get(&p).cloned();
        let (reached, version) =
            (cuts.get(&p).copied().unwrap_or(0), known.as_ref().map_or(0, |k| k.version));
        // Drawn around the cut that was reached, so that commits pass, go back and are stale to the very end.
        let cut = (reached + random.below(8) as u64).saturating_sub(3);
        let stale = random.below(3) == 0;
        let version = if stale { version + 1 } else { version };
        let answer = case.commit(&Checkpoint { version, ..fresh(p, next(cut)) }).await;
        let back =
            known.as_ref().is_some_and(|k| next(cut).compare(&k.cut) == Some(std::cmp::Ordering::Less));
        // Of two reasons to refuse, either may be named.
        let refusals = [(stale, "version_conflict"), (back, "backward_commit")];
        let refusals: Vec<_> =
            refusals.into_iter().filter(|(holds, _)| *holds).map(|(_, code)| code).collect();
        match answer {
            Ok(stored) => {
                ensure!(
                    refusals.is_empty(),
                    "{what}: a commit of {cut} at {version} passed, yet {refusals:?}"
                );
                model.insert(p, stored);
                cuts.insert(p, cut);
            }
            Err(e) => {
                let code = e.kind().code();
                ensure!(
                    refusals.contains(&code),
                    "{what}: a commit of {cut} at {version}: {e}, not {refusals:?}"
                );
            }
        }
        if let Some(stored) = model.get(&p) {
            case.expect_stored(stored).await.map_err(|e| Failure::new(format!("{what}: {e}")))?;
        }
    }
    let listed = case.store().list(None).await?;
    ensure_eq!(listed, model.into_values().collect::<Vec<_>>(), "the list at the end");
    Ok(())
}
