//! Consumer groups on a real server.

use std::time::Duration;

use eb_contract::{
    ConsumerName, Cut, Delivery, DeliveryLimit, EbRef, ErrorKind, EventBusAdmin, EventBusGroups,
    EventBusPublisher, GroupMember, PartitionId, Topic,
};
use eb_redis::{RedisBus, RedisConfig};
use eb_testkit::services::RedisWire;

use crate::common::{
    PATIENCE, config, killed_and_restarted, number, own_bus, own_prefix, patient, record, server,
    shared_wire, topic,
};
use crate::proxy::{Plan, behind};

const P0: PartitionId = PartitionId(0);

fn at_once(max_records: usize) -> DeliveryLimit {
    DeliveryLimit { max_records, wait: Duration::ZERO }
}

fn group() -> ConsumerName {
    ConsumerName::new("fraud-scoring").unwrap()
}

fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    deliveries.iter().map(|d| number(&d.record.envelope)).collect()
}

fn places(deliveries: &[Delivery]) -> Vec<EbRef> {
    deliveries.iter().map(|d| d.record.eb_ref.clone()).collect()
}

async fn fill(bus: &RedisBus, topic: &Topic, numbers: std::ops::Range<usize>) -> Vec<EbRef> {
    let publisher = bus.publisher();
    let mut acked = Vec::new();
    for n in numbers {
        acked.push(publisher.publish(topic, record("k", n)).await.unwrap());
    }
    acked
}

/// A bus with a topic of one partition that holds `count` records, a wire, and the stream's key.
async fn filled(count: usize) -> (RedisBus, Topic, Vec<EbRef>, RedisWire, String) {
    let (bus, prefix) = own_bus().await;
    let topic = topic("t");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let acked = fill(&bus, &topic, 0..count).await;
    (bus, topic, acked, shared_wire(), format!("{{{prefix}}}:s:t:0"))
}

async fn join(bus: &RedisBus, topic: &Topic, name: &str) -> Box<dyn GroupMember> {
    bus.groups().join(&group(), topic, P0, name).await.unwrap()
}

#[tokio::test]
async fn a_member_is_handed_every_record_in_order_and_once_and_what_it_has_not_acknowledged_again_after_a_restart()
 {
    let (bus, topic, acked, ..) = filled(7).await;
    let member = join(&bus, &topic, "a").await;
    let first = member.next(at_once(3)).await.unwrap();
    assert_eq!(numbers(&first), [0, 1, 2]);
    assert_eq!(places(&first), acked[..3]);
    assert!(first.iter().all(|d| d.deliveries == 1));
    assert_eq!(numbers(&member.next(at_once(100)).await.unwrap()), [3, 4, 5, 6]);
    assert!(member.next(at_once(100)).await.unwrap().is_empty());
    assert_eq!(member.acknowledge(&[acked[1].clone(), acked[4].clone()]).await.unwrap(), 2);
    assert_eq!(member.acknowledge(&[acked[1].clone()]).await.unwrap(), 0, "again is fine");
    drop(member);
    let member = join(&bus, &topic, "a").await;
    let again = member.pending(None, at_once(3)).await.unwrap();
    assert_eq!(numbers(&again), [0, 2, 3]);
    assert!(again.iter().all(|d| d.deliveries == 2), "{again:?}");
    let rest = member.pending(again.last().map(|d| &d.record.eb_ref), at_once(100)).await.unwrap();
    assert_eq!(numbers(&rest), [5, 6]);
    assert!(member.pending(Some(&acked[6]), at_once(9)).await.unwrap().is_empty());
    assert!(member.next(at_once(9)).await.unwrap().is_empty(), "nothing that was handed out is new");
}

