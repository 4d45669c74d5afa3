//! Opening a log after a crash: each outcome that FORMAT.md promises.

use eb_contract::{Error, ErrorKind, EventBusPublisher};
use eb_file::disk::{Disk, OpenMode, RealDisk};
use eb_file::format::line::{LineParts, decode_line, encode_line};
use eb_file::format::sidecar::{ENTRY_LEN, Entry, HEADER_LEN, Header};

use crate::common::{Folder, block_on, offset, publish, record, recover, topic};

/// A log of `n` records, each its own group, as a kill leaves it; and the sidecar as it was after each of them.
fn killed(n: usize) -> (Folder, Vec<Vec<u8>>) {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let mut sidecars = Vec::new();
    for i in 0..n {
        publish(&publisher, i, 1);
        sidecars.push(folder.sidecar());
    }
    (folder.image(), sidecars)
}

/// Byte where each line starts, and the end.
fn starts(log: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    starts.extend(log.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1));
    starts
}

fn corrupt_place(e: &Error) -> (u64, u64) {
    match e.kind() {
        ErrorKind::Corrupt { file, line: Some(line), byte: Some(byte) } => {
            assert!(file.ends_with("partition=0.jsonl"));
            (*line, *byte)
        }
        other => panic!("{other:?}: {e}"),
    }
}

#[test]
fn a_log_that_was_closed_needs_nothing() {
    let folder = Folder::with_topic(1);
    let report = recover(&folder).unwrap();
    assert_eq!((report.records, report.rebuilt, report.torn), (0, None, None));
    {
        let publisher = folder.open().publisher();
        publish(&publisher, 0, 3);
        block_on(publisher.close()).unwrap();
    }
    let (log, sidecar) = (folder.log(), folder.sidecar());
    for _ in 0..2 {
        let report = recover(&folder).unwrap();
        assert!(report.clean && report.rewritten_bytes == 0);
        assert_eq!(report.records, 3);
        assert_eq!((folder.log(), folder.sidecar()), (log.clone(), sidecar.clone()));
    }
}

#[test]
fn a_killed_writers_records_are_all_there() {
    let (folder, _) = killed(5);
    let before = folder.log();
    let report = recover(&folder).unwrap();
    assert_eq!((report.records, report.clean, report.torn.is_none()), (5, false, true));
    assert_eq!(folder.log(), before);
    let publisher = folder.open().publisher();
    assert_eq!(offset(&publish(&publisher, 5, 1)[0]), 5);
}

#[test]
fn a_tail_cut_at_any_byte_is_set_aside_and_the_next_append_starts_on_its_own_line() {
    let (killed, sidecars) = killed(4);
    let log = killed.log();
    let starts = starts(&log);
    // The power cut has also lost the last two updates of the watermark.
    killed.write_sidecar(&sidecars[1]);
    for cut in starts[2]..log.len() {
        let folder = killed.image();
        folder.write_log(&log[..cut]);
        let report = recover(&folder).unwrap();
        let whole = if cut >= starts[3] { 3 } else { 2 };
        let torn = &log[starts[whole]..cut];
        assert_eq!(report.records as usize, whole, "cut at {cut}");
        assert_eq!(folder.log(), &log[..starts[whole]]);
        if torn.is_empty() {
            assert_eq!((report.torn, folder.torn().len()), (None, 0));
        } else {
            let aside = report.torn.unwrap();
            assert_eq!((aside.offset as usize, aside.byte as usize), (whole, starts[whole]));
            assert_eq!(std::fs::read(&aside.file).unwrap(), torn);
            assert_eq!(folder.torn(), [torn]);
        }
        let publisher = folder.open().publisher();
        assert_eq!(offset(&publish(&publisher, 9, 1)[0]) as usize, whole);
        assert_eq!(folder.lines().len(), whole + 1);
    }
}

#[test]
fn whole_lines_behind_a_torn_one_are_set_aside_with_it() {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    publish(&publisher, 0, 2);
    let sidecar = folder.sidecar();
    let batch = (0..3).map(|i| record("k", &format!("batch {i}"))).collect();
    for answer in block_on(publisher.publish_batch(&topic(), batch)) {
        answer.unwrap();
    }
    let image = folder.image();
    image.write_sidecar(&sidecar);
    let mut log = image.log();
    let starts = starts(&log);
    log[starts[3] + 40..starts[3] + 60].fill(0);
    image.write_log(&log);
    let report = recover(&image).unwrap();
    assert_eq!(report.records, 3, "the first of the group is whole");
    assert_eq!(image.torn(), [log[starts[3]..].to_vec()]);
}

