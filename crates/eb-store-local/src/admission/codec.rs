//! Keys and values of the index's one table.
//!
//! | key | value |
//! |---|---|
//! | `00 'c'` | the checkpoint, JSON |
//! | `00 'n'` | the number of entries, u64 |
//! | `00 'p'` number u32 | a policy epoch, JSON; numbered from 0, oldest first |
//! | `00 't'` number u16 | a topic's name; entries name it by the number |
//! | `01` event (8) dedupe (32) | an entry |
//!
//! Integers in keys are big-endian, so that they sort. An entry is
//! `payload_hash (32) · published_at (i64 BE, µs) · kind · topic · partition · offset`, where topic, partition and
//! integers of offsets are LEB128, and `kind` holds the offset's kind in its low six bits and its form in the high
//! two: 0 one integer, 1 two integers, 2 a length byte and so many decimal digits, two to a byte.

use eb_contract::stores::{AdmissionEntry, AdmissionKey};
use eb_contract::{EbRef, Error, ErrorKind, Offset, OffsetKind, PartitionId, Result, Timestamp, Topic};

pub(crate) const CHECKPOINT: &[u8] = b"\0c";
pub(crate) const COUNT: &[u8] = b"\0n";
pub(crate) const POLICIES: &[u8] = b"\0p";
pub(crate) const TOPICS: &[u8] = b"\0t";
pub(crate) const ENTRIES: &[u8] = b"\x01";

const KEY_LEN: usize = 1 + 8 + 32;
const FORM_SHIFT: u32 = 6;

/// The key of an entry.
pub(crate) fn entry_key(key: &AdmissionKey) -> [u8; KEY_LEN] {
    let mut out = [0; KEY_LEN];
    out[..1].copy_from_slice(ENTRIES);
    out[1..9].copy_from_slice(&key.event);
    out[9..].copy_from_slice(&key.dedupe);
    out
}

/// What all entries of an event id begin with.
pub(crate) fn event_prefix(event: [u8; 8]) -> [u8; 9] {
    let mut out = [0; 9];
    out[..1].copy_from_slice(ENTRIES);
    out[1..].copy_from_slice(&event);
    out
}

pub(crate) fn parse_entry_key(bytes: &[u8]) -> Option<AdmissionKey> {
    let rest = bytes.strip_prefix(ENTRIES)?;
    let (event, dedupe) = rest.split_first_chunk::<8>()?;
    Some(AdmissionKey { event: *event, dedupe: dedupe.try_into().ok()? })
}

pub(crate) fn policy_key(number: u32) -> Vec<u8> {
    [POLICIES, &number.to_be_bytes()].concat()
}

pub(crate) fn topic_key(number: u16) -> Vec<u8> {
    [TOPICS, &number.to_be_bytes()].concat()
}

fn kind_code(kind: OffsetKind) -> Option<u8> {
    Some(match kind {
        OffsetKind::FileLine => 0,
        OffsetKind::MemoryIndex => 1,
        OffsetKind::KinesisSequence => 2,
        OffsetKind::RedisStreamId => 3,
        OffsetKind::External => 4,
        _ => return None,
    })
}

fn kind_of(code: u8) -> Option<OffsetKind> {
    Some(match code {
        0 => OffsetKind::FileLine,
        1 => OffsetKind::MemoryIndex,
        2 => OffsetKind::KinesisSequence,
        3 => OffsetKind::RedisStreamId,
        4 => OffsetKind::External,
        _ => return None,
    })
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Writes the value of `entry` behind what is in `out`.
///
/// # Errors
/// `Unsupported` for an offset kind that has no code here.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &AdmissionEntry, topic: u16) -> Result<()> {
    let EbRef { partition_id, offset, published_at_utc, .. } = &entry.eb_ref;
    let kind = kind_code(offset.kind()).ok_or_else(|| {
        let what = format!("the index has no code for offsets of kind {}", offset.kind());
        Error::new(ErrorKind::Unsupported, "confirm", what)
    })?;
    out.extend_from_slice(&entry.payload_hash);
    out.extend_from_slice(&published_at_utc.as_micros().to_be_bytes());
    let form_at = out.len();
    out.push(kind);
    put_varint(out, topic.into());
    put_varint(out, partition_id.0.into());
    let form: u8 = if let Some(n) = offset.as_u64() {
        put_varint(out, n);
        0
    } else if let Some((ms, seq)) = offset.as_redis() {
        put_varint(out, ms);
        put_varint(out, seq);
        1
    } else {
        let digits = offset.to_string();
        let len = u8::try_from(digits.len()).map_err(|_| {
            Error::new(ErrorKind::Unsupported, "confirm", "the index takes offsets of up to 255 digits")
        })?;
        out.push(len);
        out.extend(digits.as_bytes().chunks(2).map(|pair| {
            let low = pair.get(1).map_or(0, |d| d - b'0');
            (pair[0] - b'0') << 4 | low
        }));
        2
    };
    out[form_at] |= form << FORM_SHIFT;
    Ok(())
}

