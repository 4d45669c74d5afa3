//! The one place that knows backends by name. To add one: a cargo feature, its settings in [`crate::model`], and an arm in [`open_bus`].

use std::sync::Arc;

use eb_contract::stores::{AdmissionIndex, CheckpointStore};
use eb_contract::{Error, ErrorKind, EventBusAdmin, EventBusGroups, EventBusPublisher, EventBusReader};

use crate::error::OpenError;
use crate::model::{
    AdmissionIndexConfig, BusKind, CheckpointStoreConfig, EventBusConfig, Profile, QuarantineConfig,
};
#[cfg(feature = "postgres")]
use crate::postgres;

/// What a platform is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing is made and nothing is locked.
    Reading,
    /// What is missing is made; locks are taken when something is first written.
    Writing,
}

/// An open bus.
pub(crate) struct Bus {
    pub(crate) publisher: Arc<dyn EventBusPublisher>,
    pub(crate) reader: Arc<dyn EventBusReader>,
    pub(crate) admin: Arc<dyn EventBusAdmin>,
    /// Who else is told of a gate.
    claims: Claims,
    /// Where the bus is made of two, which have claims of their own.
    #[cfg(feature = "rollout")]
    pub(crate) rollout: Option<(eb_rollout::RolloutBus, crate::rollout::claims::RolloutClaims)>,
}

/// Where a gate says that it is there, so that no other admits what it does not know of.
pub(crate) enum Claims {
    /// Not needed: nobody else can write, or the backend has no place for it.
    None,
    #[cfg(feature = "redis")]
    Redis(Arc<eb_redis::RedisBus>),
}

#[cfg_attr(
    not(feature = "redis"),
    allow(unused_variables, clippy::unused_async, reason = "there is no such backend")
)]
impl Claims {
    /// To be called before a gate reads the log; `shared` if all gates have one index.
    ///
    /// # Errors
    /// `Locked`, naming the other gate, while there is one that this one excludes.
    pub(crate) async fn make(&self, shared: bool) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            #[cfg(feature = "redis")]
            Self::Redis(bus) => {
                bus.claim(if shared { eb_redis::GateClaim::Shared } else { eb_redis::GateClaim::Sole }).await
            }
        }
    }

    /// To be called once the gate is closed.
    pub(crate) async fn give_up(&self) {
        match self {
            Self::None => {}
            #[cfg(feature = "redis")]
            Self::Redis(bus) => bus.give_up_claim().await,
        }
    }

    /// Whether a claim is anything here.
    #[cfg(feature = "rollout")]
    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self, Self::None)
    }
}

impl Bus {
    /// The consumer groups that the service keeps, where it does.
    pub(crate) fn groups(&self) -> Option<Arc<dyn EventBusGroups>> {
        match &self.claims {
            #[cfg(feature = "redis")]
            Claims::Redis(bus) => Some(Arc::new(bus.groups())),
            _ => None,
        }
    }

    /// As [`Claims::make`], for a gate with this index.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn claim(&self, index: &dyn AdmissionIndex) -> Result<(), Error> {
        let shared = index.is_shared();
        #[cfg(feature = "rollout")]
        if let Some((_, claims)) = &self.rollout {
            return claims.make(shared).await;
        }
        self.claims.make(shared).await
    }

    /// To be called once the gate is closed.
    pub(crate) async fn give_up_claim(&self) {
        #[cfg(feature = "rollout")]
        if let Some((_, claims)) = &self.rollout {
            return claims.give_up().await;
        }
        self.claims.give_up().await;
    }
}

/// The bus of one kind, open; publishers are made from it.
pub(crate) struct Opened {
    /// Makes a publisher, whose life is its own.
    pub(crate) publisher: Box<dyn Fn() -> Arc<dyn EventBusPublisher> + Send + Sync>,
    pub(crate) reader: Arc<dyn EventBusReader>,
    pub(crate) admin: Arc<dyn EventBusAdmin>,
    pub(crate) claims: Claims,
}

impl From<Opened> for Bus {
    fn from(opened: Opened) -> Self {
        let Opened { publisher, reader, admin, claims } = opened;
        Self {
            publisher: publisher(),
            reader,
            admin,
            claims,
            #[cfg(feature = "rollout")]
            rollout: None,
        }
    }
}

