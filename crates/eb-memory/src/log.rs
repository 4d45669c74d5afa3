//! One partition: a vector of records and what was trimmed from its front.

use std::collections::VecDeque;

use eb_contract::{
    Cut, EbRef, Head, Offset, OffsetKind, PartitionId, PartitionInfo, PublishRecord, ReadBatch, ReadLimit,
    ReadState, Record, Result, StartAt, Timestamp, Topic,
};

use crate::config::Offsets;
use crate::error;

/// The keys whose hash lies in `from..=to` belong to the partition while it is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashRange {
    pub(crate) from: u128,
    pub(crate) to: u128,
}

impl HashRange {
    pub(crate) fn contains(&self, hash: u128) -> bool {
        (self.from..=self.to).contains(&hash)
    }

    /// `n` ranges of equal width, the last one taking the rest.
    pub(crate) fn split_evenly(n: u32) -> Vec<Self> {
        let count = u128::from(n);
        // ⌊2¹²⁸/n⌋ without 2¹²⁸ itself; for n = 1 it does not fit, and nothing needs it.
        let width =
            if n == 1 { u128::MAX } else { u128::MAX / count + u128::from(u128::MAX % count == count - 1) };
        (0..count)
            .map(|i| Self {
                from: i * width,
                to: if i + 1 == count { u128::MAX } else { (i + 1) * width - 1 },
            })
            .collect()
    }
}

pub(crate) struct PartitionLog {
    pub(crate) topic: Topic,
    pub(crate) id: PartitionId,
    pub(crate) parents: Vec<PartitionId>,
    /// Set once the partition is closed.
    pub(crate) children: Option<Vec<PartitionId>>,
    pub(crate) range: HashRange,
    offsets: Offsets,
    records: VecDeque<Record>,
    /// How many records were ever appended.
    appended: u64,
    /// The last record that was trimmed.
    trimmed: Option<Offset>,
    last_published_at: Timestamp,
}

impl PartitionLog {
    pub(crate) fn new(
        topic: Topic,
        id: PartitionId,
        parents: Vec<PartitionId>,
        range: HashRange,
        offsets: Offsets,
    ) -> Self {
        Self {
            topic,
            id,
            parents,
            children: None,
            range,
            offsets,
            records: VecDeque::new(),
            appended: 0,
            trimmed: None,
            last_published_at: Timestamp::EPOCH,
        }
    }

    pub(crate) fn info(&self) -> PartitionInfo {
        PartitionInfo {
            id: self.id,
            native_id: None,
            parents: self.parents.clone(),
            closed: self.children.is_some(),
        }
    }

    pub(crate) fn append(&mut self, record: PublishRecord) -> EbRef {
        let published_at_utc = Timestamp::now().max(self.last_published_at);
        let eb_ref = EbRef {
            topic: self.topic.clone(),
            partition_id: self.id,
            offset: self.offset_of(self.appended),
            published_at_utc,
        };
        self.appended += 1;
        self.last_published_at = published_at_utc;
        self.records.push_back(Record {
            eb_ref: eb_ref.clone(),
            partition_key: record.partition_key,
            envelope: record.envelope,
        });
        eb_ref
    }

    /// Drops every record before `before`; returns how many bytes that gave back.
    pub(crate) fn trim(&mut self, before: &Cut) -> usize {
        let mut freed = 0;
        while let Some(first) = self.records.front() {
            if before.is_before(&first.eb_ref.offset) != Some(false) {
                break;
            }
            freed += size_of(&first.partition_key, first.envelope.len());
            self.trimmed = Some(first.eb_ref.offset);
            self.records.pop_front();
        }
        freed
    }

    pub(crate) fn head(&self) -> Head {
        let last = self.last_offset();
        Head { cut: self.head_cut(), last, last_published_at: last.map(|_| self.last_published_at) }
    }

    /// Turns a start into the cut to read from.
    pub(crate) fn resolve(&self, start: StartAt) -> Result<Cut> {
        let cut = match start {
            StartAt::Earliest => self.trimmed.map_or(Cut::Begin, Cut::past),
            StartAt::Latest => self.head_cut(),
            StartAt::Timestamp(at) => {
                let first = self.records.partition_point(|r| r.eb_ref.published_at_utc < at);
                self.records.get(first).map_or_else(|| self.head_cut(), |r| Cut::Next(r.eb_ref.offset))
            }
            // What was trimmed is known exactly.
            StartAt::Cut(cut) | StartAt::Resume { cut, .. } => {
                self.check_kind(&cut)?;
                if matches!(cut, Cut::End) && self.children.is_none() {
                    return Err(error::invalid(
                        "cursor",
                        self.place(),
                        "the partition is open and has no end yet",
                    ));
                }
                cut
            }
        };
        self.check_horizon(&cut)?;
        Ok(cut)
    }

