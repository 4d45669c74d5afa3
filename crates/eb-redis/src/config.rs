//! How a bus on Redis is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eb_contract::{EnvelopeLimits, Error, ErrorKind, Result};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

const OP: &str = "redis config";

/// The most bytes that an envelope may be allowed to have: a group of them passes through one script.
const ENVELOPE_CEILING: usize = 64 << 20;

/// A bus on Redis: where it is, what its keys are called, and how it is written and read.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisConfig {
    /// The server.
    pub url: RedisUrl,
    /// What its keys begin with, in braces: 1 to 64 of `[A-Za-z0-9._-]`.
    pub prefix: String,
    /// Open also where a crash can take ACKed records; the capabilities then say so.
    pub accept_weaker_ack: bool,
    /// For `rediss://`.
    pub tls: TlsConfig,
    /// The writing side.
    pub publish: PublishConfig,
    /// The reading side.
    pub read: ReadConfig,
    /// How long to wait for the server.
    pub timeouts: Timeouts,
}

impl RedisConfig {
    /// The bus of prefix `eb` at a server, with the default limits and nothing weakened.
    #[must_use]
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            prefix: "eb".to_owned(),
            accept_weaker_ack: false,
            tls: TlsConfig::default(),
            publish: PublishConfig::default(),
            read: ReadConfig::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// Checks what can be checked without asking the server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming the field and what it may be.
    pub fn check(&self) -> Result<()> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(allowed) {
            return Err(invalid("prefix", "1 to 64 of A-Z a-z 0-9 _ . -"));
        }
        if self.tls != TlsConfig::default() && !self.url.is_tls() {
            return Err(invalid("tls", "it is set, but the url does not begin with rediss://"));
        }
        if self.tls.client_certificate.is_some() != self.tls.client_key.is_some() {
            return Err(invalid("tls", "client_certificate and client_key belong together"));
        }
        let p = &self.publish;
        within("publish.max_records_per_group", p.max_records_per_group, 1, 10_000)?;
        within("publish.max_bytes_per_group", p.max_bytes_per_group, 1, ENVELOPE_CEILING)?;
        within("publish.max_envelope_bytes", p.max_envelope_bytes, 1, ENVELOPE_CEILING)?;
        within("publish.max_buffered_bytes", p.max_buffered_bytes, 1, usize::MAX)?;
        lasts("publish.give_up_after", p.give_up_after, 0, 3_600_000)?;
        within("read.waiting_connections", self.read.waiting_connections, 0, 1024)?;
        lasts("read.poll_every", self.read.poll_every, 1, 60_000)?;
        lasts("timeouts.connect", self.timeouts.connect, 1, 300_000)?;
        lasts("timeouts.answer", self.timeouts.answer, 1, 300_000)?;
        lasts("timeouts.claim", self.timeouts.claim, 1_000, 3_600_000)
    }
}

/// The address of a server: `redis[s]://[user[:password]@]host[:port][/database]`, or `unix:///path`.
///
/// The password never prints: `Debug` and `Display` show the address without it.
#[derive(Clone)]
pub struct RedisUrl {
    info: ConnectionInfo,
    tls: bool,
}

impl RedisUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]; the text is not quoted, since it may hold a password.
    pub fn parse(url: &str) -> Result<Self> {
        let form = "the form is redis[s]://[user[:password]@]host[:port][/database]";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("url", form))?;
        if !matches!(scheme, "redis" | "rediss" | "unix") {
            return Err(invalid("url", format!("it must begin with redis://, rediss:// or unix://; {form}")));
        }
        if rest.contains('#') {
            return Err(invalid("url", "no `#` part is taken: certificates are always verified"));
        }
        if rest.rsplit('@').next().is_some_and(|address| address.contains('?')) {
            return Err(invalid("url", "no `?` part is taken"));
        }
        // Encryption is ours; the parser is told of a plain address.
        let (tls, plain) = match scheme {
            "rediss" => (true, format!("redis://{rest}")),
            _ => (false, url.to_owned()),
        };
        let info = plain.into_connection_info().map_err(|e| {
            // The library's own text has no part of the URL but in `detail`, which is left out.
            invalid("url", format!("{}; {form}", e.category()))
        })?;
        Ok(Self { info, tls })
    }

    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        let of = |u: &Self| {
            let r = u.info.redis_settings();
            (r.username().map(str::to_owned), r.password().map(str::to_owned), u.to_string())
        };
        of(self) == of(other)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let db = self.info.redis_settings().db();
        let scheme = if self.tls { "rediss" } else { "redis" };
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => write!(f, "{scheme}://{host}:{port}/{db}"),
            ConnectionAddr::Unix(path) => write!(f, "unix://{}", path.display()),
            _ => f.write_str("redis"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self}, credentials hidden)")
    }
}

