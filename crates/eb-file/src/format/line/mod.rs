//! One record as one line: encoding and strict decoding (FORMAT.md, section 2).
//!
//! Decoding allocates nothing. It checks the checksum first, in one pass over one slice; what follows then only has
//! to find the fields, and still refuses any spelling but the one that [`encode_line`] writes.

mod decode;
mod encode;
mod key;

use std::fmt;

use eb_contract::Timestamp;

pub use self::decode::{LineDecoder, checksum_holds, decode_line};
pub use self::encode::{LineEncoder, LineParts, encode_line, line_bound};
pub use self::key::RawKey;

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

const HEX: &[u8; 16] = b"0123456789abcdef";

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::decode::{SECOND_LEN, unhex};
    use super::encode::hex;
    use super::*;

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
