//! Reading: cuts, limits, look-ups, damage in the way, and how far a reader may see.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use eb_contract::{
    Cursor, Cut, EnvelopeLimits, EnvelopeRef, Error, ErrorKind, EventBusPublisher, EventBusReader,
    EventBusReaderExt, Offset, OffsetKind, PartitionId, PartitionKey, PublishRecord, ReadLimit, ReadState,
    Record, Result, Retry, StartAt, Timestamp,
};
use eb_file::disk::{DirEntry, Disk, DiskFile, DiskLock, FileIdentity, OpenMode, RealDisk};
use eb_file::format::line::decode_line;
use eb_file::{FileBus, FileReader};
use proptest::prelude::*;

use crate::common::{Folder, block_on, publish, record, topic};

const P0: PartitionId = PartitionId(0);

fn next(n: u64) -> StartAt {
    StartAt::Cut(Cut::Next(Offset::from_u64(OffsetKind::FileLine, n)))
}

fn cursor(reader: &FileReader, start: StartAt) -> Box<dyn Cursor> {
    block_on(reader.cursor(&topic(), P0, start)).unwrap()
}

fn all(reader: &FileReader, start: StartAt) -> Result<Vec<Record>> {
    block_on(reader.read_to_head(&topic(), P0, start))
}

fn offsets(records: &[Record]) -> Vec<u64> {
    records.iter().map(|r| r.eb_ref.offset.as_u64().unwrap()).collect()
}

/// Everything up to the first error, and that error.
fn until_error(reader: &FileReader, start: StartAt) -> (Vec<Record>, Option<Error>) {
    let mut records = Vec::new();
    let mut cursor = match block_on(reader.cursor(&topic(), P0, start)) {
        Ok(cursor) => cursor,
        Err(e) => return (records, Some(e)),
    };
    loop {
        match block_on(cursor.next(ReadLimit::default())) {
            Ok(batch) => {
                records.extend(batch.records);
                if batch.state == ReadState::CaughtUp {
                    return (records, None);
                }
            }
            Err(e) => return (records, Some(e)),
        }
    }
}

/// A folder with a closed log of records of these sizes; keys need escapes now and then.
fn folder_with(sizes: &[usize]) -> (Folder, Vec<(String, String)>) {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let keys = ["plain", "tab\tand \"quotes\"", "ünï", "a-rather-long-key-of-more-than-sixteen-bytes"];
    let facts: Vec<(String, String)> = sizes
        .iter()
        .enumerate()
        .map(|(i, size)| {
            (keys[i % keys.len()].to_owned(), format!("{{\"n\":{i},\"x\":\"{}\"}}", "x".repeat(*size)))
        })
        .collect();
    let batch = facts
        .iter()
        .map(|(key, envelope)| {
            let envelope = EnvelopeRef::with_limits(
                envelope.clone(),
                EnvelopeLimits { max_bytes: 1 << 24, ..EnvelopeLimits::default() },
            );
            PublishRecord::new(PartitionKey::new(key.clone()).unwrap(), envelope.unwrap())
        })
        .collect();
    block_on(publisher.publish_batch(&topic(), batch)).into_iter().for_each(|r| _ = r.unwrap());
    block_on(publisher.close()).unwrap();
    (folder, facts)
}

fn assert_facts(records: &[Record], facts: &[(String, String)], from: usize) {
    assert_eq!(records.len(), facts.len().saturating_sub(from));
    for (record, (key, envelope)) in records.iter().zip(facts.iter().skip(from)) {
        assert_eq!(record.partition_key.as_str(), key);
        assert_eq!(record.envelope.as_bytes(), envelope.as_bytes());
    }
}

/// The real disk without its shortcut for what is in memory: every read goes to an I/O thread.
#[derive(Debug, Clone, Copy)]
struct SlowDisk;

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>);

