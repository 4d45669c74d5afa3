//! The section `wiring.consumers`, and what it opens: everything that a consumer needs of a profile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eb_consumer::{ConsumerBuilder, ConsumerSource, EventConsumer, OnTheirOwn, Stores};
use eb_contract::stores::{CheckpointStore, DeadLetterStore, LeaseStore, ProcessedStore, RegisterStore};
use eb_contract::{
    BoxFuture, Capabilities, Cursor, Error, EventBusGroups, EventBusReader, Head, OffsetKind, PartitionId,
    Result, StartAt, Topic, TopicPartitions,
};

use crate::backend::{self, Purpose};
use crate::error::{OpenError, ProfileError};
use crate::interpolate::Env;
use crate::model::{BusKind, CheckpointStoreConfig, Profile};
use crate::postgres::PostgresSettings;
use crate::section::Section;
use crate::stores;

/// What a consumer does without its bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConsumerMode {
    /// It does not start.
    Required,
    /// For development: it starts on a bus in the process, loudly.
    Degraded,
}

/// Where consumers get their records from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConsumerSourceKind {
    /// From the log, each partition from its checkpoint on.
    Log,
    /// From the consumer groups that the service itself keeps: Redis.
    Groups,
}

/// A store of consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerStoreConfig {
    /// Files below this folder, for the consumers of one machine.
    Embedded {
        /// The folder, resolved.
        path: PathBuf,
    },
    /// In the process.
    Memory,
    /// The database of the checkpoint store.
    Postgres(PostgresSettings),
}

/// The section `wiring.consumers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumersConfig {
    /// `mode`.
    pub mode: ConsumerMode,
    /// `source`.
    pub source: ConsumerSourceKind,
    /// `lease_store`: which worker reads which partition; beside it how holders of partitions ended that did not give them back.
    pub lease_store: ConsumerStoreConfig,
    /// `processed_store`: what was handled.
    pub processed_store: ConsumerStoreConfig,
    /// `dead_letter_store`: what could not be.
    pub dead_letter_store: ConsumerStoreConfig,
    /// `retention.marks_hours`: for how long marks are kept behind the checkpoint, for the guard against copies and for audit.
    pub keep_marks: Duration,
}

const KEYS: &[&str] = &["mode", "source", "lease_store", "processed_store", "dead_letter_store", "retention"];

#[derive(Clone, Copy)]
enum Kind {
    Embedded,
    Memory,
    Postgres,
}

/// Reads the section; where it says nothing, the stores are of the checkpoint store's kind and lie beside it.
pub(crate) fn read(
    all: &stores::Stores<'_>,
    checkpoints: &CheckpointStoreConfig,
    notices: &mut Vec<String>,
) -> Result<ConsumersConfig, ProfileError> {
    let section = all.wiring.section_or_empty("consumers", KEYS)?;
    let modes = [("required", ConsumerMode::Required), ("degraded", ConsumerMode::Degraded)];
    let mode = section.choice("mode", &modes)?;
    let source = read_source(&section, all.kind)?;
    let mut store = |key, what| read_store(all, &section, key, what, checkpoints, notices);
    let lease_store = store("lease_store", "the leases of consumers are")?;
    let processed_store = store("processed_store", "the marks of consumers are")?;
    let dead_letter_store = store("dead_letter_store", "dead letters are")?;
    let retention = section.section_or_empty("retention", &["marks_hours"])?;
    // The longest is a hundred years.
    let hours = retention.number_or("marks_hours", 1..=876_000, 168)?;
    let keep_marks = Duration::from_secs(hours * 3600);
    Ok(ConsumersConfig { mode, source, lease_store, processed_store, dead_letter_store, keep_marks })
}

