//! Publishing: order, answers, faults of the disk, the end of a publisher.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eb_contract::{
    Effect, EnvelopeRef, ErrorKind, EventBusPublisher, PartitionKey, PublishRecord, Retry, partition_for,
};
use eb_file::format::line::decode_line;
use eb_file::{FileBus, InlineCommit};
use futures_util::future::join_all;

use crate::common::{FaultyDisk, Folder, block_on, offset, poll_once, publish, record, recover, topic};

#[test]
fn order_is_fixed_by_the_calls_not_by_who_is_polled_first() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let futures: Vec<_> =
        (0..50).map(|i| publisher.publish(&topic(), record("k", &format!("{i}")))).collect();
    let answers = block_on(async { join_all(futures.into_iter().rev()).await });
    let offsets: Vec<u64> = answers.into_iter().rev().map(|a| offset(&a.unwrap())).collect();
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
    let expected: Vec<String> = (0..50).map(|i| format!("{{\"e\":\"{i}\"}}")).collect();
    assert_eq!(folder.envelopes(), expected);
}

#[test]
fn a_dropped_publish_is_written_all_the_same() {
    for inline in [false, true] {
        let folder = Folder::with_topic(1);
        let mut config = folder.config();
        config.inline_commit = inline.then(|| InlineCommit::new(|work| work()));
        let publisher = FileBus::open(config).unwrap().publisher();
        publish(&publisher, 0, 1);
        drop(publisher.publish(&topic(), record("key", "unpolled")));
        let mut polled = publisher.publish(&topic(), record("key", "polled"));
        let _ = poll_once(&mut polled);
        drop(polled);
        drop(publisher.publish_batch(&topic(), vec![record("key", "batch 1"), record("key", "batch 2")]));
        block_on(publisher.close()).unwrap();
        let expected =
            ["record 0", "unpolled", "polled", "batch 1", "batch 2"].map(|t| format!("{{\"e\":\"{t}\"}}"));
        assert_eq!(folder.envelopes(), expected);
    }
}

#[test]
fn the_same_envelope_twice_is_two_records() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let first = publisher.publish_blocking(&topic(), record("k", "same")).unwrap();
    let second = publisher.publish_blocking(&topic(), record("k", "same")).unwrap();
    assert_eq!((offset(&first), offset(&second)), (0, 1));
    assert!(first.published_at_utc <= second.published_at_utc);
    assert_eq!(folder.lines().len(), 2);
}

#[test]
fn a_line_says_where_its_group_starts_and_its_time_is_the_refs() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    publish(&publisher, 0, 2);
    let answers = block_on(publisher.publish_batch(&topic(), vec![record("k", "a"), record("k", "b")]));
    let lines = folder.lines();
    for (line, durable) in lines.iter().zip([0, 1, 2, 2]) {
        assert_eq!(decode_line(line.strip_suffix(b"\n").unwrap()).unwrap().durable, durable);
    }
    for (line, answer) in lines[2..].iter().zip(answers) {
        let line = decode_line(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(line.published_at, answer.unwrap().published_at_utc);
    }
}

#[test]
fn odd_keys_and_the_largest_envelope_come_through_and_one_byte_more_is_refused() {
    let folder = Folder::with_topic(1);
    let mut config = folder.config();
    config.max_envelope_bytes = 3000;
    let publisher = FileBus::open(config).unwrap().publisher();
    let of = |size: usize| {
        let envelope = EnvelopeRef::new(format!("{{\"p\":\"{}\"}}", "x".repeat(size - 8))).unwrap();
        PublishRecord::new(PartitionKey::new("quote \" back \\ tab \t ü 𝕏").unwrap(), envelope)
    };
    publisher.publish_blocking(&topic(), of(3000)).unwrap();
    let refused = publisher.publish_blocking(&topic(), of(3001)).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::TooLarge { size: 3001, limit: 3000 });
    let lines = folder.lines();
    assert_eq!(lines.len(), 1);
    let line = decode_line(lines[0].strip_suffix(b"\n").unwrap()).unwrap();
    assert_eq!(line.key.unescape(), "quote \" back \\ tab \t ü 𝕏");
    let json: serde_json::Value = serde_json::from_slice(&lines[0]).unwrap();
    assert_eq!(json["partition_key"], "quote \" back \\ tab \t ü 𝕏");
}