impl Disk for SlowDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(RealDisk.open(path, mode)?)))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.try_lock(path)
    }
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        // Short reads, as a disk may give them.
        let len = buf.len().min(70_000);
        self.0.read_at(&mut buf[..len], position)
    }
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.0.write_at(buf, position)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(position, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn identity(&self) -> io::Result<Option<FileIdentity>> {
        self.0.identity()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn from_any_cut_with_any_limits_the_batches_join_to_the_log(
        sizes in proptest::collection::vec(prop_oneof![0usize..300, 20_000usize..120_000], 0..40),
        start in 0usize..42,
        limits in proptest::collection::vec((0usize..12, 0usize..200_000), 1..6),
        slow: bool,
    ) {
        let (folder, facts) = folder_with(&sizes);
        let bus = if slow {
            FileBus::open_on(folder.config(), Arc::new(SlowDisk)).unwrap()
        } else {
            folder.open()
        };
        let mut cursor = cursor(&bus.reader(), next(start as u64));
        let mut records = Vec::new();
        for (max_records, max_bytes) in limits.into_iter().cycle() {
            let limit = ReadLimit { max_records, max_bytes, wait: Duration::ZERO };
            let batch = block_on(cursor.next(limit)).unwrap();
            prop_assert!(batch.records.len() <= max_records.max(1));
            let bytes: usize = batch.records.iter().map(|r| r.envelope.len()).sum();
            prop_assert!(bytes <= max_bytes || batch.records.len() == 1);
            records.extend(batch.records);
            let at = (start + records.len()) as u64;
            prop_assert_eq!(batch.next, Cut::Next(Offset::from_u64(OffsetKind::FileLine, at)));
            prop_assert_eq!(cursor.position(), batch.next);
            if batch.state == ReadState::CaughtUp {
                break;
            }
        }
        assert_facts(&records, &facts, start);
        prop_assert_eq!(offsets(&records), (start as u64..facts.len() as u64).collect::<Vec<_>>());
    }
}

/// More than a dozen index entries, lines of very different lengths.
fn indexed() -> (Folder, Vec<(String, String)>) {
    let sizes: Vec<usize> = (0..900).map(|i| if i % 97 == 0 { 70_000 + i } else { i % 800 }).collect();
    folder_with(&sizes)
}

fn look_up_everything(folder: &Folder, facts: &[(String, String)]) {
    let reader = folder.open().reader();
    let lines = folder.log();
    let times: Vec<Timestamp> = lines
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| decode_line(l).unwrap().published_at)
        .collect();
    for at in (0..facts.len()).step_by(7) {
        let batch = block_on(reader.read(&topic(), P0, next(at as u64), 2)).unwrap();
        assert_eq!(batch.records[0].envelope.as_bytes(), facts[at].1.as_bytes(), "record {at}");
        let first = times.partition_point(|t| *t < times[at]);
        let batch = block_on(reader.read(&topic(), P0, StartAt::Timestamp(times[at]), 1)).unwrap();
        assert_eq!(offsets(&batch.records), [first as u64], "time of record {at}");
    }
    let after = StartAt::Timestamp(times[times.len() - 1].saturating_add(Duration::from_micros(1)));
    assert!(all(&reader, after).unwrap().is_empty());
    assert_eq!(all(&reader, StartAt::Timestamp(Timestamp::EPOCH)).unwrap().len(), facts.len());
}

#[test]
fn the_index_finds_what_a_scan_finds() {
    let (folder, facts) = indexed();
    assert!(folder.sidecar().len() > 512 + 12 * 32, "an index worth the name");
    look_up_everything(&folder, &facts);
}

