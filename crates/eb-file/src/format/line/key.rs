//! A partition key as it stands in a line: most are plain text, taken as they are.

use std::borrow::Cow;

use super::HEX;

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

/// Splits at the key's closing quote. Eight bytes at a time up to the first that is not plain ASCII text.
#[inline]
pub(super) fn take_key(text: &[u8]) -> Option<(RawKey<'_>, &[u8])> {
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
