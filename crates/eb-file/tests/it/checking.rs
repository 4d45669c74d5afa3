//! Verify and repair.

use eb_contract::digest::{KeySequenceDigest, PartitionDigest};
use eb_contract::{ErrorKind, EventBusPublisher, EventBusReaderExt, PartitionId, StartAt, Timestamp, Topic};
use eb_file::format::line::{LineParts, encode_line};
use eb_file::verify::{Acked, Finding, FindingKind, Repair, Report, Scope, Severity, repair, verify};

use crate::common::{Folder, block_on, publish, record, recover, topic};

fn check(folder: &Folder) -> Report {
    let scope = Scope { key_sequences: true, ..Scope::default() };
    verify(&folder.root(), &scope, &mut |_| {}).unwrap()
}

fn findings(report: &Report) -> Vec<&Finding> {
    report.findings().map(|(_, finding)| finding).collect()
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    findings(report).iter().map(|f| f.kind).collect()
}

/// A closed log of `n` records, and the ends of its lines.
fn closed(n: usize) -> (Folder, Vec<usize>) {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    publish(&publisher, 0, n);
    block_on(publisher.close()).unwrap();
    let ends = memchr::memchr_iter(b'\n', &folder.log()).map(|at| at + 1).collect();
    (folder, ends)
}

/// As [`closed`], but killed, with a watermark below the last two records.
fn killed() -> (Folder, Vec<usize>) {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    publish(&publisher, 0, 3);
    let sidecar = folder.sidecar();
    publish(&publisher, 3, 2);
    let image = folder.image();
    image.write_sidecar(&sidecar);
    block_on(publisher.close()).unwrap();
    let ends = memchr::memchr_iter(b'\n', &image.log()).map(|at| at + 1).collect();
    (image, ends)
}

#[test]
fn a_sound_bus_has_no_findings_and_the_digests_of_what_is_read() {
    let folder = Folder::with_topic(3);
    let bus = folder.open();
    let publisher = bus.publisher();
    for i in 0..50 {
        let fact = record(&format!("key {}", i % 7), &format!("record {}", i % 40));
        block_on(publisher.publish(&topic(), fact)).unwrap();
    }
    block_on(publisher.close()).unwrap();
    let mut seen = 0;
    let scope = Scope { key_sequences: true, ..Scope::default() };
    let report = verify(&folder.root(), &scope, &mut |p| seen = seen.max(p.records)).unwrap();
    assert_eq!((report.worst(), report.repairs().count()), (None, 0), "{report:?}");
    assert!(seen > 0);
    let mut keys = KeySequenceDigest::default();
    for partition in &report.topics[0].partitions {
        let records =
            block_on(bus.reader().read_to_head(&topic(), partition.partition_id, StartAt::Earliest)).unwrap();
        let mut digest = PartitionDigest::default();
        for record in &records {
            digest.add(record);
            keys.add(record);
        }
        assert_eq!((partition.digest, partition.records), (Some(digest.finish()), records.len() as u64));
    }
    let sequences = report.topics[0].key_sequences.unwrap();
    assert_eq!((sequences.digest, sequences.keys), (keys.finish(), 7));
    assert!(serde_json::to_string(&report).unwrap().contains(&sequences.digest.to_string()));
}

#[test]
fn a_flipped_bit_in_any_synced_byte_is_named_and_never_repaired() {
    let (folder, ends) = closed(4);
    let log = folder.log();
    for byte in 0..log.len() {
        let mut bad = log.clone();
        bad[byte] ^= 1 << (byte * 5 % 8);
        folder.write_log(&bad);
        let report = check(&folder);
        let line = ends.iter().filter(|end| **end <= byte).count();
        let start = if line == 0 { 0 } else { ends[line - 1] };
        let first = findings(&report)[0].clone();
        assert_eq!(
            (first.kind, first.severity, first.acked, first.line, first.byte),
            (
                FindingKind::DamagedRecord,
                Severity::Facts,
                Acked::Yes,
                Some(line as u64 + 1),
                Some(start as u64)
            ),
            "byte {byte}: {first}"
        );
        let partition = &report.topics[0].partitions[0];
        assert_eq!((report.facts_are_whole(), partition.digest, report.repairs().count()), (false, None, 0));
        assert!(repair(&report).unwrap().is_empty());
        assert_eq!(folder.log(), bad);
    }
}

#[test]
fn every_damaged_record_is_listed() {
    let (folder, ends) = closed(6);
    let mut log = folder.log();
    for line in [1, 3] {
        log[ends[line] - 3] ^= 1;
    }
    folder.write_log(&log);
    let report = check(&folder);
    let lines: Vec<_> = findings(&report).iter().map(|f| f.line).collect();
    assert_eq!(lines, [Some(2), Some(4)]);
    assert_eq!(report.topics[0].partitions[0].records, 4);

    let whole: Vec<u8> = [&log[..ends[1]], &log[ends[2]..]].concat();
    let (folder, _) = closed(6);
    let good = folder.log();
    folder.write_log(&[&good[..ends[1]], &good[ends[3]..]].concat());
    let report = check(&folder);
    assert!(findings(&report)[0].message.contains("records 2 to 3 are missing"), "{report:?}");
    assert!(whole.len() < good.len());
}