#[test]
fn a_log_shorter_than_its_watermark_is_refused_and_left_alone() {
    let (killed, _) = killed(3);
    let log = killed.log();
    for cut in [0, 1, log.len() / 2, log.len() - 1] {
        let folder = killed.image();
        folder.write_log(&log[..cut]);
        let sidecar = folder.sidecar();
        let e = recover(&folder).unwrap_err();
        assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
        assert!(e.to_string().contains("partition=0.jsonl"), "{e}");
        assert_eq!((folder.log(), folder.sidecar()), (log[..cut].to_vec(), sidecar));
    }
    std::fs::remove_file(killed.file("partition=0.jsonl")).unwrap();
    assert_eq!(*recover(&killed).unwrap_err().kind(), ErrorKind::FactsMissing);
}

#[test]
fn any_flipped_bit_below_the_watermark_is_refused_naming_line_and_byte() {
    let (killed, _) = killed(3);
    let log = killed.log();
    let starts = starts(&log);
    for at in 0..log.len() {
        let folder = killed.image();
        let mut bad = log.clone();
        bad[at] ^= 1 << (at % 8);
        folder.write_log(&bad);
        let e = recover(&folder).unwrap_err();
        let line = starts.iter().filter(|s| **s <= at).count() - 1;
        assert_eq!(corrupt_place(&e), (line as u64 + 1, starts[line] as u64), "byte {at}: {e}");
        assert_eq!(folder.log(), bad, "nothing is changed");
        assert!(folder.torn().is_empty());
    }
}

#[test]
fn without_a_sidecar_a_flipped_bit_is_judged_by_what_later_lines_prove() {
    let (killed, _) = killed(4);
    std::fs::remove_file(killed.file("partition=0.idx")).unwrap();
    let log = killed.log();
    let starts = starts(&log);
    for at in 0..log.len() {
        let folder = killed.image();
        let mut bad = log.clone();
        bad[at] ^= 1 << (at % 8);
        folder.write_log(&bad);
        let line = starts.iter().filter(|s| **s <= at).count() - 1;
        // Each line is its own group, so each but the last is proven by any later one that can still be read. A lost line end takes the next line along.
        let next_readable = line + if at + 1 == starts[line + 1] { 2 } else { 1 };
        if next_readable < 4 {
            let e = recover(&folder).unwrap_err();
            assert_eq!(corrupt_place(&e), (line as u64 + 1, starts[line] as u64), "byte {at}: {e}");
            assert_eq!(folder.log(), bad);
        } else {
            let report = recover(&folder).unwrap();
            assert_eq!(report.records as usize, line, "byte {at}");
            assert_eq!(folder.torn(), [bad[starts[line]..].to_vec()]);
            assert!(report.rebuilt.is_some());
        }
    }
}

#[test]
fn recovering_twice_changes_nothing_also_when_the_first_died_before_its_cut() {
    let (killed, sidecars) = killed(3);
    killed.write_sidecar(&sidecars[1]);
    let log = killed.log();
    let torn_log = &log[..log.len() - 5];
    killed.write_log(torn_log);
    recover(&killed).unwrap();
    let (after, sidecar, torn) = (killed.log(), killed.sidecar(), killed.torn());
    assert_eq!(torn.len(), 1);
    recover(&killed).unwrap();
    assert_eq!((killed.log(), killed.sidecar(), killed.torn()), (after.clone(), sidecar, torn.clone()));

    // The cut and the sidecar never reached the disk; the set-aside file did, and so did a half-made one.
    killed.write_log(torn_log);
    killed.write_sidecar(&sidecars[1]);
    std::fs::write(killed.file("partition=0.torn-tmp"), b"half").unwrap();
    recover(&killed).unwrap();
    assert_eq!(killed.log(), after);
    let again: Vec<_> = killed.torn().into_iter().filter(|t| t != b"half").collect();
    assert_eq!(again, torn, "no second copy");
}

