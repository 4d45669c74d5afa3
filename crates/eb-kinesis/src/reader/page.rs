//! One page of a shard, and its records as records of the bus.

use std::collections::VecDeque;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types;
use bytes::Bytes;
use eb_contract::{
    EbRef, EnvelopeLimits, EnvelopeRef, Error, ErrorKind, Offset, OffsetKind, PartitionId, PartitionKey,
    Record, Result, Timestamp,
};

use tokio::time::Instant;

use crate::config::service;
use crate::reader::shard::Shard;
use crate::{error, shards};

/// What the Kinesis Producer Library puts before many records that it has packed into one.
const AGGREGATED: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

/// A page of so many bytes may have been cut short: the service stops at 10 MiB, or after what two seconds allow.
const CUT_SHORT_BYTES: usize = 1 << 20;

/// A record as it came, its number and time read.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) offset: Offset,
    pub(crate) arrived: Timestamp,
    pub(crate) size: usize,
    key: Option<String>,
    data: Bytes,
}

/// What one `GetRecords` call brought.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: VecDeque<Raw>,
    /// Where to go on; `None` at the end of a closed shard.
    pub(crate) next: Option<String>,
    /// Whether the service said that nothing lay behind this page.
    pub(crate) caught_up: bool,
    /// How far behind the newest record it says that this page is, in milliseconds.
    pub(crate) behind: Option<i64>,
    /// Named at the end of a closed shard, by engines that do.
    pub(crate) children: Vec<PartitionId>,
    /// Taken before the call: what was not there then has arrived later.
    pub(crate) asked_at: Timestamp,
    /// The same on the clock that only goes forward.
    pub(crate) asked: Instant,
}

impl Page {
    /// Reads the answer to a call for up to `limit` records. Numbers must rise within a page.
    pub(crate) fn read(
        shard: &Shard,
        answer: GetRecordsOutput,
        limit: usize,
        (asked_at, asked): (Timestamp, Instant),
    ) -> Result<Self> {
        let behind = answer.millis_behind_latest;
        // An engine that takes the distance by arrival times says 0 also where a page ends in the middle of a
        // millisecond: after a page that may have been cut short, only the next call tells.
        let bytes: usize = answer.records.iter().map(|r| r.data().as_ref().len()).sum();
        let whole = answer.records.len() < limit && bytes < CUT_SHORT_BYTES;
        let children = answer.child_shards.unwrap_or_default().into_iter().map(|c| child(shard, &c));
        let mut page = Self {
            records: VecDeque::with_capacity(answer.records.len()),
            next: answer.next_shard_iterator.filter(|i| !i.is_empty()),
            caught_up: behind == Some(0) && whole,
            behind,
            children: children.collect::<Result<_>>()?,
            asked_at,
            asked,
        };
        for record in answer.records {
            let raw = raw(shard, record)?;
            if let Some(before) = page.records.back()
                && raw.offset <= before.offset
            {
                let message = format!("sequence number {} came after {}", raw.offset, before.offset);
                return Err(error::violation("read", shard.place(), message));
            }
            page.records.push_back(raw);
        }
        Ok(page)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(|r| r.size).sum()
    }
}

fn child(shard: &Shard, child: &types::ChildShard) -> Result<PartitionId> {
    shards::partition_of(child.shard_id()).ok_or_else(|| {
        let message =
            format!("child shard {:?}: its id does not end in a number of 32 bits", child.shard_id());
        error::violation("read", shard.place(), message)
    })
}

fn raw(shard: &Shard, record: types::Record) -> Result<Raw> {
    let bad = |what: String| error::violation("read", shard.place(), what);
    let offset = Offset::parse(OffsetKind::KinesisSequence, &record.sequence_number)
        .map_err(|e| bad(format!("a record's sequence number cannot be read: {e}")))?;
    let arrived = record
        .approximate_arrival_timestamp
        .as_ref()
        .and_then(shards::timestamp)
        .ok_or_else(|| bad(format!("record {offset} has no arrival time")))?;
    let data = Bytes::from(record.data.into_inner());
    let size = data.len() + record.partition_key.as_ref().map_or(0, String::len);
    Ok(Raw { offset, arrived, size, key: record.partition_key, data })
}

impl Raw {
    /// Bytes of the envelope.
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// The record of the bus that this is.
    ///
    /// # Errors
    /// Of a stream into which others write there may be what no publisher of ours puts there. It is an error at its
    /// place, never passed over.
    pub(crate) fn record(&self, shard: &Shard) -> Result<Record> {
        if self.data.starts_with(&AGGREGATED) {
            let message =
                "it is an aggregated record of the Kinesis Producer Library, which holds many records";
            return Err(Error::new(ErrorKind::Unsupported, "read", message)
                .at(self.place(shard))
                .advise("have the producer go through the gate, or switch its aggregation off"));
        }
        let key = self.key.clone().unwrap_or_default();
        let partition_key = PartitionKey::new(key)
            .map_err(|e| self.foreign(shard, &format!("its partition key is none of ours: {e}")))?;
        let limits =
            EnvelopeLimits { max_bytes: service::BYTES_PER_RECORD, max_depth: EnvelopeLimits::MAX_DEPTH };
        let envelope = EnvelopeRef::with_limits(self.data.clone(), limits)
            .map_err(|e| self.foreign(shard, &format!("it is no envelope: {e}")))?;
        let eb_ref = EbRef {
            topic: shard.topic.clone(),
            partition_id: shard.partition,
            offset: self.offset,
            published_at_utc: self.arrived,
        };
        Ok(Record { eb_ref, partition_key, envelope })
    }

    fn place(&self, shard: &Shard) -> String {
        format!("{}@{}", shard.place(), self.offset)
    }

    fn foreign(&self, shard: &Shard, what: &str) -> Error {
        let kind = ErrorKind::Corrupt {
            file: format!("{}/{}", shard.stream, shard.shard_id),
            line: None,
            byte: None,
        };
        Error::new(kind, "read", format!("the record was not published by a bus: {what}"))
            .at(self.place(shard))
            .advise("find out who else writes to this stream; to go on, start after this record")
    }
}
