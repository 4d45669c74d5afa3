//! The model of the service: what each operation does to streams and what it answers.

mod admin;
mod fields;
mod list;
mod put;
mod read;
mod stream;

use std::collections::BTreeMap;

use serde_json::Value;

pub(super) use fields::{entries, shard_of};
pub use stream::{Entry, ShardInfo, StoredRecord, StreamStatus};

use super::limits::Limits;
use super::log::EntryResult;
use super::script::{Put, Read};
use super::sequence::Clock;
use super::{Fault, Op, SequenceNumber, SequenceStyle};
use stream::Stream;

/// All streams, the clock and the limits.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    style: SequenceStyle,
    streams: BTreeMap<String, Stream>,
    incarnations: u64,
    /// Iterators of earlier generations have expired.
    iterator_generation: u64,
    iterators_given: u64,
}

/// What an operation answered, and what became of the entries of a put.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) answer: Result<Value, Fault>,
    pub(super) results: Vec<EntryResult>,
}

impl From<Result<Value, Fault>> for Done {
    fn from(answer: Result<Value, Fault>) -> Self {
        Self { answer, results: Vec::new() }
    }
}

/// How a script bends what an operation does.
#[derive(Debug, Default)]
pub(super) struct Bent {
    pub(super) put: Put,
    pub(super) read: Read,
}

impl World {
    pub(super) fn new(limits: Limits, style: SequenceStyle) -> Self {
        Self {
            clock: Clock::running(),
            limits,
            style,
            streams: BTreeMap::new(),
            incarnations: 0,
            iterator_generation: 0,
            iterators_given: 0,
        }
    }

    /// Does what the request asks for. `request` is its id, written beside the records that it stores.
    pub(super) fn call(
        &mut self,
        op: Op,
        body: &Value,
        entries: &[Entry],
        request: u64,
        bent: &Bent,
    ) -> Done {
        let now = self.clock.now();
        for stream in self.streams.values_mut() {
            stream.age(now);
        }
        let answer = match op {
            Op::PutRecord | Op::PutRecords => {
                return self.put(op, body, entries, request, &bent.put).unwrap_or_else(|f| Err(f).into());
            }
            Op::GetShardIterator => self.get_shard_iterator(body, &bent.read),
            Op::GetRecords => self.get_records(body, &bent.read),
            Op::CreateStream => self.create(body),
            Op::DeleteStream => self.delete(body),
            Op::SplitShard => self.split_shard(body),
            Op::MergeShards => self.merge_shards(body),
            Op::IncreaseStreamRetentionPeriod | Op::DecreaseStreamRetentionPeriod => self.retention(op, body),
            Op::DescribeStreamSummary => self.describe_summary(body),
            Op::DescribeStream => self.describe(body),
            Op::ListShards => self.list_shards(body),
            Op::ListStreams => self.list_streams(body),
            Op::Other => Err(Fault::new(400, "UnknownOperationException", "The fake does not model this.")),
        };
        answer.into()
    }

    /// The stream of this name, whatever its state, for the test's own hands.
    fn stream_named(&mut self, name: &str) -> Result<&mut Stream, Fault> {
        let now = self.clock.now();
        let stream = self.streams.get_mut(name).ok_or_else(|| no_stream(name))?;
        stream.age(now);
        Ok(stream)
    }

    /// The stream that a request names by name or ARN.
    fn stream(&mut self, body: &Value) -> Result<&mut Stream, Fault> {
        let name = fields::stream_of(body)?
            .ok_or_else(|| Fault::validation("Either StreamARN or StreamName must be given."))?;
        self.streams.get_mut(&name).ok_or_else(|| no_stream(&name))
    }

    /// The same, of a stream that is there to be written and read.
    fn usable_stream(&mut self, body: &Value) -> Result<&mut Stream, Fault> {
        let stream = self.stream(body)?;
        match stream.status {
            StreamStatus::Active | StreamStatus::Updating => Ok(stream),
            StreamStatus::Creating | StreamStatus::Deleting => Err(no_stream(&stream.name)),
        }
    }

    pub(super) fn expire_iterators(&mut self) {
        self.iterator_generation += 1;
    }

    /// Stores a record for the test itself.
    pub(super) fn put_directly(&mut self, stream: &str, entry: &Entry) -> Result<StoredRecord, Fault> {
        let now = self.clock.now();
        let stream = self.stream_named(stream)?;
        let hash_key = put::hash_key_of(entry)?;
        stream.store(entry, hash_key, None, now, (0, 0))
    }

    /// The open shard that a partition key belongs to.
    pub(super) fn shard_of_key(&mut self, stream: &str, partition_key: &str) -> Result<String, Fault> {
        let stream = self.stream_named(stream)?;
        let owner = stream.owner(stream::hash_key(partition_key)).ok_or_else(Fault::internal)?;
        Ok(stream::shard_id(owner))
    }

    /// All that were ever stored in a stream, shard by shard.
    pub(super) fn records(&mut self, stream: &str) -> Result<Vec<StoredRecord>, Fault> {
        let stream = self.stream_named(stream)?;
        Ok(stream.shards.iter().flat_map(|s| s.records.iter().cloned()).collect())
    }

    pub(super) fn shards(&mut self, stream: &str) -> Result<Vec<ShardInfo>, Fault> {
        let stream = self.stream_named(stream)?;
        Ok((0..stream.shards.len()).map(|i| stream.info(i)).collect())
    }

    /// Takes a shard's records below `keep_from`, as retention would.
    pub(super) fn trim(
        &mut self,
        stream: &str,
        shard: &str,
        keep_from: &SequenceNumber,
    ) -> Result<(), Fault> {
        let now = self.clock.now();
        let stream = self.stream_named(stream)?;
        let index = stream.shard_index(shard, now).ok_or_else(|| no_shard(shard, stream))?;
        let shard = &mut stream.shards[index];
        let kept = shard.records.iter().position(|r| r.sequence_number >= *keep_from);
        shard.first = shard.first.max(kept.unwrap_or(shard.records.len()));
        Ok(())
    }
}

fn no_stream(name: &str) -> Fault {
    Fault::not_found(format!("Stream {name} under account 000000000000 not found."))
}

fn no_shard(id: &str, stream: &Stream) -> Fault {
    Fault::not_found(format!(
        "Could not find shard {id} in stream {} under account 000000000000.",
        stream.name
    ))
}