#[test]
fn keys_go_to_the_partition_of_the_rule_and_keep_their_order_there() {
    let folder = Folder::with_topic(4);
    let publisher = folder.open().publisher();
    let records: Vec<_> =
        (0..200).map(|i| record(&format!("merchant {}", i % 17), &format!("{i}"))).collect();
    let answers = block_on(publisher.publish_batch(&topic(), records.clone()));
    let mut next = [0; 4];
    for (record, answer) in records.iter().zip(answers) {
        let eb_ref = answer.unwrap();
        assert_eq!(eb_ref.partition_id, partition_for(&record.partition_key, 4));
        let partition = eb_ref.partition_id.0 as usize;
        assert_eq!(offset(&eb_ref), next[partition]);
        next[partition] += 1;
    }
    assert!(next.iter().all(|n| *n > 0));
}

#[test]
fn in_a_batch_a_refused_record_holds_back_only_its_own_key() {
    let folder = Folder::with_topic(1);
    let mut config = folder.config();
    config.max_envelope_bytes = 100;
    let publisher = FileBus::open(config).unwrap().publisher();
    let big = "x".repeat(200);
    let batch =
        vec![record("a", "1"), record("b", &big), record("a", "2"), record("b", "3"), record("c", "4")];
    let answers = block_on(publisher.publish_batch(&topic(), batch));
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().map(offset).map_err(|e| e.kind().code())).collect();
    assert_eq!(kinds, [Ok(0), Err("too_large"), Ok(1), Err("not_attempted"), Ok(2)]);
    assert!(block_on(publisher.publish_batch(&topic(), Vec::new())).is_empty());

    let too_many = block_on(publisher.publish_batch(&topic(), vec![record("a", "x"); 10_001]));
    assert_eq!(too_many.len(), 10_001);
    assert!(too_many.iter().all(|a| matches!(a.as_ref().unwrap_err().kind(), ErrorKind::TooLarge { .. })));
}

#[test]
fn a_topic_that_does_not_exist_is_not_found() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let other = eb_contract::Topic::new("other").unwrap();
    let e = block_on(publisher.publish(&other, record("k", "x"))).unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::NotFound, Effect::None));
    let answers = block_on(publisher.publish_batch(&other, vec![record("k", "x"); 2]));
    assert!(answers.iter().all(|a| *a.as_ref().unwrap_err().kind() == ErrorKind::NotFound));
    assert_eq!(*block_on(publisher.probe(&other)).unwrap_err().kind(), ErrorKind::NotFound);
    block_on(publisher.probe(&topic())).unwrap();
}

#[test]
fn many_publishers_get_dense_offsets_and_share_syncs() {
    let folder = Folder::with_topic(1);
    let disk = FaultyDisk::default();
    let bus = FileBus::open_on(folder.config(), Arc::new(disk.clone())).unwrap();
    let publisher = bus.publisher();
    disk.faults.hold_syncs();
    let futures: Vec<_> =
        (0..1000).map(|i| publisher.publish(&topic(), record("k", &format!("{i}")))).collect();
    disk.faults.release_syncs();
    let mut offsets: Vec<u64> =
        block_on(join_all(futures)).into_iter().map(|a| offset(&a.unwrap())).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..1000).collect::<Vec<_>>());
    assert_eq!(folder.lines().len(), 1000);
    let syncs = disk.faults.syncs.load(Ordering::SeqCst);
    assert!(syncs < 20, "{syncs} syncs");
}

#[test]
fn what_does_not_fit_a_group_waits_in_order_and_what_does_not_fit_that_is_throttled() {
    let folder = Folder::with_topic(1);
    let disk = FaultyDisk::default();
    let mut config = folder.config();
    config.max_group_bytes = 1000;
    config.max_waiting_bytes = 20_000;
    let publisher = FileBus::open_on(config, Arc::new(disk.clone())).unwrap().publisher();
    publish(&publisher, 0, 1);
    disk.faults.hold_syncs();
    let mut accepted = Vec::new();
    let throttled = loop {
        let mut future =
            publisher.publish(&topic(), record("key", &format!("record {}", accepted.len() + 1)));
        match poll_once(&mut future) {
            Some(answer) => break answer.unwrap_err(),
            None => accepted.push(future),
        }
        assert!(accepted.len() < 10_000, "there must be an end to it");
    };
    assert_eq!(*throttled.kind(), ErrorKind::Throttled { after: None });
    assert_eq!((throttled.effect(), throttled.retry()), (Effect::None, Retry::Later));
    disk.faults.release_syncs();
    let n = accepted.len();
    let offsets: Vec<u64> = block_on(join_all(accepted)).into_iter().map(|a| offset(&a.unwrap())).collect();
    assert_eq!(offsets, (1..=n as u64).collect::<Vec<_>>());
    let envelopes = folder.envelopes();
    assert!(envelopes.iter().enumerate().all(|(i, e)| *e == format!("{{\"e\":\"record {i}\"}}")));
    publish(&publisher, n + 1, 1);
}

