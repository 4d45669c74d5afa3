//! Records of very different sizes, and servers that cut off answers that are too large for them.

use std::time::Duration;

use eb_contract::{
    ConsumerName, DeliveryLimit, EnvelopeRef, Error, ErrorKind, EventBusAdmin, EventBusGroups,
    EventBusPublisher, EventBusReader, PartitionId, PartitionKey, PublishRecord, ReadLimit, ReadState,
    Record, StartAt, Topic,
};
use eb_redis::RedisBus;

use crate::common::{config, number, own_bus, server, topic};

const P0: PartitionId = PartitionId(0);

/// A record that measures so many bytes.
fn sized(n: usize, bytes: usize) -> PublishRecord {
    let head = format!(r#"{{"n":{n},"key":""#);
    let rest = bytes.checked_sub(head.len() + 2).expect("room for the number");
    let envelope = EnvelopeRef::new(format!("{head}{}\"}}", "x".repeat(rest))).unwrap();
    assert_eq!(envelope.len(), bytes);
    PublishRecord::new(PartitionKey::new("k").unwrap(), envelope)
}

async fn publish(bus: &RedisBus, topic: &Topic, sizes: impl IntoIterator<Item = usize>) -> usize {
    bus.admin().create_topic(topic, 1).await.unwrap();
    let records: Vec<_> = sizes.into_iter().enumerate().map(|(n, bytes)| sized(n, bytes)).collect();
    let count = records.len();
    for answer in bus.publisher().publish_batch(topic, records).await {
        answer.unwrap();
    }
    count
}

fn bytes(records: &[Record]) -> usize {
    records.iter().map(|r| r.envelope.len()).sum()
}

#[tokio::test]
async fn a_read_hands_out_no_more_bytes_than_its_limit_and_one_record_always() {
    let (bus, _) = own_bus().await;
    let topic = topic("sizes");
    // Small ones first: after them many are asked for at once.
    let sizes = [100; 40].into_iter().chain([1_000; 10]).chain([9_000]).chain([100; 5]).chain([3_000; 3]);
    let count = publish(&bus, &topic, sizes).await;
    let limit = ReadLimit { max_records: 30, max_bytes: 3_000, ..ReadLimit::default() };
    let mut cursor = bus.reader().cursor(&topic, P0, StartAt::Earliest).await.unwrap();
    let (mut seen, mut batches) = (Vec::new(), Vec::new());
    loop {
        let batch = cursor.next(limit).await.unwrap();
        assert!(batch.records.len() <= 30);
        assert!(bytes(&batch.records) <= 3_000 || batch.records.len() == 1, "{:?}", bytes(&batch.records));
        batches.push((batch.records.len(), bytes(&batch.records)));
        seen.extend(batch.records.iter().map(|r| number(&r.envelope)));
        if batch.state == ReadState::CaughtUp {
            break;
        }
    }
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    assert!(batches.contains(&(3, 3_000)) && batches.contains(&(1, 9_000)), "{batches:?}");
    assert!(batches.iter().any(|(records, _)| *records > 20), "the limit is made use of: {batches:?}");
}

/// What is wrong with a read that the server has cut off.
fn is_cut_off(e: &Error) -> bool {
    *e.kind() == ErrorKind::Unavailable && e.is_retryable()
}

#[tokio::test]
async fn reads_that_the_server_cuts_off_for_their_size_become_smaller_until_they_pass() {
    let server = server(&[("client-output-buffer-limit", "normal 4mb 0 0")]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("mixed");
    let count = publish(&bus, &topic, [64; 100].into_iter().chain([512 << 10; 40])).await;
    let mut cursor = bus.reader().cursor(&topic, P0, StartAt::Earliest).await.unwrap();
    let limit = ReadLimit { max_bytes: 32 << 20, ..ReadLimit::default() };
    let (mut seen, mut cut_off) = (Vec::new(), 0);
    while seen.len() < count {
        match cursor.next(limit).await {
            Ok(batch) => seen.extend(batch.records.iter().map(|r| number(&r.envelope))),
            Err(e) => {
                assert!(is_cut_off(&e), "{e}");
                cut_off += 1;
                assert!(cut_off < 20, "it never gets further than {}", seen.len());
            }
        }
    }
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    assert!(cut_off > 0, "the server has a limit");
}

#[tokio::test]
async fn what_a_group_is_handed_at_once_has_a_bound_in_bytes() {
    let server = server(&[("client-output-buffer-limit", "normal 6mb 0 0")]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("grouped");
    let count = publish(&bus, &topic, [64; 100].into_iter().chain([512 << 10; 40])).await;
    let (groups, group) = (bus.groups(), ConsumerName::new("g").unwrap());
    let limit = DeliveryLimit { max_records: 1_000, wait: Duration::ZERO };
    let numbers = |records: &[eb_contract::Delivery]| -> Vec<usize> {
        let bytes: usize = records.iter().map(|d| d.record.envelope.len()).sum();
        assert!(bytes <= 5 << 20, "{bytes} at once");
        records.iter().map(|d| number(&d.record.envelope)).collect()
    };
    let first = groups.join(&group, &topic, P0, "first").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(numbers(&first.next(limit).await.unwrap()));
    }
    assert_eq!(seen, (0..count).collect::<Vec<_>>());

    let (mut seen, mut last) = (Vec::new(), None);
    while seen.len() < count {
        let pending = first.pending(last.as_ref(), limit).await.unwrap();
        last = pending.last().map(|d| d.record.eb_ref.clone());
        seen.extend(numbers(&pending));
    }
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    assert!(first.pending(last.as_ref(), limit).await.unwrap().is_empty());

    let second = groups.join(&group, &topic, P0, "second").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(numbers(&second.claim(Duration::ZERO, limit).await.unwrap()));
    }
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
}
