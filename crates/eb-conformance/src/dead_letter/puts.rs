//! What is put is kept, once and whole.

use std::collections::BTreeSet;
use std::time::Duration;

use eb_contract::stores::{DeadLetterFilter, DeadReason, FailedAttempt, NewDeadLetter, Resolution};
use eb_contract::{Offset, OffsetKind, PartitionId, Timestamp};
use futures_util::future::try_join_all;

use crate::dead_letter::{DeadLetterCase, at, consumer, incarnation, letter, topic, whole};
use crate::events::{envelope_of, nested, odd_envelopes, odd_keys};
use crate::outcome::{ensure, ensure_eq, refused};
use crate::{Failure, Outcome};

pub(crate) async fn a_letter_comes_back_whole(case: &mut DeadLetterCase) -> Outcome {
    let before = Timestamp::now().as_micros() - 86_400_000_000;
    let put = letter(7);
    let id = case.put(&put).await?;
    case.expect_whole(id, &put).await?;
    let stored = case.store().get(id).await?;
    ensure_eq!(stored.resolved, None, "what became of a fresh letter");
    ensure!(stored.put_at.as_micros() > before, "it was put at {}", stored.put_at);
    Ok(())
}

pub(crate) async fn odd_envelopes_and_keys_come_back_byte_for_byte(case: &mut DeadLetterCase) -> Outcome {
    let mut envelopes = odd_envelopes();
    envelopes.push(nested(60));
    envelopes.push(envelope_of(900_000, 1));
    let keys = odd_keys();
    let count = envelopes.len().max(keys.len());
    let mut letters = Vec::new();
    for n in 0..count {
        let mut put = letter(n as u64);
        put.record.envelope = envelopes[n % envelopes.len()].clone();
        put.record.partition_key = keys[n % keys.len()].clone();
        letters.push((case.put(&put).await?, put));
    }
    case.open.reopen().await?;
    for (id, put) in &letters {
        case.expect_whole(*id, put).await?;
    }
    let listed = case.all(&DeadLetterFilter::default(), 4).await?;
    ensure_eq!(listed.len(), letters.len(), "listed");
    for (listed, (_, put)) in listed.iter().zip(&letters) {
        whole(listed, put)?;
    }
    Ok(())
}

pub(crate) async fn odd_texts_and_every_reason_come_back(case: &mut DeadLetterCase) -> Outcome {
    let texts = [
        "",
        "a\nb\r\n\t\"\\",
        "\u{0}nul\u{0}",
        "👩‍👩‍👧‍👦 \u{2028}\u{feff}",
        "{\"json\":[1]}",
        "'; DROP TABLE x; --",
    ];
    let reasons = [
        DeadReason::Permanent,
        DeadReason::AttemptsExhausted,
        DeadReason::Undecodable,
        DeadReason::KeyParked,
    ];
    let failure = |n: usize| FailedAttempt { at: at(n as u64), errors: texts.map(String::from).to_vec() };
    for (n, text) in texts.into_iter().enumerate() {
        let put = NewDeadLetter {
            event_id: (n % 2 == 0).then(|| text.to_owned()),
            event_type: (n % 3 == 0).then(|| text.to_owned()),
            reason: reasons[n % 4],
            attempts: [0, 1, u32::MAX][n % 3],
            failures: (0..n).map(failure).collect(),
            parks_key: n % 2 == 1,
            bus_incarnation: incarnation("../life%/:"),
            ..letter(n as u64)
        };
        let id = case.put(&put).await?;
        case.expect_whole(id, &put).await?;
    }
    Ok(())
}

pub(crate) async fn offsets_of_every_kind_come_back(case: &mut DeadLetterCase) -> Outcome {
    let offsets = [
        (OffsetKind::FileLine, "18446744073709551614"),
        (OffsetKind::MemoryIndex, "7"),
        (OffsetKind::RedisStreamId, "7-0"),
        (OffsetKind::RedisStreamId, "1769680800000-18446744073709551615"),
        (OffsetKind::KinesisSequence, "49590338271490256608559692538361571095921575989136588898"),
        (OffsetKind::External, "7"),
        // The same digits of another kind are another place.
        (OffsetKind::FileLine, "7"),
    ];
    let mut ids = BTreeSet::new();
    for (kind, text) in offsets {
        let mut put = letter(0);
        put.record.eb_ref.offset = Offset::parse(kind, text)?;
        put.record.eb_ref.partition_id = PartitionId(u32::MAX);
        let id = case.put(&put).await?;
        case.expect_whole(id, &put).await?;
        ids.insert(id);
    }
    ensure_eq!(ids.len(), offsets.len(), "different letters");
    Ok(())
}

