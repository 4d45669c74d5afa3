//! Reads that wait at the head.

use std::time::Duration;

use eb_contract::{EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId, ReadLimit, StartAt};
use eb_redis::{ReadConfig, RedisBus, RedisConfig};
use eb_testkit::services::Signal;

use crate::common::{PATIENCE, config, number, own_prefix, record, server, shared_port, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_waits_through_a_restart_of_the_server() {
    const COUNT: usize = 40;
    let mut server = server(&[]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("waiting");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let mut cursor = bus.reader().cursor(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    let consumer = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.len() < COUNT {
            match cursor.next(ReadLimit::default().waiting(PATIENCE)).await {
                Ok(batch) => got.extend(batch.records.iter().map(|r| number(&r.envelope))),
                Err(e) => assert!(e.is_retryable(), "{e}"),
            }
        }
        got
    });
    let publisher = bus.publisher();
    for n in 0..COUNT {
        publisher.publish(&topic, record("k", n)).await.unwrap();
        if n % 20 == 10 {
            server = tokio::task::spawn_blocking(move || {
                server.stop(if n == 10 { Signal::Kill } else { Signal::Term }).unwrap();
                server.restart().unwrap();
                server
            })
            .await
            .unwrap();
            // What came before the answers to these calls, the end of the publisher's connection among it, has been seen.
            for _ in 0..2 {
                while bus.reader().head(&topic, PartitionId(0)).await.is_err() {}
            }
        }
    }
    let got = tokio::time::timeout(PATIENCE, consumer).await.unwrap().unwrap();
    assert_eq!(got, (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_consumers_wait_than_there_are_connections_for_it() {
    for waiting_connections in [0, 1, 2] {
        let read = ReadConfig { waiting_connections, poll_every: Duration::from_millis(5) };
        let config = RedisConfig { read, prefix: own_prefix(), ..config(shared_port()) };
        let bus = RedisBus::open(config).await.unwrap();
        let (topic, reader) = (topic("many"), bus.reader());
        bus.admin().create_topic(&topic, 1).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let mut cursor = reader.cursor(&topic, PartitionId(0), StartAt::Latest).await.unwrap();
            waiting
                .push(tokio::spawn(async move { cursor.next(ReadLimit::default().waiting(PATIENCE)).await }));
        }
        tokio::task::yield_now().await;
        bus.publisher().publish(&topic, record("k", 1)).await.unwrap();
        for one in waiting {
            assert_eq!(one.await.unwrap().unwrap().records.len(), 1, "{waiting_connections} connections");
        }
    }
}