#[test]
fn a_missing_damaged_or_foreign_index_costs_time_and_never_an_answer() {
    let (folder, facts) = indexed();
    let good = folder.sidecar();
    let entries = (good.len() - 512) / 32;
    let mut cases: Vec<Vec<u8>> = vec![Vec::new(), vec![0; 40], good[..512 + 32].to_vec()];
    for slot in [0, entries / 2, entries - 1] {
        let mut damaged = good.clone();
        damaged[512 + slot * 32 + 9] ^= 4;
        cases.push(damaged);
    }
    // Entries with right checksums in the wrong log: those of a log with other lines.
    let (other, _) = folder_with(&[500; 2000]);
    let mut foreign = good[..512].to_vec();
    foreign.extend_from_slice(&other.sidecar()[512..512 + entries * 32]);
    cases.push(foreign);
    for sidecar in cases {
        folder.write_sidecar(&sidecar);
        look_up_everything(&folder, &facts);
    }
    std::fs::remove_file(folder.file("partition=0.idx")).unwrap();
    look_up_everything(&folder, &facts);
}

#[test]
fn a_record_larger_than_any_block_comes_whole_however_small_the_limit() {
    let (folder, facts) = folder_with(&[10, 900_000, 10]);
    let mut cursor = cursor(&folder.open().reader(), StartAt::Earliest);
    let mut records = Vec::new();
    for _ in 0..3 {
        let limit = ReadLimit { max_records: 10, max_bytes: 1, wait: Duration::ZERO };
        let batch = block_on(cursor.next(limit)).unwrap();
        assert_eq!(batch.records.len(), 1);
        records.extend(batch.records);
    }
    assert_facts(&records, &facts, 0);
}

#[test]
fn a_dropped_read_skips_nothing_and_brings_nothing_twice() {
    let (folder, facts) = folder_with(&[30_000; 60]);
    let reader = FileBus::open_on(folder.config(), Arc::new(SlowDisk)).unwrap().reader();
    let mut cursor = cursor(&reader, StartAt::Earliest);
    let mut records = Vec::new();
    let mut dropped = 0;
    while records.len() < facts.len() {
        let position = cursor.position();
        let mut read = cursor.next(ReadLimit { max_records: 7, max_bytes: 1 << 20, wait: Duration::ZERO });
        if let std::task::Poll::Ready(batch) = read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            records.extend(batch.unwrap().records);
        } else {
            drop(read);
            dropped += 1;
            assert_eq!(cursor.position(), position);
            let fewer = block_on(cursor.next(ReadLimit::records(2))).unwrap();
            assert!(fewer.records.len() <= 2);
            records.extend(fewer.records);
        }
    }
    assert!(dropped > 0);
    assert_facts(&records, &facts, 0);
}

#[test]
fn a_reader_waits_at_the_head_and_past_it_until_its_record_is_synced() {
    let folder = Folder::with_topic(1);
    let bus = folder.open();
    let publisher = bus.publisher();
    publish(&publisher, 0, 3);
    let elsewhere = folder.open();
    for reader in [bus.reader(), elsewhere.reader()] {
        let head = block_on(reader.head(&topic(), P0)).unwrap().last.unwrap().as_u64().unwrap();
        let (at_head, past) = (StartAt::Latest, next(head + 3));
        let wait = ReadLimit::default().waiting(Duration::from_secs(60));
        let follow = |start, from| {
            let mut cursor = cursor(&reader, start);
            std::thread::spawn(move || {
                let batch = block_on(cursor.next(wait)).unwrap();
                assert_eq!(offsets(&batch.records)[0], from);
                let rest = block_on(cursor.next(wait.waiting(Duration::ZERO))).unwrap();
                batch.records.len() + rest.records.len()
            })
        };
        let followers = [follow(at_head, head + 1), follow(past, head + 3)];
        publish(&publisher, head as usize + 1, 4);
        for follower in followers {
            assert!(follower.join().unwrap() >= 1);
        }
    }
    block_on(publisher.close()).unwrap();
}

