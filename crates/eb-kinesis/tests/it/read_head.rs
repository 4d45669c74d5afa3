//! Where a shard ends: what it costs to find out, and who knows it already.

use std::time::Duration;

use eb_contract::{
    Cut, EnvelopeRef, EventBusPublisher, EventBusReader, EventBusReaderExt, PartitionKey, PublishRecord,
    ReadState, StartAt, Timestamp,
};
use eb_kinesis::KinesisBus;
use eb_testkit::kinesis_fake::{Gate, Op, Reaction};

use crate::read_support::*;

#[tokio::test]
async fn a_time_that_the_service_has_not_reached_is_the_head() {
    // The service's clock is ten seconds behind ours.
    let scene = Scene::since(Duration::from_secs(10), 1).await;
    scene.put(0, 2);
    let mut cursor = scene.cursor(StartAt::Timestamp(Timestamp::now())).await;
    assert_eq!(rest(&mut *cursor).await, (vec![], ReadState::CaughtUp));
    scene.put(2, 4);
    assert_eq!(numbers(&cursor.next(patient()).await.unwrap().records), [2, 3]);
}

#[tokio::test]
async fn what_arrives_while_a_time_is_looked_for_is_not_left_behind() {
    let scene = Scene::since(HOUR, 1).await;
    scene.put(0, 2);
    let soon = ago(HOUR - Duration::from_secs(1));
    let gate = Gate::new();
    // The time is asked for first, and then the head.
    scene.fake.script(Op::GetShardIterator, [Reaction::plain(), Reaction::plain().hold(&gate)]);
    let reader = scene.reader().await;
    let arrives = async {
        gate.reached(1).await;
        scene.fake.advance(Duration::from_secs(60));
        scene.put(2, 4);
        gate.open();
    };
    let (cursor, ()) = tokio::join!(reader.cursor(&scene.topic, P0, StartAt::Timestamp(soon)), arrives);
    assert_eq!(rest(&mut *cursor.unwrap()).await.0, [2, 3]);
}

#[tokio::test]
async fn a_time_within_a_millisecond_of_many_records_is_found_behind_them() {
    let scene = Scene::since(HOUR, 1).await.reading(|r| r.max_records_per_call = 1);
    let within = |millis: i64| Timestamp::from_micros(millis * 1_000 + 500).unwrap();
    let (now, _) = (scene.fake.now_millis(), scene.put(0, 3));
    let mut before = scene.cursor(StartAt::Timestamp(within(now - 1))).await;
    assert_eq!(rest(&mut *before).await.0, [0, 1, 2]);
    let mut behind = scene.cursor(StartAt::Timestamp(within(now))).await;
    assert_eq!(rest(&mut *behind).await.0, [0; 0]);
    scene.fake.advance(Duration::from_secs(1));
    scene.put(3, 5);
    let mut between = scene.cursor(StartAt::Timestamp(within(now))).await;
    assert_eq!(rest(&mut *between).await.0, [3, 4]);
}

#[tokio::test]
async fn the_head_costs_little_where_something_is_known_and_is_exact_where_nothing_is() {
    let scene = Scene::since(20 * HOUR, 1).await;
    let stored = scene.put_hourly(0, 12);
    scene.fake.advance(8 * HOUR);
    let reader = scene.reader().await;
    let head = reader.head(&scene.topic, P0).await.unwrap();
    assert_eq!((head.cut, head.last), (after(&stored[11]), Some(offset(&stored[11]))));
    assert!(scene.gets() < 30, "{} calls", scene.gets());

    // Idle since: the iterator is still good.
    let (gets, iterators) = (scene.gets(), scene.iterators());
    assert_eq!(reader.head(&scene.topic, P0).await.unwrap(), head);
    assert_eq!((scene.gets() - gets, scene.iterators() - iterators), (1, 0));

    let later = scene.put(12, 15);
    assert_eq!(reader.head(&scene.topic, P0).await.unwrap().last, Some(offset(&later[2])));

    // Whoever reads in the same process tells where the shard goes: from the horizon it is many pages.
    scene.fake.set_limits(|l| l.get_records = 3);
    let beside = scene.reader().await;
    beside.read(&scene.topic, P0, after(&later[1]).into(), 10).await.unwrap();
    let (gets, iterators) = (scene.gets(), scene.iterators());
    assert_eq!(beside.head(&scene.topic, P0).await.unwrap().cut, after(&later[2]));
    assert_eq!((scene.gets() - gets, scene.iterators() - iterators), (1, 1));
}

#[tokio::test]
async fn many_who_ask_for_the_head_at_once_share_the_answer() {
    let scene = Scene::new(1).await;
    let stored = scene.put(0, 5);
    let reader = scene.reader().await;
    let heads = (0..50).map(|_| reader.head(&scene.topic, P0));
    for head in futures_util::future::join_all(heads).await {
        assert_eq!(head.unwrap().cut, after(&stored[4]));
    }
    assert!(scene.gets() <= 3, "{} calls", scene.gets());
}

#[tokio::test]
async fn who_publishes_knows_where_the_shard_ends() {
    let scene = Scene::new(1).await;
    scene.put(0, 100);
    let bus = KinesisBus::open(scene.config.clone()).await.unwrap();
    let (publisher, reader) = (bus.publisher(), bus.reader());
    let record = |n: usize| {
        let envelope = EnvelopeRef::new(format!("{{\"n\":{n}}}")).unwrap();
        PublishRecord::new(PartitionKey::new("k").unwrap(), envelope)
    };
    for n in 100..103 {
        let at = publisher.publish(&scene.topic, record(n)).await.unwrap();
        let (gets, iterators) = (scene.gets(), scene.iterators());
        let head = reader.head(&scene.topic, P0).await.unwrap();
        assert_eq!((head.cut, head.last), (Cut::past(at.offset), Some(at.offset)));
        assert_eq!((scene.gets() - gets, scene.iterators() - iterators), (1, 1));
    }
}
