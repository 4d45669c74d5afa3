//! The operations that make and change streams.

use serde_json::{Value, json};

use super::fields::{count, hash_key, integer, required};
use super::stream::{Shard, Stream};
use super::{StreamStatus, World, no_shard};
use crate::kinesis_fake::{Fault, Op};

impl World {
    pub(super) fn create(&mut self, body: &Value) -> Result<Value, Fault> {
        let name = required(body, "StreamName")?;
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !(1..=128).contains(&name.len()) || !name.chars().all(valid) {
            return Err(Fault::validation(format!(
                "1 validation error detected: Value '{name}' at 'streamName' failed to satisfy constraint: Member must \
                 satisfy regular expression pattern: [a-zA-Z0-9_.-]+ and have at most 128 characters"
            )));
        }
        // An on-demand stream starts with four shards.
        let on_demand = body["StreamModeDetails"]["StreamMode"].as_str() == Some("ON_DEMAND");
        let shards = match count(body, "ShardCount", 100_000)? {
            Some(n) => n,
            None if on_demand => 4,
            None => return Err(Fault::invalid_argument("ShardCount is required for a provisioned stream.")),
        };
        self.room_for(shards)?;
        self.create_stream(name, u32::try_from(shards).unwrap_or(u32::MAX))?;
        Ok(json!({}))
    }

    pub(in crate::kinesis_fake) fn create_stream(&mut self, name: &str, shards: u32) -> Result<(), Fault> {
        if self.streams.contains_key(name) {
            return Err(Fault::in_use(format!("Stream {name} under account 000000000000 already exists.")));
        }
        self.incarnations += 1;
        let stream = Stream::new(name, self.incarnations, shards, self.clock.now(), &self.limits, self.style);
        self.streams.insert(name.to_owned(), stream);
        Ok(())
    }

    fn room_for(&self, shards: usize) -> Result<(), Fault> {
        let open = |s: &Stream| s.shards.iter().filter(|s| s.is_open()).count();
        if self.streams.values().map(open).sum::<usize>() + shards > self.limits.open_shards {
            return Err(Fault::limit_exceeded().saying(format!(
                "This request would exceed the shard limit of {} for the account 000000000000.",
                self.limits.open_shards
            )));
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, body: &Value) -> Result<Value, Fault> {
        let settles = self.limits.settles_after;
        let stream = self.stream(body)?;
        if settles > 0 {
            stream.status = StreamStatus::Deleting;
            stream.unsettled = settles;
        } else {
            let name = stream.name.clone();
            self.streams.remove(&name);
        }
        Ok(json!({}))
    }

    pub(in crate::kinesis_fake) fn delete_stream(&mut self, name: &str) -> bool {
        self.streams.remove(name).is_some()
    }

    pub(super) fn split_shard(&mut self, body: &Value) -> Result<Value, Fault> {
        let (now, settles) = (self.clock.now(), self.limits.settles_after);
        self.room_for(1)?;
        let stream = self.resting(body)?;
        let id = required(body, "ShardToSplit")?;
        let index = stream.shard_index(id, now).ok_or_else(|| no_shard(id, stream))?;
        stream.split(index, hash_key(body, "NewStartingHashKey")?, now)?;
        unsettle(stream, settles);
        Ok(json!({}))
    }

    pub(super) fn merge_shards(&mut self, body: &Value) -> Result<Value, Fault> {
        let (now, settles) = (self.clock.now(), self.limits.settles_after);
        let stream = self.resting(body)?;
        let find = |id: &str| stream.shard_index(id, now).ok_or_else(|| no_shard(id, stream));
        let first = find(required(body, "ShardToMerge")?)?;
        let second = find(required(body, "AdjacentShardToMerge")?)?;
        stream.merge(first, second, now)?;
        unsettle(stream, settles);
        Ok(json!({}))
    }

    pub(super) fn retention(&mut self, op: Op, body: &Value) -> Result<Value, Fault> {
        let stream = self.resting(body)?;
        let hours = integer(body, "RetentionPeriodHours")?.unwrap_or(0);
        let (rises, bad) = (op == Op::IncreaseStreamRetentionPeriod, !(24..=8_760).contains(&hours));
        if bad || (rises && hours < stream.retention_hours) || (!rises && hours > stream.retention_hours) {
            return Err(Fault::invalid_argument(format!(
                "Retention period {hours} hours does not fit: it is {} hours now, and may be 24 to 8760.",
                stream.retention_hours
            )));
        }
        stream.retention_hours = hours;
        Ok(json!({}))
    }

    /// Splits a shard in the middle of its range, for the test itself.
    pub(in crate::kinesis_fake) fn split_in_half(&mut self, stream: &str, id: &str) -> Result<(), Fault> {
        let now = self.clock.now();
        let stream = self.stream_named(stream)?;
        let index = stream.shard_index(id, now).ok_or_else(|| no_shard(id, stream))?;
        let (start, end) = stream.shards[index].hash_keys.clone().into_inner();
        stream.split(index, start + (end - start) / 2 + 1, now)
    }

    /// Merges two shards for the test itself.
    pub(in crate::kinesis_fake) fn merge_pair(
        &mut self,
        stream: &str,
        first: &str,
        second: &str,
    ) -> Result<(), Fault> {
        let now = self.clock.now();
        let stream = self.stream_named(stream)?;
        let find = |id: &str| stream.shard_index(id, now).ok_or_else(|| no_shard(id, stream));
        let (first, second) = (find(first)?, find(second)?);
        stream.merge(first, second, now)
    }

    /// The stream of a request that changes it, which only a stream at rest allows.
    fn resting(&mut self, body: &Value) -> Result<&mut Stream, Fault> {
        let stream = self.stream(body)?;
        if stream.status != StreamStatus::Active {
            return Err(Fault::in_use(format!(
                "Stream {} under account 000000000000 is not ACTIVE, instead in state {}.",
                stream.name,
                stream.status.name()
            )));
        }
        Ok(stream)
    }

    /// Counts a description of a stream; what was due to settle settles with the last of them.
    pub(super) fn settle(&mut self, body: &Value) -> Result<(), Fault> {
        let stream = self.stream(body)?;
        if stream.status == StreamStatus::Active {
            return Ok(());
        }
        if stream.unsettled > 0 {
            stream.unsettled -= 1;
            return Ok(());
        }
        match stream.status {
            StreamStatus::Deleting => {
                let name = stream.name.clone();
                self.streams.remove(&name);
            }
            _ => stream.status = StreamStatus::Active,
        }
        Ok(())
    }
}

fn unsettle(stream: &mut Stream, settles: u32) {
    if settles > 0 {
        stream.status = StreamStatus::Updating;
        stream.unsettled = settles;
    }
}

pub(super) fn open_shards(stream: &Stream) -> usize {
    stream.shards.iter().filter(|s| Shard::is_open(s)).count()
}