#[tokio::test]
async fn each_record_goes_to_one_member_and_a_dead_ones_are_taken_over_by_idle_time_oldest_first() {
    let (bus, topic, acked, ..) = filled(6).await;
    let (dead, alive) = (join(&bus, &topic, "dead").await, join(&bus, &topic, "alive").await);
    assert_eq!(numbers(&dead.next(at_once(4)).await.unwrap()), [0, 1, 2, 3]);
    assert_eq!(numbers(&alive.next(at_once(9)).await.unwrap()), [4, 5]);
    assert!(alive.claim(Duration::from_secs(3600), at_once(9)).await.unwrap().is_empty());
    let fresh = bus.groups().backlog(&group(), &topic, P0).await.unwrap().unwrap();
    assert_eq!((fresh.pending, fresh.redelivered), (6, 0));
    let claimed = alive.claim(Duration::ZERO, at_once(3)).await.unwrap();
    assert_eq!(numbers(&claimed), [0, 1, 2]);
    let taken = bus.groups().backlog(&group(), &topic, P0).await.unwrap().unwrap();
    assert_eq!((taken.pending, taken.redelivered), (6, 3));
    assert!(claimed.iter().all(|d| d.deliveries == 2), "{claimed:?}");
    assert_eq!(numbers(&alive.claim(Duration::ZERO, at_once(3)).await.unwrap()), [3]);
    assert!(alive.claim(Duration::ZERO, at_once(3)).await.unwrap().is_empty(), "its own are no others'");
    assert_eq!(numbers(&alive.pending(None, at_once(9)).await.unwrap()), [0, 1, 2, 3, 4, 5]);
    assert!(dead.pending(None, at_once(9)).await.unwrap().is_empty());
    // The dead one was only slow. What it says now takes nothing back.
    dead.keep(&acked[..4]).await.unwrap();
    assert!(dead.pending(None, at_once(9)).await.unwrap().is_empty());
    let backlog = bus.groups().backlog(&group(), &topic, P0).await.unwrap().unwrap();
    assert_eq!((backlog.pending, backlog.undelivered), (6, Some(0)));
    assert_eq!(backlog.members, [("alive".to_owned(), 6)]);
    assert_eq!(bus.groups().groups(&topic, P0).await.unwrap(), [group()]);
}

#[tokio::test]
async fn more_pending_records_of_its_own_than_a_page_do_not_hide_those_of_others() {
    let (bus, topic, ..) = filled(0).await;
    let publisher = bus.publisher();
    let batch = |from: usize| (from..from + 1_200).map(|n| record("k", n)).collect::<Vec<_>>();
    for from in [0, 1_200] {
        assert!(publisher.publish_batch(&topic, batch(from)).await.iter().all(Result::is_ok));
    }
    let (own, other) = (join(&bus, &topic, "own").await, join(&bus, &topic, "other").await);
    let mut mine = 0;
    while mine < 2_390 {
        mine += own.next(at_once(2_390 - mine)).await.unwrap().len();
    }
    assert_eq!(other.next(at_once(9_999)).await.unwrap().len(), 10);
    let claimed = own.claim(Duration::ZERO, at_once(100)).await.unwrap();
    assert_eq!(numbers(&claimed), (2_390..2_400).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_is_worked_on_is_not_idle() {
    let (bus, topic, acked, mut wire, key) = filled(2).await;
    let (working, other) = (join(&bus, &topic, "working").await, join(&bus, &topic, "other").await);
    assert_eq!(working.next(at_once(2)).await.unwrap().len(), 2);
    // As if an hour had passed.
    for eb_ref in &acked {
        let id = eb_ref.offset.to_string();
        wire.must(&["XCLAIM", &key, "fraud-scoring", "working", "0", &id, "IDLE", "3600000", "JUSTID"])
            .unwrap();
    }
    working.keep(&acked[..1]).await.unwrap();
    let claimed = other.claim(Duration::from_secs(1800), at_once(9)).await.unwrap();
    assert_eq!(numbers(&claimed), [1]);
}

#[tokio::test]
async fn records_that_were_deleted_before_anybody_was_handed_them_are_out_of_range_and_never_stepped_over() {
    let (bus, topic, acked, mut wire, key) = filled(6).await;
    let member = join(&bus, &topic, "a").await;
    assert_eq!(numbers(&member.next(at_once(2)).await.unwrap()), [0, 1]);
    bus.admin().trim(&topic, P0, &Cut::Next(acked[2].offset)).await.unwrap();
    assert_eq!(numbers(&member.next(at_once(1)).await.unwrap()), [2], "only what it had was trimmed");
    bus.admin().trim(&topic, P0, &Cut::Next(acked[4].offset)).await.unwrap();
    for member in [&member, &join(&bus, &topic, "b").await] {
        for _ in 0..2 {
            let e = member.next(at_once(9)).await.unwrap_err();
            let ErrorKind::OutOfRange { oldest } = e.kind() else { panic!("{e}") };
            assert_eq!(*oldest, Some(acked[4].offset));
        }
    }
    // Somebody has decided.
    wire.must(&["XGROUP", "SETID", &key, "fraud-scoring", &acked[3].offset.to_string()]).unwrap();
    assert_eq!(numbers(&member.next(at_once(9)).await.unwrap()), [4, 5]);
}

#[tokio::test]
async fn a_pending_record_that_was_deleted_is_out_of_range_until_it_is_acknowledged() {
    let (bus, topic, acked, mut wire, key) = filled(3).await;
    let (member, other) = (join(&bus, &topic, "a").await, join(&bus, &topic, "b").await);
    assert_eq!(member.next(at_once(9)).await.unwrap().len(), 3);
    wire.must(&["XDEL", &key, &acked[1].offset.to_string()]).unwrap();
    for _ in 0..2 {
        let e = member.pending(None, at_once(9)).await.unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::OutOfRange { .. }), "{e}");
        assert!(e.to_string().contains(&acked[1].offset.to_string()), "{e}");
        let e = other.claim(Duration::ZERO, at_once(9)).await.unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::OutOfRange { .. }), "{e}");
        // Saying that it is worked on must not strike it off in silence.
        member.keep(&acked).await.unwrap();
    }
    assert_eq!(member.acknowledge(&acked[1..2]).await.unwrap(), 1);
    assert_eq!(numbers(&other.claim(Duration::ZERO, at_once(9)).await.unwrap()), [0, 2]);
}

