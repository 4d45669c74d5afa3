//! Positions: strings of a kind on the wire, numbers when compared.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What an offset's text means and how it compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OffsetKind {
    /// The 0-based index of a record's line in its partition's file log; dense.
    FileLine,
    /// The 0-based index of a record in an in-process bus; dense.
    MemoryIndex,
    /// An Amazon Kinesis sequence number: an integer of up to 129 digits; sparse.
    KinesisSequence,
    /// A Redis stream id `<milliseconds>-<sequence>`, compared as two integers; sparse.
    RedisStreamId,
    /// An integer of up to 129 digits given out by a backend outside this workspace; treated as sparse.
    External,
}

impl OffsetKind {
    /// Whether every offset is its predecessor plus one, so that the next one is known.
    #[must_use]
    pub const fn is_dense(self) -> bool {
        matches!(self, Self::FileLine | Self::MemoryIndex)
    }

    /// The wire name, such as `file_line`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FileLine => "file_line",
            Self::MemoryIndex => "memory_index",
            Self::KinesisSequence => "kinesis_sequence",
            Self::RedisStreamId => "redis_stream_id",
            Self::External => "external",
        }
    }

    const fn max_digits(self) -> usize {
        // Dense kinds count records and stay within u64.
        if self.is_dense() { 20 } else { 129 }
    }
}

impl fmt::Display for OffsetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for OffsetKind {
    type Err = InvalidOffset;
    fn from_str(s: &str) -> Result<Self, InvalidOffset> {
        [Self::FileLine, Self::MemoryIndex, Self::KinesisSequence, Self::RedisStreamId, Self::External]
            .into_iter()
            .find(|k| k.as_str() == s)
            .ok_or_else(|| InvalidOffset(format!("unknown offset kind {:?}", shorten(s))))
    }
}

/// An offset text that does not fit its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOffset(String);

impl fmt::Display for InvalidOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidOffset {}

fn shorten(s: &str) -> String {
    s.chars().take(64).collect()
}

/// The place of a record in its partition: a value of a kind, held inline without allocation.
///
/// Two offsets of one kind compare as numbers; offsets of different kinds do not compare at all
/// ([`PartialOrd`] gives `None`), and are never equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offset {
    kind: OffsetKind,
    value: Value,
}

/// Canonical: `Big` only holds what does not fit `Int`, `Pair` is only used by stream ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Int(u64),
    Pair(u64, u64),
    Big(Limbs),
}

/// A number below 10¹²⁹ < 2⁴⁴⁸ in base 2⁶⁴, most significant limb first, so that arrays compare as numbers.
type Limbs = [u64; 7];

/// The largest power of ten in a u64, and its exponent.
const CHUNK: u64 = 10_000_000_000_000_000_000;
const CHUNK_DIGITS: usize = 19;

impl Offset {
    /// An offset of a dense kind (or any integer kind) from a number.
    #[must_use]
    pub const fn from_u64(kind: OffsetKind, value: u64) -> Self {
        match kind {
            OffsetKind::RedisStreamId => Self { kind, value: Value::Pair(value, 0) },
            _ => Self { kind, value: Value::Int(value) },
        }
    }

    /// A Redis stream id.
    #[must_use]
    pub const fn redis(milliseconds: u64, sequence: u64) -> Self {
        Self { kind: OffsetKind::RedisStreamId, value: Value::Pair(milliseconds, sequence) }
    }

    /// Reads an offset's text in its one canonical form: decimal digits without sign or leading zeros, or two such
    /// numbers joined by `-` for a Redis stream id.
    ///
    /// # Errors
    /// [`InvalidOffset`] when the text is not of that form or out of the kind's range.
    pub fn parse(kind: OffsetKind, text: &str) -> Result<Self, InvalidOffset> {
        let invalid = || InvalidOffset(format!("{:?} is not a {kind} offset", shorten(text)));
        let value = if kind == OffsetKind::RedisStreamId {
            let (ms, seq) = text.split_once('-').ok_or_else(invalid)?;
            Value::Pair(parse_u64(ms).ok_or_else(invalid)?, parse_u64(seq).ok_or_else(invalid)?)
        } else {
            if text.len() > kind.max_digits() {
                return Err(invalid());
            }
            match parse_u64(text) {
                Some(n) => Value::Int(n),
                None if kind.is_dense() => return Err(invalid()),
                None => Value::Big(parse_big(text).ok_or_else(invalid)?),
            }
        };
        Ok(Self { kind, value })
    }

    /// What kind of position this is.
    #[must_use]
    pub const fn kind(&self) -> OffsetKind {
        self.kind
    }

    /// The number, where it is one integer that fits.
    #[must_use]
    pub const fn as_u64(&self) -> Option<u64> {
        match self.value {
            Value::Int(n) => Some(n),
            Value::Pair(..) | Value::Big(_) => None,
        }
    }

    /// The two numbers of a Redis stream id.
    #[must_use]
    pub const fn as_redis(&self) -> Option<(u64, u64)> {
        match self.value {
            Value::Pair(ms, seq) => Some((ms, seq)),
            Value::Int(_) | Value::Big(_) => None,
        }
    }

    /// The offset right after this one; `None` for sparse kinds, where nobody knows it.
    #[must_use]
    pub fn successor(&self) -> Option<Self> {
        match self.value {
            Value::Int(n) if self.kind.is_dense() => {
                Some(Self { kind: self.kind, value: Value::Int(n.checked_add(1)?) })
            }
            _ => None,
        }
    }