/// Reads a value back; `None` when it is not one.
pub(crate) fn parse_entry(key: AdmissionKey, value: &[u8], topics: &[Topic]) -> Option<AdmissionEntry> {
    let mut input = Input(value);
    let payload_hash = *input.chunk::<32>()?;
    let published_at_utc = Timestamp::from_micros(i64::from_be_bytes(*input.chunk::<8>()?))?;
    let [kind] = *input.chunk::<1>()?;
    let (kind, form) = (kind_of(kind & 0x3f)?, kind >> FORM_SHIFT);
    let topic = topics.get(usize::try_from(input.varint()?).ok()?)?.clone();
    let partition_id = PartitionId(u32::try_from(input.varint()?).ok()?);
    let offset = match form {
        // Only the stream ids are pairs.
        0 if kind != OffsetKind::RedisStreamId => Offset::from_u64(kind, input.varint()?),
        1 if kind == OffsetKind::RedisStreamId => Offset::redis(input.varint()?, input.varint()?),
        2 => Offset::parse(kind, &input.digits()?).ok()?,
        _ => return None,
    };
    let eb_ref = EbRef { topic, partition_id, offset, published_at_utc };
    input.0.is_empty().then_some(AdmissionEntry { key, payload_hash, eb_ref })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.chunk::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Some(n);
            }
        }
        None
    }

    fn digits(&mut self) -> Option<String> {
        let [len] = *self.chunk::<1>()?;
        let len = usize::from(len);
        let (packed, rest) = self.0.split_at_checked(len.div_ceil(2))?;
        self.0 = rest;
        let digits = packed.iter().flat_map(|b| [b >> 4, b & 0xf]).take(len);
        digits.map(|d| char::from_digit(d.into(), 10)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offsets() -> impl Strategy<Value = Offset> {
        let parse = |kind, text: String| Offset::parse(kind, &text).unwrap();
        prop_oneof![
            any::<u64>().prop_map(|n| Offset::from_u64(OffsetKind::FileLine, n)),
            any::<u64>().prop_map(|n| Offset::from_u64(OffsetKind::MemoryIndex, n)),
            any::<(u64, u64)>().prop_map(|(a, b)| Offset::redis(a, b)),
            "0|[1-9][0-9]{0,128}".prop_map(move |t| parse(OffsetKind::KinesisSequence, t)),
            "0|[1-9][0-9]{0,128}".prop_map(move |t| parse(OffsetKind::External, t)),
        ]
    }

    fn topics() -> Vec<Topic> {
        (0..300).map(|i| Topic::new(&format!("t{i}")).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_went_in(
            offset in offsets(),
            topic in 0u16..300,
            partition in any::<u32>(),
            micros in 0..Timestamp::MAX.as_micros(),
            event in any::<[u8; 8]>(),
            dedupe in any::<[u8; 32]>(),
            payload_hash in any::<[u8; 32]>(),
        ) {
            let topics = topics();
            let key = AdmissionKey { event, dedupe };
            let eb_ref = EbRef {
                topic: topics[usize::from(topic)].clone(),
                partition_id: PartitionId(partition),
                offset,
                published_at_utc: Timestamp::from_micros(micros).unwrap(),
            };
            let entry = AdmissionEntry { key, payload_hash, eb_ref };
            let mut value = Vec::new();
            put_entry(&mut value, &entry, topic).unwrap();
            prop_assert_eq!(parse_entry_key(&entry_key(&key)), Some(key));
            let back = parse_entry(key, &value, &topics).unwrap();
            prop_assert_eq!(back.eb_ref.published_at_utc, entry.eb_ref.published_at_utc);
            prop_assert_eq!(back, entry);
            for len in 0..value.len() {
                prop_assert_eq!(parse_entry(key, &value[..len], &topics), None);
            }
        }

        #[test]
        fn arbitrary_bytes_are_an_entry_or_not_but_never_a_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let key = AdmissionKey { event: [0; 8], dedupe: [0; 32] };
            let _ = parse_entry(key, &value, &topics());
            let _ = parse_entry_key(&value);
        }
    }

    #[test]
    fn keys_sort_checkpoint_first_and_entries_last() {
        let entry = entry_key(&AdmissionKey { event: [0; 8], dedupe: [0; 32] });
        let keys: [&[u8]; 7] =
            [CHECKPOINT, COUNT, &policy_key(0), &policy_key(256), &topic_key(0), &topic_key(256), &entry];
        assert!(keys.is_sorted());
    }
}
