//! The section `wiring.event_bus.kinesis`: its settings, and what they mean to the backend.

use std::collections::BTreeMap;
use std::time::Duration;

use eb_contract::Topic;

use crate::error::ProfileError;
use crate::model::BusKind;
use crate::section::Section;

const KEYS: &[&str] = &[
    "region",
    "endpoint_url",
    "credentials",
    "stream_prefix",
    "streams",
    "ordering",
    "publish",
    "read",
    "connect_timeout_ms",
    "attempt_timeout_ms",
];

const PUBLISH: &[&str] = &[
    "max_records_per_call",
    "max_bytes_per_call",
    "max_record_bytes",
    "calls_in_flight",
    "max_buffered_bytes",
    "shard_records_per_second",
    "shard_bytes_per_second",
    "give_up_after_ms",
];

const READ: &[&str] = &[
    "max_records_per_call",
    "shard_calls_per_second",
    "shard_bytes_per_second",
    "idle_poll_ms",
    "shards_fresh_for_ms",
    "horizon_margin_ms",
    "retry_for_ms",
];

/// A bus on Kinesis. Rates are those of one shard; `None` leaves pacing to what the service refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisSettings {
    /// `region`; taken from the environment as every AWS program does without one.
    pub region: Option<String>,
    /// `endpoint_url`: another address than AWS's own, such as LocalStack's.
    pub endpoint_url: Option<String>,
    /// `credentials`.
    pub credentials: KinesisCredentials,
    /// `stream_prefix`: put before a topic's name to make its stream's.
    pub stream_prefix: String,
    /// `streams`: topics whose streams are called otherwise.
    pub streams: BTreeMap<Topic, String>,
    /// `ordering: strict`: at most one record of a key is in flight. `batched` gives up on the order of a key.
    pub strict: bool,
    /// `publish`.
    pub publish: KinesisPublish,
    /// `read`.
    pub read: KinesisRead,
    /// `connect_timeout_ms`.
    pub connect_timeout: Duration,
    /// `attempt_timeout_ms`: until a call has answered whole.
    pub attempt_timeout: Duration,
}

/// Where credentials come from. The profile never holds any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KinesisCredentials {
    /// As every AWS program finds them: variables, shared files, web identity, container, instance metadata.
    Chain,
    /// `test` and `test`, for emulators: what a `http://` endpoint gets unless the profile says otherwise.
    Test,
}

/// The section `publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisPublish {
    /// `max_records_per_call`.
    pub max_records_per_call: usize,
    /// `max_bytes_per_call`, keys included.
    pub max_bytes_per_call: usize,
    /// `max_record_bytes`, the key included.
    pub max_record_bytes: usize,
    /// `calls_in_flight` of one topic.
    pub calls_in_flight: usize,
    /// `max_buffered_bytes` of one topic; who publishes more waits.
    pub max_buffered_bytes: usize,
    /// `shard_records_per_second` and `shard_bytes_per_second`.
    pub shard_rate: Option<(u64, u64)>,
    /// `give_up_after_ms`: how long a record may wait for the service to take it, all attempts together.
    pub give_up_after: Duration,
}

/// The section `read`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisRead {
    /// `max_records_per_call`.
    pub max_records_per_call: usize,
    /// `shard_calls_per_second` and `shard_bytes_per_second`, of all readers of this process together.
    pub shard_rate: Option<(u64, u64)>,
    /// `idle_poll_ms`: how long a cursor at the head waits between two looks.
    pub idle_poll: Duration,
    /// `shards_fresh_for_ms`: how long a list of shards is trusted.
    pub shards_fresh_for: Duration,
    /// `horizon_margin_ms`: how long before its retention ends a record counts as one that may vanish any moment.
    pub horizon_margin: Duration,
    /// `retry_for_ms`: how long a throttled read is made again before it fails.
    pub retry_for: Duration,
}

