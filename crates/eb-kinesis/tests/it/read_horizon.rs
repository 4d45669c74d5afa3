//! The retention horizon: said where something may be missing, and only there.
//!
//! The fake's clock stands in the past while records are stored, so that they are as old as they say; then it is moved
//! to now, and retention takes them.

use eb_contract::{
    Cut, ErrorKind, EventBusReader, Offset, OffsetKind, PartitionId, ReadLimit, ReadState, StartAt,
};
use eb_kinesis::KinesisReader;
use eb_testkit::kinesis_fake::{BelowHorizon, Op, Reaction, StoredRecord};

use crate::engine::Engine;
use crate::read_support::*;

/// Each answer that the service has been seen to give below its horizon.
const ANSWERS: [BelowHorizon; 3] = [BelowHorizon::Jump, BelowHorizon::EmptyPages(2), BelowHorizon::Refuse];

/// A stream of 24 hours whose records 0 to 29 came hour by hour; the first ones are gone.
async fn aged(answer: BelowHorizon) -> (Scene, Vec<StoredRecord>, usize) {
    let scene = Scene::since(30 * HOUR, 1).await;
    scene.fake.set_limits(|l| l.below_horizon = answer);
    let stored = scene.put_hourly(0, 30);
    let gone = stored.len() - left(&scene).await.len();
    assert!((5..8).contains(&gone), "{gone} records are gone");
    (scene, stored, gone)
}

async fn left(scene: &Scene) -> Vec<usize> {
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    rest(&mut *cursor).await.0
}

/// What opening and one read say.
async fn refusal(scene: &Scene, start: StartAt) -> Result<Vec<usize>, ErrorKind> {
    answer_of(&scene.reader().await, scene, start).await
}

async fn answer_of(reader: &KinesisReader, scene: &Scene, start: StartAt) -> Result<Vec<usize>, ErrorKind> {
    match reader.cursor(&scene.topic, P0, start).await {
        Err(e) => Err(e.kind().clone()),
        Ok(mut cursor) => match cursor.next(ReadLimit::default()).await {
            Err(e) => Err(e.kind().clone()),
            Ok(batch) => Ok(numbers(&batch.records)),
        },
    }
}

fn out_of_range(oldest: Option<Offset>) -> Result<Vec<usize>, ErrorKind> {
    Err(ErrorKind::OutOfRange { oldest })
}

#[tokio::test]
async fn a_cut_below_the_horizon_is_out_of_range_and_names_the_oldest_left() {
    for answer in ANSWERS {
        let (scene, stored, gone) = aged(answer).await;
        let oldest = Some(offset(&stored[gone]));
        assert_eq!(refusal(&scene, Cut::Begin.into()).await, out_of_range(oldest), "{answer:?}");
        for (n, record) in stored.iter().enumerate() {
            let (from, behind) =
                (refusal(&scene, next(record).into()).await, refusal(&scene, after(record).into()).await);
            if n < gone {
                assert_eq!((from, behind), (out_of_range(oldest), out_of_range(oldest)), "{answer:?}, {n}");
            } else {
                let all = |from: usize| Ok((from..stored.len()).collect::<Vec<_>>());
                assert_eq!((from, behind), (all(n), all(n + 1)), "{answer:?}, {n}");
            }
        }
    }
}