/// Whom to trust, and who we are, on an encrypted connection. The server's certificate and name are always verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// A PEM file of certificates to trust; the system's without.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with our certificate, where the server asks for one.
    pub client_certificate: Option<PathBuf>,
    /// A PEM file with its key.
    pub client_key: Option<PathBuf>,
}

/// How records are written.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishConfig {
    /// Records of one append, 1 to 10,000. The server does nothing else while it runs one.
    pub max_records_per_group: usize,
    /// Bytes of one append, keys included; one record always goes. Up to 64 MiB.
    pub max_bytes_per_group: usize,
    /// Bytes of one envelope, up to 64 MiB.
    pub max_envelope_bytes: usize,
    /// About how many bytes of records may wait or be in flight, a little for each record included; their futures stay
    /// pending, which is the back-pressure. A call beyond that answers `Throttled` and has no effect.
    pub max_buffered_bytes: usize,
    /// How long records wait for a server that cannot be reached or does not serve yet, up to an hour.
    pub give_up_after: Duration,
}

impl Default for PublishConfig {
    /// 512 records and 1 MiB in an append, envelopes of up to 1 MiB, 64 MiB buffered, 5 seconds of patience.
    fn default() -> Self {
        Self {
            max_records_per_group: 512,
            max_bytes_per_group: 1 << 20,
            max_envelope_bytes: EnvelopeLimits::DEFAULT_BYTES,
            max_buffered_bytes: 64 << 20,
            give_up_after: Duration::from_secs(5),
        }
    }
}

/// How records are read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadConfig {
    /// How many reads may block on a connection of their own while they wait at the head, up to 1,024; the others poll.
    pub waiting_connections: usize,
    /// How often a read that waits without such a connection looks again, 1 ms to a minute.
    pub poll_every: Duration,
}

impl Default for ReadConfig {
    /// 16 connections, and 20 ms.
    fn default() -> Self {
        Self { waiting_connections: 16, poll_every: Duration::from_millis(20) }
    }
}

/// How long to wait for the server, and for other gates.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// Until a connection is made, encrypted, authenticated and checked; 1 ms to 5 minutes.
    pub connect: Duration,
    /// Until a call is answered; 1 ms to 5 minutes. An append that is not answered by then has an unknown outcome.
    pub answer: Duration,
    /// After how long without a word from it a gate is taken for dead, and another one let in; in whole seconds, 1 s to an
    /// hour. The same for all gates of a bus.
    pub claim: Duration,
}

impl Default for Timeouts {
    /// 3, 10 and 30 seconds.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(10),
            claim: Duration::from_secs(30),
        }
    }
}

fn within(field: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{value} is not within {least} to {most}")))
}

fn lasts(field: &str, value: Duration, least_ms: u128, most_ms: u128) -> Result<()> {
    if (least_ms..=most_ms).contains(&value.as_millis()) {
        return Ok(());
    }
    Err(invalid(field, format!("{value:?} is not within {least_ms} to {most_ms} ms")))
}

fn invalid(field: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OP, message).at(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_without_its_password() {
        let url = RedisUrl::parse("redis://user:geheim@db.example:7000/3").unwrap();
        assert_eq!(url.to_string(), "redis://db.example:7000/3");
        let config = format!("{:?}", RedisConfig::new(url));
        assert!(!config.contains("geheim"), "{config}");
    }

    #[test]
    fn an_address_that_cannot_be_is_refused_without_being_quoted() {
        let bad = [
            "",
            "localhost:6379",
            "http://:geheim@x",
            "redis://:geheim@x:99999",
            "redis://:geheim@x/notanumber",
            "rediss://:geheim@x/#insecure",
            "redis://:geheim@x/?protocol=resp3",
        ];
        for url in bad {
            let e = RedisUrl::parse(url).unwrap_err();
            assert_eq!(*e.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(!e.to_string().contains("geheim"), "{e}");
        }
    }

    #[test]
    fn a_config_names_the_field_that_is_wrong() {
        let good = RedisConfig::new(RedisUrl::parse("redis://x").unwrap());
        good.check().unwrap();
        let fails = |change: fn(&mut RedisConfig), field: &str| {
            let mut config = good.clone();
            change(&mut config);
            let e = config.check().unwrap_err();
            assert_eq!(e.place(), Some(field), "{e}");
        };
        fails(|c| c.prefix = "a{b}".to_owned(), "prefix");
        fails(|c| c.tls.ca_file = Some("ca.pem".into()), "tls");
        fails(|c| c.publish.max_records_per_group = 0, "publish.max_records_per_group");
        fails(|c| c.publish.max_envelope_bytes = 65 << 20, "publish.max_envelope_bytes");
        fails(|c| c.timeouts.answer = Duration::ZERO, "timeouts.answer");
        fails(|c| c.read.poll_every = Duration::ZERO, "read.poll_every");
    }
}
