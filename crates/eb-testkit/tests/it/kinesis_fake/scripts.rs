//! What scripts make of it.

use eb_testkit::kinesis_fake::{Chaos, Cut, Fate, Fault, Gate, Op, Outcome, Reaction};

use super::client::{Reply, T, batch, call, data, get, iterator, put_records, receive, send, start};

#[tokio::test]
async fn entries_are_refused_by_every_pattern_and_the_others_stored_in_order() {
    let fake = start(1).await;
    let keys = ["a", "b", "c", "d"];
    for mask in 0..16u64 {
        fake.script(Op::PutRecords, [Reaction::plain().refuse_mask(mask, &Fault::internal())]);
        let before = fake.records(T).len();
        let answer = put_records(&fake, &keys).await.ok();
        assert_eq!(answer["FailedRecordCount"], mask.count_ones());
        let stored: Vec<_> =
            fake.records(T)[before..].iter().map(|r| r.entry.partition_key.clone()).collect();
        let expected: Vec<_> = (0..4).filter(|i| mask & (1 << i) == 0).map(|i| keys[i]).collect();
        assert_eq!(stored, expected);
        for (i, result) in answer["Records"].as_array().unwrap().iter().enumerate() {
            assert_eq!(result["ErrorCode"] == "InternalFailure", mask & (1 << i) != 0);
        }
    }
}

#[tokio::test]
async fn entries_may_be_accepted_in_another_order() {
    let fake = start(1).await;
    fake.script(
        Op::PutRecords,
        [Reaction::plain().accept_reversed(), Reaction::plain().accept_in([1, 9, 1])],
    );
    let stored = async || {
        let before = fake.records(T).len();
        put_records(&fake, &["a", "b", "c"]).await.ok();
        fake.records(T)[before..].iter().map(|r| r.index).collect::<Vec<_>>()
    };
    assert_eq!(stored().await, [2, 1, 0]);
    assert_eq!(stored().await, [1, 0, 2]);
    assert_eq!(stored().await, [0, 1, 2]);
}

#[tokio::test]
async fn a_denied_entry_is_stored_all_the_same() {
    let fake = start(1).await;
    let deny = Reaction::plain().entry(0, Fate::StoreAndDeny(Fault::internal()));
    fake.script(Op::PutRecords, [deny.clone()]);
    fake.script(Op::PutRecord, [deny]);
    let answer = put_records(&fake, &["a"]).await.ok();
    assert_eq!(answer["Records"][0]["ErrorCode"], "InternalFailure");
    let one = serde_json::json!({"StreamName": T, "Data": "", "PartitionKey": "a"});
    assert_eq!(call(&fake, "PutRecord", one).await.error(), (500, "InternalFailure".into()));
    assert_eq!(fake.records(T).len(), 2);
    let results = &fake.requests_of(Op::PutRecord)[0].results;
    assert!(results[0].stored.is_some() && results[0].refused.is_some());
}

#[tokio::test]
async fn answers_are_cut_with_and_without_an_effect() {
    let fake = start(1).await;
    for (cut, expected) in
        [(Cut::Reset, Reply::Reset), (Cut::Close, Reply::Closed), (Cut::HalfBody, Reply::Half)]
    {
        fake.script(Op::PutRecords, [Reaction::lose(cut), Reaction::plain().cut(cut)]);
        let before = fake.records(T).len();
        assert_eq!(put_records(&fake, &["a"]).await, expected);
        assert_eq!(fake.records(T).len(), before);
        assert_eq!(put_records(&fake, &["a"]).await, expected);
        assert_eq!(fake.records(T).len(), before + 1);
        assert_eq!(fake.requests().last().unwrap().outcome, Outcome::Cut(cut));
    }
}

#[tokio::test]
async fn whole_calls_are_refused_with_and_without_an_effect() {
    let fake = start(1).await;
    fake.script(
        Op::PutRecords,
        [
            Reaction::refuse(Fault::unavailable()),
            Reaction::plain().but_answer(Fault::internal()),
            Reaction::raw(502, "<html>"),
        ],
    );
    assert_eq!(put_records(&fake, &["a"]).await.error(), (503, "ServiceUnavailable".into()));
    assert_eq!(fake.records(T).len(), 0);
    assert_eq!(put_records(&fake, &["a"]).await.error(), (500, "InternalFailure".into()));
    assert_eq!(fake.records(T).len(), 1);
    assert_eq!(put_records(&fake, &["a"]).await, Reply::Whole(502, "<html>".into()));
    let outcomes: Vec<_> = fake.requests().into_iter().map(|r| r.outcome).collect();
    let answered =
        |status, error: Option<&str>| Outcome::Answered { status, error: error.map(str::to_owned) };
    assert_eq!(
        outcomes,
        [
            answered(503, Some("ServiceUnavailable")),
            answered(500, Some("InternalFailure")),
            answered(502, None)
        ]
    );
}

