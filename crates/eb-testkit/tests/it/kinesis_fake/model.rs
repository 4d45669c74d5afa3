//! What the fake does unscripted.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eb_testkit::kinesis_fake::{
    BelowHorizon, KinesisFake, Op, Options, ReadRate, SequenceNumber, SequenceStyle, WriteRate,
};
use serde_json::{Value, json};

use super::client::{T, batch, call, data, get, iterator, put_records, start};

#[tokio::test]
async fn what_is_put_comes_back_from_the_shard_that_owns_its_key() {
    let fake = start(2).await;
    let answer = put_records(&fake, &["a", "b", "a"]).await.ok();
    assert_eq!(answer["FailedRecordCount"], 0);
    let shards: Vec<_> =
        answer["Records"].as_array().unwrap().iter().map(|r| r["ShardId"].as_str().unwrap()).collect();
    // md5("a") = 0cc1…, md5("b") = 92eb…
    assert_eq!(shards, ["shardId-000000000000", "shardId-000000000001", "shardId-000000000000"]);

    let start = iterator(&fake, "TRIM_HORIZON", None).await.ok();
    let page = get(&fake, &start["ShardIterator"]).await.ok();
    assert_eq!(data(&page), ["a", "a"]);
    assert_eq!(page["MillisBehindLatest"], 0);
    assert_eq!(page["Records"][1]["SequenceNumber"], answer["Records"][2]["SequenceNumber"]);
    let rest = get(&fake, &page["NextShardIterator"]).await.ok();
    assert_eq!(data(&rest), [""; 0]);

    let put = fake.requests_of(Op::PutRecords);
    assert_eq!(put[0].entries.len(), 3);
    assert_eq!(put[0].results[1].stored.as_ref().unwrap().shard_id, "shardId-000000000001");
    assert_eq!(fake.records(T).len(), 3);
}

#[tokio::test]
async fn an_explicit_hash_key_overrides_the_partition_key() {
    let fake = start(2).await;
    let top = u128::MAX.to_string();
    let body = json!({"StreamName": T, "Data": "", "PartitionKey": "a", "ExplicitHashKey": top});
    assert_eq!(call(&fake, "PutRecord", body.clone()).await.ok()["ShardId"], "shardId-000000000001");
    let mut body = body;
    body["ExplicitHashKey"] = "340282366920938463463374607431768211456".into();
    assert_eq!(call(&fake, "PutRecord", body).await.error(), (400, "InvalidArgumentException".into()));
}

#[tokio::test]
async fn sequence_numbers_rise_in_the_order_of_arrival_in_either_style() {
    for style in [SequenceStyle::Growing, SequenceStyle::Aws] {
        let options = Options { sequence_style: style, ..Options::default() };
        let fake = KinesisFake::start_with(options).await.unwrap();
        fake.create_stream(T, 3);
        for i in 0..40 {
            put_records(&fake, &[&format!("k{i}"), "a", "b"]).await.ok();
        }
        for shard in fake.shards(T) {
            let records = fake.shard_records(T, &shard.id);
            assert!(records.windows(2).all(|w| w[0].sequence_number < w[1].sequence_number));
            assert!(records.iter().all(|r| r.sequence_number > shard.starting));
        }
    }
}

#[tokio::test]
async fn every_type_of_iterator_starts_where_it_says() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    let mut numbers = Vec::new();
    for key in ["a", "b", "c", "d"] {
        numbers.push(fake.put(T, key, key).sequence_number);
        fake.advance(Duration::from_secs(1));
    }
    let from = async |kind: &str, number: Option<&SequenceNumber>| {
        let i = iterator(&fake, kind, number.map(SequenceNumber::as_str)).await.ok();
        data(&get(&fake, &i["ShardIterator"]).await.ok())
    };
    assert_eq!(from("TRIM_HORIZON", None).await, ["a", "b", "c", "d"]);
    assert_eq!(from("LATEST", None).await, [""; 0]);
    assert_eq!(from("AT_SEQUENCE_NUMBER", Some(&numbers[1])).await, ["b", "c", "d"]);
    assert_eq!(from("AFTER_SEQUENCE_NUMBER", Some(&numbers[1])).await, ["c", "d"]);
    assert_eq!(from("AFTER_SEQUENCE_NUMBER", Some(&numbers[3])).await, [""; 0]);

    let at = async |seconds: f64| {
        let body = json!({"StreamName": T, "ShardId": "shardId-000000000000", "ShardIteratorType": "AT_TIMESTAMP",
            "Timestamp": seconds});
        call(&fake, "GetShardIterator", body).await
    };
    let i = at(1_000_000_000.5).await.ok();
    assert_eq!(data(&get(&fake, &i["ShardIterator"]).await.ok()), ["b", "c", "d"]);
    assert_eq!(at(1_000_000_099.0).await.error(), (400, "InvalidArgumentException".into()));
    for number in ["1000000000000000000", "0", "x"] {
        let refused = iterator(&fake, "AFTER_SEQUENCE_NUMBER", Some(number)).await;
        assert_eq!(refused.error(), (400, "InvalidArgumentException".into()), "{number}");
    }
}