    /// What lies after `cut`, within `limit`, without waiting.
    pub(crate) fn read(&self, cut: Cut, limit: &ReadLimit) -> Result<ReadBatch> {
        self.check_horizon(&cut)?;
        let first = self.records.partition_point(|r| cut.is_before(&r.eb_ref.offset) == Some(false));
        let mut bytes = 0usize;
        let records: Vec<Record> = self
            .records
            .range(first..)
            .take(limit.max_records.max(1))
            .take_while(|r| {
                let is_first = bytes == 0;
                bytes = bytes.saturating_add(r.envelope.len());
                is_first || bytes <= limit.max_bytes
            })
            .cloned()
            .collect();
        let next = records.last().map_or(cut, |r| Cut::past(r.eb_ref.offset));
        if first + records.len() < self.records.len() {
            return Ok(ReadBatch { records, next, state: ReadState::More });
        }
        Ok(match &self.children {
            Some(children) => {
                ReadBatch { records, next: Cut::End, state: ReadState::Closed { children: children.clone() } }
            }
            None => ReadBatch { records, next, state: ReadState::CaughtUp },
        })
    }

    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.topic, self.id)
    }

    fn check_kind(&self, cut: &Cut) -> Result<()> {
        match cut.offset_kind() {
            Some(kind) if kind != self.kind() => Err(error::invalid(
                "cursor",
                self.place(),
                format!("the cut is of kind {kind}, the bus's offsets are of kind {}", self.kind()),
            )),
            _ => Ok(()),
        }
    }

    fn check_horizon(&self, cut: &Cut) -> Result<()> {
        match self.trimmed {
            Some(gone) if cut.is_before(&gone) == Some(true) => {
                Err(error::out_of_range(&self.place(), self.records.front().map(|r| r.eb_ref.offset)))
            }
            _ => Ok(()),
        }
    }

    fn last_offset(&self) -> Option<Offset> {
        self.records.back().map(|r| r.eb_ref.offset)
    }

    fn head_cut(&self) -> Cut {
        match self.last_offset().or(self.trimmed) {
            Some(last) => Cut::past(last),
            None if self.kind().is_dense() => Cut::Next(self.offset_of(0)),
            None => Cut::Begin,
        }
    }

    fn kind(&self) -> OffsetKind {
        match self.offsets {
            Offsets::Dense => OffsetKind::MemoryIndex,
            Offsets::Sparse => OffsetKind::External,
        }
    }

    fn offset_of(&self, index: u64) -> Offset {
        match self.offsets {
            Offsets::Dense => Offset::from_u64(OffsetKind::MemoryIndex, index),
            Offsets::Sparse => {
                // Steps of 2, 3 or 4 that pass 9→10 and 99→100, then a jump beyond 64 bits.
                const WIDE: u128 = 90_000_000_000_000_000_000_000_000_000_000_000_000;
                let small = 3 * u128::from(index) + 1 + u128::from(index % 2);
                let value = if index < 200 { small } else { WIDE + small };
                Offset::parse(OffsetKind::External, &value.to_string())
                    .expect("a u128 in decimal is a canonical integer of at most 39 digits")
            }
        }
    }
}

pub(crate) fn size_of(key: &eb_contract::PartitionKey, envelope: usize) -> usize {
    key.as_str().len() + envelope
}

#[cfg(test)]
mod tests {
    use super::*;
    use eb_contract::{PartitionKey, partition_for};

    #[test]
    fn even_ranges_follow_the_key_to_partition_rule() {
        for n in [1u32, 2, 3, 4, 7, 8, 1000] {
            let ranges = HashRange::split_evenly(n);
            assert_eq!((ranges[0].from, ranges[n as usize - 1].to), (0, u128::MAX));
            for key in 0..200 {
                let key = PartitionKey::new(format!("key-{key}")).unwrap();
                let owner = ranges.iter().position(|r| r.contains(eb_contract::key_hash(&key))).unwrap();
                assert_eq!(owner as u32, partition_for(&key, n).0);
            }
        }
    }

    #[test]
    fn sparse_offsets_rise_with_gaps_past_64_bits() {
        let range = HashRange { from: 0, to: u128::MAX };
        let log = PartitionLog::new(Topic::new("t").unwrap(), PartitionId(0), vec![], range, Offsets::Sparse);
        let all: Vec<_> = (0..400).map(|i| log.offset_of(i)).collect();
        assert!(all.windows(2).all(|w| w[0] < w[1]));
        assert!(all[0].as_u64().is_some() && all[399].as_u64().is_none());
    }
}
