//! `GetShardIterator` and `GetRecords`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::fields::{count, required, seconds, text, timestamp};
use super::stream::{Shard, Stream, shard_id};
use super::{StoredRecord, StreamStatus, World, no_shard, no_stream};
use crate::kinesis_fake::limits::BelowHorizon;
use crate::kinesis_fake::script::Read;
use crate::kinesis_fake::sequence::millis;
use crate::kinesis_fake::{Fault, SequenceNumber};

/// What a shard iterator says inside.
#[derive(Debug)]
struct Iterator {
    stream: String,
    incarnation: u64,
    shard: usize,
    /// How many records of the shard lie before it.
    position: usize,
    issued: i64,
    generation: u64,
    /// Makes no two iterators alike.
    nonce: u64,
    /// How many empty pages below the horizon led to it.
    stalls: u32,
}

impl Iterator {
    fn encode(&self) -> String {
        STANDARD.encode(format!(
            "1|{}|{}|{}|{}|{}|{}|{}|{}",
            self.incarnation,
            self.shard,
            self.position,
            self.issued,
            self.generation,
            self.nonce,
            self.stalls,
            self.stream
        ))
    }

    fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
        let mut fields = text.splitn(9, '|');
        if fields.next() != Some("1") {
            return None;
        }
        Some(Self {
            incarnation: fields.next()?.parse().ok()?,
            shard: fields.next()?.parse().ok()?,
            position: fields.next()?.parse().ok()?,
            issued: fields.next()?.parse().ok()?,
            generation: fields.next()?.parse().ok()?,
            nonce: fields.next()?.parse().ok()?,
            stalls: fields.next()?.parse().ok()?,
            stream: fields.next()?.to_owned(),
        })
    }
}

/// The position, stream and shard that an iterator stands for.
pub(super) fn names_in(iterator: &str) -> Option<(usize, String, String)> {
    Iterator::decode(iterator).map(|i| (i.position, i.stream, shard_id(i.shard)))
}

impl World {
    pub(super) fn get_shard_iterator(&mut self, body: &Value, script: &Read) -> Result<Value, Fault> {
        let now = self.clock.now();
        let generation = self.iterator_generation;
        let refuses = self.limits.below_horizon == BelowHorizon::Refuse;
        self.iterators_given += 1;
        let nonce = self.iterators_given;
        let stream = self.usable_stream(body)?;
        let id = required(body, "ShardId")?;
        let index = stream.shard_index(id, now).ok_or_else(|| no_shard(id, stream))?;
        let shard = &stream.shards[index];
        let records = &shard.records;
        let kind = required(body, "ShardIteratorType")?;
        if matches!(kind, "TRIM_HORIZON" | "LATEST") && !body["StartingSequenceNumber"].is_null() {
            return Err(Fault::invalid_argument(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
                 TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and also a \
                 StartingSequenceNumber."
            )));
        }
        let position = match kind {
            "TRIM_HORIZON" => shard.first,
            "LATEST" => records.len(),
            "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" => {
                let start = starting_number(body, index, stream)?;
                let at = records.partition_point(|r| r.sequence_number < start);
                if refuses && at < shard.first {
                    return Err(Fault::invalid_argument(format!(
                        "StartingSequenceNumber {start} used in GetShardIterator on shard {id} in stream {} under \
                         account 000000000000 is invalid because it is older than the retention period.",
                        stream.name
                    )));
                }
                let found = records.get(at).is_some_and(|r| r.sequence_number == start);
                let after = kind == "AFTER_SEQUENCE_NUMBER" && !script.after_returns_start;
                at + usize::from(found && after)
            }
            "AT_TIMESTAMP" => {
                let from = timestamp(body, "Timestamp")?.ok_or_else(|| {
                    Fault::invalid_argument("Must specify timestampInMillis for AT_TIMESTAMP.")
                })?;
                if from > now {
                    return Err(Fault::invalid_argument(format!(
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                         timestampInMillis: {from}, currentTimestampInMillis: {now}"
                    )));
                }
                records.iter().position(|r| r.arrived_millis >= from).unwrap_or(records.len())
            }
            other => {
                return Err(Fault::validation(format!(
                    "1 validation error detected: Value '{other}' at 'shardIteratorType' failed to satisfy constraint: \
                     Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, \
                     AT_SEQUENCE_NUMBER, TRIM_HORIZON]"
                )));
            }
        };
        let iterator = Iterator {
            stream: stream.name.clone(),
            incarnation: stream.incarnation,
            shard: index,
            position,
            issued: now,
            generation,
            nonce,
            stalls: 0,
        };
        Ok(json!({"ShardIterator": iterator.encode()}))
    }

    pub(super) fn get_records(&mut self, body: &Value, script: &Read) -> Result<Value, Fault> {
        let (now, limits) = (self.clock.now(), self.limits.clone());
        let limit = count(body, "Limit", 10_000)?.unwrap_or(10_000).min(limits.get_records);
        let limit = script.page.map_or(limit, |n| limit.min(n));
        let iterator = Iterator::decode(required(body, "ShardIterator")?)
            .ok_or_else(|| Fault::invalid_argument("Invalid ShardIterator."))?;
        let age = now - iterator.issued;
        if iterator.generation != self.iterator_generation || age > millis(limits.iterator_life) {
            return Err(Fault::expired_iterator().saying(format!(
                "Iterator expired. The iterator was created {age} milliseconds ago; the tolerated delay is {} \
                 milliseconds.",
                millis(limits.iterator_life)
            )));
        }
        self.iterators_given += 1;
        let nonce = self.iterators_given;
        let stream = self
            .streams
            .get_mut(&iterator.stream)
            .filter(|s| s.incarnation == iterator.incarnation)
            .filter(|s| matches!(s.status, StreamStatus::Active | StreamStatus::Updating))
            .ok_or_else(|| no_stream(&iterator.stream))?;
        if !stream.is_listed(iterator.shard, now) {
            return Err(no_shard(&shard_id(iterator.shard), stream));
        }
        let shard = &mut stream.shards[iterator.shard];
        if let Some(rate) = limits.read_rate {
            if !shard.read_calls.fits(1, rate.calls, now) || !shard.read_bytes.is_open(rate.bytes, now) {
                return Err(Fault::throttled().saying(format!(
                    "Rate exceeded for shard {} in stream {} under account 000000000000.",
                    shard_id(iterator.shard),
                    iterator.stream
                )));
            }
            shard.read_calls.take(1);
        }
        // What retention has taken is skipped, without a word or after a while.
        let from = iterator.position.max(shard.first);
        let below = iterator.position < shard.first;
        let stalls = match limits.below_horizon {
            BelowHorizon::EmptyPages(n) => below && iterator.stalls < n,
            BelowHorizon::Jump | BelowHorizon::Refuse => false,
        };
        let stays = stalls || script.empty;
        let page = if stays { &[][..] } else { page(&shard.records[from..], limit, limits.get_bytes) };
        let bytes: usize = page.iter().map(size).sum();
        let records: Vec<_> = page.iter().map(record).collect();
        let position = if stays { iterator.position } else { from + page.len() };
        let behind = shard.records.get(position).map_or(0, |r| (now - r.arrived_millis).max(1));
        shard.read_bytes.take(bytes);
        let behind = if stalls { behind.min(stream.retention_millis()) } else { behind };
        let shard = &stream.shards[iterator.shard];
        let mut answer = json!({
            "Records": records,
            "MillisBehindLatest": script.millis_behind.unwrap_or(behind),
        });
        if !shard.is_open() && position == shard.records.len() && !stays {
            answer["NextShardIterator"] = Value::Null;
            answer["ChildShards"] = stream.children(iterator.shard).map(|c| child(stream, c)).collect();
        } else {
            let stalls = iterator.stalls + u32::from(stalls);
            let next = Iterator { position, issued: now, nonce, stalls, ..iterator };
            answer["NextShardIterator"] = next.encode().into();
        }
        Ok(answer)
    }
}

