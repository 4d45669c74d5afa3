//! What each failure of the service leaves behind: one answer per record, the promised one.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use eb_contract::{ErrorKind, EventBusPublisher, Retry};
use eb_kinesis::{KinesisBus, Ordering};
use eb_testkit::kinesis_fake::{Cut, Fate, Fault, Gate, KinesisFake, Op, Reaction};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::publish_support::{
    Door, NONE, STREAM, Stage, UNKNOWN, config, error_of, record, rises, told, topic,
};

/// Batches of every size up to five, their keys in runs of every kind that matters.
const RUNS: &[&[&str]] = &[
    &["a"],
    &["a", "a"],
    &["a", "b"],
    &["a", "a", "a"],
    &["a", "b", "a"],
    &["a", "b", "b"],
    &["a", "b", "c"],
    &["a", "a", "b", "b"],
    &["a", "b", "a", "b"],
    &["a", "b", "b", "a"],
    &["a", "b", "c", "d"],
    &["a", "b", "a", "c", "a"],
    &["a", "b", "c", "d", "e"],
];

/// Every pattern of refused entries in the first call of every run, in both orders of acceptance: all is stored in the
/// end, once, in order.
async fn every_pattern(ordering: Ordering, fault: Fault) {
    let stage = Stage::with(2, |c| c.ordering = ordering).await.warm().await;
    let mut round = 0;
    for keys in RUNS {
        for mask in 1..1u64 << keys.len() {
            round += 1;
            let names: Vec<String> = keys.iter().map(|k| format!("{k}{round}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let reaction = Reaction::plain().refuse_mask(mask, &fault);
            let reaction = if round % 2 == 0 { reaction.accept_reversed() } else { reaction };
            stage.fake.script(Op::PutRecords, [reaction]);
            let answers = stage.batch(&names).await;
            assert_eq!(answers.len(), keys.len());
            for (i, answer) in answers.iter().enumerate() {
                let at = answer.as_ref().unwrap_or_else(|e| panic!("{names:?}, mask {mask:b}, {i}: {e}"));
                stage.expect_at(at, names[i], i + 1);
            }
            for name in &names {
                let numbers = stage.numbers_of(name);
                let expected: Vec<_> = (1..=keys.len()).filter(|i| names[i - 1] == *name).collect();
                if ordering == Ordering::Strict {
                    assert_eq!(numbers, expected, "{names:?}, mask {mask:b}");
                } else {
                    let mut sorted = numbers.clone();
                    sorted.sort_unstable();
                    assert_eq!(sorted, expected, "{names:?}, mask {mask:b}");
                }
            }
        }
    }
    assert_eq!(stage.fake.scripted(Op::PutRecords), 0, "every script was played");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttled_entries_at_every_index_are_sent_again_in_order() {
    every_pattern(Ordering::Strict, Fault::throttled()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_fail_inside_the_service_are_sent_again_in_order() {
    every_pattern(Ordering::Strict, Fault::internal()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batched_order_stores_all_once_under_every_pattern() {
    every_pattern(Ordering::Batched, Fault::throttled()).await;
}

#[tokio::test]
async fn entries_denied_for_good_fail_alone_and_stop_their_key_in_the_batch() {
    for mask in 1..1u64 << 4 {
        let stage = Stage::new(1).await.warm().await;
        let refused = Fault::new(400, "KMSDisabledException", "off");
        stage.fake.script(Op::PutRecords, [Reaction::plain().refuse_mask(mask, &refused)]);
        // One call: four keys; what follows of each key is not attempted once its first has failed.
        let answers = stage.batch(&["a", "b", "c", "d", "a", "b", "c", "d"]).await;
        for i in 0..4 {
            let failed = mask & (1 << i) != 0;
            let expected = if failed { ("invalid_input", NONE) } else { ("ok", None) };
            assert_eq!(told(&answers[i]), expected, "mask {mask:b}, {i}");
            let behind = if failed { ("not_attempted", NONE) } else { ("ok", None) };
            assert_eq!(told(&answers[i + 4]), behind, "mask {mask:b}, {i}");
        }
        let numbers: usize = stage.stored().values().map(Vec::len).sum();
        assert_eq!(numbers, 1 + 2 * (4 - mask.count_ones() as usize));
    }
}

#[tokio::test]
async fn the_answers_own_count_of_failures_is_not_believed() {
    let stage = Stage::new(1).await.warm().await;
    stage.fake.script(
        Op::PutRecords,
        [
            // All refused, and one is confessed: what an emulator does.
            Reaction::plain().refuse_mask(0b111, &Fault::throttled()).failed_count(1),
            Reaction::plain().refuse_mask(0b001, &Fault::throttled()).failed_count(0),
            Reaction::plain().failed_count(3),
        ],
    );
    let answers = stage.batch(&["a", "b", "c"]).await;
    for (i, (answer, key)) in answers.iter().zip(["a", "b", "c"]).enumerate() {
        stage.expect_at(answer.as_ref().unwrap(), key, i + 1);
    }
    assert_eq!(stage.fake.records(STREAM).len(), 4, "nothing is there twice");
}

/// The answer is lost, whether or not the records were stored: unknown, at once, and never sent again.
async fn lost(reaction: Reaction, kind: &str, is_stored: bool) {
    let stage = Stage::new(1).await.warm().await;
    let gate = Gate::new();
    stage.fake.script(Op::PutRecords, [reaction.hold(&gate)]);
    let first = stage.publisher.publish_batch(&stage.topic, vec![record("a", 1), record("b", 1)]);
    gate.reached(1).await;
    // Called for while the first is under way: by another call, and by another one of the same key.
    let behind = stage.publisher.publish(&stage.topic, record("a", 2));
    let behind_too = stage.publisher.publish(&stage.topic, record("a", 3));
    let other = stage.publish("c", 1).await;
    gate.open();
    let answers = first.await;
    assert_eq!([told(&answers[0]), told(&answers[1])], [(kind, UNKNOWN); 2]);
    assert_eq!(told(&behind.await), ("not_attempted", NONE));
    assert_eq!(told(&behind_too.await), ("not_attempted", NONE));
    assert_eq!(told(&other), ("ok", None), "another key goes on");
    let times = usize::from(is_stored);
    assert_eq!(stage.numbers_of("a"), vec![1; times], "not sent again");
    assert_eq!(stage.numbers_of("b"), vec![1; times]);
    // Whoever knows of it may go on.
    stage.expect_at(&stage.publish("a", 4).await.unwrap(), "a", 4);
    stage.publisher.close().await.unwrap();
}

#[tokio::test]
async fn a_response_cut_after_the_write_is_unknown_and_not_sent_again() {
    for cut in [Cut::Reset, Cut::Close, Cut::HalfBody] {
        lost(Reaction::plain().cut(cut), "unavailable", true).await;
        lost(Reaction::lose(cut), "unavailable", false).await;
    }
}

#[tokio::test]
async fn a_500_is_unknown_and_not_sent_again() {
    for fault in [Fault::internal(), Fault::internal_exception(), Fault::unavailable()] {
        lost(Reaction::plain().but_answer(fault.clone()), "unavailable", true).await;
        lost(Reaction::refuse(fault), "unavailable", false).await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_unknown() {
    lost(Reaction::plain().but_send(200, "<html>proxy</html>"), "unavailable", true).await;
    lost(Reaction::raw(502, "<html>bad gateway</html>"), "unavailable", false).await;
}

#[tokio::test]
async fn a_wrong_number_of_entries_is_a_violation_with_unknown_effect() {
    lost(Reaction::plain().fewer_results(1), "protocol_violation", true).await;
    lost(Reaction::plain().more_results(1), "protocol_violation", true).await;
    lost(Reaction::plain().fewer_results(2), "protocol_violation", true).await;
    lost(Reaction::plain().but_send(200, "{}"), "protocol_violation", true).await;
}

#[tokio::test]
async fn an_entry_without_a_place_is_a_violation_of_that_entry_alone() {
    type Edit = fn(&mut serde_json::Value);
    let edits: [Edit; 4] = [
        |answer| answer["Records"][1]["ShardId"] = serde_json::Value::Null,
        |answer| answer["Records"][1]["ShardId"] = "shard".into(),
        |answer| answer["Records"][1]["SequenceNumber"] = serde_json::Value::Null,
        |answer| answer["Records"][1]["SequenceNumber"] = "12e4".into(),
    ];
    for edit in edits {
        let stage = Stage::new(1).await.warm().await;
        stage.fake.script(Op::PutRecords, [Reaction::plain().edit(edit)]);
        let answers = stage.batch(&["a", "b", "c", "b"]).await;
        let told: Vec<_> = answers.iter().map(told).collect();
        assert_eq!(
            told,
            [("ok", None), ("protocol_violation", UNKNOWN), ("ok", None), ("not_attempted", NONE)]
        );
        assert_eq!(error_of(answers[1].clone()).retry(), Retry::Never);
    }
}

#[tokio::test]
async fn a_sequence_number_that_does_not_rise_is_a_violation_and_loud() {
    let stage = Stage::new(1).await;
    let first = stage.publish("a", 1).await.unwrap();
    let gate = Gate::new();
    let stale = first.offset.to_string();
    let descend = Reaction::plain().hold_answer(&gate).edit(move |answer| {
        answer["Records"][0]["SequenceNumber"] = stale.as_str().into();
    });
    stage.fake.script(Op::PutRecords, [descend]);
    let second = stage.publisher.publish(&stage.topic, record("a", 2));
    gate.reached(1).await;
    let third = stage.publisher.publish(&stage.topic, record("a", 3));
    gate.open();
    let error = error_of(second.await);
    assert_eq!((error.kind(), error.retry()), (&ErrorKind::ProtocolViolation, Retry::Never));
    assert_eq!(Some(error.effect()), UNKNOWN);
    assert!(error.to_string().contains(&first.offset.to_string()), "{error}");
    assert_eq!(told(&third.await), ("not_attempted", NONE), "what is behind does not go on silently");
    stage.expect_at(&stage.publish("a", 4).await.unwrap(), "a", 4);
}

#[tokio::test]
async fn a_call_that_timed_out_and_lands_later_is_overtaken_by_nothing_that_was_called_before() {
    let fake = KinesisFake::start().await.unwrap();
    fake.create_stream(STREAM, 1);
    let mut config = config(&fake.endpoint_url());
    // Answers that do come are not late.
    config.timeouts.attempt = Duration::from_secs(3);
    let publisher = KinesisBus::open(config).await.unwrap().publisher();
    let topic = topic();
    let warm = publisher.publish(&topic, record("warm", 0)).await;
    assert_eq!(told(&warm), ("ok", None));
    let gate = Gate::new();
    fake.script(Op::PutRecords, [Reaction::plain().once_abandoned().hold(&gate)]);
    let calls: Vec<_> = (1..=5).map(|n| publisher.publish(&topic, record("a", n))).collect();
    let answers: Vec<_> = join_all(calls).await.iter().map(told).collect();
    assert_eq!(answers[0], ("timeout", UNKNOWN));
    assert_eq!(answers[1..], [("not_attempted", NONE); 4]);
    gate.open();
    fake.wait_finished(Op::PutRecords, 2).await;
    let stored: Vec<_> =
        fake.records(STREAM).iter().map(|r| crate::publish_support::number(&r.entry.data)).collect();
    assert_eq!(stored, [0, 1], "it has landed, and nothing of its key lies before it");
}

/// Records arrive between any two steps of the publisher: nothing of the key that came before its caller knew is sent.
#[tokio::test]
async fn nothing_that_was_called_for_before_the_lost_outcome_was_told_is_sent() {
    let stage = Stage::new(1).await.warm().await;
    for round in 0..24 {
        let key = format!("k{round}");
        stage.fake.script(Op::PutRecords, [Reaction::lose(Cut::Reset)]);
        // On the publisher's own thread, in turn with its tasks: what is called for here was called for before the answer.
        let (publisher, topic, of) = (stage.publisher.clone(), stage.topic.clone(), key.clone());
        let publishing = tokio::spawn(async move {
            let mut first = publisher.publish(&topic, record(&of, 0));
            let mut behind = Vec::new();
            poll_fn(|cx| match first.poll_unpin(cx) {
                Poll::Ready(answer) => Poll::Ready((told(&answer), std::mem::take(&mut behind))),
                Poll::Pending => {
                    behind.push(publisher.publish(&topic, record(&of, 1 + behind.len())));
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            })
            .await
        });
        let (told_first, behind) = publishing.await.unwrap();
        assert_eq!(told_first, ("unavailable", UNKNOWN));
        for answer in join_all(behind).await {
            assert_eq!(told(&answer), ("not_attempted", NONE));
        }
        assert!(stage.numbers_of(&key).is_empty());
        // Whoever knows of it may go on; and the way to the service is known to be good again.
        stage.expect_at(&stage.publish(&key, 7).await.unwrap(), &key, 7);
    }
}

#[tokio::test]
async fn a_record_that_may_be_stored_says_so_when_it_is_given_up() {
    // Long enough for a first attempt on a machine that is busy with everything else.
    let stage = Stage::with(1, |c| c.give_up_after = Duration::from_secs(2)).await.warm().await;
    stage.fake.script_by(Op::PutRecords, |_| {
        Some(Reaction::plain().entries_by(|_, entry| {
            if entry.partition_key == "a" { Fate::StoreAndDeny(Fault::internal()) } else { Fate::Model }
        }))
    });
    let calls: Vec<_> = (1..=3).map(|n| stage.publisher.publish(&stage.topic, record("a", n))).collect();
    assert_eq!(told(&stage.publish("b", 1).await), ("ok", None));
    let answers: Vec<_> = join_all(calls).await.iter().map(told).collect();
    assert_eq!(answers, [("unavailable", UNKNOWN), ("not_attempted", NONE), ("not_attempted", NONE)]);
    let copies = stage.numbers_of("a");
    assert!(
        !copies.is_empty() && copies.iter().all(|n| *n == 1),
        "copies of it, and nothing else: {copies:?}"
    );
}

#[tokio::test]
async fn throttling_that_does_not_end_is_answered_with_no_effect() {
    // Long enough for a first attempt on a machine that is busy with everything else.
    let stage = Stage::with(1, |c| c.give_up_after = Duration::from_secs(2)).await.warm().await;
    for reaction in [
        Reaction::plain().entries_by(|_, _| Fate::Refuse(Fault::throttled())),
        Reaction::refuse(Fault::limit_exceeded()),
        Reaction::refuse(Fault::kms_throttling()),
    ] {
        stage.fake.clear_scripts();
        stage.fake.script_by(Op::PutRecords, move |_| Some(reaction.clone()));
        let error = error_of(stage.publish("a", 1).await);
        assert_eq!((error.kind().code(), Some(error.effect())), ("throttled", NONE), "{error}");
        assert!(error.is_retryable());
    }
    assert!(stage.numbers_of("a").is_empty());
    stage.fake.clear_scripts();
    stage.expect_at(&stage.publish("a", 2).await.unwrap(), "a", 2);
}

#[tokio::test]
async fn whole_calls_refused_for_good_fail_without_effect() {
    for fault in [Fault::access_denied(), Fault::unrecognized_client(), Fault::kms_disabled()] {
        let stage = Stage::new(1).await.warm().await;
        stage.fake.script(Op::PutRecords, [Reaction::refuse(fault)]);
        let error = error_of(stage.publish("a", 1).await);
        assert_eq!((error.kind().code(), Some(error.effect())), ("invalid_input", NONE));
        assert!(error.advice().is_some(), "{error}");
        stage.expect_at(&stage.publish("a", 2).await.unwrap(), "a", 2);
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_for() {
    let stage = Stage::new(1).await.warm().await;
    let expired = "Signature expired: 20261121T210000Z is now earlier than 20261121T211000Z";
    let refusals = [
        Fault::expired_token(),
        // What the service says when our clock is off.
        Fault::new(400, "InvalidSignatureException", expired),
        // What engines say of a stream that is being made.
        Fault::new(400, "ResourceInUseException", "Stream orders is not currently ACTIVE."),
        // What a proxy says.
        Fault::new(429, "", "slow down"),
    ];
    for (n, refusal) in refusals.into_iter().enumerate() {
        stage.fake.script(Op::PutRecords, [Reaction::refuse(refusal)]);
        stage.expect_at(&stage.publish("a", n).await.unwrap(), "a", n);
    }
}

#[tokio::test]
async fn a_missing_stream_says_what_to_run_and_is_found_once_it_is_there() {
    let fake = KinesisFake::start().await.unwrap();
    let publisher = KinesisBus::open(config(&fake.endpoint_url())).await.unwrap().publisher();
    let calls: Vec<_> = (1..=3).map(|n| publisher.publish(&topic(), record("a", n))).collect();
    for answer in join_all(calls).await {
        let error = error_of(answer);
        assert_eq!((error.kind(), Some(error.effect())), (&ErrorKind::NotFound, NONE));
        assert!(error.to_string().contains("eb topics create orders"), "{error}");
    }
    fake.create_stream(STREAM, 1);
    publisher.publish(&topic(), record("a", 4)).await.unwrap();
    // It goes away under a publisher that knows it, and comes back.
    fake.delete_stream(STREAM);
    let error = error_of(publisher.publish(&topic(), record("a", 5)).await);
    assert_eq!((error.kind(), Some(error.effect())), (&ErrorKind::NotFound, NONE));
    fake.create_stream(STREAM, 2);
    publisher.publish(&topic(), record("a", 6)).await.unwrap();
    assert_eq!(fake.records(STREAM).len(), 1);
}

#[tokio::test]
async fn what_never_reached_a_server_that_is_gone_is_written_in_order_when_it_is_back() {
    let stage = Stage::new(2).await;
    let mut door = Door::to(stage.fake.address());
    let publisher = KinesisBus::open(config(&door.url())).await.unwrap().publisher();
    let calls: Vec<_> =
        (0..40).map(|n| publisher.publish(&stage.topic, record(&format!("k{}", n % 4), n))).collect();
    let other = publisher.publish_batch(&stage.topic, vec![record("k0", 40), record("k1", 41)]);
    assert_eq!(told(&publisher.probe(&stage.topic).await.map(|()| unreachable!())), ("unavailable", NONE));
    door.open().await;
    for (n, answer) in join_all(calls).await.into_iter().enumerate() {
        stage.expect_at(&answer.unwrap(), &format!("k{}", n % 4), n);
    }
    assert!(other.await.iter().all(Result::is_ok));
    for (key, numbers) in stage.stored() {
        assert!(rises(&numbers), "{key}: {numbers:?}");
    }
    publisher.probe(&stage.topic).await.unwrap();
    publisher.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_stays_away_is_unavailable_without_effect() {
    let fake = KinesisFake::start().await.unwrap();
    let door = Door::to(fake.address());
    let mut config = config(&door.url());
    config.publish.give_up_after = Duration::from_millis(200);
    let publisher = KinesisBus::open(config).await.unwrap().publisher();
    let calls: Vec<_> = (1..=20).map(|n| publisher.publish(&topic(), record("a", n))).collect();
    for answer in join_all(calls).await {
        let error = error_of(answer);
        assert_eq!((error.kind(), Some(error.effect())), (&ErrorKind::Unavailable, NONE), "{error}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_server_that_takes_no_connection_is_unavailable_without_effect() {
    // Linux drops who knocks where the queue is full.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut queue = Vec::new();
    let knock = async || {
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    };
    let mut unheard = 0;
    // One that is not heard may have come to a busy machine; several in a row have come to a full queue.
    while unheard < 5 {
        match knock().await {
            Ok(taken) => (unheard, _) = (0, queue.push(taken.unwrap())),
            Err(_) => unheard += 1,
        }
        assert!(queue.len() < 10_000, "the queue has no end");
    }
    let mut config = config(&format!("http://{address}"));
    config.timeouts.connect = Duration::from_millis(50);
    config.publish.give_up_after = Duration::from_millis(100);
    let publisher = KinesisBus::open(config).await.unwrap().publisher();
    let error = error_of(publisher.publish(&topic(), record("a", 1)).await);
    assert_eq!((error.kind(), Some(error.effect())), (&ErrorKind::Unavailable, NONE), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_server_that_resets_connections_leaves_the_outcome_unknown() {
    let stage = Stage::new(1).await.warm().await;
    stage.fake.go_down();
    let calls: Vec<_> = (1..=3).map(|n| stage.publisher.publish(&stage.topic, record("a", n))).collect();
    let answers: Vec<_> = join_all(calls).await.iter().map(told).collect();
    assert_eq!(answers, [("unavailable", UNKNOWN), ("not_attempted", NONE), ("not_attempted", NONE)]);
    stage.fake.come_back();
    stage.expect_at(&stage.publish("a", 4).await.unwrap(), "a", 4);
}