#[test]
fn a_log_cut_below_its_watermark_lacks_facts() {
    let (folder, ends) = closed(5);
    let log = folder.log();
    for len in ends[2]..log.len() {
        folder.write_log(&log[..len]);
        let report = check(&folder);
        let missing = findings(&report).into_iter().find(|f| f.kind == FindingKind::MissingRecords);
        let kept = ends.iter().filter(|end| **end <= len).count();
        if ends.contains(&len) {
            let expected = format!("records {kept} to 4 were synced and are missing");
            assert!(missing.unwrap().message.contains(&expected), "cut at {len}: {report:?}");
        }
        assert!(!report.facts_are_whole(), "cut at {len}: {report:?}");
        assert_eq!(report.repairs().count(), 0);
        assert!(recover(&folder).is_err(), "and a writer refuses it");
    }
    std::fs::remove_file(folder.file("partition=0.jsonl")).unwrap();
    assert_eq!(kinds(&check(&folder)), [FindingKind::MissingRecords]);
}

#[test]
fn a_torn_tail_is_shown_and_set_aside_exactly_as_shown() {
    let (folder, ends) = killed();
    let log = folder.log();
    for len in (ends[2] + 1..log.len()).step_by(7) {
        let image = folder.image();
        image.write_log(&log[..len]);
        let report = check(&image);
        assert!(report.facts_are_whole());
        let kept = *ends.iter().rfind(|end| **end <= len).unwrap();
        let torn = len - kept;
        let Some(Repair::Recover { set_aside_from_byte, set_aside_bytes, rewrite_bytes, .. }) =
            report.repairs().next().cloned()
        else {
            panic!("cut at {len}: {report:?}")
        };
        assert_eq!(set_aside_from_byte, (torn > 0).then_some(kept as u64));
        assert_eq!(set_aside_bytes, torn as u64);
        // The record at 3 was a group of its own, proven by 4 alone.
        let proven = if kept > ends[3] { ends[3] } else { ends[2] };
        assert_eq!(rewrite_bytes, (kept - proven) as u64, "cut at {len}");
        assert_eq!(image.log(), log[..len], "a check changes nothing");

        let digest = report.topics[0].partitions[0].digest;
        let done = repair(&report).unwrap();
        let recovery = done[0].recovery.as_ref().unwrap();
        assert_eq!(recovery.torn.as_ref().map_or(0, |t| t.bytes), set_aside_bytes);
        assert_eq!(recovery.rewritten_bytes, rewrite_bytes);
        assert_eq!(image.log(), log[..kept]);
        let after = check(&image);
        assert_eq!(after.repairs().count(), 0, "{after:?}");
        assert_eq!(after.topics[0].partitions[0].digest, digest);
        if torn > 0 {
            assert_eq!(image.torn(), [log[kept..len].to_vec()]);
            assert_eq!(kinds(&after), [FindingKind::SetAside]);
        }
    }
}

#[test]
fn every_wrong_index_entry_is_found_and_made_anew() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let text = "x".repeat(9_000);
    for i in 0..60 {
        block_on(publisher.publish(&topic(), record("key", &format!("{i} {text}")))).unwrap();
    }
    block_on(publisher.close()).unwrap();
    let good = folder.sidecar();
    let entries = (good.len() - 512) / 32;
    assert!(entries >= 4);
    for slot in 0..entries {
        let mut bad = good.clone();
        bad[512 + slot * 32 + 3] ^= 1;
        folder.write_sidecar(&bad);
        let report = check(&folder);
        assert_eq!(
            (kinds(&report), report.worst()),
            (vec![FindingKind::IndexWrong], Some(Severity::Derived))
        );
        repair(&report).unwrap();
        assert_eq!(folder.sidecar()[512..], good[512..], "slot {slot}");
        assert_eq!(check(&folder).worst(), None);
    }
    for (sidecar, kind) in [
        (good[..good.len() - 5].to_vec(), FindingKind::IndexWrong),
        (good[..300].to_vec(), FindingKind::SidecarDamaged),
    ] {
        folder.write_sidecar(&sidecar);
        let report = check(&folder);
        assert!(kinds(&report).contains(&kind), "{report:?}");
        repair(&report).unwrap();
        assert_eq!(check(&folder).worst(), None);
    }
    std::fs::remove_file(folder.file("partition=0.idx")).unwrap();
    let report = check(&folder);
    assert!(kinds(&report).contains(&FindingKind::SidecarMissing));
    repair(&report).unwrap();
    assert_eq!(check(&folder).worst(), None);
}