#[tokio::test]
async fn who_was_at_the_head_within_the_retention_has_missed_nothing() {
    for answer in ANSWERS {
        let (scene, stored, gone) = aged(answer).await;
        let resume =
            |hours: u32| StartAt::Resume { cut: after(&stored[gone - 1]), caught_up_at: ago(hours * HOUR) };
        assert_eq!(
            refusal(&scene, resume(25)).await,
            out_of_range(Some(offset(&stored[gone]))),
            "{answer:?}"
        );
        // As if the next one had come an hour after that.
        let got = refusal(&scene, resume(23)).await;
        let got = match got {
            Ok(empty) if empty.is_empty() => {
                // Empty pages come first.
                let mut cursor = scene.cursor(resume(23)).await;
                rest(&mut *cursor).await.0
            }
            other => other.unwrap(),
        };
        assert_eq!(got, (gone..30).collect::<Vec<_>>(), "{answer:?}");
        let begin = |hours: u32| StartAt::Resume { cut: Cut::Begin, caught_up_at: ago(hours * HOUR) };
        assert_eq!(refusal(&scene, begin(25)).await, out_of_range(Some(offset(&stored[gone]))));
        assert_eq!(refusal(&scene, begin(23)).await.unwrap(), (gone..30).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_stream_that_was_idle_past_its_retention_gives_no_false_alarm() {
    for answer in ANSWERS {
        let scene = Scene::since(40 * HOUR, 1).await;
        scene.fake.set_limits(|l| l.below_horizon = answer);
        let stored = scene.put(0, 3);
        let mut live = scene.cursor(StartAt::Earliest).await;
        assert_eq!(rest(&mut *live).await, (vec![0, 1, 2], ReadState::CaughtUp));
        scene.fake.advance(40 * HOUR);
        assert_eq!(left(&scene).await, [0; 0], "everything has expired");
        // A cursor that lives goes on, and so does one that is resumed by its checkpoint.
        assert_eq!(rest(&mut *live).await, (vec![], ReadState::CaughtUp), "{answer:?}");
        let caught_up_at = ago(HOUR);
        let mut resumed = scene.cursor(StartAt::Resume { cut: after(&stored[2]), caught_up_at }).await;
        assert_eq!(rest(&mut *resumed).await, (vec![], ReadState::CaughtUp), "{answer:?}");
        // One that does not say when it was at the head may have missed anything.
        assert_eq!(refusal(&scene, after(&stored[2]).into()).await, out_of_range(None), "{answer:?}");
        scene.put(3, 5);
        for cursor in [&mut live, &mut resumed] {
            assert_eq!(rest(&mut **cursor).await.0, [3, 4], "{answer:?}");
        }
    }
}

#[tokio::test]
async fn the_end_of_an_idle_stream_stays_where_it_was_when_its_last_record_has_expired() {
    let scene = Scene::since(40 * HOUR, 1).await;
    let stored = scene.put(0, 3);
    let reader = scene.reader().await;
    assert_eq!(reader.head(&scene.topic, P0).await.unwrap().cut, after(&stored[2]));
    scene.fake.advance(40 * HOUR);
    let head = reader.head(&scene.topic, P0).await.unwrap();
    assert_eq!((head.cut, head.last), (after(&stored[2]), None));
    let mut latest = reader.cursor(&scene.topic, P0, StartAt::Latest).await.unwrap();
    // Who comes new cannot know what was there.
    assert_eq!(scene.reader().await.head(&scene.topic, P0).await.unwrap().cut, Cut::Begin);
    let mut of_empty = scene.cursor(StartAt::Latest).await;
    scene.put(3, 4);
    for cursor in [&mut latest, &mut of_empty] {
        assert_eq!(numbers(&cursor.next(patient()).await.unwrap().records), [3]);
    }
}

#[tokio::test]
async fn a_cursor_that_the_horizon_overtakes_says_so() {
    for answer in ANSWERS {
        let scene = Scene::since(25 * HOUR, 1).await.reading(|r| r.max_records_per_call = 2);
        scene.fake.set_limits(|l| l.below_horizon = answer);
        let stored = scene.put(0, 20);
        let mut slow = scene.cursor(StartAt::Earliest).await;
        let mut ahead = scene.cursor(StartAt::Earliest).await;
        for n in 0..4 {
            assert_eq!(numbers(&slow.next(ReadLimit::records(1)).await.unwrap().records), [n]);
        }
        for n in 0..18 {
            assert_eq!(numbers(&ahead.next(ReadLimit::records(1)).await.unwrap().records), [n]);
        }
        scene.fake.trim(STREAM, "shardId-000000000000", &stored[10].sequence_number);
        for _ in 0..2 {
            let error = slow.next(patient()).await.unwrap_err();
            assert_eq!(
                error.kind(),
                &ErrorKind::OutOfRange { oldest: Some(offset(&stored[10])) },
                "{answer:?}"
            );
        }
        assert_eq!(slow.position(), after(&stored[3]));
        assert_eq!(rest(&mut *ahead).await.0, [18, 19]);
    }
}

/// What an operator does who finds a consumer that has been down for a day. What has expired by then does not come back.
#[tokio::test]
async fn a_retention_that_was_raised_too_late_does_not_hide_what_had_expired() {
    for answer in ANSWERS {
        let (scene, stored, gone) = aged(answer).await;
        Engine::at(&scene.fake.endpoint_url()).keep_for(STREAM, 7 * 24).await.unwrap();
        let oldest = Some(offset(&stored[gone]));
        for expired in &stored[..gone] {
            for cut in [next(expired), after(expired)] {
                assert_eq!(refusal(&scene, cut.into()).await, out_of_range(oldest), "{answer:?}, {cut}");
            }
        }
        let resume = StartAt::Resume { cut: after(&stored[gone - 1]), caught_up_at: ago(25 * HOUR) };
        assert_eq!(refusal(&scene, resume).await, out_of_range(oldest), "{answer:?}");
        let all: Vec<_> = (gone..30).collect();
        assert_eq!(refusal(&scene, next(&stored[gone]).into()).await.unwrap(), all, "{answer:?}");
    }
}

#[tokio::test]
async fn a_cursor_that_rested_while_records_expired_says_so_though_they_would_be_kept_longer_now() {
    for answer in ANSWERS {
        let scene = Scene::since(40 * HOUR, 1).await.reading(|r| r.max_records_per_call = 2);
        scene.fake.set_limits(|l| l.below_horizon = answer);
        let stored = scene.put(0, 20);
        let mut resting = scene.cursor(StartAt::Earliest).await;
        for n in 0..4 {
            assert_eq!(numbers(&resting.next(ReadLimit::records(1)).await.unwrap().records), [n]);
        }
        scene.fake.advance(39 * HOUR);
        let kept = scene.put(20, 21).remove(0);
        Engine::at(&scene.fake.endpoint_url()).keep_for(STREAM, 7 * 24).await.unwrap();
        let error = resting.next(patient()).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::OutOfRange { oldest: Some(offset(&kept)) }, "{answer:?}");
        assert_eq!(resting.position(), after(&stored[3]));
    }
}

#[tokio::test]
async fn old_records_of_a_stream_that_keeps_them_long_are_proved_once_and_then_read_as_new_ones() {
    let scene = Scene::since(60 * HOUR, 1).await.reading(|r| r.max_records_per_call = 2);
    Engine::at(&scene.fake.endpoint_url()).keep_for(STREAM, 7 * 24).await.unwrap();
    let stored = scene.put(0, 40);
    scene.fake.advance(60 * HOUR);
    let mut cursor = scene.cursor(after(&stored[3])).await;
    assert_eq!(rest(&mut *cursor).await.0, (4..40).collect::<Vec<_>>());
    assert!(scene.iterators() <= 2, "{} iterators", scene.iterators());
    let mut begin = scene.cursor(Cut::Begin).await;
    assert_eq!(rest(&mut *begin).await.0, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_retention_that_was_raised_in_time_is_relied_on_from_the_next_read() {
    let scene = Scene::since(60 * HOUR, 1).await.reading(|r| r.max_records_per_call = 2);
    scene.put(0, 40);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    assert_eq!(numbers(&cursor.next(ReadLimit::records(1)).await.unwrap().records), [0]);
    Engine::at(&scene.fake.endpoint_url()).keep_for(STREAM, 7 * 24).await.unwrap();
    scene.fake.advance(60 * HOUR);
    let iterators = scene.iterators();
    assert_eq!(rest(&mut *cursor).await.0, (1..40).collect::<Vec<_>>());
    assert!(scene.iterators() - iterators <= 2, "{} iterators", scene.iterators() - iterators);
}

/// The record that proves the place leaves no room for another one.
#[tokio::test]
async fn records_that_fill_a_page_each_are_read_on_near_the_horizon() {
    let scene = Scene::since(30 * HOUR, 1).await;
    scene.fake.set_limits(|l| l.get_bytes = 1);
    let stored = scene.put(0, 6);
    let mut cursor = scene.cursor(after(&stored[0])).await;
    let mut came = Vec::new();
    for _ in 1..6 {
        came.extend(numbers(&cursor.next(ReadLimit::default()).await.unwrap().records));
    }
    assert_eq!(came, [1, 2, 3, 4, 5]);
}

/// A record can be read a moment after its ACK, and a consumer may have its checkpoint before it by then.
#[tokio::test]
async fn a_record_that_cannot_be_read_yet_has_not_expired() {
    let scene = Scene::since(30 * HOUR, 1).await;
    scene.fake.advance(30 * HOUR);
    let stored = scene.put(0, 1).remove(0);
    for unread in [1, 2, 3] {
        scene.fake.script(Op::GetRecords, vec![Reaction::plain().empty_page(0); unread]);
        let mut cursor = scene.cursor(next(&stored)).await;
        assert_eq!(scene.fake.scripted(Op::GetRecords), 0);
        assert_eq!(numbers(&cursor.next(patient()).await.unwrap().records), [0], "{unread}");
    }
}

/// The two clocks need not agree to the minute.
#[tokio::test]
async fn records_that_expire_sooner_than_by_our_clock_are_missed_as_well() {
    for answer in ANSWERS {
        let scene = Scene::since(40 * HOUR, 1).await.reading(|r| r.max_records_per_call = 2);
        scene.fake.set_limits(|l| l.below_horizon = answer);
        let young = 23 * HOUR + 40 * HOUR / 60;
        scene.fake.advance(40 * HOUR - young);
        let stored = scene.put(0, 20);
        scene.fake.advance(young);
        let mut cursor = scene.cursor(StartAt::Earliest).await;
        assert_eq!(numbers(&cursor.next(ReadLimit::records(1)).await.unwrap().records), [0]);
        assert_eq!(numbers(&cursor.next(ReadLimit::records(1)).await.unwrap().records), [1]);
        // The service's clock is 25 minutes ahead.
        scene.fake.advance(25 * HOUR / 60);
        let kept = scene.put(20, 21).remove(0);
        let error = cursor.next(patient()).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::OutOfRange { oldest: Some(offset(&kept)) }, "{answer:?}");
        assert_eq!(cursor.position(), after(&stored[1]));
    }
}

#[tokio::test]
async fn a_number_that_the_shard_never_had_is_refused_and_not_taken_for_an_expired_one() {
    let scene = Scene::new(1).await;
    scene.put(0, 2);
    let strange = Offset::from_u64(OffsetKind::KinesisSequence, u64::MAX);
    let reader = scene.reader().await;
    for cut in [Cut::Next(strange), Cut::After(strange)] {
        let error = reader.cursor(&scene.topic, P0, cut.into()).await.err().unwrap();
        assert_eq!(error.kind(), &ErrorKind::InvalidInput, "{error}");
    }
    let (old, _, _) = aged(BelowHorizon::Jump).await;
    assert_eq!(refusal(&old, Cut::After(strange).into()).await, Err(ErrorKind::InvalidInput));
}

#[tokio::test]
async fn the_beginning_of_a_child_is_known_while_its_parent_is_listed() {
    let scene = Scene::since(60 * HOUR, 1).await;
    scene.put(0, 2);
    scene.fake.advance(30 * HOUR);
    scene.fake.split(STREAM, "shardId-000000000000");
    scene.put(2, 4);
    let child = if scene.fake.shard_of(STREAM, "k").ends_with('1') { PartitionId(1) } else { PartitionId(2) };
    let open = async |start: StartAt| {
        let mut cursor = scene.reader().await.cursor(&scene.topic, child, start).await?;
        Ok::<_, eb_contract::Error>(rest(&mut *cursor).await.0)
    };
    assert_eq!(open(Cut::Begin.into()).await.unwrap(), [2, 3]);
    // The parent has gone from the list, and with it what was first in the child.
    scene.fake.advance(30 * HOUR);
    let listed = scene.reader().await.partitions(&scene.topic).await.unwrap().partitions;
    assert_eq!(listed.iter().map(|p| p.id.0).collect::<Vec<_>>(), [1, 2]);
    assert!(listed.iter().all(|p| p.parents.is_empty()));
    let error = open(Cut::Begin.into()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::OutOfRange { oldest: None });
    assert_eq!(open(StartAt::Earliest).await.unwrap(), [0; 0]);
}

#[tokio::test]
async fn reading_close_to_the_horizon_is_exact_and_past_it_is_cheap() {
    for page in [1, 2, 5] {
        let scene =
            Scene::since(23 * HOUR + 50 * HOUR / 60, 1).await.reading(|r| r.max_records_per_call = page);
        scene.put(0, 20);
        scene.fake.advance(12 * HOUR);
        scene.put(20, 40);
        scene.fake.advance(11 * HOUR + 50 * HOUR / 60);
        let mut cursor = scene.cursor(StartAt::Earliest).await;
        assert_eq!(rest(&mut *cursor).await.0, (0..40).collect::<Vec<_>>());
        // The old half is checked call by call, the new one follows its iterators.
        assert!(scene.iterators() <= 20 / (page.max(2) - 1) + 5, "{} iterators", scene.iterators());
    }
}
