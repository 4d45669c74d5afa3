//! The retention horizon: what is below it is said to be gone.

use eb_contract::{Cut, ErrorKind, Offset, PartitionId, ReadLimit, StartAt, Topic};

use crate::bus::{Acked, BusCase, Reading, same};
use crate::events::record;
use crate::outcome::{ensure, ensure_eq, refused};
use crate::{Failure, Outcome};

/// How many records of `acked` are gone.
async fn horizon(case: &BusCase, topic: &Topic, acked: &[Acked]) -> Outcome<usize> {
    let partition = acked[0].at.partition_id;
    let mut reading = Reading::open(case, topic, partition, StartAt::Earliest).await?;
    let first = reading.take(1).await?[0].eb_ref.offset;
    let gone = acked.iter().position(|a| a.offset() == first);
    gone.ok_or_else(|| Failure::new(format!("the earliest record is {first}, which nobody published")))
}

fn oldest_named(what: &str, kind: &ErrorKind, expected: Option<Offset>) -> Outcome {
    match kind {
        ErrorKind::OutOfRange { oldest } => {
            ensure_eq!(*oldest, expected, "{what}: the oldest record left");
            Ok(())
        }
        other => Err(Failure::new(format!("{what}: {other:?}"))),
    }
}

pub(crate) async fn below_the_horizon_is_out_of_range_naming_the_oldest_left(case: &mut BusCase) -> Outcome {
    let topic = case.topic("horizon").await?;
    let acked = case.publish_run(&topic, "k", 0, 20).await?;
    let partition = acked[0].at.partition_id;
    case.bus.trim(&topic, partition, acked[12].offset()).await?;
    let gone = horizon(case, &topic, &acked).await?;
    ensure!((1..=12).contains(&gone), "{gone} records are gone, up to 12 were to go");
    let oldest = acked[gone].offset();
    let reader = case.reader();
    let mut below = vec![Cut::Begin];
    below.extend(acked[..gone].iter().map(|a| Cut::Next(a.offset())));
    below.extend(acked[..gone - 1].iter().map(|a| Cut::After(a.offset())));
    for cut in below {
        // Either the cursor or its first read says so; never a silent jump.
        let error = match reader.cursor(&topic, partition, cut.into()).await {
            Ok(mut cursor) => {
                let read = cursor.next(ReadLimit::default()).await;
                refused(&format!("a read at `{cut}`"), read, "out_of_range")?
            }
            Err(e) => refused::<()>(&format!("a cursor at `{cut}`"), Err(e), "out_of_range")?,
        };
        oldest_named(&format!("at `{cut}`"), error.kind(), Some(oldest))?;
    }
    for (i, a) in acked.iter().enumerate().skip(gone) {
        case.expect_first(&topic, Cut::Next(a.offset()), a).await?;
        if i > gone {
            case.expect_first(&topic, Cut::After(acked[i - 1].offset()), a).await?;
        }
    }
    case.expect_topic(&topic, &acked[gone..]).await
}

pub(crate) async fn a_cursor_overtaken_by_the_horizon_says_so(case: &mut BusCase) -> Outcome {
    let topic = case.topic("overtaken").await?;
    let acked = case.publish_run(&topic, "k", 0, 20).await?;
    let partition = acked[0].at.partition_id;
    let mut slow = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    slow.take(2).await?;
    let mut ahead = Reading::open(case, &topic, partition, StartAt::Earliest).await?;
    ahead.take(18).await?;
    case.bus.trim(&topic, partition, acked[10].offset()).await?;
    let gone = horizon(case, &topic, &acked).await?;
    ensure!((3..=10).contains(&gone), "{gone} records are gone, about 10 were to go");
    // A cursor may hold on to a block that it had read before; it may not skip.
    let mut expected = 2;
    let error = loop {
        match slow.cursor.next(ReadLimit::records(1)).await {
            Ok(batch) => {
                for r in &batch.records {
                    same(r, &acked[expected])?;
                    expected += 1;
                }
                ensure!(!batch.records.is_empty() && expected <= gone, "the cursor went on past the horizon");
            }
            Err(e) => break refused::<()>("the overtaken cursor", Err(e), "out_of_range")?,
        }
    };
    oldest_named("the overtaken cursor", error.kind(), Some(acked[gone].offset()))?;
    let got = ahead.take(2).await?;
    got.iter().zip(&acked[18..]).try_for_each(|(r, a)| same(r, a))
}

pub(crate) async fn positions_are_not_given_again_after_everything_was_trimmed(
    case: &mut BusCase,
) -> Outcome {
    let topic = case.topic("all-gone").await?;
    let acked = case.publish_run(&topic, "k", 0, 6).await?;
    let (partition, last): (PartitionId, Offset) = (acked[0].at.partition_id, acked[5].offset());
    let mut at_head = Reading::open(case, &topic, partition, Cut::past(last)).await?;
    at_head.expect_head().await?;
    case.bus.trim(&topic, partition, last).await?;
    let gone = horizon(case, &topic, &acked).await?;
    ensure!(gone > 0, "nothing was trimmed");
    if case.caps.reopen {
        case.reopen().await?;
        at_head = Reading::open(case, &topic, partition, Cut::past(last)).await?;
    }
    let next = case.publish(&topic, record("k", 6)).await?;
    ensure!(next.offset() > last, "{} was ACKed after {last}", next.at);
    let got = at_head.take(1).await?;
    same(&got[0], &next)?;
    let head = case.reader().head(&topic, partition).await?;
    ensure_eq!(head.cut.is_before(&next.offset()), Some(false), "the head after the horizon has moved");
    Ok(())
}
