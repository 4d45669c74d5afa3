//! One record as one line: encoding and strict decoding (FORMAT.md, section 2).
//!
//! Decoding allocates nothing. It checks the checksum first, in one pass over one slice; what follows then only has
//! to find the fields, and still refuses any spelling but the one that [`encode_line`] writes.

use std::borrow::Cow;
use std::fmt;

use eb_contract::Timestamp;

/// Largest envelope that the format holds, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 16 * 1024 * 1024;

/// Longest line, without its newline, in bytes. Its other fields never need the 4 KiB.
pub const MAX_LINE_BYTES: usize = MAX_ENVELOPE_BYTES + 4096;

const PREFIX: &[u8] = b"{\"crc32c\":\"";
const CRC_DIGITS: usize = 8;
/// Where the bytes that the checksum covers begin.
const COVERED: usize = PREFIX.len() + CRC_DIGITS;
const OFFSET: &[u8] = b"\",\"offset\":";
const DURABLE: &[u8] = b",\"durable\":";
const TIME: &[u8] = b",\"published_at_utc\":\"";
const KEY: &[u8] = b"\",\"partition_key\":\"";
const ENVELOPE: &[u8] = b"\",\"envelope\":";

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

/// A decoded line, borrowing from the block it was read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Position of the record in its partition.
    pub offset: u64,
    /// Next offset that was synced before the line's group was written; at most `offset`.
    pub durable: u64,
    /// When it was published.
    pub published_at: Timestamp,
    /// The partition key, still escaped.
    pub key: RawKey<'a>,
    /// The exact bytes that were published.
    pub envelope: &'a [u8],
}

/// A partition key as it stands in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawKey<'a> {
    /// UTF-8: what is not ASCII was checked.
    text: &'a [u8],
    escaped: bool,
}

impl<'a> RawKey<'a> {
    /// The key itself; allocates only when it holds an escape.
    #[must_use]
    pub fn unescape(&self) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(self.text);
        if !self.escaped {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = &*text;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            // Decoding let through only `\"`, `\\` and `\u00xx` with a control character.
            let escape = &rest[at + 1..];
            if let Some(code) = escape.strip_prefix('u').and_then(|hex| hex.get(..4)) {
                out.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'));
                rest = &escape[5..];
            } else {
                out.push_str(&escape[..1]);
                rest = &escape[1..];
            }
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// The key's bytes as they stand in the file, and whether they are also the key itself: then a reader takes them as they are.
    #[must_use]
    pub fn as_written(&self) -> (&'a [u8], bool) {
        (self.text, !self.escaped)
    }
}

/// Why a line is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineDamage {
    /// No bytes between two newlines, with records behind it.
    Blank,
    /// The file ends before the line does.
    Unterminated,
    /// Longer than [`MAX_LINE_BYTES`].
    TooLong,
    /// It does not begin with the constant prefix and eight lowercase hex digits.
    NotALine,
    /// The checksum does not match: some byte was changed or lost.
    Checksum {
        /// As the line says.
        stored: u32,
        /// Of the bytes that are there.
        computed: u32,
    },
    /// The checksum matches, but this field is missing or not spelled as the format says.
    Field(&'static str),
    /// The lines are whole, but so many of them should end at another byte, says the watermark.
    Watermark {
        /// Where the line that belongs here starts according to the watermark.
        expected_byte: u64,
    },
    /// A valid line in another line's place.
    Offset {
        /// The offset that belongs here.
        expected: u64,
        /// The one that the line has.
        found: u64,
    },
}

impl fmt::Display for LineDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("blank line between records"),
            Self::Unterminated => f.write_str("the file ends inside the line"),
            Self::TooLong => write!(f, "longer than {MAX_LINE_BYTES} bytes"),
            Self::NotALine => f.write_str("does not begin as a record line does"),
            Self::Checksum { stored, computed } => {
                write!(f, "checksum is {computed:08x}, the line says {stored:08x}")
            }
            Self::Field(name) => write!(f, "field \"{name}\" is missing or misspelled"),
            Self::Watermark { expected_byte } => {
                write!(f, "belongs at byte {expected_byte}, says the sidecar")
            }
            Self::Offset { expected, found } => write!(f, "holds offset {found} where {expected} belongs"),
        }
    }
}

