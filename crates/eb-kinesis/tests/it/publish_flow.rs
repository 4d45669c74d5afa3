//! How records travel: grouped, bounded, in the order of the calls, whatever becomes of futures and handles.

use std::collections::HashSet;

use eb_contract::{EnvelopeRef, ErrorKind, EventBusPublisher, PartitionKey, PublishRecord};
use eb_kinesis::{KinesisBus, Ordering};
use eb_testkit::kinesis_fake::{Fault, Gate, KinesisFake, Op, Reaction};
use futures_util::future::join_all;

use crate::publish_support::{
    NONE, STREAM, Stage, UNKNOWN, config, error_of, number, record, rises, told, topic,
};

/// How many records each `PutRecords` call had, the warming one left out.
fn sizes(fake: &KinesisFake) -> Vec<usize> {
    fake.requests_of(Op::PutRecords).iter().skip(1).map(|r| r.entries.len()).collect()
}

/// Holds every call until the gate opens.
fn hold_all(fake: &KinesisFake) -> Gate {
    let gate = Gate::new();
    let held = gate.clone();
    fake.script_by(Op::PutRecords, move |_| Some(Reaction::plain().hold(&held)));
    gate
}

#[tokio::test]
async fn what_gathers_while_calls_are_under_way_goes_next_in_one_call() {
    let stage = Stage::with(2, |c| c.calls_in_flight = 2).await.warm().await;
    let gate = hold_all(&stage.fake);
    let mut calls = Vec::new();
    for n in 0..2 {
        calls.push(stage.publisher.publish(&stage.topic, record(&format!("k{n}"), n)));
        gate.reached(n + 1).await;
    }
    for n in 2..100 {
        calls.push(stage.publisher.publish(&stage.topic, record(&format!("k{n}"), n)));
    }
    gate.open();
    for (n, answer) in join_all(calls).await.into_iter().enumerate() {
        stage.expect_at(&answer.unwrap(), &format!("k{n}"), n);
    }
    assert_eq!(sizes(&stage.fake), [1, 1, 98]);
    assert_eq!(stage.fake.most_in_flight(Op::PutRecords), 2);
}

