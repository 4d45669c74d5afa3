//! Cuts: exclusive-next, at every place.

use std::cmp::Ordering;
use std::time::Duration;

use eb_contract::{Cut, Offset, OffsetKind, ReadLimit, ReadState, StartAt, Timestamp};

use crate::Outcome;
use crate::bus::{Acked, BusCase, Reading, same};
use crate::events::record;
use crate::outcome::{ensure, ensure_eq, refused};

pub(crate) async fn offsets_rise_strictly_as_numbers(case: &mut BusCase) -> Outcome {
    let topic = case.topic("rise").await?;
    let acked = case.publish_run(&topic, "k", 0, case.pace.records).await?;
    for pair in acked.windows(2) {
        let (a, b) = (pair[0].offset(), pair[1].offset());
        ensure_eq!(a.partial_cmp(&b), Some(Ordering::Less), "{b} after {a}");
        if a.kind().is_dense() {
            ensure_eq!(a.successor(), Some(b), "dense offsets leave nothing out");
        }
        // What goes over the wire must come back as the same number.
        ensure_eq!(Offset::parse(b.kind(), &b.to_string()).ok(), Some(b), "the text of {b}");
    }
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn resuming_at_any_cut_neither_repeats_nor_skips(case: &mut BusCase) -> Outcome {
    let topic = case.topic("resume").await?;
    let acked = case.publish_run(&topic, "k", 0, case.pace.records).await?;
    let partition = acked[0].at.partition_id;
    // Everything is visible before cuts are tried one by one.
    Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    for (i, a) in acked.iter().enumerate() {
        let mut cuts = vec![(Cut::Next(a.offset()), i), (Cut::After(a.offset()), i + 1)];
        if let Some(next) = a.offset().successor() {
            cuts.push((Cut::Next(next), i + 1));
        }
        for (cut, first) in cuts {
            let expected = &acked[first..acked.len().min(first + 3)];
            let mut reading = Reading::open(case, &topic, partition, cut).await?;
            let got = reading.take(expected.len()).await?;
            for (r, a) in got.iter().zip(expected) {
                same(r, a).map_err(|e| crate::Failure::new(format!("resuming at `{cut}`: {e}")))?;
            }
            if expected.is_empty() {
                reading.expect_head().await?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn a_batch_ends_where_the_next_one_starts(case: &mut BusCase) -> Outcome {
    let topic = case.topic("turns").await?;
    let acked = case.publish_run(&topic, "k", 0, 40).await?;
    let partition = acked[0].at.partition_id;
    Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    for size in [1, 3, 7, 40] {
        let mut at = StartAt::Earliest;
        let mut seen = 0;
        while seen < acked.len() {
            // A new cursor each time: only the cut carries over, as through a checkpoint.
            let mut reading = Reading::open(case, &topic, partition, at).await?;
            let wait = case.pace.visible_within;
            let batch = reading.step(ReadLimit::records(size).waiting(wait)).await?;
            ensure!(!batch.records.is_empty(), "nothing came at {at:?}, {seen} of {} were read", acked.len());
            for (r, a) in batch.records.iter().zip(&acked[seen..]) {
                same(r, a)?;
            }
            seen += batch.records.len();
            ensure!(seen <= acked.len(), "more records came than were published");
            ensure!(
                batch.state == ReadState::More || seen == acked.len(),
                "{:?} after {seen} of {} records that were read before",
                batch.state,
                acked.len()
            );
            at = StartAt::Cut(batch.next);
        }
        Reading::open(case, &topic, partition, at).await?.expect_head().await?;
    }
    Ok(())
}

pub(crate) async fn begin_and_earliest_start_at_the_first_record(case: &mut BusCase) -> Outcome {
    let topic = case.topic("begin").await?;
    let partition = case.partition_of(&topic, "k").await?;
    // Resolved while there is nothing yet, and then while there is something.
    let mut early = Vec::new();
    for start in [StartAt::Earliest, StartAt::Cut(Cut::Begin)] {
        early.push(Reading::open(case, &topic, partition, start).await?);
    }
    let acked = case.publish_run(&topic, "k", 0, 12).await?;
    for start in [StartAt::Earliest, StartAt::Cut(Cut::Begin)] {
        early.push(Reading::open(case, &topic, partition, start).await?);
    }
    for mut reading in early {
        let got = reading.take(acked.len()).await?;
        got.iter().zip(&acked).try_for_each(|(r, a)| same(r, a))?;
        reading.expect_head().await?;
    }
    Ok(())
}

pub(crate) async fn latest_brings_only_what_comes_later(case: &mut BusCase) -> Outcome {
    let topic = case.topic("latest").await?;
    let partition = case.partition_of(&topic, "k").await?;
    let mut of_empty = Reading::open(case, &topic, partition, StartAt::Latest).await?;
    let before = case.publish_run(&topic, "k", 0, 5).await?;
    ensure_eq!(before[0].at.partition_id, partition, "the partition of the key");
    let mut of_full = Reading::open(case, &topic, partition, StartAt::Latest).await?;
    if case.pace.immediate {
        of_full.expect_head().await?;
    }
    let after = case.publish_run(&topic, "k", 5, 3).await?;
    let got = of_full.take(after.len()).await?;
    got.iter().zip(&after).try_for_each(|(r, a)| same(r, a))?;
    of_full.expect_head().await?;
    let all: Vec<_> = before.into_iter().chain(after).collect();
    let got = of_empty.take(all.len()).await?;
    got.iter().zip(&all).try_for_each(|(r, a)| same(r, a))
}

pub(crate) async fn a_cut_at_the_head_brings_what_comes(case: &mut BusCase) -> Outcome {
    let topic = case.topic("head-cut").await?;
    let first = case.publish_run(&topic, "k", 0, 3).await?;
    let (partition, last) = (first[0].at.partition_id, first[2].offset());
    let mut cuts = vec![Cut::After(last), Cut::past(last), case.reader().head(&topic, partition).await?.cut];
    cuts.extend(last.successor().map(Cut::Next));
    let mut waiting = Vec::new();
    for cut in cuts {
        let mut reading = Reading::open(case, &topic, partition, cut).await?;
        reading.expect_head().await?;
        waiting.push(reading);
    }
    let later = case.publish_run(&topic, "k", 3, 3).await?;
    for mut reading in waiting {
        let got = reading.take(later.len()).await?;
        got.iter().zip(&later).try_for_each(|(r, a)| same(r, a))?;
        reading.expect_head().await?;
    }
    Ok(())
}

pub(crate) async fn a_cut_past_the_head_starts_exactly_there(case: &mut BusCase) -> Outcome {
    let topic = case.topic("past-head").await?;
    let first = case.publish_run(&topic, "k", 0, 2).await?;
    let partition = first[0].at.partition_id;
    let mut target = first[1].offset();
    for _ in 0..4 {
        target =
            target.successor().ok_or_else(|| crate::Failure::new("a dense offset without a successor"))?;
    }
    let before = target.predecessor().ok_or_else(|| crate::Failure::new("no predecessor"))?;
    let mut waiting = Vec::new();
    for cut in [Cut::Next(target), Cut::After(before)] {
        let mut reading = Reading::open(case, &topic, partition, cut).await?;
        reading.expect_head().await?;
        waiting.push(reading);
    }
    // Offsets 2 to 4 lie before the cut at 5, so nothing of this may come.
    let skipped = case.publish_run(&topic, "k", 2, 3).await?;
    for reading in &mut waiting {
        reading.expect_head().await?;
    }
    let expected = case.publish_run(&topic, "k", 5, 2).await?;
    ensure_eq!(expected[0].offset(), target, "the sixth record of a dense log, {} before it", skipped.len());
    for mut reading in waiting {
        let got = reading.take(2).await?;
        got.iter().zip(&expected).try_for_each(|(r, a)| same(r, a))?;
    }
    Ok(())
}

pub(crate) async fn a_cut_of_another_kind_is_refused(case: &mut BusCase) -> Outcome {
    let topic = case.topic("kinds").await?;
    let acked = case.publish_run(&topic, "k", 0, 3).await?;
    let own = case.caps.offset_kind;
    let kinds = [
        OffsetKind::FileLine,
        OffsetKind::MemoryIndex,
        OffsetKind::KinesisSequence,
        OffsetKind::RedisStreamId,
        OffsetKind::External,
    ];
    for kind in kinds.into_iter().filter(|k| *k != own) {
        for cut in [Cut::Next(Offset::from_u64(kind, 1)), Cut::After(Offset::from_u64(kind, 1))] {
            let opened = case.reader().cursor(&topic, acked[0].at.partition_id, cut.into()).await;
            refused(&format!("a cursor at `{cut}` of kind {kind}"), opened, "invalid_input")?;
        }
    }
    Ok(())
}

pub(crate) async fn resuming_with_the_time_of_the_head_starts_at_the_same_cut(case: &mut BusCase) -> Outcome {
    let topic = case.topic("resume-at").await?;
    let acked = case.publish_run(&topic, "k", 0, 12).await?;
    let partition = acked[0].at.partition_id;
    Reading::open(case, &topic, partition, StartAt::Earliest).await?.take(acked.len()).await?;
    // Whatever the time: it tells about what has expired, never where to start.
    let now = Timestamp::now();
    let times = [Timestamp::EPOCH, now, now.saturating_add(Duration::from_secs(3_600))];
    for caught_up_at in times {
        let mut cuts = vec![(Cut::Begin, 0)];
        for (i, a) in acked.iter().enumerate() {
            cuts.extend([(Cut::Next(a.offset()), i), (Cut::After(a.offset()), i + 1)]);
        }
        for (cut, first) in cuts {
            let start = StartAt::Resume { cut, caught_up_at };
            let mut reading = Reading::open(case, &topic, partition, start).await?;
            let got = reading.take(acked.len() - first).await?;
            got.iter().zip(&acked[first..]).try_for_each(|(r, a)| same(r, a))?;
            reading.expect_head().await?;
        }
        let other = if case.caps.offset_kind == OffsetKind::External {
            OffsetKind::FileLine
        } else {
            OffsetKind::External
        };
        let start = StartAt::Resume { cut: Cut::After(Offset::from_u64(other, 1)), caught_up_at };
        let opened = case.reader().cursor(&topic, partition, start).await;
        refused("resuming at a cut of another kind", opened, "invalid_input")?;
    }
    Ok(())
}

pub(crate) async fn a_consumer_that_was_at_the_head_resumes_there(case: &mut BusCase) -> Outcome {
    let topic = case.topic("resume-head").await?;
    let partition = case.partition_of(&topic, "k").await?;
    // First of a partition that never had a record, then behind one.
    let mut expected = Vec::new();
    for n in 0..3 {
        let caught_up_at = Timestamp::now();
        let head = case.reader().head(&topic, partition).await?;
        let mut cuts = vec![head.cut];
        cuts.extend(expected.last().map(|a: &Acked| Cut::past(a.offset())));
        let mut waiting = Vec::new();
        for cut in cuts {
            let start = StartAt::Resume { cut, caught_up_at };
            waiting.push(Reading::open(case, &topic, partition, start).await?);
        }
        let come = case.publish_run(&topic, "k", n * 2, 2).await?;
        for mut reading in waiting {
            // A service may show a little less than was ACKed as its head, never more.
            let before = reading.cursor.position();
            let from = |a: &&Acked| before.is_before(&a.offset()) == Some(true);
            let all: Vec<_> = expected.iter().chain(&come).filter(from).collect();
            ensure!(all.len() >= come.len(), "the head `{before}` lies behind what was published later");
            let got = reading.take(all.len()).await?;
            got.iter().zip(all).try_for_each(|(r, a)| same(r, a))?;
            reading.expect_head().await?;
        }
        expected.extend(come);
    }
    Ok(())
}

pub(crate) async fn an_empty_partition_is_caught_up(case: &mut BusCase) -> Outcome {
    let topic = case.topic("empty").await?;
    for partition in case.partition_ids(&topic).await? {
        let head = case.reader().head(&topic, partition).await?;
        ensure_eq!(head.last, None, "the last record of an empty partition");
        for start in [StartAt::Earliest, StartAt::Latest, StartAt::Cut(Cut::Begin), StartAt::Cut(head.cut)] {
            let mut reading = Reading::open(case, &topic, partition, start).await?;
            let batch = reading.step(ReadLimit::default()).await?;
            ensure!(batch.records.is_empty(), "{} records of an empty partition", batch.records.len());
            ensure_eq!(batch.state, ReadState::CaughtUp, "the state of an empty partition from {start:?}");
        }
    }
    let acked = vec![case.publish(&topic, record("k", 1)).await?];
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn the_head_lies_behind_everything_acked(case: &mut BusCase) -> Outcome {
    let topic = case.topic("heads").await?;
    for n in 0..12 {
        let a = case.publish(&topic, record("k", n)).await?;
        let head = case.reader().head(&topic, a.at.partition_id).await?;
        ensure_eq!(
            head.cut.is_before(&a.offset()),
            Some(false),
            "the head `{}` after the ACK of {}",
            head.cut,
            a.at
        );
        if case.pace.immediate {
            ensure_eq!(head.last, Some(a.offset()), "the last record after the ACK of {}", a.at);
            ensure!(
                head.cut == Cut::past(a.offset()),
                "the head is `{}` after the ACK of {}",
                head.cut,
                a.at
            );
        }
    }
    Ok(())
}
