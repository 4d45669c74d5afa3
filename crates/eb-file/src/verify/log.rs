//! Reading a whole log and holding every line against what it should be.

use std::io;

use eb_contract::Timestamp;
use eb_contract::digest::{KeySequenceDigest, PartitionDigest};

use crate::disk::DiskFile;
use crate::format::line::{Line, LineDamage, LineDecoder};
use crate::format::sidecar::{Entry, IndexSpacing, Position};
use crate::scan::LineScanner;

/// How many damaged lines are kept; a log that was overwritten with text has many.
pub(super) const KEPT: usize = 1000;

/// A line that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    /// The offset of the record that belongs here.
    pub(super) offset: u64,
    /// The 1-based line.
    pub(super) line: u64,
    pub(super) byte: u64,
    pub(super) what: LineDamage,
}

/// What the lines say.
#[derive(Default)]
pub(super) struct LogScan {
    pub(super) good: u64,
    pub(super) lines: u64,
    /// Where the good lines from the first on end.
    pub(super) end: Position,
    /// Where the last line that is not blank ends.
    pub(super) content_end: u64,
    /// The start of the last good line that begins a group of its own: everything before it was synced.
    pub(super) group: Position,
    /// The largest `durable` of any good line, and the line that has it.
    pub(super) durable: u64,
    pub(super) durable_at: u64,
    /// In order; at most [`KEPT`].
    pub(super) damages: Vec<Damage>,
    pub(super) more_damages: u64,
    /// Records whose time lies before the one in front of them: line and byte; at most [`KEPT`].
    pub(super) falls: Vec<(u64, u64)>,
    pub(super) entries: Vec<Entry>,
    /// Where the line with the watermark's offset starts, with the time of the one before it; the end for one behind the last line.
    pub(super) at_watermark: Option<Position>,
    pub(super) digest: PartitionDigest,
}

/// Reads the log up to `end`. `progress` is told, now and then, how many bytes are done and how many good records they hold.
pub(super) fn scan_log(
    file: &dyn DiskFile,
    end: u64,
    watermark: u64,
    mut keys: Option<&mut KeySequenceDigest>,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<LogScan> {
    let mut scan = LogScan::default();
    let mut scanner = LineScanner::new(file, 0, end);
    let mut decoder = LineDecoder::default();
    let mut spacing = IndexSpacing::default();
    let mut expected = 0;
    let mut last_time: Option<Timestamp> = None;
    let mut blank: Option<(u64, u64)> = None;
    let mut told = 0;
    while let Some(raw) = scanner.next_line()? {
        scan.lines += 1;
        if raw.byte - told >= 1 << 20 {
            told = raw.byte;
            progress(told, scan.good);
        }
        if raw.text.is_empty() && !raw.overlong {
            blank.get_or_insert((scan.lines, raw.byte));
            continue;
        }
        if let Some((line, byte)) = blank.take() {
            scan.damage(Damage { offset: expected, line, byte, what: LineDamage::Blank });
        }
        scan.content_end = raw.end;
        let decoded = if raw.overlong {
            Err(LineDamage::TooLong)
        } else if raw.terminated {
            decoder.decode(raw.text)
        } else {
            Err(LineDamage::Unterminated)
        };
        let line = match decoded {
            Ok(line) => line,
            Err(what) => {
                scan.damage(Damage { offset: expected, line: scan.lines, byte: raw.byte, what });
                expected += 1;
                continue;
            }
        };
        if line.offset != expected {
            let what = LineDamage::Offset { expected, found: line.offset };
            scan.damage(Damage { offset: expected, line: scan.lines, byte: raw.byte, what });
        }
        if last_time.is_some_and(|last| line.published_at < last) && scan.falls.len() < KEPT {
            scan.falls.push((scan.lines, raw.byte));
        }
        scan.take(&line, raw.byte, raw.end, last_time, watermark, &mut spacing);
        // What lies behind a damaged line is either out of a digest's reach or about to be set aside.
        if scan.damages.is_empty() {
            let key = line.key.unescape();
            scan.digest.add_parts(&key, line.envelope);
            if let Some(keys) = &mut keys {
                keys.add_parts(&key, line.envelope);
            }
        }
        last_time = Some(line.published_at);
        expected = line.offset + 1;
    }
    if scan.end.next == watermark {
        scan.at_watermark.get_or_insert(scan.end);
    }
    progress(end, scan.good);
    Ok(scan)
}

impl LogScan {
    fn damage(&mut self, damage: Damage) {
        if self.damages.len() < KEPT {
            self.damages.push(damage);
        } else {
            self.more_damages += 1;
        }
    }

    fn take(
        &mut self,
        line: &Line<'_>,
        byte: u64,
        end: u64,
        last_time: Option<Timestamp>,
        watermark: u64,
        spacing: &mut IndexSpacing,
    ) {
        self.good += 1;
        let start = Position { next: line.offset, bytes: byte, last_time };
        if line.offset == watermark {
            self.at_watermark.get_or_insert(start);
        }
        if line.durable > self.durable {
            (self.durable, self.durable_at) = (line.durable, line.offset);
        }
        if self.damages.is_empty() {
            if line.durable == line.offset {
                self.group = start;
            }
            self.end = Position { next: line.offset + 1, bytes: end, last_time: Some(line.published_at) };
            if spacing.takes(byte) {
                self.entries.push(Entry { offset: line.offset, byte, time: line.published_at });
            }
        }
    }
}