/// Decodes one line, given without its newline.
///
/// # Errors
///
/// The damage, when any byte is not as the format says.
pub fn decode_line(line: &[u8]) -> Result<Line<'_>, LineDamage> {
    LineDecoder::default().decode(line)
}

/// Whether a line, given without its newline, has the checksum that it says.
#[must_use]
pub fn checksum_holds(line: &[u8]) -> bool {
    covered_by_sum(line).is_ok()
}

/// The bytes that a line's checksum covers, if it holds.
#[inline]
fn covered_by_sum(line: &[u8]) -> Result<&[u8], LineDamage> {
    if line.is_empty() {
        return Err(LineDamage::Blank);
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(LineDamage::TooLong);
    }
    let (stored, covered) = line
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_first_chunk::<CRC_DIGITS>())
        .ok_or(LineDamage::NotALine)?;
    let computed = crc_fast::crc32_iscsi(covered);
    if *stored == hex(computed) {
        return Ok(covered);
    }
    let stored = unhex(stored).ok_or(LineDamage::NotALine)?;
    Err(LineDamage::Checksum { stored, computed })
}

/// Decodes lines in a row, gaining from what neighbours have in common: most were published in the same second.
#[derive(Debug, Clone)]
pub struct LineDecoder {
    /// The last time's text up to its point, and the second it means.
    second: [u8; SECOND_LEN],
    micros: i64,
}

const SECOND_LEN: usize = 20;

impl Default for LineDecoder {
    fn default() -> Self {
        // The text must be a time: bytes that equal it are taken for one.
        Self { second: *b"1970-01-01T00:00:00.", micros: 0 }
    }
}

impl LineDecoder {
    /// Decodes one line, given without its newline. What came before never changes what comes out.
    ///
    /// # Errors
    ///
    /// The damage, when any byte is not as the format says.
    #[inline]
    pub fn decode<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, LineDamage> {
        self.decode_summed(line, false)
    }

    /// As [`LineDecoder::decode`]; with `summed`, for a line that [`checksum_holds`] has found good: it is not summed up again.
    ///
    /// # Errors
    ///
    /// As for [`LineDecoder::decode`].
    #[inline]
    pub fn decode_summed<'a>(&mut self, line: &'a [u8], summed: bool) -> Result<Line<'a>, LineDamage> {
        let covered =
            if summed { line.get(COVERED..).ok_or(LineDamage::NotALine)? } else { covered_by_sum(line)? };
        let rest = covered.strip_prefix(OFFSET).ok_or(LineDamage::Field("offset"))?;
        let (offset, rest) = take_number(rest).ok_or(LineDamage::Field("offset"))?;
        let rest = rest.strip_prefix(DURABLE).ok_or(LineDamage::Field("durable"))?;
        let (durable, rest) = take_number(rest).ok_or(LineDamage::Field("durable"))?;
        if offset == u64::MAX || durable > offset {
            return Err(LineDamage::Field("durable"));
        }
        let rest = rest.strip_prefix(TIME).ok_or(LineDamage::Field("published_at_utc"))?;
        let (time, rest) = rest.split_first_chunk().ok_or(LineDamage::Field("published_at_utc"))?;
        let published_at = self.time(time).ok_or(LineDamage::Field("published_at_utc"))?;
        let rest = rest.strip_prefix(KEY).ok_or(LineDamage::Field("partition_key"))?;
        let (key, rest) = take_key(rest).ok_or(LineDamage::Field("partition_key"))?;
        let rest = rest.strip_prefix(ENVELOPE).ok_or(LineDamage::Field("envelope"))?;
        let envelope = rest
            .strip_suffix(b"}")
            .filter(|e| e.len() >= 2 && e.len() <= MAX_ENVELOPE_BYTES)
            .filter(|e| e.starts_with(b"{") && e.ends_with(b"}"))
            .ok_or(LineDamage::Field("envelope"))?;
        Ok(Line { offset, durable, published_at, key, envelope })
    }

    #[inline]
    fn time(&mut self, text: &[u8; Timestamp::TEXT_LEN]) -> Option<Timestamp> {
        let (second, fraction) = text.split_first_chunk::<SECOND_LEN>()?;
        if *second != self.second || fraction[6] != b'Z' {
            let time = Timestamp::from_text(text)?;
            self.second = *second;
            self.micros = time.as_micros() - time.as_micros() % 1_000_000;
            return Some(time);
        }
        let mut micros = 0;
        let mut bad = false;
        for byte in &fraction[..6] {
            let digit = byte.wrapping_sub(b'0');
            bad |= digit > 9;
            micros = micros * 10 + i64::from(digit);
        }
        if bad { None } else { Timestamp::from_micros(self.micros + micros) }
    }
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

