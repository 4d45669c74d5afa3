//! The section `wiring.event_bus.rollout`: two buses, and what decides between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ProfileError;
use crate::interpolate::Env;
use crate::model::{BUS_KINDS, BusKind, EventBusConfig, KIND_OVERRIDE};
use crate::postgres::{self, PostgresSettings};
use crate::section::Section;

const KEYS: &[&str] = &["old", "new", "state", "lease_ms", "triggers"];

const TRIGGERS: &[&str] = &["on_finding", "unavailable_ms", "p99_ratio_percent", "window_ms", "min_samples"];

/// A bus made of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSettings {
    /// `old`: the bus that is left.
    pub old: RolloutSide,
    /// `new`: the bus that is moved to.
    pub new: RolloutSide,
    /// `state`: the register that decides for all processes.
    pub state: RolloutState,
    /// `lease_ms`: how long a process may write without asking; taken from the register once it is there.
    pub lease: Duration,
    /// `triggers`.
    pub triggers: RolloutTriggers,
    /// `EVENT_BUS_KIND` names the old bus: opening for writing rolls back, for all processes.
    pub rollback_requested: bool,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSide {
    /// `kind`.
    pub kind: BusKind,
    /// Its settings; topics and limits are those of the rollout.
    pub config: Box<EventBusConfig>,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutState {
    /// Below `<root>/registers`: for the processes of one machine.
    File {
        /// The folder, resolved.
        root: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(PostgresSettings),
    /// In the process.
    Memory,
}

/// The section `triggers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutTriggers {
    /// `on_finding`: an event that is missing or differs in the mirror rolls back.
    pub on_finding: bool,
    /// `unavailable_ms`: how long the new bus may be unavailable; 0 for ever.
    pub unavailable: Option<Duration>,
    /// `p99_ratio_percent`: how much of the old bus's 99th percentile of publish latency the new one's may be; 0 for any.
    pub p99_ratio_percent: Option<u64>,
    /// `window_ms`: the stretch of time that latencies are compared over.
    pub window: Duration,
    /// `min_samples` of a window.
    pub min_samples: u64,
}

/// Reads the settings of a bus of a kind from a section; topics and limits apart.
pub(crate) type ReadSide<'r> =
    &'r mut dyn FnMut(&Section<'_>, BusKind) -> Result<EventBusConfig, ProfileError>;

/// Reads the section, where it is.
pub(crate) fn read(
    bus: &Section<'_>,
    kind: BusKind,
    env: &Env,
    base: &Path,
    side: ReadSide<'_>,
    notices: &mut Vec<String>,
) -> Result<Option<RolloutSettings>, ProfileError> {
    let Some(section) = bus.optional_section("rollout", Some(KEYS))? else {
        if kind == BusKind::Rollout {
            return Err(bus.missing("rollout", "").advise("write its `old`, `new` and `state` below it"));
        }
        return Ok(None);
    };
    let old = read_side(&section, "old", side)?;
    let new = read_side(&section, "new", side)?;
    let lease = Duration::from_millis(section.number_or("lease_ms", 20..=500, 500)?);
    let settings = RolloutSettings {
        state: read_state(&section, old.kind, base)?,
        lease,
        triggers: triggers(&section)?,
        rollback_requested: kind == BusKind::Rollout && requested(env, &old, notices)?,
        old,
        new,
    };
    Ok(Some(settings))
}

/// The environment never takes a process of a rollout to a bus of its own: it asks for the rollback of all.
fn requested(env: &Env, old: &RolloutSide, notices: &mut Vec<String>) -> Result<bool, ProfileError> {
    let held = env.get(KIND_OVERRIDE).ok().flatten().filter(|text| !text.is_empty());
    match held.as_deref() {
        None | Some("rollout") => Ok(false),
        Some(kind) if kind == old.kind.as_str() => {
            notices.push(format!(
                "{KIND_OVERRIDE}={kind} in the environment asks for the rollback of the rollout to its old bus, for all processes"
            ));
            Ok(true)
        }
        Some(_) => {
            let what = format!(
                "the profile is a rollout: {KIND_OVERRIDE} can only name its old bus, `{}`, and so roll all processes back",
                old.kind.as_str()
            );
            Err(ProfileError::new(KIND_OVERRIDE, what).advise("unset it, or use `eb rollout`"))
        }
    }
}

fn read_side(
    section: &Section<'_>,
    key: &'static str,
    side: ReadSide<'_>,
) -> Result<RolloutSide, ProfileError> {
    let of = section.section(key, &["kind", "root", "preallocate_bytes", "kinesis", "redis"])?;
    let kind = of.required("kind")?;
    let nested = kind.error("a rollout is made of two buses that are none");
    let kind = kind.one_of(BUS_KINDS)?;
    if kind == BusKind::Rollout {
        return Err(nested);
    }
    if let Some(why) = kind.unavailable() {
        return Err(of.reading.error(of.at, &of.full("kind"), why));
    }
    Ok(RolloutSide { kind, config: Box::new(side(&of, kind)?) })
}

