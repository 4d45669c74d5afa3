//! The profile as values, read and checked.

use std::path::PathBuf;
use std::time::Duration;

use eb_contract::Topic;
use ig_gate::Policy;
use serde::Serialize;

use crate::backend;
use crate::consumer::ConsumersConfig;
use crate::error::{OpenError, Place, ProfileError};
use crate::gate;
use crate::interpolate::Env;
use crate::kinesis::KinesisSettings;
use crate::locate::{self, ProfileSource};
use crate::postgres::PostgresSettings;
use crate::redis::RedisSettings;
use crate::rollout::RolloutSettings;
use crate::section::{Reading, Scalar, Section, Setting};
use crate::wiring;
use crate::yaml;

/// The environment variable that overrides `wiring.event_bus_kind`.
pub const KIND_OVERRIDE: &str = "EVENT_BUS_KIND";

/// A profile: read, its variables replaced, every key known and every value within its range. Nothing has been opened.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name, 1 to 64 of `[A-Za-z0-9._-]`.
    pub profile_id: String,
    /// Where it was read from.
    pub source: ProfileSource,
    /// The gate's policy.
    pub policy: PolicyConfig,
    /// Backends and stores.
    pub wiring: Wiring,
    /// What the reader should know, such as an override by the environment: a sentence each.
    pub notices: Vec<String>,
    /// All settings as resolved, with where each came from; secrets masked.
    pub settings: Vec<Setting>,
}

/// The section `policy`: files under the config root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The policy's revision, as receipts name it.
    pub policy_rev: String,
    /// Stream and key of each class.
    pub partitioning_profiles_ref: PolicyRef,
    /// Event type → class, and the pins of each class.
    pub class_map_ref: PolicyRef,
    /// Which payload versions are taken.
    pub schema_policy_ref: PolicyRef,
}

/// A reference to a policy file: a path below the config root, and the place where it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRef {
    /// The key that names it.
    pub key: &'static str,
    /// As written.
    pub path: String,
    /// Where.
    pub at: Place,
}

/// The section `wiring`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Which backend.
    pub event_bus_kind: BusKind,
    /// Its settings.
    pub event_bus: EventBusConfig,
    /// Where consumers' checkpoints are kept.
    pub checkpoint_store: CheckpointStoreConfig,
    /// Where the gate knows what it admitted.
    pub admission_index: AdmissionIndexConfig,
    /// Where the gate keeps what it did not admit.
    pub quarantine: QuarantineConfig,
    /// How consumers run, and where they keep what they have done.
    pub consumers: ConsumersConfig,
}

/// A kind of event bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BusKind {
    /// JSON lines on this machine: `eb-file`.
    File,
    /// In the process, gone with it: `eb-memory`.
    Memory,
    /// Amazon Kinesis.
    Kinesis,
    /// Redis Streams.
    Redis,
    /// One of the others, on the way to another one: `eb-rollout`.
    Rollout,
}

/// Every kind there is a name for, whether or not this build has it.
pub(crate) const BUS_KINDS: &[(&str, BusKind)] = &[
    ("file", BusKind::File),
    ("memory", BusKind::Memory),
    ("kinesis", BusKind::Kinesis),
    ("redis", BusKind::Redis),
    ("rollout", BusKind::Rollout),
];

impl BusKind {
    /// The name in a profile.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
            Self::Kinesis => "kinesis",
            Self::Redis => "redis",
            Self::Rollout => "rollout",
        }
    }

    /// Why this build cannot open it; `None` when it can.
    pub(crate) fn unavailable(self) -> Option<String> {
        let built = match self {
            Self::File => cfg!(feature = "file"),
            Self::Memory => cfg!(feature = "memory"),
            Self::Kinesis => cfg!(feature = "kinesis"),
            Self::Redis => cfg!(feature = "redis"),
            Self::Rollout => cfg!(feature = "rollout"),
        };
        (!built).then(|| not_built(self.as_str()))
    }
}

fn not_built(feature: &str) -> String {
    format!("this program was built without the cargo feature `{feature}`")
}

/// The section `wiring.event_bus`. Settings of other kinds than the one in use may stand in it: they are what
/// `EVENT_BUS_KIND` switches to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBusConfig {
    /// `root`: the folder of a file bus, resolved. Always there for kind `file`.
    pub root: Option<PathBuf>,
    /// `topics`: name → number of partitions.
    pub topics: Vec<(Topic, u32)>,
    /// `create_topics`: make topics that are missing when the platform is opened for writing.
    pub create_topics: bool,
    /// `max_envelope_bytes`.
    pub max_envelope_bytes: usize,
    /// `preallocate_bytes`: how far a file bus pads its logs ahead; 0 for not at all.
    pub preallocate_bytes: u64,
    /// `reserve_bytes`: the most room that a file bus asks of the file system beyond a log's end; 0 for none.
    pub reserve_bytes: u64,
    /// `kinesis`. Always there for kind `kinesis`.
    pub kinesis: Option<KinesisSettings>,
    /// `redis`. Always there for kind `redis`.
    pub redis: Option<RedisSettings>,
    /// `rollout`. Always there for kind `rollout`.
    pub rollout: Option<RolloutSettings>,
}

