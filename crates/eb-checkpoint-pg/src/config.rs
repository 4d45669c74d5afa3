//! Where the database is and how patient to be with it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eb_contract::{Error, ErrorKind, Result};
use tokio_postgres::config::{Host, SslMode};

/// Where the database is, and the limits within which it is used.
///
/// Neither `Debug` nor any error of this crate shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PgConfig {
    /// `postgres://user:password@host:port/database` (reserved characters percent-encoded), or
    /// `host=… user=… dbname=…`.
    pub url: String,
    /// The schema that holds the tables: 1 to 63 of `[a-z0-9_]`, not starting with a digit or `pg_`.
    pub schema: String,
    /// Whether and how connections are encrypted.
    pub tls: Tls,
    /// What to do about the schema's version on open.
    pub migrations: Migrations,
    /// The most connections of one store.
    pub max_connections: usize,
    /// How long a call may wait for a free connection of the pool.
    pub pool_wait: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long the server may work on one statement (`statement_timeout`). The client waits a little longer for the
    /// answer, then gives the connection up.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a row that another one holds (`lock_timeout`).
    pub lock_timeout: Duration,
    /// What `application_name` shows in `pg_stat_activity`.
    pub application_name: String,
    /// Opens a server that runs with `fsync` or `full_page_writes` off. What is answered as durable is not, then.
    pub allow_unsafe_server: bool,
}

impl PgConfig {
    /// The usual limits: schema `event_bus`, 8 connections, 5 s for a connection of the pool, 10 s to connect and for a
    /// statement, 5 s for a lock.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: "event_bus".to_owned(),
            tls: Tls::default(),
            migrations: Migrations::default(),
            max_connections: 8,
            pool_wait: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            application_name: "event-bus".to_owned(),
            allow_unsafe_server: false,
        }
    }
}

impl fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match Target::of(self) {
            Ok(target) => target.place,
            Err(_) => "(not understood)".to_owned(),
        };
        f.debug_struct("PgConfig")
            .field("database", &place)
            .field("schema", &self.schema)
            .field("tls", &self.tls)
            .field("migrations", &self.migrations)
            .field("max_connections", &self.max_connections)
            .field("pool_wait", &self.pool_wait)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .field("application_name", &self.application_name)
            .field("allow_unsafe_server", &self.allow_unsafe_server)
            .finish()
    }
}

/// Whether and how connections are encrypted. There is no encryption without verification here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tls {
    /// By the address: `sslmode=disable` is off, `sslmode=require` verified; without either, a server on this machine (a
    /// socket, a loopback address) is off and any other verified.
    #[default]
    ByAddress,
    /// No encryption.
    Off,
    /// The server's certificate must be valid for its host name, and signed by one that is trusted.
    Verified {
        /// A PEM file with the trusted certificates; those of the system without one.
        ca_file: Option<PathBuf>,
    },
}

/// What to do about the schema's version on open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Migrations {
    /// Bring the schema to this program's version, creating it where it is missing. Several may do so at once.
    #[default]
    Apply,
    /// Refuse to open unless it is there in this program's version.
    Verify,
}

/// What the address means.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) config: tokio_postgres::Config,
    /// Host, port, database and schema, for errors.
    pub(crate) place: String,
    /// `None` for no encryption, else the certificates' file.
    pub(crate) tls: Option<Option<PathBuf>>,
}