#[inline]
fn take_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut len = 0;
    while let Some(digit) = text.get(len).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
        // Wraps only past 19 digits, which the slow way judges.
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        len += 1;
    }
    if len > 19 {
        value = std::str::from_utf8(&text[..len]).ok()?.parse().ok()?;
    }
    let canonical = len == 1 || (len > 1 && text[0] != b'0');
    canonical.then(|| (value, &text[len..]))
}

/// Splits at the key's closing quote. Eight bytes at a time up to the first that is not plain ASCII text.
#[inline]
fn take_key(text: &[u8]) -> Option<(RawKey<'_>, &[u8])> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = text[at..].first_chunk::<8>() {
        let bytes = u64::from_le_bytes(*chunk);
        // The highest bit of the lowest byte that is equal to `b`, or below `n`, is exact; those above it may err.
        let equal = |b: u8| {
            let x = bytes ^ (ONES * u64::from(b));
            x.wrapping_sub(ONES) & !x & HIGHS
        };
        let below = |n: u8| bytes.wrapping_sub(ONES * u64::from(n)) & !bytes & HIGHS;
        let special = equal(b'"') | equal(b'\\') | below(0x20) | bytes & HIGHS;
        if special == 0 {
            at += 8;
            continue;
        }
        at += special.trailing_zeros() as usize / 8;
        if text[at] == b'"' && at > 0 {
            return Some((RawKey { text: &text[..at], escaped: false }, &text[at..]));
        }
        break;
    }
    take_odd_key(text, at)
}

