//! Faults on demand do what they say, and nothing else.

use std::time::Duration;

use eb_contract::{
    Cut, Effect, EnvelopeRef, Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader,
    EventBusReaderExt, Offset, OffsetKind, PartitionId, PartitionKey, PublishRecord, ReadLimit, ReadState,
    StartAt, Topic,
};
use eb_memory::{Fate, MemoryBus, MemoryConfig};
use futures_util::FutureExt;
use futures_util::future::join_all;

const P0: PartitionId = PartitionId(0);

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn record(key: &str, n: usize) -> PublishRecord {
    PublishRecord::new(
        PartitionKey::new(key.to_owned()).unwrap(),
        EnvelopeRef::new(format!("{{\"n\":{n}}}")).unwrap(),
    )
}

async fn bus(config: MemoryConfig) -> MemoryBus {
    let bus = MemoryBus::with_config(config);
    bus.admin().create_topic(&topic(), 1).await.unwrap();
    bus
}

async fn log(bus: &MemoryBus) -> Vec<String> {
    let records = bus.reader().read_to_head(&topic(), P0, StartAt::Earliest).await.unwrap();
    records.iter().map(|r| r.envelope.as_str().unwrap().to_owned()).collect()
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "publish", "on demand")
}

#[tokio::test]
async fn a_failed_record_is_not_there_and_a_lost_ack_is() {
    let bus = bus(MemoryConfig::default()).await;
    let publisher = bus.publisher();
    bus.faults().next_records([
        Fate::Ack,
        Fate::Fail(unavailable()),
        Fate::LoseAck(unavailable()),
        Fate::Fail(unavailable().with_effect(Effect::Unknown)),
    ]);
    let mut effects = Vec::new();
    for n in 0..5 {
        effects.push(publisher.publish(&topic(), record("k", n)).await.map(drop).map_err(|e| e.effect()));
    }
    let expected = [Ok(()), Err(Effect::None), Err(Effect::Unknown), Err(Effect::Unknown), Ok(())];
    assert_eq!(effects, expected);
    assert_eq!(log(&bus).await, ["{\"n\":0}", "{\"n\":2}", "{\"n\":4}"]);
}

#[tokio::test]
async fn a_fate_within_a_batch_stops_the_rest_of_its_key() {
    let bus = bus(MemoryConfig::default()).await;
    bus.faults().next_records([Fate::Ack, Fate::LoseAck(unavailable())]);
    let records = vec![record("b", 0), record("a", 1), record("a", 2), record("b", 3)];
    let answers = bus.publisher().publish_batch(&topic(), records).await;
    let codes: Vec<_> =
        answers.iter().map(|a| a.as_ref().map_or_else(|e| e.kind().code(), |_| "ok")).collect();
    assert_eq!(codes, ["ok", "unavailable", "not_attempted", "ok"]);
    assert_eq!(log(&bus).await, ["{\"n\":0}", "{\"n\":1}", "{\"n\":3}"]);
}

#[tokio::test]
async fn held_publishes_wait_in_the_order_of_their_calls() {
    let bus = bus(MemoryConfig { max_held_records: 4, ..MemoryConfig::default() }).await;
    let publisher = bus.publisher();
    bus.faults().hold();
    let mut calls: Vec<_> = (0..3).map(|n| publisher.publish(&topic(), record("k", n))).collect();
    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
    drop(calls.remove(1));
    let batch = publisher.publish_batch(&topic(), vec![record("k", 3), record("k", 4)]).await;
    assert!(batch.iter().all(|a| a.as_ref().is_err_and(|e| e.kind().code() == "throttled")), "{batch:?}");
    assert_eq!((bus.faults().held(), log(&bus).await.len()), (3, 0));
    let mut closing = publisher.close();
    assert!((&mut closing).now_or_never().is_none(), "closing finishes what was called before");
    bus.faults().release();
    closing.await.unwrap();
    let acked: Vec<_> = join_all(calls).await.into_iter().map(|a| a.unwrap().offset.to_string()).collect();
    assert_eq!(acked, ["0", "2"]);
    assert_eq!(log(&bus).await.len(), 3);
}