#[tokio::test]
async fn a_call_has_no_more_records_and_bytes_than_allowed_keys_counted() {
    let stage = Stage::with(1, |c| {
        c.calls_in_flight = 1;
        c.max_records_per_call = 10;
        c.max_record_bytes = 4_096;
        c.max_bytes_per_call = 4_096;
    });
    let stage = stage.await.warm().await;
    let gate = hold_all(&stage.fake);
    let mut calls = vec![stage.publisher.publish(&stage.topic, record("first", 0))];
    gate.reached(1).await;
    calls.extend((0..25).map(|n| stage.publisher.publish(&stage.topic, record(&format!("k{n}"), n))));
    // Keys of 502 bytes before envelopes of a few: eight fit, where the envelopes alone would all fit.
    let wide = |n: usize| record(&format!("{n:04}{}", "ä".repeat(249)), n);
    let bytes = |r: &PublishRecord| r.partition_key.as_str().len() + r.envelope.len();
    let wide_bytes = bytes(&wide(1));
    calls.extend((0..20).map(|n| stage.publisher.publish(&stage.topic, wide(n))));
    gate.open();
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    for request in stage.fake.requests_of(Op::PutRecords) {
        let bytes: usize = request.entries.iter().map(|e| e.partition_key.len() + e.data.len()).sum();
        assert!(request.entries.len() <= 10 && bytes <= 4_096, "{} of {bytes}", request.entries.len());
    }
    let full = 4_096 / wide_bytes;
    assert!(
        sizes(&stage.fake).contains(&10) && sizes(&stage.fake).contains(&full),
        "{:?}",
        sizes(&stage.fake)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_order_has_one_record_of_a_key_in_flight() {
    let stage = Stage::new(3).await;
    let calls: Vec<_> =
        (0..300).map(|n| stage.publisher.publish(&stage.topic, record(&format!("k{}", n % 7), n))).collect();
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let requests = stage.fake.requests_of(Op::PutRecords);
    for (i, request) in requests.iter().enumerate() {
        let keys: HashSet<_> = request.entries.iter().map(|e| &e.partition_key).collect();
        assert_eq!(keys.len(), request.entries.len(), "a key twice in one call");
        for other in requests[..i].iter().filter(|other| other.overlaps(request)) {
            let both = other.entries.iter().filter(|e| keys.contains(&e.partition_key)).count();
            assert_eq!(both, 0, "a key in two calls at once");
        }
    }
    for (key, numbers) in stage.stored() {
        assert!(rises(&numbers), "{key}: {numbers:?}");
    }
}

#[tokio::test]
async fn batched_order_puts_many_of_a_key_into_one_call_and_says_so() {
    let stage = Stage::with(1, |c| c.ordering = Ordering::Batched).await.warm().await;
    assert_eq!(stage.publisher.capabilities().key_order, eb_contract::KeyOrder::BestEffort);
    let answers = stage.batch(&["a"; 50]).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(sizes(&stage.fake), [50]);
}

#[tokio::test]
async fn the_place_is_fixed_at_the_call_before_any_poll() {
    let stage = Stage::new(2).await;
    let mut calls: Vec<_> =
        (0..20).map(|n| Some(stage.publisher.publish(&stage.topic, record("a", n)))).collect();
    let batch = stage.publisher.publish_batch(&stage.topic, vec![record("a", 20), record("a", 21)]);
    calls[7] = None;
    assert!(batch.await.iter().all(Result::is_ok), "no earlier future was polled");
    for (n, call) in calls.into_iter().enumerate().rev() {
        if let Some(call) = call {
            stage.expect_at(&call.await.unwrap(), "a", n);
        }
    }
    assert_eq!(
        stage.numbers_of("a"),
        (0..22).collect::<Vec<_>>(),
        "the dropped one is there too, in its place"
    );
}

#[tokio::test]
async fn a_publish_may_come_from_a_thread_without_a_runtime() {
    let stage = Stage::new(1).await;
    let (publisher, topic) = (stage.publisher.clone(), stage.topic.clone());
    let call = std::thread::spawn(move || publisher.publish(&topic, record("a", 1))).join().unwrap();
    stage.expect_at(&call.await.unwrap(), "a", 1);
}

#[tokio::test]
async fn memory_is_bounded_and_who_comes_too_many_is_told() {
    let limit = 64 << 10;
    let stage = Stage::with(1, |c| {
        c.max_record_bytes = 8 << 10;
        c.max_bytes_per_call = 16 << 10;
        c.max_buffered_bytes = limit;
    });
    let stage = stage.await.warm().await;
    let gate = hold_all(&stage.fake);
    let big = |n: usize| {
        let envelope = EnvelopeRef::new(format!("{{\"n\":{n}{}}}", " ".repeat(4 << 10))).unwrap();
        PublishRecord::new(PartitionKey::new(format!("k{n}")).unwrap(), envelope)
    };
    let mut waiting = Vec::new();
    let refused = loop {
        let call = stage.publisher.publish(&stage.topic, big(waiting.len()));
        match futures_util::FutureExt::now_or_never(&mut Box::pin(call)) {
            Some(answer) => break error_of(answer),
            None => waiting.push(stage.publisher.publish(&stage.topic, big(1_000 + waiting.len()))),
        }
        assert!(waiting.len() < 100, "memory has no bound");
    };
    assert_eq!((refused.kind().code(), Some(refused.effect())), ("throttled", NONE));
    assert!(waiting.len() * 2 * (4 << 10) <= limit + (8 << 10));
    let batch = stage.publisher.publish_batch(&stage.topic, vec![record("x", 1), record("y", 1)]).await;
    assert_eq!([told(&batch[0]), told(&batch[1])], [("throttled", NONE); 2]);
    gate.open();
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    // One call is taken however large it is.
    let large = (0..40).map(|n| big(2_000 + n)).collect();
    assert!(stage.publisher.publish_batch(&stage.topic, large).await.iter().all(Result::is_ok));
    stage.publish("z", 1).await.unwrap();
}

#[tokio::test]
async fn closing_finishes_what_was_called_before_and_refuses_the_rest() {
    let stage = Stage::new(2).await.warm().await;
    let gate = hold_all(&stage.fake);
    let calls: Vec<_> =
        (0..30).map(|n| stage.publisher.publish(&stage.topic, record(&format!("k{}", n % 3), n))).collect();
    let closing = stage.publisher.close();
    // The closing has begun with the call.
    assert_eq!(told(&stage.publish("late", 1).await), ("closed", NONE));
    assert_eq!(told(&stage.batch(&["late"]).await[0]), ("closed", NONE));
    gate.open();
    closing.await.unwrap();
    stage.publisher.close().await.unwrap();
    for (n, answer) in join_all(calls).await.into_iter().enumerate() {
        stage.expect_at(&answer.unwrap(), &format!("k{}", n % 3), n);
    }
    assert_eq!(stage.publisher.probe(&stage.topic).await.unwrap_err().kind(), &ErrorKind::Closed);
}

#[tokio::test]
async fn closing_tells_that_something_could_not_be_written() {
    let stage = Stage::new(1).await.warm().await;
    let gate = Gate::new();
    stage.fake.script(Op::PutRecords, [Reaction::refuse(Fault::internal()).hold(&gate)]);
    let call = stage.publisher.publish(&stage.topic, record("a", 1));
    gate.reached(1).await;
    let closing = stage.publisher.close();
    gate.open();
    let error = closing.await.unwrap_err();
    assert_eq!((error.kind(), Some(error.effect())), (&ErrorKind::Unavailable, UNKNOWN), "{error}");
    assert_eq!(told(&call.await), ("unavailable", UNKNOWN));
}

#[tokio::test]
async fn a_dropped_publisher_finishes_in_the_background_and_its_tasks_end() {
    let Stage { fake, publisher, topic } = Stage::new(2).await.warm().await;
    let gate = hold_all(&fake);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let calls: Vec<_> = (0..10).map(|n| publisher.publish(&topic, record("a", n))).collect();
    gate.reached(1).await;
    let with_publisher = tasks();
    drop(publisher);
    gate.open();
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let log = fake.records(STREAM);
    let numbers = log.iter().filter(|r| r.entry.partition_key == "a").map(|r| number(&r.entry.data));
    assert_eq!(numbers.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    // The topic's task and the call's; connections of the pool may live on.
    while tasks() > with_publisher - 2 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_runtime_that_ends_answers_what_is_left_by_what_is_known() {
    let after = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stage = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gate = Gate::new();
    let (fake, publisher, calls) = stage.block_on(async {
        let Stage { fake, publisher, topic } = Stage::new(1).await.warm().await;
        fake.script(Op::PutRecords, [Reaction::plain().hold(&gate)]);
        let calls: Vec<_> = (1..=3).map(|n| publisher.publish(&topic, record("a", n))).collect();
        gate.reached(1).await;
        (fake, publisher, calls)
    });
    stage.shutdown_background();
    let answers: Vec<_> = after.block_on(join_all(calls)).iter().map(told).collect();
    assert_eq!(answers, [("closed", UNKNOWN), ("closed", NONE), ("closed", NONE)]);
    let late = after.block_on(publisher.publish(&topic(), record("a", 4)));
    assert_eq!(told(&late), ("closed", NONE), "nobody waits for what nobody does");
    drop(fake);
}

#[tokio::test]
async fn too_large_fails_for_good_and_stops_its_key_in_the_batch() {
    let stage = Stage::new(1).await;
    let limit = stage.publisher.capabilities().max_envelope_bytes;
    let sized = |key: &str, size: usize| {
        let envelope = format!("{{\"n\":1{}}}", " ".repeat(size - 7));
        PublishRecord::new(PartitionKey::new(key.to_owned()).unwrap(), EnvelopeRef::new(envelope).unwrap())
    };
    let answers = stage
        .publisher
        .publish_batch(
            &stage.topic,
            vec![sized("a", limit), sized("a", limit + 1), sized("a", 10), sized("b", 10)],
        )
        .await;
    let told: Vec<_> = answers.iter().map(told).collect();
    assert_eq!(told, [("ok", None), ("too_large", NONE), ("not_attempted", NONE), ("ok", None)]);
    let longest = "ä".repeat(PartitionKey::MAX_CHARS);
    let answer = stage.publisher.publish(&stage.topic, sized(&longest, limit)).await;
    assert!(answer.is_ok(), "the longest key with the largest envelope: {answer:?}");
    assert!(matches!(
        error_of(stage.publisher.publish(&stage.topic, sized("a", limit + 1)).await).kind(),
        ErrorKind::TooLarge { .. }
    ));
}

#[tokio::test]
async fn a_key_moves_with_its_shard_and_keeps_its_order() {
    let stage = Stage::new(1).await;
    let mut n = 0;
    for round in 0..4 {
        let calls: Vec<_> = (0..40)
            .map(|i| stage.publisher.publish(&stage.topic, record(&format!("k{}", i % 8), n + i)))
            .collect();
        n += 40;
        let open: Vec<_> = stage.fake.shards(STREAM).into_iter().filter(|s| s.ending.is_none()).collect();
        if round < 2 {
            stage.fake.split(STREAM, &open[0].id);
        } else {
            let last = open.len() - 1;
            stage.fake.merge(STREAM, &open[last - 1].id, &open[last].id);
        }
        for (i, answer) in join_all(calls).await.into_iter().enumerate() {
            stage.expect_at(&answer.unwrap(), &format!("k{}", i % 8), n - 40 + i);
        }
    }
    // An answer from a shard that was not expected makes the publisher look again, though not more than once a second.
    while stage.fake.count(Op::ListShards) < 2 {
        stage.publish("more", n).await.unwrap();
        n += 1;
    }
    let mut stored = stage.fake.records(STREAM);
    stored.sort_by(|a, b| a.sequence_number.cmp(&b.sequence_number));
    for key in 0..8 {
        let of_key = stored.iter().filter(|r| r.entry.partition_key == format!("k{key}"));
        assert!(rises(&of_key.map(|r| number(&r.entry.data)).collect::<Vec<_>>()));
    }
}

#[tokio::test]
async fn without_the_right_to_list_shards_records_are_written_all_the_same() {
    let stage = Stage::new(2).await;
    stage.fake.script_by(Op::ListShards, |_| Some(Reaction::refuse(Fault::access_denied())));
    for n in 0..5 {
        stage.expect_at(&stage.publish("a", n).await.unwrap(), "a", n);
    }
}

#[tokio::test]
async fn a_stream_that_scatters_the_records_of_a_key_is_refused() {
    let stage = Stage::new(1).await;
    stage.fake.script_by(Op::DescribeStreamSummary, |_| {
        Some(Reaction::plain().edit(|answer| {
            answer["StreamDescriptionSummary"]["RecordDistributionStrategy"] = "UNIFORM".into();
        }))
    });
    let calls: Vec<_> = (1..=3).map(|n| stage.publisher.publish(&stage.topic, record("a", n))).collect();
    for answer in join_all(calls).await {
        let error = error_of(answer);
        assert_eq!((error.kind(), Some(error.effect())), (&ErrorKind::Unsupported, NONE));
    }
    assert_eq!(stage.calls(), 0, "nothing was written");
}

#[tokio::test]
async fn a_record_larger_than_the_stream_takes_fails_alone() {
    let fake = KinesisFake::start().await.unwrap();
    fake.create_stream(STREAM, 1);
    let mut config = config(&fake.endpoint_url());
    config.publish.max_record_bytes = 10 << 20;
    config.publish.max_bytes_per_call = 10 << 20;
    fake.script_by(Op::DescribeStreamSummary, |_| {
        Some(Reaction::plain().edit(|answer| {
            answer["StreamDescriptionSummary"]["MaxRecordSizeInKiB"] = 1024.into();
        }))
    });
    let publisher = KinesisBus::open(config).await.unwrap().publisher();
    // The key counts: an envelope of just the limit is too much, one that leaves room for the key is not.
    let sized = |key: &str, size: usize| {
        let envelope = format!("{{\"n\":1{}}}", " ".repeat(size - 7));
        let limits = eb_contract::EnvelopeLimits { max_bytes: 2 << 20, ..Default::default() };
        let envelope = EnvelopeRef::with_limits(envelope, limits).unwrap();
        PublishRecord::new(PartitionKey::new(key).unwrap(), envelope)
    };
    let records =
        vec![record("a", 1), sized("a", 1 << 20), record("a", 3), record("b", 1), sized("c", (1 << 20) - 1)];
    let answers = publisher.publish_batch(&topic(), records).await;
    let told: Vec<_> = answers.iter().map(told).collect();
    let stored = ("ok", None);
    assert_eq!(told, [stored, ("too_large", NONE), ("not_attempted", NONE), stored, stored]);
}

#[tokio::test]
async fn a_probe_asks_about_the_stream_and_a_good_answer_stands_for_a_moment() {
    let fake = KinesisFake::start().await.unwrap();
    let publisher = KinesisBus::open(config(&fake.endpoint_url())).await.unwrap().publisher();
    let error = publisher.probe(&topic()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::NotFound);
    assert!(error.advice().is_some());
    fake.create_stream(STREAM, 1);
    let status = |status: &'static str| {
        Reaction::plain().edit(move |answer| {
            answer["StreamDescriptionSummary"]["StreamStatus"] = status.into();
        })
    };
    fake.script(Op::DescribeStreamSummary, [status("DELETING"), status("UPDATING")]);
    assert_eq!(publisher.probe(&topic()).await.unwrap_err().kind(), &ErrorKind::Unavailable);
    // Not each probe asks the service: two that come within the moment ask it once at the most.
    loop {
        let asked = fake.count(Op::DescribeStreamSummary);
        for _ in 0..3 {
            publisher.probe(&topic()).await.unwrap();
        }
        if fake.count(Op::DescribeStreamSummary) < asked + 3 {
            break;
        }
    }
    assert_eq!(fake.count(Op::PutRecords), 0);
}
