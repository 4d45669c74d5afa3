//! Groups: how large they are, in what order they go, and answers that cannot be believed.

use eb_contract::{Effect, ErrorKind, EventBusAdmin, EventBusPublisher};
use eb_redis::{PublishConfig, RedisBus, RedisConfig};
use eb_testkit::services::{Redis, RedisWire};

use crate::common::{config, number, patient, read_all, record, server, topic};
use crate::proxy::{Plan, behind};

/// How often a script was run.
fn appends(server: &Redis) -> usize {
    let mut wire: RedisWire = server.wire().unwrap();
    let stats = wire.must(&["INFO", "commandstats"]).unwrap().text().unwrap();
    let line = stats.lines().find_map(|l| l.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|l| l.split(',').next()).map_or(0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn a_group_ends_at_its_limit_of_records_or_bytes() {
    let server = server(&[]);
    // A record of `record("k", n)` with its key has 18 bytes below ten, and 19 from there on.
    for (records, bytes, groups) in [(7, 1 << 20, 15), (512, 60, 34), (512, 1, 100), (512, 1 << 20, 1)] {
        let limits = PublishConfig {
            max_records_per_group: records,
            max_bytes_per_group: bytes,
            ..PublishConfig::default()
        };
        let prefix = format!("g{records}-{bytes}");
        let config = RedisConfig { publish: limits, prefix, ..config(server.port()) };
        let bus = RedisBus::open(config).await.unwrap();
        let (topic, publisher) = (topic("grouped"), bus.publisher());
        bus.admin().create_topic(&topic, 1).await.unwrap();
        publisher.publish(&topic, record("k", 0)).await.unwrap();
        let before = appends(&server);
        let answers = publisher.publish_batch(&topic, (0..100).map(|n| record("k", n)).collect()).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(appends(&server) - before, groups, "{records} records, {bytes} bytes");
    }
}

#[tokio::test]
async fn what_is_called_for_before_the_topic_is_known_lies_in_the_order_of_the_calls() {
    let server = server(&[]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let (topic, publisher) = (topic("ordered"), bus.publisher());
    bus.admin().create_topic(&topic, 1).await.unwrap();
    // Polled in the other order.
    let mut calls: Vec<_> = (0..50).map(|n| publisher.publish(&topic, record("k", n))).collect();
    while let Some(last) = calls.pop() {
        last.await.unwrap();
    }
    let numbers: Vec<_> =
        read_all(&bus.reader(), &topic, 0).await.iter().map(|r| number(&r.envelope)).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_that_cannot_be_is_believed_by_nobody_and_poisons() {
    let forgeries: [fn(&str) -> String; 4] = [
        // An id that was given out before.
        |said| {
            let (before, id) = said.split_once("$2\r\nok\r\n$").unwrap();
            let (_, after) = id.split_once("\r\n").unwrap().1.split_once("\r\n").unwrap();
            format!("{before}$2\r\nok\r\n$3\r\n1-1\r\n{after}")
        },
        // One id more than records.
        |said| {
            let (before, id) = said.split_once("*2\r\n$2\r\nok\r\n$15\r\n").unwrap();
            let (id, after) = id.split_once("\r\n").unwrap();
            let more = "$15\r\n4102444800000-0";
            format!("{before}*3\r\n$2\r\nok\r\n$15\r\n{id}\r\n{more}\r\n{after}")
        },
        // Something that is no id.
        |said| said.replacen("-", "+", 1),
        // A word that is none of the script's.
        |said| said.replacen("*2\r\n$2\r\nok\r\n", "*2\r\n:1\r\n", 1),
    ];
    for forge in forgeries {
        let (proxy, bus, direct, topic) = behind(patient()).await;
        let publisher = bus.publisher();
        publisher.publish(&topic, record("k", 0)).await.unwrap();
        proxy.plan(Plan::Forge(forge));
        let e = publisher.publish(&topic, record("k", 1)).await.unwrap_err();
        assert_eq!((e.kind(), e.effect()), (&ErrorKind::ProtocolViolation, Effect::Unknown), "{e}");
        let e = publisher.publish(&topic, record("k", 2)).await.unwrap_err();
        assert_eq!((e.kind(), e.effect()), (&ErrorKind::Poisoned, Effect::None), "{e}");
        assert_eq!(read_all(&direct.reader(), &topic, 0).await.len(), 2, "the unknown one is in the log");
    }
}

#[tokio::test]
async fn what_a_group_had_appended_before_it_was_stopped_is_acked() {
    let (proxy, bus, direct, topic) = behind(patient()).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    // As the script answers when the server has no room for the third.
    proxy.plan(Plan::Forge(|said| {
        let stopped = said.replacen("*4\r\n$2\r\nok\r\n", "*3\r\n$5\r\nOOM x\r\n", 1);
        let ids: Vec<_> = stopped.match_indices("\r\n$15\r\n").map(|(at, _)| at).collect();
        let end = stopped.find("\r\n*").unwrap();
        format!("{}{}", &stopped[..ids[2]], &stopped[end..])
    }));
    let batch = vec![record("k", 1), record("j", 2), record("k", 3)];
    let answers = publisher.publish_batch(&topic, batch).await;
    let codes: Vec<_> =
        answers.iter().map(|a| a.as_ref().map_or_else(|e| e.kind().code(), |_| "ok")).collect();
    assert_eq!(codes, ["ok", "ok", "storage_full"]);
    let log = read_all(&direct.reader(), &topic, 0).await;
    for (answer, lies) in answers.iter().take(2).zip(&log[1..]) {
        assert_eq!(answer.as_ref().unwrap(), &lies.eb_ref);
    }
    publisher.publish(&topic, record("k", 4)).await.unwrap();
}