impl Target {
    pub(crate) fn of(config: &PgConfig) -> Result<Self> {
        // The parser's own message may quote pieces of the text, and with it of the password.
        let parsed = config.url.parse::<tokio_postgres::Config>();
        let mut parsed =
            parsed.map_err(|_| invalid("the database address has another form than postgres://user:password@host:port/database (reserved characters percent-encoded)"))?;
        check_schema(&config.schema)?;
        let hosts = parsed.get_hosts();
        // A password with a bare @ ends up in the host, which is shown.
        let misread = hosts
            .iter()
            .any(|h| matches!(h, Host::Tcp(name) if name.contains(['@', '/', ':', ' '])) && !is_ip(h));
        if misread {
            return Err(invalid(
                "the database address has reserved characters in its user or password; percent-encode them",
            ));
        }
        if hosts.is_empty() {
            return Err(invalid("the database address names no host"));
        }
        let local = hosts.iter().all(is_local);
        let tls = match &config.tls {
            Tls::Off => None,
            Tls::Verified { ca_file } => Some(ca_file.clone()),
            Tls::ByAddress => match parsed.get_ssl_mode() {
                SslMode::Disable => None,
                SslMode::Require => Some(None),
                _ if local => None,
                _ => Some(None),
            },
        };
        parsed.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        parsed.application_name(&config.application_name).connect_timeout(config.connect_timeout);
        parsed.keepalives(true).keepalives_idle(Duration::from_secs(30));
        let place = place(&parsed, &config.schema);
        Ok(Self { config: parsed, place, tls })
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "open database", message)
}

fn check_schema(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let fits = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
        && !bytes[0].is_ascii_digit()
        && !name.starts_with("pg_");
    if fits {
        Ok(())
    } else {
        Err(invalid("a schema has 1 to 63 characters of [a-z0-9_], not starting with a digit or pg_"))
    }
}

fn is_ip(host: &Host) -> bool {
    matches!(host, Host::Tcp(name) if name.parse::<std::net::IpAddr>().is_ok())
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn place(config: &tokio_postgres::Config, schema: &str) -> String {
    let mut hosts = Vec::new();
    for (i, host) in config.get_hosts().iter().enumerate() {
        let ports = config.get_ports();
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        hosts.push(match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{port}", path.display()),
        });
    }
    let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres");
    format!("{}/{database}.{schema}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::of(&PgConfig::new(url)).unwrap()
    }

    #[test]
    fn the_password_is_never_shown() {
        for url in [
            "postgres://me:s3cr%40t@db.example:6000/bus",
            "host=db.example user=me password=s3cr@t dbname=bus",
            "postgres://me:s3cr@t@db.example/bus",
            "postgres://me:s3cr@t/x@db.example/bus",
            "postgres://me:s3cr?t=1@db.example/bus",
            "postgres://me:100%s3cr@db.example/bus",
            "host=db.example s3cret=1",
            "s3cret",
        ] {
            let config = PgConfig::new(url);
            assert!(!format!("{config:?}").contains("s3cr"), "{config:?}");
            match Target::of(&config) {
                Ok(target) => assert!(!target.place.contains("s3cr"), "{}", target.place),
                Err(e) => assert!(!format!("{e} {e:?}").contains("s3cr"), "{e}"),
            }
        }
    }

    #[test]
    fn a_place_names_host_port_database_and_schema() {
        assert_eq!(target("postgres://me:x@db.example:6000/bus").place, "db.example:6000/bus.event_bus");
        assert_eq!(target("postgres://me@127.0.0.1/bus").place, "127.0.0.1:5432/bus.event_bus");
    }

    #[test]
    fn only_a_server_on_this_machine_is_used_without_encryption_by_itself() {
        assert_eq!(target("postgres://me@127.0.0.1/bus").tls, None);
        assert_eq!(target("postgres://me@localhost/bus").tls, None);
        assert_eq!(target("postgres://me@db.example/bus").tls, Some(None));
        assert_eq!(target("postgres://me@localhost,db.example/bus").tls, Some(None));
        assert_eq!(target("postgres://me@db.example/bus?sslmode=disable").tls, None);
        assert_eq!(target("postgres://me@127.0.0.1/bus?sslmode=require").tls, Some(None));
    }

    #[test]
    fn a_schema_is_a_plain_name() {
        for bad in ["", "Bus", "a-b", "1a", "pg_x", "a\"; DROP", &"a".repeat(64)] {
            let config = PgConfig { schema: bad.to_owned(), ..PgConfig::new("postgres://me@localhost/bus") };
            assert!(Target::of(&config).is_err(), "{bad}");
        }
    }
}
