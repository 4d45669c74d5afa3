//! Digests of what a bus holds, the same on every backend that holds the same facts.
//!
//! Two digests over one topic:
//! - **per partition**: SHA-256 over every record in order, as `u64-BE key length ‖ key ‖ u64-BE envelope length ‖
//!   envelope`. Equal logs have equal digests; offsets and times do not take part.
//! - **per-key sequences of first occurrences**: for each key the sequence of its distinct envelopes in the order in
//!   which each first occurred; SHA-256 over, for each key in byte order, `u64-BE key length ‖ key ‖ u64-BE count ‖
//!   SHA-256(the SHA-256 of each envelope in turn)`. It ignores how keys are spread over partitions and copies left by retries, so a
//!   one-partition file log and an eight-shard stream that hold the same facts agree.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::Record;

/// A SHA-256 digest, shown as lowercase hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// The digest of one partition, fed record by record in order.
#[derive(Clone, Default)]
pub struct PartitionDigest {
    hash: Sha256,
    records: u64,
}

impl PartitionDigest {
    /// Takes the next record.
    pub fn add(&mut self, record: &Record) {
        self.add_parts(record.partition_key.as_str(), record.envelope.as_bytes());
    }

    /// Takes the next record's key and envelope: for those who have no [`Record`] of it.
    pub fn add_parts(&mut self, key: &str, envelope: &[u8]) {
        self.hash.update((key.len() as u64).to_be_bytes());
        self.hash.update(key);
        self.hash.update((envelope.len() as u64).to_be_bytes());
        self.hash.update(envelope);
        self.records += 1;
    }

    /// How many records were taken.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The digest of what was taken.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }
}

/// The digest over per-key sequences of first occurrences, fed with all partitions of a topic, each in order (and
/// parents before their children).
///
/// Memory: about 80 bytes for each distinct envelope.
#[derive(Default)]
pub struct KeySequenceDigest {
    keys: BTreeMap<Box<str>, KeySequence>,
    records: u64,
}

#[derive(Default)]
struct KeySequence {
    order: Sha256,
    seen: HashSet<[u8; 32]>,
}

impl KeySequenceDigest {
    /// Takes the next record of its partition.
    pub fn add(&mut self, record: &Record) {
        self.add_parts(record.partition_key.as_str(), record.envelope.as_bytes());
    }

    /// Takes the next record's key and envelope: for those who have no [`Record`] of it.
    pub fn add_parts(&mut self, key: &str, envelope: &[u8]) {
        self.records += 1;
        let envelope: [u8; 32] = Sha256::digest(envelope).into();
        // A record's key may be a slice of a large block: a new one is kept as a copy of its own.
        let sequence = match self.keys.get_mut(key) {
            Some(sequence) => sequence,
            None => self.keys.entry(key.into()).or_default(),
        };
        if sequence.seen.insert(envelope) {
            sequence.order.update(envelope);
        }
    }

    /// How many records were taken, copies counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many distinct first occurrences were taken.
    #[must_use]
    pub fn first_occurrences(&self) -> u64 {
        self.keys.values().map(|k| k.seen.len() as u64).sum()
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The digest of what was taken.
    #[must_use]
    pub fn finish(&self) -> Digest {
        let mut all = Sha256::new();
        for (key, sequence) in &self.keys {
            all.update((key.len() as u64).to_be_bytes());
            all.update(key.as_bytes());
            all.update((sequence.seen.len() as u64).to_be_bytes());
            all.update(sequence.order.clone().finalize());
        }
        Digest(all.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EbRef, EnvelopeRef, Offset, OffsetKind, PartitionId, PartitionKey, Timestamp, Topic};

    fn record(partition: u32, offset: u64, key: &str, body: u32) -> Record {
        Record {
            eb_ref: EbRef {
                topic: Topic::new("t").unwrap(),
                partition_id: PartitionId(partition),
                offset: Offset::from_u64(OffsetKind::FileLine, offset),
                published_at_utc: Timestamp::EPOCH,
            },
            partition_key: PartitionKey::new(key.to_owned()).unwrap(),
            envelope: EnvelopeRef::new(format!("{{\"n\":{body}}}")).unwrap(),
        }
    }

    fn sequences(records: &[Record]) -> Digest {
        let mut d = KeySequenceDigest::default();
        records.iter().for_each(|r| d.add(r));
        d.finish()
    }

    #[test]
    fn spreading_keys_over_partitions_and_late_copies_change_nothing() {
        let one = [record(0, 0, "a", 1), record(0, 1, "b", 2), record(0, 2, "a", 3)];
        let spread =
            [record(1, 7, "b", 2), record(0, 4, "a", 1), record(0, 9, "a", 3), record(0, 10, "a", 1)];
        assert_eq!(sequences(&one), sequences(&spread));
    }

    #[test]
    fn order_within_a_key_and_the_key_itself_matter() {
        let base = sequences(&[record(0, 0, "a", 1), record(0, 1, "a", 2)]);
        assert_ne!(base, sequences(&[record(0, 0, "a", 2), record(0, 1, "a", 1)]));
        assert_ne!(base, sequences(&[record(0, 0, "b", 1), record(0, 1, "a", 2)]));
        assert_ne!(base, sequences(&[record(0, 0, "a", 1)]));
    }

    #[test]
    fn a_partition_digest_counts_every_copy() {
        let digest = |records: &[Record]| {
            let mut d = PartitionDigest::default();
            records.iter().for_each(|r| d.add(r));
            d.finish()
        };
        assert_ne!(digest(&[record(0, 0, "a", 1)]), digest(&[record(0, 0, "a", 1), record(0, 1, "a", 1)]));
        assert_eq!(digest(&[record(0, 0, "a", 1)]), digest(&[record(3, 9, "a", 1)]));
    }
}
