//! The publisher before real engines: every ACK readable at its place, the order of each key exact.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    EbRef, EnvelopeRef, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionKey, PublishRecord,
    ReadLimit, ReadState, Record, StartAt, Topic,
};
use eb_kinesis::{KinesisBus, KinesisConfig, StreamNames};
use eb_testkit::services::{self, LocalStack};
use tokio::sync::watch;

use crate::engine::{own_prefix, patient};
use crate::publish_support::{number, record, told};

async fn bus_with(url: &str, shards: u32) -> (KinesisBus, Topic) {
    let streams = StreamNames { prefix: own_prefix(), ..StreamNames::default() };
    let config = KinesisConfig { streams, timeouts: patient(), ..KinesisConfig::emulator(url) };
    let bus = KinesisBus::open(config).await.unwrap();
    let topic = Topic::new("published").unwrap();
    bus.admin().create_topic(&topic, shards).await.unwrap();
    (bus, topic)
}

/// Everything in the topic, partition by partition.
async fn read_all(bus: &KinesisBus, topic: &Topic) -> Vec<Record> {
    let reader = bus.reader();
    let mut all = Vec::new();
    for partition in reader.partitions(topic).await.unwrap().partitions {
        let mut cursor = reader.cursor(topic, partition.id, StartAt::Earliest).await.unwrap();
        loop {
            let batch = cursor.next(ReadLimit::records(10_000)).await.unwrap();
            all.extend(batch.records);
            if batch.state != ReadState::More {
                break;
            }
        }
    }
    all
}

/// Each ACK is there, once, and each key's records lie in the order of the calls, without a copy.
fn expect_exactly(log: &[Record], acked: &[(String, usize, EbRef)]) {
    let by_place: HashMap<_, _> = log.iter().map(|r| (r.eb_ref.clone(), r)).collect();
    for (key, n, at) in acked {
        let found = by_place.get(at).unwrap_or_else(|| panic!("{key} {n} is ACKed at {at} and not there"));
        assert_eq!((found.partition_key.as_str(), number(found.envelope.as_bytes())), (key.as_str(), *n));
    }
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for r in log {
        by_key.entry(r.partition_key.as_str()).or_default().push(number(r.envelope.as_bytes()));
    }
    for (key, numbers) in by_key {
        assert!(numbers.windows(2).all(|w| w[0] < w[1]), "{key}: {numbers:?}");
    }
}

#[test]
fn sixty_four_callers_lose_nothing_while_localstack_throttles_on_and_off() {
    const CALLERS: usize = 64;
    const EACH: usize = 30;
    /// The fault is switched on each time when so many ACKs more have come, and off again once it was noticed.
    const STRETCH: usize = 240;
    // A server of its own: what is switched on here is on for everybody.
    let localstack = LocalStack::start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (bus, topic) = bus_with(&localstack.url(), 3).await;
        let publisher = bus.publisher();
        publisher.publish(&topic, record("warm", 0)).await.unwrap();
        let localstack = Arc::new(localstack);
        let acks = watch::Sender::new(0);
        let callers = (0..CALLERS).map(|caller| {
            let (publisher, topic, acks) = (publisher.clone(), topic.clone(), acks.clone());
            tokio::spawn(async move {
                // Four callers share a key; each has two records of it in line.
                let key = format!("k{}", caller % (CALLERS / 4));
                let mut acked = Vec::new();
                for i in (0..EACH).step_by(2) {
                    // Numbers that rise in the order of the calls of one caller.
                    let n = |i: usize| i * CALLERS + caller;
                    let first = publisher.publish(&topic, keyed(&key, caller, n(i)));
                    let second = publisher.publish(&topic, keyed(&key, caller, n(i + 1)));
                    acked.push((key.clone(), caller, n(i), first.await.unwrap()));
                    acked.push((key.clone(), caller, n(i + 1), second.await.unwrap()));
                    acks.send_modify(|acks| *acks += 2);
                }
                acked
            })
        });
        let callers: Vec<_> = callers.collect();
        let switching = {
            let (localstack, publisher, mut acks) = (localstack.clone(), publisher.clone(), acks.subscribe());
            let switch = move |probability| {
                let localstack = localstack.clone();
                let switched = tokio::task::spawn_blocking(move || localstack.fail_writes(probability));
                async { switched.await.unwrap().unwrap() }
            };
            tokio::spawn(async move {
                for begin in (0..CALLERS * EACH).step_by(STRETCH) {
                    acks.wait_for(|acks| *acks >= begin).await.unwrap();
                    let before = publisher.stats().sent_again;
                    switch(0.5).await;
                    // However few calls there are meanwhile, and whichever of them the engine lets fail; near the end there may
                    // be no more.
                    while publisher.stats().sent_again == before && *acks.borrow() < begin + STRETCH {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    switch(0.0).await;
                }
            })
        };
        let mut acked = Vec::new();
        for caller in callers {
            acked.extend(caller.await.unwrap());
        }
        switching.await.unwrap();
        assert!(publisher.stats().sent_again > 0, "the fault was noticed");
        assert_eq!(acked.len(), CALLERS * EACH);
        let log = read_all(&bus, &topic).await;
        assert_eq!(log.len(), acked.len() + 1, "nothing is there twice");
        let by_place: HashMap<_, _> = log.iter().map(|r| (r.eb_ref.clone(), r)).collect();
        for (key, _, n, at) in &acked {
            let found =
                by_place.get(at).unwrap_or_else(|| panic!("{key} {n} is ACKed at {at} and not there"));
            assert_eq!((found.partition_key.as_str(), number_of(found).1), (key.as_str(), *n));
        }
        // Several callers of a key are in no order among each other; each caller's own records are.
        let mut of_caller: HashMap<usize, Vec<usize>> = HashMap::new();
        for r in log.iter().filter(|r| r.partition_key.as_str() != "warm") {
            let (caller, n) = number_of(r);
            of_caller.entry(caller).or_default().push(n);
        }
        for (caller, numbers) in of_caller {
            assert!(numbers.windows(2).all(|w| w[0] < w[1]), "caller {caller}: {numbers:?}");
        }
        drop(localstack);
    });
}

