//! The one place that knows backends by name. To add one: a cargo feature, its settings in [`crate::model`], and an arm in [`open_bus`].

use std::sync::Arc;

use eb_contract::stores::{AdmissionIndex, CheckpointStore};
use eb_contract::{Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader};

use crate::error::{OpenError, Place, ProfileError};
use crate::model::{AdmissionIndexConfig, BusKind, CheckpointStoreConfig, Profile, QuarantineConfig};

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
}

/// Opens the bus of a profile.
#[cfg_attr(not(feature = "file"), allow(unused_variables, reason = "a bus in the process is always made"))]
pub(crate) async fn open_bus(profile: &Profile, purpose: Purpose) -> Result<Bus, OpenError> {
    let config = &profile.wiring.event_bus;
    match profile.wiring.event_bus_kind {
        #[cfg(feature = "file")]
        BusKind::File => {
            let root = config.root.clone().unwrap_or_default();
            let settings = eb_file::FileBusConfig {
                create: purpose == Purpose::Writing,
                max_envelope_bytes: config.max_envelope_bytes,
                preallocate_bytes: config.preallocate_bytes,
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
        // The next backend goes here.
        kind => {
            let what = format!("this program was built without the backend `{}`", kind.as_str());
            Err(OpenError::Bus(Error::new(ErrorKind::Unsupported, "open", what)))
        }
    }
}

#[cfg(feature = "file")]
async fn file_bus(config: eb_file::FileBusConfig) -> Result<Bus, Error> {
    let file = blocking("open", move || eb_file::FileBus::open(config)).await?;
    Ok(Bus {
        publisher: Arc::new(file.publisher()),
        reader: Arc::new(file.reader()),
        admin: Arc::new(file.admin()),
    })
}

#[cfg(feature = "memory")]
fn memory_bus(config: eb_memory::MemoryConfig) -> Bus {
    let memory = eb_memory::MemoryBus::with_config(config);
    Bus {
        publisher: Arc::new(memory.publisher()),
        reader: Arc::new(memory.reader()),
        admin: Arc::new(memory.admin()),
    }
}

/// Opens the checkpoint store of a profile.
pub(crate) fn open_checkpoints(profile: &Profile) -> Result<Arc<dyn CheckpointStore>, OpenError> {
    match &profile.wiring.checkpoint_store {
        #[cfg(feature = "file")]
        CheckpointStoreConfig::File { root } => Ok(Arc::new(eb_file::FileCheckpointStore::open(root))),
        #[cfg(feature = "memory")]
        CheckpointStoreConfig::Memory => Ok(Arc::new(eb_memory::MemoryCheckpointStore::new())),
        CheckpointStoreConfig::Postgres { at, .. } => {
            Err(later(profile, *at, "wiring.checkpoint_store.kind", "postgres").into())
        }
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
        AdmissionIndexConfig::Postgres { at, .. } => {
            Err(later(profile, *at, "wiring.admission_index.kind", "postgres").into())
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
            Ok(file_bus(settings).await?)
        }
        #[cfg(feature = "memory")]
        QuarantineConfig::Memory => {
            Ok(memory_bus(eb_memory::MemoryConfig { max_envelope_bytes: 16 << 20, ..Default::default() }))
        }
        #[allow(unreachable_patterns, reason = "reachable where a backend is not built in")]
        _ => Err(not_built("quarantine").into()),
    }
}

/// Why a profile that names a store of a later release cannot be opened.
fn later(profile: &Profile, at: Place, key: &str, name: &str) -> ProfileError {
    ProfileError::new(&profile.source.name(), format!("the {name} store comes with a later release"))
        .at(at)
        .key(key)
        .advise("use another kind")
}

fn not_built(what: &str) -> Error {
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