#[test]
fn beside_a_writer_the_check_ends_at_its_watermark_and_a_repair_is_refused() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    publish(&publisher, 0, 5);
    let report = check(&folder);
    let partition = &report.topics[0].partitions[0];
    assert!(partition.being_written && partition.records >= 4);
    assert_eq!((report.worst(), report.repairs().count()), (None, 0));

    let (torn, ends) = killed();
    torn.write_log(&torn.log()[..ends[4] - 3]);
    let shown = check(&torn);
    let other = torn.open().publisher();
    block_on(other.recover(&topic())).unwrap();
    let refused = repair(&shown).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Locked { holder } if holder.contains("pid")), "{refused}");
    block_on(other.close()).unwrap();
    let changed = repair(&shown).unwrap_err();
    assert_eq!(*changed.kind(), ErrorKind::Unavailable, "{changed}");
    block_on(publisher.close()).unwrap();
}

#[test]
fn blank_lines_and_lines_between_records_are_told_apart() {
    let (folder, ends) = closed(3);
    let log = folder.log();
    folder.write_log(&[&log[..], b"\n\n\n"].concat());
    let report = check(&folder);
    assert_eq!(kinds(&report), [FindingKind::Padding]);
    assert_eq!(findings(&report)[0].byte, Some(log.len() as u64));
    repair(&report).unwrap();
    assert_eq!(folder.log(), log);

    folder.write_log(&[&log[..ends[0]], b"\n", &log[ends[0]..]].concat());
    let report = check(&folder);
    assert_eq!((findings(&report)[0].kind, findings(&report)[0].line), (FindingKind::DamagedRecord, Some(2)));
    assert!(recover(&folder).is_err());
}

#[test]
fn a_record_published_before_the_one_in_front_of_it_is_reported() {
    let folder = Folder::with_topic(1);
    let mut log = Vec::new();
    for (offset, micros) in [(0, 5_000_000), (1, 4_000_000)] {
        let published_at = &Timestamp::from_micros(micros).unwrap().to_text();
        let parts = LineParts { offset, durable: offset, published_at, key: "k", envelope: b"{}" };
        encode_line(&mut log, &parts);
    }
    folder.write_log(&log);
    let report = check(&folder);
    let falls = findings(&report).into_iter().find(|f| f.kind == FindingKind::TimeFalls).unwrap();
    assert_eq!(falls.line, Some(2));
}

#[test]
fn what_crashes_leave_beside_the_logs_is_listed_and_cleared() {
    let (folder, _) = closed(2);
    let unfinished = Topic::new("half-made").unwrap();
    let dir = folder.root().join(unfinished.as_str());
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("partition=0.jsonl"), b"").unwrap();
    let planned = std::fs::read_to_string(folder.file("topic.json")).unwrap();
    std::fs::write(dir.join("topic.json.tmp"), planned.replace(topic().as_str(), "half-made")).unwrap();
    std::fs::write(folder.root().join("bus.json.tmp"), b"{").unwrap();
    std::fs::write(folder.file("topic.json.tmp"), b"{").unwrap();
    std::fs::write(folder.file("partition=0.torn-tmp"), b"{").unwrap();
    std::fs::create_dir(folder.root().join("unrelated")).unwrap();
    let report = check(&folder);
    let mut found = kinds(&report);
    found.sort_by_key(|kind| format!("{kind:?}"));
    use FindingKind::{TemporaryFile, UnfinishedTopic};
    assert_eq!(found, [TemporaryFile, TemporaryFile, TemporaryFile, UnfinishedTopic], "{report:?}");
    assert!(report.repairs().all(|r| !r.to_string().is_empty()));
    assert_eq!(repair(&report).unwrap().len(), 4);
    let after = check(&folder);
    assert_eq!((after.worst(), after.topics.len()), (None, 2));
}

#[test]
fn a_topic_that_cannot_be_used_does_not_hide_the_others() {
    let (folder, _) = closed(2);
    let other = Topic::new("other").unwrap();
    folder.open().create_topic(&other, 1).unwrap();
    std::fs::write(folder.root().join("other/partition=7.jsonl"), b"").unwrap();
    let report = check(&folder);
    assert_eq!(kinds(&report), [FindingKind::UnusableTopic]);
    assert!(findings(&report)[0].message.contains("partition=7.jsonl"));
    assert_eq!(report.topics.len(), 1);

    let only = |topic: Option<Topic>, partition| {
        let scope = Scope { topic, partition, key_sequences: false };
        verify(&folder.root(), &scope, &mut |_| {})
    };
    assert!(only(Some(topic()), Some(PartitionId(0))).unwrap().worst().is_none());
    assert_eq!(*only(Some(topic()), Some(PartitionId(1))).unwrap_err().kind(), ErrorKind::NotFound);
    let unknown = Topic::new("unknown").unwrap();
    assert_eq!(*only(Some(unknown), None).unwrap_err().kind(), ErrorKind::NotFound);
}