#[tokio::test]
async fn a_page_says_how_far_behind_it_is() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    fake.put(T, "a", "a");
    fake.advance(Duration::from_secs(7));
    fake.put(T, "a", "b");
    fake.advance(Duration::from_secs(2));
    let i = iterator(&fake, "TRIM_HORIZON", None).await.ok();
    let body = json!({"ShardIterator": i["ShardIterator"], "Limit": 1});
    let page = call(&fake, "GetRecords", body).await.ok();
    assert_eq!((data(&page), page["MillisBehindLatest"].as_i64()), (vec!["a".to_owned()], Some(2_000)));
    assert_eq!(page["Records"][0]["ApproximateArrivalTimestamp"], 1_000_000_000.0);
    assert_eq!(get(&fake, &page["NextShardIterator"]).await.ok()["MillisBehindLatest"], 0);
}

#[tokio::test]
async fn iterators_expire_with_time_and_on_request() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    let i = iterator(&fake, "TRIM_HORIZON", None).await.ok();
    fake.advance(Duration::from_secs(300));
    let next = get(&fake, &i["ShardIterator"]).await.ok();
    fake.advance(Duration::from_millis(1));
    assert_eq!(get(&fake, &i["ShardIterator"]).await.error(), (400, "ExpiredIteratorException".into()));
    get(&fake, &next["NextShardIterator"]).await.ok();
    fake.expire_iterators();
    let refused = get(&fake, &next["NextShardIterator"]).await;
    assert_eq!(refused.error(), (400, "ExpiredIteratorException".into()));
    assert_eq!(get(&fake, &"AAAA".into()).await.error(), (400, "InvalidArgumentException".into()));
}

#[tokio::test]
async fn retention_takes_records_and_a_position_below_it_jumps_without_a_word() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    let first = fake.put(T, "a", "a").sequence_number;
    fake.put(T, "a", "b");
    fake.advance(Duration::from_secs(3_600));
    let third = fake.put(T, "a", "c").sequence_number;
    fake.advance(Duration::from_secs(23 * 3_600 + 1));
    let i = iterator(&fake, "AFTER_SEQUENCE_NUMBER", Some(first.as_str())).await.ok();
    assert_eq!(data(&get(&fake, &i["ShardIterator"]).await.ok()), ["c"]);
    assert_eq!(fake.shards(T)[0].trimmed, 2);

    fake.advance(Duration::from_secs(24 * 3_600));
    let i = iterator(&fake, "AFTER_SEQUENCE_NUMBER", Some(third.as_str())).await.ok();
    let idle = get(&fake, &i["ShardIterator"]).await.ok();
    assert_eq!((data(&idle).len(), idle["MillisBehindLatest"].as_i64()), (0, Some(0)));

    let kept = fake.put(T, "a", "d").sequence_number;
    fake.put(T, "a", "e");
    fake.trim(T, "shardId-000000000000", &kept);
    let i = iterator(&fake, "TRIM_HORIZON", None).await.ok();
    assert_eq!(data(&get(&fake, &i["ShardIterator"]).await.ok()), ["d", "e"]);
}

