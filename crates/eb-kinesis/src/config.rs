//! How a bus on Kinesis is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use eb_contract::{Error, ErrorKind, Result, Topic};

/// The most bytes of a partition key: 256 characters of UTF-8.
pub(crate) const MAX_KEY_BYTES: usize = 4 * eb_contract::PartitionKey::MAX_CHARS;

/// What the service takes in one call or record today, from the API reference of `PutRecords` and `GetRecords`.
pub(crate) mod service {
    /// Records of one `PutRecords` call.
    pub(crate) const RECORDS_PER_PUT: usize = 500;
    /// Bytes of one `PutRecords` call, partition keys included.
    pub(crate) const BYTES_PER_PUT: usize = 10 << 20;
    /// Bytes of one record, its partition key included, for streams that were set up for it.
    pub(crate) const BYTES_PER_RECORD: usize = 10 << 20;
    /// Records of one `GetRecords` call.
    pub(crate) const RECORDS_PER_GET: usize = 10_000;
    /// The shortest time for which a stream can be set to keep its records.
    pub(crate) const LEAST_RETENTION: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);
}

/// A bus on Kinesis: where it is, how topics are called there, and how it is written and read.
#[derive(Debug, Clone, PartialEq)]
pub struct KinesisConfig {
    /// The AWS region, such as `eu-central-1`; `None` takes it from the environment as every AWS program does.
    pub region: Option<String>,
    /// Another address than AWS's own: LocalStack, an emulator, a VPC endpoint. `http://` only for the first two.
    pub endpoint_url: Option<String>,
    /// Who we are.
    pub credentials: CredentialSource,
    /// Which stream is which topic.
    pub streams: StreamNames,
    /// The writing side.
    pub publish: PublishConfig,
    /// The reading side.
    pub read: ReadConfig,
    /// How long to wait for the service.
    pub timeouts: Timeouts,
}

