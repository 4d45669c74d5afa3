//! Strings: finding their end, their characters, and their one normal form.
//!
//! The normal form is that of RFC 8785: `"` and `\` escaped with a backslash; backspace, form feed, line feed,
//! carriage return and tab as `\b \f \n \r \t`; other control characters below U+0020 as `\u00xx` in lower case;
//! everything else, `/` and U+007F included, as itself in UTF-8.

use std::borrow::Cow;

/// The place of the closing quote, and whether there was a backslash before it.
pub(super) struct End {
    pub(super) quote: usize,
    pub(super) escaped: bool,
}

/// What is wrong in a string, and at which byte.
pub(super) struct Bad {
    pub(super) byte: usize,
    pub(super) what: &'static str,
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The first byte in `bytes[at..]` that is a quote, a backslash or a control character; the length if none is.
#[inline]
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    // Eight bytes at a time: (x - 1) & !x has a byte's high bit set where that byte of x is zero, and x - 0x20
    // borrows into it where a byte is below 0x20. A borrow can spill only into higher bytes, so the lowest hit,
    // the only one used, is exact.
    while let Some(chunk) = bytes.get(at..at + 8) {
        let Ok(eight) = <[u8; 8]>::try_from(chunk) else { break };
        let word = u64::from_le_bytes(eight);
        let quote = word ^ (LOW * b'"' as u64);
        let slash = word ^ (LOW * b'\\' as u64);
        let hits = ((quote.wrapping_sub(LOW) & !quote)
            | (slash.wrapping_sub(LOW) & !slash)
            | (word.wrapping_sub(LOW * 0x20) & !word))
            & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..=0x1f) {
        at += 1;
    }
    at
}

/// Reads a string whose opening quote stands just before `start`.
#[inline]
pub(super) fn scan(bytes: &[u8], start: usize) -> Result<End, Bad> {
    let mut at = next_special(bytes, start);
    let mut escaped = false;
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(End { quote: at, escaped }),
            Some(b'\\') => {
                escaped = true;
                at = scan_escape(bytes, at)?;
            }
            Some(_) => {
                return Err(Bad { byte: at, what: "a raw control character in a string; escape it" });
            }
            None => return Err(Bad { byte: bytes.len(), what: "the text ends inside a string" }),
        }
        at = next_special(bytes, at);
    }
}

/// Reads the escape at `at` and returns the place after it.
fn scan_escape(bytes: &[u8], at: usize) -> Result<usize, Bad> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(bytes, at + 2) {
            None => Err(Bad { byte: at, what: "\\u must be followed by four hexadecimal digits" }),
            Some(0xd800..=0xdbff) => {
                let low = (bytes.get(at + 6..at + 8) == Some(b"\\u")).then(|| hex4(bytes, at + 8)).flatten();
                match low {
                    Some(0xdc00..=0xdfff) => Ok(at + 12),
                    _ => Err(Bad { byte: at, what: "an escaped surrogate without its other half" }),
                }
            }
            Some(0xdc00..=0xdfff) => {
                Err(Bad { byte: at, what: "an escaped surrogate without its other half" })
            }
            Some(_) => Ok(at + 6),
        },
        Some(_) => Err(Bad { byte: at, what: "an unknown escape in a string" }),
        None => Err(Bad { byte: bytes.len(), what: "the text ends inside a string" }),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, &b| Some(value << 4 | char::from(b).to_digit(16)?))
}

/// The closing quote of a string in text that is known to be valid JSON.
pub(super) fn end_of_valid(bytes: &[u8], start: usize) -> usize {
    let mut at = next_special(bytes, start);
    while bytes.get(at) == Some(&b'\\') {
        // `\u` needs no care: its digits are no special bytes.
        at = next_special(bytes, at + 2);
    }
    at
}

/// The characters of a valid string's inside.
pub(crate) fn chars(inner: &str) -> Chars<'_> {
    Chars { rest: inner.chars() }
}

/// See [`chars`].
pub(crate) struct Chars<'a> {
    rest: std::str::Chars<'a>,
}

impl Chars<'_> {
    fn hex4(&mut self) -> u32 {
        (0..4).fold(0, |value, _| value << 4 | self.rest.next().and_then(|c| c.to_digit(16)).unwrap_or(0))
    }
}

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c != '\\' {
            return Some(c);
        }
        Some(match self.rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut unit = self.hex4();
                if (0xd800..0xdc00).contains(&unit) {
                    // Past the `\u` of the other half, which the scanner has seen.
                    self.rest.next();
                    self.rest.next();
                    unit = 0x1_0000 + ((unit - 0xd800) << 10 | self.hex4() & 0x3ff);
                }
                char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => other,
        })
    }
}

/// A valid string's inside, unescaped; borrowed where it has no backslash.
pub(crate) fn unescape(inner: &str) -> Cow<'_, str> {
    if inner.contains('\\') { Cow::Owned(chars(inner).collect()) } else { Cow::Borrowed(inner) }
}

/// Appends a string with its quotes in the normal form.
pub(crate) fn write(content: impl Iterator<Item = char>, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for c in content {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[c as usize >> 4]);
                out.push(HEX[c as usize & 15]);
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Appends a string with its quotes in the normal form.
pub(crate) fn write_str(content: &str, out: &mut Vec<u8>) {
    let bytes = content.as_bytes();
    if next_special(bytes, 0) == bytes.len() {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    } else {
        write(content.chars(), out);
    }
}