#[tokio::test]
async fn a_position_below_the_horizon_is_refused_or_stalls_where_that_is_set() {
    let fake = start(1).await;
    let first = fake.put(T, "a", "a").sequence_number;
    let second = fake.put(T, "a", "b").sequence_number;
    let third = fake.put(T, "a", "c").sequence_number;
    fake.trim(T, "shardId-000000000000", &third);
    let after = async |n: &SequenceNumber| iterator(&fake, "AFTER_SEQUENCE_NUMBER", Some(n.as_str())).await;

    fake.set_limits(|l| l.below_horizon = BelowHorizon::Refuse);
    assert_eq!(after(&first).await.error(), (400, "InvalidArgumentException".into()));
    assert_eq!(data(&get(&fake, &after(&third).await.ok()["ShardIterator"]).await.ok()), [""; 0]);

    fake.set_limits(|l| l.below_horizon = BelowHorizon::EmptyPages(2));
    let mut next = after(&first).await.ok()["ShardIterator"].clone();
    for _ in 0..2 {
        let page = get(&fake, &next).await.ok();
        assert_eq!(data(&page), [""; 0]);
        assert!(page["MillisBehindLatest"].as_i64().unwrap() > 0);
        next = page["NextShardIterator"].clone();
    }
    assert_eq!(data(&get(&fake, &next).await.ok()), ["c"]);
    let nothing_missed = after(&second).await.ok();
    assert_eq!(data(&get(&fake, &nothing_missed["ShardIterator"]).await.ok()), ["c"]);
}

#[tokio::test]
async fn a_sequence_number_is_good_for_its_own_shard_alone() {
    let fake = start(2).await;
    let other = fake.key_in(T, "shardId-000000000001", 3);
    let number = fake.put(T, &other, "x").sequence_number;
    fake.put(T, &fake.key_in(T, "shardId-000000000000", 0), "y");
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "LATEST"] {
        let refused = iterator(&fake, kind, Some(number.as_str())).await;
        assert_eq!(refused.error(), (400, "InvalidArgumentException".into()), "{kind}");
    }
    let own_start = fake.shards(T)[0].starting.clone();
    let i = iterator(&fake, "AT_SEQUENCE_NUMBER", Some(own_start.as_str())).await.ok();
    assert_eq!(data(&get(&fake, &i["ShardIterator"]).await.ok()), ["y"]);
}

