//! Servers that are killed, data that is lost, and several processes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::{
    Effect, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId, ReadLimit, StartAt,
};
use eb_redis::{RedisBus, RedisConfig};
use eb_testkit::process::Spoken;
use tokio::sync::watch;

use crate::common::{
    config, expect_acked, expect_order, killed_and_restarted, own_prefix, read_all, record, server,
    shared_port, topic,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ack_survives_a_killed_server_and_no_key_is_out_of_order() {
    const PUBLISHERS: usize = 64;
    const PARTITIONS: u32 = 3;
    let mut server = server(&[]);
    let bus = Arc::new(RedisBus::open(config(server.port())).await.unwrap());
    let topic = topic("killed");
    bus.admin().create_topic(&topic, PARTITIONS).await.unwrap();
    let (stop, acks) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(0usize));
    let publisher = bus.publisher();
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|p| {
            let (publisher, topic, stop, acks) =
                (publisher.clone(), topic.clone(), stop.clone(), acks.clone());
            tokio::spawn(async move {
                let key = format!("key-{p}");
                let (mut acked, mut unknown, mut n) = (Vec::new(), 0usize, 0);
                while !stop.load(Ordering::Relaxed) {
                    let record = record(&key, n);
                    match publisher.publish(&topic, record.clone()).await {
                        Ok(at) => {
                            acked.push((at, record));
                            acks.send_modify(|n| *n += 1);
                            n += 1;
                        }
                        Err(e) if e.effect() == Effect::Unknown => {
                            unknown += 1;
                            n += 1;
                        }
                        // It is not in the log, and the same one may be tried again.
                        Err(e) => assert!(e.is_retryable(), "{e}"),
                    }
                }
                (acked, unknown)
            })
        })
        .collect();
    for round in 1..=3 {
        until_more(&acks, 300 * round).await;
        if round == 2 {
            // Killed while the log is rewritten, too.
            server.wire().unwrap().must(&["BGREWRITEAOF"]).unwrap();
        }
        server = killed_and_restarted(server, |_| ()).await;
    }
    until_more(&acks, 300).await;
    stop.store(true, Ordering::Relaxed);
    let (mut acked, mut unknown) = (Vec::new(), 0);
    for task in tasks {
        let (of_task, lost) = task.await.unwrap();
        acked.extend(of_task);
        unknown += lost;
    }
    let mut log = Vec::new();
    for partition in 0..PARTITIONS {
        let of_partition = read_all(&bus.reader(), &topic, partition).await;
        expect_order(&of_partition);
        log.extend(of_partition);
    }
    expect_acked(&log, &acked);
    // Each kill loses the answers of what was in flight at the most: a record of each publisher.
    assert!(unknown <= 3 * PUBLISHERS, "{unknown} of unknown outcome");
    assert!(log.len() <= acked.len() + unknown, "{} records, {} ACKs", log.len(), acked.len());
    publisher.close().await.unwrap();
}

/// Comes when there are so many more than now.
async fn until_more(count: &watch::Sender<usize>, more: usize) {
    let mut count = count.subscribe();
    let wanted = *count.borrow_and_update() + more;
    count.wait_for(|n| *n >= wanted).await.unwrap();
}