/// Opens the bus of a profile.
pub(crate) async fn open_bus(profile: &Profile, purpose: Purpose) -> Result<Bus, OpenError> {
    let config = &profile.wiring.event_bus;
    match profile.wiring.event_bus_kind {
        #[cfg(feature = "rollout")]
        BusKind::Rollout => {
            let settings = config.rollout.as_ref().ok_or_else(|| no_section("rollout"))?;
            let (bus, claims) = crate::rollout::opened::open(profile, settings, purpose).await?;
            Ok(Bus {
                publisher: Arc::new(bus.publisher()),
                reader: Arc::new(bus.reader()),
                admin: Arc::new(bus.admin()),
                claims: Claims::None,
                rollout: Some((bus, claims)),
            })
        }
        kind => Ok(open_kind(kind, config, purpose).await?.into()),
    }
}

/// Opens a bus of a kind that is not made of others.
#[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "a bus in the process is always made"))]
pub(crate) async fn open_kind(
    kind: BusKind,
    config: &EventBusConfig,
    purpose: Purpose,
) -> Result<Opened, OpenError> {
    match kind {
        #[cfg(feature = "file")]
        BusKind::File => {
            let root = config.root.clone().unwrap_or_default();
            let settings = eb_file::FileBusConfig {
                create: purpose == Purpose::Writing,
                max_envelope_bytes: config.max_envelope_bytes,
                preallocate_bytes: config.preallocate_bytes,
                reserve_bytes: config.reserve_bytes,
                inline_commit: Some(crate::inline::on_tokio()),
                ..eb_file::FileBusConfig::new(root)
            };
            Ok(file_bus(settings).await?)
        }
        #[cfg(feature = "memory")]
        BusKind::Memory => {
            let max_envelope_bytes = config.max_envelope_bytes;
            Ok(memory_bus(eb_memory::MemoryConfig { max_envelope_bytes, ..Default::default() }))
        }
        #[cfg(feature = "kinesis")]
        BusKind::Kinesis => {
            let settings = config.kinesis.as_ref().ok_or_else(|| no_section("kinesis"))?;
            let bus = eb_kinesis::KinesisBus::open(settings.to_config()).await?;
            Ok(Opened {
                reader: Arc::new(bus.reader()),
                admin: Arc::new(bus.admin()),
                publisher: Box::new(move || Arc::new(bus.publisher())),
                claims: Claims::None,
            })
        }
        #[cfg(feature = "redis")]
        BusKind::Redis => {
            let settings = config.redis.as_ref().ok_or_else(|| no_section("redis"))?;
            let bus = eb_redis::RedisBus::open(settings.to_config(config.max_envelope_bytes)?).await?;
            let bus = Arc::new(bus);
            Ok(Opened {
                reader: Arc::new(bus.reader()),
                admin: Arc::new(bus.admin()),
                claims: Claims::Redis(bus.clone()),
                publisher: Box::new(move || Arc::new(bus.publisher())),
            })
        }
        // The next backend goes here.
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        kind => {
            let what = format!("this program was built without the backend `{}`", kind.as_str());
            Err(OpenError::Bus(Error::new(ErrorKind::Unsupported, "open", what)))
        }
    }
}

/// Reading the profile has refused that already.
fn no_section(name: &str) -> Error {
    let what = format!("the profile has no section event_bus.{name}");
    Error::new(ErrorKind::InvalidInput, "open", what)
}

#[cfg(feature = "file")]
async fn file_bus(config: eb_file::FileBusConfig) -> Result<Opened, Error> {
    let file = blocking("open", move || eb_file::FileBus::open(config)).await?;
    Ok(Opened {
        reader: Arc::new(file.reader()),
        admin: Arc::new(file.admin()),
        publisher: Box::new(move || Arc::new(file.publisher())),
        claims: Claims::None,
    })
}

#[cfg(feature = "memory")]
fn memory_bus(config: eb_memory::MemoryConfig) -> Opened {
    let memory = eb_memory::MemoryBus::with_config(config);
    Opened {
        reader: Arc::new(memory.reader()),
        admin: Arc::new(memory.admin()),
        publisher: Box::new(move || Arc::new(memory.publisher())),
        claims: Claims::None,
    }
}

/// Opens the checkpoint store of a profile.
pub(crate) fn open_checkpoints(profile: &Profile) -> Result<Arc<dyn CheckpointStore>, OpenError> {
    match &profile.wiring.checkpoint_store {
        #[cfg(feature = "file")]
        CheckpointStoreConfig::File { root } => Ok(Arc::new(eb_file::FileCheckpointStore::open(root))),
        #[cfg(feature = "memory")]
        CheckpointStoreConfig::Memory => Ok(Arc::new(eb_memory::MemoryCheckpointStore::new())),
        #[cfg(feature = "postgres")]
        CheckpointStoreConfig::Postgres(settings) => Ok(Arc::new(postgres::LazyCheckpoints::new(
            settings.to_config(&profile.profile_id),
            place(profile, settings, "checkpoint_store"),
        ))),
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => Err(not_built("checkpoint store").into()),
    }
}

