//! Reading lines, strictly.

use eb_contract::Timestamp;

use super::encode::hex;
use super::key::take_key;
use super::{
    COVERED, CRC_DIGITS, DURABLE, ENVELOPE, KEY, Line, LineDamage, MAX_ENVELOPE_BYTES, MAX_LINE_BYTES,
    OFFSET, PREFIX, TIME,
};

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

pub(super) const SECOND_LEN: usize = 20;

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

pub(super) fn unhex(digits: &[u8; CRC_DIGITS]) -> Option<u32> {
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
