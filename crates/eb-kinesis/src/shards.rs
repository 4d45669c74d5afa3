//! Shards: their numbers, hash ranges and families.
//!
//! A shard's id ends in its number (`shardId-000000000007`), which is its [`PartitionId`] and never given again within
//! a stream. A partition key belongs to the open shard whose range holds its MD5.

use std::collections::BTreeSet;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{Shard, StreamStatus};
use aws_smithy_types::DateTime;
use eb_contract::{
    BusIncarnation, Error, ErrorKind, PartitionId, PartitionInfo, Result, Timestamp, Topic, TopicPartitions,
};

use crate::error;

const SHARD_PREFIX: &str = "shardId-";

/// The number in a shard's id.
pub(crate) fn partition_of(shard_id: &str) -> Option<PartitionId> {
    let digits = shard_id.strip_prefix(SHARD_PREFIX)?;
    let fine = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    fine.then(|| digits.parse().ok().map(PartitionId)).flatten()
}

/// What a stream looked like when it was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    pub(crate) incarnation: BusIncarnation,
    /// When the stream was created.
    pub(crate) created: Timestamp,
    /// How long records are kept.
    pub(crate) retention: std::time::Duration,
    /// The most bytes of a record, its key included, where the stream says so.
    pub(crate) record_limit: Option<usize>,
    /// Sorted by number.
    pub(crate) shards: Vec<ShardInfo>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShardInfo {
    pub(crate) partition: PartitionId,
    pub(crate) shard_id: String,
    pub(crate) parents: Vec<PartitionId>,
    /// The first and the last hash that it owns.
    pub(crate) hashes: (u128, u128),
    pub(crate) closed: bool,
}

impl Layout {
    pub(crate) fn shard(&self, partition: PartitionId) -> Option<&ShardInfo> {
        self.shards.binary_search_by_key(&partition, |s| s.partition).ok().map(|i| &self.shards[i])
    }

    /// The shards that go on from this one.
    pub(crate) fn children(&self, partition: PartitionId) -> Vec<PartitionId> {
        self.shards.iter().filter(|s| s.parents.contains(&partition)).map(|s| s.partition).collect()
    }

    pub(crate) fn describe(&self) -> TopicPartitions {
        let known: BTreeSet<_> = self.shards.iter().map(|s| s.partition).collect();
        let info = |s: &ShardInfo| PartitionInfo {
            id: s.partition,
            native_id: Some(s.shard_id.clone()),
            parents: s.parents.iter().copied().filter(|p| known.contains(p)).collect(),
            closed: s.closed,
        };
        TopicPartitions {
            incarnation: self.incarnation.clone(),
            partitions: self.shards.iter().map(info).collect(),
        }
    }
}

/// Asks what the topic's stream looks like now.
pub(crate) async fn look(client: &Client, op: &'static str, topic: &Topic, stream: &str) -> Result<Layout> {
    let summary = summary(client, op, topic, stream).await?;
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    loop {
        // With a token the stream must not be named again.
        let request = match token.take() {
            None => client.list_shards().stream_name(stream),
            Some(token) => client.list_shards().next_token(token),
        };
        let page =
            request.send().await.map_err(|e| error::missing_stream(error::reading(op, topic, &e), topic))?;
        for shard in page.shards() {
            shards.push(read_shard(op, topic, shard)?);
        }
        token = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    shards.sort_by_key(|s| s.partition);
    let Summary { incarnation, created, retention, record_limit, .. } = summary;
    Ok(Layout { incarnation, created, retention, record_limit, shards })
}

/// What the summary of a stream says.
pub(crate) struct Summary {
    pub(crate) incarnation: BusIncarnation,
    pub(crate) created: Timestamp,
    pub(crate) retention: std::time::Duration,
    pub(crate) record_limit: Option<usize>,
    pub(crate) open_shards: u32,
    pub(crate) status: StreamStatus,
}

/// Asks for the stream's summary, and refuses a stream that would not keep a key in one shard.
pub(crate) async fn summary(
    client: &Client,
    op: &'static str,
    topic: &Topic,
    stream: &str,
) -> Result<Summary> {
    let answer = client
        .describe_stream_summary()
        .stream_name(stream)
        .send()
        .await
        .map_err(|e| error::missing_stream(error::reading(op, topic, &e), topic))?;
    let summary = answer
        .stream_description_summary()
        .ok_or_else(|| error::violation(op, topic, "the stream's description is missing in the answer"))?;
    if let Some(strategy) = summary.record_distribution_strategy()
        && strategy.as_str() != "USER_PARTITION_KEY"
    {
        let message =
            format!("its record distribution is {}, which scatters the records of a key", strategy.as_str());
        return Err(Error::new(ErrorKind::Unsupported, op, message)
            .at(topic)
            .advise("set the stream's record distribution strategy to USER_PARTITION_KEY"));
    }
    // A stream that is made anew under the same name has another creation time.
    let created = timestamp(summary.stream_creation_timestamp())
        .ok_or_else(|| error::violation(op, topic, "the stream's creation time cannot be"))?;
    let incarnation = BusIncarnation::new(&format!("{}@{}", summary.stream_arn(), created.as_micros()))
        .map_err(|e| error::violation(op, topic, format!("the stream's ARN cannot be used: {e}")))?;
    let record_kib = summary.max_record_size_in_kib().and_then(|kib| usize::try_from(kib).ok());
    let hours = u64::try_from(summary.retention_period_hours()).unwrap_or(0);
    Ok(Summary {
        incarnation,
        created,
        retention: std::time::Duration::from_secs(hours * 3_600),
        // 0 would be no limit that means anything.
        record_limit: record_kib.filter(|kib| *kib > 0).map(|kib| kib << 10),
        open_shards: u32::try_from(summary.open_shard_count()).unwrap_or(0),
        status: summary.stream_status().clone(),
    })
}

/// A time of the service's; `None` outside of what a [`Timestamp`] holds.
pub(crate) fn timestamp(at: &DateTime) -> Option<Timestamp> {
    let micros = at.secs().checked_mul(1_000_000)?.checked_add(i64::from(at.subsec_nanos() / 1_000))?;
    Timestamp::from_micros(micros)
}

fn read_shard(op: &'static str, topic: &Topic, shard: &Shard) -> Result<ShardInfo> {
    let bad = |what: &str| error::violation(op, topic, format!("shard {:?}: {what}", shard.shard_id()));
    let number = |id: &str| partition_of(id).ok_or_else(|| bad("its id does not end in a number of 32 bits"));
    let range = shard.hash_key_range().ok_or_else(|| bad("it has no hash range"))?;
    let hash = |text: &str| text.parse::<u128>().map_err(|_| bad("its hash range is not of 128 bits"));
    let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
    let parents = parents.into_iter().flatten().map(number).collect::<Result<Vec<_>>>()?;
    Ok(ShardInfo {
        partition: number(shard.shard_id())?,
        shard_id: shard.shard_id().to_owned(),
        parents,
        hashes: (hash(range.starting_hash_key())?, hash(range.ending_hash_key())?),
        closed: shard.sequence_number_range().is_some_and(|r| r.ending_sequence_number().is_some()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_known_by_the_number_in_its_id() {
        assert_eq!(partition_of("shardId-000000000007"), Some(PartitionId(7)));
        assert_eq!(partition_of("shardId-004294967295"), Some(PartitionId(u32::MAX)));
        for other in
            ["shardId-", "shardId-00x", "shard-000000000001", "shardId-+00000000001", "shardId-4294967296"]
        {
            assert_eq!(partition_of(other), None, "{other}");
        }
    }
}
