//! Data that is lost behind an unbroken connection, and an append-only file that is switched off and on.

use std::time::Duration;

use eb_contract::{
    EbRef, Effect, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId, ReadLimit,
    StartAt, Topic,
};
use eb_redis::{PublishConfig, RedisBus, RedisConfig, RedisPublisher, RedisUrl};
use eb_testkit::services::{Redis, RedisReply, RedisWire, Signal};

use crate::common::{PATIENCE, config, number, patient, read_all, record, server, topic};

const STREAM: &str = "{eb}:s:lost:0";

/// A bus on a server of its own, with `count` records in its one partition.
async fn filled(server: &Redis, count: usize) -> (RedisBus, RedisPublisher, Topic, Vec<EbRef>) {
    // Whoever waits for something that comes is not to give up first.
    let publish = PublishConfig { give_up_after: PATIENCE, ..PublishConfig::default() };
    let bus = RedisBus::open(RedisConfig { publish, ..config(server.port()) }).await.unwrap();
    let topic = topic("lost");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let publisher = bus.publisher();
    let mut acked = Vec::new();
    for n in 0..count {
        acked.push(publisher.publish(&topic, record("k", n)).await.unwrap());
    }
    (bus, publisher, topic, acked)
}

/// The publisher finds that what was ACKed is not there, appends nothing behind the gap, and never will.
async fn expect_missing(publisher: &RedisPublisher, topic: &Topic) {
    let e = publisher.publish(topic, record("k", 100)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::FactsMissing, Effect::None), "{e}");
    let e = publisher.publish(topic, record("k", 101)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Poisoned, Effect::None), "{e}");
}

#[tokio::test]
async fn an_older_copy_put_in_place_behind_an_unbroken_connection_is_found_before_anything_is_appended() {
    let server = server(&[]);
    let (_bus, publisher, topic, acked) = filled(&server, 3).await;
    // As if the server had followed an older copy of itself and come back.
    let mut wire = server.wire().unwrap();
    wire.must(&["COPY", STREAM, "{eb}:older"]).unwrap();
    wire.must(&["XDEL", "{eb}:older", &acked[2].offset.to_string()]).unwrap();
    wire.must(&["XSETID", "{eb}:older", &acked[1].offset.to_string()]).unwrap();
    wire.must(&["RENAME", "{eb}:older", STREAM]).unwrap();
    expect_missing(&publisher, &topic).await;
    assert_eq!(wire.must(&["XLEN", STREAM]).unwrap(), RedisReply::Number(2));
}

