//! Opening both buses and the register.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::RegisterStore;
use eb_contract::{
    BoxFuture, Capabilities, Cursor, Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader,
    Head, OffsetKind, PartitionId, RegisterName, Result, StartAt, Topic, TopicPartitions,
};
use eb_rollout::{MirrorConfig, Phase, RolloutBus, RolloutConfig, RolloutParts, SideBus, Triggers};
use tokio::sync::OnceCell;

use super::claims::{Register, RolloutClaims, SideClaim};
use super::{RolloutSettings, RolloutSide, RolloutState};
use crate::backend::{Opened, Purpose, open_kind};
use crate::error::OpenError;
use crate::model::{BusKind, Profile};

/// Opens the rollout; rolls it back first, where the environment asks for that.
pub(crate) async fn open(
    profile: &Profile,
    settings: &RolloutSettings,
    purpose: Purpose,
) -> Result<(RolloutBus, RolloutClaims), OpenError> {
    let registers = registers(profile, &settings.state).await?;
    let config = RolloutConfig::default();
    let state = RegisterName::new(&config.name).map_err(|e| invalid(e.to_string()))?;
    let sides = [("old", &settings.old), ("new", &settings.new)].map(|(which, side)| {
        // The same kind on both sides is told apart by which it is.
        let name = format!("{which} {}", side.kind.as_str());
        Lazy::new(name, side.clone(), purpose, (registers.clone(), state.clone()))
    });
    let (old, new) = tokio::join!(side(&sides[0]), side(&sides[1]));
    let parts = RolloutParts { old: old?, new: new?, registers };
    let t = &settings.triggers;
    // Whole percents far below 2^53.
    #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
    let p99_ratio = t.p99_ratio_percent.map(|percent| percent as f64 / 100.0);
    let config = RolloutConfig {
        owner: format!("{} pid {}", profile.profile_id, std::process::id()),
        lease: settings.lease,
        rest: settings.rest,
        mirror: MirrorConfig { patience: settings.mirror_patience, ..MirrorConfig::default() },
        workers: purpose == Purpose::Writing,
        triggers: Triggers {
            on_finding: t.on_finding,
            unavailable_for: t.unavailable,
            p99_ratio,
            p99_floor: t.p99_floor,
            p99_windows: t.p99_windows,
            window: t.window,
            min_samples: t.min_samples,
            ..Triggers::default()
        },
        ..config
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
    Ok((bus, RolloutClaims::new(sides)))
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "open rollout", what)
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
            let place =
                format!("{}:{}: wiring.event_bus.rollout.state.url", profile.source.name(), settings.at.line);
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

/// How long the opening of a rollout waits for one of its buses. It goes on without one that is gone, and without one that hangs.
const OPENING: Duration = Duration::from_millis(250);

/// One bus. One that cannot be reached now is opened when it is used: a rollout goes on without it.
async fn side(lazy: &Arc<Lazy>) -> Result<SideBus, OpenError> {
    let opened = match tokio::time::timeout(OPENING, lazy.get()).await {
        Ok(Ok(opened)) => Some((opened.reader.clone(), opened.admin.clone())),
        Ok(Err(error)) if error.is_retryable() => None,
        // Nobody has written to it yet.
        Ok(Err(error)) if lazy.purpose == Purpose::Reading && *error.kind() == ErrorKind::NotFound => None,
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => None,
    };
    let (reader, admin): (Arc<dyn EventBusReader>, Arc<dyn EventBusAdmin>) =
        opened.unwrap_or_else(|| (lazy.clone(), lazy.clone()));
    Ok(SideBus {
        name: lazy.name.clone(),
        reader,
        admin,
        publisher: publisher(lazy.clone()),
        // AWS names a second for what reads may lag behind an ACK.
        shows_within: match lazy.side.kind {
            BusKind::Kinesis => Duration::from_secs(1),
            _ => Duration::ZERO,
        },
    })
}

fn publisher(lazy: Arc<Lazy>) -> eb_rollout::PublisherFactory {
    Arc::new(move || -> BoxFuture<'static, Result<Arc<dyn EventBusPublisher>>> {
        let lazy = lazy.clone();
        Box::pin(async move {
            let opened = lazy.get().await?;
            lazy.claim.is_made(&opened.claims).await?;
            Ok((opened.publisher)())
        })
    })
}

/// What a bus that has not been reached yet is expected to promise.
fn expected(side: &RolloutSide) -> Capabilities {
    let known = match side.kind {
        #[cfg(feature = "redis")]
        BusKind::Redis => side
            .config
            .redis
            .as_ref()
            .and_then(|settings| settings.to_config(side.config.max_envelope_bytes).ok())
            .map(|config| eb_redis::capabilities(&config)),
        #[cfg(feature = "kinesis")]
        BusKind::Kinesis => {
            side.config.kinesis.as_ref().map(|settings| eb_kinesis::capabilities(&settings.to_config()))
        }
        _ => None,
    };
    known.unwrap_or_else(|| {
        let mut caps = Capabilities::new(side.kind.as_str(), OffsetKind::FileLine);
        caps.max_envelope_bytes = side.config.max_envelope_bytes;
        caps.unknown_outcomes = true;
        caps
    })
}

/// A bus that is opened by its first call that succeeds.
pub(crate) struct Lazy {
    name: String,
    side: RolloutSide,
    purpose: Purpose,
    opened: OnceCell<Opened>,
    capabilities: Capabilities,
    pub(crate) claim: SideClaim,
}

impl Lazy {
    fn new(name: String, side: RolloutSide, purpose: Purpose, state: Register) -> Arc<Self> {
        let (capabilities, claim) = (expected(&side), SideClaim::new(name.clone(), state));
        Arc::new(Self { name, side, purpose, opened: OnceCell::new(), capabilities, claim })
    }

    pub(crate) async fn get(&self) -> Result<&Opened> {
        let open = || async {
            open_kind(self.side.kind, &self.side.config, self.purpose).await.map_err(|e| match e {
                OpenError::Bus(error) => error,
                other => Error::new(ErrorKind::InvalidInput, "open", other.to_string()),
            })
        };
        self.opened.get_or_try_init(open).await
    }

    /// The bus, if it is open.
    pub(crate) fn opened(&self) -> Option<&Opened> {
        self.opened.get()
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
