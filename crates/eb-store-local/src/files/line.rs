//! One line: a JSON object that begins with a CRC-32C over every byte behind the checksum.

/// What precedes the eight digits of the checksum.
const PREFIX: &[u8] = b"{\"crc32c\":\"";
const COVERED: usize = PREFIX.len() + 8;

/// Begins a line of this sort in `out`; what follows are the object's further members, from a comma on. `start` for
/// [`end`] is where it begins.
pub(crate) fn begin(out: &mut Vec<u8>, sort: &str) -> usize {
    let start = out.len();
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(b"00000000\",\"line\":\"");
    out.extend_from_slice(sort.as_bytes());
    out.push(b'"');
    start
}

/// Ends the line that began at `start`: closes the object and fills in the checksum.
pub(crate) fn end(out: &mut Vec<u8>, start: usize) {
    out.extend_from_slice(b"}\n");
    let covered = &out[start + COVERED..out.len() - 1];
    let crc = format!("{:08x}", crc_fast::crc32_iscsi(covered));
    out[start + PREFIX.len()..start + COVERED].copy_from_slice(crc.as_bytes());
}

/// The sort of a line (without its newline) whose checksum holds.
pub(crate) fn sort(line: &[u8]) -> Option<&str> {
    let digits = line.strip_prefix(PREFIX)?.get(..8)?;
    let covered = line.get(COVERED..)?;
    let crc = format!("{:08x}", crc_fast::crc32_iscsi(covered));
    if digits != crc.as_bytes() {
        return None;
    }
    let rest = covered.strip_prefix(b"\",\"line\":\"")?;
    let end = rest.iter().position(|b| *b == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// A JSON string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    let plain = |b: &u8| !(*b < 0x20 || *b == b'"' || *b == b'\\');
    out.push(b'"');
    if text.as_bytes().iter().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c < ' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.push(b'"');
}

/// A member with any value: `,"name":…`.
pub(crate) fn member(out: &mut Vec<u8>, name: &str, value: &impl serde::Serialize) {
    name_of(out, name);
    serde_json::to_writer(&mut *out, value).expect("what the stores write always serialises into memory");
}

/// The beginning of a member: `,"name":`.
pub(crate) fn name_of(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Bytes as lower-case hexadecimal digits, in quotes.
pub(crate) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    out.extend(bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]));
    out.push(b'"');
}

/// What [`hex`] wrote.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(value: &str) -> Vec<u8> {
        let mut out = b"before\n".to_vec();
        let start = begin(&mut out, "test");
        name_of(&mut out, "value");
        text(&mut out, value);
        end(&mut out, start);
        out.split_off(start)
    }

    proptest! {
        #[test]
        fn every_line_is_json_and_any_flipped_bit_is_noticed(value in ".{0,40}", at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let good = line(&value);
            let (newline, object) = good.split_last().unwrap();
            prop_assert_eq!(*newline, b'\n');
            prop_assert_eq!(sort(object), Some("test"));
            let json: serde_json::Value = serde_json::from_slice(object).unwrap();
            prop_assert_eq!(json["value"].as_str(), Some(value.as_str()));
            let mut bad = object.to_vec();
            bad[at.index(object.len())] ^= 1 << bit;
            prop_assert_eq!(sort(&bad), None);
            prop_assert_eq!(sort(&object[..at.index(object.len())]), None);
        }

        #[test]
        fn digits_come_back(bytes in any::<[u8; 32]>()) {
            let mut out = Vec::new();
            hex(&mut out, &bytes);
            let text = std::str::from_utf8(&out[1..65]).unwrap();
            prop_assert_eq!(unhex::<32>(text), Some(bytes));
            prop_assert_eq!(unhex::<32>(&text.to_uppercase()).is_some(), text == text.to_uppercase());
        }
    }
}