#[tokio::test]
async fn a_log_that_was_removed_behind_the_bus_poisons_the_partition() {
    let server = server(&[]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("removed");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let (publisher, reader) = (bus.publisher(), bus.reader());
    for n in 0..5 {
        publisher.publish(&topic, record("k", n)).await.unwrap();
    }
    let mut cursor = reader.cursor(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    cursor.next(ReadLimit::records(2)).await.unwrap();
    let server =
        killed_and_restarted(server, |data| std::fs::remove_dir_all(data.join("appendonlydir")).unwrap())
            .await;

    let e = publisher.publish(&topic, record("k", 5)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::FactsMissing, Effect::None), "{e}");
    let e = publisher.publish(&topic, record("k", 6)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Poisoned, "{e}");
    assert_eq!(*publisher.probe(&topic).await.unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(*cursor.next(ReadLimit::default()).await.unwrap_err().kind(), ErrorKind::Poisoned);

    // Whoever opens it anew finds what there is: nothing.
    let anew = RedisBus::open(config(server.port())).await.unwrap();
    let e = anew.publisher().publish(&topic, record("k", 5)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::NotFound, "{e}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn an_older_copy_of_the_log_is_noticed_by_publishers_and_by_readers() {
    let server = server(&[]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("older");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    copy(&server.data().join("appendonlydir"), &server.data().join("kept"));
    let last = publisher.publish(&topic, record("k", 1)).await.unwrap();
    // A consumer of another process, which knows nothing of our ACKs.
    let other = RedisBus::open(config(server.port())).await.unwrap();
    let mut cursor = other.reader().cursor(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    assert_eq!(cursor.next(ReadLimit::default()).await.unwrap().records.len(), 2);
    let server = killed_and_restarted(server, |data| {
        std::fs::remove_dir_all(data.join("appendonlydir")).unwrap();
        copy(&data.join("kept"), &data.join("appendonlydir"));
    })
    .await;

    let mut e = cursor.next(ReadLimit::default()).await.unwrap_err();
    if e.is_retryable() {
        // The connection was still there when it was asked, and broke.
        e = cursor.next(ReadLimit::default()).await.unwrap_err();
    }
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
    // Who has read that far knows that it was there: the whole opening trusts the partition no more.
    let e = other.publisher().publish(&topic, record("k", 2)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Poisoned, "{e}");
    let e = publisher.publish(&topic, record("k", 2)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
    assert!(e.to_string().contains(&last.offset.to_string()), "{e}");
    let e = publisher.publish(&topic, record("k", 2)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Poisoned, "{e}");
    // A checkpoint behind what is there is noticed, too.
    let anew = RedisBus::open(config(server.port())).await.unwrap();
    let stored = eb_contract::Cut::After(last.offset);
    let Err(e) = anew.reader().cursor(&topic, PartitionId(0), stored.into()).await else {
        panic!("it opened")
    };
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
    anew.publisher().publish(&topic, record("k", 2)).await.unwrap();
}

#[tokio::test]
async fn a_topic_that_was_deleted_and_made_anew_is_another_one() {
    let server = server(&[]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("anew");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let (publisher, reader) = (bus.publisher(), bus.reader());
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    let before = reader.partitions(&topic).await.unwrap().incarnation;
    let mut cursor = reader.cursor(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    server.wire().unwrap().must(&["DEL", "{eb}:t:anew", "{eb}:s:anew:0"]).unwrap();
    bus.admin().create_topic(&topic, 1).await.unwrap();
    assert_ne!(reader.partitions(&topic).await.unwrap().incarnation, before);
    let e = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
    let e = publisher.publish(&topic, record("k", 1)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::FactsMissing, Effect::None), "{e}");
    assert_eq!(*publisher.publish(&topic, record("k", 1)).await.unwrap_err().kind(), ErrorKind::Poisoned);
}

const CHILD: &str = "EB_REDIS_TEST_CHILD";

#[tokio::test]
async fn two_processes_publish_three_hundred_each_and_share_no_offset() {
    let prefix = own_prefix();
    let port = shared_port();
    let bus = RedisBus::open(RedisConfig { prefix: prefix.clone(), ..config(port) }).await.unwrap();
    let topic = topic("shared");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let me = std::env::current_exe().unwrap();
    let children: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|key| {
            let mut command = Command::new(&me);
            command.args(["--exact", "crashing::a_process_that_publishes", "--ignored", "--nocapture"]);
            Spoken::spawn(command.env(CHILD, format!("{port} {prefix} {key}"))).unwrap()
        })
        .collect();
    let mut acked = Vec::new();
    for child in children {
        let words = tokio::task::spawn_blocking(|| child.wait().unwrap()).await.unwrap();
        assert!(words.status.success(), "{}", words.errors);
        acked.extend(words.lines.iter().filter_map(|l| l.strip_prefix("ack ")).map(str::to_owned));
    }
    let log = read_all(&bus.reader(), &topic, 0).await;
    expect_order(&log);
    let mut there: Vec<_> = log.iter().map(|r| r.eb_ref.offset.to_string()).collect();
    assert_eq!((there.len(), acked.len()), (600, 600));
    there.sort();
    acked.sort();
    assert_eq!(there, acked);
}

/// Not a test of its own: the process that the test above starts.
#[tokio::test]
#[ignore = "run by two_processes_publish_three_hundred_each_and_share_no_offset"]
async fn a_process_that_publishes() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let words: Vec<_> = told.split(' ').collect();
    let config = RedisConfig { prefix: words[1].to_owned(), ..config(words[0].parse().unwrap()) };
    let bus = RedisBus::open(config).await.unwrap();
    let publisher = bus.publisher();
    println!();
    for n in 0..300 {
        let at = publisher.publish(&topic("shared"), record(words[2], n)).await.unwrap();
        println!("ack {}", at.offset);
    }
}