fn keyed(key: &str, caller: usize, n: usize) -> PublishRecord {
    let envelope = EnvelopeRef::new(format!("{{\"caller\":{caller},\"n\":{n}}}")).unwrap();
    PublishRecord::new(PartitionKey::new(key.to_owned()).unwrap(), envelope)
}

fn number_of(r: &Record) -> (usize, usize) {
    let json: serde_json::Value = serde_json::from_slice(r.envelope.as_bytes()).unwrap();
    let field = |name: &str| usize::try_from(json[name].as_u64().unwrap()).unwrap();
    (field("caller"), field("n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_futures_leave_every_key_in_the_order_of_the_calls() {
    let (bus, topic) = bus_with(&services::kinesis_url().unwrap(), 2).await;
    let publisher = bus.publisher();
    let mut acked = Vec::new();
    for round in 0..8 {
        let key = |n: usize| format!("k{}", n % 5);
        let numbers = round * 50..(round + 1) * 50;
        let mut calls: Vec<_> = numbers
            .clone()
            .map(|n| Some((key(n), n, publisher.publish(&topic, record(&key(n), n)))))
            .collect();
        // Never polled, polled a little, and awaited.
        for (i, call) in calls.iter_mut().enumerate() {
            if i % 3 == 0 {
                drop(call.take());
            } else if i % 3 == 1
                && let Some((_, _, mut future)) = call.take()
            {
                drop(futures_util::FutureExt::now_or_never(&mut future));
            }
        }
        for (key, n, future) in calls.into_iter().flatten() {
            acked.push((key, n, future.await.unwrap()));
        }
    }
    publisher.close().await.unwrap();
    let log = read_all(&bus, &topic).await;
    assert_eq!(log.len(), 400, "dropping withdraws nothing");
    expect_exactly(&log, &acked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_ten_thousand_goes_through_a_real_engine_in_order() {
    let (bus, topic) = bus_with(&services::kinesis_url().unwrap(), 4).await;
    let publisher = bus.publisher();
    let records: Vec<_> = (0..10_000).map(|n| record(&format!("k{}", n % 2_000), n)).collect();
    let answers = publisher.publish_batch(&topic, records).await;
    let acked: Vec<_> = answers
        .into_iter()
        .enumerate()
        .map(|(n, answer)| {
            assert_eq!(told(&answer), ("ok", None), "{n}");
            (format!("k{}", n % 2_000), n, answer.unwrap())
        })
        .collect();
    let log = read_all(&bus, &topic).await;
    assert_eq!(log.len(), acked.len());
    expect_exactly(&log, &acked);
}