/// Reads the section, where it is.
pub(crate) fn read(
    bus: &Section<'_>,
    kind: BusKind,
    overridden: bool,
) -> Result<Option<KinesisSettings>, ProfileError> {
    let Some(section) = bus.optional_section("kinesis", Some(KEYS))? else {
        if kind != BusKind::Kinesis {
            return Ok(None);
        }
        let why = if overridden { " (EVENT_BUS_KIND=kinesis needs it)" } else { "" };
        return Err(bus
            .missing("kinesis", why)
            .advise("write `kinesis: {}` to take region and credentials from the environment"));
    };
    let text = |key: &str, max| section.optional(key)?.map(|value| value.text(max)).transpose();
    let endpoint_url = match section.optional("endpoint_url")? {
        Some(value) => {
            let misfit = value.error("it must begin with http:// or https://");
            let url = value.text(2048)?;
            if !(url.starts_with("http://") || url.starts_with("https://")) {
                return Err(misfit);
            }
            Some(url)
        }
        None => None,
    };
    // Nobody sends real credentials over an open line, and emulators do not ask for pacing.
    let emulator = endpoint_url.as_ref().is_some_and(|url| url.starts_with("http://"));
    let (chain, test) = (("chain", KinesisCredentials::Chain), ("test", KinesisCredentials::Test));
    let credentials = section.choice("credentials", &if emulator { [test, chain] } else { [chain, test] })?;
    let millis = |key: &str, least, default| {
        section.number_or(key, least..=300_000, default).map(Duration::from_millis)
    };
    let region = match (text("region", 64)?, emulator) {
        (None, true) => Some(section.defaulted("region", "us-east-1").to_owned()),
        (region, _) => region,
    };
    Ok(Some(KinesisSettings {
        region,
        endpoint_url,
        credentials,
        stream_prefix: match stream_name(&section, "stream_prefix")? {
            Some(prefix) => prefix,
            None => section.defaulted("stream_prefix", String::new()),
        },
        streams: streams(&section)?,
        strict: section.choice("ordering", &[("strict", true), ("batched", false)])?,
        publish: publish(&section, emulator)?,
        read: reading(&section, emulator)?,
        connect_timeout: millis("connect_timeout_ms", 1, 3_000)?,
        attempt_timeout: millis("attempt_timeout_ms", 1, 10_000)?,
    }))
}

/// Part of a stream's name. An empty one is none.
fn stream_name(section: &Section<'_>, key: &str) -> Result<Option<String>, ProfileError> {
    let Some(value) = section.optional(key)?.filter(|value| !value.is_empty()) else { return Ok(None) };
    let misfit = value.error("use 1 to 128 of A-Z a-z 0-9 . _ -");
    let text = value.text(128)?;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits { Ok(Some(text)) } else { Err(misfit) }
}

fn streams(section: &Section<'_>) -> Result<BTreeMap<Topic, String>, ProfileError> {
    let mut streams = BTreeMap::new();
    let Some(named) = section.optional_section("streams", None)? else { return Ok(streams) };
    for (name, at) in named.keys() {
        let full = named.full(name);
        let topic = Topic::new(name).map_err(|e| named.reading.error(at, &full, e.to_string()))?;
        let stream = stream_name(&named, name)?.ok_or_else(|| named.missing(name, ""))?;
        if let Some((other, _)) = streams.iter().find(|(_, s)| **s == stream) {
            return Err(named.reading.error(at, &full, format!("{other} has that stream already")));
        }
        streams.insert(topic, stream);
    }
    Ok(streams)
}

/// What one shard takes or gives in a second; 0 for both is no pacing.
fn rates(
    section: &Section<'_>,
    what: &str,
    per_second: (u64, u64),
    emulator: bool,
) -> Result<Option<(u64, u64)>, ProfileError> {
    let (count, bytes) = if emulator { (0, 0) } else { per_second };
    let count = section.number_or(what, 0..=1_000_000_000, count)?;
    let bytes = section.number_or("shard_bytes_per_second", 0..=1_000_000_000_000, bytes)?;
    match (count, bytes) {
        (0, 0) => Ok(None),
        (0, _) | (_, 0) => {
            let what = "one of the shard's rates is 0 and the other is not; 0 for both is no pacing";
            Err(section.reading.error(section.at, &section.full("shard_bytes_per_second"), what))
        }
        both => Ok(Some(both)),
    }
}