#[test]
fn a_full_disk_fails_the_group_without_effect_and_the_next_append_takes_its_offset() {
    for short in [1, 2, 40, 150] {
        let folder = Folder::with_topic(1);
        let disk = FaultyDisk::default();
        let publisher = FileBus::open_on(folder.config(), Arc::new(disk.clone())).unwrap().publisher();
        publish(&publisher, 0, 3);
        let before = folder.log();

        disk.faults.full_after.store(short, Ordering::SeqCst);
        let batch = vec![record("a", "x"), record("b", "y"), record("a", "z")];
        let answers = block_on(publisher.publish_batch(&topic(), batch));
        let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap_err().kind().clone()).collect();
        assert_eq!(kinds, [ErrorKind::StorageFull, ErrorKind::StorageFull, ErrorKind::NotAttempted]);
        assert!(answers.iter().all(|a| a.as_ref().unwrap_err().effect() == Effect::None));
        assert_eq!(folder.log(), before, "short after {short}");

        disk.faults.full_after.store(0, Ordering::SeqCst);
        assert_eq!(offset(&publish(&publisher, 3, 1)[0]), 3);
        assert_eq!(folder.lines().len(), 4);
        block_on(publisher.close()).unwrap();
        assert!(recover(&folder).unwrap().clean);
    }
}

#[test]
fn records_queued_behind_a_failed_group_are_not_attempted() {
    let folder = Folder::with_topic(1);
    let disk = FaultyDisk::default();
    let publisher = FileBus::open_on(folder.config(), Arc::new(disk.clone())).unwrap().publisher();
    publish(&publisher, 0, 1);
    disk.faults.hold_syncs();
    let first = publisher.publish(&topic(), record("k", "in flight"));
    // Its group is on its way once the queue is empty again; only then the others queue up behind it.
    while folder.log().split(|b| *b == b'\n').count() < 3 {
        std::thread::yield_now();
    }
    let behind: Vec<_> = (0..3).map(|i| publisher.publish(&topic(), record("k", &format!("{i}")))).collect();
    disk.faults.sync_fails.store(true, Ordering::SeqCst);
    disk.faults.release_syncs();
    let first = block_on(first).unwrap_err();
    assert_eq!((first.kind(), first.effect()), (&ErrorKind::Poisoned, Effect::Unknown));
    for answer in block_on(join_all(behind)) {
        let e = answer.unwrap_err();
        assert_eq!((e.kind(), e.effect()), (&ErrorKind::NotAttempted, Effect::None), "{e}");
    }
}

#[test]
fn a_failed_sync_poisons_the_partition_until_it_is_reopened() {
    let folder = Folder::with_topic(1);
    let disk = FaultyDisk::default();
    let bus = FileBus::open_on(folder.config(), Arc::new(disk.clone())).unwrap();
    let publisher = bus.publisher();
    publish(&publisher, 0, 2);
    disk.faults.sync_fails.store(true, Ordering::SeqCst);
    let e = publisher.publish_blocking(&topic(), record("k", "unknown")).unwrap_err();
    assert_eq!(
        (e.kind(), e.effect(), e.retry()),
        (&ErrorKind::Poisoned, Effect::Unknown, Retry::AfterReopen)
    );
    disk.faults.sync_fails.store(false, Ordering::SeqCst);
    let e = publisher.publish_blocking(&topic(), record("k", "refused")).unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Poisoned, Effect::None));
    assert_eq!(*block_on(publisher.probe(&topic())).unwrap_err().kind(), ErrorKind::Poisoned);
    let _ = block_on(publisher.close());

    let again = bus.publisher();
    let report = block_on(again.recover(&topic())).unwrap().remove(0);
    assert_eq!(report.records, 3, "the record of unknown outcome was whole, so it is kept");
    assert!(report.rewritten_bytes > 0, "what nothing proves is written again");
    assert_eq!(offset(&publish(&again, 3, 1)[0]), 3);
    assert_eq!(folder.lines().len(), 4);
}