#[test]
fn padding_is_cut_and_a_blank_line_between_records_is_a_fault() {
    let (killed, sidecars) = killed(3);
    let log = killed.log();
    let padded = killed.image();
    padded.write_log(&[&log[..], b"\n\n\n\n"].concat());
    let report = recover(&padded).unwrap();
    assert_eq!((report.records, report.torn), (3, None));
    assert_eq!(padded.log(), log);

    let starts = starts(&log);
    let gap = [&log[..starts[2]], b"\n", &log[starts[2]..]].concat();
    let between = killed.image();
    between.write_log(&gap);
    assert_eq!(corrupt_place(&recover(&between).unwrap_err()), (3, starts[2] as u64));

    // Not below the watermark, and the line behind the gap proves nothing about itself: set aside, blank line and all.
    let unproven = killed.image();
    unproven.write_log(&gap);
    unproven.write_sidecar(&sidecars[1]);
    assert_eq!(recover(&unproven).unwrap().records, 2);
    assert_eq!(unproven.torn(), [gap[starts[2]..].to_vec()]);
}

#[test]
fn zeros_at_the_end_are_set_aside() {
    let (killed, _) = killed(2);
    let log = killed.log();
    killed.write_log(&[&log[..], &[0; 700]].concat());
    assert_eq!(recover(&killed).unwrap().records, 2);
    assert_eq!(killed.log(), log);
    assert_eq!(killed.torn(), [vec![0; 700]]);
}

#[test]
fn a_line_in_anothers_place_is_a_fault() {
    let (killed, sidecars) = killed(3);
    let log = killed.log();
    let starts = starts(&log);
    let twice = [&log[..], &log[starts[1]..starts[2]]].concat();
    let folder = killed.image();
    folder.write_log(&twice);
    assert_eq!(recover(&folder).unwrap().records, 3, "a repeated line proves nothing");
    let missing = [&log[..starts[1]], &log[starts[2]..]].concat();
    let folder = killed.image();
    folder.write_log(&missing);
    folder.write_sidecar(&sidecars[0]);
    let e = recover(&folder).unwrap_err();
    assert_eq!(corrupt_place(&e), (2, starts[1] as u64), "record 2 says that record 1 was synced: {e}");
}

/// Enough records for several index entries.
fn long() -> Folder {
    let folder = Folder::with_topic(1);
    let publisher = folder.open().publisher();
    let pad = "x".repeat(700);
    for _ in 0..10 {
        let batch = (0..50).map(|i| record("key", &format!("{i} {pad}"))).collect();
        for answer in block_on(publisher.publish_batch(&topic(), batch)) {
            answer.unwrap();
        }
    }
    block_on(publisher.close()).unwrap();
    folder
}

#[test]
fn a_lost_or_foreign_sidecar_is_rebuilt_as_it_was_and_reported() {
    let folder = long();
    let sidecar = folder.sidecar();
    let header = Header::decode(&sidecar).unwrap();
    assert!(header.entries >= 5 && header.clean);
    let other = Header { incarnation: [7; 16], ..header }.encode();
    let wrong_partition = Header { partition: 1, ..header }.encode();
    for bad in [None, Some(vec![]), Some(vec![0; 600]), Some(other.to_vec()), Some(wrong_partition.to_vec())]
    {
        let image = folder.image();
        match &bad {
            None => std::fs::remove_file(image.file("partition=0.idx")).unwrap(),
            Some(bytes) => image.write_sidecar(bytes),
        }
        let report = recover(&image).unwrap();
        assert!(report.rebuilt.is_some() && report.records == 500, "{report}");
        assert!(report.rewritten_bytes < image.log().len() as u64 / 5, "only the last group is unproven");
        assert_eq!(image.sidecar(), sidecar);
        assert_eq!(image.log(), folder.log());
    }
}

#[test]
fn a_damaged_index_entry_is_rebuilt_from_there() {
    let folder = long();
    let sidecar = folder.sidecar();
    let header = Header::decode(&sidecar).unwrap();
    for slot in 0..header.entries as usize {
        let image = folder.image();
        // After a power cut nothing but the header's checksum speaks for the entries.
        let mut bad = sidecar.clone();
        bad[..HEADER_LEN].copy_from_slice(&Header { clean: false, boot_id: [1; 16], ..header }.encode());
        bad[HEADER_LEN + slot * ENTRY_LEN + 3] ^= 4;
        image.write_sidecar(&bad);
        let report = recover(&image).unwrap();
        assert!(report.rebuilt.unwrap().contains(&format!("entry {} of", slot + 1)));
        assert_eq!(image.sidecar(), sidecar);
    }
    let image = folder.image();
    image.write_sidecar(&sidecar[..HEADER_LEN + ENTRY_LEN + 9]);
    assert!(recover(&image).unwrap().rebuilt.is_some());
    assert_eq!(image.sidecar(), sidecar);
}

