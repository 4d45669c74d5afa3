//! The sections of the stores.

use std::path::Path;
use std::time::Duration;

use crate::error::{Place, ProfileError};
use crate::model::{AdmissionIndexConfig, BusKind, CheckpointStoreConfig, EventBusConfig, QuarantineConfig};
use crate::postgres::{self, PostgresSettings};
use crate::section::Section;

/// Records that an index may be behind its log.
const MAX_LAG: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const DEFAULT_LAG: u64 = 100_000;

#[derive(Clone, Copy)]
enum StoreKind {
    File,
    Memory,
    Embedded,
    Postgres,
}

/// Reads the sections of the stores, which depend on the bus's kind.
pub(crate) struct Stores<'a> {
    pub(crate) wiring: &'a Section<'a>,
    pub(crate) profile_id: &'a str,
    pub(crate) kind: BusKind,
    pub(crate) ends_with_process: bool,
    pub(crate) overridden: bool,
    pub(crate) base: &'a Path,
}

impl Stores<'_> {
    fn open<'s>(
        &'s self,
        key: &str,
        keys: &[&str],
        kinds: &[(&'static str, StoreKind)],
    ) -> Result<(Section<'s>, StoreKind, Place), ProfileError> {
        let section = self.wiring.section(key, keys)?;
        let kind = section.required("kind")?;
        let at = kind.at;
        let kind = kind.one_of(kinds)?;
        Ok((section, kind, at))
    }

    /// A bus that ends with the process has nothing that a durable store could refer to: whether one is to be in memory instead.
    ///
    /// # Errors
    /// Unless the bus is the environment's: then the profile is right, and what becomes of the store is a notice.
    pub(crate) fn outlives_bus(
        &self,
        what: &str,
        at: Place,
        key: &str,
        notices: &mut Vec<String>,
    ) -> Result<bool, ProfileError> {
        if !self.ends_with_process {
            return Ok(false);
        }
        if self.overridden {
            notices.push(format!("with the memory bus, {what} in memory too"));
            return Ok(true);
        }
        let error = self.wiring.reading.error(at, &self.wiring.full(key), "it would outlive the memory bus");
        Err(error.advise("use `kind: memory` with `event_bus_kind: memory`"))
    }

    pub(crate) fn checkpoint_store(
        &self,
        bus: &EventBusConfig,
        notices: &mut Vec<String>,
    ) -> Result<CheckpointStoreConfig, ProfileError> {
        let key = "checkpoint_store";
        let kinds =
            [("file", StoreKind::File), ("memory", StoreKind::Memory), ("postgres", StoreKind::Postgres)];
        let known = [&["kind", "root"], postgres::KEYS].concat();
        let (section, kind, at) = self.open(key, &known, &kinds)?;
        let config = match kind {
            StoreKind::Postgres => CheckpointStoreConfig::Postgres(self.database(&section)?),
            StoreKind::File => {
                let root = match (section.optional("root")?, &bus.root) {
                    (Some(root), _) => root.path_from(self.base)?,
                    (None, Some(root)) => section.defaulted("root", root.display().to_string()).into(),
                    (None, None) => {
                        return Err(section.missing("root", ", and the event bus has no root to lie in"));
                    }
                };
                CheckpointStoreConfig::File { root }
            }
            StoreKind::Memory | StoreKind::Embedded => return Ok(CheckpointStoreConfig::Memory),
        };
        let moved = self.outlives_bus("checkpoints are", at, key, notices)?;
        Ok(if moved { CheckpointStoreConfig::Memory } else { config })
    }

    pub(crate) fn admission_index(
        &self,
        notices: &mut Vec<String>,
    ) -> Result<AdmissionIndexConfig, ProfileError> {
        let key = "admission_index";
        let kinds = [
            ("embedded", StoreKind::Embedded),
            ("memory", StoreKind::Memory),
            ("postgres", StoreKind::Postgres),
        ];
        let own = ["kind", "path", "max_lag", "cache_bytes", "gate", "lease_ms"];
        let (section, kind, at) = self.open(key, &[&own, postgres::KEYS].concat(), &kinds)?;
        let config = match kind {
            StoreKind::Postgres => AdmissionIndexConfig::Postgres {
                database: self.database(&section)?,
                gate: section.text_or("gate", 128, self.profile_id)?,
                lease: Duration::from_millis(section.number_or("lease_ms", 1_000..=3_600_000, 30_000)?),
                max_lag: section.number_or("max_lag", MAX_LAG, DEFAULT_LAG)?,
            },
            StoreKind::Embedded => {
                let path = section.required("path")?.path_from(self.base)?.join(self.kind.as_str());
                let max_lag = section.number_or("max_lag", MAX_LAG, DEFAULT_LAG)?;
                let max_lag = usize::try_from(max_lag).unwrap_or(usize::MAX);
                let cache_bytes = section.number_or("cache_bytes", 1 << 20..=64 << 30, 64 << 20)?;
                AdmissionIndexConfig::Embedded { path, max_lag, cache_bytes }
            }
            StoreKind::Memory | StoreKind::File => return Ok(AdmissionIndexConfig::Memory),
        };
        let moved = self.outlives_bus("the admission index is", at, key, notices)?;
        Ok(if moved { AdmissionIndexConfig::Memory } else { config })
    }

    /// The database of a store: positions of one kind of bus mean nothing in another, so each kind has tables of its own.
    fn database(&self, section: &Section<'_>) -> Result<PostgresSettings, ProfileError> {
        postgres::read(section, self.kind, self.base)
    }

    /// Evidence may outlive the bus.
    pub(crate) fn quarantine(&self) -> Result<QuarantineConfig, ProfileError> {
        let kinds = [("file", StoreKind::File), ("memory", StoreKind::Memory)];
        let (section, kind, _) = self.open("quarantine", &["kind", "root"], &kinds)?;
        Ok(match kind {
            StoreKind::File => {
                QuarantineConfig::File { root: section.required("root")?.path_from(self.base)? }
            }
            _ => QuarantineConfig::Memory,
        })
    }
}
