//! Stores in PostgreSQL: their settings, and opening them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Place, ProfileError};
use crate::model::BusKind;
use crate::secret::Secret;
use crate::section::Section;

/// The keys of a store in Postgres, `kind` and the store's own apart.
pub(crate) const KEYS: &[&str] = &[
    "url",
    "schema",
    "tls",
    "ca_file",
    "migrations",
    "max_connections",
    "pool_wait_ms",
    "connect_timeout_ms",
    "statement_timeout_ms",
    "lock_timeout_ms",
    "allow_unsafe_server",
];

/// The longest name of a schema in a profile: Postgres takes 63 bytes, the kind of bus is added.
const MAX_SCHEMA: usize = 48;

/// A PostgreSQL database that a store lies in, and the limits within which it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `url`: `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// `schema`, with the kind of bus: the namespace of the tables, such as `event_bus_kinesis`.
    pub schema: String,
    /// `tls`.
    pub tls: PostgresTls,
    /// `migrations: apply`: tables are made and brought up to date when the store is opened; with `verify` one that
    /// lacks something is refused.
    pub apply_migrations: bool,
    /// `max_connections` of the store.
    pub max_connections: usize,
    /// `pool_wait_ms`: how long a call may wait for one of them.
    pub pool_wait: Duration,
    /// `connect_timeout_ms`.
    pub connect_timeout: Duration,
    /// `statement_timeout_ms`: how long the server may work on one statement.
    pub statement_timeout: Duration,
    /// `lock_timeout_ms`: how long a statement may wait for a row that another holds.
    pub lock_timeout: Duration,
    /// `allow_unsafe_server`: opens a server that runs without `fsync`. Its answers are not durable.
    pub allow_unsafe_server: bool,
    /// Where the address is set.
    pub at: Place,
}

/// Whether and how connections are encrypted. There is no encryption without verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresTls {
    /// A server on this machine: off; any other: verified; unless the address has an `sslmode`.
    ByAddress,
    /// Never.
    Off,
    /// The server's certificate must be valid for its name.
    Verified {
        /// `ca_file`: a PEM file of the certificates that are trusted; those of the system without one.
        ca_file: Option<PathBuf>,
    },
}

/// Reads a store's database.
pub(crate) fn read(
    section: &Section<'_>,
    kind: BusKind,
    base: &Path,
) -> Result<PostgresSettings, ProfileError> {
    let url = section.required("url")?;
    let at = url.at;
    let url = url.secret()?;
    let millis =
        |key: &str, default| section.number_or(key, 1..=3_600_000, default).map(Duration::from_millis);
    Ok(PostgresSettings {
        url,
        schema: format!("{}_{}", schema(section)?, kind.as_str()),
        tls: tls(section, base)?,
        apply_migrations: section.choice("migrations", &[("apply", true), ("verify", false)])?,
        max_connections: usize::try_from(section.number_or("max_connections", 1..=1_000, 8)?).unwrap_or(8),
        pool_wait: millis("pool_wait_ms", 5_000)?,
        connect_timeout: millis("connect_timeout_ms", 10_000)?,
        statement_timeout: millis("statement_timeout_ms", 10_000)?,
        lock_timeout: millis("lock_timeout_ms", 5_000)?,
        allow_unsafe_server: section.boolean_or("allow_unsafe_server", false)?,
        at,
    })
}

fn schema(section: &Section<'_>) -> Result<String, ProfileError> {
    let Some(value) = section.optional("schema")? else {
        return Ok(section.defaulted("schema", "event_bus").to_owned());
    };
    let misfit = value.error("use a-z 0-9 _, not a digit or pg_ at the beginning");
    let text = value.text(MAX_SCHEMA)?;
    let fits = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.starts_with("pg_");
    if fits { Ok(text) } else { Err(misfit) }
}

fn tls(section: &Section<'_>, base: &Path) -> Result<PostgresTls, ProfileError> {
    let ca_file = section.optional("ca_file")?;
    let at = ca_file.as_ref().map(|file| file.at);
    let ca_file = ca_file.map(|file| file.path_from(base)).transpose()?;
    let choices = [
        ("by_address", PostgresMode::ByAddress),
        ("off", PostgresMode::Off),
        ("verified", PostgresMode::Verified),
    ];
    let mode = match (section.optional("tls")?, &ca_file) {
        (Some(value), _) => value.one_of(&choices)?,
        // Whoever says what to trust wants it looked at.
        (None, Some(_)) => {
            section.defaulted("tls", "verified");
            PostgresMode::Verified
        }
        (None, None) => section.choice("tls", &choices)?,
    };
    match (mode, ca_file) {
        (PostgresMode::Verified, ca_file) => Ok(PostgresTls::Verified { ca_file }),
        (PostgresMode::ByAddress, None) => Ok(PostgresTls::ByAddress),
        (PostgresMode::Off, None) => Ok(PostgresTls::Off),
        (_, Some(_)) => Err(section.reading.error(
            at.unwrap_or(section.at),
            &section.full("ca_file"),
            "it is looked at with `tls: verified` only",
        )),
    }
}