#[tokio::test]
async fn a_server_that_followed_an_older_copy_and_came_back_is_found_out_over_the_same_connection() {
    let (server, older) = (server(&[]), server(&[]));
    let weak = RedisConfig { accept_weaker_ack: true, ..config(server.port()) };
    let bus = RedisBus::open(weak).await.unwrap();
    let (topic, publisher) = (topic("lost"), bus.publisher());
    bus.admin().create_topic(&topic, 1).await.unwrap();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    let (mut wire, mut of_older) = (server.wire().unwrap(), older.wire().unwrap());
    let follow = |wire: &mut RedisWire, leader: u16| {
        wire.must(&["REPLICAOF", "127.0.0.1", &leader.to_string()]).unwrap();
        // Another link of before may still be up for a moment, so both are asked for.
        let follows = format!("master_port:{leader}\r\nmaster_link_status:up");
        while !wire.must(&["INFO", "replication"]).unwrap().text().unwrap().contains(&follows) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    follow(&mut of_older, server.port());
    of_older.must(&["REPLICAOF", "NO", "ONE"]).unwrap();
    publisher.publish(&topic, record("k", 1)).await.unwrap();
    let clients = wire.must(&["CLIENT", "LIST", "TYPE", "normal"]).unwrap().text().unwrap().lines().count();
    follow(&mut wire, older.port());
    wire.must(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let left = wire.must(&["CLIENT", "LIST", "TYPE", "normal"]).unwrap().text().unwrap().lines().count();
    assert_eq!(clients, left, "nobody was cut off");
    expect_missing(&publisher, &topic).await;
}

#[tokio::test]
async fn everything_flushed_is_found_before_anything_is_appended() {
    let server = server(&[]);
    let (bus, publisher, topic, _) = filled(&server, 2).await;
    let mut cursor = bus.reader().cursor(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    assert_eq!(cursor.next(ReadLimit::default()).await.unwrap().records.len(), 2);
    let mut wire = server.wire().unwrap();
    wire.must(&["FLUSHALL"]).unwrap();
    expect_missing(&publisher, &topic).await;
    let e = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::FactsMissing | ErrorKind::Poisoned), "{e}");
    assert_eq!(wire.must(&["DBSIZE"]).unwrap(), RedisReply::Number(0));
}

#[tokio::test]
async fn a_stream_that_memory_pressure_has_deleted_is_missed() {
    let server = server(&[]);
    let (_bus, publisher, topic, _) = filled(&server, 2).await;
    let mut wire = server.wire().unwrap();
    set(&mut wire, "maxmemory-policy", "allkeys-random");
    set(&mut wire, "maxmemory", "1");
    // Any command that takes memory makes room first.
    while wire.must(&["EXISTS", STREAM]).unwrap() == RedisReply::Number(1) {
        let _ = wire.send(&["SET", "x", "y"]).unwrap();
    }
    set(&mut wire, "maxmemory", "0");
    expect_missing(&publisher, &topic).await;
}

#[tokio::test]
async fn records_wait_for_a_server_that_is_busy_with_a_script() {
    let server = server(&[("busy-reply-threshold", "1")]);
    let (bus, publisher, topic, _) = filled(&server, 1).await;
    let mut busy = server.wire().unwrap();
    let script = std::thread::spawn(move || busy.send(&["EVAL", "while true do end", "0"]));
    let mut wire = server.wire().unwrap();
    while !matches!(wire.send(&["PING"]).unwrap(), RedisReply::Error(e) if e.starts_with("BUSY")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let waiting = tokio::spawn(publisher.publish(&topic, record("k", 1)));
    let refused = bus.reader().head(&topic, PartitionId(0)).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(!waiting.is_finished());
    wire.must(&["SCRIPT", "KILL"]).unwrap();
    waiting.await.unwrap().unwrap();
    script.join().unwrap().unwrap();
    assert_eq!(read_all(&bus.reader(), &topic, 0).await.len(), 2);
}

#[tokio::test]
async fn a_user_that_was_deleted_meanwhile_is_told_and_nothing_is_appended() {
    let server = server(&[]);
    let mut wire = server.wire().unwrap();
    let rights = ["ACL", "SETUSER", "gate", "on", ">geheim", "~*", "+@all"];
    wire.must(&rights).unwrap();
    let url = RedisUrl::parse(&format!("redis://gate:geheim@127.0.0.1:{}", server.port())).unwrap();
    let publish = PublishConfig { give_up_after: Duration::from_millis(50), ..PublishConfig::default() };
    let config = RedisConfig { publish, timeouts: patient(), ..RedisConfig::new(url) };
    let bus = RedisBus::open(config).await.unwrap();
    let (topic, publisher) = (topic("lost"), bus.publisher());
    bus.admin().create_topic(&topic, 1).await.unwrap();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    wire.must(&["ACL", "DELUSER", "gate"]).unwrap();
    // The first finds that its connection was ended, the next that there will be no other.
    publisher.publish(&topic, record("j", 1)).await.unwrap_err();
    let e = publisher.publish(&topic, record("k", 1)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Unavailable, Effect::None), "{e}");
    assert!(e.to_string().contains("check user and password") && !e.to_string().contains("geheim"), "{e}");
    wire.must(&rights).unwrap();
    publisher.publish(&topic, record("k", 1)).await.unwrap();
}

#[tokio::test]
async fn a_last_id_that_is_set_back_is_found_before_a_position_is_given_out_again() {
    let server = server(&[]);
    let (_bus, publisher, topic, acked) = filled(&server, 2).await;
    let mut wire = server.wire().unwrap();
    wire.must(&["XDEL", STREAM, &acked[1].offset.to_string()]).unwrap();
    wire.must(&["XSETID", STREAM, &acked[0].offset.to_string()]).unwrap();
    expect_missing(&publisher, &topic).await;
}

#[tokio::test]
async fn ids_beyond_the_numbers_of_scripts_are_compared_exactly() {
    let server = server(&[]);
    let (bus, publisher, topic, _) = filled(&server, 1).await;
    let mut wire = server.wire().unwrap();
    let far = "9223372036854775807-18446744073709551615";
    wire.must(&["XSETID", STREAM, far]).unwrap();
    // The sequence is used up, so the clock is taken to have moved; then the numbers differ in their last digit only.
    let next = publisher.publish(&topic, record("k", 1)).await.unwrap();
    assert_eq!(next.offset.to_string(), "9223372036854775808-0");
    let next = publisher.publish(&topic, record("k", 2)).await.unwrap();
    assert_eq!(next.offset.to_string(), "9223372036854775808-1");
    let log = read_all(&bus.reader(), &topic, 0).await;
    assert_eq!(log.iter().map(|r| number(&r.envelope)).collect::<Vec<_>>(), [0, 1, 2]);
    wire.must(&["XDEL", STREAM, "9223372036854775808-1"]).unwrap();
    wire.must(&["XSETID", STREAM, "9223372036854775808-0"]).unwrap();
    expect_missing(&publisher, &topic).await;
}

/// Whether the append-only file is being rewritten.
fn rewriting(wire: &mut RedisWire) -> bool {
    let info = wire.must(&["INFO", "persistence"]).unwrap().text().unwrap();
    info.contains("aof_rewrite_in_progress:1")
}

fn rewritten(wire: &mut RedisWire) {
    while rewriting(wire) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn set(wire: &mut RedisWire, name: &str, value: &str) {
    wire.must(&["CONFIG", "SET", name, value]).unwrap();
}

/// Switches the file off and on; the rewrite that follows takes as long as it is let.
fn switch_off_and_on(wire: &mut RedisWire) {
    set(wire, "rdb-key-save-delay", "100000000");
    set(wire, "appendonly", "no");
    set(wire, "appendonly", "yes");
    assert!(rewriting(wire));
}

fn let_it_be_rewritten(wire: &mut RedisWire) {
    set(wire, "appendonly", "no");
    set(wire, "rdb-key-save-delay", "0");
    set(wire, "appendonly", "yes");
    rewritten(wire);
}

#[tokio::test]
async fn what_is_appended_while_the_file_is_made_anew_is_not_acked_and_a_crash_takes_it() {
    let mut server = server(&[]);
    let (bus, publisher, topic, _) = filled(&server, 2).await;
    let mut wire = server.wire().unwrap();
    // A rewrite of the usual kind first: the file has a base then.
    wire.must(&["BGREWRITEAOF"]).unwrap();
    rewritten(&mut wire);
    // Nothing is appended between, so no append sees the setting.
    switch_off_and_on(&mut wire);
    let e = publisher.publish(&topic, record("k", 2)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Unavailable, Effect::Unknown), "{e}");
    assert_eq!(wire.must(&["XLEN", STREAM]).unwrap(), RedisReply::Number(3), "it is there, for now");
    // Nobody is handed what may be gone soon.
    let e = bus.reader().head(&topic, PartitionId(0)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Unavailable, "{e}");
    let e = RedisBus::open(config(server.port())).await.err().expect("refused");
    assert!(
        *e.kind() == ErrorKind::Unavailable && e.to_string().contains("may be: it is being rewritten"),
        "{e}"
    );

    server.stop(Signal::Kill).unwrap();
    server.restart().unwrap();
    let log = read_all(&bus.reader(), &topic, 0).await;
    assert_eq!(log.len(), 2, "a crash has taken it");
    publisher.publish(&topic, record("k", 3)).await.unwrap();
}

#[tokio::test]
async fn once_the_file_is_made_records_are_acked_again() {
    let server = server(&[]);
    let (bus, publisher, topic, _) = filled(&server, 2).await;
    let mut wire = server.wire().unwrap();
    wire.must(&["BGREWRITEAOF"]).unwrap();
    switch_off_and_on(&mut wire);
    publisher.publish(&topic, record("k", 2)).await.unwrap_err();
    let waiting = tokio::spawn(publisher.publish(&topic, record("k", 3)));
    let_it_be_rewritten(&mut wire);
    waiting.await.unwrap().unwrap();
    publisher.publish(&topic, record("k", 4)).await.unwrap();
    let log = read_all(&bus.reader(), &topic, 0).await;
    assert_eq!(log.iter().map(|r| number(&r.envelope)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

/// Appends while the file is rewritten, which takes at least so long; whether it was still being rewritten behind the last of them.
async fn append_while_it_is_rewritten(micros: u64) -> bool {
    // A setting that is changed later would be taken for more than it is.
    let server = server(&[("rdb-key-save-delay", &micros.to_string())]);
    let (bus, publisher, topic, _) = filled(&server, 2).await;
    let mut wire = server.wire().unwrap();
    // The first makes a base, the second replaces it.
    wire.must(&["BGREWRITEAOF"]).unwrap();
    rewritten(&mut wire);
    wire.must(&["BGREWRITEAOF"]).unwrap();
    for n in 2..10 {
        publisher.publish(&topic, record("k", n)).await.unwrap();
    }
    let another = RedisBus::open(config(server.port())).await.unwrap();
    another.publisher().publish(&topic, record("k", 10)).await.unwrap();
    let meanwhile = rewriting(&mut wire);
    rewritten(&mut wire);
    assert_eq!(read_all(&bus.reader(), &topic, 0).await.len(), 11);
    meanwhile
}

#[tokio::test]
async fn a_rewrite_of_the_usual_kind_changes_nothing() {
    let mut micros = 200_000;
    // Longer, where the disk is so slow that it was over before.
    while !append_while_it_is_rewritten(micros).await {
        micros *= 4;
    }
}