impl Default for KinesisConfig {
    fn default() -> Self {
        Self {
            region: None,
            endpoint_url: None,
            credentials: CredentialSource::Environment,
            streams: StreamNames::default(),
            publish: PublishConfig::default(),
            read: ReadConfig::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl KinesisConfig {
    /// For an emulator at `endpoint_url`: a fixed region, credentials that mean nothing, and no pacing, which
    /// emulators do not ask for.
    #[must_use]
    pub fn emulator(endpoint_url: &str) -> Self {
        Self {
            region: Some("us-east-1".to_owned()),
            endpoint_url: Some(endpoint_url.to_owned()),
            credentials: CredentialSource::Fixed(Credentials::new("test", "test")),
            publish: PublishConfig { shard_rate: None, ..PublishConfig::default() },
            read: ReadConfig {
                shard_rate: None,
                idle_poll: Duration::from_millis(25),
                ..ReadConfig::default()
            },
            ..Self::default()
        }
    }

    /// Checks what can be checked without asking the service.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming the field and what it may be.
    pub fn check(&self) -> Result<()> {
        if let Some(url) = &self.endpoint_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return Err(invalid("endpoint_url", "it must begin with http:// or https://"));
        }
        self.streams.check()?;
        self.publish.check()?;
        self.read.check()?;
        within("timeouts.connect", self.timeouts.connect, 1, 300_000)?;
        within("timeouts.attempt", self.timeouts.attempt, 1, 300_000)
    }
}

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CredentialSource {
    /// As every AWS program finds them: variables, profile files, web identity, container, instance metadata.
    #[default]
    Environment,
    /// Fixed ones, for emulators. They are never printed.
    Fixed(Credentials),
}

/// An access key and its secret. `Debug` prints neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl Credentials {
    /// A key and its secret.
    #[must_use]
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self { access_key_id: access_key_id.into(), secret_access_key: secret_access_key.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// Which stream is which topic: the name in `named`, otherwise `prefix` and the topic's name.
///
/// Stream names have 1 to 128 of `[A-Za-z0-9_.-]`, as topics do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamNames {
    /// Put before the topic's name.
    pub prefix: String,
    /// Streams that are called otherwise.
    pub named: BTreeMap<Topic, String>,
}

impl StreamNames {
    /// What the topic's stream is called.
    #[must_use]
    pub fn stream_of(&self, topic: &Topic) -> String {
        self.named.get(topic).cloned().unwrap_or_else(|| format!("{}{topic}", self.prefix))
    }

    /// Which topic a stream is, if it is one of ours.
    #[must_use]
    pub fn topic_of(&self, stream: &str) -> Option<Topic> {
        if let Some((topic, _)) = self.named.iter().find(|(_, name)| *name == stream) {
            return Some(topic.clone());
        }
        let topic = Topic::new(stream.strip_prefix(self.prefix.as_str())?).ok()?;
        // A topic with a name of its own is not also the stream that it would otherwise be.
        (!self.named.contains_key(&topic)).then_some(topic)
    }

    fn check(&self) -> Result<()> {
        let allowed = |s: &str| {
            s.len() <= 128 && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !allowed(&self.prefix) {
            return Err(invalid("streams.prefix", "at most 128 of A-Z a-z 0-9 _ . -"));
        }
        let mut seen: BTreeMap<&str, &Topic> = BTreeMap::new();
        for (topic, name) in &self.named {
            if name.is_empty() || !allowed(name) {
                return Err(invalid("streams.named", format!("{topic}: 1 to 128 of A-Z a-z 0-9 _ . -")));
            }
            if let Some(other) = seen.insert(name, topic) {
                return Err(invalid("streams.named", format!("{topic} and {other} are both {name}")));
            }
        }
        Ok(())
    }
}

/// What is promised about the order of a key's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// At most one record of a key is in flight; the sequence numbers that come back must rise per key.
    #[default]
    Strict,
    /// Several records of a key may be in one call or in flight at once. The service promises nothing of their order.
    Batched,
}

/// How records are written.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishConfig {
    /// The order of a key's records.
    pub ordering: Ordering,
    /// Records of one `PutRecords` call, 1 to 500.
    pub max_records_per_call: usize,
    /// Bytes of one `PutRecords` call, keys included, up to 10 MiB.
    pub max_bytes_per_call: usize,
    /// Bytes of one record, its key included, up to 10 MiB. More than 1 MiB (the default) needs streams set up for it.
    pub max_record_bytes: usize,
    /// `PutRecords` calls of one topic under way at once, 1 to 256.
    pub calls_in_flight: usize,
    /// About how many bytes of records of one topic may wait or be in flight, a little for each record included; their
    /// futures stay pending, which is the back-pressure. A call beyond that answers `Throttled` and has no effect.
    pub max_buffered_bytes: usize,
    /// What one shard takes; `None` leaves pacing to throttling answers alone.
    pub shard_rate: Option<Rate>,
    /// How long a record may be refused, from its first attempt on. In a shard that takes nothing at all this time also
    /// ends for what waits there, from its call on.
    pub give_up_after: Duration,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            ordering: Ordering::Strict,
            max_records_per_call: service::RECORDS_PER_PUT,
            max_bytes_per_call: 5 << 20,
            max_record_bytes: 1 << 20,
            calls_in_flight: 8,
            max_buffered_bytes: 64 << 20,
            shard_rate: Some(Rate { calls_or_records: 1_000.0, bytes: 1_048_576.0 }),
            give_up_after: Duration::from_secs(30),
        }
    }
}

impl PublishConfig {
    /// The most bytes of an envelope: a record's limit less the longest partition key.
    #[must_use]
    pub fn max_envelope_bytes(&self) -> usize {
        self.max_record_bytes.saturating_sub(MAX_KEY_BYTES)
    }

    fn check(&self) -> Result<()> {
        count("publish.max_records_per_call", self.max_records_per_call, 1, service::RECORDS_PER_PUT)?;
        count(
            "publish.max_record_bytes",
            self.max_record_bytes,
            2 * MAX_KEY_BYTES,
            service::BYTES_PER_RECORD,
        )?;
        count(
            "publish.max_bytes_per_call",
            self.max_bytes_per_call,
            self.max_record_bytes,
            service::BYTES_PER_PUT,
        )?;
        count("publish.calls_in_flight", self.calls_in_flight, 1, 256)?;
        count(
            "publish.max_buffered_bytes",
            self.max_buffered_bytes,
            self.max_bytes_per_call,
            u32::MAX as usize,
        )?;
        self.shard_rate.map_or(Ok(()), |rate| rate.check("publish.shard_rate"))?;
        within("publish.give_up_after", self.give_up_after, 1, 3_600_000)
    }
}