#[test]
fn only_the_tail_is_read_on_open_and_damage_before_it_is_left_to_verify() {
    let folder = long();
    let mut log = folder.log();
    let starts = starts(&log);
    log[starts[10] + 50] ^= 1;
    folder.write_log(&log);
    assert_eq!(recover(&folder).unwrap().records, 500);
    log[starts[499] + 50] ^= 1;
    folder.write_log(&log);
    assert_eq!(corrupt_place(&recover(&folder).unwrap_err()), (500, starts[499] as u64));
}

#[test]
fn an_index_entry_that_its_line_does_not_bear_out_is_not_believed() {
    let folder = long();
    let sidecar = folder.sidecar();
    let header = Header::decode(&sidecar).unwrap();
    let last = header.entries - 1;
    let at = HEADER_LEN + last as usize * ENTRY_LEN;
    let mut entry = Entry::decode(&sidecar[at..], last).unwrap();
    entry.byte += 1;
    let mut bad = sidecar.clone();
    bad[at..at + ENTRY_LEN].copy_from_slice(&entry.encode(last));
    folder.write_sidecar(&bad);
    assert!(recover(&folder).unwrap().rebuilt.is_some());
    assert_eq!(folder.sidecar(), sidecar);
}

#[test]
fn a_sidecar_of_a_later_version_is_not_touched() {
    let (killed, _) = killed(1);
    let mut sidecar = killed.sidecar();
    sidecar[8] = 2;
    let crc = crc_fast::crc32_iscsi(&sidecar[..HEADER_LEN - 4]);
    sidecar[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    killed.write_sidecar(&sidecar);
    assert_eq!(*recover(&killed).unwrap_err().kind(), ErrorKind::WrongVersion);
    assert_eq!(killed.sidecar(), sidecar);
}

#[test]
fn a_refused_log_refuses_every_publish_until_it_is_restored() {
    let (killed, _) = killed(2);
    let log = killed.log();
    killed.write_log(&log[..log.len() - 1]);
    let bus = killed.open();
    let publisher = bus.publisher();
    for _ in 0..2 {
        let e = publisher.publish_blocking(&topic(), record("k", "x")).unwrap_err();
        assert_eq!(*e.kind(), ErrorKind::FactsMissing);
    }
    killed.write_log(&log);
    let _ = block_on(publisher.close());
    assert_eq!(offset(&publish(&bus.publisher(), 2, 1)[0]), 2);
}

#[test]
fn time_never_falls_across_a_reopen_with_the_clock_put_back() {
    let (killed, _) = killed(1);
    let line = killed.lines().remove(0);
    let now = decode_line(line.strip_suffix(b"\n").unwrap()).unwrap();
    // The same record, as a clock far ahead would have written it.
    let mut ahead = Vec::new();
    let parts = LineParts {
        offset: 0,
        durable: 0,
        published_at: b"2999-01-01T00:00:00.000000Z",
        key: &now.key.unescape(),
        envelope: now.envelope,
    };
    encode_line(&mut ahead, &parts);
    killed.write_log(&ahead);
    std::fs::remove_file(killed.file("partition=0.idx")).unwrap();
    let publisher = killed.open().publisher();
    let eb_ref = publish(&publisher, 1, 1).remove(0);
    assert_eq!(eb_ref.published_at_utc.to_string(), "2999-01-01T00:00:00.000000Z");
    assert_eq!(killed.lines().len(), 2);
}

/// Three records, the last two one group, with padding behind them as a kill leaves it; and the sidecar before that group.
fn padded() -> (Folder, Vec<u8>) {
    let folder = Folder::with_topic(1);
    let mut config = folder.config();
    config.preallocate_bytes = 4096;
    let publisher = eb_file::FileBus::open(config).unwrap().publisher();
    publish(&publisher, 0, 1);
    let sidecar = folder.sidecar();
    let pad = "x".repeat(900);
    let batch = vec![record("key", &pad), record("key", &pad)];
    assert!(block_on(publisher.publish_batch(&topic(), batch)).iter().all(Result::is_ok));
    (folder.image(), sidecar)
}

#[test]
fn padding_is_overwritten_and_is_gone_after_a_close_or_a_recovery() {
    let (killed, _) = padded();
    let log = killed.log();
    let records: Vec<u8> = log.iter().rev().skip_while(|b| **b == b'\n').copied().collect();
    let content = records.len() + 1;
    assert!(log.len() > content + 1000 && log[content - 1..].iter().all(|b| *b == b'\n'));
    let report = recover(&killed).unwrap();
    assert_eq!((report.records, report.torn), (3, None));
    assert_eq!(killed.log(), &log[..content]);

    let mut config = killed.config();
    config.preallocate_bytes = 4096;
    let publisher = eb_file::FileBus::open(config).unwrap().publisher();
    for i in 0..100 {
        publish(&publisher, i, 1);
    }
    block_on(publisher.close()).unwrap();
    assert_eq!(killed.lines().len(), 103);
    assert!(recover(&killed).unwrap().clean);
}

/// Bytes of the device that the log takes beyond its own.
#[cfg(target_os = "linux")]
fn held_beyond(folder: &Folder) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(folder.file("partition=0.jsonl")).unwrap();
    (metadata.blocks() * 512).saturating_sub(metadata.len().next_multiple_of(4096))
}