impl EventBusConfig {
    /// The kind of bus that positions in stores are of: of a rollout the old one's, for what was stored before it stays valid.
    pub(crate) fn positions_of(&self, kind: BusKind) -> BusKind {
        match &self.rollout {
            Some(rollout) if kind == BusKind::Rollout => rollout.old.kind,
            _ => kind,
        }
    }

    /// Whether everything ends with the process.
    pub(crate) fn ends_with_process(&self, kind: BusKind) -> bool {
        match &self.rollout {
            Some(rollout) if kind == BusKind::Rollout => {
                [rollout.old.kind, rollout.new.kind].contains(&BusKind::Memory)
            }
            _ => kind == BusKind::Memory,
        }
    }
}

/// The section `wiring.checkpoint_store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointStoreConfig {
    /// Files below `<root>/checkpoints`; `root` is the bus's unless set.
    File {
        /// The folder, resolved.
        root: PathBuf,
    },
    /// In the process.
    Memory,
    /// A PostgreSQL database.
    Postgres(PostgresSettings),
}

/// The section `wiring.admission_index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionIndexConfig {
    /// An embedded database: in `<path>/<event bus kind>`, for an index is a view of one log.
    Embedded {
        /// The folder, resolved, kind included.
        path: PathBuf,
        /// `max_lag`: how many records a crash may leave it behind the log.
        max_lag: usize,
        /// `cache_bytes`: memory for blocks read from disk.
        cache_bytes: u64,
    },
    /// In the process: rebuilt from the log at every start.
    Memory,
    /// A PostgreSQL database, shared by several gates.
    Postgres {
        /// The database.
        database: PostgresSettings,
        /// `gate`: what the other gates call this one.
        gate: String,
        /// `lease_ms`: how long a reservation of a gate that has gone keeps the others from looking into it.
        lease: Duration,
        /// `max_lag`: how many records a recovering gate may have to read again.
        max_lag: u64,
    },
}

/// The section `wiring.quarantine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantineConfig {
    /// A file bus of its own.
    File {
        /// Its folder, resolved.
        root: PathBuf,
    },
    /// In the process.
    Memory,
}

impl Profile {
    /// Finds, reads and checks a profile; opens nothing. `name_or_path` is as in [`crate::open`].
    ///
    /// # Errors
    /// [`ProfileError`] with file, line and key.
    pub fn load(name_or_path: &str) -> Result<Self, ProfileError> {
        Self::load_with(name_or_path, &Env::process())
    }

    /// As [`Profile::load`], with variables from elsewhere than the process.
    ///
    /// # Errors
    /// As for [`Profile::load`].
    pub fn load_with(name_or_path: &str, env: &Env) -> Result<Self, ProfileError> {
        let (source, text) = locate::find(name_or_path, env)?;
        Self::parse(source, &text, env)
    }

    /// Reads and checks a profile's text. Relative data paths are taken from `source`'s base.
    ///
    /// # Errors
    /// As for [`Profile::load`].
    pub fn parse(source: ProfileSource, text: &str, env: &Env) -> Result<Self, ProfileError> {
        let file = source.name();
        let tree = yaml::parse(&file, text)?;
        let reading = Reading { file: &file, env, settings: Default::default() };
        let root = Section::root(&reading, &tree, &["profile_id", "policy", "wiring"])?;
        let id = root.required("profile_id")?;
        let profile_id = name(id)?;
        let policy = read_policy(&root)?;
        let mut notices = Vec::new();
        let wiring = wiring::read(&root, &profile_id, &source, env, &mut notices)?;
        let settings = reading.settings.into_inner();
        Ok(Self { profile_id, source, policy, wiring, notices, settings })
    }

    /// The gate's policy, read and checked; opens nothing.
    ///
    /// # Errors
    /// [`OpenError::Policy`] with file, line and key, or [`OpenError::Profile`] for a reference that leads nowhere.
    pub fn load_policy(&self) -> Result<Policy, OpenError> {
        gate::load_policy(self)
    }

    /// Connects to the databases that the profile names, if any: for each the section of the store, and how it was found.
    /// Changes nothing, also not where the store would make its tables when it is first used.
    ///
    /// # Errors
    /// Of the first that cannot be used, with the reason.
    pub async fn look_at_databases(&self) -> Result<Vec<(&'static str, String)>, OpenError> {
        backend::look_at_databases(self).await
    }
}

fn name(value: Scalar<'_>) -> Result<String, ProfileError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let misfit = value.error("use 1 to 64 of A-Z a-z 0-9 . _ -");
    let text = value.text(64)?;
    if text.chars().all(allowed) { Ok(text) } else { Err(misfit) }
}

fn read_policy(root: &Section<'_>) -> Result<PolicyConfig, ProfileError> {
    const REFS: [&str; 3] = ["partitioning_profiles_ref", "class_map_ref", "schema_policy_ref"];
    let policy = root.section("policy", &["policy_rev", REFS[0], REFS[1], REFS[2]])?;
    let policy_rev = policy.required("policy_rev")?.text(64)?;
    let reference = |key: &'static str| {
        let value = policy.required(key)?;
        let at = value.at;
        Ok(PolicyRef { key, path: value.text(1024)?, at })
    };
    Ok(PolicyConfig {
        policy_rev,
        partitioning_profiles_ref: reference(REFS[0])?,
        class_map_ref: reference(REFS[1])?,
        schema_policy_ref: reference(REFS[2])?,
    })
}
