//! A Kinesis engine as an operator uses it, beside the bus: shards split and merged, streams deleted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::types::{Shard, StreamDescriptionSummary, StreamStatus};
use eb_kinesis::Timeouts;

/// What nobody else calls their streams.
pub(crate) fn own_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{number}-", std::process::id())
}

/// Servers and runtime share their machine with every other suite: an answer that does come is not to count as lost.
pub(crate) fn patient() -> Timeouts {
    Timeouts { connect: PATIENCE, attempt: PATIENCE }
}

/// Operates an engine.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    client: Client,
}

impl Engine {
    pub(crate) fn at(url: &str) -> Self {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::from_keys("test", "test", None))
            .endpoint_url(url)
            .build();
        Self { client: Client::from_conf(config) }
    }

    /// Splits a shard in its middle.
    pub(crate) async fn split(&self, stream: &str, number: u32) -> Result<(), String> {
        let shard = self.shard(stream, number).await?;
        let range = shard.hash_key_range().ok_or("a shard without a range")?;
        let hash = |text: &str| text.parse::<u128>().map_err(|e| e.to_string());
        let middle = hash(range.starting_hash_key())?.midpoint(hash(range.ending_hash_key())?) + 1;
        let request = self.client.split_shard().stream_name(stream).shard_to_split(shard.shard_id());
        request.new_starting_hash_key(middle.to_string()).send().await.map_err(said)?;
        self.settled(stream).await
    }

    /// Merges two neighbours.
    pub(crate) async fn merge(&self, stream: &str, one: u32, other: u32) -> Result<(), String> {
        let (one, other) = (self.shard(stream, one).await?, self.shard(stream, other).await?);
        let request = self.client.merge_shards().stream_name(stream).shard_to_merge(one.shard_id());
        request.adjacent_shard_to_merge(other.shard_id()).send().await.map_err(said)?;
        self.settled(stream).await
    }

    /// Has the stream keep its records for longer.
    pub(crate) async fn keep_for(&self, stream: &str, hours: i32) -> Result<(), String> {
        let request = self.client.increase_stream_retention_period().stream_name(stream);
        request.retention_period_hours(hours).send().await.map_err(said)?;
        self.settled(stream).await
    }

    pub(crate) async fn shards(&self, stream: &str) -> Result<Vec<Shard>, String> {
        let listed = self.client.list_shards().stream_name(stream).send().await.map_err(said)?;
        Ok(listed.shards.unwrap_or_default())
    }

    async fn shard(&self, stream: &str, number: u32) -> Result<Shard, String> {
        let id = format!("shardId-{number:012}");
        let found = self.shards(stream).await?.into_iter().find(|s| s.shard_id() == id);
        found.ok_or_else(|| format!("{stream} has no {id}"))
    }

    /// Deletes the streams whose names begin so, and does not wait for it.
    pub(crate) async fn delete_all(&self, prefix: &str) -> Result<(), String> {
        let mut token = None;
        loop {
            let request = self.client.list_streams().set_next_token(token);
            let page = request.send().await.map_err(said)?;
            for stream in page.stream_names().iter().filter(|s| s.starts_with(prefix)) {
                self.client.delete_stream().stream_name(stream).send().await.map_err(said)?;
            }
            token = page.next_token;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits until the stream is not being changed any more.
    pub(crate) async fn settled(&self, stream: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer =
                self.client.describe_stream_summary().stream_name(stream).send().await.map_err(said)?;
            let status = answer.stream_description_summary().map(StreamDescriptionSummary::stream_status);
            match status {
                Some(StreamStatus::Active) => return Ok(()),
                _ if Instant::now() >= deadline => {
                    return Err(format!("{stream} is still {status:?} after {} s", PATIENCE.as_secs()));
                }
                _ => breathe().await,
            }
        }
    }
}

/// How long a change to a stream may take, on an engine that other suites use as well.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service does not call back: there is no other way to learn of a change than to ask again.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn said<E: std::error::Error>(e: E) -> String {
    DisplayErrorContext(e).to_string()
}
