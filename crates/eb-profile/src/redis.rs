//! The section `wiring.event_bus.redis`: its settings, and what they mean to the backend.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ProfileError;
use crate::model::BusKind;
use crate::secret::Secret;
use crate::section::{Scalar, Section};

const KEYS: &[&str] = &[
    "url",
    "stream_prefix",
    "accept_weaker_ack",
    "ca_file",
    "client_certificate_file",
    "client_key_file",
    "connect_timeout_ms",
    "answer_timeout_ms",
    "gate_timeout_ms",
    "publish",
    "read",
];

const PUBLISH: &[&str] =
    &["max_records_per_group", "max_bytes_per_group", "max_buffered_bytes", "give_up_after_ms"];

const READ: &[&str] = &["waiting_connections", "poll_every_ms"];

/// A bus on Redis Streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `url`: `redis[s]://[user[:password]@]host[:port][/database]`, or `unix:///path`.
    pub url: Secret,
    /// `stream_prefix`: what the keys of the bus begin with, in braces.
    pub stream_prefix: String,
    /// `accept_weaker_ack`: open also where a crash of the server can take ACKed records.
    pub accept_weaker_ack: bool,
    /// For `rediss://`.
    pub tls: RedisTls,
    /// `connect_timeout_ms`: until a connection is made, encrypted, authenticated and checked.
    pub connect_timeout: Duration,
    /// `answer_timeout_ms`: an append that is not answered by then has an unknown outcome.
    pub answer_timeout: Duration,
    /// `gate_timeout_ms`: a gate that has said nothing for so long keeps no other out.
    pub gate_timeout: Duration,
    /// `publish`.
    pub publish: RedisPublish,
    /// `read`.
    pub read: RedisRead,
}

/// Whom to trust, and who we are, on an encrypted connection; PEM files, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// `ca_file`: the certificates that are trusted; those of the system without one.
    pub ca_file: Option<PathBuf>,
    /// `client_certificate_file`, where the server asks for one.
    pub client_certificate_file: Option<PathBuf>,
    /// `client_key_file`.
    pub client_key_file: Option<PathBuf>,
}

/// The section `publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisPublish {
    /// `max_records_per_group`: records that travel in one append of a partition, the next group gathering meanwhile.
    pub max_records_per_group: usize,
    /// `max_bytes_per_group`, keys included.
    pub max_bytes_per_group: usize,
    /// `max_buffered_bytes` of the publisher; who publishes more is told to wait.
    pub max_buffered_bytes: usize,
    /// `give_up_after_ms`: how long records wait for a server that cannot be reached or does not serve yet.
    pub give_up_after: Duration,
}

/// The section `read`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisRead {
    /// `waiting_connections`: how many reads may block at the head on a connection of their own; the others poll.
    pub waiting_connections: usize,
    /// `poll_every_ms`.
    pub poll_every: Duration,
}

/// Reads the section, where it is.
pub(crate) fn read(
    bus: &Section<'_>,
    kind: BusKind,
    overridden: bool,
    base: &Path,
    notices: &mut Vec<String>,
) -> Result<Option<RedisSettings>, ProfileError> {
    let Some(section) = bus.optional_section("redis", Some(KEYS))? else {
        if kind != BusKind::Redis {
            return Ok(None);
        }
        let why = if overridden { " (EVENT_BUS_KIND=redis needs it)" } else { "" };
        return Err(bus.missing("redis", why).advise("write its `url: redis://host:6379` below it"));
    };
    let (url, encrypted) = url(section.required("url")?)?;
    let accept_weaker_ack = section.boolean_or("accept_weaker_ack", false)?;
    if accept_weaker_ack && kind == BusKind::Redis {
        notices.push(
            "accept_weaker_ack is on: a crash or a failover of the Redis server can take records that were ACKed \
             (`eb profile check` says which)"
                .to_owned(),
        );
    }
    let millis = |key: &str, default| section.number_or(key, 1..=300_000, default).map(Duration::from_millis);
    Ok(Some(RedisSettings {
        url,
        stream_prefix: prefix(&section)?,
        accept_weaker_ack,
        tls: tls(&section, encrypted, base)?,
        connect_timeout: millis("connect_timeout_ms", 3_000)?,
        answer_timeout: millis("answer_timeout_ms", 10_000)?,
        gate_timeout: Duration::from_millis(section.number_or(
            "gate_timeout_ms",
            1_000..=3_600_000,
            30_000,
        )?),
        publish: publish(&section)?,
        read: reading(&section)?,
    }))
}

/// The address, and whether it is one of an encrypted connection. It is never quoted: it may hold a password.
fn url(value: Scalar<'_>) -> Result<(Secret, bool), ProfileError> {
    let url = value.secret_if(|text| {
        if !["redis://", "rediss://", "unix://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err("it must begin with redis://, rediss:// or unix://".to_owned());
        }
        #[cfg(feature = "redis")]
        eb_redis::RedisUrl::parse(text).map_err(|e| e.message().to_owned())?;
        Ok(())
    })?;
    let encrypted = url.expose().starts_with("rediss://");
    Ok((url, encrypted))
}

/// An empty one is none: the default's.
fn prefix(section: &Section<'_>) -> Result<String, ProfileError> {
    let Some(value) = section.optional("stream_prefix")?.filter(|value| !value.is_empty()) else {
        return Ok(section.defaulted("stream_prefix", "eb").to_owned());
    };
    let misfit = value.error("use 1 to 64 of A-Z a-z 0-9 . _ -");
    let text = value.text(64)?;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits { Ok(text) } else { Err(misfit) }
}