pub(crate) async fn names_rise(case: &mut DeadLetterCase) -> Outcome {
    let mut last = None;
    for n in 0..12 {
        if n % 4 == 3 {
            case.open.reopen().await?;
        }
        let id = case.put(&letter(n)).await?;
        ensure!(last < Some(id), "letter {id:?} after {last:?}");
        last = Some(id);
    }
    Ok(())
}

pub(crate) async fn putting_again_answers_the_letter_that_is_there(case: &mut DeadLetterCase) -> Outcome {
    let put = letter(7);
    let id = case.put(&put).await?;
    let changed = NewDeadLetter { attempts: 9, parks_key: true, ..put.clone() };
    ensure_eq!(case.put(&changed).await?, id, "the letter that was put again");
    case.open.reopen().await?;
    ensure_eq!(case.put(&changed).await?, id, "the letter that was put again after reopening");
    case.expect_whole(id, &put).await?;
    ensure_eq!(case.store().count_open(None).await?, 1, "open letters");
    Ok(())
}

pub(crate) async fn letters_of_other_consumers_lives_and_places_are_others(
    case: &mut DeadLetterCase,
) -> Outcome {
    let with = |change: fn(&mut NewDeadLetter)| {
        let mut other = letter(7);
        change(&mut other);
        other
    };
    let all = [
        letter(7),
        letter(8),
        with(|l| l.consumer = consumer("scorer2")),
        with(|l| l.bus_incarnation = incarnation("life-2")),
        with(|l| l.record.eb_ref.topic = topic("fp.bus.control.v1")),
        with(|l| l.record.eb_ref.partition_id = PartitionId(1)),
    ];
    let mut ids = BTreeSet::new();
    for put in &all {
        let id = case.put(put).await?;
        ensure!(ids.insert(id), "{id:?} names two letters");
        case.expect_whole(id, put).await?;
    }
    Ok(())
}

pub(crate) async fn a_batch_answers_each_letter_in_its_place(case: &mut DeadLetterCase) -> Outcome {
    let there = case.put(&letter(2)).await?;
    let batch: Vec<NewDeadLetter> = [0, 1, 2, 1, 3].map(letter).to_vec();
    let answers = case.store().put(&batch).await;
    ensure_eq!(answers.len(), batch.len(), "answers");
    let ids = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    ensure_eq!((ids[2], ids[3]), (there, ids[1]), "letters that were there already");
    for (id, put) in ids.iter().zip(&batch) {
        case.expect_whole(*id, put).await?;
    }
    ensure_eq!(case.store().count_open(None).await?, 4, "open letters");
    ensure_eq!(case.store().put(&[]).await.len(), 0, "answers to no letters");
    Ok(())
}

pub(crate) async fn one_beyond_the_limits_is_refused_and_harms_no_other(
    case: &mut DeadLetterCase,
) -> Outcome {
    let failure = |errors: Vec<String>| FailedAttempt { at: at(1), errors };
    let most = failure(vec!["é".repeat(2_000); 16]);
    let largest = NewDeadLetter {
        event_id: Some("é".repeat(256)),
        event_type: Some("é".repeat(256)),
        failures: vec![most.clone(); 16],
        ..letter(0)
    };
    let beyond = [
        NewDeadLetter { event_id: Some("é".repeat(257)), ..letter(1) },
        NewDeadLetter { event_type: Some("é".repeat(257)), ..letter(2) },
        NewDeadLetter { failures: vec![failure(vec![]); 17], ..letter(3) },
        NewDeadLetter { failures: vec![failure(vec![String::new(); 17])], ..letter(4) },
        NewDeadLetter { failures: vec![failure(vec!["é".repeat(2_001)])], ..letter(5) },
    ];
    let mut batch = beyond.to_vec();
    batch.push(largest.clone());
    let mut answers = case.store().put(&batch).await;
    ensure_eq!(answers.len(), batch.len(), "answers");
    let id = answers.pop().unwrap_or_else(|| unreachable!("counted above"))?;
    case.expect_whole(id, &largest).await?;
    for (n, answer) in answers.into_iter().enumerate() {
        refused(&format!("letter {n}"), answer, "invalid_input")?;
    }
    ensure_eq!(case.store().count_open(None).await?, 1, "open letters");
    Ok(())
}