#[test]
fn a_wait_ends_when_its_time_is_over_and_when_the_reader_is_closed() {
    let folder = Folder::with_topic(1);
    let reader = folder.open().reader();
    let mut short = cursor(&reader, StartAt::Latest);
    let batch = block_on(short.next(ReadLimit::default().waiting(Duration::from_millis(3)))).unwrap();
    assert_eq!((batch.records.len(), batch.state), (0, ReadState::CaughtUp));
    let mut long = cursor(&reader, StartAt::Earliest);
    let waiting =
        std::thread::spawn(move || block_on(long.next(ReadLimit::default().waiting(Duration::MAX))));
    block_on(reader.close()).unwrap();
    assert_eq!(*waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(*block_on(short.next(ReadLimit::default())).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(*block_on(reader.head(&topic(), P0)).unwrap_err().kind(), ErrorKind::Closed);
    block_on(reader.close()).unwrap();
}

#[test]
fn what_a_writer_has_not_synced_is_not_shown() {
    let folder = Folder::with_topic(1);
    let faults = crate::common::FaultyDisk::default();
    let bus = FileBus::open_on(folder.config(), Arc::new(faults.clone())).unwrap();
    let publisher = bus.publisher();
    publish(&publisher, 0, 2);
    faults.faults.hold_syncs();
    let pending = publisher.publish(&topic(), record("key", "in flight"));
    while folder.log().iter().filter(|b| **b == b'\n').count() < 3 {
        std::thread::yield_now();
    }
    for reader in [bus.reader(), folder.open().reader()] {
        assert_eq!(offsets(&all(&reader, StartAt::Earliest).unwrap()), [0, 1]);
        assert_eq!(block_on(reader.head(&topic(), P0)).unwrap().last.unwrap().as_u64(), Some(1));
    }
    faults.faults.release_syncs();
    block_on(pending).unwrap();
    assert_eq!(offsets(&all(&bus.reader(), StartAt::Earliest).unwrap()), [0, 1, 2]);
    block_on(publisher.close()).unwrap();
}

#[test]
fn padding_is_never_shown_to_another_process_nor_cut_by_it_while_a_writer_lives_and_after_it_died() {
    let folder = Folder::with_topic(1);
    let mut config = folder.config();
    config.preallocate_bytes = 2_000;
    let bus = FileBus::open(config).unwrap();
    let publisher = bus.publisher();
    let outside = folder.open().reader();
    let mut following = cursor(&outside, StartAt::Earliest);
    for round in 0..12 {
        let head = round * 3;
        publish(&publisher, head, 3);
        assert!(folder.log().ends_with(b"\n\n\n"), "the log is longer than its records");
        let mut came = Vec::new();
        while came.len() < 3 {
            came.extend(
                block_on(following.next(ReadLimit::default().waiting(Duration::from_secs(10))))
                    .unwrap()
                    .records,
            );
        }
        assert_eq!(offsets(&came), [head, head + 1, head + 2].map(|n| n as u64));
        let rest = block_on(following.next(ReadLimit::default())).unwrap();
        assert!(rest.records.is_empty() && rest.state == ReadState::CaughtUp);
        assert_eq!(
            block_on(outside.head(&topic(), P0)).unwrap().last.unwrap().as_u64(),
            Some(head as u64 + 2)
        );
    }

    let dead = folder.image();
    let log = dead.log();
    let fresh = dead.open().reader();
    assert_eq!(offsets(&all(&fresh, StartAt::Earliest).unwrap()), (0..36).collect::<Vec<_>>());
    assert_eq!(offsets(&all(&fresh, next(35)).unwrap()), [35]);
    assert!(all(&fresh, next(36)).unwrap().is_empty());
    assert!(dead.log() == log, "what is left of a writer is the next writer's to cut");
    block_on(publisher.close()).unwrap();
    assert!(folder.log().ends_with(b"}\n"));
    assert_eq!(block_on(outside.head(&topic(), P0)).unwrap().last.unwrap().as_u64(), Some(35));
}

/// A log whose last records lie above the watermark, as a writer leaves it that dies between sync and sidecar.
fn dead_writers(above: usize) -> Folder {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    publish(&publisher, 0, 3);
    let sidecar = folder.sidecar();
    publish(&publisher, 3, above);
    let image = folder.image();
    image.write_sidecar(&sidecar);
    block_on(publisher.close()).unwrap();
    image
}

#[test]
fn a_dead_writers_last_lines_are_shown_once_they_are_durable_and_stay() {
    let folder = dead_writers(2);
    let (log, sidecar) = (folder.log(), folder.sidecar());
    let reader = folder.open().reader();
    assert_eq!(offsets(&all(&reader, StartAt::Earliest).unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!((folder.log(), folder.sidecar()), (log, sidecar), "reading changes nothing");
    let report = crate::common::recover(&folder).unwrap();
    assert_eq!(report.records, 5);
}

#[test]
fn a_dead_writers_torn_line_is_not_shown_and_not_touched() {
    let folder = dead_writers(2);
    let log = folder.log();
    folder.write_log(&log[..log.len() - 5]);
    let reader = folder.open().reader();
    assert_eq!(offsets(&all(&reader, StartAt::Earliest).unwrap()), [0, 1, 2, 3]);
    assert_eq!(folder.log().len(), log.len() - 5);
    assert!(folder.torn().is_empty());
    let report = crate::common::recover(&folder).unwrap();
    assert_eq!((report.records, report.torn.is_some()), (4, true));
}

#[test]
fn where_nobody_may_write_only_what_proves_itself_is_shown() {
    let folder = dead_writers(2);
    let reader = FileBus::open_on(folder.config(), Arc::new(ReadOnly)).unwrap().reader();
    // Each of the two was a group of its own: the second proves the first.
    assert_eq!(offsets(&all(&reader, StartAt::Earliest).unwrap()), [0, 1, 2, 3]);
}

/// The real disk, mounted for reading only.
#[derive(Debug)]
struct ReadOnly;

impl Disk for ReadOnly {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::Read => RealDisk.open(path, mode),
            _ => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn try_lock(&self, _: &Path) -> io::Result<Box<dyn DiskLock>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[test]
fn a_log_that_shrank_or_vanished_is_an_error_and_no_end() {
    let (folder, facts) = folder_with(&[100; 10]);
    let reader = folder.open().reader();
    let mut reading = cursor(&reader, StartAt::Earliest);
    block_on(reading.next(ReadLimit::records(2))).unwrap();
    let log = folder.log();
    folder.write_log(&log[..log.len() - 1]);
    let fresh = folder.open().reader();
    assert_eq!(*all(&fresh, StartAt::Earliest).unwrap_err().kind(), ErrorKind::FactsMissing);
    folder.write_log(b"");
    assert_eq!(*until_error(&reader, next(9)).1.unwrap().kind(), ErrorKind::FactsMissing);
    // What was read before is still handed out.
    assert_eq!(block_on(reading.next(ReadLimit::records(2))).unwrap().records.len(), 2);
    std::fs::remove_file(folder.file("partition=0.jsonl")).unwrap();
    assert_eq!(*all(&folder.open().reader(), StartAt::Earliest).unwrap_err().kind(), ErrorKind::FactsMissing);
    assert_eq!(facts.len(), 10);
}

#[test]
fn a_log_that_was_replaced_under_a_cursor_is_an_error() {
    let (folder, _) = folder_with(&[100; 4]);
    let reader = folder.open().reader();
    let mut reading = cursor(&reader, StartAt::Latest);
    let (log, copy) = (folder.file("partition=0.jsonl"), folder.file("copy"));
    std::fs::copy(&log, &copy).unwrap();
    std::fs::rename(&copy, &log).unwrap();
    let error = loop {
        // The files are looked at again now and then, not at each read.
        if let Err(e) = block_on(reading.next(ReadLimit::default().waiting(Duration::from_millis(20)))) {
            break e;
        }
    };
    assert_eq!(error.retry(), Retry::AfterReopen, "{error}");
    assert_eq!(all(&folder.open().reader(), StartAt::Earliest).unwrap().len(), 4);
}

#[test]
fn a_topic_that_was_made_anew_is_not_the_one_that_was_read() {
    let (folder, _) = folder_with(&[100; 4]);
    let old = folder.open();
    assert_eq!(all(&old.reader(), StartAt::Earliest).unwrap().len(), 4);
    std::fs::remove_dir_all(folder.root().join(topic().as_str())).unwrap();
    let new = folder.open();
    new.create_topic(&topic(), 1).unwrap();
    publish(&new.publisher(), 0, 1);
    let error = loop {
        match all(&old.reader(), StartAt::Earliest) {
            Ok(_) => std::thread::yield_now(),
            Err(e) => break e,
        }
    };
    assert_eq!(*error.kind(), ErrorKind::WrongIncarnation, "{error}");
    block_on(new.publisher().close()).unwrap();
}

/// The line that a byte of the log belongs to: number from 0, where it starts.
fn line_of(log: &[u8], byte: usize) -> (u64, u64) {
    let newlines = memchr::memchr_iter(b'\n', &log[..byte]);
    let (count, last) = newlines.fold((0, None), |(n, _), at| (n + 1, Some(at)));
    (count, last.map_or(0, |at| at as u64 + 1))
}

#[test]
fn a_flipped_bit_in_any_synced_byte_is_corrupt_at_its_line_and_all_before_it_is_read() {
    let (folder, facts) = folder_with(&[3, 40, 0, 17, 5]);
    let log = folder.log();
    for byte in 0..log.len() {
        let mut bad = log.clone();
        bad[byte] ^= 1 << (byte % 8);
        folder.write_log(&bad);
        let (line, start) = line_of(&log, byte);
        let (records, error) = until_error(&folder.open().reader(), StartAt::Earliest);
        assert_facts(&records, &facts[..line as usize], 0);
        let error = error.unwrap_or_else(|| panic!("byte {byte} was read as if nothing was wrong"));
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt { line: Some(l), byte: Some(b), .. } if (*l, *b) == (line + 1, start)),
            "byte {byte}: {error}"
        );
    }
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_two_records_shows_what_recovery_would_keep() {
    let whole = dead_writers(2);
    let (log, sidecar) = (whole.log(), whole.sidecar());
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', &log).map(|at| at + 1).collect();
    for len in ends[2]..=log.len() {
        whole.write_log(&log[..len]);
        let kept = ends.iter().filter(|end| **end <= len).count() as u64;
        // Above the watermark: the whole lines, and not the torn one.
        let records = all(&whole.open().reader(), StartAt::Earliest).unwrap();
        assert_eq!(offsets(&records), (0..kept).collect::<Vec<_>>(), "cut at byte {len}");
        // With nothing to say how far it was synced: the same.
        std::fs::remove_file(whole.file("partition=0.idx")).unwrap();
        let records = all(&whole.open().reader(), StartAt::Earliest).unwrap();
        assert_eq!(offsets(&records), (0..kept).collect::<Vec<_>>(), "cut at byte {len}, no sidecar");
        whole.write_sidecar(&sidecar);
    }
}

#[test]
fn without_a_sidecar_a_later_group_convicts_a_damaged_line() {
    let folder = dead_writers(2);
    std::fs::remove_file(folder.file("partition=0.idx")).unwrap();
    let log = folder.log();
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', &log).map(|at| at + 1).collect();
    for (damaged, convicted) in [(0, true), (3, true), (4, false)] {
        let mut bad = log.clone();
        bad[ends[damaged] - 2] ^= 1;
        folder.write_log(&bad);
        let reader = folder.open().reader();
        let (records, error) = until_error(&reader, StartAt::Earliest);
        assert_eq!(records.len(), damaged);
        assert_eq!(error.is_some(), convicted, "record {damaged}");
        assert_eq!(block_on(reader.head(&topic(), P0)).is_err(), convicted);
        assert_eq!(block_on(reader.cursor(&topic(), P0, StartAt::Latest)).is_err(), convicted);
    }
}
