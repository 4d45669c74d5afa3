//! Streams, shards and the records in them.

use std::ops::RangeInclusive;

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::kinesis_fake::limits::{Bucket, Limits, WriteRate};
use crate::kinesis_fake::{Fault, SequenceNumber, SequenceStyle};

/// One entry of a `PutRecords` call, or the record of a `PutRecord` call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The data, decoded.
    pub data: Bytes,
    /// The partition key.
    pub partition_key: String,
    /// The hash key that overrides the partition key's own, as it was sent.
    pub explicit_hash_key: Option<String>,
}

/// A record in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The shard's id.
    pub shard_id: String,
    /// Its position there.
    pub sequence_number: SequenceNumber,
    /// When it was stored, in milliseconds of the epoch by the fake's clock.
    pub arrived_millis: i64,
    /// What was stored.
    pub entry: Entry,
    /// The [`Request::id`](crate::kinesis_fake::Request::id) of the call that stored it; 0 when the test itself did.
    pub request: u64,
    /// The entry's index in that call.
    pub index: usize,
}

/// A shard, as the test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// `shardId-000000000000` and on.
    pub id: String,
    /// The shard that was split, or the first of two that were merged.
    pub parent: Option<String>,
    /// The second of two that were merged.
    pub adjacent_parent: Option<String>,
    /// The hash keys that it owns.
    pub hash_keys: RangeInclusive<u128>,
    /// A number below those of all its records.
    pub starting: SequenceNumber,
    /// When it is closed: a number above those of all its records.
    pub ending: Option<SequenceNumber>,
    /// How many records were ever stored in it.
    pub stored: usize,
    /// How many of them retention has taken.
    pub trimmed: usize,
}

/// A stream's state, as `DescribeStreamSummary` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Being made; not writable, not readable.
    Creating,
    /// At rest.
    Active,
    /// Being resharded; readable and writable.
    Updating,
    /// Being deleted.
    Deleting,
}

impl StreamStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
            Self::Deleting => "DELETING",
        }
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    /// Tells streams of one name apart that were created one after another.
    pub(super) incarnation: u64,
    pub(super) created: i64,
    pub(super) status: StreamStatus,
    /// How many descriptions are due before the status settles.
    pub(super) unsettled: u32,
    pub(super) retention_hours: i64,
    pub(super) record_bytes: usize,
    pub(super) shards: Vec<Shard>,
    style: SequenceStyle,
    numbers_given: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) parents: Vec<usize>,
    pub(super) hash_keys: RangeInclusive<u128>,
    pub(super) starting: SequenceNumber,
    pub(super) ending: Option<SequenceNumber>,
    pub(super) created: i64,
    pub(super) closed: Option<i64>,
    /// All that were ever stored; those before `first` have been trimmed.
    pub(super) records: Vec<StoredRecord>,
    pub(super) first: usize,
    written_records: Bucket,
    written_bytes: Bucket,
    pub(super) read_calls: Bucket,
    pub(super) read_bytes: Bucket,
}

impl Shard {
    pub(super) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    fn accept(&mut self, bytes: usize, rate: WriteRate, now: i64) -> bool {
        let fits = self.written_records.fits(1, rate.records, now)
            && self.written_bytes.fits(bytes, rate.bytes, now);
        if fits {
            self.written_records.take(1);
            self.written_bytes.take(bytes);
        }
        fits
    }
}

pub(super) fn shard_id(index: usize) -> String {
    format!("shardId-{index:012}")
}

pub(super) fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

impl Stream {
    pub(super) fn new(
        name: &str,
        incarnation: u64,
        shards: u32,
        now: i64,
        limits: &Limits,
        style: SequenceStyle,
    ) -> Self {
        let settles = limits.settles_after > 0;
        let mut stream = Self {
            name: name.to_owned(),
            incarnation,
            created: now,
            status: if settles { StreamStatus::Creating } else { StreamStatus::Active },
            unsettled: limits.settles_after,
            retention_hours: 24,
            record_bytes: limits.record_bytes,
            shards: Vec::new(),
            style,
            numbers_given: 0,
        };
        let n = u128::from(shards.max(1));
        // ⌊2¹²⁸/n⌋ without 2¹²⁸ itself; a single shard's width, which is that, is never used.
        let width = (u128::MAX / n).saturating_add(u128::from(u128::MAX % n == n - 1));
        for i in 0..n {
            let end = if i + 1 == n { u128::MAX } else { (i + 1) * width - 1 };
            stream.add_shard(Vec::new(), i * width..=end, now);
        }
        stream
    }

    pub(super) fn arn(&self) -> String {
        format!("arn:aws:kinesis:us-east-1:000000000000:stream/{}", self.name)
    }

    fn next_number(&mut self) -> SequenceNumber {
        self.numbers_given += 1;
        self.style.number(self.numbers_given)
    }

    /// The highest number given so far.
    pub(super) fn highest(&self) -> SequenceNumber {
        self.style.number(self.numbers_given)
    }

    fn add_shard(&mut self, parents: Vec<usize>, hash_keys: RangeInclusive<u128>, now: i64) {
        let starting = self.next_number();
        self.shards.push(Shard {
            parents,
            hash_keys,
            starting,
            ending: None,
            created: now,
            closed: None,
            records: Vec::new(),
            first: 0,
            written_records: Bucket::default(),
            written_bytes: Bucket::default(),
            read_calls: Bucket::default(),
            read_bytes: Bucket::default(),
        });
    }