#[tokio::test]
async fn a_new_group_on_a_trimmed_stream_begins_at_the_oldest_record_left() {
    let (bus, topic, acked, ..) = filled(4).await;
    bus.admin().trim(&topic, P0, &Cut::Next(acked[2].offset)).await.unwrap();
    let member = join(&bus, &topic, "a").await;
    assert_eq!(numbers(&member.next(at_once(9)).await.unwrap()), [2, 3]);
}

#[tokio::test]
async fn a_member_that_waits_is_woken_by_a_record() {
    let (bus, topic, ..) = filled(0).await;
    let member = join(&bus, &topic, "a").await;
    let waiting = member.next(DeliveryLimit { max_records: 9, wait: PATIENCE });
    let (got, acked) = tokio::join!(waiting, fill(&bus, &topic, 0..1));
    assert_eq!(places(&got.unwrap()), acked);
}

#[tokio::test]
async fn an_answer_that_is_lost_on_the_way_is_brought_by_the_next_call() {
    let (proxy, bus, direct, topic) = behind(patient()).await;
    fill(&direct, &topic, 0..5).await;
    let member = join(&bus, &topic, "a").await;
    assert_eq!(numbers(&member.next(at_once(2)).await.unwrap()), [0, 1]);
    proxy.plan(Plan::CutAnswer(0));
    let lost = member.next(at_once(2)).await.unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    assert_eq!(numbers(&member.next(at_once(9)).await.unwrap()), [2, 3], "those that were handed out unseen");
    assert_eq!(numbers(&member.next(at_once(9)).await.unwrap()), [4]);
    assert!(member.next(at_once(9)).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_acknowledged_stays_so_and_what_was_pending_stays_pending_through_a_kill_of_the_server() {
    let server = server(&[]);
    let prefix = own_prefix();
    let bus = RedisBus::open(RedisConfig { prefix, ..config(server.port()) }).await.unwrap();
    let topic = topic("t");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let acked = fill(&bus, &topic, 0..50).await;
    let member = join(&bus, &topic, "a").await;
    assert_eq!(member.next(at_once(40)).await.unwrap().len(), 40);
    assert_eq!(member.acknowledge(&acked[..25]).await.unwrap(), 25);
    let _server = killed_and_restarted(server, |_| {}).await;
    let member = join(&bus, &topic, "a").await;
    assert_eq!(numbers(&member.pending(None, at_once(99)).await.unwrap()), (25..40).collect::<Vec<_>>());
    assert_eq!(numbers(&member.next(at_once(99)).await.unwrap()), (40..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let (bus, topic, acked, mut wire, key) = filled(1).await;
    let groups = bus.groups();
    let missing = eb_contract::Topic::new("nothing").unwrap();
    for (topic, partition) in [(&missing, P0), (&topic, PartitionId(1))] {
        let e = groups.join(&group(), topic, partition, "a").await.map(drop).unwrap_err();
        assert_eq!(*e.kind(), ErrorKind::NotFound, "{e}");
        assert!(groups.backlog(&group(), topic, partition).await.is_err());
    }
    assert_eq!(groups.backlog(&group(), &topic, P0).await.unwrap(), None);
    let e = groups.join(&group(), &topic, P0, "").await.map(drop).unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::InvalidInput);
    let member = join(&bus, &topic, "a").await;
    let mut elsewhere = acked[0].clone();
    elsewhere.partition_id = PartitionId(1);
    assert_eq!(*member.acknowledge(&[elsewhere]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    wire.must(&["XGROUP", "DESTROY", &key, "fraud-scoring"]).unwrap();
    for e in [
        member.next(at_once(1)).await.unwrap_err(),
        member.pending(None, at_once(1)).await.unwrap_err(),
        member.claim(Duration::ZERO, at_once(1)).await.unwrap_err(),
    ] {
        assert_eq!(*e.kind(), ErrorKind::NotFound, "{e}");
        assert!(e.to_string().contains("join again"), "{e}");
    }
    wire.must(&["DEL", &key]).unwrap();
    let e = member.next(at_once(1)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
}