fn read_source(consumers: &Section<'_>, bus: BusKind) -> Result<ConsumerSourceKind, ProfileError> {
    const SOURCES: &[(&str, ConsumerSourceKind)] =
        &[("log", ConsumerSourceKind::Log), ("groups", ConsumerSourceKind::Groups)];
    let source = consumers.choice("source", SOURCES)?;
    if source == ConsumerSourceKind::Groups && bus != BusKind::Redis {
        let what = format!("a bus of kind {} keeps no consumer groups, only redis does", bus.as_str());
        let written = consumers.optional("source")?;
        let at = written.as_ref().map_or(consumers.at, |w| w.at);
        return Err(consumers
            .reading
            .error(at, &consumers.full("source"), what)
            .advise("use `source: log`, which reads any bus".to_owned()));
    }
    Ok(source)
}

fn read_store(
    all: &stores::Stores<'_>,
    consumers: &Section<'_>,
    key: &str,
    what: &str,
    checkpoints: &CheckpointStoreConfig,
    notices: &mut Vec<String>,
) -> Result<ConsumerStoreConfig, ProfileError> {
    let section = consumers.section_or_empty(key, &["kind", "path"])?;
    let written = section.optional("kind")?;
    let is_written = written.is_some();
    let at = written.as_ref().map_or(section.at, |w| w.at);
    let refused = |what: &str, advice: &str| {
        Err(section.reading.error(at, &section.full("kind"), what.to_owned()).advise(advice.to_owned()))
    };
    let kind = match (written, checkpoints) {
        (Some(written), _) => written.one_of(&[
            ("embedded", Kind::Embedded),
            ("memory", Kind::Memory),
            ("postgres", Kind::Postgres),
        ])?,
        (None, CheckpointStoreConfig::File { .. }) => {
            section.defaulted("kind", "embedded");
            Kind::Embedded
        }
        (None, CheckpointStoreConfig::Memory) => {
            section.defaulted("kind", "memory");
            Kind::Memory
        }
        (None, CheckpointStoreConfig::Postgres(_)) => {
            section.defaulted("kind", "postgres");
            Kind::Postgres
        }
    };
    let path = section.optional("path")?;
    if let (Some(path), Kind::Memory | Kind::Postgres) = (&path, kind) {
        return Err(path.error("only `kind: embedded` lies in a folder"));
    }
    if is_written && !matches!(kind, Kind::Memory) {
        let full = format!("consumers.{key}.kind");
        if all.outlives_bus(what, at, &full, notices)? {
            return Ok(ConsumerStoreConfig::Memory);
        }
    }
    match kind {
        Kind::Memory => match checkpoints {
            CheckpointStoreConfig::Memory => Ok(ConsumerStoreConfig::Memory),
            _ => refused(
                "it would forget with the process what durable checkpoints refer to",
                "use `kind: embedded` or `postgres`",
            ),
        },
        Kind::Postgres => match checkpoints {
            CheckpointStoreConfig::Postgres(settings) => Ok(ConsumerStoreConfig::Postgres(settings.clone())),
            _ => refused(
                "it lies in the database of the checkpoint store, which is none",
                "use `kind: postgres` for wiring.checkpoint_store, or `kind: embedded` here",
            ),
        },
        Kind::Embedded => {
            let path = match (path, checkpoints) {
                (Some(path), _) => path.path_from(all.base)?,
                (None, CheckpointStoreConfig::File { root }) => {
                    section.defaulted("path", root.join("consumers").display().to_string()).into()
                }
                (None, _) => {
                    return Err(section.missing("path", ", and the checkpoints have no folder to lie beside"));
                }
            };
            Ok(ConsumerStoreConfig::Embedded { path })
        }
    }
}

/// Everything that consumers need of a profile, open.
pub struct Consumers {
    profile: Profile,
    reader: Arc<dyn EventBusReader>,
    groups: Option<Arc<dyn EventBusGroups>>,
    stores: Stores,
}

/// Opens what consumers need: the bus to read, and their stores. A bus that cannot be opened is no error here: a consumer in mode
/// `required` does not start on it and says why, one in mode `degraded` runs on a substitute.
///
/// `name_or_path` is as in [`crate::open`]. Dropping the future leaves nothing behind.
///
/// # Errors
/// [`OpenError`]: of the profile, or of a store that this program was built without.
pub async fn open_consumers(name_or_path: &str) -> Result<Consumers, OpenError> {
    open_consumers_with(name_or_path, &Env::process()).await
}

