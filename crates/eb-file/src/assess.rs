//! Reading a log's lines in order and judging the first bad one: interior fault or torn tail (FORMAT.md, section 6).
//!
//! Changes nothing. Recovery acts on the judgement, `verify` reports it.

use std::fmt;
use std::io;

use crate::disk::DiskFile;
use crate::format::line::{Line, LineDamage, LineDecoder, decode_line};
use crate::format::sidecar::Position;
use crate::scan::{LineScanner, RawLine};

/// What is known of a log after its lines were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assessment {
    /// The end of the last good line.
    pub end: Position,
    /// The furthest place that is proven to have been synced, by the watermark or by a later group's first line; never past `end`
    /// unless there is an interior fault.
    pub proven: Position,
    /// The first bad line.
    pub fault: Option<Fault>,
    /// Where the last line that is not blank ends: at `end` when all is well; padding follows.
    pub content_end: u64,
}

/// A bad line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The offset that the line here should have. Its 1-based line number is one more.
    pub offset: u64,
    /// Where it starts.
    pub byte: u64,
    /// What is wrong with it.
    pub damage: LineDamage,
    /// What proves that a good line had been synced here. Without it, the fault is a torn tail.
    pub evidence: Option<Evidence>,
}

/// Proof that a line had been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The sidecar's watermark lies beyond it.
    Watermark {
        /// The watermark's next offset.
        next: u64,
    },
    /// A later line was written after everything up to its `durable` had been synced.
    Line {
        /// The later line's offset.
        offset: u64,
        /// Its `durable`.
        durable: u64,
    },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watermark { next } => write!(f, "the sidecar says that {next} records were synced"),
            Self::Line { offset, durable } => {
                write!(f, "record {offset} behind it says that {durable} records were synced")
            }
        }
    }
}

/// Reads the lines from `start`, which is where a line starts, to byte `len`. `each` sees every good line and its first byte.
///
/// # Errors
/// When the file cannot be read.
pub fn assess(
    file: &dyn DiskFile,
    start: Position,
    len: u64,
    watermark: Position,
    mut each: impl FnMut(&Line<'_>, u64),
) -> io::Result<Assessment> {
    let mut end = start;
    let mut proven = if watermark.next >= start.next { watermark } else { start };
    let mut content_end = start.bytes;
    let mut blank_from = None;
    let mut scanner = LineScanner::new(file, start.bytes, len);
    let mut decoder = LineDecoder::default();

    let mut fault = loop {
        let Some(raw) = scanner.next_line()? else {
            break None;
        };
        if raw.text.is_empty() && !raw.overlong {
            blank_from.get_or_insert(raw.byte);
            continue;
        }
        content_end = raw.end;
        if end.next == watermark.next && end.bytes != watermark.bytes {
            // Told apart below: the watermark itself is the evidence.
            break None;
        }
        let (line, damage) = judge(&mut decoder, &raw, end.next, blank_from.is_some());
        if let Some(damage) = damage {
            let mut fault =
                Fault { offset: end.next, byte: blank_from.unwrap_or(raw.byte), damage, evidence: None };
            fault.accuse(line.as_ref());
            break Some(fault);
        }
        if let Some(line) = line {
            each(&line, raw.byte);
            if line.durable == line.offset && line.offset > proven.next {
                proven = end;
            }
            end = Position { next: line.offset + 1, bytes: raw.end, last_time: Some(line.published_at) };
        }
    };

    if fault.is_none() {
        fault = below_watermark(end, watermark, blank_from.is_some());
    }
    if let Some(fault) = &mut fault {
        if watermark.next > fault.offset {
            fault.evidence = Some(Evidence::Watermark { next: watermark.next });
        }
        while fault.evidence.is_none() {
            let Some(raw) = scanner.next_line()? else { break };
            if raw.text.is_empty() && !raw.overlong {
                continue;
            }
            content_end = raw.end;
            fault.accuse(readable(&raw).as_ref());
        }
    }
    Ok(Assessment { end, proven, fault, content_end })
}

impl Fault {
    /// Holds a valid line from here on against the fault, if it proves that line `offset` had been synced.
    fn accuse(&mut self, line: Option<&Line<'_>>) {
        if let Some(line) = line.filter(|l| l.durable > self.offset) {
            self.evidence = Some(Evidence::Line { offset: line.offset, durable: line.durable });
        }
    }
}

fn readable<'a>(raw: &RawLine<'a>) -> Option<Line<'a>> {
    if raw.overlong { None } else { decode_line(raw.text).ok() }
}

/// The line, if its own bytes are good, and what is wrong with it at this place.
fn judge<'a>(
    decoder: &mut LineDecoder,
    raw: &RawLine<'a>,
    expected: u64,
    after_blank: bool,
) -> (Option<Line<'a>>, Option<LineDamage>) {
    let decoded = if raw.overlong { Err(LineDamage::TooLong) } else { decoder.decode(raw.text) };
    let damage = match &decoded {
        _ if after_blank => Some(LineDamage::Blank),
        // Half a line also fails its checksum; that the file ends here says more.
        _ if !raw.terminated => Some(LineDamage::Unterminated),
        Err(damage) => Some(*damage),
        Ok(line) if line.offset != expected => Some(LineDamage::Offset { expected, found: line.offset }),
        Ok(_) => None,
    };
    (decoded.ok(), damage)
}

/// The fault of a log whose lines are good but do not end where the watermark says.
fn below_watermark(end: Position, watermark: Position, padded: bool) -> Option<Fault> {
    let damage = if end.next < watermark.next {
        if padded { LineDamage::Blank } else { LineDamage::Unterminated }
    } else if end.next == watermark.next && end.bytes != watermark.bytes {
        LineDamage::Watermark { expected_byte: watermark.bytes }
    } else {
        return None;
    };
    let evidence = Some(Evidence::Watermark { next: watermark.next });
    Some(Fault { offset: end.next, byte: end.bytes, damage, evidence })
}