fn tls(section: &Section<'_>, encrypted: bool, base: &Path) -> Result<RedisTls, ProfileError> {
    let file = |key: &str| -> Result<Option<PathBuf>, ProfileError> {
        let Some(value) = section.optional(key)? else { return Ok(None) };
        if !encrypted {
            return Err(value.error("it is looked at with a rediss:// address only"));
        }
        value.path_from(base).map(Some)
    };
    let tls = RedisTls {
        ca_file: file("ca_file")?,
        client_certificate_file: file("client_certificate_file")?,
        client_key_file: file("client_key_file")?,
    };
    match (&tls.client_certificate_file, &tls.client_key_file) {
        (Some(_), None) => Err(section.missing("client_key_file", ", and client_certificate_file needs it")),
        (None, Some(_)) => Err(section.missing("client_certificate_file", ", and client_key_file needs it")),
        _ => Ok(tls),
    }
}

fn size(section: &Section<'_>, key: &str, most: u64, default: u64) -> Result<usize, ProfileError> {
    Ok(usize::try_from(section.number_or(key, 1..=most, default)?).unwrap_or(usize::MAX))
}

fn publish(section: &Section<'_>) -> Result<RedisPublish, ProfileError> {
    let p = section.section_or_empty("publish", PUBLISH)?;
    Ok(RedisPublish {
        max_records_per_group: size(&p, "max_records_per_group", 10_000, 512)?,
        max_bytes_per_group: size(&p, "max_bytes_per_group", 64 << 20, 1 << 20)?,
        max_buffered_bytes: size(&p, "max_buffered_bytes", 1 << 40, 64 << 20)?,
        give_up_after: Duration::from_millis(p.number_or("give_up_after_ms", 0..=3_600_000, 5_000)?),
    })
}

fn reading(section: &Section<'_>) -> Result<RedisRead, ProfileError> {
    let r = section.section_or_empty("read", READ)?;
    let connections = r.number_or("waiting_connections", 0..=1_024, 16)?;
    Ok(RedisRead {
        waiting_connections: usize::try_from(connections).unwrap_or(usize::MAX),
        poll_every: Duration::from_millis(r.number_or("poll_every_ms", 1..=60_000, 20)?),
    })
}

#[cfg(feature = "redis")]
impl RedisSettings {
    /// What the backend takes.
    ///
    /// # Errors
    /// `InvalidInput` naming the field; reading the section has refused all that is known to be wrong.
    pub(crate) fn to_config(
        &self,
        max_envelope_bytes: usize,
    ) -> Result<eb_redis::RedisConfig, eb_contract::Error> {
        use eb_redis::{PublishConfig, ReadConfig, RedisConfig, RedisUrl, Timeouts, TlsConfig};
        let (publish, read) = (&self.publish, &self.read);
        Ok(RedisConfig {
            url: RedisUrl::parse(self.url.expose())?,
            prefix: self.stream_prefix.clone(),
            accept_weaker_ack: self.accept_weaker_ack,
            tls: TlsConfig {
                ca_file: self.tls.ca_file.clone(),
                client_certificate: self.tls.client_certificate_file.clone(),
                client_key: self.tls.client_key_file.clone(),
            },
            publish: PublishConfig {
                max_records_per_group: publish.max_records_per_group,
                max_bytes_per_group: publish.max_bytes_per_group,
                max_envelope_bytes,
                max_buffered_bytes: publish.max_buffered_bytes,
                give_up_after: publish.give_up_after,
            },
            read: ReadConfig { waiting_connections: read.waiting_connections, poll_every: read.poll_every },
            timeouts: Timeouts {
                connect: self.connect_timeout,
                answer: self.answer_timeout,
                claim: self.gate_timeout,
            },
        })
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use eb_redis::{PublishConfig, ReadConfig, RedisConfig, RedisUrl, Timeouts, TlsConfig};

    use super::*;

    #[test]
    fn every_setting_reaches_the_backend() {
        let url = "rediss://gate:geheim@db.example:7000/2";
        let settings = RedisSettings {
            url: Secret::new(url),
            stream_prefix: "p".to_owned(),
            accept_weaker_ack: true,
            tls: RedisTls {
                ca_file: Some("ca".into()),
                client_certificate_file: Some("certificate".into()),
                client_key_file: Some("key".into()),
            },
            connect_timeout: Duration::from_millis(1),
            answer_timeout: Duration::from_millis(2),
            gate_timeout: Duration::from_secs(10),
            publish: RedisPublish {
                max_records_per_group: 3,
                max_bytes_per_group: 4,
                max_buffered_bytes: 5,
                give_up_after: Duration::from_millis(6),
            },
            read: RedisRead { waiting_connections: 7, poll_every: Duration::from_millis(8) },
        };
        let expected = RedisConfig {
            url: RedisUrl::parse(url).unwrap(),
            prefix: "p".to_owned(),
            accept_weaker_ack: true,
            tls: TlsConfig {
                ca_file: Some("ca".into()),
                client_certificate: Some("certificate".into()),
                client_key: Some("key".into()),
            },
            publish: PublishConfig {
                max_records_per_group: 3,
                max_bytes_per_group: 4,
                max_envelope_bytes: 9,
                max_buffered_bytes: 5,
                give_up_after: Duration::from_millis(6),
            },
            read: ReadConfig { waiting_connections: 7, poll_every: Duration::from_millis(8) },
            timeouts: Timeouts {
                connect: Duration::from_millis(1),
                answer: Duration::from_millis(2),
                claim: Duration::from_secs(10),
            },
        };
        assert_eq!(settings.to_config(9).unwrap(), expected);
    }
}