#[tokio::test]
async fn answers_lie_on_request() {
    let fake = start(1).await;
    fake.script(
        Op::PutRecords,
        [
            Reaction::plain().failed_count(1),
            Reaction::plain().fewer_results(1),
            Reaction::plain().more_results(2),
            Reaction::plain().but_send(200, "{\"Records\":[{"),
        ],
    );
    let put = async || put_records(&fake, &["a", "b"]).await;
    assert_eq!(put().await.ok()["FailedRecordCount"], 1);
    assert_eq!(put().await.ok()["Records"].as_array().unwrap().len(), 1);
    assert_eq!(put().await.ok()["Records"].as_array().unwrap().len(), 4);
    assert_eq!(put().await, Reply::Whole(200, "{\"Records\":[{".into()));
    assert_eq!(fake.records(T).len(), 8);
}

#[tokio::test]
async fn a_gate_holds_requests_and_answers_until_it_opens() {
    let fake = start(1).await;
    let (door, back) = (Gate::new(), Gate::new());
    fake.script(Op::PutRecords, [Reaction::plain().hold(&door).hold_answer(&back)]);
    let body = batch(&["a"]).to_string();
    let held = send(&fake, "PutRecords", &body).await;
    door.reached(1).await;
    assert_eq!((door.held(), fake.records(T).len()), (1, 0));
    let second = send(&fake, "PutRecords", &body).await;
    receive(second).await.ok();
    door.let_through(1);
    back.reached(1).await;
    assert_eq!(fake.records(T).len(), 2);
    assert_eq!(fake.requests()[0].outcome, Outcome::InFlight);
    back.open();
    receive(held).await.ok();
    fake.wait_finished(Op::PutRecords, 2).await;
    assert_eq!(fake.most_in_flight(Op::PutRecords), 2);
    let requests = fake.requests();
    assert!(requests[0].overlaps(&requests[1]));
    assert_eq!(requests[0].results[0].stored.as_ref().unwrap().request, 1);
}

#[tokio::test]
async fn a_call_that_was_given_up_lands_later() {
    let fake = start(1).await;
    let late = Gate::new();
    fake.script(
        Op::PutRecords,
        [Reaction::plain().once_abandoned().hold(&late), Reaction::plain().never_answer()],
    );
    let body = batch(&["a"]).to_string();
    let first = send(&fake, "PutRecords", &body).await;
    fake.wait_for(Op::PutRecords, 1).await;
    assert_eq!(late.held(), 0);
    drop(first);
    late.reached(1).await;
    let second = send(&fake, "PutRecords", &body).await;
    fake.wait_until(|requests| requests.len() == 2 && !requests[1].results.is_empty()).await;
    drop(second);
    fake.wait_finished(Op::PutRecords, 1).await;
    late.open();
    fake.wait_finished(Op::PutRecords, 2).await;
    let landed: Vec<_> = fake.records(T).iter().map(|r| r.request).collect();
    assert_eq!(landed, [2, 1], "the first overtaken by the second");
    assert!(fake.requests().iter().all(|r| r.outcome == Outcome::Abandoned));
}

#[tokio::test]
async fn rules_decide_by_count_and_by_content() {
    let fake = start(1).await;
    fake.script_by(Op::PutRecords, |request| {
        let hot = request.entries.iter().any(|e| e.partition_key == "hot");
        hot.then(|| Reaction::refuse(Fault::throttled()))
    });
    fake.script_by(Op::PutRecords, |request| {
        (request.nth == 3).then(|| {
            Reaction::plain().entries_by(|index, entry| match (index, entry.partition_key.as_str()) {
                (1.., "a") => Fate::Refuse(Fault::internal()),
                _ => Fate::Model,
            })
        })
    });
    put_records(&fake, &["hot"]).await.error();
    put_records(&fake, &["a", "a"]).await.ok();
    let third = put_records(&fake, &["a", "a", "b"]).await.ok();
    assert_eq!(third["FailedRecordCount"], 1);
    fake.clear_scripts();
    put_records(&fake, &["hot"]).await.ok();
    assert_eq!(fake.records(T).len(), 5);
}