/// Opens the admission index of a profile; takes its lock.
pub(crate) async fn open_index(profile: &Profile) -> Result<Arc<dyn AdmissionIndex>, OpenError> {
    match &profile.wiring.admission_index {
        #[cfg(feature = "file")]
        AdmissionIndexConfig::Embedded { path, max_lag, cache_bytes } => {
            let config = eb_store_local::AdmissionIndexConfig::new(path)
                .with_max_lag(*max_lag)
                .with_cache_bytes(*cache_bytes);
            let index =
                blocking("open index", move || eb_store_local::EmbeddedAdmissionIndex::open(&config)).await?;
            Ok(Arc::new(index))
        }
        #[cfg(feature = "memory")]
        AdmissionIndexConfig::Memory => Ok(Arc::new(eb_memory::MemoryAdmissionIndex::new())),
        #[cfg(feature = "postgres")]
        AdmissionIndexConfig::Postgres { database, gate, lease, max_lag } => {
            let options = eb_checkpoint_pg::PgIndexConfig {
                lease: *lease,
                max_lag: *max_lag,
                ..eb_checkpoint_pg::PgIndexConfig::new(gate)
            };
            let config = database.to_config(&profile.profile_id);
            let index = eb_checkpoint_pg::PgAdmissionIndex::open(&config, &options).await;
            Ok(Arc::new(
                index.map_err(|e| postgres::placed(e, &place(profile, database, "admission_index")))?,
            ))
        }
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => Err(not_built("admission index").into()),
    }
}

/// Opens the bus that evidence is kept on. Evidence of an input is larger than the input: it takes the largest records there are.
#[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "a bus in the process is always made"))]
pub(crate) async fn open_quarantine_bus(profile: &Profile, purpose: Purpose) -> Result<Bus, OpenError> {
    match &profile.wiring.quarantine {
        #[cfg(feature = "file")]
        QuarantineConfig::File { root } => {
            let settings = eb_file::FileBusConfig {
                create: purpose == Purpose::Writing,
                max_envelope_bytes: eb_file::format::line::MAX_ENVELOPE_BYTES,
                ..eb_file::FileBusConfig::new(root)
            };
            Ok(file_bus(settings).await?.into())
        }
        #[cfg(feature = "memory")]
        QuarantineConfig::Memory => {
            let config = eb_memory::MemoryConfig { max_envelope_bytes: 16 << 20, ..Default::default() };
            Ok(memory_bus(config).into())
        }
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => Err(not_built("quarantine").into()),
    }
}

/// Connects to the databases of a profile: for each store that is one, its section and how it was found. Changes nothing.
#[cfg_attr(not(feature = "postgres"), allow(unused_variables, clippy::unused_async, reason = "no databases"))]
pub(crate) async fn look_at_databases(profile: &Profile) -> Result<Vec<(&'static str, String)>, OpenError> {
    #[allow(unused_mut, reason = "no databases without the feature")]
    let mut found = Vec::new();
    #[cfg(feature = "postgres")]
    {
        let mut databases = Vec::new();
        if let CheckpointStoreConfig::Postgres(settings) = &profile.wiring.checkpoint_store {
            databases.push(("checkpoint_store", settings));
        }
        if let AdmissionIndexConfig::Postgres { database, .. } = &profile.wiring.admission_index {
            databases.push(("admission_index", database));
        }
        for (section, settings) in databases {
            let config = settings.to_config(&profile.profile_id);
            found.push((section, postgres::look(&config, &place(profile, settings, section)).await?));
        }
    }
    Ok(found)
}

/// Where a database's address is set.
#[cfg(feature = "postgres")]
pub(crate) fn place(profile: &Profile, settings: &crate::PostgresSettings, section: &str) -> String {
    format!("{}:{}:{}: wiring.{section}.url", profile.source.name(), settings.at.line, settings.at.column)
}

pub(crate) fn not_built(what: &str) -> Error {
    let what = format!("this program was built without the backend of the {what}");
    Error::new(ErrorKind::Unsupported, "open", what)
        .advise("build it with the cargo feature that the profile names")
}

/// File operations, off the runtime's threads.
#[cfg(feature = "file")]
async fn blocking<T: Send + 'static>(
    op: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::new(ErrorKind::Unavailable, op, "it was interrupted").with_source(e)))
}