#[tokio::test]
async fn a_split_and_a_merge_close_parents_that_end_with_their_children() {
    let fake = start(1).await;
    fake.put(T, "a", "1");
    let middle = (1u128 << 127).to_string();
    let body = json!({"StreamName": T, "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": middle});
    call(&fake, "SplitShard", body.clone()).await.ok();
    assert_eq!(call(&fake, "SplitShard", body).await.error(), (400, "ResourceInUseException".into()));
    fake.put(T, "a", "2");
    fake.put(T, "b", "3");

    let i = iterator(&fake, "TRIM_HORIZON", None).await.ok();
    let end = get(&fake, &i["ShardIterator"]).await.ok();
    assert_eq!((data(&end), &end["NextShardIterator"]), (vec!["1".to_owned()], &Value::Null));
    let children: Vec<_> =
        end["ChildShards"].as_array().unwrap().iter().map(|c| c["ShardId"].as_str().unwrap()).collect();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    assert_eq!(end["ChildShards"][1]["HashKeyRange"]["StartingHashKey"], middle.as_str());

    let body = json!({"StreamName": T, "ShardToMerge": children[0], "AdjacentShardToMerge": children[1]});
    call(&fake, "MergeShards", body).await.ok();
    let shards = fake.shards(T);
    let last = &shards[3];
    assert_eq!(last.parent.as_deref(), Some("shardId-000000000001"));
    assert_eq!(last.adjacent_parent.as_deref(), Some("shardId-000000000002"));
    assert_eq!(last.hash_keys, 0..=u128::MAX);
    assert!(last.starting > *shards[1].ending.as_ref().unwrap());
    assert!(last.starting > fake.records(T).last().unwrap().sequence_number);

    let listed = call(&fake, "ListShards", json!({"StreamName": T})).await.ok();
    assert_eq!(listed["Shards"][3]["AdjacentParentShardId"], "shardId-000000000002");
    assert!(listed["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    let open = json!({"StreamName": T, "ShardFilter": {"Type": "AT_LATEST"}});
    let open = call(&fake, "ListShards", open).await.ok();
    assert_eq!(open["Shards"].as_array().unwrap().len(), 1);
    fake.freeze_clock(fake.now_millis() + 25 * 3_600_000);
    let listed = call(&fake, "ListShards", json!({"StreamName": T})).await.ok();
    assert_eq!(listed["Shards"].as_array().unwrap().len(), 1, "closed shards expire");
}

#[tokio::test]
async fn shards_apart_do_not_merge() {
    let fake = start(3).await;
    let body = json!({"StreamName": T, "ShardToMerge": "shardId-000000000000",
        "AdjacentShardToMerge": "shardId-000000000002"});
    assert_eq!(call(&fake, "MergeShards", body).await.error(), (400, "InvalidArgumentException".into()));
}

#[tokio::test]
async fn shard_filters_tell_open_shards_from_those_of_an_earlier_time() {
    let fake = start(2).await;
    let t0 = 1_000_000_000;
    fake.freeze_clock(t0 * 1_000);
    fake.delete_stream(T);
    fake.create_stream(T, 2);
    fake.advance(Duration::from_secs(10));
    fake.split(T, "shardId-000000000000");
    fake.advance(Duration::from_secs(10));
    fake.merge(T, "shardId-000000000002", "shardId-000000000003");
    fake.advance(Duration::from_secs(10));
    let matching = async |filter: Value| {
        let listed = call(&fake, "ListShards", json!({"StreamName": T, "ShardFilter": filter})).await.ok();
        let number = |s: &Value| s["ShardId"].as_str().unwrap()[8..].parse::<u64>().unwrap();
        listed["Shards"].as_array().unwrap().iter().map(number).collect::<Vec<_>>()
    };
    assert_eq!(matching(json!({"Type": "AT_LATEST"})).await, [1, 4]);
    assert_eq!(matching(json!({"Type": "AT_TRIM_HORIZON"})).await, [0, 1]);
    assert_eq!(matching(json!({"Type": "FROM_TRIM_HORIZON"})).await, [0, 1, 2, 3, 4]);
    assert_eq!(matching(json!({"Type": "AT_TIMESTAMP", "Timestamp": t0 + 15})).await, [1, 2, 3]);
    assert_eq!(matching(json!({"Type": "AT_TIMESTAMP", "Timestamp": 5})).await, [0, 1], "the horizon");
    assert_eq!(matching(json!({"Type": "FROM_TIMESTAMP", "Timestamp": t0 + 15})).await, [1, 2, 3, 4]);
    let after = json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000002"});
    assert_eq!(matching(after).await, [3, 4]);
    let future = json!({"StreamName": T, "ShardFilter": {"Type": "AT_TIMESTAMP", "Timestamp": t0 + 99}});
    assert_eq!(call(&fake, "ListShards", future).await.error(), (400, "InvalidArgumentException".into()));

    let body = json!({"StreamName": T, "Limit": 3, "ExclusiveStartShardId": "shardId-000000000000"});
    let described = call(&fake, "DescribeStream", body).await.ok();
    let described = &described["StreamDescription"];
    assert_eq!(described["HasMoreShards"], true);
    assert_eq!(described["Shards"][0]["ShardId"], "shardId-000000000001");
}

#[tokio::test]
async fn retention_can_be_lengthened_and_shards_are_limited() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    fake.put(T, "a", "a");
    let hours = |n: u32| json!({"StreamName": T, "RetentionPeriodHours": n});
    call(&fake, "IncreaseStreamRetentionPeriod", hours(48)).await.ok();
    fake.advance(Duration::from_secs(47 * 3_600));
    let i = iterator(&fake, "TRIM_HORIZON", None).await.ok();
    assert_eq!(data(&get(&fake, &i["ShardIterator"]).await.ok()), ["a"]);
    for (operation, n) in [
        ("IncreaseStreamRetentionPeriod", 24),
        ("DecreaseStreamRetentionPeriod", 49),
        ("DecreaseStreamRetentionPeriod", 23),
    ] {
        let refused = call(&fake, operation, hours(n)).await;
        assert_eq!(refused.error(), (400, "InvalidArgumentException".into()), "{operation} {n}");
    }
    call(&fake, "DecreaseStreamRetentionPeriod", hours(24)).await.ok();
    assert_eq!(data(&get(&fake, &i["ShardIterator"]).await.ok()), [""; 0]);

    fake.set_limits(|l| l.open_shards = 3);
    let refused = call(&fake, "CreateStream", json!({"StreamName": "more", "ShardCount": 3})).await;
    assert_eq!(refused.error(), (400, "LimitExceededException".into()));
    call(&fake, "CreateStream", json!({"StreamName": "more", "ShardCount": 2})).await.ok();
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_holds_one_record_at_least() {
    let fake = start(1).await;
    fake.set_limits(|l| l.get_bytes = 10);
    for text in ["1234", "5678", "twelve bytes", "9"] {
        fake.put(T, "k", text);
    }
    let mut next = iterator(&fake, "TRIM_HORIZON", None).await.ok()["ShardIterator"].clone();
    let mut pages = Vec::new();
    for _ in 0..3 {
        let page = get(&fake, &next).await.ok();
        pages.push(data(&page));
        next = page["NextShardIterator"].clone();
    }
    assert_eq!(pages, [vec!["1234", "5678"], vec!["twelve bytes"], vec!["9"]]);
    for limit in [0, 10_001] {
        let refused = call(&fake, "GetRecords", json!({"ShardIterator": next, "Limit": limit})).await;
        assert_eq!(refused.error(), (400, "InvalidArgumentException".into()));
    }
}

#[tokio::test]
async fn lists_come_in_pages_whose_tokens_expire() {
    let fake = start(5).await;
    fake.freeze_clock(1_000_000_000_000);
    let mut seen = Vec::new();
    let mut body = json!({"StreamName": T, "MaxResults": 2});
    loop {
        let page = call(&fake, "ListShards", body).await.ok();
        seen.extend(
            page["Shards"].as_array().unwrap().iter().map(|s| s["ShardId"].as_str().unwrap().to_owned()),
        );
        if page["NextToken"].is_null() {
            break;
        }
        body = json!({"NextToken": page["NextToken"], "MaxResults": 2});
    }
    let all: Vec<_> = fake.shards(T).into_iter().map(|s| s.id).collect();
    assert_eq!(seen, all);

    let token = &call(&fake, "ListShards", json!({"StreamName": T, "MaxResults": 1})).await.ok()["NextToken"];
    let both = json!({"StreamName": T, "NextToken": token});
    assert_eq!(call(&fake, "ListShards", both).await.error(), (400, "InvalidArgumentException".into()));
    fake.advance(Duration::from_secs(301));
    let late = call(&fake, "ListShards", json!({"NextToken": token})).await;
    assert_eq!(late.error(), (400, "ExpiredNextTokenException".into()));

    fake.create_stream("s", 1);
    let page = call(&fake, "ListStreams", json!({"Limit": 1})).await.ok();
    assert_eq!((&page["StreamNames"][0], &page["HasMoreStreams"]), (&json!("s"), &json!(true)));
    let page = call(&fake, "ListStreams", json!({"NextToken": page["NextToken"]})).await.ok();
    assert_eq!((&page["StreamNames"][0], &page["HasMoreStreams"]), (&json!("t"), &json!(false)));
}

#[tokio::test]
async fn a_stream_settles_after_it_was_described_often_enough() {
    let fake = start(1).await;
    fake.set_limits(|l| l.settles_after = 2);
    call(&fake, "CreateStream", json!({"StreamName": "new", "ShardCount": 2})).await.ok();
    let again = call(&fake, "CreateStream", json!({"StreamName": "new", "ShardCount": 2})).await;
    assert_eq!(again.error(), (400, "ResourceInUseException".into()));
    let put = json!({"StreamName": "new", "Data": "", "PartitionKey": "a"});
    assert_eq!(
        call(&fake, "PutRecord", put.clone()).await.error(),
        (400, "ResourceNotFoundException".into())
    );
    let mut states = BTreeSet::new();
    for _ in 0..3 {
        let summary = call(&fake, "DescribeStreamSummary", json!({"StreamName": "new"})).await.ok();
        let summary = &summary["StreamDescriptionSummary"];
        assert_eq!(summary["OpenShardCount"], 2);
        states.insert(summary["StreamStatus"].as_str().unwrap().to_owned());
    }
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["ACTIVE", "CREATING"]);
    call(&fake, "PutRecord", put).await.ok();

    fake.set_limits(|l| l.settles_after = 0);
    call(&fake, "DeleteStream", json!({"StreamName": "new"})).await.ok();
    let gone = call(&fake, "DescribeStreamSummary", json!({"StreamName": "new"})).await;
    assert_eq!(gone.error(), (400, "ResourceNotFoundException".into()));
}

#[tokio::test]
async fn calls_and_records_that_are_too_large_are_refused_whole() {
    let fake = start(1).await;
    fake.set_limits(|l| {
        l.put_records = 3;
        l.put_bytes = 20;
    });
    let error = async |keys: &[&str]| put_records(&fake, keys).await.error().1;
    assert_eq!(error(&[]).await, "ValidationException");
    assert_eq!(error(&["a", "b", "c", "d"]).await, "ValidationException");
    assert_eq!(error(&[""]).await, "ValidationException");
    assert_eq!(error(&["aaaaaaaa", "bbbbbbbb"]).await, "InvalidArgumentException");
    put_records(&fake, &["aaaaa", "bbbbb"]).await.ok();

    fake.set_limits(|l| l.record_bytes = 9);
    fake.create_stream("small", 1);
    let put = |data: &str| json!({"StreamName": "small", "Data": STANDARD.encode(data), "PartitionKey": "k"});
    call(&fake, "PutRecord", put("12345678")).await.ok();
    let refused = call(&fake, "PutRecord", put("123456789")).await;
    assert_eq!(refused.error(), (400, "InvalidArgumentException".into()));
    assert_eq!(fake.records(T).len(), 2);
}

#[tokio::test]
async fn a_shard_throttles_writes_entry_by_entry_and_recovers_with_time() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    fake.set_limits(|l| l.write_rate = Some(WriteRate { records: 2, bytes: 1_000 }));
    let answer = put_records(&fake, &["a", "b", "c"]).await.ok();
    assert_eq!(answer["FailedRecordCount"], 1);
    assert_eq!(answer["Records"][2]["ErrorCode"], "ProvisionedThroughputExceededException");
    let one = json!({"StreamName": T, "Data": "", "PartitionKey": "a"});
    let refused = call(&fake, "PutRecord", one.clone()).await;
    assert_eq!(refused.error(), (400, "ProvisionedThroughputExceededException".into()));
    fake.advance(Duration::from_millis(500));
    call(&fake, "PutRecord", one).await.ok();
}