    fn close_shard(&mut self, index: usize, now: i64) {
        let ending = self.next_number();
        self.shards[index].ending = Some(ending);
        self.shards[index].closed = Some(now);
    }

    pub(super) fn retention_millis(&self) -> i64 {
        self.retention_hours * 3_600_000
    }

    /// The time before which nothing is kept.
    pub(super) fn horizon(&self, now: i64) -> i64 {
        (now - self.retention_millis()).max(self.created)
    }

    /// Lets retention take what is too old.
    pub(super) fn age(&mut self, now: i64) {
        let oldest = now - self.retention_millis();
        for shard in &mut self.shards {
            let kept = shard.records[shard.first..].iter().position(|r| r.arrived_millis >= oldest);
            shard.first = kept.map_or(shard.records.len(), |n| shard.first + n);
        }
    }

    /// Whether a shard still exists: closed ones vanish once retention has passed since they were closed.
    pub(super) fn is_listed(&self, index: usize, now: i64) -> bool {
        self.shards[index].closed.is_none_or(|closed| closed >= now - self.retention_millis())
    }

    pub(super) fn shard_index(&self, id: &str, now: i64) -> Option<usize> {
        (0..self.shards.len()).find(|i| shard_id(*i) == id && self.is_listed(*i, now))
    }

    /// The open shard that owns a hash key.
    pub(super) fn owner(&self, hash_key: u128) -> Option<usize> {
        self.shards.iter().position(|s| s.is_open() && s.hash_keys.contains(&hash_key))
    }

    pub(super) fn children(&self, index: usize) -> impl Iterator<Item = usize> {
        (0..self.shards.len()).filter(move |i| self.shards[*i].parents.contains(&index))
    }

    pub(super) fn split(&mut self, index: usize, at: u128, now: i64) -> Result<(), Fault> {
        let shard = &self.shards[index];
        let range = shard.hash_keys.clone();
        if !shard.is_open() {
            return Err(not_open(index, &self.name));
        }
        if at <= *range.start() || at > *range.end() {
            return Err(Fault::invalid_argument(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {} in stream {} is not both greater than one \
                 plus the shard's StartingHashKey {} and less than the shard's EndingHashKey {}.",
                shard_id(index),
                self.name,
                range.start(),
                range.end()
            )));
        }
        self.close_shard(index, now);
        self.add_shard(vec![index], *range.start()..=at - 1, now);
        self.add_shard(vec![index], at..=*range.end(), now);
        Ok(())
    }

    pub(super) fn merge(&mut self, first: usize, second: usize, now: i64) -> Result<(), Fault> {
        for index in [first, second] {
            if !self.shards[index].is_open() {
                return Err(not_open(index, &self.name));
            }
        }
        let (a, b) = (self.shards[first].hash_keys.clone(), self.shards[second].hash_keys.clone());
        let adjacent =
            a.end().checked_add(1) == Some(*b.start()) || b.end().checked_add(1) == Some(*a.start());
        if !adjacent {
            return Err(Fault::invalid_argument(format!(
                "Shards {} and {} in stream {} are not an adjacent pair of shards eligible for merging",
                shard_id(first),
                shard_id(second),
                self.name
            )));
        }
        self.close_shard(first, now);
        self.close_shard(second, now);
        self.add_shard(vec![first, second], *a.start().min(b.start())..=*a.end().max(b.end()), now);
        Ok(())
    }

    /// Stores one record, or says why its shard does not take it.
    pub(super) fn store(
        &mut self,
        entry: &Entry,
        hash_key: u128,
        rate: Option<WriteRate>,
        now: i64,
        (request, index): (u64, usize),
    ) -> Result<StoredRecord, Fault> {
        let owner = self.owner(hash_key).ok_or_else(Fault::internal)?;
        let bytes = entry.data.len() + entry.partition_key.len();
        if rate.is_some_and(|rate| !self.shards[owner].accept(bytes, rate, now)) {
            return Err(Fault::throttled().saying(format!(
                "Rate exceeded for shard {} in stream {} under account 000000000000.",
                shard_id(owner),
                self.name
            )));
        }
        let record = StoredRecord {
            shard_id: shard_id(owner),
            sequence_number: self.next_number(),
            arrived_millis: now,
            entry: entry.clone(),
            request,
            index,
        };
        self.shards[owner].records.push(record.clone());
        Ok(record)
    }

    pub(super) fn info(&self, index: usize) -> ShardInfo {
        let shard = &self.shards[index];
        ShardInfo {
            id: shard_id(index),
            parent: shard.parents.first().copied().map(shard_id),
            adjacent_parent: shard.parents.get(1).copied().map(shard_id),
            hash_keys: shard.hash_keys.clone(),
            starting: shard.starting.clone(),
            ending: shard.ending.clone(),
            stored: shard.records.len(),
            trimmed: shard.first,
        }
    }
}

fn not_open(index: usize, stream: &str) -> Fault {
    Fault::in_use(format!("Shard {} in stream {stream} is not in the OPEN state.", shard_id(index)))
}
