//! The profile as values, read and checked.

use std::path::{Path, PathBuf};

use eb_contract::Topic;
use ig_gate::Policy;
use serde::Serialize;

use crate::error::{OpenError, Place, ProfileError};
use crate::gate;
use crate::interpolate::Env;
use crate::locate::{self, ProfileSource};
use crate::secret::Secret;
use crate::section::{Origin, Reading, Scalar, Section, Setting};
use crate::yaml;

/// The environment variable that overrides `wiring.event_bus_kind`.
pub const KIND_OVERRIDE: &str = "EVENT_BUS_KIND";

const MAX_PARTITIONS: u64 = 10_000;

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
}

/// Every kind there is a name for, whether or not this build has it.
const BUS_KINDS: &[(&str, BusKind)] = &[
    ("file", BusKind::File),
    ("memory", BusKind::Memory),
    ("kinesis", BusKind::Kinesis),
    ("redis", BusKind::Redis),
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
        }
    }

    /// Why this build cannot open it; `None` when it can.
    fn unavailable(self) -> Option<String> {
        let built = match self {
            Self::File => cfg!(feature = "file"),
            Self::Memory => cfg!(feature = "memory"),
            Self::Kinesis | Self::Redis => {
                return Some(format!("the {} backend comes with a later release", self.as_str()));
            }
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
    Postgres {
        /// The connection.
        url: Secret,
        /// Where it is set.
        at: Place,
    },
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
        /// The connection.
        url: Secret,
        /// Where it is set.
        at: Place,
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

#[derive(Clone, Copy)]
enum StoreKind {
    File,
    Memory,
    Embedded,
    Postgres,
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
        let wiring = read_wiring(&root, &source, env, &mut notices)?;
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

fn read_wiring(
    root: &Section<'_>,
    source: &ProfileSource,
    env: &Env,
    notices: &mut Vec<String>,
) -> Result<Wiring, ProfileError> {
    let known = ["event_bus_kind", "event_bus", "checkpoint_store", "admission_index", "quarantine"];
    let wiring = root.section("wiring", &known)?;
    let (kind, overridden) = read_kind(&wiring, env, notices)?;
    let event_bus = read_event_bus(&wiring, kind, overridden, source.base())?;
    let stores = Stores { wiring: &wiring, kind, overridden, base: source.base() };
    let result = Wiring {
        event_bus_kind: kind,
        checkpoint_store: stores.checkpoint_store(&event_bus, notices)?,
        admission_index: stores.admission_index(notices)?,
        quarantine: stores.quarantine()?,
        event_bus,
    };
    Ok(result)
}

/// The kind in force, and whether the environment overrides the profile's.
fn read_kind(
    wiring: &Section<'_>,
    env: &Env,
    notices: &mut Vec<String>,
) -> Result<(BusKind, bool), ProfileError> {
    let key = "event_bus_kind";
    let value = wiring.required(key)?;
    let refusal = |what| value.error(what).advise("use another kind or another build of this program");
    let variable = |what: String| ProfileError::new(KIND_OVERRIDE, what);
    let held =
        env.get(KIND_OVERRIDE).map_err(|_| variable("it holds something else than UTF-8".to_owned()))?;
    if let Some(wanted) = held.filter(|text| !text.is_empty()) {
        let Some((_, kind)) = BUS_KINDS.iter().find(|(name, _)| *name == wanted) else {
            let names: Vec<_> = BUS_KINDS.iter().map(|(name, _)| *name).collect();
            let shown: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(variable(format!("`{shown}` is no kind of event bus"))
                .advise(crate::section::suggestion(&wanted, &names)));
        };
        if let Some(why) = kind.unavailable() {
            return Err(variable(why).advise("set it to another kind, or unset it"));
        }
        let written = value.shown();
        if written != kind.as_str() {
            notices.push(format!(
                "{KIND_OVERRIDE}={} in the environment overrides {key} `{written}` of the profile",
                kind.as_str()
            ));
            let origin = Origin::Override { variable: KIND_OVERRIDE };
            wiring.reading.record(&wiring.full(key), kind.as_str().to_owned(), false, origin);
            return Ok((*kind, true));
        }
    }
    let unavailable =
        BUS_KINDS.iter().find(|(name, _)| *name == value.shown()).and_then(|(_, kind)| kind.unavailable());
    if let Some(why) = unavailable {
        return Err(refusal(why));
    }
    Ok((value.one_of(BUS_KINDS)?, false))
}

fn read_event_bus(
    wiring: &Section<'_>,
    kind: BusKind,
    overridden: bool,
    base: &Path,
) -> Result<EventBusConfig, ProfileError> {
    let bus = wiring.section(
        "event_bus",
        &["root", "topics", "create_topics", "max_envelope_bytes", "preallocate_bytes"],
    )?;
    let root = match bus.optional("root")? {
        Some(root) => Some(root.path_from(base)?),
        None if kind == BusKind::File => {
            let why = if overridden { " (EVENT_BUS_KIND=file needs it)" } else { "" };
            return Err(bus.missing("root", why));
        }
        None => None,
    };
    let mut topics = Vec::new();
    if let Some(section) = bus.optional_section("topics", None)? {
        for (name, at) in section.keys() {
            let full = section.full(name);
            let topic = Topic::new(name).map_err(|e| wiring.reading.error(at, &full, e.to_string()))?;
            let partitions = section.required(name)?.number(1..=MAX_PARTITIONS)?;
            // Within the range just checked.
            topics.push((topic, u32::try_from(partitions).unwrap_or(1)));
        }
    }
    let create_topics = match bus.optional("create_topics")? {
        Some(value) => value.boolean()?,
        None => bus.defaulted("create_topics", false),
    };
    let max_envelope_bytes = match bus.optional("max_envelope_bytes")? {
        Some(value) => value.number(1024..=16 << 20)?,
        None => bus.defaulted("max_envelope_bytes", eb_contract::EnvelopeLimits::DEFAULT_BYTES as u64),
    };
    let max_envelope_bytes = usize::try_from(max_envelope_bytes).unwrap_or(usize::MAX);
    let preallocate_bytes = match bus.optional("preallocate_bytes")? {
        Some(value) => value.number(0..=1 << 30)?,
        None => bus.defaulted("preallocate_bytes", 0),
    };
    Ok(EventBusConfig { root, topics, create_topics, max_envelope_bytes, preallocate_bytes })
}

/// Reads the sections of the stores, which depend on the bus's kind.
struct Stores<'a> {
    wiring: &'a Section<'a>,
    kind: BusKind,
    overridden: bool,
    base: &'a Path,
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

    /// A bus that ends with the process has nothing that a durable store could refer to.
    fn outlives_bus(
        &self,
        what: &str,
        at: Place,
        key: &str,
        notices: &mut Vec<String>,
    ) -> Result<bool, ProfileError> {
        if self.kind != BusKind::Memory {
            return Ok(false);
        }
        if self.overridden {
            notices.push(format!("with the memory bus, {what} in memory too"));
            return Ok(true);
        }
        let error = self.wiring.reading.error(at, &self.wiring.full(key), "it would outlive the memory bus");
        Err(error.advise("use `kind: memory` with `event_bus_kind: memory`"))
    }

    fn checkpoint_store(
        &self,
        bus: &EventBusConfig,
        notices: &mut Vec<String>,
    ) -> Result<CheckpointStoreConfig, ProfileError> {
        let key = "checkpoint_store";
        let kinds =
            [("file", StoreKind::File), ("memory", StoreKind::Memory), ("postgres", StoreKind::Postgres)];
        let (section, kind, at) = self.open(key, &["kind", "root", "url"], &kinds)?;
        let config = match kind {
            StoreKind::Postgres => {
                CheckpointStoreConfig::Postgres { url: section.required("url")?.secret()?, at }
            }
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

    fn admission_index(&self, notices: &mut Vec<String>) -> Result<AdmissionIndexConfig, ProfileError> {
        let key = "admission_index";
        let kinds = [
            ("embedded", StoreKind::Embedded),
            ("memory", StoreKind::Memory),
            ("postgres", StoreKind::Postgres),
        ];
        let known = ["kind", "path", "max_lag", "cache_bytes", "url"];
        let (section, kind, at) = self.open(key, &known, &kinds)?;
        let config = match kind {
            StoreKind::Postgres => {
                AdmissionIndexConfig::Postgres { url: section.required("url")?.secret()?, at }
            }
            StoreKind::Embedded => {
                let path = section.required("path")?.path_from(self.base)?.join(self.kind.as_str());
                let max_lag = match section.optional("max_lag")? {
                    Some(value) => value.number(1_000..=1_000_000)?,
                    None => section.defaulted("max_lag", 100_000),
                };
                let cache_bytes = match section.optional("cache_bytes")? {
                    Some(value) => value.number(1 << 20..=64 << 30)?,
                    None => section.defaulted("cache_bytes", 64 << 20),
                };
                let max_lag = usize::try_from(max_lag).unwrap_or(usize::MAX);
                AdmissionIndexConfig::Embedded { path, max_lag, cache_bytes }
            }
            StoreKind::Memory | StoreKind::File => return Ok(AdmissionIndexConfig::Memory),
        };
        let moved = self.outlives_bus("the admission index is", at, key, notices)?;
        Ok(if moved { AdmissionIndexConfig::Memory } else { config })
    }

    /// Evidence may outlive the bus.
    fn quarantine(&self) -> Result<QuarantineConfig, ProfileError> {
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