#[derive(Clone, Copy)]
enum StateKind {
    File,
    Postgres,
    Memory,
}

fn read_state(section: &Section<'_>, old: BusKind, base: &Path) -> Result<RolloutState, ProfileError> {
    let state = section.section("state", &[&["kind", "root"], postgres::KEYS].concat())?;
    let kinds = [("file", StateKind::File), ("postgres", StateKind::Postgres), ("memory", StateKind::Memory)];
    Ok(match state.required("kind")?.one_of(&kinds)? {
        StateKind::File => RolloutState::File { root: state.required("root")?.path_from(base)? },
        StateKind::Postgres => RolloutState::Postgres(postgres::read(&state, old, base)?),
        StateKind::Memory => RolloutState::Memory,
    })
}

fn triggers(section: &Section<'_>) -> Result<RolloutTriggers, ProfileError> {
    let t = section.section_or_empty("triggers", TRIGGERS)?;
    let some = |n: u64| (n > 0).then_some(n);
    let ratio = t.number_or("p99_ratio_percent", 0..=1_000_000, 500)?;
    if (1..100).contains(&ratio) {
        let what = "the new bus would have to be faster than the old one; 0 is no limit";
        let at = t.optional("p99_ratio_percent")?.map_or(t.at, |written| written.at);
        return Err(t.reading.error(at, &t.full("p99_ratio_percent"), what));
    }
    Ok(RolloutTriggers {
        on_finding: t.boolean_or("on_finding", true)?,
        unavailable: some(t.number_or("unavailable_ms", 0..=86_400_000, 30_000)?).map(Duration::from_millis),
        p99_ratio_percent: some(ratio),
        window: Duration::from_millis(t.number_or("window_ms", 100..=86_400_000, 60_000)?),
        min_samples: t.number_or("min_samples", 1..=1_000_000, 200)?,
    })
}

#[cfg(feature = "rollout")]
pub(crate) mod opened {
    //! Opening both buses and the register.

    use std::sync::Arc;
    use std::time::Duration;

    use eb_contract::stores::RegisterStore;
    use eb_contract::{
        BoxFuture, Capabilities, Cursor, Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader,
        Head, OffsetKind, PartitionId, Result, StartAt, Topic, TopicPartitions,
    };
    use eb_rollout::{Phase, RolloutBus, RolloutConfig, RolloutParts, SideBus, Triggers};
    use tokio::sync::OnceCell;

    use super::{RolloutSettings, RolloutSide, RolloutState};
    use crate::backend::{Opened, Purpose, open_kind};
    use crate::error::OpenError;
    use crate::model::{BusKind, Profile};

    /// Opens the rollout; rolls it back first, where the environment asks for that.
    pub(crate) async fn open(
        profile: &Profile,
        settings: &RolloutSettings,
        purpose: Purpose,
    ) -> Result<RolloutBus, OpenError> {
        let parts = RolloutParts {
            old: side("old", &settings.old, purpose).await?,
            new: side("new", &settings.new, purpose).await?,
            registers: registers(profile, &settings.state).await?,
        };
        let t = &settings.triggers;
        // Whole percents far below 2^53.
        #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
        let p99_ratio = t.p99_ratio_percent.map(|percent| percent as f64 / 100.0);
        let config = RolloutConfig {
            owner: format!("{} pid {}", profile.profile_id, std::process::id()),
            lease: settings.lease,
            workers: purpose == Purpose::Writing,
            triggers: Triggers {
                on_finding: t.on_finding,
                unavailable_for: t.unavailable,
                p99_ratio,
                window: t.window,
                min_samples: t.min_samples,
                ..Triggers::default()
            },
            ..RolloutConfig::default()
        };
        let bus = RolloutBus::open(parts, config).await?;
        if settings.rollback_requested && purpose == Purpose::Writing {
            let reason = format!(
                "{}={} in the environment of pid {}",
                crate::model::KIND_OVERRIDE,
                settings.old.kind.as_str(),
                std::process::id()
            );
            bus.control().rollback(Phase::Baseline, &reason).await?;
        }
        Ok(bus)
    }