pub(crate) async fn many_who_put_at_once_lose_nothing(case: &mut DeadLetterCase) -> Outcome {
    let stores = [case.store(), case.open.second().await?];
    // Each letter is put by two callers.
    let callers = (0..8_u64).map(|caller| {
        let store = stores[(caller % 2) as usize].clone();
        tokio::spawn(async move {
            let mut put = Vec::new();
            for n in 0..6 {
                let letter = letter(caller / 2 * 100 + n);
                for answer in store.put(std::slice::from_ref(&letter)).await {
                    put.push((letter.record.eb_ref.offset.to_string(), answer?));
                }
            }
            Ok::<_, Failure>(put)
        })
    });
    let mut ids = BTreeSet::new();
    for put in try_join_all(callers).await? {
        ids.extend(put?.into_iter().map(|(offset, id)| (id, offset)));
    }
    ensure_eq!(ids.len(), 24, "letters, each with one name");
    let listed = case.all(&DeadLetterFilter::default(), 5).await?;
    let listed: BTreeSet<_> =
        listed.into_iter().map(|l| (l.id, l.letter.record.eb_ref.offset.to_string())).collect();
    ensure_eq!(listed, ids, "what is listed");
    Ok(())
}

pub(crate) async fn a_dropped_put_is_done_or_not_done(case: &mut DeadLetterCase) -> Outcome {
    for n in 0..20_u64 {
        let (store, put) = (case.store(), letter(n));
        let letters = [put.clone()];
        let putting = store.put(&letters);
        if n % 2 == 0 {
            let nothing = tokio::time::timeout(Duration::from_micros(n * 20), putting).await;
            drop(nothing);
        } else {
            drop(putting);
        }
        let id = case.put(&put).await?;
        case.expect_whole(id, &put).await?;
    }
    ensure_eq!(case.store().count_open(None).await?, 20, "open letters");
    let listed = case.all(&DeadLetterFilter { resolved_too: true, ..DeadLetterFilter::default() }, 7).await?;
    ensure_eq!(listed.len(), 20, "letters");
    Ok(())
}

pub(crate) async fn a_resolved_letter_does_not_hide_a_new_failure(case: &mut DeadLetterCase) -> Outcome {
    let put = letter(7);
    let first = case.put(&put).await?;
    case.store().resolve(first, Resolution::Dropped, "known").await?;
    for _ in 0..2 {
        let second = case.put(&put).await?;
        ensure!(second > first, "the new letter {second:?} after {first:?}");
        case.expect_whole(second, &put).await?;
        ensure_eq!(case.put(&put).await?, second, "the new letter, put again");
        case.open.reopen().await?;
    }
    ensure_eq!(case.store().count_open(None).await?, 1, "open letters");
    ensure_eq!(
        case.store().get(first).await?.resolved.map(|r| r.how),
        Some(Resolution::Dropped),
        "the first letter"
    );
    Ok(())
}

pub(crate) async fn a_second_opening_sees_the_same_letters(case: &mut DeadLetterCase) -> Outcome {
    let second = case.open.second().await?;
    let id = case.put(&letter(1)).await?;
    ensure_eq!(second.count_open(None).await?, 1, "open letters in the second opening");
    let resolved = second.resolve(id, Resolution::Handled, "again").await?;
    ensure_eq!(case.store().get(id).await?, resolved, "the letter as the first opening has it");
    let next = second.put(&[letter(2)]).await.pop().unwrap_or_else(|| unreachable!("one letter was put"))?;
    case.expect_whole(next, &letter(2)).await?;
    ensure!(case.put(&letter(3)).await? > next, "names rise over both openings");
    Ok(())
}

pub(crate) async fn a_probe_leaves_nothing_behind(case: &mut DeadLetterCase) -> Outcome {
    case.store().probe().await?;
    let all = DeadLetterFilter { resolved_too: true, ..DeadLetterFilter::default() };
    ensure_eq!(case.store().list(&all, 10).await?, vec![], "letters after a probe");
    Ok(())
}
