//! What no engine does when it is asked: iterators that expire, lost and wrong answers, throttling, foreign records.

use std::time::Duration;

use eb_contract::{
    Cursor, Cut, ErrorKind, EventBusReader, EventBusReaderExt, PartitionId, ReadLimit, ReadState, Retry,
    StartAt, Topic,
};
use eb_kinesis::Rate;
use eb_testkit::kinesis_fake::{Fault, Gate, Op, Outcome, Reaction, ReadRate};
use futures_util::FutureExt;

use crate::read_support::*;

#[tokio::test]
async fn an_expired_iterator_is_renewed_where_the_cursor_stands() {
    let scene = Scene::new(1).await.reading(|r| r.max_records_per_call = 3);
    scene.put(0, 10);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let mut got = Vec::new();
    while got.len() < 10 {
        scene.fake.expire_iterators();
        got.extend(numbers(&cursor.next(ReadLimit::records(2)).await.unwrap().records));
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cursor_at_the_head_misses_nothing_when_its_iterator_expires() {
    for before in [0, 4] {
        let scene = Scene::new(1).await;
        scene.put(0, before);
        let mut cursor = scene.cursor(StartAt::Latest).await;
        let idle = cursor.next(ReadLimit::default()).await.unwrap();
        assert_eq!((idle.records.len(), idle.state), (0, ReadState::CaughtUp));
        scene.put(before, before + 3);
        scene.fake.expire_iterators();
        let got = cursor.next(patient()).await.unwrap();
        assert_eq!(numbers(&got.records), (before..before + 3).collect::<Vec<_>>());
        // What a checkpoint would hold brings the same, also before anything was read.
        let mut resumed = scene.cursor(idle.next).await;
        assert_eq!(rest(&mut *resumed).await.0, (before..before + 3).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_iterator_that_expires_again_and_again_is_an_error_and_the_cursor_stays() {
    let scene = Scene::new(1).await;
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    scene.fake.script(Op::GetRecords, vec![Reaction::refuse(Fault::expired_iterator()); 4]);
    cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!(scene.fake.scripted(Op::GetRecords), 0);
    assert_eq!(rest(&mut *cursor).await.0, [0, 1]);
}

/// The engine of LocalStack takes the distance by arrival times: it is 0 also where a page ends within a millisecond.
#[tokio::test]
async fn a_full_page_that_is_said_to_be_the_last_is_not_taken_for_the_end() {
    let scene = Scene::new(1).await.reading(|r| r.max_records_per_call = 3);
    let stored = scene.put(0, 8);
    scene.fake.script_by(Op::GetRecords, |_| Some(Reaction::plain().millis_behind(0)));
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    assert_eq!(rest(&mut *cursor).await.0, (0..8).collect::<Vec<_>>());
    let reader = scene.reader().await;
    assert_eq!(reader.head(&scene.topic, P0).await.unwrap().cut, after(&stored[7]));
    let read = reader.read_to_head(&scene.topic, P0, StartAt::Earliest).await.unwrap();
    assert_eq!(numbers(&read), (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_record_of_an_after_that_comes_again_is_dropped() {
    let scene = Scene::new(1).await.reading(|r| r.max_records_per_call = 2);
    let stored = scene.put(0, 6);
    scene.fake.script_by(Op::GetShardIterator, |_| Some(Reaction::plain().after_returns_its_start()));
    for (n, record) in stored.iter().enumerate() {
        let mut cursor = scene.cursor(after(record)).await;
        let first = cursor.next(ReadLimit::records(1)).await.unwrap();
        assert_eq!(numbers(&first.records), (n + 1..6).take(1).collect::<Vec<_>>());
        scene.fake.expire_iterators();
        assert_eq!(rest(&mut *cursor).await.0, (n + 2..6).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn records_that_come_from_before_the_cut_are_dropped_while_it_is_the_same_stream() {
    for age in [Duration::ZERO, 23 * HOUR + 50 * HOUR / 60] {
        let scene = Scene::since(age, 1).await;
        let stored = scene.put(0, 4);
        scene.fake.advance(age);
        let first = stored[0].sequence_number.as_str().to_owned();
        let too_early = Reaction::plain().edit(move |answer| {
            let records = answer["Records"].as_array_mut().unwrap();
            let mut earlier = records[0].clone();
            earlier["SequenceNumber"] = first.clone().into();
            records.insert(0, earlier);
        });
        for cut in [next(&stored[2]), after(&stored[1])] {
            let reader = scene.reader().await;
            scene.fake.script(Op::GetRecords, [too_early.clone()]);
            let mut cursor = reader.cursor(&scene.topic, P0, cut.into()).await.unwrap();
            assert_eq!(rest(&mut *cursor).await.0, [2, 3], "{cut}, {age:?}");
        }
    }
}

#[tokio::test]
async fn an_empty_page_behind_the_newest_record_is_not_the_head() {
    let scene = Scene::new(1).await;
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    scene.fake.script(Op::GetRecords, vec![Reaction::plain().empty_page(90_000); 2]);
    let empty = cursor.next(ReadLimit::default()).await.unwrap();
    assert_eq!((empty.records.len(), empty.state), (0, ReadState::More));
    // Who waits gets what lies behind them.
    assert_eq!(numbers(&cursor.next(patient()).await.unwrap().records), [0, 1]);
    // A page that does not say how far behind it is does not say that it is at the head.
    let unsaid = Reaction::plain().edit(|answer| {
        answer.as_object_mut().unwrap().remove("MillisBehindLatest");
    });
    scene.fake.script(Op::GetRecords, [unsaid]);
    assert_eq!(cursor.next(ReadLimit::default()).await.unwrap().state, ReadState::More);
    assert_eq!(cursor.next(ReadLimit::default()).await.unwrap().state, ReadState::CaughtUp);
}

#[tokio::test]
async fn throttled_calls_are_made_again_and_in_the_end_said_to_be() {
    let mut scene = Scene::new(1).await;
    scene.put(0, 2);
    let throttled = |n| vec![Reaction::refuse(Fault::throttled()); n];
    scene.fake.script(Op::GetShardIterator, throttled(1));
    scene.fake.script(Op::GetRecords, throttled(2));
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let first = cursor.next(ReadLimit::default()).await.unwrap();
    assert_eq!(numbers(&first.records), [0, 1]);
    scene.put(2, 3);
    // One that has less patience.
    scene.config.read.retry_for = Duration::from_millis(500);
    let mut cursor = scene.cursor(first.next).await;
    scene.fake.script_by(Op::GetRecords, |_| Some(Reaction::refuse(Fault::throttled())));
    let error = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (&ErrorKind::Throttled { after: None }, Retry::Later));
    scene.fake.clear_scripts();
    assert_eq!(rest(&mut *cursor).await.0, [2]);
}

#[tokio::test]
async fn an_answer_that_fails_or_cannot_be_read_is_an_error_never_an_empty_batch() {
    let scene = Scene::new(1).await;
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let reactions = [
        ("unavailable", Reaction::raw(200, "<html>a proxy</html>")),
        ("unavailable", Reaction::raw(200, "{\"Records\":[{\"Data\":")),
        ("unavailable", Reaction::refuse(Fault::internal())),
        ("unavailable", Reaction::refuse(Fault::unavailable())),
        ("unavailable", Reaction::lose(eb_testkit::kinesis_fake::Cut::Reset)),
        ("invalid_input", Reaction::refuse(Fault::access_denied())),
        ("invalid_input", Reaction::refuse(Fault::kms_disabled())),
    ];
    for (kind, reaction) in reactions {
        let what = format!("{reaction:?}");
        scene.fake.script_by(Op::GetRecords, move |_| Some(reaction.clone()));
        let error = cursor.next(ReadLimit::default()).await.unwrap_err();
        assert_eq!((error.kind().code(), error.is_retryable()), (kind, kind == "unavailable"), "{what}");
        scene.fake.clear_scripts();
    }
    assert_eq!(rest(&mut *cursor).await.0, [0, 1]);
}

#[tokio::test]
async fn a_failure_that_passes_is_not_noticed() {
    let scene = Scene::new(1).await;
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    scene.fake.script(
        Op::GetRecords,
        [Reaction::refuse(Fault::internal()), Reaction::plain().cut(eb_testkit::kinesis_fake::Cut::Reset)],
    );
    assert_eq!(rest(&mut *cursor).await.0, [0, 1]);
    scene.fake.script(Op::DescribeStreamSummary, vec![Reaction::refuse(Fault::limit_exceeded()); 2]);
    scene.put(2, 3);
    assert_eq!(rest(&mut *cursor).await.0, [2], "whether it is the same stream is asked later");
}

#[tokio::test]
async fn a_call_without_an_answer_ends_and_the_next_one_goes_on() {
    let mut scene = Scene::new(1).await;
    scene.config.timeouts.attempt = Duration::from_secs(1);
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    scene.fake.script(Op::GetRecords, vec![Reaction::plain().never_answer(); 3]);
    let error = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (&ErrorKind::Timeout, true));
    assert_eq!(rest(&mut *cursor).await.0, [0, 1]);
}

/// Begins a read whose call the gate holds, and drops it.
async fn begin_and_drop(cursor: &mut dyn Cursor, gate: &Gate) {
    let mut reading = cursor.next(ReadLimit::default());
    tokio::select! {
        biased;
        () = gate.reached(1) => {}
        read = &mut reading => panic!("answered while the answer was held: {read:?}"),
    }
}

#[tokio::test]
async fn a_dropped_read_keeps_the_call_that_is_under_way() {
    let scene = Scene::new(1).await;
    scene.put(0, 3);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let gate = Gate::new();
    scene.fake.script(Op::GetRecords, [Reaction::plain().hold_answer(&gate)]);
    begin_and_drop(&mut *cursor, &gate).await;
    assert!(cursor.next(ReadLimit::default()).now_or_never().is_none());
    assert_eq!(cursor.position(), Cut::Begin);
    gate.open();
    assert_eq!(numbers(&cursor.next(ReadLimit::default()).await.unwrap().records), [0, 1, 2]);
    assert_eq!(scene.gets(), 1);
}

/// As the futures of a buffered stream are while its consumer waits for something else.
#[tokio::test]
async fn a_call_that_was_begun_and_is_not_polled_holds_up_nobody() {
    let scene = Scene::new(1).await;
    let stored = scene.put(0, 3);
    let reader = scene.reader().await;
    for op in [Op::DescribeStreamSummary, Op::GetRecords] {
        let gate = Gate::new();
        scene.fake.script(op, [Reaction::plain().hold_answer(&gate)]);
        let mut begun = reader.head(&scene.topic, P0);
        tokio::select! {
            biased;
            () = gate.reached(1) => {}
            head = &mut begun => panic!("answered while the answer was held: {head:?}"),
        }
        gate.open();
        let other = async {
            let listed = reader.partitions(&scene.topic).await.unwrap().partitions.len();
            (listed, reader.head(&scene.topic, P0).await.unwrap().cut)
        };
        let told = tokio::time::timeout(Duration::from_secs(20), other).await;
        assert_eq!(told.expect("it waits for ever"), (1, after(&stored[2])), "{op:?}");
        assert_eq!(begun.await.unwrap().cut, after(&stored[2]));
    }
}

#[tokio::test]
async fn a_cursor_that_is_dropped_gives_up_its_call() {
    let mut scene = Scene::new(1).await;
    scene.config.timeouts.attempt = Duration::from_secs(300);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let gate = Gate::new();
    scene.fake.script(Op::GetRecords, [Reaction::plain().hold_answer(&gate).never_answer()]);
    begin_and_drop(&mut *cursor, &gate).await;
    drop(cursor);
    gate.open();
    scene.fake.wait_finished(Op::GetRecords, 1).await;
}

/// Cursors of a bus wait for each other's questions about the stream, so none may be left unasked half way.
#[tokio::test]
async fn a_read_that_was_dropped_and_not_taken_up_again_holds_up_nobody() {
    let scene = Scene::new(1).await;
    scene.put(0, 3);
    let reader = scene.reader().await;
    let mut left = reader.cursor(&scene.topic, P0, StartAt::Earliest).await.unwrap();
    let mut other = reader.cursor(&scene.topic, P0, StartAt::Earliest).await.unwrap();
    let gate = Gate::new();
    scene.fake.script(Op::DescribeStreamSummary, [Reaction::plain().hold_answer(&gate)]);
    begin_and_drop(&mut *left, &gate).await;
    gate.open();
    let read = tokio::time::timeout(Duration::from_secs(20), other.next(ReadLimit::default())).await;
    assert_eq!(numbers(&read.expect("the other cursor waits for ever").unwrap().records), [0, 1, 2]);
    assert_eq!(rest(&mut *left).await.0, [0, 1, 2]);
}

#[tokio::test]
async fn what_a_call_brought_too_much_is_kept_for_the_next_reads() {
    let scene = Scene::new(1).await;
    scene.put(0, 50);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    for n in 0..50 {
        let batch = cursor.next(ReadLimit::records(1)).await.unwrap();
        assert_eq!(numbers(&batch.records), [n]);
        assert_eq!(batch.next, Cut::past(batch.records[0].eb_ref.offset));
        assert_eq!(batch.state, ReadState::More);
    }
    assert_eq!(scene.gets(), 1);
    assert_eq!(rest(&mut *cursor).await, (vec![], ReadState::CaughtUp));
}

/// Who has an ACK in hand and reads must not hear that there is nothing more.
#[tokio::test]
async fn only_the_read_whose_own_call_saw_the_head_says_that_it_has_caught_up() {
    let scene = Scene::new(1).await;
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let first = cursor.next(ReadLimit::records(1)).await.unwrap();
    assert_eq!((numbers(&first.records), first.state), (vec![0], ReadState::More));
    // The rest of a page that was kept.
    scene.put(2, 3);
    let kept = cursor.next(ReadLimit::records(1)).await.unwrap();
    assert_eq!((numbers(&kept.records), kept.state), (vec![1], ReadState::More));
    let last = cursor.next(ReadLimit::default()).await.unwrap();
    assert_eq!((numbers(&last.records), last.state), (vec![2], ReadState::CaughtUp));
    // A page that was asked for by a read that was dropped: empty, or with records.
    for (before, after) in [(3..3, 3..4), (4..5, 5..6)] {
        scene.put(before.start, before.end);
        let gate = Gate::new();
        scene.fake.script(Op::GetRecords, [Reaction::plain().hold_answer(&gate)]);
        begin_and_drop(&mut *cursor, &gate).await;
        scene.put(after.start, after.end);
        gate.open();
        let (came, state) = rest(&mut *cursor).await;
        assert_eq!((came, state), ((before.start..after.end).collect(), ReadState::CaughtUp));
    }
    // Where nothing has come the answer takes one call more and no other read.
    let gate = Gate::new();
    scene.fake.script(Op::GetRecords, [Reaction::plain().hold_answer(&gate)]);
    begin_and_drop(&mut *cursor, &gate).await;
    gate.open();
    let idle = cursor.next(ReadLimit::default()).await.unwrap();
    assert_eq!((idle.records.len(), idle.state), (0, ReadState::CaughtUp));
}

#[tokio::test]
async fn a_record_that_no_bus_has_published_is_an_error_at_its_place_and_not_passed_over() {
    let foreign: [(&[u8], &str); 5] = [
        (b"\xf3\x89\x9a\xc2\x0a\x01k", "unsupported"),
        (b"{\"a\":\"\xff\"}", "corrupt"),
        (b"plain words", "corrupt"),
        (b"{\"a\":1}\n{\"a\":2}", "corrupt"),
        (b"", "corrupt"),
    ];
    for (data, kind) in foreign {
        let scene = Scene::new(1).await;
        scene.put(0, 2);
        let bad = scene.fake.put(STREAM, "k", data.to_vec());
        scene.put(2, 4);
        let mut cursor = scene.cursor(StartAt::Earliest).await;
        assert_eq!(numbers(&cursor.next(ReadLimit::default()).await.unwrap().records), [0, 1]);
        for _ in 0..2 {
            let error = cursor.next(ReadLimit::default()).await.unwrap_err();
            assert_eq!((error.kind().code(), error.retry()), (kind, Retry::Never), "{error}");
            let place = format!("{STREAM}/0@{}", bad.sequence_number.as_str());
            assert_eq!(error.place(), Some(place.as_str()));
        }
        // Only on purpose.
        let mut beyond = scene.cursor(after(&bad)).await;
        assert_eq!(rest(&mut *beyond).await.0, [2, 3]);
    }
}

#[tokio::test]
async fn numbers_that_do_not_rise_within_a_page_are_a_violation() {
    let scene = Scene::new(1).await;
    scene.put(0, 3);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let swap = Reaction::plain().edit(|answer| answer["Records"].as_array_mut().unwrap().swap(1, 2));
    scene.fake.script(Op::GetRecords, [swap]);
    let error = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::ProtocolViolation);
    assert_eq!(rest(&mut *cursor).await.0, [0, 1, 2]);
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another_life_and_a_deleted_one_is_not_found() {
    let scene = Scene::new(1).await;
    let stored = scene.put(0, 2);
    let mut idle = scene.cursor(StartAt::Earliest).await;
    rest(&mut *idle).await;
    let mut fresh = scene.cursor(after(&stored[0])).await;
    scene.fake.delete_stream(STREAM);
    for cursor in [&mut idle, &mut fresh] {
        assert_eq!(cursor.next(ReadLimit::default()).await.unwrap_err().kind(), &ErrorKind::NotFound);
    }
    scene.fake.create_stream(STREAM, 1);
    scene.put(7, 9);
    for cursor in [&mut idle, &mut fresh] {
        let error = cursor.next(patient()).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WrongIncarnation, "{error}");
    }
}

/// Engines are known whose iterators outlive their stream.
#[tokio::test]
async fn what_lies_before_the_cut_may_be_of_another_life_and_is_not_dropped_unasked() {
    let scene = Scene::new(1).await.reading(|r| r.shards_fresh_for = HOUR);
    let stored = scene.put(0, 4);
    let mut cursor = scene.cursor(after(&stored[2])).await;
    let (first, anew) = (stored[0].sequence_number.as_str().to_owned(), scene.fake.now_millis() / 1_000 + 60);
    scene.fake.script(
        Op::GetRecords,
        [Reaction::plain().edit(move |answer| {
            answer["Records"][0]["SequenceNumber"] = first.as_str().into();
        })],
    );
    scene.fake.script_by(Op::DescribeStreamSummary, move |_| {
        Some(Reaction::plain().edit(move |answer| {
            answer["StreamDescriptionSummary"]["StreamCreationTimestamp"] = anew.into();
        }))
    });
    let error = cursor.next(patient()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WrongIncarnation, "{error}");
}

#[tokio::test]
async fn a_cursor_that_has_read_nothing_is_not_carried_over_to_a_stream_made_anew() {
    let scene = Scene::new(1).await.reading(|r| r.shards_fresh_for = HOUR);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    assert_eq!(rest(&mut *cursor).await, (vec![], ReadState::CaughtUp));
    scene.fake.delete_stream(STREAM);
    scene.fake.create_stream(STREAM, 1);
    scene.put(0, 2);
    let error = cursor.next(patient()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WrongIncarnation, "{error}");
}

/// A listing may be a moment behind.
#[tokio::test]
async fn children_that_are_not_listed_yet_are_waited_for() {
    let scene = Scene::new(1).await;
    scene.put(0, 1);
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    scene.fake.split(STREAM, "shardId-000000000000");
    let unnamed = Reaction::plain().edit(|answer| {
        answer.as_object_mut().unwrap().remove("ChildShards");
    });
    scene.fake.script_by(Op::GetRecords, move |_| Some(unnamed.clone()));
    let unlisted = Reaction::plain().edit(|answer| answer["Shards"].as_array_mut().unwrap().truncate(1));
    scene.fake.script(Op::ListShards, vec![unlisted; 2]);
    let children = vec![PartitionId(1), PartitionId(2)];
    assert_eq!(rest(&mut *cursor).await, (vec![0], ReadState::Closed { children }));
}

#[tokio::test]
async fn a_split_shard_ends_with_its_children_whoever_names_them() {
    let scene = Scene::new(1).await;
    scene.put(0, 3);
    let mut following = scene.cursor(StartAt::Earliest).await;
    assert_eq!(numbers(&following.next(ReadLimit::records(2)).await.unwrap().records), [0, 1]);
    scene.fake.split(STREAM, "shardId-000000000000");
    let mut late = scene.cursor(StartAt::Earliest).await;
    let unnamed = Reaction::plain().edit(|answer| {
        answer.as_object_mut().unwrap().remove("ChildShards");
    });
    scene.fake.script_by(Op::GetRecords, move |_| Some(unnamed.clone()));
    let closed = ReadState::Closed { children: vec![PartitionId(1), PartitionId(2)] };
    // It had read all there was before.
    assert_eq!(rest(&mut *following).await.0, [2]);
    assert_eq!(rest(&mut *following).await, (vec![], closed.clone()));
    assert_eq!(following.position(), Cut::End);
    assert_eq!(rest(&mut *late).await, (vec![0, 1, 2], closed.clone()));
    let mut at_end = scene.cursor(Cut::End).await;
    assert_eq!(rest(&mut *at_end).await, (vec![], closed));
    let reader = scene.reader().await;
    let open = reader.cursor(&scene.topic, PartitionId(1), Cut::End.into()).await.err().unwrap();
    assert_eq!(open.kind(), &ErrorKind::InvalidInput);
    let parents: Vec<_> =
        reader.partitions(&scene.topic).await.unwrap().partitions.into_iter().map(|p| p.parents).collect();
    assert_eq!(parents, [vec![], vec![P0], vec![P0]]);
}

#[tokio::test]
async fn cursors_of_a_bus_share_what_the_shard_gives() {
    let mut scene = Scene::new(1).await.reading(|r| r.max_records_per_call = 1);
    scene.config.read.shard_rate = Some(Rate { calls_or_records: 5.0, bytes: 2_000_000.0 });
    scene.put(0, 4);
    // The service gives a little more than is asked of it: calls that leave in time may arrive closer together than they
    // left. Three cursors that did not share would still ask for twice as much at once.
    scene.fake.set_limits(|l| l.read_rate = Some(ReadRate { calls: 8, ..ReadRate::default() }));
    let reader = scene.reader().await;
    let mut cursors = Vec::new();
    for _ in 0..3 {
        cursors.push(reader.cursor(&scene.topic, P0, StartAt::Earliest).await.unwrap());
    }
    let all = futures_util::future::join_all(cursors.iter_mut().map(|c| rest(&mut **c))).await;
    assert!(all.iter().all(|(numbers, _)| *numbers == [0, 1, 2, 3]), "{all:?}");
    assert_eq!(refused(&scene), 0);
}

#[tokio::test]
async fn a_page_of_more_bytes_than_a_second_gives_is_paid_off_before_the_next_call() {
    let mut scene = Scene::new(1).await.reading(|r| r.max_records_per_call = 4);
    scene.config.read.shard_rate = Some(Rate { calls_or_records: 100.0, bytes: 100_000.0 });
    for n in 0..5 {
        scene.fake.put(STREAM, "k", format!("{{\"n\":{n}{}}}", " ".repeat(40_000)));
    }
    // Less than the page, and a little more than is asked of it.
    scene.fake.set_limits(|l| l.read_rate = Some(ReadRate { calls: 100, bytes: 130_000 }));
    let mut cursor = scene.cursor(StartAt::Earliest).await;
    let mut came = 0;
    while came < 5 {
        came += cursor.next(ReadLimit::default()).await.unwrap().records.len();
    }
    assert_eq!(refused(&scene), 0);
}

/// How many calls for records were not answered with a page.
fn refused(scene: &Scene) -> usize {
    let calls = scene.fake.requests_of(Op::GetRecords);
    calls.iter().filter(|r| r.outcome != Outcome::Answered { status: 200, error: None }).count()
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let scene = Scene::new(7).await;
    scene.fake.set_limits(|l| l.list_page = 2);
    for name in ["b", "a", "C", "not ours"] {
        if name != "not ours" {
            scene.fake.create_stream(name, 1);
        }
    }
    let reader = scene.reader().await;
    let topics = ["C", "a", "b", STREAM].map(|t| Topic::new(t).unwrap());
    assert_eq!(reader.topics().await.unwrap(), topics);
    let ids: Vec<_> =
        reader.partitions(&scene.topic).await.unwrap().partitions.iter().map(|p| p.id.0).collect();
    assert_eq!(ids, (0..7).collect::<Vec<_>>());
}