#[tokio::test]
async fn chaos_repeats_itself_and_tells_what_it_did() {
    let chaos = Chaos {
        refused_entries: 30,
        denied_entries: 10,
        reordered: 30,
        refused: 15,
        lost: 15,
        unanswered: 20,
        ..Chaos::default()
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let fake = start(2).await;
        fake.freeze_clock(0);
        fake.script_by(Op::PutRecords, chaos.rule(11));
        let mut replies = Vec::new();
        for _ in 0..60 {
            replies.push(put_records(&fake, &["a", "b", "c", "a"]).await);
        }
        fake.wait_finished(Op::PutRecords, 60).await;
        let requests = fake.requests_of(Op::PutRecords);
        let told = requests.iter().flat_map(|r| &r.results).filter(|r| r.stored.is_some()).count();
        assert_eq!(told, fake.records(T).len());
        let outcomes: Vec<_> = requests.into_iter().map(|r| r.outcome).collect();
        for cut in [Cut::Reset, Cut::Close, Cut::HalfBody] {
            assert!(outcomes.contains(&Outcome::Cut(cut)), "{cut:?}");
        }
        runs.push((replies, outcomes, fake.records(T)));
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn reads_are_bent() {
    let fake = start(1).await;
    let first = fake.put(T, "a", "1").sequence_number;
    fake.put(T, "a", "2");
    fake.put(T, "a", "3");
    fake.script(Op::GetShardIterator, [Reaction::plain().after_returns_its_start()]);
    let i = iterator(&fake, "AFTER_SEQUENCE_NUMBER", Some(first.as_str())).await.ok();
    fake.script(
        Op::GetRecords,
        [
            Reaction::plain().empty_page(60_000),
            Reaction::plain().page_of(1).millis_behind(5),
            Reaction::refuse(Fault::throttled()),
            Reaction::refuse(Fault::expired_iterator()),
        ],
    );
    let empty = get(&fake, &i["ShardIterator"]).await.ok();
    assert_eq!((data(&empty).len(), empty["MillisBehindLatest"].as_i64()), (0, Some(60_000)));
    assert_ne!(empty["NextShardIterator"], i["ShardIterator"]);
    let page = get(&fake, &empty["NextShardIterator"]).await.ok();
    assert_eq!((data(&page), page["MillisBehindLatest"].as_i64()), (vec!["1".to_owned()], Some(5)));
    let next = &page["NextShardIterator"];
    assert_eq!(get(&fake, next).await.error().1, "ProvisionedThroughputExceededException");
    assert_eq!(get(&fake, next).await.error().1, "ExpiredIteratorException");
    assert_eq!(data(&get(&fake, next).await.ok()), ["2", "3"]);
    let seen = fake.requests_of(Op::GetRecords);
    assert!(seen.iter().all(|r| r.stream.as_deref() == Some(T)));
    assert!(seen.iter().all(|r| r.shard.as_deref() == Some("shardId-000000000000")));
}

#[tokio::test]
async fn a_service_that_is_down_resets_connections_and_comes_back_on_its_port() {
    let fake = start(1).await;
    let gate = Gate::new();
    fake.script(Op::PutRecords, [Reaction::plain().hold(&gate)]);
    let held = send(&fake, "PutRecords", &batch(&["a"]).to_string()).await;
    gate.reached(1).await;
    fake.go_down();
    assert_eq!(receive(held).await, Reply::Reset);
    fake.come_back();
    gate.open();
    put_records(&fake, &["b"]).await.ok();
    fake.wait_finished(Op::PutRecords, 2).await;
    assert_eq!(fake.records(T).len(), 2, "what was received is carried through");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_logged() {
    let fake = start(1).await;
    let cut = receive(send(&fake, "PutRecords", "{\"Records\":").await).await;
    assert_eq!(cut.error(), (400, "SerializationException".into()));
    let mut bad = batch(&["a"]);
    bad["Records"][0]["Data"] = "?".into();
    assert_eq!(call(&fake, "PutRecords", bad).await.error(), (400, "SerializationException".into()));
    assert_eq!(fake.count(Op::PutRecords), 2);
}