/// As [`open_consumers`], with variables from elsewhere than the process.
///
/// # Errors
/// As for [`open_consumers`].
pub async fn open_consumers_with(name_or_path: &str, env: &Env) -> Result<Consumers, OpenError> {
    let profile = Profile::load_with(name_or_path, env)?;
    let checkpoints = backend::open_checkpoints(&profile)?;
    let stores = open_stores(&profile, checkpoints).await?;
    let (reader, groups): (Arc<dyn EventBusReader>, _) =
        match backend::open_bus(&profile, Purpose::Reading).await {
            Ok(bus) => (bus.reader.clone(), bus.groups()),
            Err(OpenError::Bus(error)) => (Arc::new(Unopened::new(error)), None),
            Err(other) => return Err(other),
        };
    Ok(Consumers { profile, reader, groups, stores })
}

impl Consumers {
    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The bus; where it could not be opened, one whose every call answers why.
    #[must_use]
    pub fn reader(&self) -> &Arc<dyn EventBusReader> {
        &self.reader
    }

    /// Where consumers of this profile get their records from.
    #[must_use]
    pub fn source(&self) -> ConsumerSource {
        let reader = Arc::clone(&self.reader);
        match (self.profile.wiring.consumers.source, &self.groups) {
            (ConsumerSourceKind::Groups, Some(groups)) => {
                ConsumerSource::Groups { groups: Arc::clone(groups), reader }
            }
            // A bus that could not be opened has no groups either; its reader says why.
            (ConsumerSourceKind::Groups, None) | (ConsumerSourceKind::Log, _) => ConsumerSource::Log(reader),
        }
    }

    /// The stores.
    #[must_use]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// A consumer of this profile without topics and handlers yet: with its bus, its stores, its mode.
    ///
    /// # Errors
    /// In mode `degraded`, when the substitute cannot be made.
    pub async fn builder(&self, subscriber_name: &str) -> Result<ConsumerBuilder<OnTheirOwn>, OpenError> {
        let config = &self.profile.wiring.consumers;
        let builder = EventConsumer::builder(subscriber_name)
            .source(self.source())
            .stores(self.stores.clone())
            .keep_marks(config.keep_marks);
        match config.mode {
            ConsumerMode::Required => Ok(builder),
            ConsumerMode::Degraded => {
                let (source, stores) = substitute(&self.profile).await?;
                Ok(builder.degraded(source, stores))
            }
        }
    }
}

/// A bus in the process with the profile's topics, and stores that end with it.
#[cfg(feature = "memory")]
async fn substitute(profile: &Profile) -> Result<(ConsumerSource, Stores), OpenError> {
    use eb_contract::EventBusAdmin;

    let bus = eb_memory::MemoryBus::new();
    for (topic, partitions) in &profile.wiring.event_bus.topics {
        bus.admin().create_topic(topic, *partitions).await?;
    }
    let stores = Stores {
        checkpoints: Arc::new(eb_memory::MemoryCheckpointStore::new()),
        processed: Arc::new(eb_memory::MemoryProcessed::new()),
        dead_letters: Arc::new(eb_memory::MemoryDeadLetters::new()),
        leases: Arc::new(eb_memory::MemoryLeases::new()),
        registers: Arc::new(eb_memory::MemoryRegisterStore::new()),
    };
    Ok((ConsumerSource::Log(Arc::new(bus.reader())), stores))
}

#[cfg(not(feature = "memory"))]
#[allow(clippy::unused_async, reason = "as the other one")]
async fn substitute(_profile: &Profile) -> Result<(ConsumerSource, Stores), OpenError> {
    Err(backend::not_built("substitute bus").into())
}