/// How records are read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadConfig {
    /// Records of one `GetRecords` call, 1 to 10,000.
    pub max_records_per_call: usize,
    /// What one shard gives to all its readers together: 5 calls and 2 MB a second. `None` leaves pacing to
    /// throttling answers alone. Several readers of one stream must share it out.
    pub shard_rate: Option<Rate>,
    /// How long a cursor at the head waits between two looks.
    pub idle_poll: Duration,
    /// How long the list of shards, the retention and the identity of a stream may be remembered where nothing says
    /// that they have changed.
    pub shards_fresh_for: Duration,
    /// How long before its retention ends a record counts as one that may vanish any moment: from there on every read
    /// shows that nothing was skipped, at the price of one more call each. It must be more than clocks can lie apart;
    /// with the retention or more, every read is checked.
    pub horizon_margin: Duration,
    /// How long a throttled call is made again before the read answers so.
    pub retry_for: Duration,
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self {
            max_records_per_call: service::RECORDS_PER_GET,
            shard_rate: Some(Rate { calls_or_records: 5.0, bytes: 2_000_000.0 }),
            idle_poll: Duration::from_millis(250),
            shards_fresh_for: Duration::from_secs(30),
            horizon_margin: Duration::from_secs(30 * 60),
            retry_for: Duration::from_secs(10),
        }
    }
}

impl ReadConfig {
    fn check(&self) -> Result<()> {
        count("read.max_records_per_call", self.max_records_per_call, 1, service::RECORDS_PER_GET)?;
        self.shard_rate.map_or(Ok(()), |rate| rate.check("read.shard_rate"))?;
        within("read.idle_poll", self.idle_poll, 1, 60_000)?;
        within("read.shards_fresh_for", self.shards_fresh_for, 0, 3_600_000)?;
        within("read.horizon_margin", self.horizon_margin, 60_000, 366 * 86_400_000)?;
        within("read.retry_for", self.retry_for, 0, 3_600_000)
    }
}

/// What a shard takes or gives in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Records written, or calls that read.
    pub calls_or_records: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Rate {
    fn check(self, field: &'static str) -> Result<()> {
        let fine = |n: f64| n.is_finite() && (0.1..=1e12).contains(&n);
        if fine(self.calls_or_records) && fine(self.bytes) {
            Ok(())
        } else {
            Err(invalid(field, "each rate must be a number from 0.1 to 1e12"))
        }
    }
}

/// How long to wait for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until a call has answered whole.
    pub attempt: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), attempt: Duration::from_secs(10) }
    }
}

fn invalid(field: &str, message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, "open", format!("{field}: {message}"))
}

fn count(field: &'static str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(invalid(field, format!("{value} is not from {least} to {most}")))
    }
}

fn within(field: &'static str, value: Duration, least_ms: u64, most_ms: u64) -> Result<()> {
    let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(invalid(field, format!("{value:?} is not from {least:?} to {most:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_what_the_service_takes() {
        KinesisConfig::default().check().unwrap();
        KinesisConfig::emulator("http://127.0.0.1:4567").check().unwrap();
    }

    #[test]
    fn what_the_service_would_refuse_is_refused_on_open_naming_the_field() {
        let refused = |change: fn(&mut KinesisConfig), field: &str| {
            let mut config = KinesisConfig::default();
            change(&mut config);
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidInput);
            assert!(error.message().starts_with(field), "{error}");
        };
        refused(|c| c.endpoint_url = Some("localhost:4566".into()), "endpoint_url");
        refused(|c| c.publish.max_records_per_call = 501, "publish.max_records_per_call");
        refused(|c| c.publish.max_bytes_per_call = 1, "publish.max_bytes_per_call");
        refused(|c| c.read.max_records_per_call = 0, "read.max_records_per_call");
        refused(|c| c.streams.prefix = "a/b".into(), "streams.prefix");
        refused(
            |c| c.read.shard_rate = Some(Rate { calls_or_records: f64::NAN, bytes: 1.0 }),
            "read.shard_rate",
        );
    }

    #[test]
    fn a_stream_is_one_topic_and_a_topic_one_stream() {
        let topic = |t| Topic::new(t).unwrap();
        let mut names = StreamNames { prefix: "dev-".into(), ..StreamNames::default() };
        names.named.insert(topic("orders"), "legacy_orders".into());
        assert_eq!(names.stream_of(&topic("clicks")), "dev-clicks");
        assert_eq!(names.stream_of(&topic("orders")), "legacy_orders");
        assert_eq!(names.topic_of("dev-clicks"), Some(topic("clicks")));
        assert_eq!(names.topic_of("legacy_orders"), Some(topic("orders")));
        assert_eq!(names.topic_of("dev-orders"), None);
        assert_eq!(names.topic_of("prod-clicks"), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = KinesisConfig {
            credentials: CredentialSource::Fixed(Credentials::new("AKIA", "hush")),
            ..KinesisConfig::default()
        };
        let text = format!("{config:?}");
        assert!(!text.contains("AKIA") && !text.contains("hush"), "{text}");
    }
}