#[test]
fn a_failed_write_that_cannot_be_undone_poisons() {
    let folder = Folder::with_topic(1);
    let disk = FaultyDisk::default();
    let bus = FileBus::open_on(folder.config(), Arc::new(disk.clone())).unwrap();
    let publisher = bus.publisher();
    publish(&publisher, 0, 1);
    disk.faults.cut_fails.store(true, Ordering::SeqCst);
    disk.faults.full_after.store(30, Ordering::SeqCst);
    let e = publisher.publish_blocking(&topic(), record("k", "torn")).unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Poisoned, Effect::Unknown));
    disk.faults.cut_fails.store(false, Ordering::SeqCst);
    disk.faults.full_after.store(0, Ordering::SeqCst);
    let _ = block_on(publisher.close());
    assert_eq!(offset(&publish(&bus.publisher(), 1, 1)[0]), 1);
    assert_eq!(folder.lines().len(), 2);
    assert_eq!(folder.torn().len(), 1);
}

#[test]
fn close_finishes_what_was_called_and_refuses_what_comes_after() {
    let folder = Folder::with_topic(2);
    let bus = folder.open();
    let publisher = bus.publisher();
    let same = bus.publisher();
    let pending: Vec<_> =
        (0..100).map(|i| publisher.publish(&topic(), record(&format!("{i}"), &format!("{i}")))).collect();
    block_on(publisher.close()).unwrap();
    assert!(block_on(join_all(pending)).iter().all(Result::is_ok));
    for closed in [&publisher, &same] {
        let e = block_on(closed.publish(&topic(), record("k", "late"))).unwrap_err();
        assert_eq!((e.kind(), e.effect()), (&ErrorKind::Closed, Effect::None));
        let answers = block_on(closed.publish_batch(&topic(), vec![record("k", "late")]));
        assert_eq!(*answers[0].as_ref().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(*block_on(closed.probe(&topic())).unwrap_err().kind(), ErrorKind::Closed);
        block_on(closed.close()).unwrap();
    }
    let reports = block_on(bus.publisher().recover(&topic())).unwrap();
    assert!(reports.iter().all(|r| r.clean));
    assert_eq!(reports.iter().map(|r| r.records).sum::<u64>(), 100);
}

#[test]
fn a_publisher_that_is_dropped_gives_its_partitions_to_the_next() {
    let folder = Folder::with_topic(1);
    for round in 0..20 {
        let publisher = folder.open().publisher();
        drop(publisher.publish(&topic(), record("key", &format!("record {}", 2 * round))));
        assert_eq!(offset(&publish(&publisher, 2 * round + 1, 1)[0]), 2 * round as u64 + 1);
        drop(publisher.publish_batch(&topic(), Vec::new()));
    }
    let envelopes = folder.envelopes();
    assert!(envelopes.iter().enumerate().all(|(i, e)| *e == format!("{{\"e\":\"record {i}\"}}")));
}

#[test]
fn a_second_writer_is_refused_with_the_holders_name() {
    let folder = Folder::with_topic(1);
    let holder = folder.open().publisher();
    publish(&holder, 0, 1);
    let second = folder.open().publisher();
    let e = second.publish_blocking(&topic(), record("k", "x")).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Locked { .. }), "{e}");
    assert!(e.to_string().contains(&format!("pid {}", std::process::id())), "{e}");
    assert_eq!(e.effect(), Effect::None);
    block_on(holder.close()).unwrap();
    assert_eq!(offset(&publish(&second, 1, 1)[0]), 1, "the second may go on once the first is gone");
    assert_eq!(folder.lines().len(), 2);
}

#[test]
fn concurrent_publishers_on_a_runtime_commit_inline_and_by_thread_without_a_gap() {
    let folder = Folder::with_topic(1);
    let mut config = folder.config();
    config.inline_commit = Some(InlineCommit::new(|work| tokio::task::block_in_place(work)));
    let publisher = FileBus::open(config).unwrap().publisher();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut offsets: Vec<u64> = runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let publisher = publisher.clone();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    for i in 0..40 + task * 10 {
                        let eb_ref =
                            publisher.publish(&topic(), record("k", &format!("{task}/{i}"))).await.unwrap();
                        mine.push(offset(&eb_ref));
                    }
                    assert!(mine.windows(2).all(|w| w[0] < w[1]));
                    mine
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    offsets.sort_unstable();
    assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>());
    assert_eq!(folder.lines().len(), offsets.len());
}