#[tokio::test]
async fn a_shard_throttles_the_sixth_read_of_a_second() {
    let fake = start(1).await;
    fake.freeze_clock(1_000_000_000_000);
    fake.set_limits(|l| l.read_rate = Some(ReadRate::default()));
    let mut next = iterator(&fake, "TRIM_HORIZON", None).await.ok()["ShardIterator"].clone();
    for _ in 0..5 {
        next = get(&fake, &next).await.ok()["NextShardIterator"].clone();
    }
    let refused = get(&fake, &next).await;
    assert_eq!(refused.error(), (400, "ProvisionedThroughputExceededException".into()));
    fake.advance(Duration::from_millis(200));
    get(&fake, &next).await.ok();
}

#[tokio::test]
async fn streams_are_named_by_arn_too_and_unknown_ones_are_not_found() {
    let fake = start(1).await;
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/t";
    call(&fake, "ListShards", json!({"StreamARN": arn})).await.ok();
    let mut body = batch(&["a"]);
    body["StreamName"] = "nowhere".into();
    let missing = call(&fake, "PutRecords", body).await;
    assert_eq!(missing.error(), (400, "ResourceNotFoundException".into()));
    let unknown = call(&fake, "TagResource", json!({})).await;
    assert_eq!(unknown.error(), (400, "UnknownOperationException".into()));
    assert_eq!(fake.requests().last().unwrap().operation, "TagResource");
}

#[tokio::test]
async fn iterators_into_a_deleted_stream_are_worthless_also_when_its_name_is_used_again() {
    let fake = start(1).await;
    let i = iterator(&fake, "LATEST", None).await.ok();
    fake.delete_stream(T);
    fake.create_stream(T, 1);
    let refused = get(&fake, &i["ShardIterator"]).await;
    assert_eq!(refused.error(), (400, "ResourceNotFoundException".into()));
}
