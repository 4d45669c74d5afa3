//! Writing lines.

use eb_contract::Timestamp;

#[cfg(doc)]
use super::MAX_ENVELOPE_BYTES;
use super::{COVERED, CRC_DIGITS, DURABLE, ENVELOPE, HEX, KEY, PREFIX, TIME};

/// More than names, numbers, time and newline ever take (163).
const FIXED_BOUND: usize = 192;

/// What a line is made of, on its way in.
#[derive(Debug, Clone, Copy)]
pub struct LineParts<'a> {
    /// Position of the record in its partition.
    pub offset: u64,
    /// First offset of the group it is written with.
    pub durable: u64,
    /// As [`Timestamp::to_text`] gives it.
    pub published_at: &'a [u8; Timestamp::TEXT_LEN],
    /// Unescaped.
    pub key: &'a str,
    /// One JSON object without a raw newline, at most [`MAX_ENVELOPE_BYTES`]; not checked here.
    pub envelope: &'a [u8],
}

/// Appends a whole line, with its newline, to `out`.
pub fn encode_line(out: &mut Vec<u8>, parts: &LineParts<'_>) {
    LineEncoder::default().encode(out, parts);
}

/// Encodes lines in a row, gaining from what neighbours have in common: those of a group have one `durable`, those of a call one
/// time.
#[derive(Debug, Clone, Default)]
pub struct LineEncoder {
    /// From `,"durable":` to the quote before the key, for the last line; empty before the first.
    middle: Vec<u8>,
    durable: u64,
    published_at: [u8; Timestamp::TEXT_LEN],
}

impl LineEncoder {
    /// Appends a whole line, with its newline, to `out`. What came before never changes what comes out.
    pub fn encode(&mut self, out: &mut Vec<u8>, parts: &LineParts<'_>) {
        if self.published_at != *parts.published_at || self.durable != parts.durable {
            self.set_middle(parts.durable, parts.published_at);
        }
        let start = out.len();
        // A key that needs escaping may still make it grow.
        out.reserve(FIXED_BOUND + parts.key.len() + parts.envelope.len());
        out.extend_from_slice(b"{\"crc32c\":\"00000000\",\"offset\":");
        push_number(out, parts.offset);
        out.extend_from_slice(&self.middle);
        push_escaped(out, parts.key);
        out.extend_from_slice(ENVELOPE);
        out.extend_from_slice(parts.envelope);
        out.push(b'}');
        let crc = crc_fast::crc32_iscsi(&out[start + COVERED..]);
        out[start + PREFIX.len()..start + COVERED].copy_from_slice(&hex(crc));
        out.push(b'\n');
    }

    fn set_middle(&mut self, durable: u64, published_at: &[u8; Timestamp::TEXT_LEN]) {
        self.middle.clear();
        self.middle.extend_from_slice(DURABLE);
        push_number(&mut self.middle, durable);
        self.middle.extend_from_slice(TIME);
        self.middle.extend_from_slice(published_at);
        self.middle.extend_from_slice(KEY);
        self.durable = durable;
        self.published_at = *published_at;
    }
}

/// Upper bound of a line's bytes, newline included, for reserving room.
#[must_use]
pub fn line_bound(key: &str, envelope_len: usize) -> usize {
    FIXED_BOUND + key.len() * 6 + envelope_len
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_escaped(out: &mut Vec<u8>, key: &str) {
    let needs_escape = |b: u8| b == b'"' || b == b'\\' || b < 0x20;
    if !key.bytes().any(needs_escape) {
        out.extend_from_slice(key.as_bytes());
        return;
    }
    for byte in key.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// All eight digits at once: each byte of `x` is one of them.
pub(super) fn hex(value: u32) -> [u8; CRC_DIGITS] {
    let mut x = u64::from(value);
    x = (x << 16 | x) & 0x0000_ffff_0000_ffff;
    x = (x << 8 | x) & 0x00ff_00ff_00ff_00ff;
    x = (x << 4 | x) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (x + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}