    async fn registers(profile: &Profile, state: &RolloutState) -> Result<Arc<dyn RegisterStore>, OpenError> {
        match state {
            #[cfg(feature = "file")]
            RolloutState::File { root } => Ok(Arc::new(eb_store_local::FileRegisterStore::open(root))),
            #[cfg(feature = "memory")]
            RolloutState::Memory => Ok(Arc::new(eb_memory::MemoryRegisterStore::new())),
            #[cfg(feature = "postgres")]
            RolloutState::Postgres(settings) => {
                let config = settings.to_config(&profile.profile_id);
                let place = format!(
                    "{}:{}: wiring.event_bus.rollout.state.url",
                    profile.source.name(),
                    settings.at.line
                );
                let store = eb_checkpoint_pg::PgRegisterStore::open(&config).await;
                Ok(Arc::new(store.map_err(|e| crate::postgres::placed(e, &place))?))
            }
            #[allow(unreachable_patterns, reason = "reachable where a store is not built in")]
            _ => Err(OpenError::Bus(Error::new(
                ErrorKind::Unsupported,
                "open",
                "this program was built without the store of the rollout's state",
            ))),
        }
    }

    /// One bus. One that cannot be reached now is opened when it is used: a rollout goes on without it.
    async fn side(which: &str, side: &RolloutSide, purpose: Purpose) -> Result<SideBus, OpenError> {
        // The same kind on both sides is told apart by which it is.
        let name = format!("{which} {}", side.kind.as_str());
        // AWS names a second for what GetRecords may lag behind an ACK.
        let shows_within =
            if side.kind == BusKind::Kinesis { Duration::from_secs(1) } else { Duration::ZERO };
        let lazy = Arc::new(Lazy {
            side: side.clone(),
            purpose,
            opened: OnceCell::new(),
            capabilities: expected(side),
        });
        match lazy.get().await {
            Ok(opened) => Ok(SideBus {
                name,
                reader: opened.reader.clone(),
                admin: opened.admin.clone(),
                publisher: publisher(lazy.clone()),
                shows_within,
            }),
            Err(error) if error.is_retryable() => Ok(SideBus {
                name,
                reader: lazy.clone(),
                admin: lazy.clone(),
                publisher: publisher(lazy),
                shows_within,
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn publisher(lazy: Arc<Lazy>) -> eb_rollout::PublisherFactory {
        Arc::new(move || -> BoxFuture<'static, Result<Arc<dyn EventBusPublisher>>> {
            let lazy = lazy.clone();
            Box::pin(async move { Ok((lazy.get().await?.publisher)()) })
        })
    }

    /// What a bus that has not been reached yet is expected to promise.
    fn expected(side: &RolloutSide) -> Capabilities {
        let kind = match side.kind {
            BusKind::Kinesis => OffsetKind::KinesisSequence,
            BusKind::Redis => OffsetKind::RedisStreamId,
            BusKind::Memory => OffsetKind::MemoryIndex,
            BusKind::File | BusKind::Rollout => OffsetKind::FileLine,
        };
        let mut caps = Capabilities::new(side.kind.as_str(), kind);
        caps.max_envelope_bytes = side.config.max_envelope_bytes;
        caps.unknown_outcomes = true;
        caps.retention = matches!(side.kind, BusKind::Kinesis | BusKind::Redis);
        caps
    }

    /// A bus that is opened by its first call that succeeds.
    struct Lazy {
        side: RolloutSide,
        purpose: Purpose,
        opened: OnceCell<Opened>,
        capabilities: Capabilities,
    }

    impl Lazy {
        async fn get(&self) -> Result<&Opened> {
            let open = || async {
                open_kind(self.side.kind, &self.side.config, self.purpose).await.map_err(|e| match e {
                    OpenError::Bus(error) => error,
                    other => Error::new(ErrorKind::InvalidInput, "open", other.to_string()),
                })
            };
            self.opened.get_or_try_init(open).await
        }
    }

    impl EventBusReader for Lazy {
        fn capabilities(&self) -> &Capabilities {
            &self.capabilities
        }

        fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
            Box::pin(async { self.get().await?.reader.topics().await })
        }

        fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
            Box::pin(async move { self.get().await?.reader.partitions(topic).await })
        }

        fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
            Box::pin(async move { self.get().await?.reader.head(topic, partition).await })
        }

        fn cursor<'a>(
            &'a self,
            topic: &'a Topic,
            partition: PartitionId,
            start: StartAt,
        ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
            Box::pin(async move { self.get().await?.reader.cursor(topic, partition, start).await })
        }

        fn close(&self) -> BoxFuture<'static, Result<()>> {
            match self.opened.get() {
                Some(opened) => opened.reader.close(),
                None => Box::pin(async { Ok(()) }),
            }
        }
    }

    impl EventBusAdmin for Lazy {
        fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
            Box::pin(async move { self.get().await?.admin.create_topic(topic, partitions).await })
        }
    }
}