#[derive(Clone, Copy)]
enum PostgresMode {
    ByAddress,
    Off,
    Verified,
}

#[cfg(feature = "postgres")]
mod opened {
    //! Opening a store when it is first used, so that who only reads the bus needs no database.

    use eb_checkpoint_pg::{Migrations, PgCheckpointStore, PgConfig, SchemaState, Tls};
    use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
    use eb_contract::{BoxFuture, ConsumerName, Error, PartitionId, Result, Topic};
    use tokio::sync::OnceCell;

    use super::{PostgresSettings, PostgresTls};

    impl PostgresSettings {
        /// What the store takes. `key` is the store's section, for `application_name`.
        pub(crate) fn to_config(&self, profile_id: &str) -> PgConfig {
            PgConfig {
                schema: self.schema.clone(),
                tls: match &self.tls {
                    PostgresTls::ByAddress => Tls::ByAddress,
                    PostgresTls::Off => Tls::Off,
                    PostgresTls::Verified { ca_file } => Tls::Verified { ca_file: ca_file.clone() },
                },
                migrations: if self.apply_migrations { Migrations::Apply } else { Migrations::Verify },
                max_connections: self.max_connections,
                pool_wait: self.pool_wait,
                connect_timeout: self.connect_timeout,
                statement_timeout: self.statement_timeout,
                lock_timeout: self.lock_timeout,
                application_name: format!("event-bus {profile_id}"),
                allow_unsafe_server: self.allow_unsafe_server,
                ..PgConfig::new(self.url.expose())
            }
        }
    }

    /// A profile's place, for an error that has none: of an address that means nothing.
    pub(crate) fn placed(error: Error, place: &str) -> Error {
        if error.place().is_none() { error.at(place) } else { error }
    }

    /// Connects and tells in words how the schema stands; changes nothing.
    pub(crate) async fn look(config: &PgConfig, place: &str) -> Result<String> {
        let state = eb_checkpoint_pg::check(config).await.map_err(|e| placed(e, place))?;
        let applies = config.migrations == Migrations::Apply;
        Ok(match (state, applies) {
            (SchemaState::Current, _) => "connected".to_owned(),
            (SchemaState::Missing, true) => "connected; its tables are made when it is first used".to_owned(),
            (SchemaState::Older, true) => {
                "connected; its tables are brought up to date when it is first used".to_owned()
            }
            (_, false) => return PgCheckpointStore::open(config).await.map(|_| "connected".to_owned()),
        })
    }

    /// A checkpoint store that connects with the first call. A failed attempt is the call's error, and the next call
    /// tries again.
    pub(crate) struct LazyCheckpoints {
        config: PgConfig,
        place: String,
        store: OnceCell<PgCheckpointStore>,
    }

    impl LazyCheckpoints {
        pub(crate) fn new(config: PgConfig, place: String) -> Self {
            Self { config, place, store: OnceCell::new() }
        }

        async fn store(&self) -> Result<&PgCheckpointStore> {
            let open =
                || async { PgCheckpointStore::open(&self.config).await.map_err(|e| placed(e, &self.place)) };
            self.store.get_or_try_init(open).await
        }
    }

    impl CheckpointStore for LazyCheckpoints {
        fn load<'a>(
            &'a self,
            consumer: &'a ConsumerName,
            topic: &'a Topic,
            partition: PartitionId,
        ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
            Box::pin(async move { self.store().await?.load(consumer, topic, partition).await })
        }

        fn commit<'a>(
            &'a self,
            checkpoints: &'a [Checkpoint],
            lease: &'a Lease,
        ) -> BoxFuture<'a, Vec<Result<Checkpoint>>> {
            Box::pin(async move {
                match self.store().await {
                    Ok(store) => store.commit(checkpoints, lease).await,
                    Err(e) => checkpoints.iter().map(|_| Err(e.clone())).collect(),
                }
            })
        }

        fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<Checkpoint>>> {
            Box::pin(async move { self.store().await?.list(consumer).await })
        }

        fn reset<'a>(&'a self, request: &'a ResetRequest) -> BoxFuture<'a, Result<Checkpoint>> {
            Box::pin(async move { self.store().await?.reset(request).await })
        }

        fn probe(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(async move { self.store().await?.probe().await })
        }
    }
}

#[cfg(feature = "postgres")]
pub(crate) use opened::{LazyCheckpoints, look, placed};