fn size(record: &StoredRecord) -> usize {
    record.entry.data.len() + record.entry.partition_key.len()
}

fn starting_number(body: &Value, index: usize, stream: &Stream) -> Result<SequenceNumber, Fault> {
    let given = text(body, "StartingSequenceNumber")?.ok_or_else(|| {
        Fault::invalid_argument("Must specify startingSequenceNumber for this iterator type.")
    })?;
    let number = SequenceNumber::parse(given)
        .ok_or_else(|| Fault::invalid_argument(format!("StartingSequenceNumber {given} is invalid.")))?;
    let holds = |shard: &Shard| {
        let found = shard.records.binary_search_by(|r| r.sequence_number.cmp(&number));
        found.is_ok() || shard.starting == number || shard.ending.as_ref() == Some(&number)
    };
    if let Some(other) = stream.shards.iter().position(holds).filter(|other| *other != index) {
        return Err(Fault::invalid_argument(format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to {}",
            shard_id(other),
            shard_id(index)
        )));
    }
    let shard = &stream.shards[index];
    let highest = shard.ending.clone().unwrap_or_else(|| stream.highest());
    if number < shard.starting || number > highest {
        return Err(Fault::invalid_argument(format!(
            "StartingSequenceNumber {given} used in GetShardIterator on shard {} in stream {} under account \
             000000000000 is invalid because it did not come from this stream.",
            shard_id(index),
            stream.name
        )));
    }
    Ok(number)
}

/// As many records as fit, one at least.
fn page(records: &[StoredRecord], most: usize, most_bytes: usize) -> &[StoredRecord] {
    let mut bytes = 0;
    let fitting = records.iter().take(most).enumerate().take_while(|(i, r)| {
        bytes += size(r);
        *i == 0 || bytes <= most_bytes
    });
    &records[..fitting.count()]
}

fn record(record: &StoredRecord) -> Value {
    json!({
        "SequenceNumber": record.sequence_number.as_str(),
        "ApproximateArrivalTimestamp": seconds(record.arrived_millis),
        "Data": STANDARD.encode(&record.entry.data),
        "PartitionKey": record.entry.partition_key,
    })
}

fn child(stream: &Stream, index: usize) -> Value {
    let shard = &stream.shards[index];
    json!({
        "ShardId": shard_id(index),
        "ParentShards": shard.parents.iter().copied().map(shard_id).collect::<Vec<_>>(),
        "HashKeyRange": super::list::hash_key_range(shard),
    })
}