#[test]
#[cfg(target_os = "linux")]
fn room_reserved_behind_the_records_is_given_back_by_a_close_and_by_a_recovery() {
    let folder = Folder::with_topic(1);
    let large = "x".repeat(600_000);
    let publisher = folder.open().publisher();
    for _ in 0..3 {
        block_on(publisher.publish(&topic(), record("key", &large))).unwrap();
    }
    let log = RealDisk.open(&folder.file("partition=0.jsonl"), OpenMode::Write).unwrap();
    if log.reserve(0, 1).is_err_and(|e| e.kind() == std::io::ErrorKind::Unsupported) {
        println!("not run: room reserved behind the records: this file system cannot reserve");
        return;
    }
    assert!(held_beyond(&folder) >= 600_000);
    assert_eq!(folder.lines().len(), 3, "no reader sees it");
    block_on(publisher.close()).unwrap();
    assert_eq!(held_beyond(&folder), 0);

    // As a kill leaves it: room that is still held, and a sidecar that was not closed.
    let publisher = folder.open().publisher();
    block_on(publisher.publish(&topic(), record("key", &large))).unwrap();
    let killed = folder.image();
    let log = RealDisk.open(&killed.file("partition=0.jsonl"), OpenMode::Write).unwrap();
    log.reserve(log.len().unwrap(), 1 << 20).unwrap();
    log.sync_all().unwrap();
    assert!(held_beyond(&killed) >= 1 << 20);
    assert_eq!(recover(&killed).unwrap().records, 4);
    assert_eq!(held_beyond(&killed), 0);
}

#[test]
fn any_lost_sectors_of_a_group_in_padding_are_a_torn_tail() {
    let (killed, sidecar) = padded();
    killed.write_sidecar(&sidecar);
    let log = killed.log();
    let starts = starts(&log);
    let sectors: Vec<usize> = (starts[1] / 512..=(starts[3] - 1) / 512).collect();
    for lost in 1u32..1 << sectors.len() {
        let mut bad = log.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            if lost & (1 << bit) != 0 {
                let range = (sector * 512).max(starts[1])..((sector + 1) * 512).min(log.len());
                bad[range].fill(b'\n');
            }
        }
        let folder = killed.image();
        folder.write_log(&bad);
        let report = recover(&folder).unwrap();
        let kept = report.records as usize;
        // The first record was synced; of the group what lies before the first lost byte is whole.
        assert!(
            kept == 1 || (kept == 2 && bad[starts[1]..starts[2]] == log[starts[1]..starts[2]]),
            "{lost:b}"
        );
        assert_eq!(folder.log(), &log[..starts[kept]]);
        let mut content = bad[starts[kept]..].to_vec();
        while content.last() == Some(&b'\n') {
            content.pop();
        }
        let torn: Vec<u8> = folder.torn().concat();
        assert!(torn.starts_with(&content) && torn.len() <= content.len() + 1, "{lost:b}");
        let publisher = folder.open().publisher();
        assert_eq!(offset(&publish(&publisher, 9, 1)[0]) as usize, kept);
    }
}