#[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async, reason = "nothing to connect to"))]
async fn open_stores(profile: &Profile, checkpoints: Arc<dyn CheckpointStore>) -> Result<Stores, OpenError> {
    let config = &profile.wiring.consumers;
    // What is known of crashes lies beside the leases.
    let (leases, registers): (Arc<dyn LeaseStore>, Arc<dyn RegisterStore>) = match &config.lease_store {
        #[cfg(feature = "file")]
        ConsumerStoreConfig::Embedded { path } => (
            Arc::new(eb_store_local::EmbeddedLeases::open(path)),
            Arc::new(eb_store_local::FileRegisterStore::open(path)),
        ),
        #[cfg(feature = "memory")]
        ConsumerStoreConfig::Memory => {
            (Arc::new(eb_memory::MemoryLeases::new()), Arc::new(eb_memory::MemoryRegisterStore::new()))
        }
        #[cfg(feature = "postgres")]
        ConsumerStoreConfig::Postgres(database) => {
            let (settings, placed) =
                (database.to_config(&profile.profile_id), |e: Error| in_database(profile, database, &e));
            let leases = eb_checkpoint_pg::PgLeases::open(&settings).await.map_err(placed)?;
            let registers = eb_checkpoint_pg::PgRegisterStore::open(&settings).await.map_err(placed)?;
            (Arc::new(leases), Arc::new(registers))
        }
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => return Err(backend::not_built("lease store").into()),
    };
    let processed: Arc<dyn ProcessedStore> = match &config.processed_store {
        #[cfg(feature = "file")]
        ConsumerStoreConfig::Embedded { path } => {
            let marks = eb_store_local::MarksConfig::new(path);
            Arc::new(eb_store_local::EmbeddedProcessed::open(&marks))
        }
        #[cfg(feature = "memory")]
        ConsumerStoreConfig::Memory => Arc::new(eb_memory::MemoryProcessed::new()),
        #[cfg(feature = "postgres")]
        ConsumerStoreConfig::Postgres(database) => {
            let opened = eb_checkpoint_pg::PgProcessed::open(&database.to_config(&profile.profile_id)).await;
            Arc::new(opened.map_err(|e| in_database(profile, database, &e))?)
        }
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => return Err(backend::not_built("processed store").into()),
    };
    let dead_letters: Arc<dyn DeadLetterStore> = match &config.dead_letter_store {
        #[cfg(feature = "file")]
        ConsumerStoreConfig::Embedded { path } => Arc::new(eb_store_local::EmbeddedDeadLetters::open(path)),
        #[cfg(feature = "memory")]
        ConsumerStoreConfig::Memory => Arc::new(eb_memory::MemoryDeadLetters::new()),
        #[cfg(feature = "postgres")]
        ConsumerStoreConfig::Postgres(database) => {
            let opened =
                eb_checkpoint_pg::PgDeadLetters::open(&database.to_config(&profile.profile_id)).await;
            Arc::new(opened.map_err(|e| in_database(profile, database, &e))?)
        }
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => return Err(backend::not_built("dead-letter store").into()),
    };
    Ok(Stores { checkpoints, processed, dead_letters, leases, registers })
}

#[cfg(feature = "postgres")]
fn in_database(profile: &Profile, database: &PostgresSettings, error: &Error) -> Error {
    crate::postgres::placed(error.clone(), &backend::place(profile, database, "checkpoint_store"))
}

/// A bus that could not be opened: every call says why.
struct Unopened {
    error: Error,
    capabilities: Capabilities,
}

impl Unopened {
    fn new(error: Error) -> Self {
        Self { error, capabilities: Capabilities::new("unopened", OffsetKind::MemoryIndex) }
    }

    fn refuse<'a, T: Send + 'a>(&self) -> BoxFuture<'a, Result<T>> {
        Box::pin(std::future::ready(Err(self.error.clone())))
    }
}

impl EventBusReader for Unopened {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.refuse()
    }

    fn partitions<'a>(&'a self, _topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        self.refuse()
    }

    fn head<'a>(&'a self, _topic: &'a Topic, _partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        self.refuse()
    }

    fn cursor<'a>(
        &'a self,
        _topic: &'a Topic,
        _partition: PartitionId,
        _start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        self.refuse()
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