/// As [`take_key`] for keys with escapes or beyond ASCII, of which `at` bytes are plain.
fn take_odd_key(text: &[u8], mut at: usize) -> Option<(RawKey<'_>, &[u8])> {
    let mut escaped = false;
    loop {
        match *text.get(at)? {
            b'"' => break,
            b'\\' => {
                escaped = true;
                at += match text.get(at + 1..)? {
                    [b'"' | b'\\', ..] => 2,
                    [b'u', b'0', b'0', high @ (b'0' | b'1'), low, ..] if HEX.contains(low) => 6,
                    _ => return None,
                };
            }
            0..0x20 => return None,
            _ => at += 1,
        }
    }
    let (key, rest) = text.split_at(at);
    let is_text = at > 0 && std::str::from_utf8(key).is_ok();
    is_text.then_some((RawKey { text: key, escaped }, rest))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// All eight digits at once: each byte of `x` is one of them.
fn hex(value: u32) -> [u8; CRC_DIGITS] {
    let mut x = u64::from(value);
    x = (x << 16 | x) & 0x0000_ffff_0000_ffff;
    x = (x << 8 | x) & 0x00ff_00ff_00ff_00ff;
    x = (x << 4 | x) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (x + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

fn unhex(digits: &[u8; CRC_DIGITS]) -> Option<u32> {
    let mut value = 0;
    for digit in digits {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u32::from(nibble);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(offset: u64, durable: u64, micros: i64, key: &str, envelope: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let parts = LineParts {
            offset,
            durable,
            published_at: &Timestamp::from_micros(micros).unwrap().to_text(),
            key,
            envelope: envelope.as_bytes(),
        };
        encode_line(&mut out, &parts);
        out
    }

    fn decode(line: &[u8]) -> Result<Line<'_>, LineDamage> {
        decode_line(line.strip_suffix(b"\n").unwrap())
    }

    /// A line with a valid checksum around whatever `covered` says.
    fn forged(covered: &str) -> Vec<u8> {
        let crc = crc_fast::crc32_iscsi(covered.as_bytes());
        format!("{{\"crc32c\":\"{crc:08x}{covered}").into_bytes()
    }

    #[test]
    fn a_line_reads_as_the_format_page_shows_it() {
        let line = line(12, 8, 1_769_680_800_123_456, "m-1", r#"{"event_id":"e"}"#);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(
            &text[19..],
            concat!(
                r#"","offset":12,"durable":8,"published_at_utc":"2026-01-29T10:00:00.123456Z","#,
                r#""partition_key":"m-1","envelope":{"event_id":"e"}}"#,
                "\n"
            )
        );
        let crc = crc_fast::crc32_iscsi(text[19..].trim_end().as_bytes());
        assert_eq!(&text[..19], format!("{{\"crc32c\":\"{crc:08x}"));
    }

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn any_flipped_bit_is_damage() {
        let good = line(9, 9, 1_769_680_800_123_456, "k\"\\\u{1}ü", r#"{"a":"ä","n":1}"#);
        for byte in 0..good.len() - 1 {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn digits_are_written_all_at_once_and_read_one_by_one() {
        for value in [0, 9, 10, 0xffff_ffff, 0x0123_4567, 0x89ab_cdef, 0x9a9a_0f0f] {
            assert_eq!(hex(value), format!("{value:08x}").as_bytes());
            assert_eq!(unhex(&hex(value)), Some(value));
        }
        assert_eq!(unhex(b"0000000A"), None);
    }

    #[test]
    fn a_decoder_gives_each_line_its_own_time_whatever_came_before() {
        let mut decoder = LineDecoder::default();
        for micros in [0, 1, 999_999, 1_000_000, 1_769_680_800_123_456, 1_769_680_800_999_999, 5] {
            let line = line(0, 0, micros, "k", "{}");
            let decoded = decoder.decode(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!(decoded.published_at.as_micros(), micros);
        }
        let time = "1970-01-01T00:00:00.00000xZ";
        let bad = format!(
            r#"","offset":1,"durable":0,"published_at_utc":"{time}","partition_key":"k","envelope":{{}}}}"#
        );
        assert_eq!(decoder.decode(&forged(&bad)), Err(LineDamage::Field("published_at_utc")));
        let bad = bad.replace("xZ", "0z");
        assert_eq!(decoder.decode(&forged(&bad)), Err(LineDamage::Field("published_at_utc")));
        let bad = bad.replace("1970-01-01T00:00:00.", &"\0".repeat(SECOND_LEN)).replace("0z", "0Z");
        assert_eq!(decode_line(&forged(&bad)), Err(LineDamage::Field("published_at_utc")), "no time at all");
    }

    #[test]
    fn any_cut_line_is_damage() {
        let good = line(9, 9, 0, "key", r#"{"a":{"b":{}}}"#);
        for len in 0..good.len() - 1 {
            assert!(decode_line(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_valid_checksum_does_not_excuse_another_spelling() {
        let time = "2026-01-29T10:00:00.123456Z";
        let good = format!(
            r#"","offset":1,"durable":0,"published_at_utc":"{time}","partition_key":"k","envelope":{{}}}}"#
        );
        assert!(decode_line(&forged(&good)).is_ok());
        for (from, to, field) in [
            (r#""offset":1"#, r#""offset":01"#, "offset"),
            (r#""offset":1"#, r#""offset":"1""#, "durable"),
            (r#""offset":1"#, r#""offset":18446744073709551616"#, "offset"),
            (r#""offset":1"#, r#""offset":18446744073709551615"#, "durable"),
            (r#""offset":1"#, r#""offset": 1"#, "offset"),
            (r#""durable":0"#, r#""durable":2"#, "durable"),
            (r#""durable":0"#, r#""durable":-0"#, "durable"),
            (time, "2026-01-29 10:00:00.123456Z", "published_at_utc"),
            (time, "2026-01-29t10:00:00.123456Z", "published_at_utc"),
            (time, "2026-02-30T10:00:00.123456Z", "published_at_utc"),
            (r#""k""#, r#""""#, "partition_key"),
            (r#""k""#, r#""\n""#, "partition_key"),
            (r#""k""#, r#""\u0041""#, "partition_key"),
            (r#""k""#, r#""\u001F""#, "partition_key"),
            (r#""k""#, "\"\t\"", "partition_key"),
            (r#":{}}"#, r#":[]}"#, "envelope"),
            (r#":{}}"#, r#":{} }"#, "envelope"),
            (r#":{}}"#, r#":}"#, "envelope"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            let expected = if to == r#""offset":"1""# { "offset" } else { field };
            assert_eq!(decode_line(&forged(&bad)), Err(LineDamage::Field(expected)), "{to}");
        }
    }

    #[test]
    fn blank_and_overlong_lines_are_named_as_such() {
        assert_eq!(decode_line(b""), Err(LineDamage::Blank));
        assert_eq!(decode_line(&vec![b'x'; MAX_LINE_BYTES + 1]), Err(LineDamage::TooLong));
        assert_eq!(decode_line(b"{\"offset\":0}"), Err(LineDamage::NotALine));
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(
            offset in 0..u64::MAX,
            behind in 0u64..1000,
            micros in 0i64..=253_402_300_799_999_999,
            key in "\\PC{1,40}|[\\x00-\\x7f]{1,40}",
            payload in "\\PC{0,200}",
        ) {
            let envelope = format!("{{\"p\":\"{payload}\"}}");
            let durable = offset.saturating_sub(behind);
            let bytes = line(offset, durable, micros, &key, &envelope);
            prop_assert!(bytes.len() <= line_bound(&key, envelope.len()));
            let decoded = decode(&bytes).unwrap();
            prop_assert_eq!(decoded.offset, offset);
            prop_assert_eq!(decoded.durable, durable);
            prop_assert_eq!(decoded.published_at.as_micros(), micros);
            prop_assert_eq!(decoded.key.unescape(), key.as_str());
            prop_assert_eq!(decoded.envelope, envelope.as_bytes());
        }

        #[test]
        fn what_an_encoder_wrote_before_changes_nothing(
            lines in proptest::collection::vec((0..1000u64, 0..3_000_000i64, "[a-c]{1,3}"), 1..20),
        ) {
            let (mut encoder, mut together, mut alone) = (LineEncoder::default(), Vec::new(), Vec::new());
            for (offset, micros, key) in &lines {
                let published_at = &Timestamp::from_micros(*micros).unwrap().to_text();
                let parts = LineParts { offset: *offset, durable: offset / 7, published_at, key, envelope: b"{}" };
                encoder.encode(&mut together, &parts);
                encode_line(&mut alone, &parts);
            }
            prop_assert_eq!(together, alone);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_line(&bytes);
        }

        #[test]
        fn arbitrary_text_behind_a_valid_checksum_never_panics(covered in "[\",:{}a-z0-9\\\\]{0,80}") {
            let _ = decode_line(&forged(&covered));
        }
    }
}