    /// The offset right before this one; `None` for sparse kinds and for the first.
    #[must_use]
    pub fn predecessor(&self) -> Option<Self> {
        match self.value {
            Value::Int(n) if self.kind.is_dense() => {
                Some(Self { kind: self.kind, value: Value::Int(n.checked_sub(1)?) })
            }
            _ => None,
        }
    }
}

fn is_canonical(text: &str) -> bool {
    let b = text.as_bytes();
    !b.is_empty() && b.iter().all(u8::is_ascii_digit) && (b.len() == 1 || b[0] != b'0')
}

fn parse_u64(text: &str) -> Option<u64> {
    if is_canonical(text) { text.parse().ok() } else { None }
}

fn parse_big(text: &str) -> Option<Limbs> {
    if !is_canonical(text) {
        return None;
    }
    let mut limbs = [0u64; 7];
    let first = text.len() % CHUNK_DIGITS;
    let (head, tail) = text.split_at(first);
    let chunks = std::iter::once(head)
        .filter(|c| !c.is_empty())
        .chain((0..tail.len() / CHUNK_DIGITS).map(|i| &tail[i * CHUNK_DIGITS..(i + 1) * CHUNK_DIGITS]));
    for chunk in chunks {
        let mut carry: u64 = chunk.parse().ok()?;
        for limb in limbs.iter_mut().rev() {
            let wide = u128::from(*limb) * u128::from(CHUNK) + u128::from(carry);
            *limb = wide as u64;
            carry = (wide >> 64) as u64;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(limbs)
}

fn write_big(mut limbs: Limbs, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // 448 bits are at most 135 digits: 8 chunks of 19.
    let mut chunks = [0u64; 8];
    let mut used = 0;
    while limbs != [0; 7] {
        let mut rest = 0u128;
        for limb in &mut limbs {
            let wide = rest << 64 | u128::from(*limb);
            *limb = (wide / u128::from(CHUNK)) as u64;
            rest = wide % u128::from(CHUNK);
        }
        chunks[used] = rest as u64;
        used += 1;
    }
    let mut chunks = chunks[..used].iter().rev();
    write!(f, "{}", chunks.next().unwrap_or(&0))?;
    chunks.try_for_each(|c| write!(f, "{c:019}"))
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Int(n) => write!(f, "{n}"),
            Value::Pair(ms, seq) => write!(f, "{ms}-{seq}"),
            Value::Big(limbs) => write_big(limbs, f),
        }
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self)
    }
}

impl PartialOrd for Offset {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self.kind != other.kind {
            return None;
        }
        Some(match (&self.value, &other.value) {
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Big(a), Value::Big(b)) => a.cmp(b),
            (Value::Pair(a, b), Value::Pair(c, d)) => (a, b).cmp(&(c, d)),
            // `Big` holds only what is larger than any `Int`; `Pair` is a kind of its own.
            (Value::Big(_), _) => Ordering::Greater,
            (_, Value::Big(_)) => Ordering::Less,
            (Value::Int(_), Value::Pair(..)) | (Value::Pair(..), Value::Int(_)) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinesis(text: &str) -> Offset {
        Offset::parse(OffsetKind::KinesisSequence, text).unwrap()
    }

    #[test]
    fn offsets_compare_as_numbers_never_as_text() {
        for (small, large) in [("9", "10"), ("99", "100"), ("18446744073709551615", "18446744073709551616")] {
            assert!(kinesis(small) < kinesis(large));
        }
        assert!(
            kinesis("49590338271490256608559692538361571095921575989136588898")
                < kinesis("149590338271490256608559692538361571095921575989136588898")
        );
        let id = |t| Offset::parse(OffsetKind::RedisStreamId, t).unwrap();
        assert!(id("9-10") < id("10-2"));
        assert!(id("10-9") < id("10-10"));
    }

    #[test]
    fn offsets_of_different_kinds_never_compare() {
        let (a, b) =
            (Offset::from_u64(OffsetKind::FileLine, 1), Offset::from_u64(OffsetKind::MemoryIndex, 1));
        assert_eq!(a.partial_cmp(&b), None);
        assert_ne!(a, b);
    }

    #[test]
    fn only_the_canonical_text_is_taken() {
        for bad in ["", "-1", "+1", "01", "1.0", " 1", "x", "1-1", &"9".repeat(130)] {
            assert!(Offset::parse(OffsetKind::KinesisSequence, bad).is_err(), "{bad}");
        }
        for bad in ["1", "1-", "-1", "1-01", "1-1-1", "18446744073709551616-0"] {
            assert!(Offset::parse(OffsetKind::RedisStreamId, bad).is_err(), "{bad}");
        }
        assert!(Offset::parse(OffsetKind::FileLine, "18446744073709551616").is_err());
        assert_eq!(kinesis(&"9".repeat(129)).to_string(), "9".repeat(129));
    }

    #[test]
    fn only_dense_offsets_have_neighbours() {
        let zero = Offset::from_u64(OffsetKind::FileLine, 0);
        assert_eq!(zero.successor().unwrap().as_u64(), Some(1));
        assert_eq!(zero.predecessor(), None);
        assert_eq!(Offset::from_u64(OffsetKind::FileLine, u64::MAX).successor(), None);
        assert_eq!(kinesis("7").successor(), None);
    }

    proptest! {
        #[test]
        fn text_round_trips_and_orders_by_length_then_digits(a in "[1-9][0-9]{0,128}", b in "[1-9][0-9]{0,128}") {
            let (x, y) = (kinesis(&a), kinesis(&b));
            prop_assert_eq!(x.to_string(), a.clone());
            let expected = a.len().cmp(&b.len()).then_with(|| a.cmp(&b));
            prop_assert_eq!(x.partial_cmp(&y), Some(expected));
            prop_assert_eq!(x == y, expected == Ordering::Equal);
        }
    }
}