#[tokio::test]
async fn an_outage_reaches_publishers_readers_probes_and_waiting_cursors() {
    let bus = bus(MemoryConfig::default()).await;
    let (publisher, reader) = (bus.publisher(), bus.reader());
    let mut cursor = reader.cursor(&topic(), P0, StartAt::Earliest).await.unwrap();
    let waiting = cursor.next(ReadLimit::default().waiting(Duration::from_secs(600)));
    let (waited, ()) = tokio::join!(waiting, async { bus.faults().outage(unavailable()) });
    assert_eq!(waited.unwrap_err().kind(), &ErrorKind::Unavailable);
    assert!(publisher.publish(&topic(), record("k", 0)).await.is_err());
    assert!(publisher.probe(&topic()).await.is_err());
    assert!(reader.head(&topic(), P0).await.is_err());
    bus.faults().recover();
    publisher.probe(&topic()).await.unwrap();
    publisher.publish(&topic(), record("k", 1)).await.unwrap();
    assert_eq!(cursor.next(ReadLimit::default()).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn a_failed_read_leaves_the_cursor_where_it_was() {
    let bus = bus(MemoryConfig::default()).await;
    bus.publisher().publish(&topic(), record("k", 0)).await.unwrap();
    let mut cursor = bus.reader().cursor(&topic(), P0, StartAt::Earliest).await.unwrap();
    bus.faults().fail_next_read(unavailable());
    assert!(cursor.next(ReadLimit::default()).await.is_err());
    assert_eq!(cursor.position(), Cut::Begin);
    assert_eq!(cursor.next(ReadLimit::default()).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn trimming_and_resharding_need_a_bus_that_declares_them() {
    let plain = bus(MemoryConfig::default()).await;
    let unsupported = |e: Error| *e.kind() == ErrorKind::Unsupported;
    assert!(plain.faults().trim(&topic(), P0, &Cut::End).is_err_and(unsupported));
    assert!(plain.faults().split(&topic(), P0).is_err_and(unsupported));

    let stream = bus(MemoryConfig::stream_like()).await;
    let faults = stream.faults();
    let [low, high] = faults.split(&topic(), P0).unwrap();
    assert!(faults.split(&topic(), P0).is_err(), "a closed partition cannot be split again");
    let [_, middle] = faults.split(&topic(), low).unwrap();
    let merged = faults.merge(&topic(), high, middle).unwrap();
    assert!(faults.merge(&topic(), merged, P0).is_err());
    let batch = stream.reader().read(&topic(), high, StartAt::Earliest, 1).await.unwrap();
    assert_eq!(batch.state, ReadState::Closed { children: vec![merged] });
    let other = Cut::Next(Offset::from_u64(OffsetKind::FileLine, 1));
    assert!(faults.trim(&topic(), merged, &other).is_err_and(|e| *e.kind() == ErrorKind::InvalidInput));
}

#[tokio::test]
async fn a_full_bus_refuses_until_something_is_trimmed() {
    let bus = bus(MemoryConfig { max_bytes: 40, retention: true, ..MemoryConfig::default() }).await;
    let publisher = bus.publisher();
    let mut acked = Vec::new();
    let refused = loop {
        match publisher.publish(&topic(), record("k", acked.len())).await {
            Ok(at) => acked.push(at),
            Err(e) => break e,
        }
    };
    assert_eq!((refused.kind(), refused.effect()), (&ErrorKind::StorageFull, Effect::None));
    bus.faults().trim(&topic(), P0, &Cut::After(acked[1].offset)).unwrap();
    let next = publisher.publish(&topic(), record("k", 9)).await.unwrap();
    assert_eq!(Some(next.offset), acked.last().unwrap().offset.successor());
}

#[test]
fn reading_without_waiting_needs_no_runtime() {
    futures_util::future::FutureExt::now_or_never(async {
        let bus = bus(MemoryConfig::default()).await;
        bus.publisher().publish(&topic(), record("k", 0)).await.unwrap();
        assert_eq!(log(&bus).await.len(), 1);
    })
    .expect("nothing waits");
}