fn size(
    section: &Section<'_>,
    key: &str,
    most: u64,
    least: u64,
    default: u64,
) -> Result<usize, ProfileError> {
    Ok(usize::try_from(section.number_or(key, least..=most, default)?).unwrap_or(usize::MAX))
}

fn publish(section: &Section<'_>, emulator: bool) -> Result<KinesisPublish, ProfileError> {
    let p = section.section_or_empty("publish", PUBLISH)?;
    let max_record_bytes = size(&p, "max_record_bytes", 10 << 20, 2_048, 1 << 20)?;
    let least = max_record_bytes as u64;
    let max_bytes_per_call = size(&p, "max_bytes_per_call", 10 << 20, least, least.max(5 << 20))?;
    let least = max_bytes_per_call as u64;
    Ok(KinesisPublish {
        max_records_per_call: size(&p, "max_records_per_call", 500, 1, 500)?,
        max_bytes_per_call,
        max_record_bytes,
        calls_in_flight: size(&p, "calls_in_flight", 256, 1, 8)?,
        max_buffered_bytes: size(&p, "max_buffered_bytes", u64::from(u32::MAX), least, 64 << 20)?,
        shard_rate: rates(&p, "shard_records_per_second", (1_000, 1 << 20), emulator)?,
        give_up_after: Duration::from_millis(p.number_or("give_up_after_ms", 1..=3_600_000, 30_000)?),
    })
}

fn reading(section: &Section<'_>, emulator: bool) -> Result<KinesisRead, ProfileError> {
    let r = section.section_or_empty("read", READ)?;
    let idle = if emulator { 25 } else { 250 };
    Ok(KinesisRead {
        max_records_per_call: size(&r, "max_records_per_call", 10_000, 1, 10_000)?,
        shard_rate: rates(&r, "shard_calls_per_second", (5, 2_000_000), emulator)?,
        idle_poll: Duration::from_millis(r.number_or("idle_poll_ms", 1..=60_000, idle)?),
        shards_fresh_for: Duration::from_millis(r.number_or("shards_fresh_for_ms", 0..=3_600_000, 30_000)?),
        horizon_margin: Duration::from_millis(r.number_or(
            "horizon_margin_ms",
            60_000..=366 * 86_400_000,
            30 * 60_000,
        )?),
        retry_for: Duration::from_millis(r.number_or("retry_for_ms", 0..=3_600_000, 10_000)?),
    })
}

#[cfg(feature = "kinesis")]
impl KinesisSettings {
    /// What the backend takes.
    pub(crate) fn to_config(&self) -> eb_kinesis::KinesisConfig {
        use eb_kinesis::{
            CredentialSource, Credentials, KinesisConfig, Ordering, PublishConfig, Rate, ReadConfig,
            StreamNames, Timeouts,
        };
        // Whole numbers below 2^53 stay what they are.
        #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
        let rate = |(count, bytes): (u64, u64)| Rate { calls_or_records: count as f64, bytes: bytes as f64 };
        let (publish, read) = (&self.publish, &self.read);
        KinesisConfig {
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
            credentials: match self.credentials {
                KinesisCredentials::Chain => CredentialSource::Environment,
                KinesisCredentials::Test => CredentialSource::Fixed(Credentials::new("test", "test")),
            },
            streams: StreamNames { prefix: self.stream_prefix.clone(), named: self.streams.clone() },
            publish: PublishConfig {
                ordering: if self.strict { Ordering::Strict } else { Ordering::Batched },
                max_records_per_call: publish.max_records_per_call,
                max_bytes_per_call: publish.max_bytes_per_call,
                max_record_bytes: publish.max_record_bytes,
                calls_in_flight: publish.calls_in_flight,
                max_buffered_bytes: publish.max_buffered_bytes,
                shard_rate: publish.shard_rate.map(rate),
                give_up_after: publish.give_up_after,
            },
            read: ReadConfig {
                max_records_per_call: read.max_records_per_call,
                shard_rate: read.shard_rate.map(rate),
                idle_poll: read.idle_poll,
                shards_fresh_for: read.shards_fresh_for,
                horizon_margin: read.horizon_margin,
                retry_for: read.retry_for,
            },
            timeouts: Timeouts { connect: self.connect_timeout, attempt: self.attempt_timeout },
        }
    }
}
